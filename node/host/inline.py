"""Steps on the event loop: a VM that has little to do is spared the way to its thread and back.

What is posted to VMs that sleep in one turn of the loop is taken there and then, one short step for each VM. The
way to a thread and back costs several times what such a step takes. The thread takes over whenever there is more:
many items or bytes, a step that did not get everything done, timers, or a turn of the loop that has had its share.

Nothing can be handed over in the middle of a step, so one may turn out long: a slow instruction, a collection of
garbage. What long steps may take of the loop is limited for each VM: beyond, it keeps to its thread for a while. A
step without end is noticed by the lease keeper like any other.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

SECONDS = 0.0002
"""How long a step on the loop runs while there is work."""
ITEMS, BYTES = 32, 64 * 1024
"""Most that one step on the loop takes in."""
HEAP = 24 * 1024 * 1024
"""A VM with more in use keeps to its thread: collecting its garbage takes too long."""
SHORT = 0.001
"""Seconds of CPU time beyond which a step was a long one."""
SHARE, AT_ONCE = 0.05, 0.02
"""The part of the loop's time that long steps of one VM may take, and how much of it, in seconds, in a row."""
TURN = 0.002
"""Seconds the steps of one turn of the loop may take together."""


class Sleeper(Protocol):
    """A VM whose thread sleeps, as far as it matters here."""

    def step_here(self) -> None: ...

    def wake(self) -> None: ...


class Allowance:
    """Whether a VM may be stepped on the loop: not while its long steps have taken too much. Times are seconds."""

    def __init__(self) -> None:
        self._left = AT_ONCE
        self._at = 0.0

    def permits(self, now: float) -> bool:
        if self._left < AT_ONCE:
            self._left = min(AT_ONCE, self._left + (now - self._at) * SHARE)
            self._at = now
        return self._left > 0

    def took(self, seconds: float, now: float) -> None:
        """A step on the loop took so much CPU time."""
        if seconds > SHORT:
            self.permits(now)
            self._left -= seconds
            self._at = now


class Inline:
    """The VMs of one event loop that have something to do and sleep."""

    def __init__(self) -> None:
        self._called: list[Sleeper] = []
        self._turn: asyncio.Handle | None = None

    def call(self, vm: Sleeper) -> None:
        """There is something for ``vm``: step it in the next turn of the loop, or wake it then."""
        self._called.append(vm)
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._run)

    def run(self) -> None:
        """Do it now: whoever posts has posted all there is."""
        if self._turn is not None:
            self._turn.cancel()
            self._run()

    def _run(self) -> None:
        self._turn = None
        called, self._called = self._called, []
        until = time.monotonic() + TURN
        for vm in called:
            if time.monotonic() < until:
                vm.step_here()
            else:
                vm.wake()
