"""Module ``node.console``: what the prompt's process asks of its session. Anybody else is refused.

``attach`` opens the stream of what the client wants ({op, ...}); ``ask`` has the client answer what takes all nodes
(``pids``, ``tree``, ...); ``reg`` lists entries. Casts tell the client: ``say`` [kind, text], ``done`` [ok],
``completed`` [number, list].
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cluster.envelope import to_raw, to_text
from node.console.program import MODULE
from node.console.session import Session
from node.console.sessions import Consoles
from node.modules.contract import Answer, Caller, LuaError, Values, argument, invalid
from node.ports import Refused

ASK_SECONDS = timedelta(seconds=330)
"""The longest a client may take: it bounds what it does itself."""
LONGEST_TEXT = 256 * 1024
KINDS = frozenset({"value", "out", "error", "note", "message", "event", "text"})
MOST_ENTRIES = 10_000


class ConsoleModule:
    """Python half of ``node.console``."""

    name = MODULE
    deadlines: Mapping[str, timedelta | None] = {"ask": ASK_SECONDS}

    def __init__(self, consoles: Consoles) -> None:
        self._consoles = consoles

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        session = self._session(caller)
        match fn:
            case "attach":
                return self._attach(session, caller, args)
            case "ask":
                return self._ask(session, args)
            case "reg":
                return self._entries(args)
            case _:
                raise invalid(f"{MODULE} has no function {fn!r}")

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        session = self._session(caller)
        match fn:
            case "say":
                kind = str(_plain(argument(args, 0)))
                session.say(kind if kind in KINDS else "note", str(_plain(argument(args, 1)))[:LONGEST_TEXT])
            case "done":
                self._consoles.line_done(session, argument(args, 0) is True)
            case "completed":
                waiting = session.completing.get(argument(args, 0))
                if waiting is not None and not waiting.done():
                    waiting.set_result([str(_plain(one)) for one in argument(args, 1) or []])
            case _:
                raise invalid(f"{MODULE} has no function {fn!r}")

    def _session(self, caller: Caller) -> Session:
        session = self._consoles.of(caller.pid)
        if session is None:
            raise LuaError("PermissionDenied", f"{caller.pid_text} is no console: `wippy console` starts one")
        return session

    def _attach(self, session: Session, caller: Caller, args: Values) -> Values:
        if session.stream is not None and session.stream.open:
            raise LuaError("PermissionDenied", "the console has its prompt already")
        number, is_again = argument(args, 0), session.stream is not None
        session.stream = caller.streams.opened(caller, number)
        session.attached.set()
        if is_again and session.busy:  # the line made the process start over
            self._consoles.line_done(session, False)
        return [number]

    async def _ask(self, session: Session, args: Values) -> Values:
        number = session.next_request()
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        session.asked[number] = waiting
        session.say("ask", str(_plain(argument(args, 0))), number=number, args=to_text(args[1:]))
        try:
            return [to_raw(await waiting)]
        except Refused as error:
            raise LuaError(error.kind, str(error)) from None
        finally:
            session.asked.pop(number, None)

    def _entries(self, args: Values) -> Values:
        """The entries whose id or kind has the text in it, or matches where it holds a ``*``."""
        wanted = str(_plain(argument(args, 0)) or "")
        found = [
            {b"id": id.encode(), b"kind": kind.encode()}
            for id, kind in self._consoles.around.entries()
            if _matches(wanted, id) or _matches(wanted, kind)
        ]
        return [found[:MOST_ENTRIES]]


def _matches(wanted: str, text: str) -> bool:
    if "*" not in wanted:
        return wanted in text
    return re.fullmatch(".*".join(map(re.escape, wanted.split("*"))), text) is not None


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
