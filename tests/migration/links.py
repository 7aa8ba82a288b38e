"""Links as ``cluster.link`` keeps them, cut down to what a session is: order, closes, and which frames count.

What is sent lies in one queue for each direction. A close loses any part of it, from the end; what the other side
sent in the former session is dropped when it comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

Tag: TypeAlias = tuple[int, int, int]
"""Sender's epoch, receiver's epoch, number of the session."""


@dataclass
class View:
    """A link as one side sees it; 0: no registration."""

    own: int
    peer: int
    n: int = 1

    @property
    def is_open(self) -> bool:
        return bool(self.own and self.peer)


class VirtualLinks:
    """All links of all nodes. ``closed`` tells a node that its side of a session is over."""

    def __init__(self, random: Random, epochs: dict[str, int], closed: Callable[[str, str], None]) -> None:
        self._random = random
        self._closed = closed
        pairs = [(a, b) for a in epochs for b in epochs if a != b]
        self.views = {(a, b): View(epochs[a], epochs[b]) for a, b in pairs}
        self.queues: dict[tuple[str, str], deque[tuple[Tag, Any]]] = {pair: deque() for pair in pairs}

    def send(self, a: str, b: str, note: Any) -> bool:
        view = self.views[a, b]
        if view.is_open:
            self.queues[a, b].append(((view.own, view.peer, view.n), note))
        return view.is_open

    def close(self, a: str, b: str) -> None:
        """Node ``a`` closes: what it sent may have gone out, up to some point."""
        queue, view = self.queues[a, b], self.views[a, b]
        self.lose(a, b)
        view.n += 1
        queue.append(((view.own, view.peer, view.n), None))
        self._closed(a, b)

    def lose(self, a: str, b: str) -> None:
        queue = self.queues[a, b]
        for _ in range(self._random.randint(0, len(queue))):
            queue.pop()

    def is_ready(self, a: str, b: str, applied: int) -> bool:
        """Whether ``b`` can judge the next frame from ``a``."""
        if not self.queues[a, b]:
            return False
        (source, target, _), _ = self.queues[a, b][0]
        view = self.views[b, a]
        return bool(view.own) and target <= view.own and (source == view.peer or source <= applied)

    def take(self, a: str, b: str) -> Any:
        """The next note from ``a``, if node ``b`` is to have it; else None."""
        (source, target, n), note = self.queues[a, b].popleft()
        view = self.views[b, a]
        if (target, source) != (view.own, view.peer) or n < view.n:
            return None
        if n > view.n:
            view.n = n
            self._closed(b, a)
        return note
