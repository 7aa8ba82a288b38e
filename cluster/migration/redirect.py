"""Where a node sends what its own processes have for one that moves, and what waits while that changes.

What was sent to the old place is still on its way through it, so the next message must not go direct: it waits until
a flush over the old way has come back. Further changes meanwhile change only the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cluster.migration.items import Flush, Item, Way


class Scope(Enum):
    """What waits for the flush."""

    OWN = "own"
    """What begins on this node."""
    ALL = "all"
    """All but what went through this node once already: it holds the process again, which came back to it."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The flush under way to the ``old`` place."""

    old: str
    flush: Flush
    scope: Scope


class Redirect:
    """The route, the flush that is awaited, and what waits for it."""

    def __init__(self, node: str, route: str, first: int = 0) -> None:
        self._node = node
        self._flushes = first
        self._held: list[tuple[Item, Way]] = []
        self.route = route
        self.pending: Pending | None = None

    def __len__(self) -> int:
        return len(self._held)

    @property
    def holds_from_links(self) -> bool:
        """Whether something waits that did not begin on this node, perhaps."""
        return self.pending is not None and self.pending.scope is Scope.ALL and bool(self._held)

    def start(self, old: str, scope: Scope) -> Flush:
        """A flush for the old place."""
        self._flushes += 1
        flush = Flush(self._node, self._flushes)
        self.pending = Pending(old, flush, scope)
        return flush

    def holds(self, way: Way) -> bool:
        """Whether what came this way has to wait."""
        if self.pending is None:
            return False
        return way.begins_here or (self.pending.scope is Scope.ALL and self._node not in way.passed)

    def hold(self, item: Item, way: Way) -> None:
        self._held.append((item, way))

    def finish(self) -> list[tuple[Item, Way]]:
        """The old way is empty, or gone. What waited, in order."""
        self.pending = None
        held, self._held = self._held, []
        return held
