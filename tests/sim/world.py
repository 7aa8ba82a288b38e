"""Virtual time for several machines in one thread: a heap of events, and an event loop for each process.

Every process of the simulation has an event loop of its own, so that it can be stopped between any two turns
(SIGSTOP) while the others go on, and killed by never running it again. Loops and everything outside of them (the
network, the store, the plan of faults) share one heap of events and one source of randomness, so a seed decides
everything that happens.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
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


class ProcessLoop(asyncio.AbstractEventLoop, Actor):
    """The event loop of one process. Its clock began at some other time than those of the others."""

    def __init__(self, world: World, offset: float) -> None:
        Actor.__init__(self, world)
        self._offset = offset
        self._ready: deque[asyncio.Handle] = deque()
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
                    handle._run()
        finally:
            asyncio._set_running_loop(None)

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
        return self.world.now + self._offset

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_later(0, callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)

        def ring() -> None:
            if not handle._cancelled:
                handle._run()

        self.world.after(max(when - self._offset - self.world.now, 0.0), ring, self)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

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
