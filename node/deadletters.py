"""Dead letters: messages nobody took, counted by reason and the last of them kept for a look."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass

from cluster.envelope import Envelope, Kind, unfold

KEPT = 1000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that reached nobody. ``at`` is Unix time in seconds."""

    at: float
    reason: str
    to: str
    sender: str
    topic: str
    name: str = ""
    """By which it was sent; empty when it was sent to the PID."""


class DeadLetters:
    """The last ``kept`` dead letters of a node; all are counted."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept: deque[DeadLetter] = deque(maxlen=kept)
        self._counts: Counter[str] = Counter()

    def add(self, envelope: Envelope, reason: str) -> None:
        """Keep a MESSAGE envelope that could not be delivered, or a RETURN, or the messages of a MESSAGES.

        Raises ValueError on a MESSAGES that is malformed.
        """
        if envelope[0] == Kind.MESSAGES:
            for message in unfold(envelope):
                self.add(message, reason)
            return
        _, to, sender, _, topic, _, name, *_ = envelope
        if envelope[0] == Kind.RETURN:
            to, sender = sender, to
        self.note(to, sender, topic, name, reason)

    def note(self, to: object, sender: object, topic: object, name: object, reason: object) -> None:
        """The same of the parts of a message."""
        self._counts[shown(reason)] += 1
        letter = DeadLetter(time.time(), *(shown(part) for part in (reason, to, sender, topic, name)))
        self._kept.append(letter)

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
