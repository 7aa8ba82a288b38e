"""The workers of one host: its Lua VMs, each in a thread, and which of them gets what.

``Host`` is what the router knows of a host: what is posted to it goes to the least loaded
worker; what is for a process goes to the worker in whose slot the process lives. ``look`` is
called at an interval: it sees how busy each worker is and tells the VMs where new processes
start (``node.balance``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.envelope import Kind
from cluster.registry import Entry
from node.balance import STAY, Elsewhere, Load, elsewhere, least_loaded
from node.host import Vm, VmConfig, VmStats
from node.host.boundary import In, Item

STARTS = frozenset({Kind.SPAWN, Kind.CALL})


@dataclass(frozen=True)
class Counters:
    """What the kernel of a VM counted, as of the last ``refresh``. Mappings are by entry id, by reason, or by limit."""

    live: Mapping[str, int] = field(default_factory=dict)
    spawned: Mapping[str, int] = field(default_factory=dict)
    exits: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    """How often each limit was met."""
    received: int = 0
    mail: int = 0
    short_of_memory: int = 0

    @classmethod
    def of(cls, told: dict[str, Any], mail: int) -> Counters:
        entries: dict[str, dict[str, Any]] = told["entries"] or {}
        exits: dict[str, int] = {}
        for counts in entries.values():
            for reason, number in (counts["exits"] or {}).items():
                exits[reason] = exits.get(reason, 0) + number
        return cls(
            live={entry: counts["live"] for entry, counts in entries.items()},
            spawned={entry: counts["spawned"] for entry, counts in entries.items()},
            exits=exits,
            dead_letters=told["dead_letters"],
            limits=told["limits"] or {},
            received=sum(counts["received"] for counts in entries.values()),
            mail=mail,
            short_of_memory=int(told["short_of_memory"]),
        )

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            live=_sum(self.live, other.live),
            spawned=_sum(self.spawned, other.spawned),
            exits=_sum(self.exits, other.exits),
            dead_letters=_sum(self.dead_letters, other.dead_letters),
            limits=_sum(self.limits, other.limits),
            received=self.received + other.received,
            mail=self.mail + other.mail,
            short_of_memory=self.short_of_memory + other.short_of_memory,
        )

    def ended(self) -> Counters:
        """What remains of them when the VM has ended: what only grows."""
        return Counters(
            spawned=self.spawned,
            exits=self.exits,
            dead_letters=self.dead_letters,
            limits=self.limits,
            received=self.received,
        )


def _sum(first: Mapping[str, int], second: Mapping[str, int]) -> Mapping[str, int]:
    return {key: first.get(key, 0) + second.get(key, 0) for key in (*first, *(k for k in second if k not in first))}


@dataclass
class Worker:
    """One VM of a host. ``number`` counts from 1 within the host."""

    vm: Vm
    number: int
    counters: Counters = field(default_factory=Counters)
    retiring: bool = False
    """Nothing new starts in it; it ends when nothing lives there any more."""
    ending: bool = False
    end: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever ends it."""
    _load: Load | None = None
    _handed: int = 0
    _looked: tuple[float, float] = (0.0, 0.0)
    _told: Elsewhere = STAY

    @property
    def load(self) -> Load:
        seen = self._load or Load(self.vm.slot)
        return Load(seen.slot, seen.busy, seen.processes + self._handed, seen.run_queue, self.retiring)

    def look(self, now: float) -> None:
        """See how busy it was since the last look."""
        stats = self.vm.stats()
        spent = stats.step_seconds + stats.stepping_for
        since, before = self._looked
        busy = (spent - before) / (now - since) if since else 0.0
        self._looked, self._handed = (now, spent), 0
        self._load = Load(self.vm.slot, min(max(busy, 0.0), 1.0), stats.processes + stats.waiting_in, stats.run_queue)

    def hand(self, item: Item) -> None:
        """Post something that starts a process."""
        self._handed += 1
        self.vm.post(item)

    def send_children(self, where: Elsewhere) -> None:
        """Tell the VM where its processes' children start."""
        if where != self._told:
            self._told = where
            self.vm.post([int(In.ELSEWHERE), where.slot, where.every])


@dataclass(frozen=True)
class WorkerStats:
    """One worker's figures."""

    number: int
    retiring: bool
    busy: float
    vm: VmStats
    counters: Counters


@dataclass(frozen=True)
class HostStats:
    """One host's figures. ``asked`` is how many workers its entry asks for; ``counters`` are of all, ended ones too."""

    host: str
    kind: str
    asked: int
    config: VmConfig
    workers: tuple[WorkerStats, ...]
    counters: Counters

    @property
    def processes(self) -> int:
        return sum(worker.vm.processes for worker in self.workers)


class Host:
    """A host that runs. ``entry`` is None for the node's own."""

    def __init__(self, host_id: str, entry: Entry | None, config: VmConfig, asked: int = 1) -> None:
        self.host_id = host_id
        self.entry = entry
        self.config = config
        self.asked = asked
        self.workers: list[Worker] = []
        self._past = Counters()

    def post(self, item: Item) -> None:
        """Hand an item to the least loaded worker."""
        chosen = self.least_loaded()
        if item[0] in STARTS and len(self.workers) > 1:
            chosen.hand(item)
        else:
            chosen.vm.post(item)

    def least_loaded(self) -> Worker:
        """The worker that has the least to do."""
        if len(self.workers) == 1:
            return self.workers[0]
        able = {worker.vm.slot: worker for worker in self.workers if not worker.ending and not worker.vm.failed}
        if not able:
            return self.workers[0]
        return able[least_loaded([worker.load for worker in able.values()]).slot]

    def add(self, vm: Vm) -> Worker:
        taken = {worker.number for worker in self.workers}
        worker = Worker(vm, next(number for number in range(1, len(taken) + 2) if number not in taken))
        self.workers.append(worker)
        return worker

    def drop(self, worker: Worker) -> None:
        """The worker has ended; what it counted stays counted."""
        self.workers.remove(worker)
        self._past += worker.counters.ended()

    def staying(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.retiring]

    def answering(self) -> Iterator[Worker]:
        """The workers that can be asked something."""
        return (worker for worker in list(self.workers) if not worker.vm.failed)

    def look(self) -> None:
        """See how busy the workers are, and tell them where new processes start."""
        if len(self.workers) == 1 and not self.workers[0].retiring:
            self.workers[0].send_children(STAY)
            return
        now = time.monotonic()
        for worker in self.workers:
            worker.look(now)
        loads = [worker.load for worker in self.workers if not worker.ending]
        for worker in self.workers:
            own = worker.load
            worker.send_children(elsewhere(own, [load for load in loads if load.slot != own.slot]))

    def stats(self) -> HostStats:
        return HostStats(
            host=self.host_id,
            kind=self.entry.kind if self.entry else "node",
            asked=self.asked,
            config=self.config,
            workers=tuple(
                WorkerStats(worker.number, worker.retiring, worker.load.busy, worker.vm.stats(), worker.counters)
                for worker in self.workers
            ),
            counters=sum((worker.counters for worker in self.workers), self._past),
        )
