"""What the Lua module ``process`` asks of the node: the fencing token of the service a process is an instance of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from node.modules.contract import Answer, Caller, Values, invalid, not_found


class ProcessModule:
    """Handler of ``process.fence``. ``token_of`` gives the token a process writes under, None when it owns nothing."""

    name = "process"
    deadlines: Mapping[str, timedelta | None] = {}

    def __init__(self, token_of: Callable[[bytes], int | None]) -> None:
        self._token_of = token_of

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        if fn != "fence":
            raise invalid(f"process has no function {fn!r} here")
        token = self._token_of(caller.pid)
        if token is None:
            raise not_found(
                f"{caller.pid_text} owns nothing: it is neither an instance of a service with placement.mode cluster "
                "nor a function called by one; what a lock guards has system.lock.fence"
            )
        return [token]

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"process.{fn} wants an answer")
