"""One run: some nodes, their workload, faults for a while, and then peace in which everything must come right again.

``run(seed)`` raises Violation, or returns what happened. Real constants that would make a run long (timeouts, probes,
looks at the clock) are shorter here; nothing else of the product is changed.

    python -m tests.sim.simulation SEED       this seed alone, with its trace
    python -m tests.sim.simulation SEED COUNT that many seeds from there on
    python -m tests.sim.simulation SEED COUNT THEME all of one theme
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import cluster.fencing
import cluster.link
import cluster.links
import cluster.locks
import node.replica
import node.replicas
from tests.sim.bus import Network
from tests.sim.by_name import ByName
from tests.sim.checker import Checker
from tests.sim.faults import Faults, Trouble
from tests.sim.holders import Holders
from tests.sim.keeper import KEEPER_TICK, BootClock, client_of
from tests.sim.machine import Machine
from tests.sim.owned_checker import OwnedChecker
from tests.sim.pack import Pack
from tests.sim.programs import Programs
from tests.sim.services import Services
from tests.sim.store import Store
from tests.sim.workload import Workload
from tests.sim.world import ProcessLoop, Violation, World

NAMES = ("a", "b", "c", "d")
LAST = 15
"""Events shown of a run that failed."""
THEMES = (*("links",) * 8, *("names",) * 4, *("services",) * 4, "lease", "lease", "hangs", "programs")


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
    kill_deadline: float = 2.0


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

    def __init__(self, seed: int, theme: str = "") -> None:
        self.world = World(seed)
        dice = self.world.random
        self.theme = theme or self.world.pick(THEMES)
        self.times = Times()
        self.network = Network(self.world, unruly=dice.random() < 0.5)
        self.store = Store(self.world)
        self.trouble = Trouble()
        self.long = dice.random() < 0.2 or self.theme == "hangs"
        """Few faults that last, rather than many."""
        self.machines: dict[str, Machine] = {}
        self.checker = Checker(self)
        self.by_name = ByName(self)
        self.owned = OwnedChecker(self)
        self.store.on_lease_end, self.store.on_delete = self.owned.lease_ends, self.owned.key_goes
        self.services = Services(self)
        self.holders = Holders(self)
        self.pack = Pack(self)
        self.programs = Programs(self)
        self.workload = Workload(self)
        for name in NAMES[: dice.choice((2, 2, 2, 2, 3, 3, 4))]:
            self.machines[name] = Machine(self, name)

    def run(self) -> Outcome:
        times, world = self.times, self.world
        try:
            faults = times.long_faults if self.long else times.faults
            Faults(self, faults)
            at = faults + times.settle
            world.run(faults)
            self.workload.calm = True
            self.services.calm()
            world.run(at)
            world.note("checker", "proof")
            world.run(at + times.proof)
            self.checker.alive_again(at)
            self.owned.placed()
            self.workload.sending = False
            world.run(at + times.proof + times.quiet)
            self.checker.quiet()
            self.holders.quiet()
            self.pack.quiet()
            self.programs.quiet()
            self.by_name.quiet()
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

    @staticmethod
    def time() -> float:
        running = asyncio.get_running_loop()
        assert isinstance(running, ProcessLoop)
        return running.clocks.wall()


@contextmanager
def staged(seed: int) -> Iterator[None]:
    """The product's modules as a run needs them: their log, their clock and their dice are those of the run."""
    dice, times = Random(seed), Times()
    changes: list[tuple[Any, str, Any]] = [
        (cluster.locks.secrets, "token_hex", lambda n: f"{dice.getrandbits(64):x}"),
        (node.replica, "KILL_DEADLINE", times.kill_deadline),
        (node.replicas, "KILL_DEADLINE", times.kill_deadline),
        (cluster.link, "PROBE_EVERY", times.probe_every),
        (cluster.links, "HOUSEKEEPING", 0.25),
        (cluster.fencing, "BootClock", BootClock),
        (cluster.fencing, "Etcd", client_of),
        (cluster.fencing, "_TICK_SECONDS", KEEPER_TICK),
    ]
    own = {"log": _Silent(), "time": _Clock, "random": dice}
    for name, module in list(sys.modules.items()):
        if name.startswith(("cluster.", "node.")) and not name.startswith("node.host."):  # its threads are real
            for attribute, new in own.items():
                if attribute in vars(module) and (attribute == "log" or vars(module)[attribute] in (time, random)):
                    changes.append((module, attribute, new))
    before = [(place, attribute, getattr(place, attribute)) for place, attribute, _ in changes]
    for place, attribute, new in changes:
        setattr(place, attribute, new)
    try:
        yield
    finally:
        for place, attribute, old in before:
            setattr(place, attribute, old)


def run(seed: int, theme: str = "") -> Outcome:
    """Raises Violation; its message says how to run this seed alone."""
    with staged(seed):
        simulation = Simulation(seed, theme)
        try:
            return simulation.run()
        except Violation as violation:
            what = simulation.world.first or violation
            raise Violation(_told(simulation, what, seed, theme)) from violation


def _told(simulation: Simulation, what: object, seed: int, theme: str) -> str:
    """The seed, what was violated, and the last that happened before."""
    last = "\n".join("  " + " ".join(map(str, entry)) for entry in simulation.world.trace[-LAST:])
    again = f"python -m tests.sim.simulation {seed} 1 {theme}".rstrip()
    return f"seed {seed} ({simulation.theme}) at {simulation.world.now:.3f} s: {what}\nalone: {again}\n{last}"


def show(seed: int, theme: str = "") -> bool:
    """Print the trace of one seed; whether it held."""
    with staged(seed):
        simulation = Simulation(seed, theme)
        try:
            print(simulation.run())
            return True
        except Violation as violation:
            for entry in simulation.world.trace:
                print(*entry)
            print("VIOLATION", violation)
            return False


def main(first: int, count: int = 1, theme: str = "") -> int:
    if count == 1:
        return 0 if show(first, theme) else 1
    begun, bad = time.process_time(), 0
    for seed in range(first, first + count):
        try:
            run(seed, theme)
        except Violation as violation:
            bad += 1
            print(violation)
    print(f"{count} seeds, {bad} violations, {count / (time.process_time() - begun):.1f} seeds per CPU second")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *map(int, sys.argv[2:3]), *sys.argv[3:4]))
