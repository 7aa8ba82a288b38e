"""The parts of a node, built and wired; ``node.main`` starts and stops them in order.

Nothing here runs yet: constructors assign. What one part tells another is wired here and
nowhere else, so that this file is the picture of the node.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from cluster.asking import Asking
from cluster.avoids import Avoids
from cluster.bus import Bus
from cluster.claims import Claims
from cluster.door import Door
from cluster.envelope import Kind, to_raw
from cluster.errors import ClusterError
from cluster.etcd import Etcd, PrefixWatch, Room
from cluster.events import EventBus
from cluster.everywhere import Everywhere
from cluster.fencing import LeaseKeeper
from cluster.heirs import Heirs
from cluster.keys import Keys
from cluster.link import Limits
from cluster.links import Links
from cluster.loads import Loads
from cluster.locks import Locks
from cluster.members import Member, Members, Registration
from cluster.members import NodeState as Offers
from cluster.names import Names, Scope
from cluster.placement import ranking
from cluster.quarantine import Loss, Quarantine
from cluster.registry import Collector, Folding, Keep, Registry, RegistryState
from cluster.subjects import Subjects
from cluster.tasks import Tasks
from node.admin import Admin
from node.admin import NodeState as Told
from node.console import (
    HOST_ENTRY,
    PROMPT,
    ConsoleModule,
    Consoles,
    Surroundings,
    console_halves,
    prompt_package,
)
from node.convergence import Convergence
from node.deadletters import DeadLetters
from node.doorman import Doorman
from node.draining import Draining
from node.draining import Surroundings as Drained
from node.env import EnvRegistry
from node.groups import Groups
from node.host import VmConfig, Watchdog
from node.hosts import Hosts
from node.inhabitants import Inhabitants
from node.kinds import CAPABILITY
from node.kinds.check import Checker
from node.kinds.code import code_package, is_code, made_of
from node.limits import sizing
from node.lockholders import LockHolders
from node.logs import Logs
from node.modules import MODULES, Dispatcher, load_halves
from node.modules.env import EnvModule
from node.modules.events import EventsModule
from node.modules.io import IoModule
from node.modules.locks import LocksModule
from node.modules.logger import LoggerModule, lowest_shown
from node.modules.names import NamesModule
from node.modules.permits import EVERY_NAMESPACE, MOVE, Permits
from node.modules.pg import PgModule
from node.modules.process import ProcessModule
from node.modules.registry import RegistryModule
from node.modules.store import StoreModule
from node.modules.supervisor import SupervisorModule
from node.modules.system import Facts, SystemModule
from node.modules.time import TimeModule
from node.moving import Around, Moving, Taking
from node.nodelocal import NodeLocal
from node.operating import Operated, Operating
from node.output import Output
from node.owners import Owners
from node.ownership import Ownership
from node.parts import Parts
from node.probes import ProbeServer
from node.rebalancing import Rebalancer
from node.relocation import Relocation
from node.returns import Returns
from node.router import Router
from node.settings import Settings
from node.stores import Namespaces, Stores
from node.stragglers import Stragglers
from node.supervisor import Supervisor
from node.system_events import member_events, registry_events
from node.trees import HOST as TREES_HOST
from node.trees import Definitions, Guard, Trees
from node.trees.definition import SUPERVISOR
from node.variables import Variables
from node.version import VERSION
from node.view import NodeView

if TYPE_CHECKING:
    from node.main import NodeOptions

log = structlog.get_logger("wippy.node")


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
    everywhere, ask = Everywhere(bus, subjects, members, name), Asking(bus, subjects, members, name)
    names = Names(etcd, watch, keys, tasks, lambda: keeper.lease.id, everywhere)
    claims = Claims(etcd, watch, keys, name)
    avoids, quarantine = Avoids(etcd, watch, keys, name), Quarantine(etcd, watch, keys)
    locks = Locks(etcd, watch, keys, tasks)
    link_limits = Limits(timeout=settings.cluster.link_timeout.total_seconds())
    links = Links(bus.data, members, subjects, name, limits=link_limits, max_message=settings.limits.max_message)
    router = Router(name, incarnation, links, names, DeadLetters(settings.limits.dead_letters))
    events = EventBus(bus.data, subjects, name, incarnation)
    checker = Checker(MODULES)
    registry = Registry(etcd, watch, keys, name, lambda state: checker.problems(state.entries()), capability=CAPABILITY)
    folding = Folding(etcd, watch, keys, registry, lambda: _registry_rank(members, name))
    env = EnvRegistry(os.environ, options.directory)
    stores = Stores(etcd, keys, env.lookup, Namespaces(bus.data, subjects, name, incarnation))
    lease = _Lease(keeper)
    supervisor = Supervisor(
        name,
        incarnation,
        router.ports,
        claims,
        avoids,
        quarantine,
        members,
        keys,
        lease,
        env.lookup,
        lambda kind, service: events.send_local("supervisor", kind, service),
        Heirs(etcd, watch, keys, name),
        names,
        Stragglers(everywhere, lambda: hosts.barrier(), lambda within: moving.flushed(within)).arrived,
        settings.cluster.expected_nodes,
    )
    holders = LockHolders(locks, keys, lease, router.route)
    guard = Guard(supervisor)
    owners = Owners(guard, holders, names_in_doubt=router.names_in_doubt)
    trees = Trees(
        name,
        router.ports,
        members,
        Definitions(lambda id: registry.state.get(id), env.lookup),
        guard,
        applied=watch.reached,
        barrier=lambda: hosts.barrier(),
        in_doubt=lambda: not lease.may_run_owned(lease.current()),
        refuse=router.refuse,
    )
    router.hosts[trees.host_id] = trees
    halves = load_halves()
    consoles = Consoles(
        Surroundings(
            node=name,
            enabled=lambda: _console(settings, embedded),
            reachable=lambda: _answers(bus),
            start_host=lambda: hosts.put(HOST_ENTRY),
            stop_host=lambda: hosts.remove(HOST_ENTRY.id),
            entries=lambda: [(entry.id, entry.kind) for entry in registry.state.entries()],
            names=lambda: [name for name, _ in names.all()],
            trace=lambda pid: hosts.trace(pid, moving.slot(pid.encode())),
        ),
        router.ports,
        tasks,
    )
    groups = Groups(
        name, incarnation, router.route, members.all, env.lookup, tasks, max_message=settings.limits.max_message
    )
    router.ports.serve(groups.address, groups.accept)
    scope = _default_scope(settings, embedded)
    io = IoModule(output, args=options.args)
    dispatcher = Dispatcher(
        [
            RegistryModule(
                registry,
                Permits(lambda id: registry.state.get(id), env.lookup, _allowed(settings.registry.write, embedded)),
            ),
            EventsModule(events),
            EnvModule(env),
            TimeModule(),
            StoreModule(stores, lambda pid: _fences(supervisor, guard, holders, owners.line(pid))),
            ProcessModule(
                lambda pid: _token(supervisor, guard, owners.line(pid)),
                lambda name: _pid_of(names, name),
                lambda pid, to, within: relocation(pid, to, within),
                Permits(
                    lambda id: registry.state.get(id), env.lookup, _allowed(settings.processes.move, embedded), MOVE
                ),
            ),
            io,
            LoggerModule(min_level=settings.logmanager.min_level),
            NamesModule(
                names,
                name,
                lambda: keeper.lease.id,
                default_scope=scope,
                where=lambda pid: moving.where(pid),
                inherit=supervisor.inheriting.inherit,
            ),
            LocksModule(locks, lease),
            PgModule(groups, router.is_congested),
            SupervisorModule(router.ports, lambda target: _supervisor_pid(names, claims, target)),
            ConsoleModule(consoles),
            SystemModule(
                Facts(
                    node=name,
                    members=members.all,
                    hosts=lambda: hosts.stats(),
                    processes=lambda: hosts.processes(),
                    services=supervisor.stats,
                    wanted=supervisor.wants,
                    exit=lambda code: parts.exit(code),
                    halves=halves,
                )
            ),
        ]
    )
    hosts = Hosts(
        name,
        incarnation,
        router,
        dispatcher,
        {**halves, **console_halves()},
        VmConfig(
            max_memory=settings.limits.vm_max_memory,
            mailbox_limit=settings.limits.mailbox_limit,
            mailbox_policy=settings.limits.mailbox_policy,
            max_message=settings.limits.max_message,
            log_level=lowest_shown(settings.logmanager.min_level),
            default_scope=int(scope),
        ),
        lambda entry: _code(registry.state, entry),
        lambda entry, config: sizing(entry, config, env.lookup),
        lambda: {name: (held.pid, held.revision) for name, held in reversed(names.all())},
        keeper,
        lambda what, error: parts.fail(what, error),
        io.terminals,
        owners,
    )
    moving = Moving(
        name,
        incarnation,
        etcd,
        watch,
        keys,
        links,
        router,
        hosts,
        [supervisor.handing, names, locks],
        groups,
        Taking(
            name,
            lambda: parts.state is Offers.READY,
            hosts.has,
            hosts.has_room,
            lambda id: registry.state.get(id),
            registry.reached,
        ),
        Around(
            members=members.all,
            version=lambda: registry.state.version,
            keeper_of=supervisor.handing.keeper_of,
            everywhere=everywhere,
        ),
    )
    owners.add(moving.guests)
    loads = Loads(ask)
    inhabitants = Inhabitants(name, hosts.processes, trees.overseen, supervisor.services_here)
    draining = Draining(
        name,
        Drained(
            inhabitants=inhabitants,
            moves=moving,
            hand_over=supervisor.hand_over,
            ready=lambda: [member.node for member in members.ready() if member.node != name],
            loads=loads,
            cancel=lambda pid, reason, at: router.route([int(Kind.CANCEL), to_raw(pid), b"", 0, to_raw(reason), at]),
            terminate=lambda pid: router.route([int(Kind.TERMINATE), to_raw(pid), b"", 0]),
        ),
        lambda: parts.say_draining(),
        tasks,
    )
    convergence = Convergence([Variables(env), stores, groups, hosts, supervisor])
    doorman = Doorman(router, name, incarnation)
    door = Door(bus.data, subjects, name, incarnation, doorman.accept, max_message=settings.limits.max_message)
    room = Room(etcd)
    view = NodeView(
        node=name,
        version=VERSION,
        incarnation=incarnation,
        bus=bus,
        links=links,
        members=members,
        registry=registry,
        convergence=convergence,
        room=room,
        hosts=hosts,
        trees=trees,
        moving=moving,
        router=router,
        supervisor=supervisor,
        quarantine=quarantine,
        events=events,
        door=door,
        keeper=keeper,
        logs=logs,
        state=lambda: parts.state,
        metrics_address=lambda: parts.probes.address,
        expected_nodes=settings.cluster.expected_nodes,
    )
    operated = Operated(
        state=lambda: parts.state,
        cordon=lambda: parts.cordon(),
        uncordon=lambda: parts.uncordon(),
        label=lambda changes: parts.label(changes),
        knows=supervisor.knows,
        release=supervisor.release,
        is_stopping=lambda: parts.is_stopping,
        drain=draining.begin,
        drained=draining.progress,
        move=moving.move,
        where=lambda pid: _where(moving, members, pid),
        named=lambda name: _pid_of(names, name),
        member=members.get,
    )
    relocation = Relocation(Operating(name, operated).move, ask)
    told = Told(
        node=name,
        members=members.all,
        health=view.health,
        converged=view.converged,
        applied=watch.reached,
        barrier=hosts.barrier,
        processes=hosts.processes,
        inspect=view.inspect,
        stats=view.figures,
        services=supervisor.stats,
        trees=trees.shown,
        dead_letters=view.dead_letters,
        locks=locks.all,
        operated=operated,
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
        locks=locks,
        groups=groups,
        stores=stores,
        keeper=keeper,
        ownership=ownership,
        links=links,
        router=router,
        registry=registry,
        folding=folding,
        collector=Collector(
            etcd,
            keys,
            lambda: _registry_rank(members, name),
            keep=Keep(settings.registry.history_versions, settings.registry.history_size),
        ),
        room=room,
        dispatcher=dispatcher,
        hosts=hosts,
        watchdog=Watchdog(hosts.vms),
        supervisor=supervisor,
        moving=moving,
        draining=draining,
        rebalancer=Rebalancer(
            name,
            settings.cluster.rebalance.total_seconds(),
            members,
            inhabitants,
            moving,
            loads,
            lambda: sum(host.processes for host in hosts.stats()),
        ),
        trees=trees,
        convergence=convergence,
        events=events,
        door=door,
        admin=Admin(told, router.ports, names, tasks, consoles.ops),
        probes=_probes(settings, view),
        io=io,
        output=output,
        logs=logs,
        make_registration=make_registration,
        labels=_labels(settings),
    )
    _wire(parts, owners, holders, quarantine, tasks)
    return parts


def _wire(parts: Parts, owners: Owners, holders: LockHolders, quarantine: Quarantine, tasks: Tasks) -> None:
    """What one part tells another."""
    router, hosts, names = parts.router, parts.hosts, parts.names
    parts.links.on_envelopes(router.from_link)
    parts.links.on_lull(hosts.step_waiting)
    parts.links.on_down(router.node_down)
    parts.links.on_down(parts.moving.link_closed)
    hosts.on_moving, hosts.on_new, hosts.on_gone = parts.moving.from_vm, parts.moving.greet, parts.moving.vm_gone
    parts.links.on_down(parts.groups.link_closed)
    parts.links.on_congestion(router.congestion)
    names.on_change(router.name_changed)
    names.on_revoked(lambda name, pid: _revoke(parts, name, pid))
    router.by_name_allowed = lambda lease: lease in (0, parts.keeper.lease.id) and parts.keeper.remaining() > 0
    router.applied = lambda: parts.members.applied
    router.on_return = Returns(parts.watch, tasks, router.give_back, router.dead_letters).take
    hosts.on_ended(lambda pid, error: _release_names(parts, tasks, pid))
    router.is_handed_on = parts.supervisor.is_handed_on
    router.on_nameless = lambda pid: _release_names(parts, tasks, pid)
    hosts.on_ended(lambda pid, error: holders.process_ended(pid))
    hosts.on_ended(lambda pid, error: owners.process_ended(pid))
    hosts.on_ended(lambda pid, error: parts.groups.process_ended(pid))
    hosts.on_ended(lambda pid, error: parts.moving.process_ended(pid))

    node_local = NodeLocal(parts.name, parts.members.all, lambda: parts.registry.state)

    def registry_changed(before: RegistryState, after: RegistryState, changed: frozenset[str]) -> None:
        code = {one for one in changed if _is_code(before, one) or _is_code(after, one)}
        if code:
            hosts.code_changed(code)
            parts.supervisor.code_changed(lambda process: not code.isdisjoint(made_of(process, after.get)))
        parts.convergence.aim(after, changed)
        parts.trees.entries_changed(changed)
        node_local.entries_changed(changed)
        if parts.events.has_subscribers:
            for event in registry_events(before, after, changed):
                parts.events.send_local(event.system, event.kind, event.path, event.data)

    def quarantined(service: str, losses: list[Loss]) -> None:
        nodes = [loss.node for loss in losses]
        log.error("service quarantined: nodes hung in it; it is started nowhere", service=service, nodes=nodes)
        parts.events.send_local("supervisor", "service.quarantine", service, to_raw({"nodes": nodes}))

    def member_changed(before: Member | None, after: Member | None) -> None:
        for event in member_events(before, after):
            parts.events.send_local(event.system, event.kind, event.path, event.data)
        parts.groups.member_changed(before, after)
        # the links hear of it after this
        asyncio.get_running_loop().call_soon(parts.moving.member_changed, before, after)
        router.nodes_changed(frozenset(member.node for member in parts.members.all()))
        node_local.members_changed()
        if before is not None and after is None and parts.is_own(before):
            parts.ownership.on_unregistered(before.epoch)

    quarantine.on_begun(quarantined)
    parts.registry.on_change(registry_changed)
    parts.members.on_change(member_changed)
    parts.moving.guests.allowed = lambda: parts.keeper.may_run_owned(parts.keeper.lease.id)

    def lease_lost(lease: int) -> None:
        names.lease_lost(lease)
        parts.locks.lease_lost(lease)
        parts.moving.lease_lost()

    parts.bus.on_reconnect(parts.ownership.server_back)
    parts.watch.on_return(parts.ownership.server_back)
    parts.ownership.bind(owners, parts.links, parts.register_again, lease_lost)


class _Lease:
    """The lease as the supervisor asks for it."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self.may_start_owned = keeper.may_start_owned
        self.may_run_owned = keeper.may_run_owned
        self._keeper = keeper

    def current(self) -> int:
        return self._keeper.lease.id


def _fences(supervisor: Supervisor, guard: Guard, holders: LockHolders, line: Iterable[bytes]) -> list[tuple[str, int]]:
    """What a process and those it runs for own, compared in each of its writes: claims of services, and locks."""
    claims: list[tuple[str, int]] = []
    locks: list[tuple[str, int]] = []
    for pid in line:
        claim = supervisor.fence_of(guard.top_of(pid))
        claims += [claim] if claim is not None else []
        locks += holders.fences_of(pid)
    return [*claims, *locks]


def _token(supervisor: Supervisor, guard: Guard, line: Iterable[bytes]) -> int | None:
    """Of the claim a process runs under, or the nearest of those it runs for."""
    claims = (supervisor.fence_of(guard.top_of(pid)) for pid in line)
    return next((claim[1] for claim in claims if claim is not None), None)


def _where(moving: Moving, members: Members, pid: str) -> str:
    """The node of a process; empty when that node is gone, and the process with it."""
    node = moving.where(pid)
    return node if members.get(node) is not None else ""


def _pid_of(names: Names, name: str) -> str | None:
    held = names.lookup(name)
    return None if held is None else held.pid


def _supervisor_pid(names: Names, claims: Claims, target: str) -> str | None:
    """The process behind a name, or behind an entry that runs once in the cluster."""
    held = names.lookup(target)
    if held is not None:
        return held.pid
    claim = claims.get(target, 0)
    return claim.state.pid if claim is not None and claim.state is not None else None


def _revoke(parts: Parts, name: str, pid: str) -> None:
    """A process of this node lost a cluster name: it is told, and lives."""
    to = pid.encode("utf-8", "surrogateescape")
    if parts.supervisor.yields(to):
        return  # to the process that is to run in its place, and it is told to end
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
    if id == PROMPT:
        return prompt_package(state.version)
    entry = state.get(id)
    if entry is None:
        raise LookupError(f"no entry {id!r} in the registry at v{state.version}")
    if not is_code(entry.kind):
        hint = f"; spawn it on {TREES_HOST}, which needs no other host" if entry.kind == SUPERVISOR else ""
        raise ValueError(f"entry {id!r} is a {entry.kind}, which is no code{hint}")
    return code_package(entry, state.version)


def _registry_rank(members: Members, node: str) -> int:
    ranked = ranking("config", 0, [member.node for member in members.ready()])
    return ranked.index(node) if node in ranked else len(ranked)


def _labels(settings: Settings) -> dict[str, str]:
    labels = dict(settings.cluster.labels)
    if settings.cluster.failure_domain:
        labels.setdefault("failure_domain", settings.cluster.failure_domain)
    return labels


def _default_scope(settings: Settings, embedded: bool) -> Scope:
    """What a registration without a scope means: LOCAL on a stand-alone node, CONSISTENT in a cluster."""
    if settings.names.default_scope is not None:
        return Scope[settings.names.default_scope]
    return Scope.LOCAL if embedded else Scope.CONSISTENT


async def _answers(bus: Bus) -> bool:
    """Whether NATS answers now."""
    try:
        await bus.control.flush(1)
    except ClusterError:
        return False
    return True


def _console(settings: Settings, embedded: bool) -> bool:
    """Whether ``wippy console`` may open a prompt here."""
    return embedded if settings.console.enabled is None else settings.console.enabled


def _allowed(said: Sequence[str] | None, embedded: bool) -> Sequence[str]:
    """The namespaces a rule of programs allows whose host's entry says nothing."""
    if said is not None:
        return said
    return EVERY_NAMESPACE if embedded else ()


def _probes(settings: Settings, view: NodeView) -> ProbeServer:
    metrics, prometheus = settings.metrics, settings.prometheus
    if not (prometheus.enabled and prometheus.address):
        return ProbeServer(view, host=metrics.host, first=metrics.port, advertise=metrics.advertise)
    host, _, port = prometheus.address.rpartition(":")
    return ProbeServer(view, host=host or metrics.host, port=int(port), advertise=metrics.advertise)
