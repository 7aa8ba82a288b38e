"""Says of entries whose data are one node's own that they are, once there is more than one node.

What works on one machine goes wrong quietly in a cluster: each node has a ``store.memory`` of its own under the same
id. One node says so for all, the first by name, once for each entry; the kind says what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from cluster.members import Member
from cluster.registry import RegistryState
from node.kinds import KINDS

log = structlog.get_logger("wippy.node")


class NodeLocal:
    """The warnings of one node. ``members`` and ``state`` give the nodes and the registry as they are now."""

    def __init__(self, node: str, members: Callable[[], Sequence[Member]], state: Callable[[], RegistryState]) -> None:
        self._node = node
        self._members = members
        self._state = state
        self._speaks = False
        self._said: set[str] = set()

    def members_changed(self) -> None:
        """A node came or went."""
        names = [member.node for member in self._members()]
        spoke, self._speaks = self._speaks, len(names) > 1 and min(names) == self._node
        if self._speaks and not spoke:
            self._look(entry.id for entry in self._state().entries())

    def entries_changed(self, ids: Iterable[str]) -> None:
        """These entries of the registry came, changed or went."""
        if self._speaks:
            self._look(ids)

    def _look(self, ids: Iterable[str]) -> None:
        state = self._state()
        for id in ids:
            entry = state.get(id)
            kind = KINDS.get(entry.kind) if entry is not None else None
            if kind is not None and kind.one_node and id not in self._said:
                self._said.add(id)
                log.warning("each node has data of its own under this entry", entry=id, remedy=kind.one_node)
