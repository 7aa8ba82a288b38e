"""The parts of a node, and the few deeds that need several of them at once.

``node.assembly`` builds and wires them; ``node.main`` starts and stops them in order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

import structlog

from cluster.bus import Bus, Subscription
from cluster.claims import Claims
from cluster.door import Door
from cluster.errors import ClusterError, NotConnected, Unavailable
from cluster.etcd import Etcd, PrefixWatch, Room
from cluster.events import EventBus
from cluster.fencing import LeaseKeeper, Phase
from cluster.keys import Keys
from cluster.links import Links
from cluster.locks import Locks
from cluster.members import Member, Members, NodeState, Registration
from cluster.migration.transactions import Registration as Own
from cluster.names import Names
from cluster.quarantine import Loss, suspect
from cluster.registry import Collector, Folding, Registry, read_floor
from cluster.subjects import Subjects
from node.admin import Admin
from node.convergence import Convergence
from node.draining import Draining
from node.groups import Groups
from node.host import Watchdog
from node.hosts import Hosts
from node.kinds import CAPABILITY
from node.logs import Logs
from node.modules import Dispatcher
from node.modules.io import IoModule
from node.moving import Moving
from node.output import STDOUT, Output
from node.ownership import Ownership
from node.probes import ProbeServer
from node.rebalancing import Rebalancer
from node.router import Router
from node.settings import Settings
from node.stores import Stores
from node.supervisor import Supervisor
from node.trees import Trees

if TYPE_CHECKING:
    pass

log = structlog.get_logger("wippy.node")

FLOOR_PAUSE = 0.5
SAY_STOPPING = 2.0
"""Seconds etcd has to hear that this node stops."""
LEAST_GRACE = 1.0
"""Seconds a process has to end when giving others what they can take has taken all of ``shutdown.timeout``."""
OnQuery: TypeAlias = Callable[[bytes, Callable[[bytes], Awaitable[None]]], None]


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
    locks: Locks
    groups: Groups
    stores: Stores
    keeper: LeaseKeeper
    ownership: Ownership
    links: Links
    router: Router
    registry: Registry
    folding: Folding
    collector: Collector
    room: Room
    dispatcher: Dispatcher
    hosts: Hosts
    watchdog: Watchdog
    supervisor: Supervisor
    moving: Moving
    draining: Draining
    rebalancer: Rebalancer
    trees: Trees
    convergence: Convergence
    events: EventBus
    door: Door
    admin: Admin
    probes: ProbeServer
    io: IoModule
    output: Output
    logs: Logs
    make_registration: Callable[[], Registration]
    labels: Mapping[str, str]
    registration: Registration | None = None
    state: NodeState = NodeState.JOINING
    is_stopping: bool = False
    grace: timedelta | None = None
    """What is left of ``shutdown.timeout`` for the processes that end with the node."""
    failure: str = ""
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """A program asked the node to end, with ``exit_code``."""
    _control: Subscription | None = None
    _word: int = 0
    """How often the state was said or wished for: a wish that waits gives way to a later word."""

    async def set_state(self, state: NodeState) -> None:
        """Publish what this node offers now."""
        assert self.registration is not None
        self._word += 1
        await self.registration.set_state(state)
        self.state = state

    async def become_ready(self) -> bool:
        """Joining -> ready (R1): only a node that knows every kind in use; one that doesn't waits, saying why.

        False when the node is said to be something else meanwhile: that counts.
        """
        assert self.registration is not None
        self._word += 1
        word = self._word
        said: list[str] = []
        while True:
            floor = await read_floor(self.etcd, self.keys)
            unmet = floor.unmet(CAPABILITY)
            if word != self._word:
                return False
            if not unmet and await self.registration.set_state(NodeState.READY, floor.unchanged(self.keys)):
                self.state = NodeState.READY
                return True
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
        self.moving.registered(Own(epoch, self.keeper.lease.id))

    async def register_again(self, anew: bool) -> int:
        """A registration under the lease of the keeper, ``anew``: a new one in the place of the lost; its epoch.

        Raises Unavailable when the lease is lost and owned work may still live, as nobody was told yet.
        """
        if self.keeper.phase is Phase.LOST:
            if not anew:
                raise Unavailable("the lease of this node is lost; its owned work ends first")
            await self.keeper.new_lease()
        await self.register()
        assert self.registration is not None
        if self.state is NodeState.READY:
            await self.become_ready()
        else:
            await self.set_state(self.state)
        return self.registration.epoch

    async def open_control(self, epoch: int) -> None:
        """Answer queries under this epoch's subject."""
        former, self._control = self._control, None
        if former is not None:
            await former.close()
        self._control = await self.bus.control.subscribe(self.subjects.control_of(self.name, epoch), self._on_control)

    async def open_announcements(self) -> None:
        """Answer what is asked of every node: who there is, for clients while etcd is away."""
        try:
            await self.bus.control.subscribe(self.subjects.announcements, self._on_announcement)
        except Unavailable as error:  # a NATS user without that permission
            log.warning("clients can't ask this node who there is while etcd is away", error=str(error))

    def _on_announcement(self, subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
        self._answer(self.admin.on_announcement, subject, reply, payload)

    def _on_control(self, subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
        client = subject.rpartition(".")[2]  # NATS can be told who may publish under which
        self._answer(lambda query, answer: self.admin.on_query(query, answer, client), subject, reply, payload)

    def _answer(self, handle: OnQuery, subject: str, reply: str, payload: bytes) -> None:
        async def answer(packed: bytes) -> None:
            if not reply:
                return
            try:
                self.bus.control.publish(reply, packed)
            except (NotConnected, Unavailable) as error:
                log.warning("a query gets no answer", subject=subject, error=str(error))

        handle(payload, answer)

    async def say_draining(self) -> None:
        """Tell that this node takes nothing new. Its readiness goes off before others know. Raises ClusterError."""
        former, self.state = self.state, NodeState.DRAINING
        try:
            await self.set_state(NodeState.DRAINING)
        except BaseException:
            self.state = former
            raise

    async def leave(self) -> None:
        """The node stops: say so, and give others what they can take. It stops all the same when etcd is away."""
        self.is_stopping = True
        self.state = NodeState.DRAINING
        try:
            async with asyncio.timeout(SAY_STOPPING):
                await self.set_state(NodeState.DRAINING)
        except (ClusterError, TimeoutError) as error:
            problem = str(error) or f"etcd did not answer within {SAY_STOPPING:g} s"
            log.warning("could not say that this node is stopping", error=problem)
            return
        if not self.failed.is_set():
            within = self.settings.shutdown.timeout.total_seconds()
            self.grace = timedelta(seconds=max(await self.draining.before_stop(within), LEAST_GRACE))

    async def drain(self) -> None:
        """CANCEL all processes, kill the rest when the rest of ``shutdown.timeout`` is over."""
        grace = self.settings.shutdown.timeout if self.grace is None else self.grace
        left = sum(vm.stats().processes for vm in self.hosts.vms())
        if left:
            seconds = f"{grace.total_seconds():g}s"
            log.info("processes are asked to end; after shutdown.timeout they are killed", processes=left, at=seconds)
        await self.hosts.drain("node stopping", grace)

    async def cordon(self) -> None:
        """Keep what is here and take nothing new."""
        await self.set_state(NodeState.CORDONED)
        log.info("node cordoned: it keeps what it has and gets nothing new")

    async def uncordon(self) -> None:
        """Take work again, if the node knows every kind in use: else it waits, as when it starts. A drain is over."""
        self.draining.call_off()
        said = self.members.get(self.name)
        # what this node could not say for sure may have been heard all the same
        is_off = self.state in (NodeState.CORDONED, NodeState.DRAINING) or (said and said.state is not NodeState.READY)
        if is_off and await self.become_ready():
            log.info("node takes work again")

    async def label(self, changes: Mapping[str, str | None]) -> Mapping[str, str]:
        """Give the node other labels, until it ends; those it has then. None takes one away."""
        assert self.registration is not None
        self.labels = await self.registration.set_labels(changes)
        log.info("labels changed", labels=self.labels)
        return self.labels

    async def accuse(self, etcd: Etcd, slot: int, reason: str) -> None:
        """The last words of a node that a hanging VM ends: the service whose process is in the step. Called on the
        lease keeper's thread with its etcd. Raises Unavailable or OutcomeUnknown."""
        service = self.supervisor.kept_by(self.hosts.whose_turn(slot))
        if service and self.registration is not None:
            await suspect(etcd, self.keys, Loss(service, self.name, self.registration.epoch, time.time(), reason))

    def is_own(self, member: Member) -> bool:
        """Whether this is the registration the node serves under."""
        return self.registration is not None and (member.node, member.epoch) == (self.name, self.registration.epoch)

    def exit(self, code: int) -> None:
        """A program asks the node to end in good order; the first to ask says with which code."""
        if not self.ended.is_set():
            self.exit_code = code
            self.ended.set()

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
