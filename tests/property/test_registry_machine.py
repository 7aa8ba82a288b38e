"""Any changes, crashes, rollbacks, overlays, cuts and collections in any order, on the etcd in memory."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import datetime
from random import Random
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from cluster.etcd import Compare
from cluster.keys import Keys
from cluster.registry import Changeset, Keep, RegistryState, commit, registry, replica
from cluster.registry.upload import Upload
from tests.sim.memory_etcd import MemoryEtcd, MemoryWatch, VirtualLoop
from tests.sim.registry_machine import RegistryMachine
from tests.sim.registry_scene import Scene

# the package exports the function of this name
collect = sys.modules["cluster.registry.collect"]


class InMemory(RegistryMachine):
    def make(self, seed: int) -> Scene:
        random.seed(seed)
        etcd = MemoryEtcd(Random(seed))

        async def connect(stack: AsyncExitStack) -> MemoryEtcd:
            return etcd

        async def start(stack: AsyncExitStack, watch: MemoryWatch) -> None:
            watch.start()
            stack.callback(etcd.part, watch)

        return Scene(Keys("machine"), connect, lambda client: MemoryWatch(etcd), start)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        if not hasattr(self, "runner"):
            self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        return self.runner.run(work)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            if hasattr(self, "runner"):
                self.runner.close()


BRIEF = settings(max_examples=50, stateful_step_count=40, deadline=None)

TestInMemory = InMemory.TestCase
TestInMemory.settings = BRIEF


def _any_upload(upload: Upload) -> Compare:
    return Compare.create(upload.key, ">", -1)


async def _blobs_listed_first(etcd: Any, keys: Keys) -> collect.Found:
    """Uploads and records read later than the blobs, and everything at its own revision."""
    uploads = await etcd.range(keys.uploads)
    changes, snapshots = await etcd.range(keys.changes), await etcd.range(keys.snapshots)
    return collect._found(keys, uploads.kvs, changes.kvs, snapshots.kvs, (await etcd.range(keys.blobs)).kvs)


def _without_some(state: RegistryState, payload: bytes, version: int) -> tuple[RegistryState, frozenset[str]]:
    if version % 5 == 4:
        return state.at(version), frozenset()
    return ADVANCED(state, payload, version)


def _partly(state: RegistryState, target: RegistryState) -> Changeset:
    return Changeset(RESTORING(state, target).operations[:1])


def _greedy(found: collect.Found, now: datetime, keep: Keep) -> collect.Garbage:
    kept = GARBAGE(found, now, keep)
    return collect.Garbage(kept.changes, sorted(found.snapshots)[-1:], kept.blobs)


async def _straight_to(self: replica.Replica, head: int) -> None:
    await self._jump(head)


ADVANCED, RESTORING, GARBAGE = replica._advanced, registry.restoring, collect.garbage
MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "a commit does not compare its upload": (Upload, "unchanged", property(_any_upload)),
    "the collector lists at several revisions": (collect, "read_log", _blobs_listed_first),
    "a replica skips versions": (replica, "_advanced", _without_some),
    "a replica jumps to the head": (replica.Replica, "_approach", _straight_to),
    "a deletion at run time is forgotten": (registry, "at_run_time", lambda state, changes: changes),
    "a rollback is partial": (registry, "restoring", _partly),
    "conflicts are not seen": (RegistryState, "base_differs_from", lambda self, other, among: []),
    "the newest snapshot is collected": (collect, "garbage", _greedy),
    "a lost upload is taken for committed": (commit.Writer, "_is_mine", AsyncMock(return_value=True)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_machine_notices_when(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these would be a bug; the machine finds it, so it can fail."""
    monkeypatch.setattr(*MUTANTS[mutant])
    searching = settings(
        max_examples=150,
        stateful_step_count=40,
        deadline=None,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
    )
    with pytest.raises((Exception, BaseExceptionGroup)):
        run_state_machine_as_test(InMemory, settings=searching)
