"""Which worker of a host gets the next process.

A worker is a Lua VM with its thread; a host may have several. What comes from outside goes to
the least loaded one. A process started from inside begins beside its parent, where messages
are cheapest, unless that worker is clearly busier than another: then every second child goes
there. A worker that is to end gets nothing new and gives all its children away.

All decisions here are pure. Loads are looked at about once a second; what was handed out since is counted in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_WORKERS = 16
BUSY = 0.8
"""Share of a second: below, a worker has room for its own children."""
CLEARLY = 0.3
"""By how much less busy another worker must be."""
QUEUE = 8
"""Processes that wait for their turn, from which a busy worker counts as crowded."""
GRADES = 4
"""Loads are compared in so many grades, so that small differences don't decide."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much a worker has to do. ``busy`` is its share of the last second, ``processes`` with those on their way."""

    slot: int
    busy: float = 0.0
    processes: int = 0
    run_queue: int = 0
    retiring: bool = False


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """One of ``every`` processes started in a worker goes to the one in ``slot``; 0: all stay."""

    slot: int = 0
    every: int = 0


STAY = Elsewhere()


def effective_workers(asked: int, cores: int) -> int:
    """How many workers a host gets that asks for ``asked``."""
    return max(1, min(asked, cores, MOST_WORKERS))


def least_loaded(loads: Sequence[Load]) -> Load:
    """The worker for what comes from outside. Raises ValueError when there is none."""
    if not loads:
        raise ValueError("expected at least one worker")
    return min(loads, key=lambda load: (load.retiring, round(load.busy * GRADES), load.processes, load.slot))


def elsewhere(own: Load, others: Sequence[Load]) -> Elsewhere:
    """Where the children of the processes in ``own`` start."""
    staying = [load for load in others if not load.retiring]
    if not staying:
        return STAY
    best = least_loaded(staying)
    if own.retiring:
        return Elsewhere(best.slot, 1)
    if own.busy < BUSY:
        return STAY
    is_busier = own.busy - best.busy >= CLEARLY
    is_crowded = own.run_queue >= QUEUE and best.run_queue * 4 <= own.run_queue
    return Elsewhere(best.slot, 2) if is_busier or is_crowded else STAY
