"""The runs of a supervisor's children: where each lives, and which can't be reached.

A run that can't be reached counts as alive until its node answers again - by then the kernel there
has ended it - or its node's registration is over.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Run:
    """One run of one child. ``epoch`` is that of its node when it was asked for there; 0 on the supervisor's own."""

    child: str
    number: int
    node: str
    epoch: int
    pid: bytes = b""
    """Empty until it has answered."""
    is_lost: bool = False
    timer: asyncio.TimerHandle | None = None

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Runs:
    """All runs that live, may live or are being started."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._by_pid: dict[bytes, Run] = {}
        self.load: Counter[str] = Counter()
        """How many there are on each node."""

    def add(self, run: Run) -> None:
        self._runs[run.number] = run
        self.load[run.node] += 1

    def born(self, run: Run, pid: bytes) -> None:
        run.pid = pid
        self._by_pid[pid] = run

    def get(self, number: int) -> Run | None:
        return self._runs.get(number)

    def of(self, pid: bytes) -> Run | None:
        return self._by_pid.get(pid)

    def remove(self, run: Run) -> None:
        run.cancel_timer()
        if self._runs.pop(run.number, None) is not None:
            self.load[run.node] -= 1
            self._by_pid.pop(run.pid, None)

    def lost_on(self, node: str, epoch: int) -> list[Run]:
        return [run for run in self._runs.values() if run.is_lost and (run.node, run.epoch) == (node, epoch)]

    def on(self, node: str) -> list[Run]:
        return [run for run in self._runs.values() if run.node == node]

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def __len__(self) -> int:
        return len(self._runs)
