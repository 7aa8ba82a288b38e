"""What a node does as its lease nears its end, answers again, or is lost (fencing rules F3, F4).

The lease keeper tells the phases; here they become deeds: owned work is cancelled, then killed;
the same lease answering again lets it start again. All else goes on meanwhile, messages between
nodes included: a peer that sees this registration end says so by itself. A lost
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

from cluster.errors import ClusterError, Unavailable
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

    def end(self, reason: str) -> None: ...


class Ownership:
    """Performs the phases. ``bind`` gives it its node; ``on_phase`` and ``on_lost`` are the keeper's callbacks."""

    def __init__(self, tasks: Tasks, exit_process: Callable[[int], object] = os._exit) -> None:
        self._tasks = tasks
        self._exit_process = exit_process
        self._owner: Owner | None = None
        self._reach: Reach | None = None
        self._register: Callable[[bool], Awaitable[int]] | None = None
        self._forget: Callable[[int], None] = lambda lease: None
        self._serving = False
        self._ending = False
        self._losses = 0
        self._ended_epoch = 0
        self._phase = Phase.HELD
        self._rejoined_after = 0
        self._rejoining: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self.rejoins = 0

    def bind(
        self, owner: Owner, reach: Reach, register: Callable[[bool], Awaitable[int]], forget: Callable[[int], None]
    ) -> None:
        """``register(anew)`` registers the node and gives the epoch; ``anew``: under a new lease, as the former is lost
        and nothing owned under it lives. ``forget`` drops what hung on a lost lease."""
        self._owner, self._reach, self._register, self._forget = owner, reach, register, forget

    def begin(self) -> None:
        """The node is ready: from now on it registers again when it has to. Raises Unavailable when it is late."""
        if self._losses:
            raise Unavailable("the lease of this node ended while it started; start it again, and look at etcd")
        self._serving = True

    def end(self) -> None:
        """The node stops in good order: it does not register again. What it owns is protected to the last."""
        self._ending = True
        if self._rejoining is not None:
            self._rejoining.cancel()

    def may_give_back(self) -> bool:
        """Whether the lease may be ended early: nothing owned lives any more."""
        return self._owner is None or not self._owner.owns()

    def on_phase(self, phase: Phase, lease: int) -> None:
        if self._owner is None or self._reach is None:
            return
        self._phase = phase
        match phase:
            case Phase.HELD if self._losses > self._rejoined_after:
                pass  # a new lease; what may be done under it begins with the registration
            case Phase.HELD:
                self._owner.sure()
            case Phase.CANCEL:
                log.warning("the lease is not renewed; owned work is cancelled", lease=f"{lease:x}")
                self._owner.in_doubt()
            case Phase.KILL:
                log.error("the lease is about to end; owned work is killed", lease=f"{lease:x}")
                self._stop_owned()
            case Phase.DOUBT:
                # also the first to be told, when the process was suspended past the others
                log.error("the lease may be over; nothing is owned until it answers", lease=f"{lease:x}")
                self._stop_owned()
            case Phase.LOST:
                self._stop_owned()

    def on_lost(self, lease: int) -> None:
        self._losses += 1
        self._news.set()
        if self._owner is None or self._reach is None:
            return
        self._reach.end("the lease of this node is lost")
        self._forget(lease)
        if self._ending:
            log.error("the lease is lost while the node stops", lease=f"{lease:x}")
            return
        log.error("the lease is lost; the node registers again when its owned work has ended", lease=f"{lease:x}")
        self._begin_rejoin()

    def on_unregistered(self, epoch: int) -> None:
        """The key of this node is gone in the watch: with its lease, of which the keeper hears soon, or without."""
        self._ended_epoch = epoch
        if self._serving and not self._ending and (self._rejoining is None or self._rejoining.done()):
            log.error("this node is not registered any more; it registers again")
            self._begin_rejoin()

    def server_back(self) -> None:
        """NATS or etcd can be reached again: a registration that failed without it is tried again at once."""
        self._news.set()

    def _stop_owned(self) -> None:
        assert self._owner is not None
        self._owner.in_doubt()
        self._owner.kill_owned()

    def _begin_rejoin(self) -> None:
        if self._serving and (self._rejoining is None or self._rejoining.done()):
            self._rejoining = self._tasks.start(self._rejoin(), "rejoin")

    async def _rejoin(self) -> None:
        assert self._owner is not None
        assert self._register is not None
        pause = FIRST_RETRY
        while True:
            losses = self._losses
            self._news.clear()
            anew = losses > self._rejoined_after
            if anew and not await self._owned_ended():
                return
            try:
                epoch = await self._register(anew)
            except (ClusterError, TimeoutError) as error:
                log.warning("can't register again yet", error=str(error) or "timeout", again_in=pause)
                has_news = await self._pause(pause)
                pause = FIRST_RETRY if has_news else min(pause * 2, LAST_RETRY)
                continue
            # the watch may have told of the end of this registration before it was complete
            if losses == self._losses and epoch > self._ended_epoch:
                break
        self._rejoined_after = losses
        self.rejoins += 1
        if self._phase not in (Phase.CANCEL, Phase.KILL, Phase.DOUBT):
            self._owner.sure()
        log.info("node registered again")

    async def _pause(self, seconds: float) -> bool:
        """Wait, but not once it is known that the lease is lost, for then a new one helps, or that a server is back;
        whether that came, now or since the last try began."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _owned_ended(self) -> bool:
        """Wait until nothing owned under the lost lease lives; the process ends when it does not."""
        assert self._owner is not None
        deadline = time.monotonic() + END_OWNED
        while self._owner.owns():
            if time.monotonic() > deadline:
                log.critical("owned work did not end after the lease was lost; ending the process")
                self._exit_process(EXIT_CODE)
                return False
            self._owner.kill_owned()
            await asyncio.sleep(0.05)
        return True
