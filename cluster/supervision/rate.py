"""How many restarts are too many: at most ``intensity`` within any ``period``.

Restarts of one cause count once: a node that is lost takes many children along, none of which
is to blame.
"""

from __future__ import annotations

from collections import deque


class Rate:
    """The restarts of one supervisor, as far back as they matter."""

    def __init__(self) -> None:
        self._restarts: deque[tuple[float, str]] = deque()

    def add(self, at: float, cause: str, intensity: int, period: float) -> bool:
        """Count a restart; whether it is still within the intensity."""
        while self._restarts and at - self._restarts[0][0] > period:
            self._restarts.popleft()
        if not cause or all(cause != other for _, other in self._restarts):
            self._restarts.append((at, cause))
        return len(self._restarts) <= intensity
