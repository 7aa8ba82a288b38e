"""Which replicas this node should claim now, decided by every node for itself: rendezvous hashing with bounded load.

Each node ranks the eligible nodes of a replica by a hash of (service, replica, node). Rank r claims after
r x 500 ms if the replica is still unclaimed then, so views need not agree and there is no leader; a live claim
is never overridden, and the compare in etcd decides. Because nothing that runs is moved for the sake of balance,
balance is made when replicas are placed: a node that has its share of all replicas already ranks behind those that
have not ("consistent hashing with bounded loads", Mirrokni et al. 2016). So 1,000 services lie evenly on five nodes,
the survivors of a lost one take equal parts of what it had, and a new node is the first to get new services.

The first node that is ready when a cluster starts must not take everything. What never ran yet waits until as many
nodes are registered as are ``expected``, for ``PATIENCE`` at most; a node that is joining ranks with the others for it,
for ``JOINING_GRACE`` at most; and who is not first leaves the others, from when they are ready, ``START_STEP`` for each
rank. Failover waits for nobody who is not ready.

Pure: members, claims and the time come in, actions go out. The shell claims, starts after the claim is
confirmed, and asks again at ``Plan.wake_at`` or on any change.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TypeAlias

from cluster.claims import Claim
from cluster.members import Member, NodeState

STEP = 0.5
"""Seconds a rank waits longer than the one before it."""

START_STEP = 2.0
"""The same for what never ran: a node may be busy with all the others that are its to start."""

IN_FLIGHT = 64
"""Most claims one node asks for at the same time."""

JOINING_GRACE = 10.0
"""Seconds for which a joining node counts among those that may take what never ran."""

PATIENCE = 30.0
"""Seconds for which the expected nodes are waited for."""

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

    A node that has, or is first for, another replica of the service ranks behind those that have none; with
    ``spread``, a label, so does one whose value of it such a node has.
    """

    id: str
    replicas: int = 1
    mode: Mode = Mode.CLUSTER
    labels: Mapping[str, str] = field(default_factory=dict)
    spread: str = ""


@dataclass(frozen=True)
class Barred:
    """What keeps services from nodes. ``avoided``: (service, node) -> when that ends, on the clock of ``now``."""

    avoided: Mapping[tuple[str, str], float] = field(default_factory=dict)
    quarantined: Collection[str] = frozenset()


@dataclass(frozen=True)
class MakeClaim:
    """Claim this replica now."""

    service: str
    replica: int


@dataclass(frozen=True)
class DropClaim:
    """This node holds a replica it is not to have, any more: stop it, then release the claim."""

    service: str
    replica: int
    token: int


PlacementAction: TypeAlias = MakeClaim | DropClaim
NOTHING = Barred()


@dataclass(frozen=True)
class Plan:
    """What to do now, and when to ask again at the latest (None: at the next change).

    ``first``: of each replica that is to be claimed by somebody, the node that is first in rank.
    """

    actions: list[PlacementAction]
    wake_at: float | None
    first: Mapping[Replica, str] = field(default_factory=dict, compare=False)


def weight(service: str, replica: int, node: str) -> int:
    """The rendezvous weight: the same on every machine and in every version."""
    text = f"{service}\0{replica}\0{node}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def ranking(service: str, replica: int, nodes: Iterable[str]) -> list[str]:
    """The nodes, best first."""
    return sorted(nodes, key=lambda node: (-weight(service, replica, node), node))


@lru_cache(maxsize=20_000)
def _ranking(replica: Replica, nodes: tuple[str, ...]) -> list[str]:
    return ranking(*replica, nodes)


def suits(service: Service, member: Member) -> bool:
    """Whether the node has the labels the service asks for."""
    return member.carries(service.labels.items())


def eligible(service: Service, member: Member) -> bool:
    """Whether the node takes new replicas of the service."""
    return member.state is NodeState.READY and suits(service, member)


def others(service: Service, members: Iterable[Member], barred: Barred, node: str) -> list[str]:
    """The nodes but ``node`` that may take a replica of the service now."""
    return [
        member.node
        for member in members
        if member.node != node and eligible(service, member) and (service.id, member.node) not in barred.avoided
    ]


def successors(
    replica: Replica,
    services: Iterable[Service],
    members: Sequence[Member],
    claims: Iterable[Claim],
    barred: Barred,
) -> list[str]:
    """The nodes that may take the replica from the one that has it, best first, as if that were lost."""
    wanted = {(s.id, number): s for s in services if s.mode is Mode.CLUSTER for number in range(s.replicas)}
    held = {(claim.service, claim.replica): claim for claim in claims}
    claim = held.pop(replica, None)
    service = wanted.get(replica)
    if service is None or claim is None or service.id in barred.quarantined:
        return []
    able = tuple(others(service, members, barred, claim.node))
    return _Loads(wanted, members, held).rank(service, replica, able)


class Placement:
    """The decisions of one node. It remembers since when it has seen each replica unclaimed, and each node joining."""

    def __init__(
        self,
        node: str,
        *,
        expected: int = 1,
        step: float = STEP,
        start_step: float = START_STEP,
        in_flight: int = IN_FLIGHT,
        grace: float = JOINING_GRACE,
        patience: float = PATIENCE,
    ) -> None:
        self._node = node
        self._step = step
        self._start_step = start_step
        self._in_flight = in_flight
        self._grace = grace
        self._expected = expected
        self._patience = patience
        self._complete_at: float | None = None
        self._unclaimed: dict[Replica, float] = {}
        self._ran: set[Replica] = set()
        self._joining: dict[tuple[str, int], float] = {}
        self._ready: dict[tuple[str, int], float] = {}

    def decide(
        self,
        services: Sequence[Service],
        members: Sequence[Member],
        claims: Sequence[Claim],
        now: float,
        asked: frozenset[Replica] = frozenset(),
        barred: Barred = NOTHING,
    ) -> Plan:
        """The plan for this moment. ``asked`` are claims this node has asked for and not heard of yet."""
        wanted = {(s.id, replica): s for s in services if s.mode is Mode.CLUSTER for replica in range(s.replicas)}
        held = {(claim.service, claim.replica): claim for claim in claims}
        self._remember(wanted, held, members, now)
        dropped: list[PlacementAction] = [
            DropClaim(*replica, claim.token)
            for replica, claim in sorted(held.items())
            if claim.node == self._node
            and (claim.service in barred.quarantined or not self._fits(wanted.get(replica), members))
        ]
        due, times, first = self._due(wanted, members, held, now, asked, barred)
        return Plan([*dropped, *due], min([*times, *barred.avoided.values()], default=None), first)

    def _fits(self, service: Service | None, members: Sequence[Member]) -> bool:
        """Whether this node may have the service; while it is not registered nothing is known against it."""
        if service is None or not service.labels:
            return service is not None
        return all(suits(service, member) for member in members if member.node == self._node)

    def _remember(
        self,
        wanted: Mapping[Replica, Service],
        held: Mapping[Replica, Claim],
        members: Sequence[Member],
        now: float,
    ) -> None:
        self._unclaimed = {replica: self._unclaimed.get(replica, now) for replica in wanted if replica not in held}
        self._ran = (self._ran | held.keys()) & wanted.keys()
        if self._complete_at is None:
            self._complete_at = now + self._patience
        if held or len(members) >= self._expected:
            self._complete_at = min(self._complete_at, now)
        self._joining = _since(self._joining, members, NodeState.JOINING, now)
        self._ready = _since(self._ready, members, NodeState.READY, now)

    def _due(
        self,
        wanted: Mapping[Replica, Service],
        members: Sequence[Member],
        held: Mapping[Replica, Claim],
        now: float,
        asked: frozenset[Replica],
        barred: Barred,
    ) -> tuple[list[MakeClaim], list[float], dict[Replica, str]]:
        due: list[MakeClaim] = []
        times: list[float] = []
        first: dict[Replica, str] = {}
        loads = _Loads(wanted, members, held)
        awaited = self._awaited(members, now)
        ready = [member for member in members if member.state is NodeState.READY]
        joined = [member for member in members if member.state is NodeState.READY or member.node in awaited]
        room = self._in_flight - len(asked)
        ready_at = {node: at for (node, _), at in self._ready.items()}
        for replica, since in sorted(self._unclaimed.items()):
            if len(due) >= room:
                break  # those that follow are looked at when there is room again
            service = wanted[replica]
            if service.id in barred.quarantined:
                continue
            waits, there = ({}, ready) if replica in self._ran else (awaited, joined)
            ranked = loads.rank(service, replica, _able(service, there, barred))
            if not ranked:
                continue
            first[replica] = ranked[0]
            loads.take(service, ranked[0])
            if self._node not in ranked or self._node in waits or replica in asked:
                continue
            rank = ranked.index(self._node)
            at = since + rank * self._step
            if replica not in self._ran:
                at = self._first_start(since, ranked[:rank], waits, ready_at)
            if at <= now:
                due.append(MakeClaim(*replica))
            else:
                times.append(at)
        return due, times, first

    def _first_start(
        self, since: float, ahead: Sequence[str], waits: Mapping[str, float], ready_at: Mapping[str, float]
    ) -> float:
        """When this node may claim what never ran, with the nodes ``ahead`` of it in rank."""
        began = max([since, self._complete_at or since, *(ready_at[node] for node in ahead if node in ready_at)])
        return max([began + len(ahead) * self._start_step, *(waits[node] for node in ahead if node in waits)])

    def _awaited(self, members: Sequence[Member], now: float) -> dict[str, float]:
        """The joining nodes that others wait for, and until when."""
        return {
            member.node: end
            for member in members
            if member.state is NodeState.JOINING
            and (end := self._joining[member.node, member.epoch] + self._grace) > now
        }


def _since(
    known: Mapping[tuple[str, int], float], members: Sequence[Member], state: NodeState, now: float
) -> dict[tuple[str, int], float]:
    """Since when each registration has been in this state, as far as this node has seen."""
    there = [(member.node, member.epoch) for member in members if member.state is state]
    return {one: known.get(one, now) for one in there}


def _able(service: Service, members: Sequence[Member], barred: Barred) -> tuple[str, ...]:
    """Those of ``members`` that may take a replica of the service."""
    if service.labels:
        members = [member for member in members if suits(service, member)]
    if barred.avoided:
        members = [member for member in members if (service.id, member.node) not in barred.avoided]
    return tuple(member.node for member in members)


class _Loads:
    """What every node has, and is first for."""

    def __init__(
        self, wanted: Mapping[Replica, Service], members: Sequence[Member], held: Mapping[Replica, Claim]
    ) -> None:
        self._zones = {member.node: member.labels for member in members}
        self._all = Counter(claim.node for claim in held.values())
        self._own: dict[str, Counter[str]] = {}
        for (service, number), claim in held.items():
            if number or (service, 1) in wanted:  # of a single one there are no others
                self._own.setdefault(service, Counter())[claim.node] += 1
        able = sum(member.state in (NodeState.READY, NodeState.JOINING) for member in members)
        self._share = -(-len(wanted) // max(able, 1))

    def rank(self, service: Service, replica: Replica, able: tuple[str, ...]) -> list[str]:
        """The nodes, best first: fewest other replicas of the service, then those below their share, then by hash."""
        ranked = _ranking(replica, able)
        if any(self._all[node] >= self._share for node in ranked):
            ranked = sorted(ranked, key=lambda node: max(0, self._all[node] + 1 - self._share))
        if service.replicas > 1:
            own = self._own.get(service.id, Counter())
            zones = self._by_zone(service, own)
            ranked = sorted(ranked, key=lambda node: (zones[self._zone(service, node)], own[node]))
        return ranked

    def take(self, service: Service, node: str) -> None:
        self._all[node] += 1
        if service.replicas > 1:
            self._own.setdefault(service.id, Counter())[node] += 1

    def _by_zone(self, service: Service, own: Counter[str]) -> Counter[str]:
        zones: Counter[str] = Counter()
        if service.spread:
            for node, count in own.items():
                zones[self._zone(service, node)] += count
        return zones

    def _zone(self, service: Service, node: str) -> str:
        """The node's value of the label replicas are spread by; nodes without it are one such value together."""
        return self._zones.get(node, {}).get(service.spread, "")
