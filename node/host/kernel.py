"""A Lua VM with the kernel in it, without a thread: whoever owns it calls ``step``.

No Python object ever gets into it: Python pushes plain data before a step and reads plain
data after it, and there are no callbacks. The memory limit holds only while Lua runs: at the
limit, pushing anything from Python would abort the whole operating-system process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import NamedTuple

import lupa.lua54 as lupa

from cluster.envelope import MAX_MESSAGE
from node.host.boundary import Item, ItemPacker, pack_batch, unpack_batch
from node.host.sources import read_boot, read_kernel, read_modules, with_points

LEAST_MEMORY = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class VmConfig:
    """What a VM is allowed. All limits are per VM unless they say otherwise."""

    max_memory: int = 512 * 1024 * 1024
    """Bytes of the Lua heap; at it, the process at fault is killed."""
    mailbox_limit: int = 10_000
    """Messages waiting for one process; more are refused."""
    max_processes: int = 100_000
    """Processes and function calls alive at once; more are refused."""
    max_message: int = MAX_MESSAGE
    """Bytes of one message that leaves the VM."""
    quantum: int = 20_000
    """Yield points a process passes before others run; fewer when its points are far apart."""
    step: timedelta = timedelta(milliseconds=3)
    """How long a step runs while there is work."""
    default_scope: int | None = None
    """Scope of a name registered without one; None leaves it to the node."""
    single: bool = False
    """A host for one process at a time, as a terminal is."""

    def __post_init__(self) -> None:
        if self.max_memory < LEAST_MEMORY:
            raise ValueError(f"expected max_memory >= {LEAST_MEMORY} bytes, got {self.max_memory}")
        for name in ("mailbox_limit", "max_processes", "max_message", "quantum"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")


class Stepped(NamedTuple):
    """What a step gave. ``wait``: 0 = call again at once, seconds until a timer is due, None = until something
    comes."""

    out: list[Item]
    wait: float | None
    live: int
    run_queue: int


def _deny(obj: object, name: object, is_setting: bool) -> object:
    raise AttributeError("objects of the host have no attributes here")


class Kernel:
    """One Lua state. To be used by one thread at a time."""

    def __init__(
        self, slot: int, node: str, incarnation: int, host: str, config: VmConfig, modules: Mapping[str, str]
    ) -> None:
        if not 0 < slot < 64:
            raise ValueError(f"expected a slot of 1 to 63, got {slot}")
        self._limit = config.max_memory
        self._seconds = config.step.total_seconds()
        self.out_of_memory = 0
        self.pack = ItemPacker().pack
        self._lua = lupa.LuaRuntime(
            encoding=None,
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
            attribute_filter=_deny,
            max_memory=0,
        )
        settings = {
            name.encode(): value for name, value in asdict(config).items() if name != "step" and value is not None
        }
        settings |= {b"slot": slot, b"node": node.encode(), b"incarnation": incarnation, b"host": host.encode()}
        halves = {name.encode(): with_points(name, text) for name, text in modules.items()}
        halves |= {name.encode(): text for name, text in read_modules().items()}
        boot = self._lua.compile(read_boot())
        self._feed, self._step, self._collect, self._recover, self._relieve = boot(
            self._lua.table_from(settings),
            self._lua.table_from(read_kernel(), recursive=True),
            self._lua.table_from(halves),
        )

    @property
    def memory(self) -> int:
        """Bytes of the Lua heap."""
        return int(self._lua.get_memory_used())

    def step(self, items: list[Item]) -> Stepped:
        """Take ``items`` and let processes run. Raises LuaError when the kernel itself is broken."""
        return self.step_packed([self.pack(item) for item in items])

    def step_packed(self, texts: list[bytes]) -> Stepped:
        """The same with items that ``pack`` has packed."""
        if texts:
            self._feed(pack_batch(texts))
        if self.memory > self._limit * 0.95:
            self._relieve()
        now = time.monotonic_ns()
        self._lua.set_max_memory(self._limit)
        try:
            count, wait, live, run_queue = self._step(now, time.time_ns(), self._seconds)
        except lupa.LuaMemoryError:
            self._lua.set_max_memory(0)
            self._recover()
            self.out_of_memory += 1
            return Stepped([], 0, 0, 0)
        finally:
            self._lua.set_max_memory(0)
        if wait:
            wait = max(0.0, (wait - now) / 1e9)
        return Stepped(unpack_batch(self._collect()) if count else [], wait, live, run_queue)
