"""Virtual time for several machines in one thread: a heap of events, and an event loop for each thread of a process.

Every thread of the simulation that has an event loop (a process's main loop, its lease keeper) has one of its own, so
that it can be stopped between any two turns (SIGSTOP) while the others go on, and killed by never running it again.
Loops and everything outside of them (the network, the store, the plan of faults) share one heap of events and one
source of randomness, so a seed decides everything that happens.

The clocks of each process are its own: they began at some other time than those of the others, run a little fast or
slow, stand still while the machine sleeps, or are set anew by somebody, each as the real one of its name does.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")


class Violation(AssertionError):
    """Something happened that must never happen."""


class World:
    """The clock, the events to come, and what was noted of those that were."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self._draw = self.random.random
        self.now = 0.0
        self.trace: list[tuple[Any, ...]] = []
        self.first = ""
        """The first violation: handlers may swallow it, or others follow."""
        self.loops: list[ProcessLoop] = []
        self._heap: list[tuple[float, int, Actor | None, Callable[[], Any]]] = []
        self._count = 0

    def after(self, delay: float, work: Callable[[], Any], actor: Actor | None = None) -> None:
        """Do ``work`` so many seconds from now; in ``actor``, if it lives and as soon as it is not stopped."""
        self._count += 1
        heappush(self._heap, (self.now + delay, self._count, actor, work))

    def pick(self, choices: Sequence[T]) -> T:
        """One of them: ``random.choice``, four times as fast."""
        return choices[int(self._draw() * len(choices))]

    def run(self, until: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, actor, work = heappop(heap)
            if actor is None:
                work()
            else:
                actor.take(work)
            if self.first:
                raise Violation(self.first)
        self.now = until

    def note(self, who: str, what: str, *details: Any) -> None:
        self.trace.append((round(self.now, 4), who, what, *details))

    def violated(self, what: str) -> None:
        self.note("checker", what)
        self.first = self.first or what
        raise Violation(what)

    def close(self) -> None:
        """End what still waits in the loops, so that nothing of this world runs later."""
        for loop in self.loops:
            loop.end()
        self._heap.clear()


class Actor:
    """Something that can be stopped, go on, and die: a process's main loop, or its lease keeper's thread."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = False
        self.stopped = False
        self._missed: list[Callable[[], Any]] = []

    def take(self, work: Callable[[], Any]) -> None:
        if self.dead:
            return
        if self.stopped:
            self._missed.append(work)
        else:
            self.execute(work)

    def execute(self, work: Callable[[], Any]) -> None:
        work()

    def halt(self) -> None:
        self.stopped = True

    def go_on(self, delay: float = 0.0) -> None:
        """Run what came meanwhile, in its order, ``delay`` seconds from now."""
        self.world.after(delay, self._go_on)

    def _go_on(self) -> None:
        self.stopped = False
        missed, self._missed = self._missed, []
        for work in missed:
            self.take(work)


@dataclass
class Clocks:
    """What time it is for one process. ``wall`` is set by people; ``slept`` are seconds the machine was suspended."""

    world: World
    offset: float = 0.0
    rate: float = 1.0
    wall_offset: float = 0.0
    slept: float = 0.0

    def boot(self) -> float:
        """CLOCK_BOOTTIME: counts through a suspension."""
        return self.world.now * self.rate + self.offset

    def monotonic(self) -> float:
        return self.world.now * self.rate + self.offset - self.slept

    def wall(self) -> float:
        return self.world.now + self.wall_offset


class Handle:
    """What asyncio wants of a handle, and no more: most of the time of a run was spent in making the real ones."""

    __slots__ = ("_args", "_call", "_cancelled", "_run", "_when")

    def __init__(
        self, call: Callable[..., Any], args: Any, context: contextvars.Context | None, when: float = 0.0
    ) -> None:
        self._call = call
        self._args = args
        self._run = (context or contextvars.copy_context()).run
        self._cancelled = False
        self._when = when

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when


class ProcessLoop(asyncio.AbstractEventLoop, Actor):
    """The event loop of one thread of a process."""

    def __init__(self, world: World, clocks: Clocks) -> None:
        Actor.__init__(self, world)
        self.clocks = clocks
        self._ready: deque[Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []
        world.loops.append(self)

    # -- what the world does with it

    def execute(self, work: Callable[[], Any]) -> None:
        asyncio._set_running_loop(self)
        try:
            work()
            ready = self._ready
            while ready and not self.dead:
                handle = ready.popleft()
                if not handle._cancelled:
                    self._run(handle)
        finally:
            asyncio._set_running_loop(None)

    def _run(self, handle: Handle) -> None:
        try:
            handle._run(handle._call, *handle._args)
        except (SystemExit, KeyboardInterrupt, Violation):
            raise
        except BaseException as error:
            if not self.dead:
                raise Violation(f"a callback failed: {handle._call}: {error!r}") from error

    def end(self) -> None:
        """Close every coroutine that has not ended, in this loop, where nothing it starts is run any more."""
        self.dead = True
        asyncio._set_running_loop(self)
        try:
            for task in self._tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    try:
                        task.get_coro().close()  # type: ignore[union-attr]
                    except RuntimeError:
                        pass  # it waits in a finally block: it is dead all the same
        finally:
            asyncio._set_running_loop(None)
        self._tasks.clear()
        self._ready.clear()

    # -- what asyncio does with it

    def time(self) -> float:
        clocks = self.clocks
        return self.world.now * clocks.rate + clocks.offset - clocks.slept

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        return self.call_later(0, callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, context, when)

        def ring() -> None:
            if not handle._cancelled:
                if when - self.time() > 1e-6:
                    self._after(when, ring)  # the clock stood still meanwhile
                else:
                    self._run(handle)

        self._after(when, ring)
        return handle

    def _after(self, when: float, ring: Callable[[], None]) -> None:
        self.world.after(max((when - self.time()) / self.clocks.rate, 0.0), ring, self)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        if len(self._tasks) > 200:
            self._tasks = [task for task in self._tasks if not task.done()]
        task = asyncio.Task(coro, loop=self, **options)
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Violation):
            raise error
        if not self.dead:
            raise Violation(f"a callback failed: {context.get('message')}: {error!r}") from error
