"""Reading the log in etcd: head, records, payloads, and whole states rebuilt from them.

Everything here only reads. A payload is verified by its sha256; one that is missing or
differs raises ``BlobGone``, which is normal for a moment when the collector has just replaced
history by a snapshot: read the record again. ``load`` does that by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import structlog

from cluster.errors import ClusterError, Invalid
from cluster.etcd import Etcd, Get, KeyValue, NoSpace
from cluster.keys import Keys
from cluster.registry.changeset import HEAVY, Changeset
from cluster.registry.offloop import computed
from cluster.registry.record import (
    BadRecord,
    Blob,
    ChangeRecord,
    SnapshotRecord,
    VersionNotFound,
    decode_head,
)
from cluster.registry.retry import until_answered
from cluster.registry.state import ABSENT, EMPTY, RegistryState

log = structlog.get_logger("wippy.registry")

_TRIES = 5
_CHUNKS_AT_ONCE = 8
"""4 MiB in one request."""
_AT_ONCE = 32
"""Versions read in one request: at most 16 MiB, and fewer operations than etcd takes in a transaction."""


class BlobGone(ClusterError):
    """A payload of the registry is missing or does not match its sha256."""


@dataclass(frozen=True, slots=True)
class Head:
    """``registry/head`` as it was read: version (-1 when absent) and mod_revision (0 when absent)."""

    version: int
    mod: int


def head_of(kv: KeyValue | None) -> Head:
    """Raises BadRecord."""
    return Head(decode_head(kv.value), kv.mod_revision) if kv else Head(ABSENT, 0)


def version_of(key: str) -> int:
    """The version in a key under ``changes/`` or ``snapshots/``; -1 when there is none."""
    try:
        return int(key.rsplit("/", 1)[1], 16)
    except ValueError:
        return ABSENT


def decode(payload: bytes, version: int) -> Changeset:
    """The changeset of a committed version. One that can't be decoded changes nothing, on every node alike."""
    try:
        return Changeset.parse(payload)
    except Invalid as error:
        log.error("a version of the registry can't be decoded and changes nothing", version=version, error=str(error))
        return Changeset()


def advance(state: RegistryState, payload: bytes, version: int) -> RegistryState:
    """The state after a committed payload."""
    return state.advance(decode(payload, version), version)


def _advance_all(state: RegistryState, payloads: Sequence[bytes]) -> RegistryState:
    changesets = [decode(payload, state.version + 1 + number) for number, payload in enumerate(payloads)]
    return state.advance_all(changesets, state.version + len(changesets))


class Store:
    """The log of one cluster, read only. The caller sets deadlines; reads are repeated until answered."""

    def __init__(self, etcd: Etcd, keys: Keys) -> None:
        self._etcd = etcd
        self._keys = keys

    async def read(self, *keys: str) -> tuple[list[KeyValue | None], int]:
        """These keys and the revision, all at one moment."""
        try:
            result = await until_answered(lambda: self._etcd.txn([], [Get(key) for key in keys]))
        except NoSpace:
            return await self._read_singly(keys)  # a full etcd refuses even transactions that only read
        found = [response[0] if isinstance(response, list) and response else None for response in result.responses]
        return found, result.revision

    async def _read_singly(self, keys: Sequence[str]) -> tuple[list[KeyValue | None], int]:
        found: list[KeyValue | None] = []
        at = 0
        for key in keys:
            only = (key, f"{key}\0")
            part = await until_answered(lambda only=only, at=at: self._etcd.range("", exact_range=only, revision=at))  # type: ignore[misc]
            found.append(part.kvs[0] if part.kvs else None)
            at = part.revision
        return found, at

    async def head(self) -> Head:
        found, _ = await self.read(self._keys.head)
        return head_of(found[0])

    async def change(self, version: int) -> ChangeRecord | None:
        """``changes/<version>``; None when it does not exist or is no record."""
        found, _ = await self.read(self._keys.change(version))
        return read_change(found[0]) if found[0] else None

    async def changes(self, first: int | None = None, last: int = 0) -> dict[int, ChangeRecord]:
        """All records, or those of versions ``first`` to ``last``."""
        part = None if first is None else (self._keys.change(first), self._keys.change(last + 1))
        kvs = (await until_answered(lambda: self._etcd.range(self._keys.changes, exact_range=part))).kvs
        return {version_of(kv.key): record for kv in kvs if (record := read_change(kv))}

    async def snapshots(self) -> dict[int, SnapshotRecord]:
        kvs = (await until_answered(lambda: self._etcd.range(self._keys.snapshots))).kvs
        return {version_of(kv.key): record for kv in kvs if (record := read_snapshot(kv))}

    async def payload(self, blob: Blob, at_hand: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
        """The payload of a record; chunks that are ``at_hand`` are not read. Raises BlobGone."""
        keys = [self._keys.blob(blob.upload, number) for number in range(blob.chunks)]
        read = await self._chunks([key for key in keys if key not in at_hand])
        payload = b"".join([read[key] if key in read else at_hand[key] for key in keys])
        return await computed(len(payload) > HEAVY, self._verified, blob, payload)

    def _verified(self, blob: Blob, payload: bytes) -> bytes:
        if hashlib.sha256(payload).hexdigest() != blob.sha:
            raise BlobGone(f"{self._keys.blobs}{blob.upload} does not match its sha256; read the record again")
        return payload

    async def _payloads(self, blobs: Sequence[Blob]) -> list[bytes]:
        """The payloads of several records; those of one chunk in one request. Raises BlobGone."""
        small = {blob.upload: self._keys.blob(blob.upload, 0) for blob in blobs if blob.chunks == 1}
        kvs, _ = await self.read(*small.values()) if small else ([], 0)
        at_hand = {kv.key: kv.value for kv in kvs if kv is not None}
        return [await self.payload(blob, at_hand) for blob in blobs]

    async def _chunks(self, keys: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for at in range(0, len(keys), _CHUNKS_AT_ONCE):
            part = keys[at : at + _CHUNKS_AT_ONCE]
            kvs, _ = await self.read(*part)
            found |= {kv.key: kv.value for kv in kvs if kv is not None}
            if missing := [key for key in part if key not in found]:
                raise BlobGone(f"{missing[0]} is missing; read the record that named it again")
        return found

    async def load(self, version: int) -> RegistryState:
        """The state at ``version``, from the newest usable snapshot at or before it and the changes since.

        Raises VersionNotFound when the log does not hold it.
        """
        for _ in range(_TRIES):
            state = await self._from_snapshot(version)
            try:
                return await self._forward(state, version)
            except BlobGone as gone:
                log.info("reading the registry again", version=version, reason=str(gone))
        return await self._missing(version)

    async def _from_snapshot(self, version: int) -> RegistryState:
        snapshots = await self.snapshots()
        for candidate in sorted((each for each in snapshots if each <= version), reverse=True):
            try:
                payload = await self.payload(snapshots[candidate].blob)
                return (await computed(len(payload) > HEAVY, RegistryState.parse, payload)).at(candidate)
            except (BlobGone, Invalid) as error:
                log.warning("a snapshot of the registry can't be used", version=candidate, error=str(error))
        return EMPTY

    async def _forward(self, state: RegistryState, version: int) -> RegistryState:
        if state.version == version:
            return state
        records = await self.changes(state.version + 1, version)
        if len(records) < version - state.version:
            return await self._missing(version)
        while state.version < version:
            following = range(state.version + 1, min(state.version + _AT_ONCE, version) + 1)
            payloads = await self._payloads([records[each].blob for each in following])
            heavy = sum(map(len, payloads)) > HEAVY
            state = await computed(heavy, _advance_all, state, payloads)
        return state

    async def _missing(self, version: int) -> RegistryState:
        versions = sorted((await self.changes()).keys() | (await self.snapshots()).keys())
        raise VersionNotFound(version, versions[0] if versions else ABSENT, versions[-1] if versions else ABSENT)


def read_change(kv: KeyValue) -> ChangeRecord | None:
    try:
        return ChangeRecord.decode(kv.value)
    except BadRecord as error:
        log.error("a change of the registry can't be read", key=kv.key, error=str(error))
        return None


def read_snapshot(kv: KeyValue) -> SnapshotRecord | None:
    try:
        return SnapshotRecord.decode(kv.value)
    except BadRecord as error:
        log.error("a snapshot of the registry can't be read", key=kv.key, error=str(error))
        return None
