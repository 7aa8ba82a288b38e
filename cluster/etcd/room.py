"""How much room etcd has left: what it holds, its alarms, and whether anybody compacts it.

A full etcd (alarm NOSPACE) answers reads, so that nodes go on with what they have, and refuses
every write but deletions. etcd keeps each former value of each key until it is compacted; when
nobody does that, it fills up sooner or later. ``Room`` looks now and then, says each trouble
once in the log when it comes and when it goes, and keeps what it saw for metrics and people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Self

import structlog

from cluster.errors import ClusterError
from cluster.etcd.client import Etcd
from cluster.etcd.errors import Compacted
from cluster.etcd.values import Status
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.etcd.room")

DEFAULT_QUOTA = 2 * 1024**3
"""etcd's own, unless it is started with --quota-backend-bytes."""
_SHARE = 0.8
_UNCOMPACTED = 1_000_000
"""So many revisions nobody keeps on purpose."""


class Room:
    """Looks every ``every`` once entered. ``latest`` is None until etcd has answered."""

    def __init__(
        self,
        etcd: Etcd,
        *,
        every: timedelta = timedelta(seconds=30),
        quota: int = DEFAULT_QUOTA,
        uncompacted: int = _UNCOMPACTED,
    ) -> None:
        self.latest: Status | None = None
        self._etcd = etcd
        self._every = every.total_seconds()
        self._quota = quota
        self._uncompacted = uncompacted
        self._troubles: dict[str, str] = {}
        self._tasks = Tasks("room of etcd")

    async def __aenter__(self) -> Self:
        self._tasks.start(self._run(), "look")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    def remarks(self) -> Sequence[str]:
        """What is wrong now, and the remedy."""
        return list(self._troubles.values())

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except ClusterError as error:
                log.debug("etcd was not asked for its room", error=str(error))
            await asyncio.sleep(self._every)

    async def look(self) -> None:
        """Once. Raises what ``Etcd.status`` raises."""
        status = await self._etcd.status()
        is_kept = status.revision > self._uncompacted and await self._knows_its_beginning()
        found = troubles(status, self._quota, is_kept)
        for name in found.keys() - self._troubles.keys():
            log.warning("etcd needs attention", trouble=name, what=found[name], db_bytes=status.db_size)
        for name in self._troubles.keys() - found.keys():
            log.info("etcd recovered", trouble=name, db_bytes=status.db_size)
        self.latest, self._troubles = status, found

    async def _knows_its_beginning(self) -> bool:
        try:
            await self._etcd.get("/", revision=1)
        except Compacted:
            return False
        return True


def troubles(status: Status, quota: int, is_uncompacted: bool) -> dict[str, str]:
    """What is wrong and what to do, by a short name. Pure."""
    found = {}
    if "NOSPACE" in status.alarms:
        found["NOSPACE"] = (
            f"etcd is full (alarm NOSPACE, {_mib(status.db_size)}): nothing can be changed; compact and defragment it"
            " or raise its --quota-backend-bytes, then run `etcdctl alarm disarm`"
        )
    elif status.db_size > quota * _SHARE:
        found["nearly full"] = (
            f"etcd holds {_mib(status.db_size)} ({_mib(status.db_in_use)} in use) and stops at {_mib(quota)} unless its"
            " --quota-backend-bytes says otherwise; defragment it, or raise that"
        )
    if "CORRUPT" in status.alarms:
        found["CORRUPT"] = "members of etcd disagree (alarm CORRUPT): restore the one that is wrong from the others"
    if is_uncompacted:
        found["uncompacted"] = (
            f"nobody compacts etcd: it keeps all {status.revision} revisions; start it with"
            " --auto-compaction-mode=periodic --auto-compaction-retention=1h"
        )
    return found


def _mib(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"
