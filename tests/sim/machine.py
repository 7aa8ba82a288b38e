"""One node of the simulation: the real links, members, names, locks, ownership and router over a simulated network.

A ``Life`` is one process from its start to its end, wired as ``node.assembly`` wires a node. The lease keeper is a
thread of its own there; here it is an actor with the real ``FencingCore``. A ``Machine`` is the name that lives one
life after the other.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from cluster.envelope import Envelope, Kind
from cluster.errors import ClusterError, Unavailable
from cluster.etcd import Lease
from cluster.fencing import EndProcess, FencingCore, Phase, PhaseChanged, Renew
from cluster.keys import Keys
from cluster.link import Limits
from cluster.links import Links
from cluster.locks import Locks
from cluster.members import Description, Member, Members, NodeState, Registration, draw_incarnation
from cluster.names import Names
from cluster.subjects import Subjects
from cluster.tasks import Tasks
from node.deadletters import DeadLetters
from node.lockholders import LockHolders
from node.ownership import Ownership
from node.router import Router
from tests.sim.bus import Connection
from tests.sim.store import Client, Watch
from tests.sim.vm import Vm
from tests.sim.world import Actor, ProcessLoop

if TYPE_CHECKING:
    from tests.sim.faults import Span
    from tests.sim.simulation import Simulation

TTL = 4.0
WEDGE_LIMIT = 3.0
STEP_LIMIT = 10.0
KEEPER_TICK = 0.25
KEYS = Keys("sim")
SUBJECTS = Subjects("sim")


class Keeper(Actor):
    """The lease keeper's thread, and what the main loop asks it."""

    def __init__(self, life: Life) -> None:
        super().__init__(life.sim.world)
        self.core = FencingCore(wedge_limit=WEDGE_LIMIT, step_limit=STEP_LIMIT)
        self.lease = Lease(0, 0)
        self._life = life
        self._beats = 0
        self._answered = True

    @property
    def phase(self) -> Phase:
        return self.core.phase

    def remaining(self) -> float:
        return self.core.held.deadline - self._life.loop.time()

    def may_run_owned(self, lease: int) -> bool:
        return self.core.held.may_run(lease, self._life.loop.time())

    async def new_lease(self) -> None:
        self.core.check_may_grant()
        sent_at = self._life.loop.time()
        lease = await self._life.client.grant(math.ceil(TTL))
        self._perform(self.core.granted(lease.id, sent_at, lease.ttl))
        await asyncio.sleep(0.001)
        self.lease = lease

    def tick(self) -> None:
        if self._answered:
            self._answered = False
            self._life.loop.call_soon_threadsafe(self._beat)
        self._perform(self.core.tick(self._life.loop.time(), self._beats, {}))
        self.world.after(KEEPER_TICK, self.tick, self)

    def _beat(self) -> None:
        self._beats += 1
        self._answered = True

    def _perform(self, actions: list[Any]) -> None:
        life = self._life
        for action in actions:
            match action:
                case Renew(lease):
                    self._renew(lease)
                case PhaseChanged(phase, lease):
                    self.world.note(life.label, "lease", phase.value, lease)
                    life.loop.call_soon_threadsafe(self._tell_main, phase, lease)
                case EndProcess(reason):
                    life.end(reason)

    def _renew(self, lease: int) -> None:
        sent_at = self._life.loop.time()
        store = self._life.sim.store

        def answered(ttl: Any, error: Exception | None) -> None:
            if error is None:
                self._perform(self.core.answered(lease, sent_at, ttl, self._life.loop.time()))

        self._life.client.request(lambda: store.keep_alive(lease), answered, self)

    def _tell_main(self, phase: Phase, lease: int) -> None:
        if phase is Phase.DOUBT:
            self._life.sim.checker.doubted(self._life)
        if phase in (Phase.DOUBT, Phase.LOST):
            self._life.hears(False)
        elif phase is Phase.HELD and lease == self._life.registered_under:
            self._life.hears(True)
        self._life.ownership.on_phase(phase, lease)
        if phase is Phase.LOST:
            self._life.ownership.on_lost(lease)


class _DeadLetters(DeadLetters):
    """Says of each message whether it was refused as it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    def add(self, envelope: Envelope, reason: str) -> None:
        self.refused += 1


class Life:
    """One process."""

    def __init__(self, sim: Simulation, machine: Machine, number: int) -> None:
        world = sim.world
        self.sim = sim
        self.machine = machine
        self.name = machine.name
        self.label = f"{machine.name}{number}"
        self.loop = ProcessLoop(world, world.pick((0.0, 1000.0, 5e5)))
        self.client = Client(sim.store, self.name, self.loop)
        self.watch = Watch(sim.store, self.name, self.loop)
        self.connection = Connection(sim.network, self.name, self.loop)
        self.keeper = Keeper(self)
        self.incarnation = 0
        self.ready = False
        self.leaving = False
        self.began_at = world.now
        self.ended_at: float | None = None
        self.stood_still = 0.0
        self.stopped_at: float | None = None
        self.downs: dict[str, list[tuple[float, str]]] = {}
        """Node -> when its link closed, and why."""
        self.registered_under = 0
        """The lease of the registration whose links are open."""
        self._deaf: Span | None = None
        self.hears(False)
        self.loop.execute(self._begin)

    @property
    def alive(self) -> bool:
        return self.ended_at is None

    def idle(self) -> float:
        """Seconds in which this process was stopped, so far."""
        return self.stood_still + (self.sim.world.now - self.stopped_at if self.stopped_at is not None else 0.0)

    def closes(self, node: str) -> int:
        return len(self.downs.get(node, ()))

    def hears(self, hears: bool) -> None:
        """Whether frames of other nodes are taken: not before the links are open, nor in doubt, nor after the end."""
        now = self.sim.world.now
        if hears and self._deaf is not None:
            self._deaf.end = now
            self._deaf = None
        elif not hears and self._deaf is None:
            self._deaf = self.sim.trouble.begin(now, self.name)

    def pair(self, node: str) -> tuple[int, int]:
        """The epochs of the link to the node: our own first."""
        peer = self.links._peers.get(node)
        return (peer.core.own_epoch, peer.core.peer_epoch) if peer is not None else (0, 0)

    def _begin(self) -> None:
        self.tasks = Tasks(self.label)
        self.tasks.start(self._main(), "main")

    async def _main(self) -> None:
        try:
            await self._start()
        except (ClusterError, TimeoutError) as error:
            self.end(f"can't start: {error}")

    async def _start(self) -> None:
        while not self.sim.store.reachable(self.name) or not self.connection.connected:
            await asyncio.sleep(0.2)
        self._build(await draw_incarnation(self.client, KEYS))  # type: ignore[arg-type]
        self.watch.start()
        await self.keeper.new_lease()
        self.sim.world.after(0.0, self.keeper.tick, self.keeper)
        await self.links.__aenter__()
        await self._register()
        await self.registration.set_state(NodeState.READY)
        self.ownership.begin()
        self.ready = True
        self.sim.world.note(self.label, "ready", self.registration.epoch)
        self.sim.workload.begin(self)

    def _build(self, incarnation: int) -> None:
        sim = self.sim
        self.incarnation = incarnation
        self.members = Members(self.watch, KEYS)  # type: ignore[arg-type]
        self.names = Names(
            self.client,  # type: ignore[arg-type]
            self.watch,  # type: ignore[arg-type]
            KEYS,
            self.name,
            self.tasks,
            lambda: self.keeper.lease.id,
            self.watch.reached,
        )
        self.locks = Locks(self.client, self.watch, KEYS, self.tasks)  # type: ignore[arg-type]
        limits = Limits(sim.times.buffer_bytes, sim.times.buffer_envelopes, sim.times.timeout)
        self.links = Links(
            self.connection,  # type: ignore[arg-type]
            self.members,
            SUBJECTS,
            self.name,
            limits=limits,
            clock=self.loop.time,
        )
        self.dead_letters = _DeadLetters()
        self.router = Router(self.name, incarnation, self.links, self.names, self.dead_letters)
        self.holders = LockHolders(self.locks, KEYS, self.keeper, self.router.route)
        self.ownership = Ownership(self.tasks, lambda code: self.end("owned work did not end"))
        self.vm = Vm(self)
        self.router.slots[self.vm.slot] = self.vm
        self._wire()

    def _wire(self) -> None:
        self.links.on_envelopes(self.router.from_link)
        self.links.on_down(self._link_down)
        self.links.on_congestion(self.router.congestion)
        self.names.on_change(self.router.name_changed)
        self.names.on_revoked(lambda name, pid: self.vm.name_revoked(pid.encode()))
        self.router.by_name_allowed = lambda lease: lease == self.keeper.lease.id and self.keeper.remaining() > 0
        self.router.applied = lambda: self.members.applied
        self.members.on_change(self._member_changed)
        self.ownership.bind(self.holders, self.links, self._register_again, self._lease_lost)

    def _link_down(self, node: str, reason: str) -> None:
        self.sim.world.note(self.label, "link closed", node, reason)
        self.downs.setdefault(node, []).append((self.sim.world.now, reason))
        self.sim.checker.link_closed(self, node, reason)
        self.router.node_down(node, reason)

    def _member_changed(self, before: Member | None, after: Member | None) -> None:
        self.router.nodes_changed(frozenset(member.node for member in self.members.all()))
        registration = getattr(self, "registration", None)
        if before is None or after is not None or registration is None:
            return
        if (before.node, before.epoch) == (self.name, registration.epoch):
            self.ownership.on_unregistered(before.epoch)

    def _lease_lost(self, lease: int) -> None:
        self.names.lease_lost(lease)
        self.locks.lease_lost(lease)

    async def _register(self) -> None:
        self.hears(False)
        self.registration = Registration(
            self.client,  # type: ignore[arg-type]
            KEYS,
            self.name,
            self.keeper.lease,
            Description(self.incarnation),
        )
        epoch = await self.registration.register()
        self.sim.world.note(self.label, "registered", epoch)
        await self.links.open(epoch)
        self.registered_under = self.keeper.lease.id
        self.hears(True)

    async def _register_again(self, anew: bool) -> int:
        if self.keeper.phase is Phase.LOST:
            if not anew:
                raise Unavailable("the lease of this node is lost")
            await self.keeper.new_lease()
        await self._register()
        await self.registration.set_state(NodeState.READY)
        return self.registration.epoch

    # -- what happens to it

    def process_ended(self, pid: bytes) -> None:
        """A process of the VM is gone."""
        self.holders.process_ended(pid)
        self.tasks.start(self.names.release(pid.decode()), "release names")

    def stop(self, keeper_too: bool) -> None:
        """SIGSTOP; without the keeper's thread it is a main loop that hangs."""
        self.sim.world.note(self.label, "stops", keeper_too)
        self.stopped_at = self.sim.world.now
        self.loop.halt()
        if keeper_too:
            self.keeper.halt()

    def go_on(self) -> None:
        """SIGCONT. Either thread may be the first to run."""
        if not self.alive or self.stopped_at is None:
            return
        self.sim.world.note(self.label, "goes on")
        self.stood_still += self.sim.world.now - self.stopped_at
        self.stopped_at = None
        late = self.sim.world.pick((0.0, 0.002, 0.05))
        first, second = (self.loop, self.keeper) if self.sim.world.random.random() < 0.5 else (self.keeper, self.loop)
        first.go_on()
        second.go_on(late)

    def end(self, reason: str) -> None:
        """Nothing of this process runs any more."""
        if not self.alive:
            return
        self.sim.world.note(self.label, "ends", reason)
        self.ended_at = self.sim.world.now
        self.ready = False
        self.loop.dead = self.keeper.dead = True
        self.hears(False)
        self.connection.break_off()
        self.machine.ended(self)

    def leave(self) -> None:
        """An orderly stop: the lease is given back after all owned work has ended."""
        if self.alive and self.ready and not self.leaving and self.stopped_at is None:
            self.leaving = True
            self.loop.call_soon_threadsafe(lambda: self.tasks.start(self._leave(), "leave"))

    async def _leave(self) -> None:
        self.ownership.end()
        self.vm.end_all()
        await asyncio.sleep(self.sim.world.pick((0.001, 0.5)))
        self.links.end("this node stops")
        if self.ownership.may_give_back():
            lease = self.keeper.core.released()
            if lease:
                try:
                    await self.client.revoke(lease)
                except ClusterError:
                    pass  # it ends by itself
        self.end("left")

    def terminate(self, pid: bytes) -> None:
        self.router.route([int(Kind.TERMINATE), pid, b"", 0])


class Machine:
    """A node's name, and the process that has it now."""

    def __init__(self, sim: Simulation, name: str) -> None:
        self.sim = sim
        self.name = name
        self.lives: list[Life] = []
        self.start()

    @property
    def life(self) -> Life:
        return self.lives[-1]

    def start(self) -> None:
        self.lives.append(Life(self.sim, self, len(self.lives) + 1))

    def _start_again(self) -> None:
        former = self.life
        self.start()
        former.hears(True)  # what cannot be heard now is a matter of the new one

    def ended(self, life: Life) -> None:
        """Whoever runs the machine starts the process again, soon or not so soon."""
        self.sim.world.after(self.sim.world.pick((0.2, 1.0, 2.5)), self._start_again)
