"""Process groups: processes that join and leave, and broadcasts to whoever is a member.

A broadcast reaches each process at most once and in the order of its sender. When all is quiet every node knows the
same members: those that live and did not leave.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING

from cluster.envelope import Envelope
from cluster.registry import Entry

if TYPE_CHECKING:
    from tests.sim.machine import Life
    from tests.sim.simulation import Simulation
    from tests.sim.vm import Process

SCOPE = Entry("app:pack", "pg.scope", {}, {"anti_entropy_interval": "1s"})
GROUPS = ("red", "blue")
TO_GROUP = b"to group"


class Pack:
    """``run`` is the part of the workload."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self._members: dict[tuple[str, str], Life] = {}
        self._last: dict[tuple[bytes, bytes, str], int] = {}

    async def run(self, life: Life) -> None:
        await asyncio.sleep(self.sim.world.pick((0.0, 0.1, 1.0)))
        await life.groups.put(SCOPE)
        life.tasks.start(self._broadcast(life), "broadcasts")
        while not life.leaving:
            process = life.vm.spawn()
            self.sim.checker.homes[process.pid] = life
            await self._be_member(life, process)
            life.vm.end(process)

    async def _be_member(self, life: Life, process: Process) -> None:
        pick, pid = self.sim.world.pick, process.pid.decode()
        scope = life.groups.find(SCOPE.id)
        assert scope is not None
        while process.alive:
            group = pick(GROUPS)
            if (group, pid) in self._members:
                life.groups.leave(scope, pid, [group])
                del self._members[group, pid]
            else:
                life.groups.join(scope, pid, [group])
                self._members[group, pid] = life
            await asyncio.sleep(pick((0.1, 0.5, 2.0)))
            while not self.sim.workload.sending:
                await asyncio.sleep(1.0)
            if pick((False, False, False, True)):
                return

    async def _broadcast(self, life: Life) -> None:
        pick, process, numbers = self.sim.world.pick, life.vm.spawn(), count(1)
        self.sim.checker.homes[process.pid] = life
        while not life.leaving:
            await asyncio.sleep(pick((0.05, 0.3, 1.0)))
            scope = life.groups.find(SCOPE.id)
            if scope is not None and self.sim.workload.sending:
                for _ in range(pick((1, 1, 4))):
                    group = pick(GROUPS)
                    life.groups.broadcast(scope, group, process.pid, TO_GROUP, [next(numbers), group.encode()])

    def arrived(self, life: Life, envelope: Envelope) -> None:
        """A member takes a broadcast."""
        number, group = envelope[5]
        way = (envelope[2], envelope[1], group.decode())
        self.sim.checker.counts["broadcasts"] += 1
        if number <= self._last.get(way, 0):
            text = f"{life.label} takes broadcast {number} of {envelope[2]!r} after {self._last[way]}"
            self.sim.world.violated(f"G1: {text}")
        self._last[way] = number

    def quiet(self) -> None:
        """Every node knows every member."""
        for group in GROUPS:
            wanted = sorted(
                pid
                for (one, pid), life in self._members.items()
                if one == group and life.alive and pid.encode() in life.vm.processes
            )
            for machine in self.sim.machines.values():
                scope = machine.life.groups.find(SCOPE.id)
                if scope is not None and scope.core.members(group) != wanted:
                    known = scope.core.members(group)
                    self.sim.world.violated(f"groups: {machine.life.label} has {known} in {group}, not {wanted}")
