"""One Lua VM in a thread: the node posts items, the VM answers with batches.

``post`` never blocks. Output is handed to ``on_output`` on the event loop, one batch per step
(or several joined), in the order the kernel gave it. A VM whose output nobody takes stops
stepping until it is taken, so a process that logs without end can't fill the node's memory.
Short steps of a VM whose thread sleeps are done on the event loop (``node.host.inline``).

An error of the kernel itself ends the VM: it is logged, ``on_failure`` is called, and what
lived in it is gone. Errors of processes never get here. Leaving ``async with`` ends the thread
after its current step; call ``stop`` before to let processes end in order.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, Self

import structlog

from cluster.envelope import Kind
from node.host import inline
from node.host.boundary import In, Item, Out
from node.host.inline import Allowance, Inline
from node.host.kernel import Kernel, VmConfig

log = structlog.get_logger("wippy.vm")

BATCH, BATCH_BYTES = 2000, 8 * 1024 * 1024
"""Items taken into one step, so that reading them does not outlast the step nor fill the VM."""
LARGEST_BACKLOG = 20_000
"""Items out of the VM that nobody took yet; beyond, it waits."""
DELIVERY_SLICE = 0.005
DELIVERY_PAUSE = 0.001
"""Seconds of the event loop that output may take in one go, and how long it then gives way."""
DELIVERED_AT_ONCE = 256
NAP = 0.02
TICK = 0.002
"""Seconds a VM with nothing but timers sleeps at least: timers that are due close together cost one step."""
STEP_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
BOOT_DEADLINE = timedelta(seconds=10)
JOIN_DEADLINE = timedelta(seconds=5)


MESSAGES = int(Kind.MESSAGES)
OURS = int(min(Out))
"""Below are envelopes."""


class VmGone(Exception):
    """The VM ended, or broke, before it answered."""


class StepObserver(Protocol):
    """Told around each step, in the thread it runs in: who renews the node's lease watches for a VM that hangs."""

    def step_began(self, slot: int) -> None: ...

    def step_ended(self, slot: int) -> None: ...


@dataclass(frozen=True, slots=True)
class VmStats:
    """A VM as it is now. ``step_counts`` are steps by the bounds of ``STEP_BOUNDS`` (seconds), the last beyond all."""

    slot: int
    host: str
    processes: int
    run_queue: int
    memory: int
    max_memory: int
    items_in: int
    items_out: int
    waiting_in: int
    waiting_out: int
    steps: int
    step_seconds: float
    step_counts: tuple[int, ...]
    stepping_for: float
    out_of_memory: int
    failed: bool
    counter: int


class Vm:
    """A VM and its thread. Use it with ``async with``; all methods are for the event loop's thread."""

    def __init__(
        self,
        slot: int,
        node: str,
        incarnation: int,
        host_id: str,
        config: VmConfig,
        modules: Mapping[str, str],
        on_output: Callable[[Vm, list[Item]], None],
        *,
        on_failure: Callable[[Vm, BaseException], None] | None = None,
        on_step: StepObserver | None = None,
        counter: int | None = None,
        inline: Inline | None = None,
    ) -> None:
        self.slot = slot
        self.host_id = host_id
        self._identity = (slot, node, incarnation, host_id)
        self._counter = counter
        self._config = config
        self._modules = modules
        self._on_output = on_output
        self._on_failure = on_failure
        self._on_step = on_step
        self._inline = inline or Inline()
        self._allowance = Allowance()
        self._called = False
        self._turn = threading.Lock()  # whoever steps has it
        self._due = self._wakes_at = math.inf
        self._inbox: deque[Item] = deque()
        self._taken: list[bytes] = []
        self._outbox: deque[list[Item]] = deque()
        self._bell = threading.Lock()
        self._sleeping = False
        self._held_up = False
        self._ending = False
        self._delivering = False
        self._failed = False
        self._queries: dict[int, asyncio.Future[Any]] = {}
        self._last_query = 0
        self._stopped: asyncio.Event = asyncio.Event()
        self._in = self._out = self._taken_out = 0
        self._steps = 0
        self._step_seconds = 0.0
        self._step_counts = [0] * (len(STEP_BOUNDS) + 1)
        self._step_began = 0.0
        self._live = self._run_queue = 0
        self._kernel: Kernel | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        booted: asyncio.Future[None] = self._loop.create_future()
        self._bell.acquire()
        self._thread = threading.Thread(target=self._run, args=(booted,), name=f"vm-{self.slot}", daemon=True)
        self._thread.start()
        async with asyncio.timeout(BOOT_DEADLINE.total_seconds()):
            await booted
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        self._ring()
        self._give_up_queries()
        try:
            async with asyncio.timeout(JOIN_DEADLINE.total_seconds()):
                await asyncio.shield(self._ended)
        except TimeoutError:
            log.error("VM does not end; its thread is left behind", slot=self.slot, host=self.host_id)

    def post(self, item: Item) -> None:
        """Hand an item to the kernel (layouts: ``node.host.boundary``). Never blocks."""
        self._inbox.append(item)
        if self._sleeping and not self._called:
            self._called = True
            self._inline.call(self)

    def change(self, config: VmConfig) -> None:
        """Give a VM that runs other limits. What was handed out beyond them stays."""
        self._config = config
        if self._kernel is not None:
            self._kernel.change(config)
        self._due = 0.0
        self.wake()

    async def query(self, what: bytes, argument: Any = None, *, timeout: timedelta = timedelta(seconds=5)) -> Any:
        """Ask the kernel what it shows: b"list", b"inspect" (a PID), b"counters", b"mail", b"idle".

        Raises TimeoutError, and VmGone when the VM ends meanwhile.
        """
        self._last_query += 1
        number = self._last_query
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._queries[number] = answer
        try:
            self.post([int(In.QUERY), number, what, argument])
            async with asyncio.timeout(timeout.total_seconds()):
                return await answer
        finally:
            self._queries.pop(number, None)

    def _give_up_queries(self) -> None:
        for answer in self._queries.values():
            if not answer.done():  # never cancelled: that would cancel whoever asks
                answer.set_exception(VmGone(f"VM {self.slot} of {self.host_id} is gone"))

    async def stop(self, reason: str, grace: timedelta) -> bool:
        """CANCEL to every process, and kill what is left after ``grace``. Returns whether nothing lives any more."""
        deadline = int((time.time() + grace.total_seconds()) * 1000)
        self.post([int(In.STOP), reason.encode(), grace.total_seconds(), deadline])
        try:
            async with asyncio.timeout(grace.total_seconds() + 5):
                await self._stopped.wait()
        except TimeoutError:
            log.error("VM did not stop", slot=self.slot, host=self.host_id, processes=self._live)
            return False
        return True

    def whose_turn(self) -> int:
        """Whose turn it is, as ``Kernel.whose_turn`` tells. From any thread."""
        return self._kernel.whose_turn() if self._kernel is not None else 0

    @property
    def failed(self) -> bool:
        """Whether its kernel broke: nothing lives in it any more."""
        return self._failed

    @property
    def gone(self) -> bool:
        """Whether its thread has done its last step."""
        return self._ended.done()

    def stats(self) -> VmStats:
        """Numbers as of the last step; never waits for the VM."""
        began = self._step_began
        kernel = self._kernel
        return VmStats(
            slot=self.slot,
            host=self.host_id,
            processes=self._live,
            run_queue=self._run_queue,
            memory=self._memory,
            max_memory=self._config.max_memory,
            items_in=self._in,
            items_out=self._out,
            waiting_in=len(self._inbox),
            waiting_out=self._out - self._taken_out,
            steps=self._steps,
            step_seconds=self._step_seconds,
            step_counts=tuple(self._step_counts),
            stepping_for=time.monotonic() - began if began else 0.0,
            out_of_memory=kernel.out_of_memory if kernel else 0,
            failed=self._failed,
            counter=kernel.counter if kernel else self._counter or self.slot,
        )

    _memory = 0

    def step_here(self) -> None:
        """Take what was posted in a step on the event loop, or wake the thread when that is not for here."""
        self._called = False
        if not self._sleeping or not self._inbox:
            return  # the thread is awake: it looks at the inbox before it sleeps
        if not self._is_for_the_loop():
            self._ring()
        elif self._turn.acquire(blocking=False):
            try:
                self._step_here()
            finally:
                self._turn.release()

    def _is_for_the_loop(self) -> bool:
        return (
            len(self._inbox) <= inline.ITEMS
            and self._memory <= inline.HEAP
            and self._out == self._taken_out
            and not self._ending
            and self._allowance.permits(time.monotonic())
        )

    def _step_here(self) -> None:
        kernel = self._kernel
        assert kernel is not None
        if self._take_in(kernel, inline.ITEMS, inline.BYTES) >= inline.BYTES:
            self._ring()
            return
        began = time.thread_time()
        try:
            self._step(kernel, inline.SECONDS)
        except BaseException as error:  # noqa: BLE001 - the VM ends here: the node is told
            self._fail(error)
            return
        self._allowance.took(time.thread_time() - began, time.monotonic())
        if self._inbox or self._due < self._wakes_at:
            self._ring()
        self._delivering = True
        self._deliver()

    def wake(self) -> None:
        """Let the thread look at what there is."""
        self._called = False
        if self._sleeping:
            self._ring()

    def _ring(self) -> None:
        self._sleeping = False
        if self._bell.locked():
            self._bell.release()

    def _deliver(self) -> None:
        """Hand over what is there, for at most a slice of the loop's time: others on the loop have their turn."""
        until = time.monotonic() + DELIVERY_SLICE
        while self._outbox:
            batch = self._outbox.popleft()
            now, later = batch[:DELIVERED_AT_ONCE], batch[DELIVERED_AT_ONCE:]
            if later:
                self._outbox.appendleft(later)
            self._taken_out += len(now)
            kept = [item for item in now if item[0] < OURS or not self._is_ours(item)]
            if kept:
                self._on_output(self, kept)
            if time.monotonic() > until and self._outbox:
                self._loop.call_later(DELIVERY_PAUSE, self._deliver)
                return
        self._delivering = False
        if self._outbox:  # put there by the VM's thread since the look above
            self._delivering = True
            self._loop.call_soon(self._deliver)
        if self._held_up:
            self._ring()

    def _is_ours(self, item: Item) -> bool:
        """What the VM handles itself."""
        match item[0]:
            case Out.COMPLAINT:
                log.error(
                    "kernel complains", slot=self.slot, host=self.host_id, problem=item[1].decode("utf-8", "replace")
                )
            case Out.STOPPED:
                self._stopped.set()
                return False
            case Out.QUERY_ANSWER if item[1] in self._queries:
                answer = self._queries[item[1]]
                if not answer.done():
                    answer.set_result(item[2])
            case _:
                return False
        return True

    # In the VM's thread.

    def _run(self, booted: asyncio.Future[None]) -> None:
        try:
            self._kernel = Kernel(*self._identity, self._config, self._modules, counter=self._counter)
        except BaseException as error:  # noqa: BLE001 - whoever starts the VM gets it
            self._tell(_fail, booted, error)
            self._tell(_finish, self._ended)
            return
        self._tell(_finish, booted)
        try:
            self._work(self._kernel)
        except BaseException as error:  # noqa: BLE001 - the thread ends here: the node is told
            self._tell(self._fail, error)
        finally:
            self._step_began = 0.0
            self._tell(_finish, self._ended)

    def _work(self, kernel: Kernel) -> None:
        while not self._ending:
            if self._out - self._taken_out > LARGEST_BACKLOG:
                self._held_up = True
                self._sleep(time.monotonic() + NAP)
                self._held_up = False
                continue
            with self._turn:
                is_due = bool(self._inbox or self._taken) or self._due <= time.monotonic()
                if is_due:
                    self._take_in(kernel, BATCH, min(BATCH_BYTES, self._config.max_memory // 16))
                    self._step(kernel)
            if not is_due:
                self._sleep(self._due)
            elif self._outbox and not self._delivering:
                self._delivering = True
                self._tell(self._deliver)

    def _step(self, kernel: Kernel, seconds: float = math.inf) -> None:
        """One step with what was taken in; what comes out is in the outbox then, and when the next is due noted."""
        texts, self._taken = self._taken, []
        began = time.monotonic()
        self._step_began = began
        if self._on_step is not None:
            self._on_step.step_began(self.slot)
        stepped = kernel.step_packed(texts, seconds)
        if self._on_step is not None:
            self._on_step.step_ended(self.slot)
        self._step_began = 0.0
        ended = time.monotonic()
        self._in += len(texts)
        self._steps += 1
        self._step_seconds += ended - began
        self._step_counts[bisect_left(STEP_BOUNDS, ended - began)] += 1
        self._live, self._run_queue, self._memory = stepped.live, stepped.run_queue, kernel.memory
        if stepped.out:
            self._out += len(stepped.out)
            self._outbox.append(stepped.out)
        if stepped.wait is None:
            self._due = math.inf
        else:
            self._due = ended + max(stepped.wait, TICK) if stepped.wait else 0.0

    def _take_in(self, kernel: Kernel, most: int, most_bytes: int) -> int:
        """Pack items for the next step, until they are so many or have so many bytes. Returns their bytes."""
        inbox, texts = self._inbox, self._taken
        count, size = 0, sum(map(len, texts))
        while inbox and count < most and size < most_bytes:
            item = inbox.popleft()
            text = kernel.pack(item)
            texts.append(text)
            count += item[4] if item[0] == MESSAGES else 1
            size += len(text)
        return size

    def _sleep(self, until: float) -> None:
        """Sleep until then, or something comes. The event loop may step meanwhile, and the next step be due earlier."""
        self._wakes_at = until
        self._sleeping = True
        if self._inbox or self._taken or self._ending or self._due < until:
            self._sleeping = False
            return
        seconds = until - time.monotonic()
        self._bell.acquire(timeout=-1 if seconds == math.inf else max(0.0, min(seconds, threading.TIMEOUT_MAX)))
        self._sleeping = False

    def _tell(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            self._ending = True

    def _fail(self, error: BaseException) -> None:
        self._failed = self._ending = True
        self._ring()
        log.critical("VM failed: all its processes are gone", slot=self.slot, host=self.host_id, exc_info=error)
        self._give_up_queries()
        self._stopped.set()
        if self._on_failure is not None:
            self._on_failure(self, error)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
