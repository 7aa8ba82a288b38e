"""What a node does as its lease nears its end, answers again, or is lost (fencing rules F3, F4).

The lease keeper tells the phases; here they become deeds: owned work is cancelled, then killed;
in doubt the links fall silent; the same lease answering again lets everything go on. A lost
lease ends the registration: once all owned work has ended, the node takes a new lease and
registers anew, with a new epoch and the same incarnation, so its other processes live on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from cluster.errors import ClusterError
from cluster.fencing import Phase
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.ownership")

END_OWNED = 3.0
"""Seconds in which killed owned work must be gone, or the process ends."""
FIRST_RETRY, LAST_RETRY = 0.5, 5.0
EXIT_CODE = 70


class Owner(Protocol):
    """Who holds work under the lease: the supervisor."""

    def in_doubt(self) -> None: ...

    def kill_owned(self) -> None: ...

    def sure(self) -> None: ...

    def owns(self) -> bool: ...


class Reach(Protocol):
    """The links, as far as the lease matters to them."""

    def doubt(self) -> None: ...

    def resume(self) -> None: ...

    def end(self, reason: str) -> None: ...


class Ownership:
    """Performs the phases. ``bind`` gives it its node; ``on_phase`` and ``on_lost`` are the keeper's callbacks."""

    def __init__(self, tasks: Tasks, exit_process: Callable[[int], object] = os._exit) -> None:
        self._tasks = tasks
        self._exit_process = exit_process
        self._owner: Owner | None = None
        self._reach: Reach | None = None
        self._register: Callable[[], Awaitable[None]] | None = None
        self._forget: Callable[[int], None] = lambda lease: None
        self._ending = False
        self.rejoins = 0

    def bind(
        self, owner: Owner, reach: Reach, register: Callable[[], Awaitable[None]], forget: Callable[[int], None]
    ) -> None:
        """``register`` takes a new lease and registers the node; ``forget`` drops what hung on the old lease."""
        self._owner, self._reach, self._register, self._forget = owner, reach, register, forget

    def end(self) -> None:
        """The node stops in good order: the end of its lease is meant."""
        self._ending = True

    def on_phase(self, phase: Phase, lease: int) -> None:
        if self._owner is None or self._reach is None or self._ending:
            return
        match phase:
            case Phase.HELD:
                self._reach.resume()
                self._owner.sure()
            case Phase.CANCEL:
                log.warning("the lease is not renewed; owned work is cancelled", lease=f"{lease:x}")
                self._owner.in_doubt()
            case Phase.KILL:
                log.error("the lease is about to end; owned work is killed", lease=f"{lease:x}")
                self._owner.in_doubt()
                self._owner.kill_owned()
            case Phase.DOUBT:
                self._reach.doubt()
            case Phase.LOST:
                self._owner.in_doubt()
                self._owner.kill_owned()

    def on_lost(self, lease: int) -> None:
        if self._owner is None or self._reach is None or self._ending:
            return
        log.error("the lease is lost; the node registers again when its owned work has ended", lease=f"{lease:x}")
        self._reach.end("the lease of this node is lost")
        self._forget(lease)
        self._tasks.start(self._rejoin(), "rejoin")

    async def _rejoin(self) -> None:
        assert self._owner is not None
        assert self._register is not None
        deadline = time.monotonic() + END_OWNED
        while self._owner.owns():
            if time.monotonic() > deadline:
                log.critical("owned work did not end after the lease was lost; ending the process")
                self._exit_process(EXIT_CODE)
                return
            self._owner.kill_owned()
            await asyncio.sleep(0.05)
        pause = FIRST_RETRY
        while True:
            try:
                await self._register()
            except ClusterError as error:
                log.warning("can't register again yet", error=str(error), again_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LAST_RETRY)
                continue
            self.rejoins += 1
            self._owner.sure()
            log.info("node registered again")
            return
