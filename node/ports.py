"""Ports: processes of the node itself, through which Python code talks to Lua processes.

A port has a PID (slot 0) and the same envelopes as everyone: the supervisor spawns and
monitors through one, a client's call waits at one for its reply. Every request has a
deadline and ends in a value, a ``Refused`` or a ``CallTimeout``; a node that goes away
ends the requests that wait for it (NOCONNECTION: outcome unknown). A process that a spawn
started after its asker had given up is ended: nobody would know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol, TypeAlias

import structlog

from cluster.envelope import Envelope, Kind, Status, error_map, to_text
from cluster.errors import CallTimeout, ClusterError
from cluster.pid import VM_SLOTS, Pid, node_of

log = structlog.get_logger("wippy.ports")

ABANDONED = 1000
"""Spawns nobody waits for any more whose late answers are still recognised."""

Accept: TypeAlias = Callable[[bytes], bool]
"""``accept(pid)``: a spawned process, told before anything it did is handled. False: it is ended."""


class Refused(ClusterError):
    """A request was answered with something else than OK. ``error`` is an error map in text form."""

    def __init__(self, status: Status, error: dict[str, Any]) -> None:
        super().__init__(status, error)
        self.status = status
        self.error = error

    @property
    def kind(self) -> str:
        return str(self.error.get("kind", ""))

    @property
    def code(self) -> str:
        """``noproc``, ``noconnection``, ``stale_name`` or ``error``."""
        return self.status.name.lower()

    def __str__(self) -> str:
        return str(self.error.get("message", self.code))


@dataclass(frozen=True, slots=True)
class Exit:
    """A watched process ended. ``error`` is None after a normal return, else an error map in text form."""

    pid: bytes
    value: Any
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Request:
    """A request that waits for its REPLY."""

    node: bytes
    answer: asyncio.Future[Any]
    accept: Accept | None


class Port:
    """One PID of the node. Made by ``Ports.open``; close it when done."""

    def __init__(self, pid: bytes, ports: Ports) -> None:
        self.pid = pid
        self._ports = ports
        self._waiting: dict[int, _Request] = {}
        self.messages: asyncio.Queue[tuple[bytes, bytes, list[Any]]] = asyncio.Queue(maxsize=10_000)
        """What was sent to the port: (from, topic, payloads)."""
        self.on_exit: Callable[[Exit], None] | None = None

    async def request(self, kind: Kind, to: bytes, *rest: Any, timeout: float) -> Any:
        """Send a request and wait for its REPLY. Returns the value (raw form).

        Raises Refused when it is answered with an error, noproc or noconnection, and CallTimeout
        after ``timeout`` seconds.
        """
        return await self._request(kind, to, rest, timeout, None)

    async def _request(
        self, kind: Kind, to: bytes, rest: tuple[Any, ...], timeout: float, accept: Accept | None
    ) -> Any:
        ref = self._ports.next_ref()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[ref] = _Request(self._ports.where(to), answer, accept)
        try:
            self._ports.route([int(kind), to, self.pid, ref, *rest])
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise CallTimeout(f"{kind.name.lower()} to {to.decode()}", timeout) from None
        finally:
            if self._waiting.pop(ref, None) is not None and accept is not None:
                self._ports.abandon(ref, accept)

    async def spawn(
        self,
        host: bytes,
        entry: str,
        args: list[Any],
        options: dict[bytes, Any],
        *,
        timeout: float,
        accept: Accept = lambda pid: True,
        late: Accept = lambda pid: False,
    ) -> bytes:
        """Start a process of ``entry`` on ``host`` (an address ``{node@host|}``); returns its PID.

        ``accept`` has the PID as the answer comes in, before anything else that came out of the process is handled;
        ``late`` has it when the answer comes after this call has ended.
        """

        def told(pid: bytes) -> bool:
            return late(pid) if ended else accept(pid)

        ended = False
        try:
            pid: bytes = await self._request(Kind.SPAWN, host, (entry.encode(), args, options), timeout, told)
            return pid
        finally:
            ended = True

    async def send(
        self, to: bytes, topic: str, payloads: list[Any], *, timeout: float, name: str = "", revision: int = 0
    ) -> None:
        """Send one message and wait until the owner's mailbox accepted it."""
        await self.request(Kind.MESSAGE, to, topic.encode(), payloads, name.encode(), revision, timeout=timeout)

    def cast(self, envelope: Envelope) -> None:
        """Route an envelope that wants no answer."""
        self._ports.route(envelope)

    def deliver(self, envelope: Envelope) -> None:
        """An envelope arrived for this port."""
        match envelope[0]:
            case Kind.REPLY:
                self._reply(envelope)
            case Kind.EXIT:
                if self.on_exit is not None:
                    error = None if envelope[6] is None else to_text(envelope[6])
                    self.on_exit(Exit(envelope[2], envelope[5], error))
            case Kind.MESSAGE:
                if not self.messages.full():
                    self.messages.put_nowait((envelope[2], envelope[4], envelope[5]))
                    self._answer(envelope, Status.OK, None)
                else:
                    full = error_map("Unavailable", f"mailbox of {self.pid.decode()} is full", retryable=True)
                    self._answer(envelope, Status.ERROR, full)
            case Kind.MONITOR | Kind.LINK:
                self._answer(envelope, Status.OK, True)
            case _:
                self._answer(envelope, Status.ERROR, error_map("Invalid", "a port of the node can't do that"))

    def _answer(self, envelope: Envelope, status: Status, value: Any) -> None:
        if envelope[3]:
            self._ports.route([int(Kind.REPLY), envelope[2], self.pid, envelope[3], int(status), value])

    def _reply(self, envelope: Envelope) -> None:
        _, _, _, ref, code, value = envelope
        waiting = self._waiting.pop(ref, None)
        if waiting is None or waiting.answer.done():
            self._ports.late_reply(envelope)
        elif code != Status.OK:
            waiting.answer.set_exception(_refused(code, value, envelope[2]))
        elif waiting.accept is None or self._ports.keep(value, waiting.accept):
            waiting.answer.set_result(value)
        else:
            waiting.answer.set_exception(_refused(Status.ERROR, error_map("Canceled", "it is not wanted any more")))

    def node_down(self, node: bytes, reason: str) -> None:
        """The node's epoch ended or its link closed: nothing it was asked will be answered."""
        message = f"no connection to node {node.decode()}: {reason}; the outcome is unknown"
        for ref in [ref for ref, request in self._waiting.items() if request.node == node]:
            answer = self._waiting.pop(ref).answer
            if not answer.done():
                gone = error_map("Unavailable", message, retryable=True)
                answer.set_exception(_refused(Status.NOCONNECTION, gone))

    def close(self) -> None:
        self._ports.close(self)


class Actor(Protocol):
    """A process of the node itself: a port, or one that does more."""

    @property
    def pid(self) -> bytes: ...

    def deliver(self, envelope: Envelope) -> None:
        """An envelope for it arrived."""

    def node_down(self, node: bytes, reason: str) -> None:
        """The node's epoch ended or its link closed."""


class Ports:
    """All ports of a node."""

    def __init__(self, node: str, incarnation: int, route: Callable[[Envelope], None]) -> None:
        self._node = node
        self._incarnation = incarnation
        self.route = route
        self._counter = count(1)
        self._refs = count(1)
        self._open: dict[bytes, Actor] = {}
        self._served: dict[bytes, Callable[[Envelope], bool]] = {}
        self._abandoned: dict[int, Accept] = {}
        self.where: Callable[[bytes], bytes] = node_of
        """The node a process is on now."""

    def open(self, host: str) -> Port:
        """A new port; ``host`` stands in its PID, e.g. ``node:supervisor``."""
        port = Port(self.new_pid(host), self)
        self._open[port.pid] = port
        return port

    def new_pid(self, host: str) -> bytes:
        """A PID for a process of the node itself."""
        return str(Pid(self._node, host, self._incarnation, next(self._counter) * VM_SLOTS)).encode()

    def admit(self, actor: Actor) -> None:
        """Give ``actor`` what is sent to its PID, until it is closed."""
        self._open[actor.pid] = actor

    def serve(self, pid: bytes, accept: Callable[[Envelope], bool]) -> None:
        """Give what is sent to ``pid`` to ``accept``, at once and in order; False from it: there is no such process."""
        self._served[pid] = accept

    def close(self, port: Actor) -> None:
        self._open.pop(port.pid, None)

    def next_ref(self) -> int:
        """References of ports are multiples of the slots, as their counters: no VM hands out the same."""
        return next(self._refs) * VM_SLOTS

    def deliver(self, envelope: Envelope) -> bool:
        """Whether a port with the envelope's PID is open; it has it then."""
        served = self._served.get(envelope[1])
        if served is not None and envelope[0] == Kind.MESSAGE:
            return served(envelope)
        port = self._open.get(envelope[1])
        if port is not None:
            port.deliver(envelope)
            return True
        if envelope[0] == Kind.REPLY:
            self.late_reply(envelope)
            return True
        return False

    def abandon(self, ref: int, accept: Accept) -> None:
        """Nobody waits for this spawn any more."""
        self._abandoned[ref] = accept
        if len(self._abandoned) > ABANDONED:
            del self._abandoned[next(iter(self._abandoned))]

    def late_reply(self, envelope: Envelope) -> None:
        """An answer nobody waits for: what was spawned all the same is ended."""
        accept = self._abandoned.pop(envelope[3], None)
        if accept is not None and envelope[4] == Status.OK and not self.keep(envelope[5], accept):
            log.warning("a process that started too late is ended", pid=envelope[5].decode("utf-8", "replace"))

    def keep(self, pid: bytes, accept: Accept) -> bool:
        """Whether the spawned process is wanted; it is ended when not."""
        if accept(pid):
            return True
        self.route([int(Kind.TERMINATE), pid, b"", 0])
        return False

    def node_down(self, node: bytes, reason: str) -> None:
        for port in list(self._open.values()):
            port.node_down(node, reason)


def _refused(code: int, value: Any, by: bytes = b"") -> Refused:
    """The error in an answer of ``by``; one that is malformed is an error too."""
    status = Status(code) if code in list(Status) and code != Status.OK else Status.ERROR
    if isinstance(value, dict):
        return Refused(status, to_text(value))
    if status is Status.NOPROC:
        process = by.decode("utf-8", "replace")
        return Refused(status, {"kind": "NotFound", "message": f"no process {process}: it ended or never was"})
    return Refused(status, {"kind": "Unavailable", "message": status.name.lower()})
