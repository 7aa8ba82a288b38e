"""For whom functions run: one that a service or the holder of a lock calls writes and speaks for it.

A function is a process of its own, with a PID of its own. The VM tells of those that run for a process that may own
something, before anything of theirs leaves it; they are then held to what that process owns (fencing rules F4, F5),
beyond their end as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from node.lasting import Lasting


class Callers:
    """Who called each of these functions."""

    def __init__(self) -> None:
        self._callers = Lasting()
        self.ended = self._callers.ended

    def put(self, pid: bytes, caller: bytes) -> None:
        self._callers[pid] = caller

    def pids(self) -> Collection[bytes]:
        """The functions that run for somebody."""
        return self._callers.keys()

    def line(self, pid: bytes) -> Iterator[bytes]:
        """The process itself, who called it, who called that one, and so on."""
        current: bytes | None = pid
        while current is not None:
            yield current
            current = self._callers.get(current)
