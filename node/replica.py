"""One replica of a ``process.service`` on this node: performs what the supervision core decides.

The core says start, stop, kill or give up; this shell spawns the process through a port,
monitors it, runs the timers and feeds back what happened. It ends (``finished``) when the
core came to rest: stopped, exited or failed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from cluster.envelope import Kind, to_raw
from cluster.errors import ClusterError
from cluster.pid import host_address
from cluster.supervision import (
    CancelStart,
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
from node.kinds.service import ProcessService
from node.ports import Exit, Ports

log = structlog.get_logger("wippy.supervisor")

RESTING = frozenset({ServiceState.STOPPED, ServiceState.EXITED, ServiceState.FAILED})
KILL_DEADLINE = 5.0


@dataclass(frozen=True)
class ReplicaStats:
    """What is known of one replica here. ``since`` is Unix time of the last start."""

    service: str
    replica: int
    state: str
    pid: str
    restarts: int
    last_error: str
    since: float


class Replica:
    """Keeps one replica as its entry says. Start it with ``start``; ``stop`` waits for its end."""

    def __init__(
        self,
        service: str,
        replica: int,
        spec: ProcessService,
        ports: Ports,
        node: str,
        ready: Callable[[], Awaitable[None]],
        on_pid: Callable[[bytes | None], None],
        on_rest: Callable[[ServiceState], None],
    ) -> None:
        self.service = service
        self.replica = replica
        self.spec = spec
        self._host = host_address(node, spec.host).encode()
        self._ready = ready
        self._on_pid = on_pid
        self._on_rest = on_rest
        life = spec.lifecycle
        self._start_timeout = life.start_timeout.total_seconds()
        self._core = Supervision(
            RestartPolicy(
                initial_delay=life.restart.initial_delay,
                max_delay=life.restart.max_delay,
                backoff_factor=life.restart.backoff_factor,
                jitter=life.restart.jitter,
                max_attempts=life.restart.max_attempts,
                stable_threshold=life.stable_threshold,
                stop_timeout=life.stop_timeout,
            )
        )
        self._port = ports.open("node:supervisor")
        self._port.on_exit = self._exited
        self._tasks = Tasks(f"{service}/{replica}")
        self._starting: asyncio.Task[None] | None = None
        self._pid: bytes | None = None
        self._since = 0.0
        self.started = asyncio.Event()
        self.finished = asyncio.Event()

    def start(self) -> None:
        self._handle(StartRequested())

    async def stop(self, reason: str) -> None:
        """CANCEL the process, kill it after its ``stop_timeout``, and wait until it has ended."""
        self._handle(StopRequested(reason))
        limit = self.spec.lifecycle.stop_timeout.total_seconds() + KILL_DEADLINE
        try:
            async with asyncio.timeout(limit):
                await self.finished.wait()
        except TimeoutError:
            log.error("service did not end", service=self.service, replica=self.replica, after=limit)
        await self.close()

    async def close(self) -> None:
        """Forget the replica without a word to its process."""
        self._port.close()
        await self._tasks.close()

    def kill(self) -> None:
        """End the process now (its lease is about to end)."""
        self._handle(StopRequested("lease lost"))
        self._terminate()

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
        )

    def _handle(self, event: Event) -> None:
        for action in self._core.handle(event):
            match action:
                case StartChild(after):
                    self._starting = self._tasks.start(self._spawn(after), "start")
                case CancelStart():
                    if self._starting is not None:
                        self._starting.cancel()
                case StopChild(reason, grace):
                    self._cancel(reason)
                    self._tasks.start(self._expire(grace), "stop timeout")
                case KillChild():
                    self._terminate()
                case GiveUp(reason):
                    log.error("service given up", service=self.service, replica=self.replica, reason=reason)
        if self._core.state in RESTING and not self.finished.is_set():
            self.finished.set()
            self.started.set()
            self._on_rest(self._core.state)

    async def _spawn(self, after: float) -> None:
        if after:
            log.info("service restarts", service=self.service, replica=self.replica, after=round(after, 2))
            await asyncio.sleep(after)
        try:
            async with asyncio.timeout(self._start_timeout):
                await self._ready()
                args: list[Any] = to_raw(self.spec.input)
                pid = await self._port.spawn(
                    self._host,
                    self.spec.process,
                    args,
                    {b"monitor": True, b"tracked": True},
                    timeout=self._start_timeout,
                )
        except (ClusterError, TimeoutError) as error:
            reason = str(error) or f"not started within {self._start_timeout:g} s"
            log.error("service can't start", service=self.service, replica=self.replica, error=reason)
            self._handle(ChildExited(time.monotonic(), reason, jitter=random.uniform(-1, 1)))
            return
        self._pid, self._since = pid, time.time()
        self._on_pid(pid)
        log.info("service started", service=self.service, replica=self.replica, pid=pid.decode())
        self.started.set()
        self._handle(ChildStarted(time.monotonic()))

    def _exited(self, ended: Exit) -> None:
        self._pid = None
        self._on_pid(None)
        error = None if ended.error is None else str(ended.error.get("message") or ended.error.get("kind") or "failed")
        retryable = None if ended.error is None else ended.error.get("retryable")
        if error is not None:
            log.warning("service failed", service=self.service, pid=ended.pid.decode(), error=error)
        self._handle(ChildExited(time.monotonic(), error, retryable, random.uniform(-1, 1)))

    def _cancel(self, reason: str) -> None:
        if self._pid is not None:
            self._port.cast([int(Kind.CANCEL), self._pid, self._port.pid, 0, reason.encode()])

    def _terminate(self) -> None:
        if self._pid is not None:
            self._port.cast([int(Kind.TERMINATE), self._pid, self._port.pid, 0])

    async def _expire(self, grace: float) -> None:
        await asyncio.sleep(grace)
        self._handle(StopTimedOut())
