"""Names that are kept: each node has a process that registers one of its own and wants it as long as it lives.

A STRONG registration that returns is shown by every node that was registered when it began. When all is quiet every
name of a living process resolves to it on every node.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster.errors import ClusterError
from cluster.names import Scope

if TYPE_CHECKING:
    from tests.sim.machine import Life
    from tests.sim.simulation import Simulation


class Holders:
    """``keep`` is the part of the workload."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self._held: dict[str, tuple[Life, str]] = {}

    async def keep(self, life: Life) -> None:
        """Register a name, and again whenever it is lost."""
        pick, number = self.sim.world.pick, 0
        while not life.leaving:
            number += 1
            name, scope = f"{life.label}-{number}", pick((Scope.STRONG, Scope.STRONG, Scope.CONSISTENT, Scope.EVENTUAL))
            process = life.vm.spawn()
            self.sim.checker.homes[process.pid] = life
            pid = process.pid.decode()
            shown_by = {(member.node, member.epoch) for member in life.members.all()}
            try:
                registered = await life.names.register(name, pid, scope, life.keeper.lease.id)
            except ClusterError:
                life.vm.end(process)
                await asyncio.sleep(pick((0.1, 0.5)))
                continue
            if scope is Scope.STRONG:
                self._check_shown(life, name, registered.revision, shown_by)
            self._held[name] = (life, pid)
            until = life.loop.time() + pick((0.2, 0.5, 2.0, 100.0))
            while pid not in life.revoked and life.loop.time() < until:
                await asyncio.sleep(pick((0.2, 0.4)))
            del self._held[name]
            life.vm.end(process)

    def _check_shown(self, life: Life, name: str, revision: int, before: set[tuple[str, int]]) -> None:
        self.sim.checker.counts["strong"] += 1
        now = {(member.node, member.epoch) for member in life.members.all()}
        for node, epoch in sorted(before & now):
            there = self.sim.machines[node].life
            if there.alive and there.serves == epoch and there.watch.applied < revision:
                text = f"{life.label} was told that every node shows {name!r}, but {there.label} does not"
                self.sim.world.violated(f"STRONG: {text}")

    def quiet(self) -> None:
        """Every kept name resolves to its process on every node."""
        for name, (life, pid) in sorted(self._held.items()):
            if not life.alive or pid in life.revoked or pid.encode() not in life.vm.processes:
                continue
            for machine in self.sim.machines.values():
                found = machine.life.names.lookup(name)
                if found is None or found.pid != pid:
                    self.sim.world.violated(f"names: {name!r} of {pid} is {found} on {machine.life.label}")
