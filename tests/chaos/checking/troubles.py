"""Trouble: what a node had to do without, and when. The checkers excuse only what they find here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tests.chaos.checking.history import SECOND


class What(Enum):
    """What a node had to do without."""

    NATS = "NATS"
    ETCD = "etcd"
    STOPPED = "its processor"
    SLOW = "speed"
    DEAD = "its life"


@dataclass(frozen=True)
class Trouble:
    """``node`` was without ``what`` from ``begin`` to ``end``, in nanoseconds."""

    node: str
    what: What
    begin: float
    end: float

    def overlap(self, begin: float, end: float) -> float:
        return max(0.0, min(self.end, end) - max(self.begin, begin))


@dataclass
class Troubles:
    """All trouble of a run."""

    every: list[Trouble] = field(default_factory=list)

    def of(self, node: str, *whats: What) -> list[Trouble]:
        return [one for one in self.every if one.node == node and one.what in whats]

    def of_between(self, node: str, begin: float, end: float, *whats: What) -> list[Trouble]:
        return [one for one in self.of(node, *whats) if one.begin <= end and one.end >= begin]

    def longest(self, node: str | None = None, *whats: What) -> float:
        """Seconds of the longest time on end that was trouble; of one node and kind, where these are given."""
        longest, begin, last = 0.0, 0.0, 0.0
        every = self.every if node is None else self.of(node, *whats)
        for one in sorted(every, key=lambda one: one.begin):
            if one.begin > last:
                begin = one.begin
            last = max(last, one.end)
            longest = max(longest, last - begin)
        return longest / SECOND
