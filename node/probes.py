"""What the node tells over HTTP: ``/metrics``, ``/livez``, ``/readyz`` and ``/sd``.

``/metrics`` is Prometheus text; ``/livez`` answers 503 with what failed when the node should be
restarted, ``/readyz`` when it should get no work now; ``/sd`` lists the metrics addresses of all
nodes for Prometheus' ``http_sd``. Nothing here changes anything, so there is no login: it binds
127.0.0.1 unless told otherwise. Without a port given it takes the first free one of 9464-9563.

A small HTTP/1.1 server on purpose: GET and HEAD, one request per connection, heads of at most
8 KiB, 64 connections, 5 s for everything. It can't be made to hold memory or tasks.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import structlog
from prometheus_client import generate_latest

from cluster.tasks import Tasks
from node.metrics import NodeSample, metrics_registry

log = structlog.get_logger("wippy.probes")

FIRST_PORT, LAST_PORT = 9464, 9563
DEADLINE = 5.0
REFRESH_DEADLINE = 2.0
MAX_HEAD = 8192
MAX_CONNECTIONS = 64
TEXT, JSON, PROMETHEUS = "text/plain; charset=utf-8", "application/json", "text/plain; version=0.0.4; charset=utf-8"
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where the metrics of one node are, ``host:port``."""

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)


class NodeView(Protocol):
    """What the server needs of its node. All but ``refresh`` answer at once."""

    async def refresh(self) -> None:
        """Bring what ``sample`` shows up to date (the VMs count for themselves). Given 2 s."""

    def sample(self) -> NodeSample: ...

    def failing(self) -> Sequence[str]:
        """Why the node should be restarted; empty when it is alive."""

    def unready(self) -> Sequence[str]:
        """Why the node should get no work now; empty when it is ready."""

    def remarks(self) -> Sequence[str]:
        """What is not as it should be though the node serves; one line each."""

    def targets(self) -> Sequence[Target]:
        """The metrics addresses of all nodes."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: str
    type: str = TEXT
    head_only: bool = False

    def encode(self) -> bytes:
        body = self.body.encode()
        head = (
            f"HTTP/1.1 {self.status} {REASONS[self.status]}\r\nContent-Type: {self.type}\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if self.head_only else body)


class PortTaken(OSError):
    """No port to listen on; the message says which were tried and what to do."""


def _ports(port: int | None, first: int) -> Sequence[int]:
    """That port and no other, or the first and up to 99 behind it; 0 is any free one."""
    if port is not None or first == 0:
        return (port or 0,)
    return range(first, min(first + LAST_PORT - FIRST_PORT, 65535) + 1)


def reachable(host: str) -> str:
    """Where others reach what listens on ``host``: for "every address", what this machine's name resolves to."""
    if host not in ("", "0.0.0.0", "::"):
        return host
    name = socket.gethostname()
    try:
        return socket.gethostbyname(name)
    except OSError:
        return name


class ProbeServer:
    """The HTTP server of one node. ``async with`` listens; ``address`` is where."""

    def __init__(
        self,
        view: NodeView,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        first: int = FIRST_PORT,
        advertise: str = "",
    ) -> None:
        self._view = view
        self._host = host
        self._advertise = advertise
        self._ports = _ports(port, first)
        self._metrics = metrics_registry(view.sample)
        self._tasks = Tasks("probes")
        self._server: asyncio.Server | None = None
        self._routes: dict[str, Callable[[], Awaitable[Response]]] = {
            "/": self._index,
            "/metrics": self._prometheus,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/sd": self._targets,
        }
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await self._listen()
        port = self._server.sockets[0].getsockname()[1]
        host = self._advertise or reachable(self._host)
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        await self._tasks.close()

    async def _listen(self) -> asyncio.Server:
        ports = self._ports
        for port in ports:
            try:
                return await asyncio.start_server(self._accept, self._host, port, limit=MAX_HEAD)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise PortTaken(f"can't serve metrics on {self._host}:{port}: {error}") from None
        tried = f"port {ports[0]} is" if len(ports) == 1 else f"ports {ports[0]} to {ports[-1]} are all"
        raise PortTaken(f"can't serve metrics: {tried} taken on {self._host}; set another with metrics.port")

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.write(Response(503, "too many connections\n").encode())
            writer.close()
            return
        self._tasks.start(self._serve(reader, writer), "connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                response = await self._respond(reader)
                writer.write(response.encode())
                await writer.drain()
        except TimeoutError:
            writer.write(Response(408, "no complete request within 5 s\n").encode())
        except OSError as error:
            log.debug("client went away", error=str(error))
        finally:
            writer.close()

    async def _respond(self, reader: asyncio.StreamReader) -> Response:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return Response(431, f"request head over {MAX_HEAD} bytes\n")
        except asyncio.IncompleteReadError:
            return Response(400, "incomplete request\n")
        match head.split(b"\r\n", 1)[0].split(b" "):
            case [method, target, version] if version.startswith(b"HTTP/1."):
                return await self._route(method, target.split(b"?", 1)[0].decode("latin-1"))
            case _:
                return Response(400, "expected GET PATH HTTP/1.1\n")

    async def _route(self, method: bytes, path: str) -> Response:
        if method not in (b"GET", b"HEAD"):
            return Response(405, "only GET and HEAD\n")
        route = self._routes.get(path)
        if route is None:
            return Response(404, f"no such path; there are: {', '.join(self._routes)}\n")
        try:
            response = await route()
        except Exception as error:
            log.exception("probe failed", path=path)
            response = Response(500, f"{type(error).__name__}: {error}\n")
        return response if method == b"GET" else Response(response.status, response.body, response.type, True)

    async def _index(self) -> Response:
        return Response(200, "".join(f"{path}\n" for path in self._routes if path != "/"))

    async def _prometheus(self) -> Response:
        try:
            async with asyncio.timeout(REFRESH_DEADLINE):
                await self._view.refresh()
        except TimeoutError:
            log.warning("metrics are not fresh: a VM did not answer", after=REFRESH_DEADLINE)
        return Response(200, generate_latest(self._metrics).decode(), PROMETHEUS)

    async def _livez(self) -> Response:
        return _verdict(self._view.failing())

    async def _readyz(self) -> Response:
        return _verdict(self._view.unready(), self._view.remarks())

    async def _targets(self) -> Response:
        found = [{"targets": [one.address], "labels": dict(one.labels)} for one in self._view.targets()]
        return Response(200, json.dumps(found, indent=1) + "\n", JSON)


def _verdict(reasons: Sequence[str], remarks: Sequence[str] = ()) -> Response:
    """503 with the reasons, or ok; remarks change neither."""
    more = "".join(f"{' '.join(remark.split())}\n" for remark in remarks)
    if not reasons:
        return Response(200, f"ok\n{more}")
    return Response(503, "".join(f"failed: {reason}\n" for reason in reasons) + more)
