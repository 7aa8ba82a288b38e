"""Prodding: a step that lasts too long is told so from another thread, while Lua runs.

Yield points count down and look at the clock at zero: cheap, but a program whose single
instructions are slow (comparing huge strings, walking huge emptied tables) passes thousands of
them before. No lock can be taken and no Lua called meanwhile, and hooks cost every loop half its
speed. So the count itself is overwritten: all code of a VM counts with one number in one place
that lives as long as the VM, and a negative one makes the next yield point look at the clock.

The place is found by what is in it: the kernel says where its variable is and puts two marks there.
Where they are not seen (another layout, another Lua), nobody prods and the counts work alone.
In the same way the number of the process whose turn it is can be read while its step hangs.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Protocol

import structlog

log = structlog.get_logger("wippy.vm")

PRODDED = -(2.0**40)
"""More than any yield point counts below zero by itself."""
PATIENCE = 0.008
"""Seconds a step may last before its process is prodded: more than twice what it is given."""
INTERVAL, IDLE_INTERVAL = 0.004, 0.02
MARKS = (1.3407807929942596e154, -2.2250738585072011e-300)
UPVALUE_BYTES = 40


class Steps(Protocol):
    """A kernel, as far as it matters here."""

    step_began: float

    def prod(self) -> None: ...


def find_number(place: int, mark: Callable[[float], float]) -> ctypes.c_double | None:
    """The number behind the upvalue at ``place``, which ``mark`` sets; None when it is not where it should be."""
    before = mark(MARKS[0])
    found = ctypes.string_at(place, UPVALUE_BYTES).find(struct.pack("=d", MARKS[0]))
    mark(MARKS[1])
    count = ctypes.c_double.from_address(place + found) if found >= 0 and found % 8 == 0 else None
    if count is not None and count.value == MARKS[1]:
        count.value = before
        if mark(before) == before:
            return count
    mark(before)
    log.warning("steps of VMs can't be looked at from outside: this Lua keeps its variables elsewhere")
    return None


def as_integer(number: ctypes.c_double | None) -> ctypes.c_int64 | None:
    """The same place, read as the integer Lua keeps there."""
    return None if number is None else ctypes.c_int64.from_address(ctypes.addressof(number))


STEPPING: set[Steps] = set()
"""Kernels in a step now."""


@cache
def start_prodding() -> None:
    """Watch the kernels that are in a step, in a thread of its own, as long as Python runs."""
    threading.Thread(target=_watch, name="prodding", daemon=True).start()


def _watch() -> None:
    while True:
        time.sleep(INTERVAL if STEPPING else IDLE_INTERVAL)
        prod_late(time.monotonic())


def prod_late(now: float) -> None:
    """Prod every kernel whose step lasts too long. While it is looked at a kernel can't be freed."""
    for kernel in tuple(STEPPING):
        if now - kernel.step_began > PATIENCE:
            kernel.prod()
