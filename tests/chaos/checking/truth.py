"""What etcd had, revision by revision: the truth that histories are held against.

``Observer`` follows the cluster's keys while a run goes on and reads the registrations ten times a second. Of every
change two times are known: it was not before the last read that did not show it yet, and not after the watch told of
it. Everything else here is pure.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from cluster.errors import ClusterError
from cluster.etcd import Batch, Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.tasks import Tasks

EVERY = 0.1


@dataclass(frozen=True)
class Change:
    """A key got a value, or (None) went away. ``after`` and ``before`` enclose when."""

    revision: int
    key: str
    value: bytes | None
    after: float
    before: float

    @property
    def token(self) -> int:
        """The mod_revision that a write under this key has to compare."""
        return self.revision


@dataclass(frozen=True)
class Epoch:
    """A registration of a node: certain from ``since`` to ``until``, over at ``gone`` at the latest."""

    node: str
    number: int
    since: float
    until: float = float("inf")
    gone: float = float("inf")


@dataclass
class Truth:
    """All changes in the order of revisions, of keys without the cluster's prefix."""

    changes: list[Change] = field(default_factory=list)

    def of(self, prefix: str) -> Iterator[Change]:
        return (change for change in self.changes if change.key.startswith(prefix))

    def history(self, key: str) -> list[Change]:
        """What a key was, one after the other."""
        return [change for change in self.changes if change.key == key]

    def epochs(self) -> list[Epoch]:
        """All registrations, those that ended and those that did not."""
        current: dict[str, Epoch] = {}
        found: list[Epoch] = []
        for change in self.of("nodes/"):
            node = change.key.removeprefix("nodes/")
            former = current.get(node)
            if change.value is None and former is not None:
                found.append(Epoch(node, former.number, former.since, change.after, change.before))
                del current[node]
            elif change.value is not None and former is None:
                current[node] = Epoch(node, change.revision, change.before)
        return [*found, *current.values()]

    def registered(self, node: str, since: float, until: float) -> bool:
        """Whether the node kept one registration for all that time, for certain."""
        return any(one.node == node and one.since <= since and until <= one.until for one in self.epochs())


class Observer:
    """Collects the truth about one cluster. Use it with ``async with``."""

    def __init__(self, etcd: Etcd, keys: Keys) -> None:
        self._etcd = etcd
        self._keys = keys
        self._told: list[tuple[int, str, bytes | None, float]] = []
        self._reads: list[tuple[int, float]] = []
        self._scope = AsyncExitStack()
        self.problems: list[str] = []

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        watch = PrefixWatch(self._etcd, self._keys.prefix, unloaded=[self._keys.registry])
        watch.subscribe(self._keys.prefix, self._apply)
        tasks = await self._scope.enter_async_context(Tasks("observer"))
        await self._scope.enter_async_context(watch)
        tasks.start(self._read_forever(), "reads")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._scope.__aexit__(kind, error, trace)

    def truth(self) -> Truth:
        """What has been seen so far."""
        revisions = [revision for revision, _ in self._reads]
        return Truth([Change(*told[:3], self._after(told[0], revisions), told[3]) for told in self._told])

    def _after(self, revision: int, revisions: Sequence[int]) -> float:
        """When the last read began that answered with an earlier revision."""
        place = bisect_left(revisions, revision)
        return self._reads[place - 1][1] if place else 0.0

    def _apply(self, batch: Batch) -> None:
        now = time.monotonic_ns()
        if batch.relist and self._told:
            self.problems.append(f"the watch was lost before revision {batch.revision}: the truth has a hole")
        for event in batch.events:
            key = event.kv.key.removeprefix(self._keys.prefix)
            self._told.append((batch.revision, key, None if event.deleted else event.kv.value, now))

    async def _read_forever(self) -> None:
        while True:
            began = time.monotonic_ns()
            try:
                found = await self._etcd.range(self._keys.nodes, keys_only=True)
                if not self._reads or found.revision >= self._reads[-1][0]:
                    self._reads.append((found.revision, began))
            except ClusterError:
                pass  # etcd is away: the next read tells
            await asyncio.sleep(EVERY)
