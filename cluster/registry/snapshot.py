"""Writing a snapshot: a whole state, so that nobody must read the log from its beginning.

A snapshot is a by-product: the committer whose version makes one due writes it in the background,
and when that fails, the next committer writes a later one. The newest is never deleted. Two nodes
may write the same; the first stands.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from cluster.errors import Unavailable
from cluster.etcd import Compare, Delete, Etcd, LeaseGone, Put
from cluster.keys import Keys
from cluster.registry.changeset import HEAVY
from cluster.registry.offloop import computed
from cluster.registry.record import SnapshotRecord
from cluster.registry.replica import Replica
from cluster.registry.retry import UNANSWERED
from cluster.registry.state import ABSENT, RegistryState
from cluster.registry.upload import Payload, Uploads
from cluster.registry.value import outweighs
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.registry")

SNAPSHOT_EVERY = 50
SNAPSHOT_BYTES = 32 * 1024 * 1024
"""One is due after so many versions, or so many bytes of changes."""
FINISH = timedelta(seconds=10)
"""How long a program that ends waits for the snapshot it has begun."""


async def write_snapshot(etcd: Etcd, keys: Keys, state: RegistryState, patience: timedelta) -> bool:
    """Whether ``snapshots/<version>`` is now this state by our hand. Raises Unavailable past ``patience``."""
    payload = await computed(is_heavy(state), lambda: Payload.of(state.payload()))
    uploads = Uploads(etcd, keys)
    try:
        async with asyncio.timeout(patience.total_seconds()):
            done = await uploads.upload(payload, patience)
            compares = [Compare.absent(keys.snapshot(state.version)), done.unchanged]
            record = SnapshotRecord(done.blob).encode()
            result = await etcd.txn(compares, [Put(keys.snapshot(state.version), record), Delete(done.key)])
    except (TimeoutError, LeaseGone, *UNANSWERED) as error:
        raise Unavailable(f"snapshot of version {state.version} was not confirmed: {error}") from error
    if not result.succeeded:
        await uploads.abandon(done)
    log.debug("snapshot of the registry", version=state.version, written=result.succeeded, bytes=len(payload.raw))
    return result.succeeded


def is_heavy(state: RegistryState) -> bool:
    """Whether making the stored form is too much work for an event loop."""
    return outweighs(([entry.meta, entry.data] for entry in state.base.values()), HEAVY)


class Snapshots:
    """Writes them for one node's commits. It ends with the registry."""

    def __init__(self, etcd: Etcd, keys: Keys, replica: Replica, every: int, patience: timedelta) -> None:
        if every < 1:
            raise ValueError(f"expected snapshot_every >= 1, got {every}")
        self._etcd = etcd
        self._keys = keys
        self._replica = replica
        self._every = every
        self._patience = patience
        self._begun = ABSENT
        self._writing: asyncio.Task[None] | None = None
        self._tasks = Tasks("registry snapshots")

    async def finish(self) -> None:
        """Let what is being written come to its end. Where only commands commit, nobody else would write it."""
        if self._writing is not None:
            await asyncio.wait((self._writing,), timeout=FINISH.total_seconds())

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    def consider(self, state: RegistryState) -> None:
        """Begin one of ``state``, which was just committed, when it is due."""
        version, records = state.version, self._replica.records
        newest = max([self._begun, *self._replica.snapshots])
        since = range(newest + 1, version + 1)[: self._every]
        size = sum(records[each].blob.size for each in since if each in records)
        if version - newest >= self._every or size >= SNAPSHOT_BYTES:
            self._begun = version
            self._writing = self._tasks.start(self._write(state), f"snapshot-{version}")

    async def _write(self, state: RegistryState) -> None:
        try:
            await write_snapshot(self._etcd, self._keys, state, self._patience)
        except Unavailable as error:
            self._begun = ABSENT
            log.warning("no snapshot was written; a later committer will", error=str(error))
