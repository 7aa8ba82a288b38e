"""Giving cluster names back: one key at a time, by the revision it was held under, for as long as etcd needs.

While a name is given back here, its end is this node's own doing and no revocation.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from cluster import owned
from cluster.errors import CallTimeout, OutcomeUnknown, Unavailable
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.nametable import Registered
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.names")

WITHIN = 60.0
"""Seconds in which the names of an ended process are freed, or left to the end of the lease."""
PAUSE = 1.0


class Releases:
    """``shows`` says whether the own copy shows a name under a revision."""

    def __init__(
        self, etcd: Etcd, watch: PrefixWatch, keys: Keys, tasks: Tasks, shows: Callable[[str, int], bool]
    ) -> None:
        self._etcd = etcd
        self._watch = watch
        self._keys = keys
        self._tasks = tasks
        self._shows = shows
        self._ending: Counter[str] = Counter()
        self._running: Counter[tuple[str, int]] = Counter()

    def is_ending(self, name: str) -> bool:
        """Whether a key of this name is being deleted at this moment."""
        return name in self._ending

    def is_under_way(self, name: str, revision: int) -> bool:
        """Whether the name is being freed that is held under this revision."""
        return (name, revision) in self._running

    def start(self, name: str, registered: Registered) -> asyncio.Task[None]:
        """Free the name behind the scenes."""
        return self._tasks.start(self.free(name, registered), f"release name {name}")

    async def free(self, name: str, registered: Registered) -> None:
        """Free a name that is held under this revision, and no other: the process may have got it once more."""
        deadline = time.monotonic() + WITHIN
        one = (name, registered.revision)
        self._running[one] += 1
        try:
            while self._shows(name, registered.revision):
                try:
                    await self.delete(name, registered.revision)
                except (Unavailable, OutcomeUnknown, CallTimeout) as error:
                    if time.monotonic() > deadline:
                        log.error("a name stays until the lease ends", name=name, pid=registered.pid, error=str(error))
                        return
                    await asyncio.sleep(PAUSE)
        finally:
            self._running[one] -= 1
            if not self._running[one]:
                del self._running[one]

    async def delete(self, name: str, revision: int) -> bool:
        """Delete the key held under this revision; returns when the own copy shows it. Raises Unavailable,
        OutcomeUnknown and CallTimeout."""
        with self._while_ending(name):
            deletion = await owned.delete(self._etcd, self._keys.name(name), revision)
            await self._watch.reached(deletion.revision, owned.WITHIN)
        return deletion.done

    async def delete_unseen(self, name: str, revision: int) -> None:
        """As ``delete``, without waiting for the own copy."""
        with self._while_ending(name):
            await owned.delete(self._etcd, self._keys.name(name), revision)

    @contextmanager
    def _while_ending(self, name: str) -> Iterator[None]:
        self._ending[name] += 1
        try:
            yield
        finally:
            self._ending[name] -= 1
            if not self._ending[name]:
                del self._ending[name]
