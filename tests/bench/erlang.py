"""The second peer of many figures: the same work in Erlang/OTP, where ``erl`` is on the PATH.

Each run is a fresh Erlang VM with its default settings, so it uses as many schedulers as there are
cores. What is measured between two nodes has an Erlang node to talk to that stays, and a name server (epmd)
of its own; both are on the loopback address alone and end with the peer. Without ``erl`` there is no number, and
the line of the figure says so.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import statistics
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
PROGRAM = HERE / "local_peer.erl"
PAIR_PROGRAM = HERE / "remote_peer.erl"
DEADLINE_SECONDS = 60


class Erlang:
    """Compiles a program once; ``measure`` runs it. Use it with ``async with``."""

    def __init__(self, program: Path = PROGRAM) -> None:
        self._program = program
        self.is_there = shutil.which("erl") is not None and shutil.which("erlc") is not None

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        if self.is_there:
            await _output("erlc", "-o", self._folder.name, str(self._program))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    async def measure(self, figure: str, count: int) -> list[float]:
        """The number of one figure, or none where there is no Erlang."""
        if not self.is_there:
            return []
        command = ("erl", "-noshell", "-pa", self._folder.name, "-run", self._program.stem, "main", figure, str(count))
        return [float(await _output(*command))]


class ErlangPair:
    """Two Erlang nodes: one that stays, one for each measurement. Use it with ``async with``."""

    def __init__(self) -> None:
        self.is_there = all(shutil.which(program) for program in ("erl", "erlc", "epmd"))
        self._running: list[Process] = []
        self._nodes = 0

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        if self.is_there:
            try:
                await self._begin()
            except BaseException:
                await self._end()
                raise
        return self

    async def _begin(self) -> None:
        await _output("erlc", "-o", self._folder.name, str(PAIR_PROGRAM))
        port = _free_port()
        self._cookie = secrets.token_hex(8)
        self._environment = os.environ | {
            "ERL_EPMD_PORT": str(port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
        }
        await self._start("epmd", "-port", str(port), stderr=DEVNULL)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await _answers(port):
                await asyncio.sleep(0.02)
        self.other, self._stays = await self.stay()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for process in reversed(self._running):
            if process.returncode is None:
                process.kill()
            await process.wait()
        self._folder.cleanup()

    async def stay(self) -> tuple[str, Process]:
        """Start a node that stays; its name and its process."""
        self._nodes += 1
        name = f"peer{self._nodes}@127.0.0.1"
        process = await self._start(*self._node(name), "-run", "remote_peer", "stay")
        await _line(process, "ready")
        return name, process

    async def measure(self, figure: str, count: int) -> list[float]:
        """The number of one figure, or none where there is no Erlang."""
        if not self.is_there:
            return []
        process = await self._run(figure, count, self.other)
        return [await _number(process)]

    async def told_after_kill(self, processes: int) -> list[float]:
        """Seconds from the kill of a node until the monitors of so many processes there were all told."""
        if not self.is_there:
            return []
        name, victim = await self.stay()
        watcher = await self._run("monitor_told", processes, name)
        await _line(watcher, "ready")
        began = _unix_micros()
        victim.send_signal(signal.SIGKILL)
        return [(await _number(watcher) - began) / 1e6]

    async def _run(self, figure: str, count: int, other: str) -> Process:
        self._nodes += 1
        name = f"run{self._nodes}@127.0.0.1"
        return await self._start(*self._node(name), "-run", "remote_peer", "main", figure, str(count), other)

    def _node(self, name: str) -> tuple[str, ...]:
        loopback = ("-kernel", "inet_dist_use_interface", "{127,0,0,1}")
        return (
            *("erl", "-noshell", "-start_epmd", "false", "-name", name, "-setcookie", self._cookie),
            *(*loopback, "-pa", self._folder.name),
        )

    async def _start(self, *command: str, stderr: int | None = None) -> Process:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=stderr, env=self._environment, cwd=self._folder.name
        )
        self._running.append(process)
        return process


def erlang_part(value: float, theirs: list[float], digits: int = 3) -> Mapping[str, Any]:
    """What Erlang adds to the line of a figure."""
    if not theirs:
        return {"erlang": None}
    peer = statistics.median(theirs)
    return {"erlang": round(peer, digits or None), "erlang_ratio": round(value / peer, 4)}


def _unix_micros() -> float:
    return time.time() * 1e6


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _line(process: Process, expected: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        line = (await process.stdout.readline()).decode().strip()
    if line != expected:
        raise RuntimeError(f"expected {expected!r} of Erlang, got {line!r}")


async def _number(process: Process) -> float:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        number = float(await process.stdout.readline())
        await process.wait()
    return number


async def _output(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {output.decode(errors='replace')[-500:]}")
    return output
