"""One run: some nodes, their workload, faults for a while, and then peace in which everything must come right again.

``run(seed)`` raises Violation, or returns what happened. Real constants that would make a run long (timeouts, probes,
looks at the clock) are shorter here; nothing else of the product is changed.

    python -m tests.sim.simulation SEED       this seed alone, with its trace
    python -m tests.sim.simulation SEED COUNT that many seeds from there on
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest.mock import patch

import cluster.handlers
import cluster.link
import cluster.links
import cluster.locks
import cluster.members
import cluster.names
import cluster.pursuit
import cluster.tasks
import node.lockholders
import node.ownership
import node.router
from tests.sim.bus import Network
from tests.sim.checker import Checker
from tests.sim.faults import Faults, Trouble
from tests.sim.machine import Machine
from tests.sim.store import Store
from tests.sim.workload import Workload
from tests.sim.world import Violation, World

NAMES = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Times:
    """How long things take here, and how much may wait."""

    timeout: float = 5.0
    probe_every: float = 1.5
    buffer_bytes: int = 3_000
    buffer_envelopes: int = 40
    faults: float = 9.0
    long_faults: float = 20.0
    settle: float = 9.0
    proof: float = 3.5
    quiet: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """A run without violation."""

    seed: int
    nodes: int
    seconds: float
    frames: int
    frames_lost: int
    counts: dict[str, int]
    digest: str


class Simulation:
    """A cluster of machines in one world."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        random = self.world.random
        self.times = Times()
        self.network = Network(self.world, unruly=random.random() < 0.5)
        self.store = Store(self.world)
        self.trouble = Trouble()
        self.long = random.random() < 0.2
        """Few faults that last, rather than many."""
        self.machines: dict[str, Machine] = {}
        self.checker = Checker(self)
        self.workload = Workload(self)
        for name in NAMES[: random.choice((2, 2, 2, 2, 3, 3, 4))]:
            self.machines[name] = Machine(self, name)

    def run(self) -> Outcome:
        times, world = self.times, self.world
        try:
            faults = times.long_faults if self.long else times.faults
            Faults(self, faults)
            at = faults + times.settle
            world.run(faults)
            self.workload.calm = True
            world.run(at)
            world.note("checker", "proof")
            world.run(at + times.proof)
            self.checker.alive_again(at)
            self.workload.sending = False
            world.run(at + times.proof + times.quiet)
            self.checker.quiet()
        finally:
            world.close()
        return self._outcome()

    def _outcome(self) -> Outcome:
        checker = self.checker
        return Outcome(
            seed=self.world.seed,
            nodes=len(self.machines),
            seconds=self.world.now,
            frames=self.network.frames,
            frames_lost=self.network.lost,
            counts=dict(checker.counts),
            digest=digest(self.world.trace),
        )


def digest(trace: list[tuple[Any, ...]]) -> str:
    return hashlib.sha256(repr(trace).encode()).hexdigest()


class _Silent:
    """A log nobody reads. Failures that are only logged are violations here."""

    def error(self, event: str, **details: Any) -> None:
        if "exc_info" in details:
            raise Violation(f"{event}: {details}") from details["exc_info"]

    def _nothing(self, event: str, **details: Any) -> None:
        pass

    debug = info = warning = critical = _nothing


class _Clock:
    """``time`` for modules that ask it: the time of the process that runs."""

    @staticmethod
    def monotonic() -> float:
        return asyncio.get_running_loop().time()


@contextmanager
def staged(seed: int) -> Iterator[None]:
    """The product's modules as a run needs them."""
    random, times, silent = Random(seed), Times(), _Silent()
    with ExitStack() as stack:
        logging = (
            cluster.handlers,
            cluster.links,
            cluster.locks,
            cluster.members,
            cluster.names,
            cluster.pursuit,
            cluster.tasks,
            node.lockholders,
            node.ownership,
            node.router,
        )
        for module in logging:
            stack.enter_context(patch.object(module, "log", silent))
        for module in (cluster.locks, cluster.names, node.ownership):
            stack.enter_context(patch.object(module, "time", _Clock))
        stack.enter_context(patch.object(cluster.locks.secrets, "token_hex", lambda n: f"{random.getrandbits(64):x}"))
        stack.enter_context(patch.object(cluster.link, "PROBE_EVERY", times.probe_every))
        stack.enter_context(patch.object(cluster.links, "HOUSEKEEPING", 0.25))
        yield


def run(seed: int) -> Outcome:
    """Raises Violation; its message says how to run this seed alone."""
    with staged(seed):
        simulation = Simulation(seed)
        try:
            return simulation.run()
        except Violation as violation:
            what = simulation.world.first or violation
            again = f"python -m tests.sim.simulation {seed}"
            raise Violation(f"seed {seed} at {simulation.world.now:.3f} s: {what}\nalone: {again}") from violation


def show(seed: int) -> bool:
    """Print the trace of one seed; whether it held."""
    with staged(seed):
        simulation = Simulation(seed)
        try:
            print(simulation.run())
            return True
        except Violation as violation:
            for entry in simulation.world.trace:
                print(*entry)
            print("VIOLATION", violation)
            return False


def main(first: int, count: int) -> int:
    if count == 1:
        return 0 if show(first) else 1
    begun, bad = time.monotonic(), 0
    for seed in range(first, first + count):
        try:
            run(seed)
        except Violation as violation:
            bad += 1
            print(violation)
    print(f"{count} seeds, {bad} violations, {count / (time.monotonic() - begun):.1f} seeds/s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
