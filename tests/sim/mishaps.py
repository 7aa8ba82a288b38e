"""What else goes wrong, to whole machines and by people: more than one thing at a time, clocks, operators.

``everywhere`` may happen in any run, ``of_services`` where services run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.errors import ClusterError
from cluster.members import NodeState
from tests.sim.services import ZONES

if TYPE_CHECKING:
    from tests.sim.faults import Faults
    from tests.sim.machine import Life


class Mishaps:
    """Each method makes one happen, and ``faults`` undoes it."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.sim = faults.sim
        self.random = faults.random

    @property
    def everywhere(self) -> list[Callable[[], None]]:
        return [self._isolate, self._suspend, self._set_clock]

    @property
    def of_services(self) -> list[Callable[[], None]]:
        return [self._lose_two, self._wedge, self._cordon, self._relabel, self.sim.services.change, self._lose_owner]

    @property
    def hanging(self) -> list[Callable[[], None]]:
        """What is worth more than one try."""
        return [self._wedge, self._relabel, self._relabel, self.sim.services.change]

    # -- a machine

    def _isolate(self) -> None:
        """A node reaches no other node, or not the store, or nothing at all."""
        node = self.faults.node()
        from_bus, from_store = self.random.choice(((True, False), (False, True), (True, True)))
        self.faults.note("isolated", node, from_bus, from_store)
        end = self.faults.begin(node, "store") if from_store and not from_bus else self.faults.begin(node)
        others = [name for name in self.sim.machines if name != node] if from_bus else []
        ways = [self.sim.network.weather(*way) for name in others for way in ((node, name), (name, node))]
        for way in ways:
            way.cut += 1
        lost = from_store and node not in self.sim.store.unreachable
        if lost:
            self.sim.store.unreachable.add(node)

        def undo() -> None:
            end()
            for way in ways:
                way.cut -= 1
            if lost:
                self.sim.store.unreachable.discard(node)

        self.faults.for_a_while(undo)

    def _suspend(self) -> None:
        """The machine sleeps: nothing runs on it, and its monotonic clock stands still."""
        life = self.faults.life()
        if life is None:
            return
        end = self.faults.begin(life.name)
        life.stop(True)
        since = self.sim.world.now

        def undo() -> None:
            end()
            life.clocks.slept += (self.sim.world.now - since) * life.clocks.rate
            life.go_on()

        self.faults.for_a_while(undo, 0.3, 2.5, 5.0, 7.0)

    def _set_clock(self) -> None:
        """Somebody sets a machine's clock."""
        life = self.faults.life()
        if life is not None:
            by = self.random.choice((-3600.0, -5.0, -2.0, 2.0, 5.0, 3600.0))
            self.faults.note("clock set", life.label, by)
            life.clocks.wall_offset += by

    # -- services

    def _lose_two(self) -> None:
        """Two machines at once, and perhaps the store starts anew meanwhile."""
        lives = [machine.life for machine in self.sim.machines.values() if machine.life.ready]
        for life in self.random.sample(lives, max(0, min(2, len(lives) - 1))):
            life.end("killed")
        if self.random.random() < 0.5:
            self._later(self.random.choice((0.1, 2.0, 4.0)), self.faults.store_down)

    def _lose_owner(self) -> None:
        """The node that runs a service is lost, and then the service changes, or the one that took it is lost too."""
        owners = [life for life in self._lives() if life.vm.of_services()]
        if not owners:
            return
        self.random.choice(owners).end("killed")
        after = self.random.choice((0.0, 1.0, 4.2, 4.6, 5.0))
        self._later(after, self.random.choice((self.sim.services.change, self._lose_two, self._cordon)))

    def _later(self, seconds: float, mishap: Callable[[], None]) -> None:
        if self.sim.world.now + seconds < self.faults.until:
            self.sim.world.after(seconds, mishap)

    def _wedge(self) -> None:
        """A step of a VM goes on for a while."""
        lives = self._lives()
        if lives:
            life = self.random.choice(lives)
            seconds = self.random.choice((0.5, 2.0, 2.8, 2.8, 9.0))
            life.sim.world.after(0.0, lambda: life.vm.wedge(seconds), life.loop)

    def _cordon(self) -> None:
        lives = self._lives()
        if lives:
            life = self.random.choice(lives)
            self._set_state(life, NodeState.CORDONED)
            self.faults.for_a_while(lambda: self._set_state(life, NodeState.READY))

    def _set_state(self, life: Life, state: NodeState) -> None:
        if not life.alive or life.leaving:
            return
        self.faults.note(state.value, life.label)
        life.state = state
        self._describe(life)

    def _relabel(self) -> None:
        lives = self._lives()
        if lives:
            life = self.random.choice(lives)
            life.machine.labels = {"zone": self.random.choice(ZONES)}
            self.faults.note("labels", life.label, life.machine.labels["zone"])
            self._describe(life)

    def _describe(self, life: Life) -> None:
        """The node says what it offers now, again until the store took it."""

        async def describe() -> None:
            try:
                await life.registration.set_state(life.state)
                await life.registration.set_labels(life.machine.labels)
            except ClusterError:
                life.loop.call_later(0.5, self._describe, life)

        life.loop.call_soon_threadsafe(lambda: life.tasks.start(describe(), "describe"))

    def _lives(self) -> list[Life]:
        return [
            machine.life
            for machine in self.sim.machines.values()
            if machine.life.ready and machine.life.stopped_at is None and not machine.life.leaving
        ]
