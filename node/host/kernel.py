"""A Lua VM with the kernel in it, without a thread: whoever owns it calls ``step``.

No Python object ever gets into it: Python pushes plain data before a step and reads plain
data after it, and there are no callbacks. The memory limit holds only while Lua runs: at the
limit, pushing anything from Python would abort the whole operating-system process.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import NamedTuple, Protocol

import lupa.lua54 as lupa

from cluster.envelope import MAX_MESSAGE
from node.host.boundary import Item, ItemPacker, pack_batch, unpack_batch
from node.host.prodding import PRODDED, STEPPING, as_integer, find_number, start_prodding
from node.host.sources import read_boot, read_kernel, read_modules, with_points

LEAST_MEMORY = 8 * 1024 * 1024
COUNTS = (
    "mailbox_limit",
    "max_processes",
    "max_message",
    "max_timers",
    "max_waiting",
    "max_subscriptions",
    "pcall_depth",
    "quantum",
)
DEEPEST = 100
"""Levels of pcall that leave room for a yield point on the C stack."""
SOFT_LIMIT = 0.8
"""Of the memory limit: beyond, the kernel measures its processes and kills the largest."""
ROOM_ABOVE = 1.1
"""Of what is used, when the memory limit is set below that: the VM must be able to work its way down."""
WATCHED, WATCHED_STEP = 0.5, 0.001
"""Beyond this share of the memory limit steps are short, so that nothing gets from there to the limit in one."""


@dataclass(frozen=True, slots=True)
class VmConfig:
    """What a VM is allowed. All limits are per VM unless they say otherwise."""

    max_memory: int = 512 * 1024 * 1024
    """Bytes of the Lua heap; at it, the process at fault is killed."""
    mailbox_limit: int = 10_000
    """Messages waiting for one process; more are refused."""
    mailbox_policy: str = "reject"
    """"kill" ends a process whose mailbox is full; "reject" only refuses the message."""
    max_processes: int = 100_000
    """Processes and function calls alive at once; more are refused."""
    max_message: int = MAX_MESSAGE
    """Bytes of one message."""
    max_timers: int = 100_000
    """Timers and tickers of one process, sleeps and deadlines among them."""
    max_waiting: int = 10_000
    """Answers one process waits for at once, its streams among them."""
    max_subscriptions: int = 10_000
    """Topics one process listens to."""
    pcall_depth: int = 60
    """How deep pcall, xpcall and coroutine.resume may be nested."""
    quantum: int = 20_000
    """Yield points a process passes before others run; fewer when its points are far apart."""
    stretch: float = 0.25
    """Seconds of code that can't be interrupted, such as the comparator of a sort, before its process is killed."""
    step: timedelta = timedelta(milliseconds=3)
    """How long a step runs while there is work."""
    log_level: int = -1
    """The lowest level of what programs log that leaves the VM: -1 is debug, 2 error."""
    default_scope: int | None = None
    """Scope of a name registered without one; None leaves it to the node."""
    single: bool = False
    """A host for one process at a time, as a terminal is."""

    def __post_init__(self) -> None:
        if self.max_memory < LEAST_MEMORY:
            raise ValueError(f"expected max_memory >= {LEAST_MEMORY} bytes, got {self.max_memory}")
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if self.pcall_depth > DEEPEST:
            raise ValueError(f"expected pcall_depth <= {DEEPEST}, got {self.pcall_depth}")

    def limits(self) -> dict[bytes, object]:
        """What the kernel knows of it and can be told again while it runs."""
        fixed = ("step", "default_scope", "single")
        return {name.encode(): _packed(value) for name, value in asdict(self).items() if name not in fixed}


def _packed(value: object) -> object:
    return value.encode() if isinstance(value, str) else value


CORES = os.cpu_count() or 1
"""In a step no clock can be read but the CPU's, which goes faster by as many as run at once."""


class Stepped(NamedTuple):
    """What a step gave. ``wait``: 0 = call again at once, seconds until a timer is due, None = until something
    comes."""

    out: list[Item]
    wait: float | None
    live: int
    run_queue: int


class Clock(Protocol):
    """What time it is for the processes of a VM."""

    def monotonic_ns(self) -> int: ...

    def time_ns(self) -> int: ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def time_ns(self) -> int:
        return time.time_ns()


def _deny(obj: object, name: object, is_setting: bool) -> object:
    raise AttributeError("objects of the host have no attributes here")


class Kernel:
    """One Lua state. To be used by one thread at a time."""

    def __init__(
        self,
        slot: int,
        node: str,
        incarnation: int,
        host: str,
        config: VmConfig,
        modules: Mapping[str, str],
        clock: Clock | None = None,
        *,
        counter: int | None = None,
    ) -> None:
        if not 0 < slot < 64:
            raise ValueError(f"expected a slot of 1 to 63, got {slot}")
        self._clock = clock or SystemClock()
        self._limit = self._ceiling = config.max_memory
        self._next: VmConfig | None = None
        self._seconds = config.step.total_seconds()
        self.out_of_memory = 0
        self.counter = slot if counter is None else counter
        """The last counter of a PID of this slot."""
        self.short = False
        """Many small processes fill the VM: nothing new starts in it."""
        self.pack = ItemPacker().pack
        self._lua = lupa.LuaRuntime(
            encoding=None,
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
            attribute_filter=_deny,
            max_memory=0,
        )
        settings = config.limits() | {b"single": config.single}
        if config.default_scope is not None:
            settings[b"default_scope"] = config.default_scope
        settings[b"counter"] = slot if counter is None else counter
        settings |= {b"slot": slot, b"node": node.encode(), b"incarnation": incarnation, b"host": host.encode()}
        halves = {name.encode(): with_points(name, text) for name, text in modules.items()}
        halves |= {name.encode(): text for name, text in read_modules().items()}
        boot = self._lua.compile(read_boot())
        *functions, place, mark, whose_place, whose_mark = boot(
            self._lua.table_from(settings),
            self._lua.table_from(read_kernel(), recursive=True),
            self._lua.table_from(halves),
        )
        self._feed, self._step, self._collect, self._recover, self._relieve, self._change = functions
        self._count = find_number(int(place, 16), mark)
        self._whose = as_integer(find_number(int(whose_place, 16), whose_mark))
        self.step_began = 0.0
        start_prodding()

    def change(self, config: VmConfig) -> None:
        """These limits from the next step on. From any thread."""
        self._next = config

    def whose_turn(self) -> int:
        """The counter of the process whose turn it is, or of the port of the node that keeps it or an ancestor; 0
        between turns, or when that can't be told. From any thread."""
        return 0 if self._whose is None else self._whose.value

    def prod(self) -> None:
        """Let the process that runs give way at its next yield point. From any thread."""
        if self._count is not None:
            self._count.value = PRODDED

    def _take_limits(self, config: VmConfig) -> None:
        self._limit = config.max_memory
        self._ceiling = max(self._limit, round(self.memory * ROOM_ABOVE))
        self._seconds = config.step.total_seconds()
        self._change(self._lua.table_from(config.limits()))

    @property
    def memory(self) -> int:
        """Bytes of the Lua heap."""
        return int(self._lua.get_memory_used())

    def step(self, items: list[Item], most: float = math.inf) -> Stepped:
        """Take ``items`` and let processes run. Raises LuaError when the kernel itself is broken."""
        return self.step_packed([self.pack(item) for item in items], most)

    def step_packed(self, texts: list[bytes], most: float = math.inf) -> Stepped:
        """The same with items that ``pack`` has packed. A step lasts at most ``most`` seconds while there is work."""
        if self._next is not None:
            config, self._next = self._next, None
            self._take_limits(config)
        if texts:
            self._feed(pack_batch(texts))
        used, now = self.memory, self._clock.monotonic_ns()
        if self.short or used > self._limit * SOFT_LIMIT:
            self.short = bool(self._relieve(now))
            used, now = self.memory, self._clock.monotonic_ns()
        seconds = min(most, self._seconds if used < self._limit * WATCHED else min(self._seconds, WATCHED_STEP))
        if used < self._limit * SOFT_LIMIT:
            self._ceiling = self._limit
        self.step_began = time.monotonic()
        STEPPING.add(self)
        parallel = min(len(STEPPING), CORES)
        self._lua.set_max_memory(self._ceiling)
        try:
            count, wait, live, run_queue, self.counter = self._step(
                now, self._clock.time_ns(), seconds * parallel, parallel
            )
        except lupa.LuaMemoryError:
            self._lua.set_max_memory(0)
            self._recover()
            self.out_of_memory += 1
            return Stepped([], 0, 0, 0)
        finally:
            STEPPING.discard(self)
            self._lua.set_max_memory(0)
        if wait:
            wait = max(0.0, (wait - now) / 1e9)
        return Stepped(unpack_batch(self._collect()) if count else [], wait, live, run_queue)
