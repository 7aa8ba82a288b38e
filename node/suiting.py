"""Which node may have what: this one, by its labels, state and what it avoids, and the others that may take over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from cluster.claims import Claims
from cluster.members import Members, NodeState
from cluster.placement import Barred, Mode, eligible, others, successors, suits
from node.barring import Barring
from node.claiming import Key
from node.wanted import Wanted


class Suiting:
    """``wanted`` are the services that are to run."""

    def __init__(
        self,
        node: str,
        members: Members,
        claims: Claims,
        barring: Barring,
        wanted: Callable[[], Mapping[str, Wanted]],
    ) -> None:
        self._node = node
        self._members = members
        self._claims = claims
        self._barring = barring
        self._wanted = wanted

    def eligible(self, wanted: Wanted) -> bool:
        """Whether this node is known to have the labels."""
        member = self._members.get(self._node)
        return member is not None and suits(wanted.service, member)

    def lacks_labels(self, wanted: Wanted) -> bool:
        """Whether this node is known not to have the labels; while it is not registered nothing is known."""
        member = self._members.get(self._node)
        return member is not None and not suits(wanted.service, member)

    def drains(self) -> bool:
        """Whether this node gives away what it has: it starts nothing then."""
        member = self._members.get(self._node)
        return member is not None and member.state is NodeState.DRAINING

    def others(self, wanted: Wanted, barred: Barred | None = None) -> list[str]:
        """The other nodes that may take an instance now."""
        if wanted.mode is Mode.EVERY_NODE:
            return []
        return others(wanted.service, self._members.all(), barred or self._barred(), self._node)

    def successors(self, key: Key) -> list[str]:
        """The nodes that may take the replica from the one that has it, best first."""
        services = [wanted.service for wanted in self._wanted().values()]
        return successors(key, services, self._members.all(), self._claims.all(), self._barred())

    def refusal(self, key: Key) -> str:
        """Why this node can't take the replica of another with its process; empty when it can."""
        service, replica = key
        wanted, barred, member = self._wanted().get(service), self._barred(), self._members.get(self._node)
        if wanted is None or not wanted.movable or not wanted.has(replica):
            return f"node {self._node} knows no replica {replica} of service {service} that is to run"
        if service in barred.quarantined:
            return f"service {service} is quarantined"
        if (service, self._node) in barred.avoided:
            return f"node {self._node} avoids service {service}, which could not be made to run there"
        if member is None or not eligible(wanted.service, member):
            return f"node {self._node} is not ready, or lacks labels that service {service} asks for"
        return ""

    def _barred(self) -> Barred:
        return self._barring.now(asyncio.get_running_loop().time())
