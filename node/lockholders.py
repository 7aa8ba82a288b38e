"""The processes of this node that hold locks: owned work, under the same rules as services (F3, F4).

While the lease is not renewed they are cancelled and then killed, and nothing they do leaves its VM once the lease
may be over. A holder that has lost a lock is killed: another may hold it by now. What a holder writes to a shared
store carries its locks as fences, so that what was sent before the kill is refused too. A holder that moves is guarded
by the node it is on, and by none while it is frozen: it does nothing then, and its locks may be the target's already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from cluster.envelope import Envelope, Kind
from cluster.keys import Keys
from cluster.locks import Lock, Locks

log = structlog.get_logger("wippy.locks")


class Lease(Protocol):
    """What is needed of the lease keeper."""

    def may_run_owned(self, lease: int) -> bool: ...


class LockHolders:
    """Ends holders through ``route``, as any process is ended."""

    def __init__(self, locks: Locks, keys: Keys, lease: Lease, route: Callable[[Envelope], None]) -> None:
        self._locks = locks
        self._keys = keys
        self._lease = lease
        self._route = route
        self._warned: set[bytes] = set()
        self.owns = locks.owns
        locks.on_lost(self._lost)

    @property
    def guarded(self) -> Collection[bytes]:
        return self._locks.holders

    def may_act(self, pid: bytes) -> bool:
        """Whether the lease of all its locks holds. A process it does not hold for is killed."""
        if all(self._lease.may_run_owned(lock.lease) for lock in self._locks.of(pid)):
            return True
        self._kill(pid)
        return False

    def fences_of(self, pid: bytes) -> list[tuple[str, int]]:
        """The locks (key, token) it acquired and did not release."""
        return [(self._keys.lock(lock.name), lock.token) for lock in self._locks.of(pid)]

    def in_doubt(self) -> None:
        """The lease may end soon: CANCEL every holder, once."""
        for pid in set(self._locks.holders) - self._warned:
            self._warned.add(pid)
            self._route([int(Kind.CANCEL), pid, b"", 0, b"the node may lose its lease"])

    def kill_owned(self) -> None:
        for pid in list(self._locks.holders):
            self._kill(pid)

    def sure(self) -> None:
        """The lease answers again: whoever still lives goes on."""
        self._warned.clear()

    def process_ended(self, pid: bytes) -> None:
        self._warned.discard(pid)
        self._locks.process_ended(pid)

    def _lost(self, lock: Lock) -> None:
        self._kill(lock.pid.encode("utf-8", "surrogateescape"))

    def _kill(self, pid: bytes) -> None:
        log.debug("holder of a lock is ended", pid=pid.decode("utf-8", "backslashreplace"))
        self._route([int(Kind.TERMINATE), pid, b"", 0])
