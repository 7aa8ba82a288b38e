"""Writing a snapshot: a whole state, so that nobody must read the log from its beginning.

A snapshot is a by-product: when writing it fails, the next committer writes a later one. The
newest is never deleted. Two nodes may write the same; the first stands.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from cluster.errors import Unavailable
from cluster.etcd import Compare, Delete, Etcd, LeaseGone, Put
from cluster.keys import Keys
from cluster.registry.record import SnapshotRecord
from cluster.registry.retry import UNANSWERED
from cluster.registry.state import RegistryState
from cluster.registry.upload import Uploads

log = structlog.get_logger("wippy.registry")


async def write_snapshot(etcd: Etcd, keys: Keys, state: RegistryState, patience: timedelta) -> bool:
    """Whether ``snapshots/<version>`` is now this state by our hand. Raises Unavailable past ``patience``."""
    payload = state.payload()
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
    log.debug("snapshot of the registry", version=state.version, written=result.succeeded, bytes=len(payload))
    return result.succeeded
