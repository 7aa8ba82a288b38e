"""A node, from start to stop. ``run_node`` reads as the boot order.

    settings, project -> servers -> etcd -> lease -> nodes/<node> joining -> bus, links and doors
    behind the barrier -> watch -> registry at head -> hosts -> ready -> services

Stopping goes the other way round: what other nodes can take goes there (``node.draining``), then services, processes,
doors and links end; the lease is revoked last, when nothing owned runs any more. A second signal ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from cluster.bus import Bus
from cluster.embedded import EmbeddedServers
from cluster.errors import ClusterError
from cluster.etcd import Etcd, PrefixWatch
from cluster.fencing import LeaseKeeper
from cluster.keys import Keys
from cluster.members import Description, Registration, draw_incarnation
from cluster.registry import Entry
from cluster.registry.publish import Take
from cluster.subjects import Subjects
from cluster.tasks import Tasks
from node.assembly import build_parts
from node.convergence import HANDLER_DEADLINE
from node.execution import CannotRun, Execution
from node.kinds import CAPABILITY
from node.logins import etcd_tls, nats_credentials, nats_tls
from node.logs import Logs
from node.output import Output
from node.ownership import Ownership
from node.parts import Parts
from node.settings import Settings
from node.settings.schema import Etcd as EtcdSettings
from node.settings.schema import Nats as NatsSettings
from node.version import VERSION

log = structlog.get_logger("wippy.node")

INTERRUPTED = 130
SETTLE = 10.0
"""Seconds `run -x` waits for the services of the application before it starts its entry."""
FIRST_CONVERGENCE = 3 * HANDLER_DEADLINE
"""Seconds until every entry of the registry was tried when a node starts."""
SAME_SIGNAL = 0.02
"""Seconds within which a second signal is the first one told twice, as ``timeout`` does: to its child and its group."""


@dataclass(frozen=True)
class NodeOptions:
    """What a node is started with. ``execute`` is an entry id for ``run -x``."""

    settings: Settings
    node: str
    entries: Sequence[Entry]
    directory: Path
    publish: str
    execute: str | None = None
    args: Sequence[str] = ()
    terminal_host: str | None = None
    keep: Path | None = None
    """Where embedded servers keep their stores; None throws them away."""
    parent_fd: int | None = None
    """A descriptor whose end of file means that the parent is gone: the node stops."""
    on_ready: ReadyHook | None = None


class ReadyHook:
    """Told where the cluster is once the node serves, and when it stops serving."""

    def started(self, place: Place) -> None:
        """The node is ready."""

    def stopped(self) -> None:
        """The node is about to end."""


@dataclass(frozen=True)
class Place:
    """The servers and the cluster a node belongs to."""

    cluster: str
    nats: tuple[str, ...]
    etcd: tuple[str, ...]
    embedded: bool
    metrics: str = ""


async def run_node(options: NodeOptions, output: Output, logs: Logs) -> int:
    """Run a node until it is told to stop, or until its ``execute`` entry ended. Returns the exit code.

    Raises ClusterError with a message for people when it can't start.
    """
    stop, booted = asyncio.Event(), asyncio.Event()
    logs.node = options.node
    _catch_signals(stop)
    if options.parent_fd is not None:
        _watch_parent(options.parent_fd, stop)
    async with Tasks("node", _told_by_await) as tasks:
        run = tasks.start(_run(options, stop, booted, output, logs), "run")
        stopped = tasks.start(stop.wait(), "stop")
        await asyncio.wait({run, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not run.done() and not booted.is_set():
            log.info("stopping before the node is ready; a second signal ends it at once")
            run.cancel()
        try:
            return await run
        except asyncio.CancelledError:
            if not run.cancelled():
                raise  # it is this task that was cancelled
            return 0 if options.execute is None else INTERRUPTED


async def _run(options: NodeOptions, stop: asyncio.Event, booted: asyncio.Event, output: Output, logs: Logs) -> int:
    async with Tasks("node") as tasks, _servers(options) as place:
        async with _node(options, place, tasks, output, logs) as parts:
            booted.set()
            return await _serve(options, parts, stop)


def _told_by_await(task: str, error: BaseException) -> None:
    """Of a task that is awaited: whoever awaits it says what it failed with."""


@contextlib.asynccontextmanager
async def _servers(options: NodeOptions) -> AsyncIterator[Place]:
    """The NATS and etcd servers: those of the settings, or embedded ones that end with this process."""
    cluster = options.settings.cluster
    if cluster.nats.urls:
        yield Place(cluster.name, tuple(cluster.nats.urls), tuple(cluster.etcd.urls), False)
        return
    async with EmbeddedServers(options.keep) as servers:
        yield Place(cluster.name, (servers.nats_url,), (servers.etcd_url,), True)


@contextlib.asynccontextmanager
async def _node(options: NodeOptions, place: Place, tasks: Tasks, output: Output, logs: Logs) -> AsyncIterator[Parts]:
    """The node, ready; stopped in reverse order when this is left."""
    settings, name = options.settings, options.node
    keys, subjects = Keys(place.cluster), Subjects(place.cluster)
    # what the node can't do without: one of these that breaks ends the node
    vital = Tasks("node", lambda task, error: parts.fail(task, error))
    ownership = Ownership(vital, logs.end_process)
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(_etcd(settings.cluster.etcd, place))
        incarnation = await draw_incarnation(etcd, keys)

        async def last_words(etcd: Etcd, slot: int, reason: str) -> None:
            await parts.accuse(etcd, slot, reason)

        keeper = await stack.enter_async_context(_keeper(settings, place, ownership, last_words, logs))
        stack.push_async_callback(_give_back_lease, keeper, ownership)
        bus = await stack.enter_async_context(_bus(settings.cluster.nats, place, subjects, name))
        watch = PrefixWatch(etcd, keys.prefix, unloaded=[keys.blobs, f"{keys.prefix}kv/"])

        def registration() -> Registration:
            return Registration(etcd, keys, name, keeper.lease, _description(options, incarnation, parts))

        parts = build_parts(
            options,
            place.embedded,
            etcd,
            watch,
            keys,
            subjects,
            bus,
            keeper,
            ownership,
            incarnation,
            registration,
            output,
            logs,
            tasks,
        )
        await stack.enter_async_context(parts.probes)
        await stack.enter_async_context(parts.links)
        await stack.enter_async_context(parts.door)
        await parts.open_announcements()
        await parts.register()
        await stack.enter_async_context(watch)

        await stack.enter_async_context(parts.registry)
        # files that are the truth at every start win over what was changed at run time
        published = await parts.registry.publish(options.entries, options.publish, author=name, take=Take.FILES)
        await parts.registry.reached(published.version)
        await stack.enter_async_context(parts.dispatcher)
        await stack.enter_async_context(parts.io)
        await stack.enter_async_context(parts.hosts)
        await stack.enter_async_context(parts.watchdog)
        await stack.enter_async_context(parts.moving)
        await stack.enter_async_context(parts.stores)
        await stack.enter_async_context(vital)
        parts.convergence.aim(parts.registry.state)
        vital.start(parts.convergence.run(), "convergence")
        await _converged(parts)
        stack.push_async_callback(parts.drain)

        await parts.become_ready()
        await stack.enter_async_context(parts.rebalancer)
        ownership.begin()
        await stack.enter_async_context(parts.folding)
        await stack.enter_async_context(parts.collector)
        await stack.enter_async_context(parts.room)
        vital.start(parts.supervisor.run(), "supervisor")
        stack.push_async_callback(parts.trees.close)
        stack.push_async_callback(parts.trees.stop, "node stopping", settings.shutdown.timeout.total_seconds())
        parts.supervisor.open()
        stack.push_async_callback(parts.supervisor.stop, "service stopping")
        stack.callback(ownership.end)
        log.info(
            "node ready",
            incarnation=incarnation,
            version=f"v{parts.registry.state.version}",
            metrics=f"http://{parts.probes.address}/metrics",
        )
        if options.on_ready is not None:
            options.on_ready.started(Place(place.cluster, place.nats, place.etcd, place.embedded, parts.probes.address))
            stack.callback(options.on_ready.stopped)
        stack.push_async_callback(_leave, parts)
        yield parts


async def _converged(parts: Parts) -> None:
    """Wait until every entry was tried; what hangs for that long must not keep the node from serving the rest."""
    try:
        await parts.convergence.reached(parts.registry.state.version, FIRST_CONVERGENCE)
    except TimeoutError:
        log.error("not every entry could be tried; the node starts without", after=FIRST_CONVERGENCE)


def _description(options: NodeOptions, incarnation: int, parts: Parts) -> Description:
    return Description(
        incarnation=incarnation,
        labels=parts.labels,
        version=VERSION,
        capability=CAPABILITY,
        http=parts.probes.address,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


async def _serve(options: NodeOptions, parts: Parts, stop: asyncio.Event) -> int:
    """Run the entry of ``run -x`` to its end, or serve until told to stop."""
    if options.execute is None:
        await _either(stop, parts.failed, parts.ended)
        return _code(parts, 0)
    async with Tasks("run", _told_by_await) as tasks:
        running = tasks.start(_execute(options, options.execute, parts), "execute")
        stopped = tasks.start(_either(stop, parts.failed, parts.ended), "stop")
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if running.done() and not parts.ended.is_set():
            return await running
    return _code(parts, INTERRUPTED)


def _code(parts: Parts, stopped: int) -> int:
    """The exit code of a node that ends: it failed, a program asked for it, or it was stopped from outside."""
    if parts.failed.is_set():
        log.error("node fails", reason=parts.failure)
        return 1
    return parts.exit_code if parts.ended.is_set() else stopped


async def _execute(options: NodeOptions, entry: str, parts: Parts) -> int:
    """Run ``entry`` in the terminal. Returns its exit code; raises CannotRun."""
    try:
        host = options.terminal_host or parts.hosts.terminal()
    except ValueError as error:
        raise CannotRun(str(error)) from None
    if host is None:
        remedy = "`wippy add wippy/terminal` brings one, or add an entry of that kind, or name a host with --host"
        raise CannotRun(f"the application has no terminal.host; {remedy}")
    await parts.supervisor.settled(SETTLE)
    parts.hold_logs(host)
    execution = Execution(parts.router.ports, options.node)
    code, text = await execution.run(entry, host, list(options.args))
    if text:
        parts.print(text)
    return code


async def _either(*events: asyncio.Event) -> None:
    async with Tasks("either") as tasks:
        waits = [tasks.start(event.wait(), "event") for event in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)


async def _leave(parts: Parts) -> None:
    """Tell the cluster that this node takes nothing new, and give the others what they can take."""
    log.info("node stopping; a second signal ends it at once")
    await parts.leave()


async def _give_back_lease(keeper: LeaseKeeper, ownership: Ownership) -> None:
    """All owned work has ended: end the lease, so that others need not wait for it to expire."""
    if not ownership.may_give_back():
        log.error("something this node owned did not end; its lease is left to end by itself")
        return
    try:
        async with asyncio.timeout(3):
            await keeper.revoke()
    except (ClusterError, TimeoutError) as error:
        log.warning("lease was not revoked; it ends by itself", error=str(error) or "etcd did not answer within 3 s")


def _etcd(settings: EtcdSettings, place: Place) -> Etcd:
    return Etcd(place.etcd, user=settings.user, password=settings.password, tls=etcd_tls(settings))


def _keeper(
    settings: Settings,
    place: Place,
    ownership: Ownership,
    last_words: Callable[[Etcd, int, str], Awaitable[None]],
    logs: Logs,
) -> LeaseKeeper:
    etcd, cluster = settings.cluster.etcd, settings.cluster
    return LeaseKeeper(
        place.etcd,
        user=etcd.user,
        password=etcd.password,
        tls=etcd_tls(etcd),
        ttl=cluster.lease_ttl,
        wedge_limit=cluster.wedge_limit,
        step_limit=cluster.wedge_limit,
        on_phase=ownership.on_phase,
        on_lost=ownership.on_lost,
        last_words=last_words,
        exit_process=logs.end_process,
    )


def _bus(settings: NatsSettings, place: Place, subjects: Subjects, node: str) -> Bus:
    return Bus(
        place.nats,
        name=node,
        credentials=nats_credentials(settings),
        tls=nats_tls(settings),
        inbox=subjects.inbox(node),
    )


def _catch_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    asked_at: float | None = None

    def on_signal(number: int) -> None:
        nonlocal asked_at
        if asked_at is None:
            asked_at = loop.time()
        elif loop.time() - asked_at >= SAME_SIGNAL:
            sys.stderr.write("second signal: ending at once\n")
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)


def _watch_parent(descriptor: int, stop: asyncio.Event) -> None:
    """Stop when the parent's end of the pipe closes, however the parent ended."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(descriptor, 64):
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, readable)
