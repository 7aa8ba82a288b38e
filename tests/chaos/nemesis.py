"""What breaks things: faults drawn from a seed, done to a cluster in bounded time, and what trouble they made.

``draw`` is pure: a schedule is a list of faults in turns, each with pauses; a turn is one fault, or two of different
targets at once. Whatever happens, ``heal`` undoes everything. A fault that ends a process or a registration says so in
the troubles: the checkers excuse only what they find there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tests.chaos.checking.troubles import Trouble, Troubles, What
from tests.chaos.proxy import Proxy, Slowness, Way


class Kind(Enum):
    """The faults there are."""

    KILL = "kill -9 of a node, started again"
    PAUSE = "SIGSTOP and SIGCONT of a node"
    CUT_NATS = "connections of a node to NATS broken and refused"
    HOLD_NATS = "nothing gets through between a node and NATS"
    CUT_ETCD = "connections of a node to etcd broken and refused"
    HOLD_ETCD = "nothing gets through between a node and etcd"
    CUT_BOTH = "a node cut off from both servers"
    HOLD_BOTH = "nothing gets through between a node and either server"
    DEAF = "nothing gets through from NATS to a node"
    SLOW = "a slow link between a node and both servers"
    RESTART_NATS = "kill -9 of nats-server, started again"
    RESTART_ETCD = "kill -9 of etcd, started again"


SERVERS = (Kind.RESTART_NATS, Kind.RESTART_ETCD)


@dataclass(frozen=True)
class Fault:
    """One fault: at which node ("": a server), how long, after which pause."""

    kind: Kind
    node: str
    seconds: float
    pause: float

    def __str__(self) -> str:
        where = f" ({self.node})" if self.node else ""
        return f"{self.pause:.1f} s later, for {self.seconds:.1f} s: {self.kind.value}{where}"


Turn = tuple[Fault, ...]
"""Faults that begin together."""


@dataclass(frozen=True)
class Measures:
    """How long faults last: ``short`` is below the TTL of leases, ``long`` beyond the time it takes to act on them."""

    short: tuple[float, float] = (0.3, 2.0)
    long: tuple[float, float] = (6.8, 7.8)
    away: tuple[float, float] = (0.1, 2.0)
    """Of a server."""
    pause: tuple[float, float] = (0.2, 1.5)
    share_long: float = 0.4
    """Of the faults that may be long."""
    share_two: float = 0.0
    """Of the turns that are two faults at once."""


def draw(seed: int, nodes: Sequence[str], turns: int, measures: Measures) -> list[Turn]:
    """A schedule. Every kind comes once before any comes again."""
    dice = random.Random(seed)
    kinds: list[Kind] = []
    schedule: list[Turn] = []
    while len(schedule) < turns:
        wanted = 2 if dice.random() < measures.share_two else 1
        turn: list[Fault] = []
        for _ in range(wanted):
            if not kinds:
                kinds = list(Kind)
                dice.shuffle(kinds)
            fault = _fault(kinds.pop(), nodes, dice, measures)
            if all((fault.node, fault.kind in SERVERS) != (other.node, other.kind in SERVERS) for other in turn):
                turn.append(fault)
        schedule.append(tuple(turn))
    return schedule


def _fault(kind: Kind, nodes: Sequence[str], dice: random.Random, measures: Measures) -> Fault:
    if kind in SERVERS:
        span = measures.away
    else:
        span = measures.long if dice.random() < measures.share_long else measures.short
    seconds, pause = round(dice.uniform(*span), 2), round(dice.uniform(*measures.pause), 2)
    return Fault(kind, "" if kind in SERVERS else dice.choice(nodes), seconds, pause)


class Target(Protocol):
    """A cluster that can be hurt."""

    @property
    def nodes(self) -> Sequence[str]: ...

    @property
    def nats_ways(self) -> Mapping[str, Proxy]: ...

    @property
    def etcd_ways(self) -> Mapping[str, Proxy]: ...

    troubles: Troubles
    """What trouble there was so far."""

    async def kill(self, node: str) -> None: ...

    async def start(self, node: str) -> None: ...

    def stop(self, node: str) -> None: ...

    def go_on(self, node: str) -> None: ...

    async def kill_server(self, kind: Kind) -> None: ...

    async def start_server(self, kind: Kind) -> None: ...


class Nemesis:
    """Performs schedules on a target and adds to its troubles."""

    def __init__(self, target: Target, seed: int) -> None:
        self._target = target
        self._dice = random.Random(seed)

    async def perform(self, schedule: Iterable[Turn]) -> None:
        """All turns, one after the other; then everything is healed."""
        for turn in schedule:
            await asyncio.sleep(max(fault.pause for fault in turn))
            async with asyncio.TaskGroup() as group:
                for fault in turn:
                    group.create_task(self._do(fault))

    async def _do(self, fault: Fault) -> None:
        print(f"{time.monotonic():.3f} {fault}", flush=True)
        nodes = [fault.node] if fault.node else list(self._target.nodes)
        begin = time.monotonic_ns()
        async with AsyncExitStack() as stack:
            await self._begin(fault, stack)
            await asyncio.sleep(fault.seconds)
        end = time.monotonic_ns()
        troubles = [Trouble(node, what, begin, end) for node in nodes for what in _whats(fault.kind)]
        self._target.troubles.every += troubles

    async def _begin(self, fault: Fault, stack: AsyncExitStack) -> None:
        """Do it, and leave its undoing in ``stack``."""
        target, node = self._target, fault.node
        match fault.kind:
            case Kind.KILL:
                await target.kill(node)
                stack.push_async_callback(target.start, node)
            case Kind.PAUSE:
                target.stop(node)
                stack.callback(target.go_on, node)
            case Kind.RESTART_NATS | Kind.RESTART_ETCD:
                await target.kill_server(fault.kind)
                stack.push_async_callback(target.start_server, fault.kind)
            case _:
                await self._hurt_ways(fault, stack)

    async def _hurt_ways(self, fault: Fault, stack: AsyncExitStack) -> None:
        nats, etcd = self._target.nats_ways[fault.node], self._target.etcd_ways[fault.node]
        for way in _ways(fault.kind, nats, etcd):
            stack.push_async_callback(way.mend)
            if fault.kind in (Kind.CUT_NATS, Kind.CUT_ETCD, Kind.CUT_BOTH):
                await way.cut()
            elif fault.kind is Kind.SLOW:
                delay, rate = self._dice.uniform(0.02, 0.15), self._dice.choice([0, 500_000, 1_000_000])
                way.slow(Slowness(delay, delay / 2, rate))
            elif fault.kind is Kind.DEAF:
                way.hold(Way.BACK)
            else:
                way.hold()


def _ways(kind: Kind, nats: Proxy, etcd: Proxy) -> list[Proxy]:
    whats = _whats(kind)
    if What.SLOW in whats:
        return [nats, etcd]
    return [way for what, way in ((What.NATS, nats), (What.ETCD, etcd)) if what in whats]


def _whats(kind: Kind) -> tuple[What, ...]:
    match kind:
        case Kind.KILL:
            return (What.DEAD,)
        case Kind.PAUSE:
            return (What.STOPPED,)
        case Kind.CUT_NATS | Kind.HOLD_NATS | Kind.DEAF | Kind.RESTART_NATS:
            return (What.NATS,)
        case Kind.CUT_ETCD | Kind.HOLD_ETCD | Kind.RESTART_ETCD:
            return (What.ETCD,)
        case Kind.CUT_BOTH | Kind.HOLD_BOTH:
            return (What.NATS, What.ETCD)
        case Kind.SLOW:
            return (What.SLOW,)
