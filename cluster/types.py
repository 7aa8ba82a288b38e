"""Protocols at the seams of the package, each with its real implementation where that is one line.

A component takes these in its constructor, so that tests can give it a virtual clock.
"""

from __future__ import annotations

import time
from typing import Protocol

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Where a component gets the time from."""

    def now(self) -> float:
        """Seconds since some fixed point; never goes back and keeps counting while the machine sleeps."""
        ...


class BootClock:
    """The machine's clock. Counts through suspend where the system has such a clock (CLOCK_BOOTTIME)."""

    def now(self) -> float:
        return time.clock_gettime(_BOOTTIME)
