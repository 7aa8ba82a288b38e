"""Getting a name into etcd however long that takes: what a name of scope EVENTUAL needs.

A pursuit goes on while its process wants the name: through outages of etcd and changes of the lease, until the key
is there or shows that somebody else has the name. It ends the same way whether the answer or the watch tells first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from cluster import owned
from cluster.errors import ClusterError
from cluster.etcd import Etcd, KeyValue, PrefixWatch
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.names")

FIRST_PAUSE, LAST_PAUSE = 0.2, 2.0
SHOWN_WITHIN = 5.0
AT_ONCE = 64
"""Names that are asked for at a time: after the loss of a lease there may be thousands."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A name and the value of its key. Equal ones are the same wish."""

    name: str
    key: str
    value: bytes


class Pursuits:
    """``lease`` gives the lease of this node now; ``is_missing`` says whether a wish still stands and the own copy does
    not show it; ``refused`` is told the key of another holder. A key that comes too late is the owner's to delete."""

    def __init__(
        self,
        etcd: Etcd,
        watch: PrefixWatch,
        tasks: Tasks,
        lease: Callable[[], int],
        is_missing: Callable[[Wanted], bool],
        refused: Callable[[Wanted, KeyValue], None],
    ) -> None:
        self._etcd = etcd
        self._watch = watch
        self._tasks = tasks
        self._lease = lease
        self._is_missing = is_missing
        self._refused = refused
        self._running: set[Wanted] = set()
        self._room = asyncio.Semaphore(AT_ONCE)

    def begin(self, wanted: Wanted) -> None:
        """Pursue the name, unless that is going on already."""
        if wanted not in self._running:
            self._running.add(wanted)
            self._tasks.start(self._run(wanted), f"pursue name {wanted.name}")

    async def _run(self, wanted: Wanted) -> None:
        pause, said = FIRST_PAUSE, False
        try:
            while self._is_missing(wanted):
                try:
                    async with self._room:
                        await self._try(wanted)
                    if not self._is_missing(wanted):
                        return
                except ClusterError as error:
                    if not said:
                        log.warning("a name is not in the cluster yet; tried again", name=wanted.name, error=str(error))
                    said = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, LAST_PAUSE)
        finally:
            self._running.discard(wanted)

    async def _try(self, wanted: Wanted) -> None:
        """Ask for the name, and wait until the own copy shows it. Raises ClusterError while etcd is away."""
        holding = await owned.create(self._etcd, wanted.key, wanted.value, self._lease())
        if holding.kv.value != wanted.value:
            self._refused(wanted, holding.kv)
        elif holding.ours:  # else it is under a former lease of this node, and ends with that
            await self._watch.reached(holding.token, SHOWN_WITHIN)
