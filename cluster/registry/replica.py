"""A node's copy of the registry: loads versions in order and never refuses one (R4).

Fed by the watch: the head says how far to go, change records say where the payloads are. At
the start it takes the newest snapshot at or before the head and the changes since; later each
version once, in order. A payload that is missing or damaged is read again through its record;
when the record is gone too, history was cut and the newest snapshot bridges the gap. While
etcd is away the replica keeps its state and goes on where it was.

``on_change`` callbacks run on the event loop, between versions, and must be quick; one that
raises is logged and stops nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import Self

import structlog

from cluster.errors import CallTimeout, ClusterError
from cluster.etcd import Batch, Etcd, KeyEvent, PrefixWatch
from cluster.keys import Keys
from cluster.registry.changeset import HEAVY
from cluster.registry.chunks import Chunks
from cluster.registry.commit import At
from cluster.registry.floor import Floor
from cluster.registry.offloop import computed
from cluster.registry.record import BadRecord, ChangeRecord, SnapshotRecord, VersionNotFound, decode_head
from cluster.registry.retry import pause
from cluster.registry.state import ABSENT, EMPTY, RegistryState
from cluster.registry.store import BlobGone, Head, Store, decode, head_of, read_change, read_snapshot, version_of
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.registry")

OnChange = Callable[[RegistryState, RegistryState, frozenset[str]], None]

_RECENT = 8
_FAR = 64
"""A node that starts with more versions to apply loads them together, not one by one."""
_LARGE = 1_000


class Replica:
    """Build it before ``watch`` is started, enter it after."""

    def __init__(self, etcd: Etcd, watch: PrefixWatch, keys: Keys, *, patience: timedelta) -> None:
        self.store = Store(etcd, keys)
        self.records: dict[int, ChangeRecord] = {}
        self.snapshots: dict[int, SnapshotRecord] = {}
        self._keys = keys
        self._patience = patience
        self._chunks = Chunks()
        self._head = Head(ABSENT, 0)
        self._state = EMPTY
        self._recent: OrderedDict[int, RegistryState] = OrderedDict()
        self._callbacks: list[OnChange] = []
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._tasks = Tasks("registry replica")
        watch.subscribe(keys.registry, self._on_batch)

    async def __aenter__(self) -> Self:
        self._tasks.start(self._follow(), "follow")
        try:
            await self.reached(self._head.version, self._patience)
        except BaseException:
            await self._tasks.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()
        for _version, waiter in self._waiting:
            waiter.cancel()

    @property
    def state(self) -> RegistryState:
        return self._state

    @property
    def head(self) -> Head:
        """The head as the watch saw it last; the state follows it."""
        return self._head

    def on_change(self, callback: OnChange) -> Callable[[], None]:
        """Call ``callback(before, after, changed_ids)`` for every version from now on, in order. Returns the undo."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def reached(self, version: int, timeout: timedelta | None = None) -> RegistryState:
        """The state once it is at ``version`` or later. Raises CallTimeout."""
        if self._state.version < version:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append((version, waiter))
            seconds = (timeout or self._patience).total_seconds()
            try:
                await asyncio.wait_for(waiter, seconds)
            except TimeoutError:
                raise CallTimeout(f"registry version {version} (now at {self._state.version})", seconds) from None
            finally:
                self._waiting = [each for each in self._waiting if each[1] is not waiter]
        return self._state

    async def at_head(self) -> At:
        """The state at the head as it stands in etcd at this moment."""
        while True:
            (head_kv, floor_kv), _ = await self.store.read(self._keys.head, self._keys.floor)
            head = head_of(head_kv)
            state = await self.reached(head.version)
            if state.version != head.version:
                state = self._recent.get(head.version, state)
            if state.version == head.version:
                return At(state, head.mod, Floor.of(floor_kv))

    def recent(self, version: int) -> RegistryState | None:
        """The state at ``version`` if it is at hand."""
        return self._state if version == self._state.version else self._recent.get(version)

    def _on_batch(self, batch: Batch) -> None:
        for event in batch.events:
            if event.kv.key == self._keys.head:
                self._on_head(event)
            elif event.kv.key.startswith(self._keys.blobs):
                self._chunks.note(event)
            elif event.kv.key.startswith(self._keys.changes):
                _note(self.records, event, None if event.deleted else read_change(event.kv))
            elif event.kv.key.startswith(self._keys.snapshots):
                _note(self.snapshots, event, None if event.deleted else read_snapshot(event.kv))
        self._wake.set()

    def _on_head(self, event: KeyEvent) -> None:
        if event.deleted:
            log.error("the registry's head was deleted; this node keeps what it has", version=self._state.version)
            return
        try:
            self._head = Head(decode_head(event.kv.value), event.kv.mod_revision)
        except BadRecord as error:
            log.error("the registry's head can't be read; this node keeps what it has", error=str(error))

    async def _follow(self) -> None:
        failures = 0
        while True:
            if self._state.version == self._head.version:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                await self._approach(self._head.version)
                failures = 0
            except ClusterError as error:
                log.warning(
                    "the registry can't go on; it is tried again",
                    version=self._state.version,
                    head=self._head.version,
                    error=str(error),
                )
                await asyncio.sleep(pause(failures))
                failures += 1
            except Exception:
                log.exception("the registry can't go on; it is tried again", version=self._state.version)
                await asyncio.sleep(pause(failures))
                failures += 1

    async def _approach(self, head: int) -> None:
        """One step towards ``head``."""
        following = self._state.version + 1
        if head < self._state.version:
            log.error("the registry's head went back; loading it anew", version=self._state.version, head=head)
            self._recent.clear()
            await self._jump(head)
        elif self._state is EMPTY and (head > _FAR or any(version <= head for version in self.snapshots)):
            await self._jump(head)
        elif not await self._step(self.records.get(following), following):
            # The record the watch showed may be outdated: read it again, and if history was cut, bridge the gap.
            record = await self.store.change(following)
            if record is None:
                await self._jump(head)
            elif not await self._step(record, following):
                await self._bridge(head)

    async def _step(self, record: ChangeRecord | None, version: int) -> bool:
        """Whether ``version`` could be read and now is the state."""
        if record is None:
            return False
        try:
            payload = await self.store.payload(record.blob, self._chunks)
        except BlobGone as gone:
            self._chunks.forget()
            log.info("a payload of the registry can't be used", version=version, reason=str(gone))
            return False
        heavy = len(payload) > HEAVY
        after, touched = await computed(heavy, _advanced, self._state, payload, version)
        for number in range(record.blob.chunks):
            self._chunks.drop(self._keys.blob(record.blob.upload, number))
        self._become(after, after.differs_from(self._state, touched))
        return True

    async def _bridge(self, head: int) -> None:
        later = await self.store.snapshots()
        if not any(self._state.version < version <= head for version in later):
            raise BlobGone(f"version {self._state.version + 1} lacks its payload and no snapshot is newer")
        await self._jump(head)

    async def _jump(self, head: int) -> None:
        try:
            await self._replace(await self.store.load(head))
        except VersionNotFound:
            current = (await self.store.head()).version
            if current == head:
                raise
            # The head has moved on and its history with it: the watch will show the new one.
            await self._replace(await self.store.load(current))

    async def _replace(self, after: RegistryState) -> None:
        is_large = len(after) + len(self._state) > _LARGE
        self._become(after, await computed(is_large, after.differs_from, self._state))

    def _become(self, after: RegistryState, changed: frozenset[str]) -> None:
        before, self._state = self._state, after
        self._recent[after.version] = after
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        for callback in list(self._callbacks):
            try:
                callback(before, after, changed)
            except Exception:
                log.exception("a listener of the registry failed", version=after.version)
        self._release_waiters()

    def _release_waiters(self) -> None:
        for version, waiter in self._waiting:
            if version <= self._state.version and not waiter.done():
                waiter.set_result(None)


def _advanced(state: RegistryState, payload: bytes, version: int) -> tuple[RegistryState, frozenset[str]]:
    changes = decode(payload, version)
    return state.advance(changes, version), changes.touched


def _note(records: dict[int, ChangeRecord] | dict[int, SnapshotRecord], event: KeyEvent, record: object) -> None:
    version = version_of(event.kv.key)
    if record is None:
        records.pop(version, None)
    else:
        records[version] = record  # type: ignore[assignment]
