"""What a node keeps of a process that left it: where to, for as long as the node runs.

The pointer stays on the node the process went to, though it may be elsewhere by now: all that is forwarded takes one
way, and stays in order. Only when that node's registration ends it goes to the latest holder.
"""

from __future__ import annotations

from cluster.migration.items import Watcher


class Tombstone:
    """Pointer, latest holder seen, and the watchers that look here."""

    def __init__(self, pointer: str, latest: str, watchers: frozenset[Watcher]) -> None:
        self.pointer = pointer
        self.latest = latest
        self.is_over = False
        """The process ended with the latest holder: there is nothing to forward to, should that node come again."""
        self._watchers = set(watchers)

    @property
    def watchers(self) -> frozenset[Watcher]:
        return frozenset(self._watchers)

    def add_watcher(self, watcher: Watcher) -> None:
        self._watchers.add(watcher)

    def forget(self, node: str) -> None:
        """The watchers of that node look elsewhere, or know already."""
        self._watchers = {watcher for watcher in self._watchers if watcher.node != node}

    def epoch_ended(self, node: str) -> frozenset[Watcher]:
        """The watchers to be told: those that look here, when the process ended with that node."""
        if node == self.latest:
            self.is_over = True
            told = self.watchers
            self._watchers.clear()
            return told
        if node == self.pointer:
            self.pointer = self.latest
        return frozenset()
