"""What the Lua module ``process`` asks of the node: the fencing token of the service a process is an instance of, and
moves.

Which processes a program may move is said where it is said which namespaces of the registry it may change: on the
entry of its host (``processes.move``), else by the setting of that name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from cluster.asking import Declined
from cluster.errors import BadPid, ClusterError
from cluster.pid import Pid, is_pid
from node.modules.contract import Answer, Caller, LuaError, Values, argument, invalid, not_found, text, unavailable
from node.modules.permits import Permits
from node.query import BadQuery, NotFound

WITHIN = 10.0
"""Seconds a process has to hand over its state."""


class ProcessModule:
    """Handler of ``process.fence`` and ``process.move``.

    ``token_of`` gives the token a process writes under, None when it owns nothing. ``named`` gives the PID behind a
    name; ``move`` is (PID, node, seconds) and tells what became of it, as ``node.relocation``.
    """

    name = "process"
    deadlines: Mapping[str, timedelta | None] = {"move": timedelta(seconds=60)}

    def __init__(
        self,
        token_of: Callable[[bytes], int | None],
        named: Callable[[str], str | None],
        move: Callable[[str, str, float], Awaitable[dict[str, Any]]],
        permits: Permits,
    ) -> None:
        self._token_of = token_of
        self._named = named
        self._move = move
        self._permits = permits

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        match fn:
            case "fence":
                return self._fence(caller)
            case "move":
                return self._move_one(caller, text(argument(args, 0), "process"), text(argument(args, 1), "node"))
            case _:
                raise invalid(f"process has no function {fn!r} here")

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"process.{fn} wants an answer")

    def _fence(self, caller: Caller) -> Values:
        token = self._token_of(caller.pid)
        if token is None:
            raise not_found(
                f"{caller.pid_text} owns nothing: it is neither an instance of a service with placement.mode cluster "
                "nor a function called by one; what a lock guards has system.lock.fence"
            )
        return [token]

    async def _move_one(self, caller: Caller, process: str, to: str) -> Values:
        pid = self._pid_of(process)
        self._permits.check(caller, [pid.host])
        if str(pid) == caller.pid_text:
            raise invalid("a process can't wait for its own move: let another move it, or `wippy move`")
        try:
            told = await self._move(str(pid), to, WITHIN)
        except Declined as error:
            raise LuaError(error.kind, error.message) from None
        except NotFound as error:
            raise not_found(str(error)) from None
        except BadQuery as error:
            raise invalid(str(error)) from None
        except ClusterError as error:
            raise unavailable(str(error)) from None
        if told["verdict"] == "moved" or (not told["verdict"] and not told["reason"]):
            return [round(told["seconds"] * 1000)]
        where = {"node": told["node"]} if told["verdict"] == "stayed" else {}
        raise LuaError("Conflict", f"not moved: {told['reason']}", details={"verdict": told["verdict"], **where})

    def _pid_of(self, process: str) -> Pid:
        try:
            if is_pid(process):
                return Pid.parse(process)
        except BadPid as error:
            raise invalid(str(error)) from None
        held = self._named(process)
        if held is None:
            raise not_found(f"no process is registered as {process!r}")
        return Pid.parse(held)
