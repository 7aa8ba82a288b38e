"""A writer that is cut off at any of its steps, on an etcd in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from cluster.errors import Invalid, OutcomeUnknown, RegistryConflict, Unavailable
from cluster.etcd import Compare, Delete, NoSpace, Put
from cluster.keys import Keys
from cluster.registry import Create, Entry, Registry, Update, collect
from cluster.registry.changeset import Fold
from cluster.registry.snapshot import write_snapshot
from cluster.registry.store import Store
from tests.sim.memory_etcd import MemoryEtcd, MemoryWatch, run_virtually
from tests.sim.registry_scene import Client, Killed, with_steps

KEYS = Keys("unit")
PATIENCE = timedelta(seconds=10)


def entry(n: int) -> Entry:
    return Entry("a:x", "registry.entry", {}, {"n": n})


class Scripted(MemoryEtcd):
    """Calls ``on_request(number)`` before and ``on_answer(number)`` after each transaction is applied."""

    def __init__(self) -> None:
        super().__init__(Random(1))
        self.number = -1
        self.is_full = False
        self.on_request: Callable[[int, Sequence[Any]], None] = lambda number, operations: None
        self.on_answer: Callable[[int, Sequence[Any]], None] = lambda number, operations: None

    async def txn(self, compares: Any, success: Any, failure: Any = ()) -> Any:
        self.number += 1
        self.on_request(self.number, success)
        result = await super().txn(compares, success, failure)
        self.on_answer(self.number, success)
        return result


def is_commit(operations: Sequence[Any]) -> bool:
    return any(isinstance(each, Put) and each.key == KEYS.head for each in operations)


def is_settling(operations: Sequence[Any]) -> bool:
    return len(operations) == 1 and isinstance(operations[0], Delete)


async def opened(stack: AsyncExitStack, etcd: MemoryEtcd, name: str = "a") -> Registry:
    watch = MemoryWatch(etcd)
    registry = Registry(etcd, watch, KEYS, name, snapshot_every=100, patience=PATIENCE)  # type: ignore[arg-type]
    watch.start()
    return await stack.enter_async_context(registry)


async def assert_only_what_is_named_is_left(etcd: MemoryEtcd) -> None:
    for lease in list(etcd.leases):
        etcd.expire(lease)
    await collect(etcd, KEYS)  # type: ignore[arg-type]
    named = {
        json.loads(kv.value)["u"] for key, kv in etcd.kvs.items() if key.startswith((KEYS.changes, KEYS.snapshots))
    }
    left = {key.removeprefix(KEYS.blobs).split("/")[0] for key in etcd.kvs if key.startswith(KEYS.blobs)}
    assert left == named
    assert not [key for key in etcd.kvs if key.startswith(KEYS.uploads)]


LARGE = {"text": "x" * 1_200_000}
"""Three chunks."""


def test_a_writer_killed_before_or_after_any_request_leaves_only_garbage() -> None:
    outcomes = [run_virtually(killed_after(0))]
    while outcomes[-1] is not None:
        outcomes.append(run_virtually(killed_after(len(outcomes))))
    applied = outcomes[:-1]
    assert len(applied) == 12, "two for each: the read, the lease, the upload with a chunk, two chunks, the commit"
    assert applied == [False] * 11 + [True]


async def killed_after(steps: int) -> bool | None:
    """Whether a change of three chunks was applied though its writer was killed; None when it had no more steps."""
    left = steps

    async def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    etcd = Scripted()
    async with AsyncExitStack() as stack:
        client: Any = Client(etcd)
        b, a = await opened(stack, etcd, "b"), await opened(stack, client, "a")
        await b.commit([Create(entry(0))])
        await a.reached(0)
        doomed = a.commit([Update(Entry("a:x", "registry.entry", {}, LARGE))])
        (outcome,) = await asyncio.gather(_survive(with_steps(step, doomed)))
        version = (await Store(etcd, KEYS).head()).version  # type: ignore[arg-type]
        found = (await b.reached(version)).get("a:x")
        assert found is not None
        assert found.data == (LARGE if version else {"n": 0})
        await collect(etcd, KEYS)  # type: ignore[arg-type]
        await b.commit([Update(entry(version + 1))])
        await assert_only_what_is_named_is_left(etcd)
        late = await opened(stack, etcd, "late")
        assert late.state.get("a:x") == entry(version + 1)
    return None if outcome else version == 1


async def _survive(work: Any) -> Any:
    try:
        return await work
    except Killed:
        return None


def test_a_commit_whose_answer_is_lost_is_found_applied() -> None:
    async def play() -> None:
        etcd = Scripted()
        async with AsyncExitStack() as stack:
            a = await opened(stack, etcd)

            def lose(number: int, operations: Sequence[Any]) -> None:
                if is_commit(operations):
                    raise OutcomeUnknown("lost")

            etcd.on_answer = lose
            assert (await a.commit([Create(entry(1))])).version == 0
            assert len(await a.versions()) == 1

    run_virtually(play())


def test_a_commit_that_arrives_late_is_stopped_and_made_again() -> None:
    async def play() -> None:
        etcd = Scripted()
        async with AsyncExitStack() as stack:
            a = await opened(stack, etcd)
            held: list[tuple[Any, Any]] = []
            real = MemoryEtcd.txn

            async def txn(compares: Any, success: Any, failure: Any = ()) -> Any:
                if is_commit(success) and not held:
                    held.append((compares, success))
                    raise OutcomeUnknown("still on its way")
                return await real(etcd, compares, success, failure)

            etcd.txn = txn  # type: ignore[method-assign]
            assert (await a.commit([Create(entry(1))])).version == 0
            late = etcd._transact(*held[0])
            assert not late.succeeded
            assert len(await a.versions()) == 1

    run_virtually(play())


def test_past_its_deadline_the_outcome_is_unknown_and_nobody_retries() -> None:
    async def play() -> None:
        etcd = Scripted()
        async with AsyncExitStack() as stack:
            a = await opened(stack, etcd)
            commits: list[int] = []

            def lose(number: int, operations: Sequence[Any]) -> None:
                if is_commit(operations):
                    commits.append(number)
                if is_commit(operations) or is_settling(operations):
                    raise OutcomeUnknown("lost")

            etcd.on_request = lose
            with pytest.raises(OutcomeUnknown, match="commit of version 0"):
                await a.commit([Create(entry(1))])
            assert len(commits) == 1

    run_virtually(play())


def test_when_etcd_is_away_from_the_start_nothing_was_applied() -> None:
    async def play() -> None:
        etcd = Scripted()
        async with AsyncExitStack() as stack:
            a = await opened(stack, etcd)

            def refuse(number: int, operations: Sequence[Any]) -> None:
                raise Unavailable("down")

            etcd.on_request = refuse
            with pytest.raises(Unavailable, match="nothing was applied"):
                await a.commit([Create(entry(1))])
            assert not etcd.kvs

    run_virtually(play())


def test_an_upload_whose_lease_ended_is_started_over() -> None:
    async def play() -> None:
        etcd = Scripted()
        async with AsyncExitStack() as stack:
            a = await opened(stack, etcd)
            expired: list[int] = []

            def expire(number: int, operations: Sequence[Any]) -> None:
                if is_commit(operations) and not expired:
                    expired.extend(etcd.leases)
                    for lease in expired:
                        etcd.expire(lease)

            etcd.on_request = expire
            assert (await a.commit([Create(entry(1))])).version == 0
            await assert_only_what_is_named_is_left(etcd)

    run_virtually(play())


def test_the_loser_of_a_race_is_told_the_head_and_the_entry() -> None:
    async def play() -> None:
        etcd = Scripted()
        async with AsyncExitStack() as stack:
            a, b = await opened(stack, etcd, "a"), await opened(stack, etcd, "b")
            outcomes = await asyncio.gather(
                a.commit([Create(entry(1))]), b.commit([Create(entry(2))]), return_exceptions=True
            )
            (lost,) = [each for each in outcomes if isinstance(each, BaseException)]
            assert isinstance(lost, RegistryConflict)
            assert (lost.head, lost.changed) == (0, ["a:x"])

    run_virtually(play())


def test_two_snapshots_of_the_same_version_leave_one() -> None:
    async def play() -> None:
        etcd = Scripted()
        async with AsyncExitStack() as stack:
            a = await opened(stack, etcd)
            await a.commit([Create(entry(1))])
            written = await asyncio.gather(
                *(write_snapshot(etcd, KEYS, a.state, PATIENCE) for _ in range(2))  # type: ignore[arg-type]
            )
            assert sorted(written) == [False, True]
            await assert_only_what_is_named_is_left(etcd)

    run_virtually(play())


def test_an_overlay_judged_before_its_entry_became_code_is_refused() -> None:
    async def play() -> None:
        etcd = Scripted()
        async with AsyncExitStack() as stack:
            a = await opened(stack, etcd)
            await a.commit([Create(Entry("a:x", "process.lua"))])
            with pytest.raises(Invalid, match=r"kind process\.lua takes no overlay"):
                await a.fold(Fold("a:x", {"source": "evil"}, 7), Compare.mod("any", "=", 0))
            assert a.state.version == 0

    run_virtually(play())


@pytest.mark.parametrize("landed", [False, True])
def test_a_commit_whose_answer_is_lost_is_settled_on_an_etcd_that_got_full(landed: bool) -> None:
    async def play() -> None:
        etcd = Scripted()
        async with AsyncExitStack() as stack:
            a = await opened(stack, etcd)

            def lose(number: int, operations: Sequence[Any]) -> None:
                if is_commit(operations):
                    etcd.is_full = True
                    raise OutcomeUnknown("lost")
                if etcd.is_full and is_settling(operations):
                    raise NoSpace("full")

            setattr(etcd, "on_answer" if landed else "on_request", lose)
            real = MemoryEtcd.txn

            async def delete(key: str, *, repeatable: bool = False) -> bool:
                return (await real(etcd, [], [Delete(key)])).responses == [1]

            etcd.delete = delete  # type: ignore[method-assign]
            doomed = asyncio.gather(a.commit([Create(entry(1))]), return_exceptions=True)
            if landed:
                ((info,),) = [await doomed]
                assert info.version == 0
                return
            await asyncio.sleep(1)
            etcd.on_request = lambda number, operations: None
            assert (await doomed)[0].version == 0, "it did not land, so it is made again"
            assert len(await a.versions()) == 1

    run_virtually(play())
