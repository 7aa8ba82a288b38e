"""Which replicas this node should claim now: rendezvous hashing, decided by every node for itself.

Each node ranks the eligible nodes of a replica by a hash of (service, replica, node). Rank r claims after
r x 500 ms if the replica is still unclaimed then, so views need not agree and there is no leader; a live claim
is never overridden, and the compare in etcd decides. A node that joins or leaves changes the ranking of the
others not at all: only what it held, or takes first, moves.

Pure: members, claims and the time come in, actions go out. The shell claims, starts after the claim is
confirmed, and asks again at ``Plan.wake_at`` or on any change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from cluster.claims import Claim
from cluster.members import Member, NodeState

STEP = 0.5
"""Seconds a rank waits longer than the one before it."""

IN_FLIGHT = 64
"""Most claims one node asks for at the same time."""

Replica: TypeAlias = tuple[str, int]


class Mode(Enum):
    """Where a service runs."""

    CLUSTER = "cluster"
    """``replicas`` times in the cluster, each owned by a claim."""
    EVERY_NODE = "every_node"
    """Once on every eligible node, without a claim."""


@dataclass(frozen=True)
class Service:
    """A service to be placed. A node is eligible when it has all ``labels``.

    ``spread``: a node that has, or is first for, another replica of the service ranks behind those that have none.
    """

    id: str
    replicas: int = 1
    mode: Mode = Mode.CLUSTER
    labels: Mapping[str, str] = field(default_factory=dict)
    spread: bool = True


@dataclass(frozen=True)
class MakeClaim:
    """Claim this replica now."""

    service: str
    replica: int


@dataclass(frozen=True)
class DropClaim:
    """This node holds a replica nobody wants any more: stop it, then release the claim."""

    service: str
    replica: int
    token: int


PlacementAction: TypeAlias = MakeClaim | DropClaim


@dataclass(frozen=True)
class Plan:
    """What to do now, and when to ask again at the latest (None: at the next change)."""

    actions: list[PlacementAction]
    wake_at: float | None


def weight(service: str, replica: int, node: str) -> int:
    """The rendezvous weight: the same on every machine and in every version."""
    text = f"{service}\0{replica}\0{node}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def ranking(service: str, replica: int, nodes: Iterable[str]) -> list[str]:
    """The nodes, best first."""
    return sorted(nodes, key=lambda node: (-weight(service, replica, node), node))


def eligible(service: Service, member: Member) -> bool:
    """Whether the node takes new replicas of the service."""
    if member.state is not NodeState.READY:
        return False
    return all(member.labels.get(name) == value for name, value in service.labels.items())


class Placement:
    """The decisions of one node. It remembers only since when it has seen each replica unclaimed."""

    def __init__(self, node: str, *, step: float = STEP, in_flight: int = IN_FLIGHT) -> None:
        self._node = node
        self._step = step
        self._in_flight = in_flight
        self._unclaimed: dict[Replica, float] = {}

    def decide(
        self,
        services: Sequence[Service],
        members: Sequence[Member],
        claims: Sequence[Claim],
        now: float,
        asked: frozenset[Replica] = frozenset(),
    ) -> Plan:
        """The plan for this moment. ``asked`` are claims this node has asked for and not heard of yet."""
        wanted = {(s.id, replica): s for s in services if s.mode is Mode.CLUSTER for replica in range(s.replicas)}
        held = {(claim.service, claim.replica): claim for claim in claims}
        self._remember([replica for replica in wanted if replica not in held], now)
        dropped: list[PlacementAction] = [
            DropClaim(*replica, claim.token)
            for replica, claim in sorted(held.items())
            if claim.node == self._node and replica not in wanted
        ]
        due, wake_at = self._due(wanted, members, held, now, asked)
        room = max(0, self._in_flight - len(asked))
        return Plan([*dropped, *due[:room]], wake_at)

    def _remember(self, unclaimed: list[Replica], now: float) -> None:
        self._unclaimed = {replica: self._unclaimed.get(replica, now) for replica in unclaimed}

    def _due(
        self,
        wanted: Mapping[Replica, Service],
        members: Sequence[Member],
        held: Mapping[Replica, Claim],
        now: float,
        asked: frozenset[Replica],
    ) -> tuple[list[MakeClaim], float | None]:
        due: list[MakeClaim] = []
        times: list[float] = []
        taken = _taken(held)
        for replica, since in sorted(self._unclaimed.items()):
            service = wanted[replica]
            nodes = [member.node for member in members if eligible(service, member)]
            ranked = _spread(replica, nodes, taken.setdefault(service.id, []) if service.spread else [])
            if ranked and service.spread:
                taken[service.id].append(ranked[0])
            if self._node not in ranked or replica in asked:
                continue
            at = since + ranked.index(self._node) * self._step
            if at <= now:
                due.append(MakeClaim(*replica))
            else:
                times.append(at)
        return due, min(times, default=None)


def _taken(held: Mapping[Replica, Claim]) -> dict[str, list[str]]:
    """The nodes that have a replica, by service."""
    taken: dict[str, list[str]] = {}
    for claim in held.values():
        taken.setdefault(claim.service, []).append(claim.node)
    return taken


def _spread(replica: Replica, nodes: list[str], taken: Sequence[str]) -> list[str]:
    """The ranking, with the nodes that have the fewest other replicas first."""
    return sorted(ranking(*replica, nodes), key=taken.count)
