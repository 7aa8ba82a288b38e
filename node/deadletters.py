"""Dead letters: messages nobody took, counted by reason and the last of them kept for a look."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass

from cluster.envelope import Envelope

KEPT = 1000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that reached nobody. ``at`` is Unix time in seconds."""

    at: float
    reason: str
    to: str
    sender: str
    topic: str


class DeadLetters:
    """The last ``kept`` dead letters of a node; all are counted."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept: deque[DeadLetter] = deque(maxlen=kept)
        self._counts: Counter[str] = Counter()

    def add(self, envelope: Envelope, reason: str) -> None:
        """Keep a MESSAGE envelope that could not be delivered."""
        to, sender, topic = (shown(part) for part in (envelope[1], envelope[2], envelope[4]))
        self._counts[reason] += 1
        self._kept.append(DeadLetter(time.time(), reason, to, sender, topic))

    def count(self, reason: str) -> None:
        """Count one that has no envelope to show."""
        self._counts[reason] += 1

    def kept(self) -> list[DeadLetter]:
        return list(self._kept)

    def counts(self) -> dict[str, int]:
        return dict(self._counts)


def shown(part: object) -> str:
    """A part of an envelope for people: texts are bytes there, and a malformed envelope may hold anything."""
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)
