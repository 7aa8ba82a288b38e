"""What goes wrong, when and for how long; decided by the seed. And the record of it, by which closes are judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.etcd import Delete
from tests.sim.machine import KEYS, Life
from tests.sim.mishaps import Mishaps

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation


@dataclass
class Span:
    nodes: frozenset[str]
    begin: float
    end: float = float("inf")


class Trouble:
    """When which nodes could not reach each other, or the store. One that names a single node concerns all its ways."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def begin(self, now: float, *nodes: str) -> Span:
        span = Span(frozenset(nodes), now)
        self._spans.append(span)
        return span

    def of(self, a: str, b: str, begin: float, end: float) -> list[tuple[float, float]]:
        """Spans between ``begin`` and ``end`` that concern the way from ``a`` to ``b``."""
        ends = {a, b}
        return [
            (span.begin, span.end)
            for span in self._spans
            if span.nodes <= ends and span.end > begin and span.begin < end
        ]


class Faults:
    """Makes trouble until ``until``, then stops for good."""

    def __init__(self, sim: Simulation, until: float) -> None:
        self.sim = sim
        self.until = until
        self.random = sim.world.random
        self._undo: list[Callable[[], None]] = []
        long = sim.long
        self._gap = self.random.choice((2.5, 5.0) if long else (0.4, 1.0, 2.5))
        self._lasting = (0.3, 4.0, 9.0, 14.0) if long else (0.05, 0.3, 1.0, 2.5, 4.0, 7.0)
        everything = [
            self._storm,
            self._partition,
            self._half_partition,
            self._break_connection,
            self._flap,
            self._lose_store,
            self.store_down,
            self._lose_answers,
            self._stop,
            self._hang,
            self._kill,
            self._leave,
            self._unregister,
            self._forget_history,
            self._slow,
            self._terminate_holder,
            self._stumble,
        ]
        mishaps = Mishaps(self)
        everything += mishaps.everywhere
        if sim.workload.serves:
            everything += mishaps.of_services
        if long:
            everything = [self._partition, self._half_partition, self._break_connection, self._lose_store, self._stop]
        count = self.random.choice([count for count in (1, 2, 4, 8, 18) if count <= len(everything)])
        self._kinds = self.random.sample(everything, count)
        if sim.theme == "lease":
            self._kinds = [self._lose_store, self.store_down, self._lose_answers, self._stop, *mishaps.everywhere]
            self._gap, self._lasting = 1.0, (0.3, 2.5, 4.5, 7.0)
        elif sim.theme == "hangs":
            self._kinds = [self._hang, *mishaps.of_services, *mishaps.hanging]
            self._gap, self._lasting = 1.5, (0.3, 2.5, 7.0)
        sim.world.after(self.random.uniform(0.5, 2.0), self._next)
        sim.world.after(until, self.heal)

    def _next(self) -> None:
        if self.sim.world.now < self.until:
            self.random.choice(self._kinds)()
            self.sim.world.after(self.random.expovariate(1 / self._gap), self._next)

    def heal(self) -> None:
        for undo in self._undo:
            undo()

    def for_a_while(self, undo: Callable[[], None], *seconds: float) -> None:
        """Undo it later, or when the faults end; once."""
        done = False

        def once() -> None:
            nonlocal done
            if not done:
                done = True
                undo()

        self._undo.append(once)
        self.sim.world.after(self.random.choice(seconds or self._lasting), once)

    def begin(self, *nodes: str) -> Callable[[], None]:
        """Note the trouble; returns what ends it."""
        world = self.sim.world
        span = self.sim.trouble.begin(world.now, *nodes)

        def end() -> None:
            span.end = world.now

        return end

    def note(self, what: str, *details: object) -> None:
        self.sim.world.note("faults", what, *details)

    def node(self) -> str:
        return self.random.choice(list(self.sim.machines))

    def pair(self) -> tuple[str, str]:
        a, b = self.random.sample(list(self.sim.machines), 2)
        return a, b

    def life(self) -> Life | None:
        """A process that can be harmed now."""
        life = self.sim.machines[self.node()].life
        return life if life.ready and life.stopped_at is None and not life.leaving else None

    # -- the network

    def _storm(self) -> None:
        a, b = self.pair()
        self.note("storm", a, b)
        end = self.begin(a, b)
        ways = [self.sim.network.weather(a, b), self.sim.network.weather(b, a)]
        for way in ways:
            way.loss = self.random.choice((0.1, 0.5))

        def undo() -> None:
            end()
            for way in ways:
                way.loss = 0.0

        self.for_a_while(undo, 0.3, 2.0, 4.0)

    def _partition(self) -> None:
        a, b = self.pair()
        self._cut(a, b, both=True)

    def _half_partition(self) -> None:
        a, b = self.pair()
        self._cut(a, b, both=False)

    def _cut(self, a: str, b: str, both: bool) -> None:
        self.note("partition", a, b, both)
        end = self.begin(a, b)
        ways = [self.sim.network.weather(a, b), self.sim.network.weather(b, a)][: 2 if both else 1]
        for way in ways:
            way.cut += 1

        def undo() -> None:
            end()
            for way in ways:
                way.cut -= 1

        self.for_a_while(undo)

    def _break_connection(self) -> None:
        life = self.life()
        if life is None or not life.connection.connected:
            return
        self.note("disconnected", life.label)
        end = self.begin(life.name)
        life.connection.break_off()

        def undo() -> None:
            end()
            if life.alive:
                life.connection.come_back()

        self.for_a_while(undo)

    def _flap(self) -> None:
        life = self.life()
        if life is None or not life.connection.connected:
            return
        end = self.begin(life.name)
        life.connection.break_off()

        def undo() -> None:
            end()
            if life.alive:
                life.connection.come_back()

        self.for_a_while(undo, 0.001, 0.01, 0.1)

    def _slow(self) -> None:
        life = self.life()
        if life is None:
            return
        self.note("slow", life.label)
        end = self.begin(life.name)
        life.connection.set_rate(self.random.choice((4_000.0, 20_000.0)))

        def undo() -> None:
            end()
            life.connection.set_rate(float("inf"))

        self.for_a_while(undo)

    # -- the store

    def _lose_store(self) -> None:
        node = self.node()
        if node in self.sim.store.unreachable:
            return
        self.note("store unreachable", node)
        end = self.begin(node, "store")
        self.sim.store.unreachable.add(node)

        def undo() -> None:
            end()
            self.sim.store.unreachable.discard(node)

        self.for_a_while(undo)

    def store_down(self) -> None:
        if self.sim.store.down:
            return
        self.note("store down")
        end = self.begin("store")
        self.sim.store.down = True

        def undo() -> None:
            end()
            self.sim.store.restart()

        self.for_a_while(undo)

    def _lose_answers(self) -> None:
        end = self.begin("store")
        self.sim.store.lost_answers = self.random.choice((0.1, 0.5))

        def undo() -> None:
            end()
            self.sim.store.lost_answers = 0.0

        self.for_a_while(undo)

    def _forget_history(self) -> None:
        life = self.life()
        if life is not None:
            life.watch.forget = True
            life.watch.later()

    # -- processes

    def _stop(self) -> None:
        self._halt(keeper_too=True)

    def _hang(self) -> None:
        self._halt(keeper_too=False)

    def _halt(self, keeper_too: bool) -> None:
        life = self.life()
        if life is None:
            return
        end = self.begin(life.name)
        life.stop(keeper_too)

        def undo() -> None:
            end()
            life.go_on()

        self.for_a_while(undo)

    def _kill(self) -> None:
        life = self.life()
        if life is not None:
            life.end("killed")

    def _leave(self) -> None:
        life = self.life()
        if life is not None:
            life.leave()

    def _unregister(self) -> None:
        """Somebody deletes the key of a node, or its registration never was: the lease goes on."""
        node = self.node()
        self._delete_registration(node)
        if self.random.random() < 0.5:
            self.sim.world.after(self.random.uniform(0.0, 0.08), lambda: self._delete_registration(node))

    def _delete_registration(self, node: str) -> None:
        if KEYS.node(node) in self.sim.store.kvs:
            self.note("unregistered", node)
            self.sim.store.transact([], [Delete(KEYS.node(node))], ())

    def _stumble(self) -> None:
        """A node has to register again and loses its connection while it does."""
        life = self.life()
        if life is None or not life.connection.connected or KEYS.node(life.name) not in self.sim.store.kvs:
            return
        self.note("stumbles", life.label)
        end = self.begin(life.name)
        self.sim.store.transact([], [Delete(KEYS.node(life.name))], ())
        is_over = False

        def break_off() -> None:
            if not is_over:
                life.connection.break_off()

        self.sim.world.after(self.random.uniform(0.0, 0.06), break_off)

        def undo() -> None:
            nonlocal is_over
            is_over = True
            end()
            if life.alive:
                life.connection.come_back()

        self.for_a_while(undo, 0.1, 0.3)

    def _terminate_holder(self) -> None:
        life = self.life()
        if life is not None:
            holders = list(life.locks.holders)
            if holders:
                pid = holders[0]
                self.sim.world.after(0.0, lambda: life.terminate(pid), life.loop)
