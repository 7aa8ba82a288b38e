"""``process.registry``: names of processes, called by the kernel under the module name ``names``.

LOCAL names live in this node, the others in etcd on the node's lease (see ``cluster.names``). A process may
name another one only when it lives on this node: a cluster name is on the lease of the node that holds its process.
Where that is its PID does not say, once it has moved.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Protocol, TypeAlias

from cluster.errors import BadPid, NameTaken
from cluster.etcd import LeaseGone
from cluster.heirs import Inherited
from cluster.names import MAX_NAME, Registered, Scope
from cluster.pid import Pid, is_pid
from node.modules.contract import Answer, Caller, LuaError, Values, argument, invalid, not_found, text

STRONG_WITHIN = 10.0
"""Seconds in which every node must have seen a STRONG name."""


class Names(Protocol):
    """What the module needs of ``cluster.names.Names``."""

    def lookup(self, name: str) -> Registered | None: ...

    async def register(self, name: str, pid: str, scope: Scope, lease: int = 0, timeout: float = 5.0) -> Registered: ...

    async def unregister(self, name: str, pid: str, scope: Scope) -> bool: ...


Inherit: TypeAlias = Callable[[str, str, Scope, str], Awaitable[Inherited]]
"""``inherit(pid, name, scope, by)``: the process asked for a name that ``by`` has."""


async def not_inherited(pid: str, name: str, scope: Scope, by: str) -> Inherited:
    return Inherited.NO


def birthplace(pid: str) -> str:
    return Pid.parse(pid).node


class NamesModule:
    """Handlers of ``process.registry``.

    ``lease`` gives the id of the lease the node lives on now; ``default_scope`` is what a registration
    without a scope means (setting ``names.default_scope``). ``where`` gives the node a process is on; ``inherit``
    waits for a name a process is to get from the one it takes over from.
    """

    name = "names"
    deadlines: Mapping[str, timedelta | None] = {"register": timedelta(seconds=30), "unregister": timedelta(seconds=15)}

    def __init__(
        self,
        names: Names,
        node: str,
        lease: Callable[[], int],
        *,
        default_scope: Scope = Scope.LOCAL,
        where: Callable[[str], str] = birthplace,
        inherit: Inherit = not_inherited,
    ) -> None:
        self._names = names
        self._node = node
        self._lease = lease
        self._default = default_scope
        self._where = where
        self._inherit = inherit

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        name = _name(argument(args, 0))
        match fn:
            case "register":
                return self._register(name, self._pid(argument(args, 1), caller), self._scope(argument(args, 2)))
            case "unregister":
                return self._unregister(name, self._pid(argument(args, 1), caller), argument(args, 2))
            case "lookup":
                held = self._names.lookup(name)
                if held is None:
                    raise not_found(f"no process is registered as {name!r}")
                return [held.pid]
            case _:
                raise invalid(f"process.registry has no function {fn!r}")

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"process.registry.{fn} wants an answer")

    async def _register(self, name: str, pid: str, scope: Scope) -> Values:
        timeout = STRONG_WITHIN if scope is Scope.STRONG else 5.0
        try:
            try:
                await self._names.register(name, pid, scope, self._lease(), timeout)
            except NameTaken as error:
                inherited = await self._inherit(pid, name, scope, error.by)
                if inherited is Inherited.NO:
                    raise
                if inherited is Inherited.AGAIN:
                    await self._names.register(name, pid, scope, self._lease(), timeout)
        except NameTaken as error:
            raise LuaError("AlreadyExists", str(error), retryable=False, details={"by": error.by}) from None
        except LeaseGone:
            message = f"this node is not registered now, {name!r} can't be named in the cluster; try again in a moment"
            raise LuaError("Unavailable", message, retryable=True) from None
        return [True]

    async def _unregister(self, name: str, pid: str, scope: Any) -> Values:
        """Without a scope: wherever the process has the name."""
        if scope is not None:
            return [await self._names.unregister(name, pid, self._scope(scope))]
        freed = [await self._names.unregister(name, pid, one) for one in Scope]
        return [any(freed)]

    def _pid(self, value: Any, caller: Caller) -> str:
        if value is None:
            return caller.pid_text
        pid = text(value, "pid")
        try:
            Pid.parse(pid)
        except BadPid as error:
            raise invalid(str(error)) from None
        node = self._where(pid)
        if pid != caller.pid_text and node != self._node:
            raise invalid(f"{pid} lives on node {node}: a process is named on its own node, this one is {self._node}")
        return pid

    def _scope(self, value: Any) -> Scope:
        if value is None:
            return self._default
        if isinstance(value, bool) or value not in list(Scope):
            known = ", ".join(f"{one.value} ({one.name})" for one in Scope)
            raise invalid(f"expected a scope of process.registry: {known}; got {value!r}")
        return Scope(value)


def _name(value: Any) -> str:
    name = text(value, "name")
    if is_pid(name) or len(value) > MAX_NAME:
        raise invalid(f"expected a name of 1 to {MAX_NAME} bytes that does not start with a brace, got {name[:80]!r}")
    return name
