"""Node processes started by ``wippy up``: their start, their console output, their end.

Each line a node writes is shown with the node's name before it. The nodes run in sessions of
their own, so that Ctrl-C reaches only the parent, which then stops them in good order; and
each holds the read end of a pipe whose write end the parent keeps open, so that they also
end when the parent ends without a word.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from typing import TextIO

from cluster.tasks import Tasks

_COLOURS = (36, 33, 35, 32, 34, 31)
_DRAIN_SECONDS = 2.0


class Child:
    """One node process."""

    def __init__(self, name: str, number: int, width: int) -> None:
        self.name = name
        self._prefixes = {stream: _prefix(name, number, width, stream) for stream in (sys.stdout, sys.stderr)}
        self._process: Process | None = None
        self._pumps = Tasks(name)
        self._copying: list[asyncio.Task[None]] = []
        self.is_stopping = False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code once it ended, negative for a signal."""
        return self._process.returncode if self._process else None

    async def start(self, command: Sequence[str], lifeline: int) -> None:
        """Start it; ``lifeline`` is the descriptor whose closing ends it."""
        self._process = await asyncio.create_subprocess_exec(
            *command,
            "--parent-fd",
            str(lifeline),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            pass_fds=(lifeline,),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._copying = [
            self._pumps.start(self._pump(self._process.stdout, sys.stdout), "stdout"),
            self._pumps.start(self._pump(self._process.stderr, sys.stderr), "stderr"),
        ]

    async def ended(self) -> int:
        """Wait for its end and for the last of its output."""
        assert self._process is not None
        code = await self._process.wait()
        if self._copying:  # a grandchild that holds the pipe keeps us no longer than this
            await asyncio.wait(self._copying, timeout=_DRAIN_SECONDS)
        await self._pumps.close()
        return code

    async def stop(self, grace: float) -> None:
        """Ask it to end, and kill it after ``grace`` seconds."""
        self.is_stopping = True
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self.ended()
        except TimeoutError:
            print(f"{self.name} does not end within {grace:g} s: killing it", file=sys.stderr)
            self.kill()
            await self.ended()

    def kill(self) -> None:
        self.is_stopping = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _pump(self, source: asyncio.StreamReader, target: TextIO) -> None:
        """Copy line by line; what has no newline at the end gets one."""
        rest = b""
        while chunk := await source.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            self._show(lines, target)
        self._show([rest] if rest else [], target)

    def _show(self, lines: list[bytes], target: TextIO) -> None:
        if lines:
            prefix = self._prefixes[target]
            target.write("".join(f"{prefix}{line.decode('utf-8', 'backslashreplace')}\n" for line in lines))
            target.flush()


class Lifeline:
    """The pipe that ties children to this process: they hold the read end, we the other."""

    def __enter__(self) -> int:
        self._ours: int
        read, self._ours = os.pipe()
        self._theirs = read
        return read

    def __exit__(self, *_: object) -> None:
        os.close(self._theirs)
        os.close(self._ours)


def _prefix(name: str, number: int, width: int, stream: TextIO) -> str:
    text = f"{name:<{width}} | "
    return f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{text}\x1b[0m" if stream.isatty() else text


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
