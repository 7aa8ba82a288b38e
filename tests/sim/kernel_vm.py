"""A VM with the real kernel in it, stepped in virtual time: a host of its own on a node of the simulation.

A step takes no time; what comes out leaves a moment later, in its order. The kernel's tables have no order that a
seed decides: the ends of one process that leave in a row are sorted, and what is left of that is too little to matter
to what is checked, but not to the last event of a run.
"""

from __future__ import annotations

import asyncio
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cluster.envelope import Kind
from node.host.boundary import In, Item, Out
from node.host.kernel import Kernel, VmConfig
from node.lua.dialect import transform
from node.modules import load_halves

if TYPE_CHECKING:
    from tests.sim.machine import Life

PROGRAMS = "app:programs"
ENDS = frozenset({Kind.EXIT, Kind.UNMONITOR, Kind.UNLINK})

SAYS = frozenset({Kind.MESSAGE, Kind.MESSAGES})


@cache
def _package(id: str, source: str) -> dict[bytes, Any]:
    return {
        b"id": id.encode(),
        b"kind": b"process.lua",
        b"source": transform(source, id).encode(),
        b"method": b"main",
        b"modules": [b"channel", b"coroutine"],
        b"imports": {},
        b"version": 1,
    }


class _Clock:
    """The clocks of a life, as a kernel asks for them."""

    def __init__(self, life: Life) -> None:
        self._clocks = life.clocks

    def monotonic_ns(self) -> int:
        return round((self._clocks.monotonic() + 1e4) * 1e9)

    def time_ns(self) -> int:
        return round((self._clocks.wall() + 1e9) * 1e9)


class KernelVm:
    """``post`` takes items for it; envelopes that come out are routed, the rest is answered here."""

    slot = 2
    host_id = PROGRAMS

    def __init__(self, life: Life, programs: dict[str, str]) -> None:
        self._life = life
        self._programs = programs
        self._inbox: list[Item] = []
        self._is_called = False
        self._over: set[bytes] = set()
        self.kernel = Kernel(self.slot, life.name, life.incarnation, PROGRAMS, VmConfig(), load_halves(), _Clock(life))

    def post(self, item: Item) -> None:
        self._inbox.append(item)
        self._call(self._life.sim.world.pick((0.0, 0.0, 0.0005, 0.003)))

    def processes(self) -> list[str]:
        """The PIDs of what lives in it."""
        stepped = self.kernel.step([[int(In.QUERY), 1, b"list", None]])
        rows = next(item[2] for item in stepped.out if item[0] == Out.QUERY_ANSWER)
        return [row[b"pid"].decode() for row in rows]

    def _call(self, delay: float) -> None:
        if not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_later(delay, self._step)

    def _step(self) -> None:
        self._is_called = False
        inbox, self._inbox = self._inbox, []
        stepped = self.kernel.step(inbox)
        for item in _in_order(stepped.out):
            self._take(item)
        if self._inbox or stepped.wait == 0:
            self._call(0.0)
        elif stepped.wait is not None:
            asyncio.get_running_loop().call_later(stepped.wait + 1e-6, self._call, 0.0)

    def _take(self, item: Item) -> None:
        if item[0] < 32:
            self._check_is_no_ghost(item)
            self._life.router.route(item)
        elif item[0] == Out.CODE:
            id = item[2].decode()
            self._inbox.append([int(In.ANSWER), item[1], None, [_package(id, self._programs[id])]])
        elif item[0] == Out.ENDED:
            self._life.process_ended(item[1])
        elif item[0] == Out.COMPLAINT:
            self._life.sim.world.violated(f"kernel of {self._life.label}: {item[1]!r}")

    def _check_is_no_ghost(self, item: Item) -> None:
        """EXIT comes after all that a process says."""
        if item[0] == Kind.EXIT:
            self._over.add(item[2])
        elif item[0] in SAYS and item[2] in self._over:
            self._life.sim.world.violated(f"L9: {item[:5]} leaves {self._life.label} after the end of its sender")


def _in_order(items: list[Item]) -> list[Item]:
    ordered: list[Item] = []
    for of, group in groupby(items, key=lambda item: (item[0], item[2]) if item[0] in ENDS else None):
        some = list(group)
        ordered += some if of is None else sorted(some, key=lambda item: item[1])
    return ordered
