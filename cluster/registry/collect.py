"""Garbage collection of the log: blobs that nothing names, and history beyond what is kept.

Uploads, changes and snapshots are read and blobs are listed at ONE revision: a blob seen
there whose name is in none of them belongs to a writer that died, for a living writer's
upload key was there before its first blob. Kept are the newest versions, as many as ``Keep``
says, and whatever rebuilding the oldest of them needs; nothing younger than an hour goes,
because a writer may still ask what became of its commit. Deleting is safe to repeat and to
interrupt, and works while etcd is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog

from cluster.errors import ClusterError
from cluster.etcd import Delete, Etcd, KeyValue, NoSpace
from cluster.keys import Keys
from cluster.registry.offloop import computed
from cluster.registry.record import ChangeRecord, SnapshotRecord
from cluster.registry.retry import until_answered
from cluster.registry.store import read_change, read_snapshot, version_of
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.registry")

KEEP_VERSIONS = 1_000
KEEP_BYTES = 256 * 1024 * 1024
KEEP_FOR = timedelta(hours=1)
_AT_ONCE = 64
"""Deletions in one request; etcd takes 128 by default."""
_MANY = 500


@dataclass(frozen=True, slots=True)
class Keep:
    """What of the history is kept: the newest ``versions``, fewer when they, with their snapshots, are more
    than ``size`` bytes; and everything younger than ``time``."""

    versions: int = KEEP_VERSIONS
    size: int = KEEP_BYTES
    time: timedelta = KEEP_FOR

    def __post_init__(self) -> None:
        if self.versions < 1 or self.size < 1:
            raise ValueError(f"expected to keep at least 1 version and 1 byte, got {self}")


KEEP = Keep()


@dataclass(frozen=True, slots=True)
class Found:
    """The log at one revision: records by version, and the names of uploads and blobs."""

    changes: Mapping[int, ChangeRecord]
    snapshots: Mapping[int, SnapshotRecord]
    uploads: frozenset[str]
    blobs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may be deleted."""

    changes: list[int] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)
    blobs: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.changes) + len(self.snapshots) + len(self.blobs)


def garbage(found: Found, now: datetime, keep: Keep) -> Garbage:
    """The decision, pure. Blobs of changes deleted now are garbage only in the next pass."""
    named = {record.blob.upload for record in found.changes.values()}
    named |= {snapshot.blob.upload for snapshot in found.snapshots.values()}
    blobs = sorted(found.blobs - named - found.uploads)
    old = {version for version, record in found.changes.items() if now - record.time >= keep.time}
    oldest = _oldest_kept(found, keep)
    # a snapshot younger than the limit must not free what led to it, nor replace an older one
    bases = [version for version in found.snapshots if version <= oldest and version in old]
    if not bases:
        return Garbage(blobs=blobs)
    base = max(bases)
    return Garbage(
        sorted(version for version in old if version < base),
        sorted(version for version in found.snapshots if version < base),
        blobs,
    )


def _oldest_kept(found: Found, keep: Keep) -> int:
    """The newest version always is."""
    newest_first = sorted(found.changes, reverse=True)[: keep.versions]
    oldest, size = max(newest_first, default=-1), 0
    for version in newest_first:
        size += found.changes[version].blob.size
        if version in found.snapshots:
            size += found.snapshots[version].blob.size
        if size > keep.size:
            break
        oldest = version
    return oldest


async def read_log(etcd: Etcd, keys: Keys) -> Found:
    """All of it at one revision."""
    uploads = await until_answered(lambda: etcd.range(keys.uploads, keys_only=True))
    at = uploads.revision
    changes = await until_answered(lambda: etcd.range(keys.changes, revision=at))
    snapshots = await until_answered(lambda: etcd.range(keys.snapshots, revision=at))
    blobs = await until_answered(lambda: etcd.range(keys.blobs, revision=at, keys_only=True))
    is_long = len(changes.kvs) + len(blobs.kvs) > _MANY
    return await computed(is_long, _found, keys, uploads.kvs, changes.kvs, snapshots.kvs, blobs.kvs)


def _found(
    keys: Keys, uploads: list[KeyValue], changes: list[KeyValue], snapshots: list[KeyValue], blobs: list[KeyValue]
) -> Found:
    return Found(
        {version_of(kv.key): record for kv in changes if (record := read_change(kv))},
        {version_of(kv.key): snapshot for kv in snapshots if (snapshot := read_snapshot(kv))},
        frozenset(kv.key.removeprefix(keys.uploads) for kv in uploads),
        frozenset(kv.key.removeprefix(keys.blobs).split("/", 1)[0] for kv in blobs),
    )


async def collect(etcd: Etcd, keys: Keys, keep: Keep = KEEP) -> Garbage:
    """One pass; what it deleted. The caller sets the deadline."""
    log_read = await read_log(etcd, keys)
    found = await computed(len(log_read.changes) > _MANY, garbage, log_read, datetime.now(UTC), keep)
    stale = [Delete(f"{keys.blobs}{name}/", whole_prefix=True) for name in found.blobs]
    stale += [Delete(keys.change(version)) for version in found.changes]
    stale += [Delete(keys.snapshot(version)) for version in found.snapshots]
    for at in range(0, len(stale), _AT_ONCE):
        await _delete(etcd, stale[at : at + _AT_ONCE])
    if found:
        log.info(
            "registry log cleaned",
            blobs=len(found.blobs),
            changes=len(found.changes),
            snapshots=len(found.snapshots),
        )
    return found


async def _delete(etcd: Etcd, stale: Sequence[Delete]) -> None:
    try:
        await until_answered(lambda: etcd.txn([], stale))
    except NoSpace:
        for each in stale:  # a full etcd refuses transactions, not deletions
            delete = etcd.delete_prefix if each.whole_prefix else etcd.delete
            await until_answered(lambda delete=delete, key=each.key: delete(key, repeatable=True))  # type: ignore[misc]


class Collector:
    """Runs a pass now and then, on the node that ``rank`` puts first (0). Several at once do no harm."""

    def __init__(
        self,
        etcd: Etcd,
        keys: Keys,
        rank: Callable[[], int],
        *,
        every: timedelta = timedelta(minutes=10),
        keep: Keep = KEEP,
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._rank = rank
        self._every = every
        self._keep = keep
        self._tasks = Tasks("registry collector")

    async def __aenter__(self) -> Self:
        self._tasks.start(self._run(), "collect")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every.total_seconds())
            if self._rank() == 0:
                await self._pass()

    async def _pass(self) -> None:
        try:
            async with asyncio.timeout(self._every.total_seconds()):
                await collect(self._etcd, self._keys, self._keep)
        except (TimeoutError, ClusterError) as error:
            log.warning("cleaning the registry log failed; it is tried again later", error=str(error))
