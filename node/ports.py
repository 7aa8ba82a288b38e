"""Ports: processes of the node itself, through which Python code talks to Lua processes.

A port has a PID (slot 0) and the same envelopes as everyone: the supervisor spawns and
monitors through one, a client's call waits at one for its reply. Every request has a
deadline and ends in a value, a ``Refused`` or a ``CallTimeout``; a node that goes away
ends the requests that wait for it (NOCONNECTION: outcome unknown).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from cluster.envelope import Envelope, Kind, Status, error_map, to_text
from cluster.errors import CallTimeout, ClusterError
from cluster.pid import VM_SLOTS, Pid, node_of


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


class Port:
    """One PID of the node. Made by ``Ports.open``; close it when done."""

    def __init__(self, pid: bytes, ports: Ports) -> None:
        self.pid = pid
        self._ports = ports
        self._waiting: dict[int, tuple[bytes, asyncio.Future[Any]]] = {}
        self.messages: asyncio.Queue[tuple[bytes, bytes, list[Any]]] = asyncio.Queue(maxsize=10_000)
        """What was sent to the port: (from, topic, payloads)."""
        self.on_exit: Callable[[Exit], None] | None = None

    async def request(self, kind: Kind, to: bytes, *rest: Any, timeout: float) -> Any:
        """Send a request and wait for its REPLY. Returns the value (raw form).

        Raises Refused when it is answered with an error, noproc or noconnection, and CallTimeout
        after ``timeout`` seconds.
        """
        ref = self._ports.next_ref()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[ref] = (node_of(to), answer)
        try:
            self._ports.route([int(kind), to, self.pid, ref, *rest])
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise CallTimeout(f"{kind.name.lower()} to {to.decode()}", timeout) from None
        finally:
            self._waiting.pop(ref, None)

    async def spawn(
        self, host: bytes, entry: str, args: list[Any], options: dict[bytes, Any], *, timeout: float
    ) -> bytes:
        """Start a process of ``entry`` on ``host`` (an address ``{node@host|}``); returns its PID."""
        pid: bytes = await self.request(Kind.SPAWN, host, entry.encode(), args, options, timeout=timeout)
        return pid

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
                self._reply(envelope[3], Status(envelope[4]), envelope[5])
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

    def _reply(self, ref: int, status: Status, value: Any) -> None:
        waiting = self._waiting.pop(ref, None)
        if waiting is None or waiting[1].done():
            return
        if status is Status.OK:
            waiting[1].set_result(value)
            return
        error = to_text(value) if isinstance(value, dict) else {"kind": "Unavailable", "message": status.name.lower()}
        waiting[1].set_exception(Refused(status, error))

    def node_down(self, node: bytes, reason: str) -> None:
        """The node's epoch ended or its link closed: nothing it was asked will be answered."""
        gone = [ref for ref, (where, _) in self._waiting.items() if where == node]
        for ref in gone:
            message = f"no connection to node {node.decode()}: {reason}; the outcome is unknown"
            self._reply(ref, Status.NOCONNECTION, error_map("Unavailable", message, retryable=True))

    def close(self) -> None:
        self._ports.close(self)


class Ports:
    """All ports of a node."""

    def __init__(self, node: str, incarnation: int, route: Callable[[Envelope], None]) -> None:
        self._node = node
        self._incarnation = incarnation
        self.route = route
        self._counter = count(1)
        self._refs = count(1)
        self._open: dict[bytes, Port] = {}

    def open(self, host: str) -> Port:
        """A new port; ``host`` stands in its PID, e.g. ``node:supervisor``."""
        pid = str(Pid(self._node, host, self._incarnation, next(self._counter) * VM_SLOTS)).encode()
        port = Port(pid, self)
        self._open[pid] = port
        return port

    def close(self, port: Port) -> None:
        self._open.pop(port.pid, None)

    def next_ref(self) -> int:
        """References of ports are multiples of the slots, as their counters: no VM hands out the same."""
        return next(self._refs) * VM_SLOTS

    def deliver(self, envelope: Envelope) -> bool:
        """Whether a port with the envelope's PID is open; it has it then."""
        port = self._open.get(envelope[1])
        if port is None:
            return False
        port.deliver(envelope)
        return True

    def node_down(self, node: bytes, reason: str) -> None:
        for port in list(self._open.values()):
            port.node_down(node, reason)
