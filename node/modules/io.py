"""Module ``io``: the terminal, for processes of a terminal host and for nobody else.

Writes are handed to the node's ``Output`` and keep their order; a process that writes faster
than the terminal takes is held up at the next ``flush`` the Lua half puts in every 64 KiB.
Standard input is read by one thread, only when asked; what a cancelled read would have got
is kept for the next. ``raw`` is counted and undone when the terminal closes.
"""

from __future__ import annotations

import asyncio
import os
import queue
import termios
import threading
import tty
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import structlog

from node.modules.contract import Answer, Caller, LuaError, Values, argument, unavailable
from node.output import STDERR, STDOUT, Output

log = structlog.get_logger("wippy.io")

DEFAULT_READ = 1024
LARGEST_READ = 1024 * 1024
DRAIN_DEADLINE = 2.0


class Keyboard:
    """Standard input, read by a thread of its own: a blocked read can't be cancelled, only left waiting."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._wanted: queue.SimpleQueue[Callable[[bytes | OSError], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._coming: asyncio.Future[OSError | None] | None = None
        self._buffer = bytearray()
        self._ended = False
        self._one_at_a_time = asyncio.Lock()

    async def read(self, limit: int) -> bytes:
        """Up to ``limit`` bytes; b"" at the end of input. Raises OSError."""
        async with self._one_at_a_time:
            if not self._buffer:
                await self._fill()
            return self._take(limit)

    async def readline(self) -> bytes:
        """A line without its newline; the rest at the end of input, then b"" without end. Raises OSError."""
        async with self._one_at_a_time:
            while (end := self._buffer.find(b"\n")) < 0 and not self._ended:
                await self._fill()
            line = self._take(end + 1 if end >= 0 else len(self._buffer))
            return line.removesuffix(b"\n").removesuffix(b"\r")

    @property
    def ended(self) -> bool:
        """Nothing is left to read and nothing will come."""
        return self._ended and not self._buffer

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _fill(self) -> None:
        """Wait for more input; one read of the thread is under way at a time, whoever waits for it."""
        if self._ended:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="wippy-stdin", daemon=True)
            self._thread.start()
        if self._coming is None:
            loop = asyncio.get_running_loop()
            self._coming = loop.create_future()
            self._wanted.put(lambda data: loop.call_soon_threadsafe(self._arrived, data))
        failure = await asyncio.shield(self._coming)
        if failure is not None:
            raise failure

    def _arrived(self, data: bytes | OSError) -> None:
        coming, self._coming = self._coming, None
        failure = data if isinstance(data, OSError) else None
        if isinstance(data, bytes):
            self._buffer += data
            self._ended = not data
        if coming is not None:
            coming.set_result(failure)

    def _run(self) -> None:
        while True:
            deliver = self._wanted.get()
            try:
                data: bytes | OSError = os.read(self._descriptor, LARGEST_READ)
            except OSError as error:
                data = error
            try:
                deliver(data)
            except RuntimeError:
                return  # the loop is closed: nobody will ask again


class Raw:
    """Raw mode of a terminal, counted: as many ``leave`` as ``enter``."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._depth = 0
        self._saved: list[Any] = []

    def enter(self) -> None:
        """Raises OSError when the descriptor is no terminal."""
        if self._depth == 0:
            try:
                self._saved = termios.tcgetattr(self._descriptor)
                tty.setraw(self._descriptor, termios.TCSADRAIN)
            except termios.error as error:
                raise OSError(*error.args) from None
        self._depth += 1

    def leave(self) -> None:
        if self._depth == 0:
            return
        self._depth -= 1
        if self._depth == 0:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)

    def reset(self) -> None:
        """Back to what it was, however deep."""
        self._depth = min(self._depth, 1)
        self.leave()


class IoModule:
    """Python half of ``io``. ``terminals`` are the slots of the VMs of terminal hosts; who starts one adds it."""

    name = "io"
    deadlines: Mapping[str, timedelta | None] = {"read": None, "readline": None, "flush": None}

    def __init__(
        self,
        output: Output,
        *,
        keyboard: Keyboard | None = None,
        raw: Raw | None = None,
        args: Sequence[str] = (),
    ) -> None:
        self._output = output
        self.terminals: set[int] = set()
        self._keyboard = keyboard or Keyboard()
        self._raw = raw or Raw()
        self._args = [each.encode("utf-8", "surrogateescape") for each in args]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.reset()
        try:
            async with asyncio.timeout(DRAIN_DEADLINE):
                await self._output.drained()
        except TimeoutError:
            log.warning("the terminal did not take all output", bytes=self._output.pending, after=DRAIN_DEADLINE)

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        if caller.vm.slot not in self.terminals:
            raise unavailable(
                f"io.{fn}: {caller.pid_text} is not in a terminal; run it with `wippy run -x {caller.entry}`",
                retryable=False,
            )
        match fn:
            case "open":
                return [True]
            case "args":
                return [list(self._args)]
            case "flush":
                return self._flush()
            case "read":
                return self._read(argument(args, 0))
            case "readline":
                return self._readline()
            case "raw":
                return self._set_raw(argument(args, 0) is not False)
            case _:
                raise LuaError("Invalid", f"io has no function {fn!r}")

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        if caller.vm.slot in self.terminals and isinstance(args[0], bytes):
            self._output.put(STDERR if fn == "eprint" else STDOUT, args[0])

    async def _flush(self) -> Values:
        await self._output.drained()
        failure = self._output.failure(STDOUT) or self._output.failure(STDERR)
        if failure is not None:
            raise LuaError("Internal", f"io: the terminal takes no more output: {failure}")
        return [True]

    async def _read(self, limit: Any) -> Values:
        count = int(limit) if isinstance(limit, int | float) and 0 < limit <= LARGEST_READ else DEFAULT_READ
        return self._input(await self._guard(self._keyboard.read(count)))

    async def _readline(self) -> Values:
        return self._input(await self._guard(self._keyboard.readline()))

    async def _guard(self, reading: Any) -> bytes:
        await self._output.drained()  # a prompt must be seen before its answer is waited for
        try:
            data: bytes = await reading
        except OSError as error:
            raise LuaError("Internal", f"io: standard input can't be read: {error}") from None
        return data

    def _input(self, data: bytes) -> Values:
        if not data and self._keyboard.ended:
            return [None]
        return [data]

    def _set_raw(self, enable: bool) -> Values:
        try:
            if enable:
                self._raw.enter()
            else:
                self._raw.leave()
        except OSError as error:
            raise unavailable(f"io.raw: standard input is no terminal: {error}", retryable=False) from None
        return [True]
