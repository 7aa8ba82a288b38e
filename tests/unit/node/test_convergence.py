"""Convergence: handlers follow the newest version, entry by entry; one that fails is retried and shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from cluster.registry import Entry, RegistryState
from cluster.tasks import Tasks
from node.convergence import Convergence


class Handler:
    """Keeps what it was given; fails or hangs as told."""

    def __init__(self, name: str, kinds: str) -> None:
        self.name = name
        self.kinds = kinds
        self.seen: list[tuple[str, Any]] = []
        self.failures: dict[str, list[Exception]] = {}
        self.hanging: dict[str, asyncio.Event] = {}

    def handles(self, kind: str) -> bool:
        return kind.startswith(self.kinds)

    async def put(self, entry: Entry) -> None:
        self.seen.append((entry.id, entry.data["n"]))
        await self._answer(entry.id)

    async def remove(self, id: str) -> None:
        self.seen.append((id, None))
        await self._answer(id)

    async def _answer(self, id: str) -> None:
        if id in self.hanging:
            await self.hanging[id].wait()
        if self.failures.get(id):
            raise self.failures[id].pop(0)


def entry(name: str, n: int = 0, kind: str = "process.host") -> Entry:
    return Entry(f"app:{name}", kind, {}, {"n": n})


def state(version: int, *entries: Entry) -> RegistryState:
    return RegistryState.of(entries, version)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def hosts() -> Handler:
    return Handler("hosts", "process.host")


@pytest.fixture
def stores() -> Handler:
    return Handler("stores", "store.")


@pytest.fixture
async def convergence(hosts: Handler, stores: Handler) -> AsyncIterator[Convergence]:
    converging = Convergence([hosts, stores])
    async with Tasks("test") as tasks:
        tasks.start(converging.run(), "run")
        yield converging


async def test_a_failing_entry_is_shown_and_tried_again_until_it_works_and_the_others_are_let_be(
    convergence: Convergence, hosts: Handler, stores: Handler
) -> None:
    hosts.failures["app:bad"] = [OSError("no room"), RuntimeError("still none")]
    convergence.aim(state(3, entry("bad"), entry("good"), entry("store", kind="store.memory")))
    await convergence.reached(3, 1.0)
    (degraded,) = convergence.degraded()
    assert (degraded.handler, degraded.entry, degraded.version, degraded.reason) == ("hosts", "app:bad", 3, "no room")
    await until(lambda: not convergence.degraded())
    assert hosts.seen == [("app:bad", 0), ("app:good", 0), ("app:bad", 0), ("app:bad", 0)]
    assert stores.seen == [("app:store", 0)]


async def test_an_entry_that_hangs_holds_up_no_other_and_no_later_version_of_others(
    convergence: Convergence, hosts: Handler, stores: Handler
) -> None:
    hosts.hanging["app:slow"] = asyncio.Event()
    convergence.aim(state(0, entry("slow"), entry("store", kind="store.memory")))
    await until(lambda: stores.seen)
    convergence.aim(state(1, entry("slow"), entry("store", 1, kind="store.memory")))
    await until(lambda: stores.seen == [("app:store", 0), ("app:store", 1)])
    assert convergence.version == -1, "its own outcome is not known yet"
    with pytest.raises(TimeoutError):
        await convergence.reached(0, 0.05)
    hosts.hanging["app:slow"].set()
    await convergence.reached(1, 1.0)


async def test_a_handler_that_breaks_is_a_reason_too(convergence: Convergence, hosts: Handler) -> None:
    hosts.failures["app:x"] = [KeyError("broken")]
    convergence.aim(state(1, entry("x")))
    await convergence.reached(1, 1.0)
    assert "KeyError: 'broken'" in convergence.degraded()[0].reason


async def test_a_failure_to_remove_is_shown_until_it_is_removed(convergence: Convergence, hosts: Handler) -> None:
    convergence.aim(state(0, entry("x")))
    await convergence.reached(0, 1.0)
    hosts.failures["app:x"] = [OSError("busy")]
    convergence.aim(state(1))
    await convergence.reached(1, 1.0)
    assert [(one.entry, one.version, one.reason) for one in convergence.degraded()] == [("app:x", 1, "busy")]
    await until(lambda: not convergence.degraded())
    assert hosts.seen == [("app:x", 0), ("app:x", None), ("app:x", None)]


async def test_a_kind_that_changes_hands_ends_with_one_handler_before_it_begins_with_the_other(
    convergence: Convergence, hosts: Handler, stores: Handler
) -> None:
    convergence.aim(state(0, entry("x")))
    await convergence.reached(0, 1.0)
    convergence.aim(state(1, entry("x", 1, kind="store.memory")))
    await convergence.reached(1, 1.0)
    assert hosts.seen == [("app:x", 0), ("app:x", None)]
    assert stores.seen == [("app:x", 1)]
    convergence.aim(state(2, entry("x", 2, kind="registry.entry")))
    await convergence.reached(2, 1.0)
    assert stores.seen[-1] == ("app:x", None)
