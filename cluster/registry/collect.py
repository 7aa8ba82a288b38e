"""Garbage collection of the log: blobs that nothing names, and history beyond what is kept.

Uploads, changes and snapshots are read and blobs are listed at ONE revision: a blob seen
there whose name is in none of them belongs to a writer that died, for a living writer's
upload key was there before its first blob. Kept are the newest ``keep_versions`` versions and
whatever rebuilding the oldest of them needs; nothing younger than an hour goes, because a
writer may still ask what became of its commit. Deleting is safe to repeat and to interrupt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog

from cluster.errors import ClusterError
from cluster.etcd import Etcd
from cluster.keys import Keys
from cluster.registry.record import ChangeRecord, SnapshotRecord
from cluster.registry.retry import until_answered
from cluster.registry.store import read_change, read_snapshot, version_of
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.registry")

KEEP_VERSIONS = 1_000
KEEP_FOR = timedelta(hours=1)


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


def garbage(found: Found, now: datetime, keep_versions: int, keep_for: timedelta) -> Garbage:
    """The decision, pure. Blobs of changes deleted now are garbage only in the next pass."""
    named = {record.blob.upload for record in found.changes.values()}
    named |= {snapshot.blob.upload for snapshot in found.snapshots.values()}
    blobs = sorted(found.blobs - named - found.uploads)
    old = {version for version, record in found.changes.items() if now - record.time >= keep_for}
    head = max(found.changes, default=-1)
    # a snapshot younger than the limit must not free what led to it, nor replace an older one
    bases = [version for version in found.snapshots if version <= head - keep_versions + 1 and version in old]
    if not bases:
        return Garbage(blobs=blobs)
    base = max(bases)
    return Garbage(
        sorted(version for version in old if version < base),
        sorted(version for version in found.snapshots if version < base),
        blobs,
    )


async def read_log(etcd: Etcd, keys: Keys) -> Found:
    """All of it at one revision."""
    uploads = await until_answered(lambda: etcd.range(keys.uploads, keys_only=True))
    at = uploads.revision
    changes = await until_answered(lambda: etcd.range(keys.changes, revision=at))
    snapshots = await until_answered(lambda: etcd.range(keys.snapshots, revision=at))
    blobs = await until_answered(lambda: etcd.range(keys.blobs, revision=at, keys_only=True))
    return Found(
        {version_of(kv.key): record for kv in changes.kvs if (record := read_change(kv))},
        {version_of(kv.key): snapshot for kv in snapshots.kvs if (snapshot := read_snapshot(kv))},
        frozenset(kv.key.removeprefix(keys.uploads) for kv in uploads.kvs),
        frozenset(kv.key.removeprefix(keys.blobs).split("/", 1)[0] for kv in blobs.kvs),
    )


async def collect(
    etcd: Etcd, keys: Keys, *, keep_versions: int = KEEP_VERSIONS, keep_for: timedelta = KEEP_FOR
) -> Garbage:
    """One pass; what it deleted. The caller sets the deadline."""
    found = garbage(await read_log(etcd, keys), datetime.now(UTC), keep_versions, keep_for)
    for name in found.blobs:
        prefix = f"{keys.blobs}{name}/"
        await until_answered(lambda prefix=prefix: etcd.delete_prefix(prefix, repeatable=True))  # type: ignore[misc]
    stale = [keys.change(version) for version in found.changes]
    stale += [keys.snapshot(version) for version in found.snapshots]
    for key in stale:
        await until_answered(lambda key=key: etcd.delete(key, repeatable=True))  # type: ignore[misc]
    if found:
        log.info(
            "registry log cleaned",
            blobs=len(found.blobs),
            changes=len(found.changes),
            snapshots=len(found.snapshots),
        )
    return found


class Collector:
    """Runs a pass now and then, on the node that ``rank`` puts first (0). Several at once do no harm."""

    def __init__(
        self,
        etcd: Etcd,
        keys: Keys,
        rank: Callable[[], int],
        *,
        every: timedelta = timedelta(minutes=10),
        keep_versions: int = KEEP_VERSIONS,
        keep_for: timedelta = KEEP_FOR,
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._rank = rank
        self._every = every
        self._keep_versions = keep_versions
        self._keep_for = keep_for
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
                await collect(self._etcd, self._keys, keep_versions=self._keep_versions, keep_for=self._keep_for)
        except (TimeoutError, ClusterError) as error:
            log.warning("cleaning the registry log failed; it is tried again later", error=str(error))
