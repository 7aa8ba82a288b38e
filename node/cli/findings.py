"""What is wrong with a cluster, from what was seen of it. Pure.

``examine`` turns a ``Sight`` into findings: ok, warn or fail, each with what was seen, the cause where
it is known, and the remedy. Nothing here asks anybody; what could not be reached is a text in
its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.client import NatsSeen
    from cluster.etcd import LeaseInfo, Status
    from cluster.members import Member

_SLOW = 0.1
"""Seconds of a round trip that make everything slow."""
_CLOCK = 1.0
_LEAST_PAYLOAD = 1024 * 1024
_OLDEST_ETCD, _LOSSY_ETCD, _FENCED_ETCD = (3, 4, 0), ((3, 5, 0), (3, 5, 2)), (3, 5, 13)
_WELL = ("running", "stopping", "stopped")


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. ``remedy`` is empty when it is fine."""

    level: Level
    check: str
    says: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"level": self.level.value, "check": self.check, "says": self.says, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class EtcdSeen:
    """``seconds`` is the median of some reads; ``troubles`` is what etcd's room lacks, with the remedy."""

    status: Status
    seconds: float
    troubles: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """What a node said. Its clock is ``offset`` seconds ahead of this machine's, give or take ``error``."""

    health: Mapping[str, Any]
    offset: float
    error: float


@dataclass(frozen=True)
class Sight:
    """All that was seen. A text stands for what could not be seen and says why."""

    cluster: str
    etcd: EtcdSeen | str
    nats: NatsSeen | str
    members: Sequence[Member] | str
    head: int | None = None
    """The registry's newest version, None when it has none or can't be read."""
    leases: Mapping[str, LeaseInfo] = field(default_factory=dict)
    nodes: Mapping[str, NodeSeen] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    """Of the program that looks."""
    services: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By node what it said of the services it runs."""


def examine(sight: Sight) -> list[Finding]:
    """Every check, the servers first."""
    return [
        *_etcd(sight.etcd),
        *_nats(sight.nats),
        *_members(sight),
        *_leases(sight),
        *_clocks(sight.nodes),
        *_versions(sight),
        *_registry(sight),
        *_services(sight),
    ]


def _etcd(seen: EtcdSeen | str) -> Iterator[Finding]:
    if isinstance(seen, str):
        yield Finding(Level.FAIL, "etcd", seen, "start etcd, or say where it is with --etcd URL (WIPPY_ETCD)")
        return
    status = seen.status
    told = f"etcd {status.version}, {_count(status.members, 'member')}, answers in {seen.seconds * 1000:.1f} ms"
    if seen.seconds > _SLOW:
        remedy = "look at the network to etcd and at its disk: it syncs each write"
        yield Finding(Level.WARN, "etcd", f"{told}: slow", remedy)
    else:
        yield Finding(Level.OK, "etcd", told)
    yield from _etcd_version(status)
    yield from _etcd_room(seen)


def _etcd_version(status: Status) -> Iterator[Finding]:
    number = version_tuple(status.version)
    lowest, highest = _LOSSY_ETCD
    if number < _OLDEST_ETCD:
        yield Finding(Level.FAIL, "etcd version", f"etcd {status.version} is too old", "use 3.4 or newer")
    elif status.members < 2:
        return  # what follows are faults of more than one member
    elif lowest <= number <= highest:
        remedy = "move to 3.5.13 or newer"
        yield Finding(Level.FAIL, "etcd version", f"etcd {status.version} with several members can lose data", remedy)
    elif (3, 5, 0) <= number < _FENCED_ETCD:
        says = f"in etcd {status.version} a deposed leader may still renew leases: two nodes could own one service"
        yield Finding(Level.WARN, "etcd version", says, "move to 3.5.13 or newer")


def _etcd_room(seen: EtcdSeen) -> Iterator[Finding]:
    from cluster.etcd.room import DEFAULT_QUOTA  # etcd does not tell the quota it has

    level = Level.FAIL if seen.status.alarms else Level.WARN
    for trouble in seen.troubles:
        yield Finding(level, "etcd room", trouble)
    if not seen.troubles:
        used = f"{seen.status.db_size / 1024**2:.1f} MiB, {seen.status.db_in_use / 1024**2:.1f} MiB in use"
        yield Finding(
            Level.OK, "etcd room", f"database {used}, {seen.status.db_size / DEFAULT_QUOTA:.0%} of the default quota"
        )


def _nats(seen: NatsSeen | str) -> Iterator[Finding]:
    if isinstance(seen, str):
        yield Finding(Level.FAIL, "NATS", seen, "start nats-server, or say where it is with --nats URL (WIPPY_NATS)")
        return
    jetstream = {True: "with JetStream", False: "without JetStream", None: "JetStream unknown"}[seen.jetstream]
    told = f"NATS {seen.version}, {jetstream}, answers in {seen.seconds * 1000:.1f} ms"
    if seen.seconds > _SLOW:
        yield Finding(Level.WARN, "NATS", f"{told}: slow", "look at the network to NATS and at the server's load")
    else:
        yield Finding(Level.OK, "NATS", told)
    if seen.max_payload < _LEAST_PAYLOAD:
        says = f"NATS takes messages up to {seen.max_payload} bytes only; nodes send up to 1 MiB"
        yield Finding(Level.FAIL, "NATS", says, "start it with max_payload: 1MB or more")


def _members(sight: Sight) -> Iterator[Finding]:
    if isinstance(sight.members, str):
        says = "the nodes can't be looked at: where they are is written in etcd"
        yield Finding(Level.FAIL, "nodes", says, "make etcd answer first")
        return
    if not sight.members:
        says = f"cluster {sight.cluster!r} has no nodes"
        yield Finding(Level.FAIL, "nodes", says, "start one with `wippy run`, or name another one with --cluster")
    for member in sight.members:
        yield _member(member, sight)
    yield from _missing(sight, len(sight.members))


def _missing(sight: Sight, registered: int) -> Iterator[Finding]:
    """Fewer nodes than the cluster is meant to have, by the settings of those that answer."""
    expected = max((int(seen.health.get("expected_nodes", 1)) for seen in sight.nodes.values()), default=0)
    if registered < expected:
        says = f"{registered} of {expected} nodes are registered; the others were lost or never started"
        remedy = "start them with `wippy run --node NAME`, or lower `cluster.expected_nodes` if so many are enough"
        yield Finding(Level.WARN, "nodes", says, remedy)


def _member(member: Member, sight: Sight) -> Finding:
    node, state = member.node, member.state.value
    if node in sight.silent:
        remedy = f"look at its log; if it is gone it drops out when its lease ends, start it again with --node {node}"
        if isinstance(sight.nats, str):
            remedy = "make NATS answer first"
        return Finding(Level.FAIL, "nodes", f"{node} is {state} but does not answer: {sight.silent[node]}", remedy)
    health = sight.nodes[node].health if node in sight.nodes else {}
    reasons = [reason for reason in health.get("unready", ()) if reason != f"node is {state}"]
    if reasons:
        return Finding(Level.FAIL, "nodes", f"{node} is {state}: {'; '.join(reasons)}", "look at its log")
    if state == "joining":
        return Finding(Level.WARN, "nodes", f"{node} is joining and takes no work yet", "wait, or look at its log")
    if state == "cordoned":
        says = f"{node} is cordoned: it gets no new work"
        return Finding(Level.WARN, "nodes", says, f"`wippy uncordon {node}` lets it take work again")
    if state != "ready":
        remedy = f"start it again when it has ended; if it was drained, `wippy uncordon {node}` lets it take work again"
        return Finding(Level.WARN, "nodes", f"{node} is {state}: it gets no new work", remedy)
    return Finding(Level.OK, "nodes", f"{node} is ready, processes: {health.get('processes', '?')}")


def _leases(sight: Sight) -> Iterator[Finding]:
    if not sight.leases:
        return
    spans = sorted({info.granted for info in sight.leases.values() if info.remaining >= 0})
    for node, info in sorted(sight.leases.items()):
        if info.remaining < 0:
            says = f"the lease of {node} has ended; its services go to other nodes"
            yield Finding(Level.WARN, "leases", says, "look at its log: it could not reach etcd, or stood still")
        elif info.remaining * 2 < info.granted:
            says = f"{node} has not renewed its lease of {info.granted} s for {info.granted - info.remaining} s"
            yield Finding(Level.WARN, "leases", says, f"look at the load of {node} and at its way to etcd")
    if len(spans) > 1:
        says = f"the nodes' leases last {', '.join(f'{span} s' for span in spans)}"
        yield Finding(Level.WARN, "leases", says, "give all nodes the same lease TTL: a lost one is noticed after that")
    elif spans:
        yield Finding(Level.OK, "leases", f"TTL {spans[0]} s: a node that is lost is noticed after that")


def _clocks(nodes: Mapping[str, NodeSeen]) -> Iterator[Finding]:
    if not nodes:
        return
    first = min(nodes, key=lambda node: nodes[node].offset)
    last = max(nodes, key=lambda node: nodes[node].offset)
    apart = nodes[last].offset - nodes[first].offset
    doubt = nodes[last].error + nodes[first].error
    if apart - doubt > _CLOCK:
        says = f"the clock of {last} is {apart:.1f} s ahead of that of {first}"
        remedy = "run a time service (chrony, systemd-timesyncd) on all machines; leases do not depend on it, logs do"
        yield Finding(Level.WARN, "clocks", says, remedy)
    here = max(nodes.values(), key=lambda seen: abs(seen.offset))
    if apart - doubt <= _CLOCK and abs(here.offset) - here.error > _CLOCK:
        says = f"the nodes' clocks agree, this machine's differs by {abs(here.offset):.1f} s"
        yield Finding(Level.WARN, "clocks", says, "run a time service on this machine")
    elif apart - doubt <= _CLOCK:
        yield Finding(Level.OK, "clocks", f"the nodes' clocks agree within {max(apart, doubt) * 1000:.0f} ms")


def _versions(sight: Sight) -> Iterator[Finding]:
    if isinstance(sight.members, str) or not sight.members:
        return
    groups: dict[str, list[str]] = {}
    for member in sight.members:
        groups.setdefault(member.version or "?", []).append(member.node)
    if len(groups) > 1:
        told = "; ".join(f"{version}: {', '.join(nodes)}" for version, nodes in sorted(groups.items()))
        remedy = "fine during a rolling update; finish it"
        yield Finding(Level.WARN, "versions", f"the nodes run different versions of wippy ({told})", remedy)
    elif (version := next(iter(groups))) != sight.version:
        says = f"the nodes run wippy {version}, this is {sight.version}"
        yield Finding(Level.WARN, "versions", says, "use the wippy of the same version here")
    else:
        yield Finding(Level.OK, "versions", f"all run wippy {version}")
    yield from _capabilities(sight.members)


def _capabilities(members: Sequence[Member]) -> Iterator[Finding]:
    """Kinds that one node knows and another doesn't, or in another form."""
    kinds = sorted({kind for member in members for kind in member.capability})
    for kind in kinds:
        numbers = {member.node: member.capability.get(kind, 0) for member in members}
        if len(set(numbers.values())) > 1:
            least = min(numbers.values())
            behind = ", ".join(sorted(node for node, number in numbers.items() if number == least))
            says = f"entries of kind {kind} are not understood on {behind} as on the other nodes"
            yield Finding(Level.WARN, "versions", says, f"update {behind}")


def _registry(sight: Sight) -> Iterator[Finding]:
    if isinstance(sight.members, str) or not sight.nodes:
        return
    if sight.head is None:
        yield Finding(Level.WARN, "registry", "nothing was ever published", "`wippy registry push` an application")
        return
    behind = {
        node: int(seen.health.get("converged_version", -1))
        for node, seen in sight.nodes.items()
        if seen.health.get("converged_version", -1) < sight.head
    }
    for node, version in sorted(behind.items()):
        says = f"{node} is at v{version}, the registry at v{sight.head}"
        yield Finding(Level.WARN, "registry", says, "look again in a moment; if it stays, look at its log")
    if not behind:
        yield Finding(Level.OK, "registry", f"all nodes that answer have v{sight.head}")
    yield from _degraded(sight)


def _degraded(sight: Sight) -> Iterator[Finding]:
    for node, seen in sorted(sight.nodes.items()):
        for each in seen.health.get("degraded", ()):
            entry = each["entry"] or "the registry"
            says = f"{node} could not apply {entry} of v{each['version']}: {each['reason']}"
            remedy = f"correct {entry} and push it, or `wippy registry rollback`; the former resource serves on"
            yield Finding(Level.FAIL, "registry", says, remedy)


def _services(sight: Sight) -> Iterator[Finding]:
    """Services whose processes fail, or that no node has. One that was restarted and runs is well."""
    own = [each for node, told in sorted(sight.services.items()) for each in told if each.get("node") == node]
    failing = [each for each in own if each.get("last_error") and each.get("state") not in _WELL]
    for each in failing:
        where, why = f"{each['service']} on {each['node']}", str(each["last_error"]).strip().partition("\n")[0]
        remedy = "correct it and push it, or `wippy registry rollback`; that starts it anew"
        if each["state"] == "starting":
            says = f"{where} failed and is started again (restarts: {each.get('restarts', '?')}): {why}"
            yield Finding(Level.WARN, "services", says, f"if it fails again, {remedy}")
        else:
            yield Finding(Level.FAIL, "services", f"{where} does not run any more: {why}", remedy)
    nowhere = _nowhere(sight)
    for each in nowhere:
        name = each["service"] if not each["replica"] else f"{each['service']} (replica {each['replica']})"
        if each["state"] == "quarantined":
            yield Finding(Level.FAIL, "services", f"{name} runs nowhere: {each['why']}", "correct it first")
        else:
            remedy = "start or uncordon a node it may run on, or change its `placement`"
            yield Finding(Level.WARN, "services", f"{name} runs nowhere: {each['why']}", remedy)
    if own and not failing and not nowhere:
        yield Finding(Level.OK, "services", f"none fails, {len(own)} in all")


def _nowhere(sight: Sight) -> list[Mapping[str, Any]]:
    """A row for each replica that no node has, as far as all that answer know."""
    told = [each for some in sight.services.values() for each in some]
    had = {(each["service"], each.get("replica", 0)) for each in told if each.get("node")}
    waiting = {(e["service"], e["replica"]): e for e in told if e.get("state") in ("unplaced", "quarantined")}
    return [waiting[key] for key in sorted(waiting.keys() - had)]


def version_tuple(text: str) -> tuple[int, ...]:
    """``3.5.13`` (also ``3.6.0-rc.1``) as numbers."""
    numbers = []
    for part in text.partition("-")[0].split("."):
        numbers.append(int(part) if part.isdecimal() else 0)
    return tuple(numbers)


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"
