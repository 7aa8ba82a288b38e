"""The node's Prometheus metrics, made from one snapshot at the moment of the scrape.

``NodeSample`` is everything they are made of: counts since the start and states of now, all
plain data, so that a scrape costs the running node nothing and needs no lock. ``Collector``
turns a sample into metric families; ``docs`` and tests read ``FAMILIES`` for the names.
Labels that applications choose (entries) are bounded: beyond ``MAX_ENTRIES`` of a host the
rest is summed up as ``other``.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector

from cluster.etcd import Status

MAX_ENTRIES = 1000
OTHER = "other"
MAX_DEGRADED = 100
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Steps:
    """How long steps of a VM took. ``counts`` has one count per bound (seconds), then the rest; not cumulative."""

    bounds: Sequence[float] = ()
    counts: Sequence[int] = ()
    total_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """One VM of a host."""

    number: int
    memory_bytes: int = 0
    busy: float = 0.0
    steps: Steps = Steps()


@dataclass(frozen=True, slots=True)
class HostSample:
    """One host. Mappings are by entry id, ``exits`` by reason, ``limit_hits`` and ``limits`` by limit."""

    host: str
    live: Mapping[str, int] = field(default_factory=dict)
    spawned: Mapping[str, int] = field(default_factory=dict)
    exits: Mapping[str, int] = field(default_factory=dict)
    mailbox: int = 0
    """Messages that wait in mailboxes."""
    workers: Sequence[WorkerSample] = ()
    workers_asked: int = 1
    short_of_memory: int = 0
    limit_hits: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LinkSample:
    """The link to one node."""

    peer: str
    open: bool
    envelopes_in: int = 0
    envelopes_out: int = 0
    waiting_bytes: int = 0
    closes: int = 0
    congested: bool = False
    resent: int = 0


@dataclass(frozen=True, slots=True)
class NatsSample:
    """One connection to NATS; ``connection`` is data or control."""

    connection: str
    connected: bool
    reconnects: int = 0
    slow_consumer_drops: int = 0
    permission_errors: int = 0


@dataclass(frozen=True, slots=True)
class NodeSample:
    """One node at one moment."""

    version: str = ""
    hosts: Sequence[HostSample] = ()
    messages: Mapping[str, int] = field(default_factory=dict)
    """By path: local, remote_in, remote_out."""
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    moves: Mapping[str, int] = field(default_factory=dict)
    """Of processes that were here, by how they ended."""
    guests: int = 0
    """Processes that moved here."""
    registry_version: int = -1
    registry_head: int | None = None
    degraded: Sequence[tuple[str, int, str]] = ()
    """(entry, version since which it is so, reason)."""
    etcd: Status | None = None
    """As it answered last."""
    lease_seconds_left: float = 0.0
    links: Sequence[LinkSample] = ()
    nats: Sequence[NatsSample] = ()
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Registered nodes by state."""
    services: Mapping[str, int] = field(default_factory=dict)
    """Replicas of services on this node by state."""
    quarantined: int = 0
    side_door: Mapping[str, int] = field(default_factory=dict)
    """By result: accepted, or why refused."""
    events: Mapping[str, int] = field(default_factory=dict)
    """By path: sent by this node, received from others, delivered to subscribers here."""
    log_lines_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Family:
    """The name, meaning and labels of one metric."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def gauge(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)

    def counter(self) -> CounterMetricFamily:
        return CounterMetricFamily(self.name, self.help, labels=self.labels)

    def histogram(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.name, self.help, labels=self.labels)


BUILD = Family("wippy_build_info", "Always 1; the labels say what runs.", ("version", "python"))
PROCESSES = Family("wippy_processes", "Live processes.", ("host", "entry"))
SPAWNED = Family("wippy_spawned_total", "Processes started.", ("host", "entry"))
EXITS = Family("wippy_exits_total", "Processes that ended, by reason.", ("host", "reason"))
MAILBOX = Family("wippy_mailbox_depth", "Messages waiting in mailboxes.", ("host",))
WORKERS = Family("wippy_host_workers", "Workers of the host: Lua VMs with a thread each.", ("host",))
ASKED = Family("wippy_host_workers_asked", "Workers the entry of the host asks for.", ("host",))
LIMITS = Family("wippy_limit", "Limits of the host and its processes, in their units.", ("host", "limit"))
HITS = Family("wippy_limit_hits_total", "Times a limit was met: refused, or killed for it.", ("host", "limit"))
SHORT = Family("wippy_host_short_of_memory", "Workers that many small processes fill: nothing new starts.", ("host",))
STEPS = Family("wippy_vm_step_seconds", "Duration of steps of the Lua VM.", ("host", "worker"))
BUSY = Family(
    "wippy_vm_busy", "Share of the last second the Lua VM ran; told when there are several.", ("host", "worker")
)
MEMORY = Family("wippy_vm_memory_bytes", "Memory the Lua VM holds.", ("host", "worker"))
MESSAGES = Family("wippy_messages_total", "Messages, by path: local, remote_in, remote_out.", ("path",))
DEAD_LETTERS = Family("wippy_dead_letters_total", "Messages nobody took, by reason.", ("reason",))
MOVES = Family(
    "wippy_moves_total", "Moves of processes of this node, by how they ended: moved, stayed, died.", ("verdict",)
)
GUESTS = Family("wippy_moved_in_processes", "Processes that moved here, and end with the lease of this node.")
REGISTRY = Family("wippy_registry_version", "Version of the registry this node has applied.")
HEAD = Family("wippy_registry_head", "Newest version of the registry this node knows of.")
DEGRADED = Family("wippy_degraded_entries", "Entries whose resource is not what the registry says.")
DEGRADED_ENTRY = Family(
    "wippy_degraded_entry",
    f"1 for each of the first {MAX_DEGRADED} such entries, with the version it fails since and the reason.",
    ("entry", "version", "reason"),
)
ETCD_SIZE = Family("wippy_etcd_db_bytes", "Size of etcd's database; it refuses changes at its quota, 2 GiB by default.")
ETCD_IN_USE = Family("wippy_etcd_db_in_use_bytes", "What a defragmentation would leave of etcd's database.")
ETCD_ALARM = Family("wippy_etcd_alarm", "1 while etcd has this alarm: NOSPACE (it is full) or CORRUPT.", ("alarm",))
LEASE = Family("wippy_lease_ttl_seconds", "Seconds left of the node's lease; renewed every second.")
LINK = Family("wippy_link_state", "1 when the link to the peer is open, else 0.", ("peer",))
ENVELOPES = Family("wippy_link_envelopes_total", "Envelopes over links, by direction: in, out.", ("peer", "dir"))
LINK_WAITING = Family("wippy_link_waiting_bytes", "Bytes accepted for the peer and not yet acknowledged.", ("peer",))
LINK_CONGESTED = Family("wippy_link_congested", "1 while senders to the peer are held back, else 0.", ("peer",))
LINK_RESENT = Family("wippy_link_frames_resent_total", "Frames sent again to the peer.", ("peer",))
LINK_CLOSES = Family("wippy_link_closes_total", "Times the link to the peer closed.", ("peer",))
NATS = Family("wippy_nats_connected", "1 when the connection to NATS is up.", ("connection",))
RECONNECTS = Family("wippy_nats_reconnects_total", "Reconnects to NATS.", ("connection",))
SLOW = Family("wippy_nats_slow_consumer_drops_total", "Messages the NATS client dropped: too slow.", ("connection",))
FORBIDDEN = Family("wippy_nats_permission_errors_total", "Subjects NATS refused this node.", ("connection",))
NODES = Family("wippy_nodes", "Registered nodes, by state.", ("state",))
SERVICES = Family("wippy_services", "Replicas of services on this node, by state.", ("state",))
QUARANTINED = Family("wippy_services_quarantined", "Services started nowhere because nodes hung in them.")
SIDE_DOOR = Family("wippy_side_door_total", "Messages of clients at the side door, by result.", ("result",))
EVENTS = Family("wippy_events_total", "Events, by path: sent, received, delivered.", ("path",))
DROPPED_LOGS = Family("wippy_log_lines_dropped_total", "Log lines lost because nobody read them.")

FAMILIES = tuple(value for value in list(vars().values()) if isinstance(value, Family))
"""Every metric of the node itself."""


class Collector(PrometheusCollector):
    """Gives Prometheus' library the metrics of the sample ``sample`` returns."""

    def __init__(self, sample: Callable[[], NodeSample]) -> None:
        self._sample = sample

    def collect(self) -> Iterator[Metric]:
        sample = self._sample()
        yield _build(sample)
        yield from _hosts(sample.hosts)
        yield _counts(MESSAGES, sample.messages)
        yield _counts(DEAD_LETTERS, sample.dead_letters)
        yield _counts(MOVES, sample.moves)
        yield _value(GUESTS, sample.guests)
        yield _value(REGISTRY, sample.registry_version)
        if sample.registry_head is not None:
            yield _value(HEAD, sample.registry_head)
        yield _value(DEGRADED, len(sample.degraded))
        yield _degraded(sample.degraded)
        yield from _etcd(sample.etcd)
        yield _value(LEASE, sample.lease_seconds_left)
        yield from _links(sample.links)
        yield from _nats(sample.nats)
        yield _gauges(NODES, sample.nodes)
        yield _gauges(SERVICES, sample.services)
        yield _value(QUARANTINED, sample.quarantined)
        yield _counts(SIDE_DOOR, sample.side_door)
        yield _counts(EVENTS, sample.events)
        dropped = DROPPED_LOGS.counter()
        dropped.add_metric([], sample.log_lines_dropped)
        yield dropped


def _etcd(status: Status | None) -> Iterator[Metric]:
    if status is not None:
        yield _value(ETCD_SIZE, status.db_size)
        yield _value(ETCD_IN_USE, status.db_in_use)
        yield _gauges(ETCD_ALARM, {alarm: int(alarm in status.alarms) for alarm in ("NOSPACE", "CORRUPT")})


def metrics_registry(sample: Callable[[], NodeSample]) -> CollectorRegistry:
    """The registry of one node: its own metrics and those of its process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(sample))
    ProcessCollector(registry=registry)
    return registry


def _build(sample: NodeSample) -> Metric:
    build = BUILD.gauge()
    build.add_metric([sample.version, platform.python_version()], 1)
    return build


def _hosts(hosts: Sequence[HostSample]) -> Iterator[Metric]:
    processes, spawned, exits = PROCESSES.gauge(), SPAWNED.counter(), EXITS.counter()
    mailbox, workers, asked, short = MAILBOX.gauge(), WORKERS.gauge(), ASKED.gauge(), SHORT.gauge()
    limits, hits = LIMITS.gauge(), HITS.counter()
    for host in hosts:
        for entry, count in _bounded(host.live):
            processes.add_metric([host.host, entry], count)
        for entry, count in _bounded(host.spawned):
            spawned.add_metric([host.host, entry], count)
        for reason, count in _bounded(host.exits):
            exits.add_metric([host.host, reason], count)
        mailbox.add_metric([host.host], host.mailbox)
        workers.add_metric([host.host], len(host.workers))
        asked.add_metric([host.host], host.workers_asked)
        short.add_metric([host.host], host.short_of_memory)
        for name, value in host.limits.items():
            limits.add_metric([host.host, name], value)
            hits.add_metric([host.host, name], host.limit_hits.get(name, 0))
    yield from (processes, spawned, exits, mailbox, workers, asked, short, limits, hits)
    yield from _workers(hosts)


def _workers(hosts: Sequence[HostSample]) -> Iterator[Metric]:
    memory, busy, steps = MEMORY.gauge(), BUSY.gauge(), STEPS.histogram()
    for host in hosts:
        for worker in host.workers:
            labels = [host.host, str(worker.number)]
            memory.add_metric(labels, worker.memory_bytes)
            busy.add_metric(labels, worker.busy)
            steps.add_metric(labels, _buckets(worker.steps), worker.steps.total_seconds)
    yield from (memory, busy, steps)


def _buckets(steps: Steps) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus has them."""
    buckets: list[tuple[str, float]] = []
    sum_so_far = 0
    for bound, count in zip((*map(repr, steps.bounds), "+Inf"), steps.counts or [0]):
        sum_so_far += count
        buckets.append((bound, sum_so_far))
    return buckets


def _links(links: Sequence[LinkSample]) -> Iterator[Metric]:
    state, envelopes = LINK.gauge(), ENVELOPES.counter()
    waiting, closes = LINK_WAITING.gauge(), LINK_CLOSES.counter()
    congested, resent = LINK_CONGESTED.gauge(), LINK_RESENT.counter()
    for link in links:
        state.add_metric([link.peer], link.open)
        envelopes.add_metric([link.peer, "in"], link.envelopes_in)
        envelopes.add_metric([link.peer, "out"], link.envelopes_out)
        waiting.add_metric([link.peer], link.waiting_bytes)
        congested.add_metric([link.peer], link.congested)
        resent.add_metric([link.peer], link.resent)
        closes.add_metric([link.peer], link.closes)
    yield from (state, envelopes, waiting, congested, resent, closes)


def _nats(connections: Sequence[NatsSample]) -> Iterator[Metric]:
    connected, reconnects = NATS.gauge(), RECONNECTS.counter()
    slow, forbidden = SLOW.counter(), FORBIDDEN.counter()
    for nats in connections:
        connected.add_metric([nats.connection], nats.connected)
        reconnects.add_metric([nats.connection], nats.reconnects)
        slow.add_metric([nats.connection], nats.slow_consumer_drops)
        forbidden.add_metric([nats.connection], nats.permission_errors)
    yield from (connected, reconnects, slow, forbidden)


def _value(family: Family, value: float) -> Metric:
    gauge = family.gauge()
    gauge.add_metric([], value)
    return gauge


def _degraded(entries: Sequence[tuple[str, int, str]]) -> Metric:
    gauge = DEGRADED_ENTRY.gauge()
    for entry, version, reason in entries[:MAX_DEGRADED]:
        gauge.add_metric([entry, f"v{version}", " ".join(reason.split())[:MAX_REASON]], 1)
    return gauge


def _gauges(family: Family, values: Mapping[str, int]) -> Metric:
    gauge = family.gauge()
    for label, value in _bounded(values):
        gauge.add_metric([label], value)
    return gauge


def _counts(family: Family, values: Mapping[str, int]) -> Metric:
    counter = family.counter()
    for label, value in _bounded(values):
        counter.add_metric([label], value)
    return counter


def _bounded(values: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The values by label; those beyond the limit as one, so that labels can't grow without end."""
    items = list(values.items())
    yield from items[:MAX_ENTRIES]
    if len(items) > MAX_ENTRIES:
        yield OTHER, sum(value for _, value in items[MAX_ENTRIES:])
