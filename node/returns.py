"""Messages by name that came back to this node, until its names are as new as those they were refused by.

A node that gets a message for a process that does not hold the name (any more) sends it back with the revision at
which it knows that (RETURN). Here it waits until this node's watch is there too; then the VM of its sender resolves
the name once more and sends it again, or it is a dead letter (``sendorder.lua``). They go on in the order they came.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from cluster.envelope import Envelope, pack
from cluster.errors import CallTimeout, MessageTooBig
from cluster.tasks import Tasks
from node.deadletters import DeadLetters

WITHIN = 10.0
"""Seconds one waits for the watch; then it is a dead letter."""
MOST, MOST_BYTES = 10_000, 8 * 1024 * 1024
"""What waits at most; more are dead letters."""
LATE = "stale_name_late"


class Watch(Protocol):
    """What is needed of the watch over the names."""

    @property
    def applied(self) -> int: ...

    def reached(self, revision: int, timeout: float) -> Awaitable[None]: ...


class Returns:
    """``give_back`` has each when its time has come."""

    def __init__(
        self, watch: Watch, tasks: Tasks, give_back: Callable[[Envelope], None], dead_letters: DeadLetters
    ) -> None:
        self._watch = watch
        self._tasks = tasks
        self._give_back = give_back
        self._dead_letters = dead_letters
        self._waiting: deque[tuple[float, int, Envelope]] = deque()
        self._bytes = 0

    def take(self, envelope: Envelope) -> None:
        """A RETURN for a process of this node."""
        if not self._waiting and envelope[7] <= self._watch.applied:
            self._give_back(envelope)
            return
        size = _size(envelope)
        if len(self._waiting) >= MOST or self._bytes + size > MOST_BYTES:
            self._dead_letters.add(envelope, LATE)
            return
        self._bytes += size
        self._waiting.append((time.monotonic() + WITHIN, size, envelope))
        if len(self._waiting) == 1:
            self._tasks.start(self._give_all(), "returned messages")

    async def _give_all(self) -> None:
        while self._waiting:
            deadline, size, envelope = self._waiting[0]
            try:
                await self._watch.reached(envelope[7], max(deadline - time.monotonic(), 0.0))
            except CallTimeout:
                self._dead_letters.add(envelope, LATE)
            else:
                self._give_back(envelope)
            self._waiting.popleft()
            self._bytes -= size


def _size(envelope: Envelope) -> int:
    """Bytes it takes on the wire."""
    try:
        return len(pack(envelope))
    except MessageTooBig as error:
        return error.size
