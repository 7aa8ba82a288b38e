"""The one writer of the node's standard output and error: a thread behind a queue.

Writers hand over bytes and go on, so that a slow terminal or a full pipe never stops the
event loop. What is handed over is written in that order, over both descriptors. Nothing is
dropped here: a writer that must not wait looks at ``pending`` first, one that can waits in
``drained``. A descriptor that fails (EPIPE) keeps its error in ``failure`` and swallows the
rest; ``close`` writes all that is left, within its deadline.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

STDOUT, STDERR = 1, 2
BATCH = 256 * 1024


class Output:
    """Ordered writes to descriptors. Use it with ``with``, or ``start`` and ``close``."""

    def __init__(self, *, write: Callable[[int, bytes], int] = os.write) -> None:
        self._write = write
        self._queue: queue.SimpleQueue[tuple[int, bytes | Callable[[], object]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="wippy-output", daemon=True)
        self._counting = threading.Lock()
        self._accepted = 0
        self._written = 0
        self._failures: dict[int, OSError] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        self._thread.start()

    @property
    def pending(self) -> int:
        """Bytes handed over and not yet written."""
        return self._accepted - self._written

    def failure(self, descriptor: int) -> OSError | None:
        """Why writes to the descriptor no longer arrive."""
        return self._failures.get(descriptor)

    def put(self, descriptor: int, data: bytes) -> None:
        """Hand over ``data``; never blocks. Any thread."""
        with self._counting:
            self._accepted += len(data)
        self._queue.put((descriptor, data))

    def flush(self, timeout: float) -> bool:
        """Wait in this thread until all handed over so far is written; False when ``timeout`` passed first."""
        if not self._thread.is_alive():
            return True
        done = threading.Event()
        self._queue.put((-1, done.set))
        return done.wait(timeout)

    async def drained(self) -> None:
        """Wait on the event loop until all handed over so far is written."""
        if not self._thread.is_alive():
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        self._queue.put((-1, lambda: loop.call_soon_threadsafe(finish)))
        await done

    def close(self, timeout: float = 2.0) -> None:
        """Write what is left and end the thread; give up after ``timeout`` seconds (a reader that reads no more)."""
        if self._thread.is_alive():
            self._queue.put((-2, b""))
            self._thread.join(timeout)

    def _run(self) -> None:
        batch = bytearray()
        target = -1
        while True:
            try:
                descriptor, data = self._queue.get_nowait()
            except queue.Empty:
                self._emit(target, batch)
                descriptor, data = self._queue.get()
            if descriptor != target or len(batch) >= BATCH:
                self._emit(target, batch)
                target = descriptor
            if descriptor == -2:
                return
            if isinstance(data, bytes):
                batch += data
            else:
                self._tell(data)

    def _tell(self, waiting: Callable[[], object]) -> None:
        try:
            waiting()
        except RuntimeError:
            return  # the loop that waited is closed

    def _emit(self, descriptor: int, batch: bytearray) -> None:
        data = bytes(batch)
        batch.clear()
        rest = memoryview(data)
        while rest and descriptor not in self._failures:
            try:
                rest = rest[self._write(descriptor, bytes(rest)) :]
            except OSError as error:
                self._failures[descriptor] = error
        self._written += len(data)
