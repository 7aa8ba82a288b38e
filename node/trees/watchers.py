"""Who watches a process of the node itself, by monitor or link, and is to hear of its end."""

from __future__ import annotations

from typing import Any

from cluster.envelope import Envelope, Kind, Watch
from cluster.pid import node_of

BEGIN = {Kind.MONITOR: Watch.MONITOR, Kind.LINK: Watch.LINK}
FINISH = {Kind.UNMONITOR: Watch.MONITOR, Kind.UNLINK: Watch.LINK}


class Watchers:
    """The watchers of one process."""

    def __init__(self) -> None:
        self._watching: dict[Watch, set[bytes]] = {Watch.MONITOR: set(), Watch.LINK: set()}

    def add(self, watch: Watch, pid: bytes) -> None:
        self._watching[watch].add(pid)

    def take(self, envelope: Envelope) -> bool:
        """Whether the envelope was about watching."""
        kind, _, sender = envelope[:3]
        if kind in BEGIN:
            self._watching[BEGIN[kind]].add(sender)
        elif kind in FINISH:
            self._watching[FINISH[kind]].discard(sender)
        else:
            return False
        return True

    def forget_node(self, node: bytes) -> None:
        for pids in self._watching.values():
            pids.difference_update([pid for pid in pids if node_of(pid) == node])

    def exits(self, pid: bytes, error: dict[bytes, Any] | None) -> list[Envelope]:
        """What to tell them: monitors hear of every end, links of an end with an error."""
        told = [[int(Kind.EXIT), to, pid, 0, int(Watch.MONITOR), None, error] for to in self._watching[Watch.MONITOR]]
        if error is not None:
            told += [[int(Kind.EXIT), to, pid, 0, int(Watch.LINK), None, error] for to in self._watching[Watch.LINK]]
        return told
