"""One node of the simulation: the real links, members, names, locks, ownership and router over a simulated network.

A ``Life`` is one process from its start to its end, wired as ``node.assembly`` wires a node. The lease keeper is a
thread of its own there; here it is an actor with the real ``FencingCore``. A ``Machine`` is the name that lives one
life after the other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster.avoids import Avoids
from cluster.claims import Claims
from cluster.envelope import Envelope, Kind
from cluster.errors import ClusterError, Unavailable
from cluster.etcd import Etcd
from cluster.everywhere import Everywhere
from cluster.fencing import Phase
from cluster.heirs import Heirs
from cluster.keys import Keys
from cluster.link import Limits
from cluster.links import Links
from cluster.locks import Locks
from cluster.members import Description, Member, Members, NodeState, Registration, draw_incarnation
from cluster.names import Names
from cluster.quarantine import Loss, Quarantine, suspect
from cluster.subjects import Subjects
from cluster.tasks import Tasks
from node.deadletters import DeadLetters
from node.groups import Groups
from node.lockholders import LockHolders
from node.owners import Owners
from node.ownership import Ownership
from node.returns import Returns
from node.router import Router
from node.supervisor import Supervisor
from tests.sim.bus import Connection
from tests.sim.by_name import BY_NAME, ByName
from tests.sim.control import Control
from tests.sim.keeper import Keeper
from tests.sim.kernel_vm import KernelVm
from tests.sim.services import ZONES
from tests.sim.store import Client, Watch
from tests.sim.vm import Vm
from tests.sim.world import Clocks, ProcessLoop

if TYPE_CHECKING:
    from tests.sim.faults import Span
    from tests.sim.simulation import Simulation

KEYS = Keys("sim")
SUBJECTS = Subjects("sim")


class _DeadLetters(DeadLetters):
    """Says of each message whether it was refused as it was sent."""

    def __init__(self, by_name: ByName) -> None:
        super().__init__()
        self.refused = 0
        self._by_name = by_name

    def add(self, envelope: Envelope, reason: str) -> None:
        self.refused += 1
        if envelope[4] == BY_NAME:
            self._by_name.dead(envelope)


async def _arrived(revision: int, within: float) -> bool:
    """Nothing is under way by a name that changed hands: none does here."""
    return True


class _Lease:
    """The lease as the supervisor asks for it."""

    def __init__(self, keeper: Keeper) -> None:
        self.may_start_owned = keeper.may_start_owned
        self.may_run_owned = keeper.may_run_owned
        self._keeper = keeper

    def current(self) -> int:
        return self._keeper.lease.id


class Life:
    """One process."""

    def __init__(self, sim: Simulation, machine: Machine, number: int) -> None:
        world = sim.world
        self.sim = sim
        self.machine = machine
        self.name = machine.name
        self.label = f"{machine.name}{number}"
        rate, wall = world.pick((1.0, 1.0, 0.99, 1.01)), world.pick((0.0, 0.0, -30.0, 5000.0))
        self.clocks = Clocks(world, world.pick((0.0, 1000.0, 5e5)), rate, wall)
        self.loop = ProcessLoop(world, self.clocks)
        self.client = Client(sim.store, self.name, self.loop)
        self.watch = Watch(sim.store, self.name, self.loop)
        self.connection = Connection(sim.network, self.name, self.loop)
        self.loop.execute(self._make_keeper)
        self.incarnation = 0
        self.ready = False
        self.leaving = False
        self.state = NodeState.READY
        self.began_at = world.now
        self.ended_at: float | None = None
        self.stood_still = 0.0
        self.stopped_at: float | None = None
        self.woke_at = self.keeper_woke_at = world.now
        self.kernel: KernelVm | None = None
        self.serves = 0
        """The epoch under which it answers queries."""
        self.revoked: set[str] = set()
        """Processes that lost a name."""
        self.quarantined: dict[str, float] = {}
        """Services this node knows to be quarantined, and since when."""
        self.converging: set[str] = set()
        """Services whose definition is being taken."""
        self.downs: dict[str, list[tuple[float, str]]] = {}
        """Node -> when its link closed, and why."""
        self._deaf: Span | None = None
        self.hears(False)
        self.loop.execute(self._begin)

    def _make_keeper(self) -> None:
        self.keeper = Keeper(self, self._on_phase, self._on_lost, self._accuse)

    @property
    def alive(self) -> bool:
        return self.ended_at is None

    def idle(self) -> float:
        """Seconds in which this process was stopped, so far."""
        return self.stood_still + (self.sim.world.now - self.stopped_at if self.stopped_at is not None else 0.0)

    def awake_for(self) -> float:
        """Seconds since it last could not run."""
        return 0.0 if self.stopped_at is not None else self.sim.world.now - self.woke_at

    def closes(self, node: str) -> int:
        return len(self.downs.get(node, ()))

    def hears(self, hears: bool) -> None:
        """Whether frames of other nodes are taken: not before the links are open, nor after the end."""
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
        await self.keeper.__aenter__()
        await self.links.__aenter__()
        await self._register()
        await self.registration.set_state(NodeState.READY)
        self.ownership.begin()
        self.tasks.start(self.supervisor.run(), "supervisor")
        self.supervisor.open()
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
            self.tasks,
            lambda: self.keeper.lease.id,
            Everywhere(Control(self), SUBJECTS, self.members, self.name),  # type: ignore[arg-type]
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
        self.dead_letters = _DeadLetters(sim.by_name)
        self.router = Router(self.name, incarnation, self.links, self.names, self.dead_letters)
        self.groups = Groups(
            self.name, incarnation, self.router.route, self.members.all, lambda variable: None, self.tasks
        )
        self.router.ports.serve(self.groups.address, self.groups.accept)
        self.holders = LockHolders(self.locks, KEYS, self.keeper, self.router.route)
        self.claims = Claims(self.client, self.watch, KEYS, self.name)  # type: ignore[arg-type]
        avoids = Avoids(self.client, self.watch, KEYS, self.name, self.clocks.wall)  # type: ignore[arg-type]
        self.quarantine = Quarantine(self.client, self.watch, KEYS)  # type: ignore[arg-type]
        self.supervisor = Supervisor(
            self.name,
            incarnation,
            self.router.ports,
            self.claims,
            avoids,
            self.quarantine,
            self.members,
            KEYS,
            _Lease(self.keeper),
            lambda variable: None,
            lambda kind, service: sim.world.note(self.label, kind, service),
            Heirs(self.client, self.watch, KEYS, self.name),  # type: ignore[arg-type]
            self.names,
            _arrived,
        )
        self.owners = Owners(self.supervisor, self.holders, names_in_doubt=self.router.names_in_doubt)
        self.ownership = Ownership(self.tasks, lambda code: self.end("owned work did not end"))
        self.vm = Vm(self)
        self.router.slots[self.vm.slot] = self.router.hosts[self.vm.host_id] = self.vm
        self._wire()

    def _wire(self) -> None:
        self.links.on_envelopes(self.router.from_link)
        self.links.on_down(self._link_down)
        self.links.on_down(self.groups.link_closed)
        self.links.on_congestion(self.router.congestion)
        self.names.on_change(self.router.name_changed)
        self.names.on_revoked(lambda name, pid: self._name_revoked(pid))
        self.router.by_name_allowed = lambda lease: lease in (0, self.keeper.lease.id) and self.keeper.remaining() > 0
        self.router.applied = lambda: self.members.applied
        returns = Returns(self.watch, self.tasks, self.router.give_back, self.dead_letters)
        self.router.on_return = returns.take
        self.quarantine.on_begun(self._quarantined)
        self.members.on_change(self._member_changed)
        self.ownership.bind(self.owners, self.links, self._register_again, self._lease_lost)

    def _link_down(self, node: str, reason: str) -> None:
        self.sim.world.note(self.label, "link closed", node, reason)
        self.downs.setdefault(node, []).append((self.sim.world.now, reason))
        self.sim.checker.link_closed(self, node, reason)
        self.router.node_down(node, reason)

    def _member_changed(self, before: Member | None, after: Member | None) -> None:
        self.groups.member_changed(before, after)
        self.router.nodes_changed(frozenset(member.node for member in self.members.all()))
        registration = getattr(self, "registration", None)
        if before is None or after is not None or registration is None:
            return
        if (before.node, before.epoch) == (self.name, registration.epoch):
            self.ownership.on_unregistered(before.epoch)

    def _name_revoked(self, pid: str) -> None:
        """CANCEL: the process lives on without it."""
        self.revoked.add(pid)
        self.supervisor.name_revoked(pid.encode(), "")

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
            Description(self.incarnation, labels=self.machine.labels),
        )
        epoch = await self.registration.register()
        self.sim.world.note(self.label, "registered", epoch)
        await self.links.open(epoch)
        self.serves = epoch
        self.hears(True)

    async def _register_again(self, anew: bool) -> int:
        if self.keeper.phase is Phase.LOST:
            if not anew:
                raise Unavailable("the lease of this node is lost")
            self.sim.owned.rejoins(self)
            await self.keeper.new_lease()
        await self._register()
        await self.registration.set_state(self.state)
        return self.registration.epoch

    def _on_phase(self, phase: Phase, lease: int) -> None:
        self.sim.world.note(self.label, "lease", phase.value, lease)
        if phase is Phase.DOUBT:
            self.sim.checker.doubted(self)
        if phase is Phase.LOST:
            self.hears(False)
        self.ownership.on_phase(phase, lease)

    def _quarantined(self, service: str, losses: list[Loss]) -> None:
        self.quarantined.setdefault(service, self.sim.world.now)

    async def _accuse(self, etcd: Etcd, slot: int, reason: str) -> None:
        """The last words of a node that a hanging VM ends."""
        process = self.vm.whose_turn
        service = self.supervisor.kept_by(process.keeper) if process is not None else ""
        self.sim.world.note(self.label, "accuses", service, reason)
        if process is not None and service:
            self.sim.owned.hung(self, service, process)
            loss = Loss(service, self.name, self.registration.epoch, self.clocks.wall(), reason)
            await suspect(etcd, KEYS, loss)

    def _on_lost(self, lease: int) -> None:
        self.ownership.on_lost(lease)

    # -- what happens to it

    def process_ended(self, pid: bytes) -> None:
        """A process of the VM is gone."""
        self.holders.process_ended(pid)
        self.groups.process_ended(pid)
        self.tasks.start(self.names.release(pid.decode()), "release names")

    def stop(self, keeper_too: bool) -> None:
        """SIGSTOP; without the keeper's thread it is a main loop that hangs."""
        self.sim.world.note(self.label, "stops", keeper_too)
        self.stopped_at = self.sim.world.now
        self.loop.halt()
        if keeper_too:
            self.keeper.thread.halt()

    def go_on(self) -> None:
        """SIGCONT. Either thread may be the first to run."""
        if not self.alive or self.stopped_at is None:
            return
        self.sim.world.note(self.label, "goes on")
        self.stood_still += self.sim.world.now - self.stopped_at
        self.stopped_at = None
        self.woke_at = self.keeper_woke_at = self.sim.world.now
        late = self.sim.world.pick((0.0, 0.002, 0.05))
        threads = (self.loop, self.keeper.thread)
        first, second = threads if self.sim.world.random.random() < 0.5 else threads[::-1]
        first.go_on()
        second.go_on(late)

    def end(self, reason: str) -> None:
        """Nothing of this process runs any more."""
        if not self.alive:
            return
        self.sim.world.note(self.label, "ends", reason)
        self.ended_at = self.sim.world.now
        self.ready = False
        self.loop.dead = self.keeper.thread.dead = True
        self.hears(False)
        self.connection.break_off()
        self.machine.ended(self)

    def leave(self) -> None:
        """An orderly stop: the lease is given back after all owned work has ended."""
        if self.alive and self.ready and not self.leaving and self.stopped_at is None:
            self.leaving = True
            self.loop.call_soon_threadsafe(lambda: self.tasks.start(self._leave(), "leave"))

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(2.0):
                await self.registration.set_state(NodeState.DRAINING)
        except (ClusterError, TimeoutError):
            pass  # the others see it when the registration is gone
        self.ownership.end()
        await self.supervisor.stop("service stopping")
        await self.vm.steady()
        self.vm.end_all()
        await asyncio.sleep(self.sim.world.pick((0.001, 0.5)))
        self.links.end("this node stops")
        if self.ownership.may_give_back():
            try:
                await self.keeper.revoke()
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
        self.labels = {"zone": sim.world.pick(ZONES)}
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
