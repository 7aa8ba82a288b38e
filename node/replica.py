"""One replica of a ``process.service`` on this node: performs what the supervision core decides.

The core says start, stop, kill or give up; this shell spawns the process through a port,
monitors it, runs the timers and feeds back what happened. It ends (``finished``) when the
core came to rest - stopped, exited or failed - and no process lives or is being started: who
waits for that may give the replica to another node. It may also begin with a process that runs
already, and end by letting it go, when that moves between nodes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import structlog

from cluster.envelope import Kind, Status, to_raw
from cluster.errors import ClusterError
from cluster.pid import Pid, host_address
from cluster.supervision import (
    CancelStart,
    ChildAdopted,
    ChildExited,
    ChildStarted,
    Event,
    GiveUp,
    KillChild,
    RestartPolicy,
    ServiceState,
    StartChild,
    StartRequested,
    StopChild,
    StopRequested,
    StopTimedOut,
    Supervision,
)
from cluster.tasks import Tasks
from node.kept import ReplicaStats
from node.kinds.service import ProcessService
from node.ports import Exit, Ports, Refused

log = structlog.get_logger("wippy.supervisor")

RESTING = frozenset({ServiceState.STOPPED, ServiceState.EXITED, ServiceState.FAILED})
KILL_DEADLINE = 5.0
"""Seconds a killed process may take to be gone before that is said."""
POLL = 0.1
WATCH_DEADLINE = 5.0
"""Seconds until the wish to hear of the end of a process that came is repeated."""
STARTS_HERE = 5
"""Starts in a row that may fail here before another node is to try, when the entry sets no ``max_attempts``."""


class Replica:
    """Keeps one replica as its entry says: a ``node.kept.Kept``. Its arguments are those of ``node.kept.Make``."""

    def __init__(
        self,
        service: str,
        replica: int,
        spec: ProcessService,
        ports: Ports,
        node: str,
        *,
        may_start: Callable[[], bool],
        ready: Callable[[], Awaitable[None]],
        fence: Callable[[bytes], None],
        on_pid: Callable[[bytes | None], None],
        on_rest: Callable[[ServiceState], None],
    ) -> None:
        self.service = service
        self.replica = replica
        self.spec = spec
        self._host = host_address(node, spec.host).encode()
        self._may_start = may_start
        self._ready = ready
        self._fence = fence
        self._on_pid = on_pid
        self._on_rest = on_rest
        self._core = Supervision(_policy(spec))
        self._port = ports.open("node:supervisor")
        self._port.on_exit = self._exited
        self._tasks = Tasks(f"{service}/{replica}")
        self._starting: asyncio.Task[None] | None = None
        self._asked = False
        self._killed = False
        self._lost_name = ""
        self._lacks = False
        self._pid: bytes | None = None
        self._since = 0.0
        self._changed = time.time()
        self._waits_for = ""
        self.started = asyncio.Event()
        """A process of it ran."""
        self.tried = asyncio.Event()
        """The first start worked or failed."""
        self.finished = asyncio.Event()

    @property
    def _start_timeout(self) -> float:
        return self.spec.lifecycle.start_timeout.total_seconds()

    @property
    def pid(self) -> bytes | None:
        """The process that runs now."""
        return self._pid

    @property
    def has_failed(self) -> bool:
        """Nothing of it runs because of an error: it waits to be started again, or was given up."""
        return self._pid is None and not self._asked and self._core.last_error is not None

    @property
    def counter(self) -> int:
        return Pid.parse(self._port.pid.decode()).counter

    @property
    def keeper(self) -> bytes:
        return self._port.pid

    @property
    def runs(self) -> bool:
        return self._core.state is ServiceState.RUNNING and self._pid is not None

    @property
    def pids(self) -> Collection[bytes]:
        return () if self._pid is None else (self._pid,)

    @property
    def struggles(self) -> bool:
        """It failed as often in a row as it may: by ``max_attempts``, or without it ``STARTS_HERE`` times. What it
        requires and lacks here it would lack on any node."""
        if self._lacks:
            return False
        given_up = self._core.state is ServiceState.FAILED
        return self.has_failed and (given_up or self._core.attempts > STARTS_HERE)

    def start(self) -> None:
        self._handle(StartRequested())

    def adopt(self, pid: bytes, since: float) -> None:
        self._handle(ChildAdopted(self._now()))
        self._lives(pid, since)
        self._tasks.start(self._watch(pid), "watch")

    async def leave(self) -> None:
        if self._pid is not None:
            self._port.cast([int(Kind.UNMONITOR), self._pid, self._port.pid, 0])
        await self.close()

    def revise(self, spec: ProcessService) -> None:
        """Keep the process by another lifecycle from now on; process, host and input are the same."""
        self.spec = spec
        self._core.policy = _policy(spec)

    async def stop(self, reason: str) -> None:
        """CANCEL the process, kill it after its ``stop_timeout``; returns when it has ended, and only then."""
        self._handle(StopRequested(reason))
        limit = self.spec.lifecycle.stop_timeout.total_seconds() + KILL_DEADLINE
        while not self.finished.is_set():
            try:
                async with asyncio.timeout(limit):
                    await self.finished.wait()
            except TimeoutError:
                log.error("service does not end", service=self.service, replica=self.replica, after=limit)
                self.kill(reason)
        await self.close()

    async def close(self) -> None:
        """Forget the replica without a word to its process."""
        self._port.close()
        await self._tasks.close()

    def kill(self, reason: str) -> None:
        """End the process now, also one that is only being started."""
        self._killed = True
        self._handle(StopRequested(reason))
        self._terminate()

    def name_revoked(self, pid: bytes, name: str) -> None:
        """The process lost a name it did not give back: should it end because of that, it is started again."""
        if pid == self._pid:
            self._lost_name = name

    def stats(self) -> ReplicaStats:
        pid = self._pid.decode() if self._pid else ""
        return ReplicaStats(
            self.service,
            self.replica,
            self._core.state.value,
            pid,
            self._core.restarts,
            self._core.last_error or "",
            self._since,
            self._changed,
            self._waits_for,
        )

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _handle(self, event: Event) -> None:
        self._changed = time.time()
        for action in self._core.handle(event):
            match action:
                case StartChild(after):
                    self._starting = self._tasks.start(self._spawn(after), "start")
                case CancelStart():
                    # a start that was asked for is not taken back by not waiting: its answer decides
                    if self._starting is not None and not self._asked:
                        self._starting.cancel()
                case StopChild(reason, grace):
                    if not self._killed:
                        self._cancel(reason)
                    self._tasks.start(self._expire(grace), "stop timeout")
                case KillChild():
                    log.warning(
                        "service does not stop; killing it",
                        service=self.service,
                        replica=self.replica,
                        after=self.spec.lifecycle.stop_timeout.total_seconds(),
                    )
                    self._terminate()
                case GiveUp(reason):
                    log.error("service given up", service=self.service, replica=self.replica, reason=reason)
        self._check_rest()

    def _check_rest(self) -> None:
        resting = self._core.state in RESTING and not self._asked and self._pid is None
        if resting and not self.finished.is_set():
            self.finished.set()
            self.tried.set()
            self._on_rest(self._core.state)

    async def _spawn(self, after: float) -> None:
        if after:
            log.info("service restarts", service=self.service, replica=self.replica, after=round(after, 2))
            await asyncio.sleep(after)
        self._waits_for = ", ".join(self.spec.lifecycle.required)
        try:
            async with asyncio.timeout(limit := self._start_timeout):
                await self._ready()
            self._lacks = False
        except TimeoutError:
            required = ", ".join(self.spec.lifecycle.required)
            self._lacks = True
            self._not_started(f"what it requires ({required}) did not run within {limit:g} s")
            return
        finally:
            self._waits_for = ""
        await self._ask_for_process()

    async def _ask_for_process(self) -> None:
        while True:
            if self._may_start():
                break
            await asyncio.sleep(POLL)  # the lease's phases are told; until then the process must not live
        self._asked = True
        try:
            args: list[Any] = to_raw(self.spec.input)
            await self._port.spawn(
                self._host,
                self.spec.process,
                args,
                {b"monitor": True, b"tracked": True},
                timeout=self._start_timeout,
                accept=self._born,
                late=self._unwanted,
            )
        except ClusterError as error:
            self._asked = False
            self._not_started(str(error))

    def _not_started(self, reason: str) -> None:
        log.error("service can't start", service=self.service, replica=self.replica, error=reason)
        self.tried.set()
        self._on_pid(None)
        self._handle(ChildExited(self._now(), reason, jitter=random.uniform(-1, 1)))

    def _born(self, pid: bytes) -> bool:
        """The process lives. Called as the answer comes in, because its exit may be the next thing that does."""
        self._asked = False
        self._lives(pid, time.time())
        log.info("service started", service=self.service, replica=self.replica, pid=pid.decode())
        self._handle(ChildStarted(self._now()))
        if self._killed:
            self._terminate()
        return True

    def _lives(self, pid: bytes, since: float) -> None:
        self._pid, self._since = pid, since
        self._lost_name = ""
        self._fence(pid)
        self._on_pid(pid)
        self.started.set()
        self.tried.set()

    async def _watch(self, pid: bytes) -> None:
        """Ask to hear of the end of a process that was not started through this port."""
        while self._pid == pid:
            try:
                await self._port.request(Kind.MONITOR, pid, timeout=WATCH_DEADLINE)
                return
            except ClusterError as error:
                if isinstance(error, Refused) and error.status is Status.NOPROC:
                    self._exited(Exit(pid, None, {"kind": "Internal", "message": "it ended as it came to this node"}))
                    return
                log.warning("a service that came here is not watched yet", service=self.service, error=str(error))
            await asyncio.sleep(POLL)

    def _unwanted(self, pid: bytes) -> bool:
        """A process whose start was given up is here after all: until it is gone it is fenced like the others."""
        self._fence(pid)
        return False

    def _exited(self, ended: Exit) -> None:
        if ended.pid != self._pid:
            return
        self._pid = None
        self._on_pid(None)
        error = None if ended.error is None else str(ended.error.get("message") or ended.error.get("kind") or "failed")
        retryable = None if ended.error is None else ended.error.get("retryable")
        if error is None and self._lost_name and self._core.state is ServiceState.RUNNING:
            error = f"it ended after its name {self._lost_name} was revoked"
        if self._core.state is ServiceState.STOPPING:
            log.info("service stopped", service=self.service, replica=self.replica, pid=ended.pid.decode())
        elif error is not None:
            log.warning("service failed", service=self.service, pid=ended.pid.decode(), error=error)
        self._handle(ChildExited(self._now(), error, retryable, random.uniform(-1, 1)))

    def _cancel(self, reason: str) -> None:
        if self._pid is not None:
            self._port.cast([int(Kind.CANCEL), self._pid, self._port.pid, 0, reason.encode()])

    def _terminate(self) -> None:
        if self._pid is not None:
            self._port.cast([int(Kind.TERMINATE), self._pid, self._port.pid, 0])

    async def _expire(self, grace: float) -> None:
        await asyncio.sleep(grace)
        self._handle(StopTimedOut())


def _policy(spec: ProcessService) -> RestartPolicy:
    life = spec.lifecycle
    return RestartPolicy(
        initial_delay=life.restart.initial_delay,
        max_delay=life.restart.max_delay,
        backoff_factor=life.restart.backoff_factor,
        jitter=life.restart.jitter,
        max_attempts=life.restart.max_attempts,
        stable_threshold=life.stable_threshold,
        stop_timeout=life.stop_timeout,
    )
