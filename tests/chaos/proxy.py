"""A TCP proxy a test can break: one for each way from a node to a server.

``cut`` ends every connection and refuses new ones, ``hold`` lets nothing through and tells nobody, as a network does
that drops packets: connections live on, new ones are accepted and stay silent, and what was sent meanwhile arrives
after ``mend``, when its ends still want it. What comes while it ``loses`` is gone for good: a proxy ended with answers
in its hands. ``slow`` adds a delay with jitter and limits the bytes per second; order within a connection stays. All
but ``cut`` may be for one direction only.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self

from cluster.tasks import Tasks

CHUNK = 64 * 1024
UNDER_WAY = 1024 * 1024
"""Bytes of one direction of a connection that may be under way: beyond it the sender waits, as with a full window."""


class Way(Enum):
    """A direction, as the client sees it."""

    OUT = "out"
    BACK = "back"


BOTH = (Way.OUT, Way.BACK)


@dataclass
class Slowness:
    """Seconds of delay, seconds of jitter on top of it, bytes per second (0: no limit)."""

    delay: float = 0.0
    jitter: float = 0.0
    rate: float = 0.0


@dataclass
class _Pipe:
    """One direction of one connection: what came in, and when it may leave."""

    way: Way
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    size: int = 0
    last: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Forwards 127.0.0.1:``port`` to 127.0.0.1:``target``. Use it with ``async with``."""

    def __init__(self, target: int, dice: random.Random | None = None) -> None:
        self._target = target
        self._dice = dice or random.Random(0)
        self._server: asyncio.Server | None = None
        self._tasks = Tasks("proxy")
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = {way: asyncio.Event() for way in BOTH}
        self._slowness = {way: Slowness() for way in BOTH}
        self._losing: set[Way] = set()
        self.port = 0
        self.passed = dict.fromkeys(BOTH, 0)
        """Bytes that went through, by direction."""

    @property
    def url(self) -> str:
        """Where an etcd behind it is reached."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()
        await self._tasks.close()

    async def mend(self) -> None:
        """Undo whatever was done: listen (again, on the same port), let everything through at full speed."""
        self._losing.clear()
        for way in BOTH:
            self._slowness[way] = Slowness()
            self._open[way].set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break every connection and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        if server is not None:
            await server.wait_closed()

    def hold(self, *ways: Way) -> None:
        """Let nothing through in these directions, without a word. Nothing is lost for good."""
        for way in ways or BOTH:
            self._open[way].clear()

    def lose(self, *ways: Way) -> None:
        """Throw away what comes from now on."""
        self._losing.update(ways or BOTH)

    def slow(self, slowness: Slowness, *ways: Way) -> None:
        """Delay and limit what comes in from now on."""
        for way in ways or BOTH:
            self._slowness[way] = slowness

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._tasks.start(self._serve(reader, writer), "connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer: asyncio.StreamWriter | None = None
        try:
            await self._open[Way.OUT].wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(far_writer)
            out, back = _Pipe(Way.OUT, reader, far_writer), _Pipe(Way.BACK, far_reader, writer)
            async with asyncio.TaskGroup() as group:
                for pipe in (out, back):
                    group.create_task(self._take(pipe))
                    group.create_task(self._give(pipe))
        except* OSError:
            pass  # an end broke or refused: the other one is broken below
        finally:
            for one in (writer, far_writer):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()

    async def _take(self, pipe: _Pipe) -> None:
        """Read, and decide when each piece may leave; b"" is the end of the stream."""
        loop = asyncio.get_running_loop()
        while True:
            data = await pipe.reader.read(CHUNK)
            if data and pipe.way in self._losing:
                continue
            slowness = self._slowness[pipe.way]
            due = loop.time() + slowness.delay + self._dice.uniform(0.0, slowness.jitter)
            pace = len(data) / slowness.rate if slowness.rate else 0.0
            pipe.last = max(due, pipe.last) + pace
            pipe.waiting.append((pipe.last, data))
            pipe.size += len(data)
            pipe.changed.set()
            if not data:
                return
            while pipe.size > UNDER_WAY:
                pipe.changed.clear()
                await pipe.changed.wait()

    async def _give(self, pipe: _Pipe) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not pipe.waiting:
                pipe.changed.clear()
                await pipe.changed.wait()
            due, data = pipe.waiting.popleft()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await self._open[pipe.way].wait()
            if not data:
                raise ConnectionResetError("an end closed the connection")
            pipe.writer.write(data)
            await pipe.writer.drain()
            self.passed[pipe.way] += len(data)
            pipe.size -= len(data)
            pipe.changed.set()
