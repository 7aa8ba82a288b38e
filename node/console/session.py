"""One console: its process, the client it belongs to, and what it said that the client has not fetched yet.

What is said is numbered and kept until the client has it, so that an answer lost on the way is given again and no
line runs twice. A client that says nothing for ``LEASE`` seconds is taken for gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from cluster.envelope import to_raw
from node.modules.contract import Stream

BACKLOG = 1024 * 1024
"""Characters that wait for the client; of what is printed beyond, only how much it was is told."""
BATCH = 256 * 1024
"""Characters in one answer, unless one thing alone is larger."""
LEASE = 8.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a console belongs to: the NATS name it asks under, and who it says it is."""

    client: str
    told: str

    def __str__(self) -> str:
        return f"{self.told} ({self.client})"


class Session:
    """State only; what waits is woken through events. ``now`` is the loop's clock."""

    def __init__(self, id: str, owner: Identity, now: float) -> None:
        self.id = id
        self.owner = owner
        self.pid = b""
        self.starts = 0
        """How many processes it has had: one that broke is followed by another."""
        self.stream: Stream | None = None
        self.attached = asyncio.Event()
        """Its process listens."""
        self.line = 0
        """The number of the last line that was taken."""
        self.busy = False
        self.ended = ""
        """Why it ended; empty while it lives."""
        self.seen = now
        self.polls = 0
        self.asked: dict[int, asyncio.Future[Any]] = {}
        self.completing: dict[int, asyncio.Future[list[str]]] = {}
        self.changed = asyncio.Event()
        self.fetched = asyncio.Event()
        self._events: deque[tuple[int, dict[str, Any], int]] = deque()
        self._size = 0
        self._number = 0
        self._requests = 0

    @property
    def pid_text(self) -> str:
        return self.pid.decode("utf-8", "surrogateescape")

    def say(self, kind: str, text: str = "", **more: Any) -> None:
        """Something for the client."""
        if kind == "out" and self._size > BACKLOG:
            self._count_lost(len(text))
            return
        self._number += 1
        size = len(text) + 64
        self._events.append((self._number, {"n": self._number, "kind": kind, "text": text, **more}, size))
        self._size += size
        self.changed.set()
        self.fetched.clear()

    def _count_lost(self, characters: int) -> None:
        number, last, size = self._events[-1]
        if last["kind"] != "lost":
            self.say("lost", "", characters=0)
            number, last, size = self._events[-1]
        self._events[-1] = (number, {**last, "characters": last["characters"] + characters}, size)

    def take(self, after: int) -> list[dict[str, Any]]:
        """What was said since number ``after``, as far as it fits; what is before it is forgotten."""
        while self._events and self._events[0][0] <= after:
            self._size -= self._events.popleft()[2]
        batch: list[dict[str, Any]] = []
        room = BATCH
        for _, event, size in self._events:
            if batch and size > room:
                break
            batch.append(event)
            room -= size
        if not self._events:
            self.changed.clear()
            self.fetched.set()
        return batch

    def end(self, why: str) -> None:
        """It is over; the first reason counts."""
        if self.ended:
            return
        self.ended = why
        self.say("closed", why)
        for waiting in (*self.asked.values(), *self.completing.values()):
            waiting.cancel()

    def tell(self, op: str, **fields: Any) -> bool:
        """Something for the process. False when there is none to hear it."""
        if self.stream is None or not self.stream.open:
            return False
        self.stream.push(to_raw({"op": op, **fields}))
        return True

    def next_request(self) -> int:
        self._requests += 1
        return self._requests

    def is_abandoned(self, now: float) -> bool:
        """Whether its client has said nothing for too long."""
        return self.polls == 0 and now - self.seen > LEASE
