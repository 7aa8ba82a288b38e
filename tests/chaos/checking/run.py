"""All that is known of a run: the history of its processes, the truth of etcd, and the troubles there were."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from tests.chaos.checking.history import SECOND, History, Operation, Record, node_of
from tests.chaos.checking.troubles import Troubles, What
from tests.chaos.checking.truth import Truth

SLACK = 4.0
"""Seconds that an answer may be late on a busy machine."""
PROBE = 5.0
"""Seconds between two probes of a link (L7)."""
RECOVERED = 5.0
"""Seconds after trouble in which what happened meanwhile gets to be known."""


@dataclass
class Run:
    """All that is known of a run. ``until``: when it was over; ``timeout``: the link timeout, ``ttl``: of the lease."""

    history: History
    truth: Truth
    troubles: Troubles
    until: float
    timeout: float
    ttl: float

    @cached_property
    def first_seen(self) -> dict[str, int]:
        """When each incarnation of a node wrote its first record."""
        found: dict[str, int] = {}
        for record in self.history.records:
            found.setdefault(life_of(record.pid), record.at)
        return found

    def died(self, pid: str) -> float | None:
        """When the node of this process was killed; None if it was not, in this incarnation."""
        since = self.first_seen.get(life_of(pid), 0)
        kills = [one.begin for one in self.troubles.of(node_of(pid), What.DEAD) if one.begin >= since]
        return min(kills, default=None)

    @cached_property
    def failed(self) -> dict[str, float]:
        """Processes that ended with an error, as their driver was told, and when."""
        return {record.fields["pid"]: record.at for record in self.history.of("failed")}

    @cached_property
    def terminated(self) -> dict[str, float]:
        """Processes that were terminated by another, and when that was confirmed."""
        asked = self.history.operations("terminate")
        return {one.asked["pid"]: one.end for one in asked if one.ok and one.end is not None}

    def well_seconds(self, a: str, b: str, begin: float, end: float) -> float:
        """Seconds between these times in which nothing kept the nodes of two processes from each other."""
        kinds = (What.NATS, What.ETCD, What.STOPPED, What.SLOW)
        every = [one for pid in (a, b) for one in self.troubles.of(node_of(pid), *kinds)]
        ill, reached = 0.0, begin
        for one in sorted(every, key=lambda one: one.begin):
            over = min(end, one.end + RECOVERED * SECOND)
            ill += max(0.0, over - max(reached, one.begin))
            reached = max(reached, over)
        return (end - begin - ill) / SECOND

    @cached_property
    def words_said(self) -> dict[tuple[str, str], list[Operation]]:
        """What was said to a watcher by a process before its end."""
        found = defaultdict(list)
        for word in self.history.operations("word"):
            found[word.asked["to"], word.pid].append(word)
        return found

    @cached_property
    def words_taken(self) -> dict[tuple[str, str], list[Record]]:
        """What a watcher heard from a process."""
        found = defaultdict(list)
        for word in self.history.of("word"):
            found[word.pid, word.fields["from"]].append(word)
        return found

    def ended(self, pid: str) -> float | None:
        """When a process was over at the latest, as far as anybody recorded it."""
        times = [known.get(pid) for known in (self.history.ended, self.failed, self.terminated)]
        return min((at for at in (*times, self.died(pid)) if at is not None), default=None)

    def seconds(self, node: str, begin: float, end: float) -> float:
        """Seconds in which the node ran, from ``begin`` to ``end``."""
        stopped = sum(one.overlap(begin, end) for one in self.troubles.of(node, What.STOPPED))
        return (end - begin - stopped) / SECOND


def life_of(pid: str) -> str:
    """The node and its incarnation."""
    return f"{node_of(pid)}/{pid[pid.index('|') + 1 : pid.rindex('-')]}"
