"""The parts of a node, built and wired; ``node.main`` starts and stops them in order.

Nothing here runs yet: constructors assign. What one part tells another is wired here and
nowhere else, so that this file is the picture of the node.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from cluster.bus import Bus, Subscription
from cluster.claims import Claims
from cluster.door import Door
from cluster.envelope import Kind, Status
from cluster.errors import NotConnected, Unavailable
from cluster.etcd import Etcd, PrefixWatch
from cluster.events import EventBus
from cluster.fencing import LeaseKeeper, Phase
from cluster.keys import Keys
from cluster.link import Limits
from cluster.links import Links
from cluster.members import Member, Members, NodeState, Registration
from cluster.names import Names, Scope
from cluster.pid import VM_SLOTS, base36
from cluster.placement import ranking
from cluster.registry import Collector, Entry, Folding, Registry, RegistryState, read_floor
from cluster.subjects import Subjects
from cluster.tasks import Tasks
from node.admin import Admin
from node.admin import NodeState as Told
from node.convergence import Convergence
from node.deadletters import DeadLetters
from node.env import EnvRegistry
from node.host import VmConfig, Watchdog
from node.hosts import Hosts
from node.kinds import KINDS
from node.kinds.check import Checker
from node.kinds.code import code_package, is_code
from node.logs import Logs
from node.modules import MODULES, Dispatcher, load_halves
from node.modules.env import EnvModule
from node.modules.events import EventsModule
from node.modules.io import IoModule
from node.modules.logger import LoggerModule
from node.modules.names import NamesModule
from node.modules.registry import RegistryModule
from node.modules.store import StoreModule
from node.output import STDOUT, Output
from node.ownership import Ownership
from node.probes import ProbeServer
from node.router import Router
from node.settings import Settings
from node.stores import Stores
from node.supervisor import Supervisor
from node.system_events import member_events, registry_events
from node.version import VERSION
from node.view import NodeView

if TYPE_CHECKING:
    from node.main import NodeOptions

log = structlog.get_logger("wippy.node")

DOOR_DEADLINE = 5.0
FLOOR_PAUSE = 0.5
CAPABILITY = dict.fromkeys(KINDS, 1)
"""The kinds this node knows, with the numbers of their schemas."""


@dataclass
class Parts:
    """Everything a node is made of, and the few deeds that need several parts at once."""

    name: str
    settings: Settings
    etcd: Etcd
    watch: PrefixWatch
    keys: Keys
    subjects: Subjects
    bus: Bus
    members: Members
    names: Names
    claims: Claims
    keeper: LeaseKeeper
    ownership: Ownership
    links: Links
    router: Router
    registry: Registry
    folding: Folding
    collector: Collector
    dispatcher: Dispatcher
    hosts: Hosts
    watchdog: Watchdog
    supervisor: Supervisor
    convergence: Convergence
    events: EventBus
    door: Door
    admin: Admin
    probes: ProbeServer
    io: IoModule
    output: Output
    logs: Logs
    make_registration: Callable[[], Registration]
    registration: Registration | None = None
    state: NodeState = NodeState.JOINING
    failure: str = ""
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    _control: Subscription | None = None

    async def set_state(self, state: NodeState) -> None:
        """Publish what this node offers now."""
        assert self.registration is not None
        await self.registration.set_state(state)
        self.state = state

    async def become_ready(self) -> None:
        """Joining -> ready (R1): only a node that knows every kind in use; one that doesn't waits, saying why."""
        assert self.registration is not None
        said: list[str] = []
        while True:
            floor = await read_floor(self.etcd, self.keys)
            unmet = floor.unmet(CAPABILITY)
            if not unmet and await self.registration.set_state(NodeState.READY, floor.unchanged(self.keys)):
                self.state = NodeState.READY
                return
            if unmet and unmet != said:
                log.error("this node can't become ready; upgrade it", lacks=unmet)
                said = unmet
            await asyncio.sleep(FLOOR_PAUSE)

    async def register(self) -> None:
        """Register under the keeper's lease; the epoch's subjects are subscribed when it returns."""
        self.registration = self.make_registration()
        epoch = await self.registration.register()
        await self.links.open(epoch)
        await self.open_control(epoch)

    async def register_again(self) -> None:
        """A registration under the lease of the keeper, a new one when the former is lost."""
        if self.keeper.phase is Phase.LOST:
            await self.keeper.new_lease()
        await self.register()
        if self.state is NodeState.READY:
            await self.become_ready()
        else:
            await self.set_state(self.state)

    async def open_control(self, epoch: int) -> None:
        """Answer queries under this epoch's subject."""
        former, self._control = self._control, None
        if former is not None:
            await former.close()
        self._control = await self.bus.control.subscribe(self.subjects.control_of(self.name, epoch), self._on_control)

    def _on_control(self, subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
        async def answer(packed: bytes) -> None:
            if not reply:
                return
            try:
                self.bus.control.publish(reply, packed)
            except (NotConnected, Unavailable) as error:
                log.warning("a query gets no answer", subject=subject, error=str(error))

        self.admin.on_query(payload, answer)

    async def drain(self, grace: timedelta) -> None:
        """CANCEL all processes, kill the rest after ``grace``."""
        await self.hosts.drain("node stopping", grace)

    def is_own(self, member: Member) -> bool:
        """Whether this is the registration the node serves under."""
        return self.registration is not None and (member.node, member.epoch) == (self.name, self.registration.epoch)

    def fail(self, what: str, error: BaseException) -> None:
        """A part broke that the node can't do without."""
        log.error("part failed", part=what, exc_info=error)
        self.failure = f"{what}: {error}"
        self.failed.set()

    def hold_logs(self, host: str) -> None:
        """Show no log lines below errors, when the terminal host wants the terminal for its process alone."""
        entry = self.registry.state.get(host)
        self.logs.held = entry is not None and entry.data.get("hide_logs") is True

    def print(self, text: str) -> None:
        """Write a line to standard output."""
        self.output.put(STDOUT, text.encode("utf-8", "surrogateescape") + b"\n")


def build_parts(
    options: NodeOptions,
    embedded: bool,
    etcd: Etcd,
    watch: PrefixWatch,
    keys: Keys,
    subjects: Subjects,
    bus: Bus,
    keeper: LeaseKeeper,
    ownership: Ownership,
    incarnation: int,
    make_registration: Callable[[], Registration],
    output: Output,
    logs: Logs,
    tasks: Tasks,
) -> Parts:
    """Make and wire the parts of one node."""
    settings, name = options.settings, options.node
    members = Members(watch, keys)
    names = Names(etcd, watch, keys, name)
    claims = Claims(etcd, watch, keys, name)
    link_limits = Limits(timeout=settings.cluster.link_timeout.total_seconds())
    links = Links(bus.data, members, subjects, name, limits=link_limits, max_message=settings.limits.max_message)
    router = Router(name, incarnation, links, names, DeadLetters(settings.limits.dead_letters))
    events = EventBus(bus.data, subjects, name, incarnation)
    checker = Checker(MODULES)
    registry = Registry(etcd, watch, keys, name, lambda state: checker.problems(state.entries()), capability=CAPABILITY)
    folding = Folding(etcd, watch, keys, registry, lambda: _registry_rank(members, name))
    env = EnvRegistry(os.environ, options.directory)
    stores = Stores(etcd, keys, env.lookup)
    supervisor = Supervisor(
        name,
        incarnation,
        router.ports,
        claims,
        members,
        keys,
        _Lease(keeper),
        env.lookup,
        lambda kind, service: events.send_local("supervisor", kind, service),
    )
    scope = _default_scope(settings, embedded)
    io = IoModule(output, args=options.args)
    dispatcher = Dispatcher(
        [
            RegistryModule(registry),
            EventsModule(events),
            EnvModule(env),
            StoreModule(stores, supervisor.fence_of),
            io,
            LoggerModule(min_level=settings.logmanager.min_level),
            NamesModule(names, name, lambda: keeper.lease.id, default_scope=scope),
        ]
    )
    hosts = Hosts(
        name,
        incarnation,
        router,
        dispatcher,
        load_halves(),
        VmConfig(
            max_memory=settings.limits.vm_max_memory,
            mailbox_limit=settings.limits.mailbox_limit,
            max_message=settings.limits.max_message,
            default_scope=int(scope),
        ),
        lambda entry: _code(registry.state, entry),
        lambda entry, config: config,
        lambda: {name: (held.pid, held.revision) for name, held in reversed(names.all())},
        keeper,
        lambda what, error: parts.fail(what, error),
        io.terminals,
        supervisor,
    )
    convergence = Convergence([_Env(env), stores, hosts, supervisor])
    doorman = _Doorman(router, name, incarnation)
    door = Door(bus.data, subjects, name, incarnation, doorman.accept, max_message=settings.limits.max_message)
    view = NodeView(
        node=name,
        version=VERSION,
        incarnation=incarnation,
        bus=bus,
        links=links,
        members=members,
        registry=registry,
        convergence=convergence,
        hosts=hosts,
        router=router,
        supervisor=supervisor,
        events=events,
        door=door,
        keeper=keeper,
        logs=logs,
        state=lambda: parts.state,
        metrics_address=lambda: parts.probes.address,
    )
    told = Told(
        node=name,
        health=view.health,
        processes=hosts.processes,
        inspect=view.inspect,
        stats=view.figures,
        services=supervisor.stats,
        dead_letters=view.dead_letters,
    )
    parts = Parts(
        name=name,
        settings=settings,
        etcd=etcd,
        watch=watch,
        keys=keys,
        subjects=subjects,
        bus=bus,
        members=members,
        names=names,
        claims=claims,
        keeper=keeper,
        ownership=ownership,
        links=links,
        router=router,
        registry=registry,
        folding=folding,
        collector=Collector(etcd, keys, lambda: _registry_rank(members, name)),
        dispatcher=dispatcher,
        hosts=hosts,
        watchdog=Watchdog(hosts.vms),
        supervisor=supervisor,
        convergence=convergence,
        events=events,
        door=door,
        admin=Admin(told, router.ports, names, tasks),
        probes=_probes(settings, view),
        io=io,
        output=output,
        logs=logs,
        make_registration=make_registration,
    )
    _wire(parts, tasks)
    return parts


def _wire(parts: Parts, tasks: Tasks) -> None:
    """What one part tells another."""
    router, hosts, names = parts.router, parts.hosts, parts.names
    parts.links.on_envelopes(router.from_link)
    parts.links.on_down(router.node_down)
    names.on_change(router.name_changed)
    names.on_revoked(lambda name, pid: _revoke(parts, name, pid))
    router.by_name_allowed = lambda lease: lease == parts.keeper.lease.id and parts.keeper.remaining() > 0
    router.applied = lambda: parts.members.applied
    hosts.on_ended(lambda pid, error: _release_names(parts, tasks, pid))

    def registry_changed(before: RegistryState, after: RegistryState, changed: frozenset[str]) -> None:
        hosts.code_changed({one for one in changed if _is_code(before, one) or _is_code(after, one)})
        parts.convergence.aim(after)
        for event in registry_events(before, after, changed):
            parts.events.send_local(event.system, event.kind, event.path, event.data)

    def member_changed(before: Member | None, after: Member | None) -> None:
        for event in member_events(before, after):
            parts.events.send_local(event.system, event.kind, event.path, event.data)
        if before is not None and after is None and parts.is_own(before):
            parts.ownership.on_unregistered()

    parts.registry.on_change(registry_changed)
    parts.members.on_change(member_changed)
    parts.ownership.bind(parts.supervisor, parts.links, parts.register_again, names.lease_lost)


class _Lease:
    """The lease as the supervisor asks for it."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self.may_start_owned = keeper.may_start_owned
        self.may_run_owned = keeper.may_run_owned
        self._keeper = keeper

    def current(self) -> int:
        return self._keeper.lease.id


def _revoke(parts: Parts, name: str, pid: str) -> None:
    """A process of this node lost a cluster name: it is told, and lives."""
    to = pid.encode("utf-8", "surrogateescape")
    parts.supervisor.name_revoked(to, name)
    reason = f"name revoked: {name}".encode("utf-8", "surrogateescape")
    parts.router.route([int(Kind.CANCEL), to, b"", 0, reason])


def _release_names(parts: Parts, tasks: Tasks, pid: bytes) -> None:
    # also when it has no name yet: a registration may be under way
    tasks.start(parts.names.release(pid.decode("utf-8", "surrogateescape")), "release names")


def _is_code(state: RegistryState, id: str) -> bool:
    entry = state.get(id)
    return entry is not None and is_code(entry.kind)


def _code(state: RegistryState, id: str) -> dict[bytes, Any]:
    entry = state.get(id)
    if entry is None:
        raise LookupError(f"no entry {id!r} in the registry at v{state.version}")
    if not is_code(entry.kind):
        raise ValueError(f"entry {id!r} is a {entry.kind}, which is no code")
    return code_package(entry, state.version)


def _registry_rank(members: Members, node: str) -> int:
    ranked = ranking("config", 0, [member.node for member in members.ready()])
    return ranked.index(node) if node in ranked else len(ranked)


def _default_scope(settings: Settings, embedded: bool) -> Scope:
    """What a registration without a scope means: LOCAL on a stand-alone node, CONSISTENT in a cluster."""
    if settings.names.default_scope is not None:
        return Scope[settings.names.default_scope]
    return Scope.LOCAL if embedded else Scope.CONSISTENT


def _probes(settings: Settings, view: NodeView) -> ProbeServer:
    metrics, prometheus = settings.metrics, settings.prometheus
    if not (prometheus.enabled and prometheus.address):
        return ProbeServer(view, host=metrics.host, first=metrics.port, advertise=metrics.advertise)
    host, _, port = prometheus.address.rpartition(":")
    return ProbeServer(view, host=host or metrics.host, port=int(port), advertise=metrics.advertise)


class _Env:
    """Environment variables and their storages as a handler."""

    name = "env"

    def __init__(self, env: EnvRegistry) -> None:
        self._env = env

    async def converge(self, state: RegistryState) -> dict[str, str]:
        entries: list[Entry] = [entry for entry in state.entries() if entry.kind.startswith("env.")]
        return self._env.converge(entries)


class _Doorman:
    """Brings what comes through the side door to its process, and back what became of it."""

    def __init__(self, router: Router, node: str, incarnation: int) -> None:
        self._router = router
        self._node = node
        self._incarnation = base36(incarnation)
        self._waiting: dict[int, tuple[asyncio.TimerHandle, Callable[[Status], None]]] = {}
        router.on_client_reply = self._replied

    def accept(
        self, counter: int, sender: bytes, topic: bytes, payloads: list[Any], answer: Callable[[Status], None]
    ) -> None:
        host = self._router.host_in(counter % VM_SLOTS)
        to = f"{{{self._node}@{host}|{self._incarnation}-{base36(counter)}}}".encode()
        ref = self._router.ports.next_ref()
        timer = asyncio.get_running_loop().call_later(DOOR_DEADLINE, self._settle, ref, Status.NOCONNECTION)
        self._waiting[ref] = (timer, answer)
        self._router.deliver([int(Kind.MESSAGE), to, sender, ref, topic, payloads, b"", 0])

    def _replied(self, envelope: list[Any]) -> None:
        self._settle(envelope[3], Status(envelope[4]))

    def _settle(self, ref: int, status: Status) -> None:
        waiting = self._waiting.pop(ref, None)
        if waiting is not None:
            waiting[0].cancel()
            waiting[1](status)
