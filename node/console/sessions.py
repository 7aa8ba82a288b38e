"""What clients ask of consoles: open one, give it lines, stop a line, fetch what it said, close it.

A session belongs to the client that opened it, by the name in the subject of its queries (which NATS can be told to
enforce), and its id is a secret; nobody else gets a word in. Every line is logged with its owner and the PID.
The process is watched: when it fails the session goes on with a new one, and says so.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from cluster.envelope import Kind, Status, to_text, unpack
from cluster.errors import CallTimeout, ClusterError
from cluster.pid import host_address
from cluster.tasks import Tasks
from node.console.lines import Incomplete, LineTooLong, prepare
from node.console.program import HOST, PROMPT
from node.console.session import Identity, Session
from node.lua.dialect import LuaSyntaxError
from node.ports import Exit, Port, Ports, Refused
from node.query import BadQuery, NotFound, Query, text_of

log = structlog.get_logger("wippy.console")

MOST_SESSIONS = 32
MOST_STARTS = 20
"""Processes of one session, the first included."""
START_SECONDS = 10.0
LONGEST_POLL = 5.0
LOOK = 0.5
"""Seconds between two looks for clients that are gone."""
COMPLETION_SECONDS = 1.0
LOGGED = 4000
"""Characters of a line that are logged."""
LONGEST_NAME = 200


@dataclass(frozen=True)
class Surroundings:
    """The node, as far as consoles need it."""

    node: str
    enabled: Callable[[], bool]
    reachable: Callable[[], Awaitable[bool]]
    """Whether clients could reach this node now: their silence counts only then."""
    start_host: Callable[[], Awaitable[None]]
    stop_host: Callable[[], Awaitable[None]]
    entries: Callable[[], list[tuple[str, str]]]
    """(id, kind) of every entry of the registry."""
    names: Callable[[], list[str]]
    trace: Callable[[str], Awaitable[dict[Any, Any] | None]]
    """What was seen of a process since it was asked last (``node/lua/kernel/tracing.lua``)."""


class Consoles:
    """The consoles of one node."""

    def __init__(self, around: Surroundings, ports: Ports, tasks: Tasks) -> None:
        self.around = around
        self._ports = ports
        self._tasks = tasks
        self._sessions: dict[str, Session] = {}
        self._by_pid: dict[bytes, Session] = {}
        self._host = asyncio.Lock()
        self.ops: dict[str, Callable[[Query], Awaitable[Any]]] = {
            "console_open": self._open,
            "console_line": self._line,
            "console_stop": self._stop,
            "console_poll": self._poll,
            "console_complete": self._complete,
            "console_answer": self._answer,
            "console_close": self._close,
            "console_trace": self._trace,
        }

    def of(self, pid: bytes) -> Session | None:
        """The console whose process has this PID."""
        return self._by_pid.get(pid)

    # queries

    async def _open(self, query: Query) -> Any:
        self._check_enabled()
        node = self.around.node
        if len(self._sessions) >= MOST_SESSIONS:
            raise _refused("RateLimited", f"node {node} has {MOST_SESSIONS} consoles already; close one")
        owner = Identity(str(query.get("client") or ""), str(query.get("who") or "unknown")[:LONGEST_NAME])
        session = Session(secrets.token_hex(16), owner, time.monotonic())
        session.polls = 1  # whoever opens it is there
        self._sessions[session.id] = session
        port = self._ports.open(HOST)
        try:
            await self._start(session, port)
        except BaseException:
            port.close()
            await self._forget(session)
            raise
        session.polls = 0
        session.seen = time.monotonic()
        self._tasks.start(self._keep(session, port), "console")
        log.info("console opened", pid=session.pid_text, who=str(owner))
        return {"session": session.id, "node": node, "pid": session.pid_text}

    async def _line(self, query: Query) -> Any:
        session, number = self._session(query), _number(query, "number")
        text = query.get("text")
        if not isinstance(text, str):
            raise BadQuery(f"op 'console_line' expects a text, got {type(text).__name__}")
        if number <= session.line:
            return {"number": session.line}  # asked again: it was taken
        if session.busy:
            raise BadQuery(f"line {session.line} still runs")
        self._note(session, number, text)
        session.line, session.busy = number, True
        try:
            lua = await asyncio.to_thread(prepare, text)
        except Incomplete as error:
            self._refuse_line(session, f"{error}; the input is not complete")
        except (LuaSyntaxError, LineTooLong) as error:
            self._refuse_line(session, str(error))
        else:
            if not session.tell("line", n=number, text=lua):
                session.say("error", "Unavailable: the prompt has no process now; try again")
                self.line_done(session, False)
        return {"number": number}

    async def _stop(self, query: Query) -> Any:
        session = self._session(query)
        number = _number(query, "number")
        return {"told": session.busy and session.tell("stop", n=number)}

    async def _poll(self, query: Query) -> Any:
        """What was said since ``after``; waits ``wait`` seconds when that is nothing. Says that the client lives."""
        session, after = self._session(query), _number(query, "after")
        wait = min(float(query.get("wait") or 0.0), LONGEST_POLL)
        session.polls += 1
        try:
            events = session.take(after)
            if not events and wait > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await session.changed.wait()
                events = session.take(after)
        finally:
            session.polls -= 1
            session.seen = time.monotonic()
        return {"events": events, "pid": session.pid_text, "busy": session.busy}

    async def _complete(self, query: Query) -> Any:
        session, text = self._session(query), str(query.get("text") or "")
        entries = [id for id, _ in self.around.entries() if text and id.startswith(text)][:200]
        names = [name for name in self.around.names() if text and name.startswith(text)][:200]
        return {"entries": entries, "names": names, "lua": await self._fields(session, text)}

    async def _fields(self, session: Session, text: str) -> list[str]:
        """What the process has in its environment that goes on like ``text``."""
        request = session.next_request()
        waiting: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        session.completing[request] = waiting
        try:
            if not session.tell("complete", n=request, text=text):
                return []
            async with asyncio.timeout(COMPLETION_SECONDS):
                return await waiting
        except TimeoutError:
            return []
        finally:
            session.completing.pop(request, None)

    async def _answer(self, query: Query) -> Any:
        """The client answers what the process asked it for."""
        session = self._session(query)
        waiting = session.asked.pop(_number(query, "number"), None)
        if waiting is None or waiting.done():
            return {"taken": False}
        if query.get("error"):
            waiting.set_exception(Refused(Status.ERROR, {"kind": "Unavailable", "message": str(query["error"])}))
        else:
            waiting.set_result(query.get("value"))
        return {"taken": True}

    async def _close(self, query: Query) -> Any:
        session = self._session(query)
        session.end("closed")
        return {"closed": True}

    async def _trace(self, query: Query) -> Any:
        self._check_enabled()
        pid = text_of(query, "pid")
        seen = await self.around.trace(pid)
        if seen is None:
            raise NotFound(f"no process {pid} on node {self.around.node}")
        if seen[b"is_new"]:
            log.info("process is traced", pid=pid, client=query.get("client"))
        return {"records": [_record(one) for one in seen[b"records"] or ()], "left_out": seen[b"left_out"]}

    def _check_enabled(self) -> None:
        if not self.around.enabled():
            remedy = "set `console.enabled: true` in its .wippy.yaml, or start it with --set console.enabled=true"
            raise _refused("PermissionDenied", f"the console is off on node {self.around.node}: {remedy}")

    def _session(self, query: Query) -> Session:
        """The session a query is for. Whoever did not open it is told the same as when there is none."""
        session = self._sessions.get(text_of(query, "session"))
        if session is None or session.owner.client != str(query.get("client") or ""):
            raise NotFound(f"no such console on node {self.around.node}: it ended, or never was")
        session.seen = time.monotonic()
        return session

    def _note(self, session: Session, number: int, text: str) -> None:
        line = text if len(text) <= LOGGED else f"{text[:LOGGED]}… ({len(text)} characters)"
        log.info("console line", line=line, number=number, pid=session.pid_text, who=str(session.owner))

    def _refuse_line(self, session: Session, message: str) -> None:
        session.say("error", f"Syntax: {message}")
        self.line_done(session, False)

    def line_done(self, session: Session, ok: bool) -> None:
        """The line that ran has ended."""
        session.busy = False
        session.say("done", number=session.line, ok=ok)

    # the process

    async def _start(self, session: Session, port: Port) -> None:
        """Give the session a process. Raises Refused, CallTimeout, OSError, RuntimeError."""

        def accept(pid: bytes) -> bool:
            self._by_pid.pop(session.pid, None)
            session.pid = pid
            self._by_pid[pid] = session
            return not session.ended

        async with self._host:
            await self.around.start_host()
            session.starts += 1
            session.attached.clear()
            address = host_address(self.around.node, HOST).encode()
            await port.spawn(address, PROMPT, [], {b"monitor": True}, timeout=START_SECONDS, accept=accept)
            try:
                async with asyncio.timeout(START_SECONDS):
                    await session.attached.wait()
            except TimeoutError:
                raise CallTimeout(f"prompt of {session.pid_text}", START_SECONDS) from None

    async def _keep(self, session: Session, port: Port) -> None:
        """To the end of the session: start a new process when one fails, end the session when its client is gone."""
        exits: asyncio.Queue[Exit] = asyncio.Queue()
        port.on_exit = exits.put_nowait
        try:
            while not session.ended:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        ended = await exits.get()
                    if ended.pid == session.pid:
                        await self._process_ended(session, port, ended)
                if session.is_abandoned(time.monotonic()):
                    if await self.around.reachable():
                        session.end("its client is gone")
                    else:
                        session.seen = time.monotonic()
            await self._linger(session)
        finally:
            self._ports.route([int(Kind.TERMINATE), session.pid, port.pid, 0])
            port.close()
            log.info("console closed", pid=session.pid_text, who=str(session.owner), reason=session.ended)
            await self._forget(session)

    async def _process_ended(self, session: Session, port: Port, ended: Exit) -> None:
        session.stream = None
        if ended.error is None:
            session.end(str(_text(ended.value) or "its process ended"))
            return
        why = str(ended.error.get("message", "no reason given"))
        if session.starts >= MOST_STARTS:
            session.end(f"its process failed {session.starts} times, the last time with: {why}")
            return
        try:
            await self._start(session, port)
        except (ClusterError, OSError, RuntimeError) as error:
            session.end(f"its process failed ({why}), and no new one can start: {error}")
            return
        session.say("restarted", f"the prompt's process failed: {why}; it goes on as {session.pid_text}, empty")
        if session.busy:
            self.line_done(session, False)

    async def _linger(self, session: Session) -> None:
        """Its client may still fetch the last words."""
        if session.ended in ("closed", "its client is gone"):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_POLL):
                await session.fetched.wait()

    async def _forget(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        self._by_pid.pop(session.pid, None)
        async with self._host:
            if not self._sessions:
                await self.around.stop_host()


def _number(query: Query, field: str) -> int:
    value = query.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadQuery(f"op {query['op']!r} expects a number {field!r}, got {value!r}")
    return value


def _record(seen: dict[bytes, Any]) -> dict[str, Any]:
    """One thing that was traced, its payloads decoded."""
    record: dict[str, Any] = to_text(seen)
    data = seen.get(b"data")
    if data is not None:
        record["data"] = to_text(unpack(data))[0]
    return record


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _refused(kind: str, message: str) -> Refused:
    return Refused(Status.ERROR, {"kind": kind, "message": message})
