"""A service as its entry says, and what a change of it means for a replica that runs.

What a replica is - the process, its host and its input - can't change while it runs: it is
stopped in order and started anew. How it is kept - restarts, timeouts, placement - applies to
the running one. A change of the metadata, or one that comes to the same, changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from cluster.errors import ClusterError
from cluster.placement import Mode, Service
from cluster.registry import Entry
from node.kinds.lifecycle import Lifecycle
from node.kinds.service import Placement

MOVABLE = frozenset({"process.service"})


class Placed(Protocol):
    """What the supervisor needs of a decoded entry that is placed and claimed, whatever its kind."""

    @property
    def lifecycle(self) -> Lifecycle: ...

    @property
    def placement(self) -> Placement: ...

    @property
    def code(self) -> Collection[str]:
        """The entries whose code it runs."""

    @property
    def identity(self) -> object:
        """What can't change while it runs: an entry with another identity is stopped and started anew."""


class StillStopping(ClusterError):
    """A process of a service that was changed or removed has not ended yet."""

    def __init__(self, service: str, pids: list[str]) -> None:
        super().__init__(service, pids)
        self.service = service
        self.pids = pids

    def __str__(self) -> str:
        return f"{self.service}: its former process {', '.join(self.pids) or '(being started)'} has not ended yet"


@dataclass(frozen=True)
class Wanted:
    """A service as its entry says, decoded."""

    entry: Entry
    spec: Placed

    @cached_property
    def mode(self) -> Mode:
        return Mode(self.spec.placement.mode)

    @property
    def keeps(self) -> bool:
        """Whether it goes on while the node has no lease."""
        return self.mode is Mode.EVERY_NODE or self.spec.placement.on_lease_loss == "keep"

    @property
    def movable(self) -> bool:
        """Whether its process may move between nodes with its claim. What keeps children is started again elsewhere."""
        return self.mode is Mode.CLUSTER and self.entry.kind in MOVABLE

    def has(self, replica: int) -> bool:
        return replica < self.spec.placement.replicas

    def is_other_than(self, before: Wanted) -> bool:
        """Whether a replica that was started as ``before`` says has to be another one."""
        return self.entry.kind != before.entry.kind or self.spec.identity != before.spec.identity

    @cached_property
    def service(self) -> Service:
        """It, as the placement core sees it."""
        placed = self.spec.placement
        return Service(self.entry.id, placed.replicas, self.mode, placed.labels, placed.spread or "")


def in_levels(wanted: Mapping[str, Wanted]) -> list[set[str]]:
    """The services by dependency: what others require comes first."""
    levels: list[set[str]] = []
    placed: set[str] = set()
    left = set(wanted)
    while left:
        level = {s for s in left if all(r in placed or r not in left for r in wanted[s].spec.lifecycle.required)}
        level = level or left
        levels.append(level)
        placed |= level
        left -= level
    return levels
