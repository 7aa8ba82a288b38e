"""What must hold of everything owned (G4, fencing rules F3 to F6): locks, and the replicas of services.

Who acts as an owner is the owner in the store at that moment, and nobody else lives who was it. Fenced writes take
effect in the order of tokens. As a lease ends, nothing owned under it lives any more on a node that could act; as a
claim is given back, its process has ended. When all is quiet every wanted replica runs exactly once, where it may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.etcd import KeyValue
from tests.sim.keeper import STEP_LIMIT

if TYPE_CHECKING:
    from tests.sim.machine import Life
    from tests.sim.simulation import Simulation
    from tests.sim.vm import Process

AWAKE = 2.0
"""A process that has run for so many seconds on end has had the time to look at its lease."""

START_TIMEOUT = 2.5
"""Seconds in which what was asked to start is there, or was given up."""
AUDIT = 0.5
WEDGED = STEP_LIMIT + 2.5
"""Seconds within which a node that hangs has ended."""
OVERLAP = 0.5
"""Seconds in which a process whose start was given up is ended."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that acted as the owner of something."""

    life: Life
    process: Process
    token: int
    lease: int

    @property
    def lives(self) -> bool:
        return self.life.alive and self.process.alive and not self.process.dying


class OwnedChecker:
    """Told of every act, write and end; raises Violation."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.acted_at: dict[str, float] = {}
        self._owners: dict[str, Owner] = {}
        self._written: dict[str, int] = {}
        sim.world.after(AUDIT, self._audit)

    def acts(self, life: Life, process: Process, key: str, token: int, *, binding: bool = True) -> None:
        """A process does something as the owner of ``key``, its node being sure that it may."""
        checker, store = self.sim.checker, self.sim.store
        checker.counts["acts"] += 1
        self.acted_at[key] = self.sim.world.now
        if not binding:
            return
        held = store.kvs.get(key)
        if held is None or held.mod_revision != token or not store.alive(held.lease):
            now_by = "nobody" if held is None else f"token {held.mod_revision}"
            self._violated(f"G4: {life.label} acts as owner of {key} by token {token}, held by {now_by}")
        else:
            self._succeeds(key, Owner(life, process, token, held.lease))

    def gives_up(self, key: str) -> None:
        """The owner does nothing more as such, and lives on."""
        self._owners.pop(key, None)

    def _succeeds(self, key: str, owner: Owner) -> None:
        former = self._owners.get(key)
        if former is not None and former.process is owner.process:
            return
        if former is not None and former.lives and former.life is owner.life and former.token == owner.token:
            # its start was given up as its VM hung: it is here all the same, and ended as soon as that is known
            self.sim.world.after(OVERLAP, lambda: self._one_has_ended(key, former, owner))
        elif former is not None and former.lives and self._could_look(former.life):
            text = f"{owner.life.label} owns {key} while its former owner on {former.life.label} lives"
            self._violated(f"F3: {text} (tokens {former.token}, {owner.token})")
        self._owners[key] = owner
        self.sim.checker.counts["successions"] += former is not None

    def _one_has_ended(self, key: str, one: Owner, other: Owner) -> None:
        if one.lives and other.lives and self._could_look(one.life):
            self._violated(f"services: two processes of {key} run on {one.life.label}")

    def written_by(self, key: str, token: int) -> None:
        """A write that compared the token took effect in the store."""
        self.sim.checker.counts["writes"] += 1
        before = self._written.get(key, 0)
        if token < before:
            self._violated(f"G4: a write by token {token} of {key} took effect after one by {before}")
        self._written[key] = token

    def lease_ends(self, lease: int) -> None:
        """The store ends a lease, early or late: what was owned under it must not be able to act."""
        for key, owner in self._owners.items():
            if owner.lease == lease and owner.lives and self._could_look(owner.life):
                self._violated(f"F3: {owner.life.label} lets the owner of {key} live as its lease ends")

    def key_goes(self, kv: KeyValue) -> None:
        """A key was deleted. When its lease goes on, its owner gave it back."""
        owner = self._owners.get(kv.key)
        if owner is None or owner.token != kv.mod_revision or not self.sim.store.alive(owner.lease):
            return
        if owner.lives and "/services/" in kv.key:
            self._violated(f"F5: {owner.life.label} gives {kv.key} back before its process has ended")
        del self._owners[kv.key]

    def hung(self, life: Life, service: str, process: Process) -> None:
        """A node ends because a process of the service hangs: it must not have been started under quarantine."""
        since = life.quarantined.get(service)
        self.sim.checker.counts["hung"] += 1
        if since is not None and process.born_at > since + START_TIMEOUT:
            self._violated(f"quarantine: {service} takes {life.label} with it, which started it {process.born_at:.3f}")

    def rejoins(self, life: Life) -> None:
        """A node is about to take a new lease: nothing owned under the former lives."""
        for key, owner in self._owners.items():
            if owner.life is life and owner.process.alive:
                self._violated(f"F4: {life.label} takes a new lease while the owner of {key} lives")

    def _audit(self) -> None:
        """A node that hangs ends, and with it its lease (F2)."""
        for machine in self.sim.machines.values():
            life, now = machine.life, self.sim.world.now
            if not life.ready or life.keeper.thread.stopped or now - life.keeper_woke_at < WEDGED:
                continue
            if life.stopped_at is not None and now - life.stopped_at > WEDGED:
                self._violated(
                    f"F2: {life.label} keeps its lease while its main loop hangs since {life.stopped_at:.3f}"
                )
            if life.vm.wedged and now - life.vm.wedged_at > WEDGED:
                self._violated(f"F2: {life.label} keeps its lease while a step hangs since {life.vm.wedged_at:.3f}")
        self.sim.world.after(AUDIT, self._audit)

    def _could_look(self, life: Life) -> bool:
        return life.awake_for() > AWAKE and not life.vm.wedged

    # -- when all is quiet

    def placed(self) -> None:
        """Every wanted replica runs exactly once, where it may, under a claim that says so."""
        sim = self.sim
        wanted = sim.services.wanted()
        running = sim.services.running()
        for key, pids in sorted(running.items()):
            if key[:2] not in wanted:
                self._violated(f"services: {key[0]}/{key[1]} runs on {key[2]} as {pids} though nobody wants it")
        for (service, replica), nodes in sorted(wanted.items()):
            if nodes is not None:
                self._check_replica(service, replica, nodes, running)
        self._check_strays(running)

    def _check_replica(
        self, service: str, replica: int, nodes: list[str], running: dict[tuple[str, int, str], list[str]]
    ) -> None:
        what = f"{service}/{replica}"
        there = sorted(
            (node, pid)
            for key, pids in running.items()
            if key[:2] == (service, replica)
            for pid in pids
            for node in (key[2],)
        )
        if self.sim.services.is_everywhere(service):
            if [node for node, _ in there] != nodes:
                self._violated(f"services: {what} is to run once on each of {nodes}, but runs as {there}")
            return
        if len(there) != (1 if nodes else len(there[:1])):
            self._violated(f"services: {what} is to run once on one of {nodes}, but runs as {there}")
        if there and nodes and there[0][0] not in nodes:
            self._violated(f"services: {what} is to run on one of {nodes}, but runs as {there}")
        if there:
            self._check_claim(service, replica, *there[0])

    def _check_claim(self, service: str, replica: int, node: str, pid: str) -> None:
        store, life = self.sim.store, self.sim.machines[node].life
        held = store.kvs.get(f"/wippy/sim/services/{service}/{replica}")
        if held is None or held.value != node.encode() or held.lease != life.keeper.lease.id:
            self._violated(f"services: {service}/{replica} runs on {node} as {pid}, but its claim is {held}")
        state = store.kvs.get(f"/wippy/sim/services/{service}/{replica}.state")
        if state is None or pid.encode() not in state.value:
            self._violated(f"services: {service}/{replica} runs as {pid}, but its state is {state and state.value!r}")

    def _check_strays(self, running: dict[tuple[str, int, str], list[str]]) -> None:
        known = {pid for pids in running.values() for pid in pids}
        for machine in self.sim.machines.values():
            for pid in machine.life.vm.of_services():
                if pid.decode() not in known:
                    self._violated(f"services: {pid!r} runs and no supervisor knows of it")

    def _violated(self, what: str) -> None:
        self.sim.world.violated(what)
