"""Answers what clients and the command line ask this node: the control subject's queries.

A query is a msgpack map ``{op, ...}``; the answer ``{ok: true, value}`` or
``{ok: false, error: {kind, message, code}}``. Queries that act on processes are turned into
envelopes, so they take the same path and order as everybody's; this node is the client's
gateway. Every query has a deadline (``timeout`` in seconds, at most 300); at most ``MAX_WAITING``
wait at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import structlog

from cluster.envelope import Kind, Status, to_raw, to_text, unpack
from cluster.errors import CallTimeout, ClusterError, MessageTooBig
from cluster.names import Names
from cluster.pid import Pid, host_address, is_pid
from cluster.tasks import Tasks
from node.ports import Exit, Port, Ports, Refused

log = structlog.get_logger("wippy.admin")

DEFAULT_TIMEOUT = 5.0
MAX_TIMEOUT = 300.0
MAX_WAITING = 1000
NAME_MOVES = 2.0
"""Seconds a query waits for a name to show its new holder, when the former one says that it has it no more."""
POLL = 0.02
SYSTEM_HOST = "node:system"
Query = dict[str, Any]


class BadQuery(ClusterError, ValueError):
    """A query that lacks something or asks for nothing known."""


class NotFound(ClusterError):
    """What the query names is not there."""


@dataclass(frozen=True)
class NodeState:
    """What the node tells of itself. Callables, so that every answer is current."""

    node: str
    health: Callable[[], dict[str, Any]]
    processes: Callable[[], Awaitable[list[dict[str, Any]]]]
    inspect: Callable[[str], Awaitable[dict[str, Any] | None]]
    stats: Callable[[], dict[str, Any]]
    services: Callable[[], list[dict[str, Any]]]
    dead_letters: Callable[[], list[dict[str, Any]]]


class Admin:
    """The control door of one node."""

    def __init__(self, state: NodeState, ports: Ports, names: Names, tasks: Tasks) -> None:
        self._state = state
        self._ports = ports
        self._names = names
        self._tasks = tasks
        self._waiting = 0
        self._ops: dict[str, Callable[[Query], Awaitable[Any]]] = {
            "health": self._health,
            "stats": self._stats,
            "list": self._list,
            "inspect": self._inspect,
            "names": self._list_names,
            "services": self._services,
            "dead_letters": self._dead_letters,
            "send": self._send,
            "call": self._call,
            "call_function": self._call_function,
            "spawn": self._spawn,
            "cancel": self._cancel,
            "terminate": self._terminate,
        }

    def on_query(self, payload: bytes, answer: Callable[[bytes], Awaitable[None]]) -> None:
        """A query arrived; the answer goes to ``answer`` when it is known."""
        self._tasks.start(self._handle(payload, answer), "query")

    async def _handle(self, payload: bytes, answer: Callable[[bytes], Awaitable[None]]) -> None:
        self._waiting += 1
        try:
            packed = _packed(await self._result(payload))
        except asyncio.CancelledError:
            await answer(_packed(_failure("Unavailable", f"node {self._state.node} is stopping", "stopping")))
            raise
        finally:
            self._waiting -= 1
        try:
            await answer(packed)
        except MessageTooBig as error:
            text = f"the answer of {error.size} bytes is over the {error.limit} that fit into one message of NATS"
            await answer(_packed(_failure("Invalid", f"{text}; ask for less", "too_big")))

    async def _result(self, payload: bytes) -> dict[str, Any]:
        if self._waiting > MAX_WAITING:
            return _failure("Unavailable", f"{MAX_WAITING} queries wait already; try again", "busy")
        try:
            return {"ok": True, "value": await self._run(payload)}
        except Refused as error:
            return _failure(error.kind, str(error), error.code)
        except CallTimeout as error:
            return _failure("Timeout", str(error), "timeout")
        except TimeoutError:
            return _failure("Timeout", f"a host of node {self._state.node} does not answer", "timeout")
        except NotFound as error:
            return _failure("NotFound", str(error), "noproc")
        except (ClusterError, ValueError) as error:
            return _failure("Invalid", str(error), "invalid")
        except Exception as error:
            log.exception("query failed")
            return _failure("Internal", f"{type(error).__name__}: {error}", "internal")

    async def _run(self, payload: bytes) -> Any:
        query = to_text(unpack(payload))
        if not isinstance(query, dict) or not isinstance(query.get("op"), str):
            raise BadQuery("expected a msgpack map with a text field 'op'")
        handler = self._ops.get(query["op"])
        if handler is None:
            raise BadQuery(f"unknown op {query['op']!r}; known: {', '.join(sorted(self._ops))}")
        return await handler(query)

    async def _health(self, query: Query) -> Any:
        return self._state.health()

    async def _stats(self, query: Query) -> Any:
        return self._state.stats()

    async def _list(self, query: Query) -> Any:
        return await self._state.processes()

    async def _inspect(self, query: Query) -> Any:
        found = await self._state.inspect(_text(query, "pid"))
        if found is None:
            raise NotFound(f"no process {query['pid']} on node {self._state.node}")
        return found

    async def _list_names(self, query: Query) -> Any:
        return [
            {"name": name, "pid": held.pid, "scope": int(held.scope), "revision": held.revision}
            for name, held in self._names.all()
        ]

    async def _services(self, query: Query) -> Any:
        return self._state.services()

    async def _dead_letters(self, query: Query) -> Any:
        return self._state.dead_letters()

    async def _send(self, query: Query) -> Any:
        port = self._ports.open("node:client")
        try:
            return {"pid": (await self._deliver(port, query, _timeout(query))).decode()}
        finally:
            port.close()

    async def _call(self, query: Query) -> Any:
        timeout = _timeout(query)
        port = self._ports.open("node:client")
        failed: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        port.on_exit = lambda ended: _note_failure(failed, ended)
        try:
            try:
                async with asyncio.timeout(timeout):
                    pid = await self._deliver(port, query, timeout)
                    self._tasks.start(_watch(port, pid, timeout), "watch callee")
                    sender, topic, reply = await _first_reply(port, failed)
            except TimeoutError:
                raise CallTimeout(f"call to {query['to']}", timeout) from None
            return {"pid": pid, "from": sender, "topic": topic, "payloads": reply}
        finally:
            port.close()

    async def _deliver(self, port: Port, query: Query, timeout: float) -> bytes:
        """Send the query's message; the PID that accepted it. A name that changes hands is resolved once more."""
        to, topic = _text(query, "to"), _topic(query)
        payloads = [to_raw(query["payload"])] if "payload" in query else []
        pid, name, revision = self._resolve(to)
        try:
            await port.send(pid, topic, payloads, timeout=timeout, name=name, revision=revision)
        except Refused as error:
            if error.status is not Status.STALE_NAME:
                raise
            await self._moved(name, revision)
            pid, name, revision = self._resolve(to)
            await port.send(pid, topic, payloads, timeout=timeout, name=name, revision=revision)
        return pid

    async def _moved(self, name: str, revision: int) -> None:
        """Wait until the name is seen to have another holder, or long enough."""
        deadline = time.monotonic() + NAME_MOVES
        while time.monotonic() < deadline:
            held = self._names.lookup(name)
            if held is not None and held.revision != revision:
                return
            await asyncio.sleep(POLL)

    async def _call_function(self, query: Query) -> Any:
        args, timeout = _args(query), _timeout(query)
        host = host_address(str(query.get("node") or self._state.node), SYSTEM_HOST).encode()
        port = self._ports.open("node:client")
        try:
            function = _text(query, "id").encode()
            options = {b"timeout": int(timeout * 1000)}
            return await port.request(Kind.CALL, host, function, args, options, timeout=timeout)
        finally:
            port.close()

    async def _spawn(self, query: Query) -> Any:
        host = _text(query, "host")
        node, _, name = host.rpartition("@")
        address = host_address(node or self._state.node, name).encode()
        port = self._ports.open("node:client")
        try:
            return await port.spawn(address, _text(query, "id"), _args(query), {}, timeout=_timeout(query))
        finally:
            port.close()

    async def _cancel(self, query: Query) -> Any:
        reason = str(query.get("reason") or "cancelled by operator")
        return await self._signal(query, Kind.CANCEL, reason.encode())

    async def _terminate(self, query: Query) -> Any:
        return await self._signal(query, Kind.TERMINATE)

    async def _signal(self, query: Query, kind: Kind, *rest: Any) -> Any:
        port: Port = self._ports.open("node:client")
        try:
            pid, _, _ = self._resolve(_text(query, "to"))
            await port.request(kind, pid, *rest, timeout=_timeout(query))
            return {"pid": pid.decode()}
        finally:
            port.close()

    def _resolve(self, target: str) -> tuple[bytes, str, int]:
        """(PID, name, revision) of a PID text or a registered name; name "" when it was a PID."""
        if is_pid(target):
            return str(Pid.parse(target)).encode(), "", 0
        held = self._names.lookup(target)
        if held is None:
            raise NotFound(f"noproc: no process is registered as {target!r}; `wippy names` shows the names")
        return held.pid.encode(), target, held.revision


async def _watch(port: Port, pid: bytes, timeout: float) -> None:
    """Monitor the callee, so that a caller need not wait for one that failed. Its end may be told already."""
    try:
        await port.request(Kind.MONITOR, pid, timeout=timeout)
    except (Refused, CallTimeout) as error:
        log.debug("callee is not watched", pid=pid.decode(), reason=str(error))


def _note_failure(failed: asyncio.Future[Exit], ended: Exit) -> None:
    """A callee that returned may have left the answer to another process; one that failed has not answered."""
    if ended.error is not None and not failed.done():
        failed.set_result(ended)


async def _first_reply(port: Port, failed: asyncio.Future[Exit]) -> tuple[bytes, bytes, list[Any]]:
    """The first message to the port. Raises Refused when the callee fails before there is one."""
    async with Tasks("call") as tasks:
        reply = tasks.start(port.messages.get(), "reply")
        waited: set[asyncio.Future[Any]] = {reply, failed}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if reply.done():
            return reply.result()
        if not port.messages.empty():
            return port.messages.get_nowait()
        ended = failed.result()
    error = ended.error or {}
    message = f"process {ended.pid.decode()} failed before it answered: {error.get('message', 'no reason given')}"
    raise Refused(Status.ERROR, {**error, "message": message})


def _packed(answer: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(answer, use_bin_type=False, unicode_errors="surrogateescape")
    return packed


def _failure(kind: str, message: str, code: str) -> dict[str, Any]:
    return {"ok": False, "error": {"kind": kind, "message": message, "code": code}}


def _text(query: Query, field: str) -> str:
    value = query.get(field)
    if not isinstance(value, str) or not value:
        raise BadQuery(f"op {query['op']!r} expects a text field {field!r}, got {value!r}")
    return value


def _topic(query: Query) -> str:
    topic = _text(query, "topic")
    if topic.startswith("@"):
        raise BadQuery(f"topic {topic!r} is reserved: topics of messages can't start with '@'")
    return topic


def _args(query: Query) -> list[Any]:
    args = query.get("args", [])
    if not isinstance(args, list):
        raise BadQuery(f"op {query['op']!r} expects a list 'args', got {args!r}")
    raw: list[Any] = to_raw(args)
    return raw


def _timeout(query: Query) -> float:
    timeout = query.get("timeout") or DEFAULT_TIMEOUT
    if not isinstance(timeout, int | float):
        raise BadQuery(f"expected a timeout in seconds, got {timeout!r}")
    if not 0 < timeout <= MAX_TIMEOUT:
        raise BadQuery(f"expected a timeout of 0 to {MAX_TIMEOUT:g} seconds, got {timeout:g}")
    return timeout
