"""Which claim each process of a service runs under, for everything it writes (fencing rules F4 and F5).

A process is tied to its claim for good: an ended one may have left something to write. Of the
ended ones the last thousand are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

FORMER_FENCES = 1000


@dataclass(frozen=True, slots=True)
class Fence:
    """The claim a process runs under. ``binding``: it must not act when that claim's lease is over."""

    key: str
    token: int
    lease: int
    binding: bool


class Fences:
    """The fences of this node's processes. ``alive`` gives the PIDs that run now."""

    def __init__(self, alive: Callable[[], set[bytes]]) -> None:
        self._alive = alive
        self._fences: dict[bytes, Fence] = {}
        self._order: deque[bytes] = deque()

    def get(self, pid: bytes) -> Fence | None:
        return self._fences.get(pid)

    def pids(self) -> Collection[bytes]:
        return self._fences.keys()

    def put(self, pid: bytes, fence: Fence) -> None:
        """Tie the process to a claim, in the place of the one before."""
        if pid not in self._fences:
            self._order.append(pid)
        self._fences[pid] = fence
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        if len(self._order) <= FORMER_FENCES:
            return
        alive = self._alive()
        while len(self._order) > FORMER_FENCES + len(alive):
            oldest = self._order.popleft()
            if oldest in alive:
                self._order.append(oldest)
            else:
                del self._fences[oldest]
