"""For whom functions run: one that a service or the holder of a lock calls writes and speaks for it.

A function is a process of its own, with a PID of its own. The VM tells of those that run for a process that may own
something, before anything of theirs leaves it; they are then held to what that process owns (fencing rules F4, F5).
Of ended ones the last thousand are kept: they may have left something to write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

FORMER = 1000


class Callers:
    """Who called each of these functions."""

    def __init__(self) -> None:
        self._callers: dict[bytes, bytes] = {}
        self._former: dict[bytes, None] = {}

    def put(self, pid: bytes, caller: bytes) -> None:
        self._callers[pid] = caller

    def ended(self, pid: bytes) -> None:
        """The process is gone. It may be told more than once."""
        if pid in self._callers:
            self._former[pid] = None
            if len(self._former) > FORMER:
                oldest = next(iter(self._former))
                del self._former[oldest], self._callers[oldest]

    def pids(self) -> Collection[bytes]:
        """The functions that run for somebody."""
        return self._callers.keys()

    def line(self, pid: bytes) -> Iterator[bytes]:
        """The process itself, who called it, who called that one, and so on."""
        current: bytes | None = pid
        while current is not None:
            yield current
            current = self._callers.get(current)
