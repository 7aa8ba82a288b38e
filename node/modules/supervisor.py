"""Module ``supervisor``: the children of a supervisor, wherever in the cluster it runs.

A command goes as a CALL to the supervisor's process, found by its PID or by a name it was given, so
it takes the same way and order as everything else between nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from cluster.envelope import Kind, Status
from cluster.errors import BadPid, CallTimeout
from cluster.pid import Pid, is_pid
from node.modules.contract import Answer, Caller, LuaError, Values, argument, invalid, not_found, text
from node.ports import Ports, Refused
from node.trees import HOST

DEADLINE = 25.0
"""Seconds a supervisor may take to answer: it starts and stops children one after the other."""
FUNCTIONS = frozenset(
    {"start_child", "terminate_child", "restart_child", "delete_child", "which_children", "count_children"}
)


class SupervisorModule:
    """Python half of ``supervisor``. ``found`` gives the PID a supervisor is known by: of its name, or its entry."""

    name = "supervisor"
    deadlines: Mapping[str, timedelta | None] = {}

    def __init__(self, ports: Ports, found: Callable[[str], str | None]) -> None:
        self._port = ports.open("node:supervisors")
        self._found = found

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        if fn not in FUNCTIONS:
            raise invalid(f"supervisor has no function {fn!r}")
        return self._ask(fn, self._pid(text(argument(args, 0), "supervisor")), args[1:])

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"supervisor.{fn} wants an answer")

    async def _ask(self, fn: str, pid: bytes, args: Values) -> Values:
        try:
            value = await self._port.request(Kind.CALL, pid, fn.encode(), args, {}, timeout=DEADLINE)
        except Refused as error:
            raise _as_lua(error, pid) from None
        except CallTimeout:
            message = f"supervisor.{fn}: the supervisor did not answer within {DEADLINE:g} s; the outcome is unknown"
            raise LuaError("Timeout", message, retryable=True) from None
        return [value]

    def _pid(self, target: str) -> bytes:
        found = target if is_pid(target) else self._found(target)
        if found is None:
            raise not_found(
                f"no supervisor {target!r}: it is no PID, no registered name and no entry that starts itself once in "
                "the cluster; use the PID of one that runs as a child (which_children of the one above, wippy tree)"
            )
        try:
            pid = Pid.parse(found)
        except BadPid as error:
            raise invalid(str(error)) from None
        if pid.host != HOST:
            raise invalid(f"{found} is a process of {pid.host}, not a supervisor")
        return found.encode("utf-8", "surrogateescape")


def _as_lua(error: Refused, pid: bytes) -> LuaError:
    told: dict[str, Any] = error.error
    if error.status is Status.NOPROC:
        return not_found(f"no supervisor {pid.decode('utf-8', 'replace')}: it ended or never was")
    kind = error.kind or "Unavailable"
    return LuaError(kind, str(error), retryable=told.get("retryable"), details=told.get("details"))
