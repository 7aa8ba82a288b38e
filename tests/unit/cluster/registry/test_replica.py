"""A replica and what an etcd may show it, on an etcd in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from cluster.errors import CallTimeout
from cluster.etcd import Delete as DeleteKey
from cluster.etcd import Put
from cluster.keys import Keys
from cluster.registry import Create, Entry, Registry, Update
from cluster.registry.history import BEHIND
from cluster.registry.record import Blob, ChangeRecord, encode_head
from tests.sim.memory_etcd import MemoryEtcd, MemoryWatch, run_virtually

KEYS = Keys("unit")


def entry(n: int) -> Entry:
    return Entry("a:x", "registry.entry", {}, {"n": n})


def playing(play: Callable[[MemoryEtcd, Registry], Awaitable[None]]) -> None:
    """Run ``play`` with a registry at version 2."""

    async def run() -> None:
        etcd = MemoryEtcd(Random(1))
        watch = MemoryWatch(etcd)
        registry = Registry(etcd, watch, KEYS, "a", patience=timedelta(seconds=5))  # type: ignore[arg-type]
        watch.start()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(registry)
            for n in range(3):
                await registry.commit([Update(entry(n)) if n else Create(entry(0))])
            await play(etcd, registry)

    run_virtually(run())


def commit_by_hand(etcd: MemoryEtcd, version: int, payload: bytes, sha: str = "") -> None:
    blob = Blob(f"hand{version}", 1, sha or hashlib.sha256(payload).hexdigest(), len(payload))
    record = ChangeRecord(blob, "hand", datetime.now(UTC), "", 1)
    etcd._apply(
        [
            Put(KEYS.blob(blob.upload, 0), payload),
            Put(KEYS.change(version), record.encode()),
            Put(KEYS.head, encode_head(version)),
        ]
    )


def test_a_version_that_can_not_be_decoded_changes_nothing_but_the_version() -> None:
    async def play(etcd: MemoryEtcd, registry: Registry) -> None:
        commit_by_hand(etcd, 3, b"not a changeset")
        assert (await registry.reached(3)).get("a:x") == entry(2)
        assert (await registry.commit([Update(entry(4))])).version == 4

    playing(play)


@pytest.mark.parametrize("operation", [DeleteKey(KEYS.head), Put(KEYS.head, b"twelve")])
def test_a_head_that_is_gone_or_unreadable_leaves_the_node_with_what_it_has(operation: object) -> None:
    async def play(etcd: MemoryEtcd, registry: Registry) -> None:
        etcd._apply([operation])  # type: ignore[list-item]
        await asyncio.sleep(10)
        assert registry.state.get("a:x") == entry(2)

    playing(play)


def test_a_head_that_went_back_is_followed() -> None:
    async def play(etcd: MemoryEtcd, registry: Registry) -> None:
        etcd._apply([Put(KEYS.head, encode_head(1)), DeleteKey(KEYS.change(2))])
        await asyncio.sleep(1)
        assert (registry.state.version, registry.state.get("a:x")) == (1, entry(1))
        assert (await registry.commit([Update(entry(7))])).version == 2
        assert registry.state.get("a:x") == entry(7)

    playing(play)


def test_a_payload_that_does_not_match_is_waited_for_not_applied() -> None:
    async def play(etcd: MemoryEtcd, registry: Registry) -> None:
        from cluster.registry import Changeset

        payload = Changeset((Update(entry(3)),)).payload()
        commit_by_hand(etcd, 3, b"damaged", hashlib.sha256(payload).hexdigest())
        with pytest.raises(CallTimeout):
            await registry.reached(3, timedelta(seconds=2))
        assert registry.lag == 1
        assert registry.state.version == 2
        etcd._apply([Put(KEYS.blob("hand3", 0), payload)])
        assert (await registry.reached(3)).get("a:x") == entry(3)

    playing(play)


def test_who_follows_and_takes_nothing_holds_no_more_than_so_many_steps() -> None:
    async def play(etcd: MemoryEtcd, registry: Registry) -> None:
        with registry.follow() as steps:
            for n in range(BEHIND + 5):
                await registry.commit([Update(entry(100 + n))])
            taken = [await anext(steps) for _ in range(BEHIND)]
            assert [step.after.version for step in taken[:-1]] == list(range(3, BEHIND + 2))
            newest = taken[-1]
            assert (newest.info, newest.before.version, newest.after.version) == (None, BEHIND + 1, BEHIND + 7)
            await registry.commit([Update(entry(1))])
            assert (await anext(steps)).info is not None

    playing(play)
