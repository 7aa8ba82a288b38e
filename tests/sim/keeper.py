"""The real lease keeper of a process, in virtual time: its thread is a loop of its own, stopped by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from cluster.fencing import LeaseKeeper
from tests.sim.store import Client
from tests.sim.world import ProcessLoop

if TYPE_CHECKING:
    from tests.sim.machine import Life

TTL = 4.0
WEDGE_LIMIT = 3.0
STEP_LIMIT = 3.0
KEEPER_TICK = 0.4


class BootClock:
    """Stands for the product's: the clock of the process that makes it."""

    def __init__(self) -> None:
        running = asyncio.get_running_loop()
        assert isinstance(running, ProcessLoop)
        self.now = running.clocks.boot


def client_of(endpoints: list[Any], **options: Any) -> Any:
    """Stands for the product's etcd client: the keeper of a life is given one of the simulation as its endpoint."""
    return endpoints[0]


class Keeper(LeaseKeeper):
    """Everything is the product's but the thread."""

    def __init__(
        self,
        life: Life,
        on_phase: Callable[..., None],
        on_lost: Callable[[int], None],
        last_words: Callable[..., Awaitable[None]],
    ) -> None:
        self.thread = ProcessLoop(life.sim.world, life.loop.clocks)
        super().__init__(
            [Client(life.sim.store, life.name, self.thread)],  # type: ignore[list-item]
            ttl=timedelta(seconds=TTL),
            wedge_limit=timedelta(seconds=WEDGE_LIMIT),
            step_limit=timedelta(seconds=STEP_LIMIT),
            on_phase=on_phase,
            on_lost=on_lost,
            last_words=last_words,
        )
        self._life = life

    async def __aenter__(self) -> Self:
        self._main_loop = asyncio.get_running_loop()
        opened: Future[asyncio.AbstractEventLoop] = Future()
        self.thread.call_soon_threadsafe(lambda: self.thread.create_task(self._keep(opened)))
        self._loop = await asyncio.wrap_future(opened)
        await self.new_lease()
        return self

    def _end_process(self, reason: str) -> None:
        self._life.end(reason)
