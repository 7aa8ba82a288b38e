"""The watchdog: tells of a VM that does not come back from a step.

A step lasts milliseconds; what keeps one for seconds is a C function no yield point can
interrupt. Nothing can stop it from outside, so the watchdog only says so, once per step, with
the host. The lease keeper is told of every step on its own (``StepObserver``) and ends the
node when its limit is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

import structlog

from cluster.tasks import Tasks
from node.host.vm import Vm

log = structlog.get_logger("wippy.watchdog")


class Watchdog:
    """Looks at all VMs of a node at an interval. Use it with ``async with``."""

    def __init__(
        self,
        vms: Callable[[], Iterable[Vm]],
        *,
        limit: timedelta = timedelta(seconds=2),
        interval: timedelta = timedelta(seconds=1),
    ) -> None:
        self._vms = vms
        self._limit = limit.total_seconds()
        self._interval = interval.total_seconds()
        self._tasks = Tasks("watchdog")
        self._told: dict[int, int] = {}
        self.wedged: frozenset[int] = frozenset()
        """Slots of the VMs that are over the limit now."""

    async def __aenter__(self) -> Self:
        self._tasks.start(self._watch(), "watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()

    async def _watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(self._interval)

    def look(self) -> None:
        """Look once."""
        wedged = set()
        for vm in self._vms():
            stats = vm.stats()
            if stats.stepping_for <= self._limit:
                continue
            wedged.add(vm.slot)
            if self._told.get(vm.slot) != stats.steps:
                self._told[vm.slot] = stats.steps
                log.error("VM is in one step", host=stats.host, slot=vm.slot, seconds=round(stats.stepping_for, 1))
        self.wedged = frozenset(wedged)
