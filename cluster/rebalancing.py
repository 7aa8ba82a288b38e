"""What a node gives to one that has come: its share of what was there before, decided by every node for itself. Pure.

A node that is ready and stays so for a while gets processes from those that were ready before it, when it has a fifth
less than the average, and ten less. Each giver gives what it has beyond the average, some a second, and only what had
started before the newcomer was ready: what started later was placed when the newcomer was there to be chosen. It is
done once for each newcomer. So processes go only from nodes to such as became ready later, never back, and it ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from cluster.drain import Process

AT_ONCE = 4
"""Processes a node gives away in one round."""
LEAST = 10
"""Processes a newcomer has to lack."""
LACKING = 0.2
"""The part of the average it has to lack."""
PATIENCE = 600.0
"""Seconds after which a newcomer is one no more."""


@dataclass(frozen=True, slots=True)
class Give:
    """Move this process there."""

    pid: str
    to: str


@dataclass
class _Newcomer:
    """``since``: when it became ready. ``is_given``: whether it was seen to lack something."""

    since: float
    is_given: bool = False
    refused: set[str] = field(default_factory=set)


class Rebalancing:
    """The decisions of ``node``. Times are those of the clock by which processes have started."""

    def __init__(self, node: str, settle: float, *, at_once: int = AT_ONCE) -> None:
        self._node = node
        self._settle = settle
        self._at_once = at_once
        self._ready: frozenset[str] = frozenset()
        self._newcomers: dict[str, _Newcomer] = {}

    def ready_are(self, nodes: Iterable[str], now: float) -> None:
        """These nodes are ready now; told whenever that changes, and in the order of etcd."""
        before, self._ready = self._ready, frozenset(nodes)
        if self._node not in self._ready:
            self._newcomers.clear()
        elif self._node in before:  # those that were ready before this one are none
            came = self._ready - before
            known = {node: one for node, one in self._newcomers.items() if node in self._ready}
            self._newcomers = {**known, **{node: _Newcomer(now) for node in came}}

    def due(self, now: float) -> Collection[str]:
        """Newcomers that are to get something, as far as is known without asking for loads."""
        for node, one in list(self._newcomers.items()):
            if now - one.since > self._settle + PATIENCE:
                del self._newcomers[node]
        return [node for node, one in self._newcomers.items() if now - one.since >= self._settle]

    def decide(self, loads: Mapping[str, int], processes: Sequence[Process], now: float) -> list[Give]:
        """What to give away now. ``loads``: how many processes each ready node has, this one among them; a newcomer
        without waits for the next round."""
        mean = sum(loads.values()) / max(len(loads), 1)
        surplus = int(loads.get(self._node, 0) - mean)
        given: dict[str, Give] = {}
        for node in sorted(self.due(now), key=lambda node: (loads.get(node, 0), node)):
            if node not in loads or len(given) >= self._at_once:
                continue
            newcomer, lacks = self._newcomers[node], int(mean - loads[node])
            is_enough = lacks >= 1 if newcomer.is_given else lacks >= max(LEAST, LACKING * mean)
            newcomer.is_given = True
            room = min(lacks, surplus - len(given), self._at_once - len(given)) if is_enough else 0
            able = (one.pid for one in processes if one.pid not in given and _may_go(one, node, newcomer))
            chosen = list(islice(able, max(room, 0)))
            given.update({pid: Give(pid, node) for pid in chosen})
            if not chosen:
                del self._newcomers[node]  # it has its share, or this node has nothing to give
        return list(given.values())

    def refused(self, give: Give) -> None:
        """It did not move: it is not offered to that node again."""
        newcomer = self._newcomers.get(give.to)
        if newcomer is not None:
            newcomer.refused.add(give.pid)


def _may_go(process: Process, node: str, newcomer: _Newcomer) -> bool:
    is_old = process.started < newcomer.since and process.pid not in newcomer.refused
    is_free = process.may_move and not process.is_busy
    return is_old and is_free and (process.able is None or node in process.able)
