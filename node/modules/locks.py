"""``system.lock``: locks of the cluster, called by the Lua half of ``system`` under the module name ``locks``.

A lock belongs to the calling process and is on the lease of its node. Acquiring fails at once when somebody holds
it, and when the lease of this node is not sure: a lock that may be over any moment guards nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Protocol

from cluster.errors import LockTaken, OutcomeUnknown
from cluster.etcd import LeaseGone
from cluster.locks import Lock
from node.modules.contract import Answer, Caller, LuaError, Values, argument, invalid, not_found, text


class Locks(Protocol):
    """What the module needs of ``cluster.locks.Locks``."""

    async def acquire(self, name: str, pid: bytes, lease: int) -> Lock: ...

    async def release(self, name: str, pid: bytes) -> bool: ...

    def token(self, name: str, pid: bytes) -> int | None: ...


class Lease(Protocol):
    """What the module needs of the lease keeper."""

    def current(self) -> int: ...

    def may_start_owned(self, lease: int) -> bool: ...


class LocksModule:
    """Handlers of ``system.lock``."""

    name = "locks"
    deadlines: Mapping[str, timedelta | None] = {"acquire": timedelta(seconds=15), "release": timedelta(seconds=15)}

    def __init__(self, locks: Locks, lease: Lease) -> None:
        self._locks = locks
        self._lease = lease
        self._functions: dict[str, Callable[[Caller, str], Answer]] = {
            "acquire": self._acquire,
            "release": self._release,
            "fence": self._fence,
        }

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        function = self._functions.get(fn)
        if function is None:
            raise invalid(f"system.lock has no function {fn!r}")
        return function(caller, text(argument(args, 0), "lock name"))

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"system.lock.{fn} wants an answer")

    async def _acquire(self, caller: Caller, name: str) -> Values:
        lease = self._lease.current()
        if not self._lease.may_start_owned(lease):
            raise _unsure(name)
        try:
            await self._locks.acquire(name, caller.pid, lease)
        except LockTaken as error:
            raise LuaError("AlreadyExists", str(error), retryable=False, details={"holder": error.by}) from None
        except ValueError as error:
            raise invalid(str(error)) from None
        except LeaseGone:
            raise _unsure(name) from None
        except OutcomeUnknown as error:
            message = f"{error}; should lock {name!r} turn out to be acquired, it is given back"
            raise LuaError("Timeout", message, retryable=True, details={"outcome": "unknown"}) from None
        if not self._lease.may_start_owned(lease):
            await self._locks.release(name, caller.pid)
            raise _unsure(name)
        return [True]

    async def _release(self, caller: Caller, name: str) -> Values:
        return [await self._locks.release(name, caller.pid)]

    def _fence(self, caller: Caller, name: str) -> Values:
        token = self._locks.token(name, caller.pid)
        if token is None:
            raise not_found(f"this process does not hold lock {name!r}")
        return [token]


def _unsure(name: str) -> LuaError:
    message = f"the lease of this node is not renewed at the moment, so lock {name!r} can't be held; try again"
    return LuaError("Unavailable", message, retryable=True)
