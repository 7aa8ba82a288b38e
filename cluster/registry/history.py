"""The versions there were: who made them, what they changed, what the registry was at each.

Reads what this node knows of the log and, for what is not at hand, the log itself. Versions older
than what is kept are gone (``VersionNotFound``); nothing here changes anything.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, timedelta

from cluster.errors import CallTimeout, Meanwhile
from cluster.registry.changeset import HEAVY, Changeset
from cluster.registry.entry import Entry
from cluster.registry.offloop import computed
from cluster.registry.record import ChangeRecord, VersionInfo, VersionNotFound
from cluster.registry.replica import Replica
from cluster.registry.state import ABSENT, RegistryState
from cluster.registry.store import BlobGone, decode

_CACHED_STATES = 8
BEHIND = 256
"""So many steps are kept for who follows and does not take them."""
_SHOWN = 20
"""Versions a conflict shows, the newest."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that is not the same in two versions, as everyone sees it; None where it is not there."""

    id: str
    before: Entry | None
    after: Entry | None


@dataclass(frozen=True, slots=True)
class Step:
    """A version that came to this node; ``info`` is None for one whose record the history has lost, and for several
    in one."""

    info: VersionInfo | None
    before: RegistryState
    after: RegistryState
    changed: frozenset[str]


def changes_between(before: RegistryState, after: RegistryState) -> list[Change]:
    """What differs between two versions, by id. Pure."""
    return [Change(id, before.get(id), after.get(id)) for id in sorted(after.differs_from(before))]


class History:
    """The past of one replica."""

    def __init__(self, replica: Replica, patience: timedelta) -> None:
        self._replica = replica
        self._patience = patience.total_seconds()
        self._cache: OrderedDict[int, RegistryState] = OrderedDict()

    def versions(self) -> list[VersionInfo]:
        """Oldest first."""
        records = self._replica.records
        return [records[version].info(version) for version in sorted(records) if version <= self._now]

    def info(self, version: int) -> VersionInfo | None:
        """Who made ``version``; None when the history does not hold it."""
        record = self._replica.records.get(version)
        return record.info(version) if record is not None and version <= self._now else None

    @contextmanager
    def follow(self) -> Iterator[AsyncIterator[Step]]:
        """Every version from now on, in order. Who is ``BEHIND`` gets what comes then as one step without ``info``."""
        waiting: deque[Step] = deque()
        arrived = asyncio.Event()

        async def steps() -> AsyncIterator[Step]:
            while True:
                while not waiting:
                    arrived.clear()
                    await arrived.wait()
                yield waiting.popleft()

        def put(before: RegistryState, after: RegistryState, changed: frozenset[str]) -> None:
            step = Step(self.info(after.version), before, after, changed)
            if len(waiting) >= BEHIND:
                last = waiting.pop()
                step = Step(None, last.before, after, last.changed | changed)
            waiting.append(step)
            arrived.set()

        undo = self._replica.on_change(put)
        try:
            yield steps()
        finally:
            undo()

    async def state_at(self, version: int) -> RegistryState:
        """Raises VersionNotFound, CallTimeout."""
        known = self._replica.recent(version)
        if (found := known if known is not None else self._cache.get(version)) is not None:
            return found
        if not 0 <= version <= self._now:
            raise self._not_found(version)
        try:
            async with asyncio.timeout(self._patience):
                state = await self._replica.store.load(version)
        except TimeoutError:
            raise CallTimeout(f"reading version {version} of the registry", self._patience) from None
        self._cache[version] = state
        while len(self._cache) > _CACHED_STATES:
            self._cache.popitem(last=False)
        return state

    async def changeset(self, version: int) -> Changeset:
        """The operations ``version`` was made of. Raises VersionNotFound, CallTimeout."""
        record = self._replica.records.get(version)
        if record is None or version > self._now:
            raise self._not_found(version)
        try:
            async with asyncio.timeout(self._patience):
                return await self._read(record, version)
        except TimeoutError:
            raise CallTimeout(f"reading version {version} of the registry", self._patience) from None
        except BlobGone:
            raise self._not_found(version) from None

    async def _read(self, record: ChangeRecord, version: int) -> Changeset:
        payload = await self._replica.store.payload(record.blob)
        return await computed(len(payload) > HEAVY, decode, payload, version)

    async def meanwhile(self, base: int, head: int, ids: Sequence[str]) -> list[Meanwhile]:
        """The versions after ``base`` up to ``head`` that changed any of ``ids`` (of none: all), oldest first."""
        found: list[Meanwhile] = []
        for version in range(head, base, -1):
            info = self.info(version)
            if info is None or len(found) == _SHOWN:
                break
            touched = await self._hit(info, frozenset(ids)) if ids else info.entries
            if touched:
                time = info.time.astimezone(UTC).isoformat(timespec="seconds")
                found.append(Meanwhile(version, info.author, time, info.where, info.message, touched))
        return found[::-1]

    async def _hit(self, info: VersionInfo, ids: Set[str]) -> tuple[str, ...]:
        """The ids that ``info`` changed, those of ``ids`` first; none when it changed none of them."""
        touched = set(info.entries)
        if info.changed > len(touched) and not ids <= touched:
            try:
                touched = set((await self.changeset(info.version)).touched)
            except (VersionNotFound, CallTimeout):
                pass  # a conflict is told with what is at hand
        return (*sorted(touched & ids), *sorted(touched - ids)) if touched & ids else ()

    @property
    def _now(self) -> int:
        return self._replica.state.version

    def _not_found(self, version: int) -> VersionNotFound:
        oldest = min([*self._replica.records, *self._replica.snapshots], default=ABSENT)
        return VersionNotFound(version, oldest, self._now)
