"""The one place that creates tasks: every task has an owner that waits for it.

``Tasks`` is a scope: leaving it cancels what still runs and waits for the end. A task
that fails is reported to ``on_failure`` at once and, when it is critical, again when the
scope is left, so no exception is ever lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

log = structlog.get_logger("wippy.tasks")

T = TypeVar("T")


class Tasks:
    """A scope of background tasks. Use it with ``async with``."""

    def __init__(self, name: str, on_failure: Callable[[str, BaseException], None] | None = None) -> None:
        self._name = name
        self._on_failure = on_failure
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run ``work`` until it ends or the scope is left. Raises RuntimeError when the scope was left already."""
        if self._closed:
            work.close()
            raise RuntimeError(f"tasks of {self._name} have ended; {name} can't start")
        task = asyncio.create_task(work, name=f"{self._name}/{name}")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if self._on_failure is None:
            log.error("task failed", task=task.get_name(), error=repr(error), exc_info=error)
        else:
            self._on_failure(task.get_name(), error)

    async def close(self) -> None:
        """Cancel what runs and wait until all of it ended."""
        self._closed = True
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._running)
