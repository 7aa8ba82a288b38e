"""When the process of a service is started again: the restart policy, as a pure state machine.

A child that returns without an error is done; one that fails is started again after a delay that grows
(initial_delay x backoff_factor^k, at most max_delay, +- jitter), unless its error says that trying again is
useless or max_attempts starts are used up. A child that ran for stable_threshold starts the count anew.

Pure: no clock, no random, no process. Times are seconds; ``jitter`` of an event is a random number in [-1, 1].

    state       event                         next        actions
    --------    --------------------------    --------    ------------------------------------------
    stopped     StartRequested                starting    StartChild(0)
    stopped     ChildAdopted                  running
    starting    ChildStarted                  running
    starting    ChildExited(error)            starting    StartChild(delay), or GiveUp -> failed
    running     ChildExited(no error)         exited
    running     ChildExited(error)            starting    StartChild(delay), or GiveUp -> failed
    any live    StopRequested                 stopping    StopChild; without a child: CancelStart -> stopped
    stopping    ChildStarted                  stopping    StopChild
    stopping    ChildExited                   stopped
    stopping    StopTimedOut                  stopping    KillChild; its exit makes it failed
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TypeAlias

from cluster.supervision.backoff import Backoff


class ServiceState(Enum):
    """What is known of the child."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXITED = "exited"
    """Returned by itself, or failed in a way that starting again does not help."""
    FAILED = "failed"
    """Given up, or killed because it did not stop."""


@dataclass(frozen=True)
class RestartPolicy:
    """The ``lifecycle`` of an entry."""

    initial_delay: timedelta = timedelta(seconds=1)
    max_delay: timedelta = timedelta(seconds=90)
    backoff_factor: float = 2.0
    jitter: float = 0.1
    """Part of the delay that is random, 0 to 1."""
    max_attempts: int = 0
    """Most starts in a row, the first included; 0 = no limit."""
    stable_threshold: timedelta = timedelta(seconds=5)
    stop_timeout: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        if self.backoff_factor < 1 or not 0 <= self.jitter <= 1 or self.max_attempts < 0:
            raise ValueError(
                "expected backoff_factor >= 1, jitter in 0..1 and max_attempts >= 0, got "
                f"{self.backoff_factor}, {self.jitter}, {self.max_attempts}"
            )

    def delay(self, failures: int, jitter: float) -> float:
        """Seconds to wait after so many failures in a row (>= 1)."""
        first, longest = self.initial_delay.total_seconds(), self.max_delay.total_seconds()
        return Backoff(first, longest, self.backoff_factor, self.jitter).delay(failures, jitter)


@dataclass(frozen=True)
class StartRequested:
    pass


@dataclass(frozen=True)
class ChildStarted:
    at: float


@dataclass(frozen=True)
class ChildAdopted:
    """A child that runs already came here from elsewhere. It counts as one that was started now."""

    at: float


@dataclass(frozen=True)
class ChildExited:
    """The child ended, or could not be started. ``error`` None: it returned. ``retryable`` as its error says."""

    at: float
    error: str | None = None
    retryable: bool | None = None
    jitter: float = 0.0


@dataclass(frozen=True)
class StopRequested:
    reason: str = "service stopping"


@dataclass(frozen=True)
class StopTimedOut:
    """``StopChild.grace`` has passed and the child lives."""


Event: TypeAlias = StartRequested | ChildStarted | ChildAdopted | ChildExited | StopRequested | StopTimedOut


@dataclass(frozen=True)
class StartChild:
    """Start the child after so many seconds, unless CancelStart comes first."""

    after: float


@dataclass(frozen=True)
class CancelStart:
    """Forget the start that is planned."""


@dataclass(frozen=True)
class StopChild:
    """Ask the child to end; feed StopTimedOut when it lives after ``grace`` seconds."""

    reason: str
    grace: float


@dataclass(frozen=True)
class KillChild:
    pass


@dataclass(frozen=True)
class GiveUp:
    """The child is not started again."""

    reason: str


Action: TypeAlias = StartChild | CancelStart | StopChild | KillChild | GiveUp


class Supervision:
    """One supervised child. ``handle`` takes an event and says what to do; the table is above."""

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        """May be replaced at any time; it counts for what comes next."""
        self.state = ServiceState.STOPPED
        self.attempts = 0
        """Starts since the child was last stable."""
        self.restarts = 0
        """Starts after a failure, in all."""
        self.last_error: str | None = None
        self._failures = 0
        self._child_lives = False
        self._started_at = 0.0
        self._killed = False
        self._stop_reason = ""

    def handle(self, event: Event) -> list[Action]:
        match event:
            case StartRequested():
                return self._start()
            case ChildStarted(at):
                return self._started(at)
            case ChildAdopted(at):
                return self._adopted(at)
            case ChildExited():
                return self._exited(event)
            case StopRequested(reason):
                return self._stop(reason)
            case StopTimedOut():
                return self._stop_timed_out()

    def _start(self) -> list[Action]:
        if self.state in (ServiceState.STARTING, ServiceState.RUNNING, ServiceState.STOPPING):
            return []
        self.state = ServiceState.STARTING
        self.attempts = 1
        self._failures = 0
        self._killed = False
        return [StartChild(0.0)]

    def _started(self, at: float) -> list[Action]:
        self._child_lives = True
        self._started_at = at
        if self.state is ServiceState.STARTING:
            self.state = ServiceState.RUNNING
            return []
        # a start that was under way when the stop came
        self.state = ServiceState.STOPPING
        return [self._stop_child()]

    def _adopted(self, at: float) -> list[Action]:
        self._start()  # nothing is to be started for it
        return self._started(at)

    def _exited(self, event: ChildExited) -> list[Action]:
        ran = event.at - self._started_at if self._child_lives else 0.0
        self._child_lives = False
        match self.state:
            case ServiceState.STOPPING:
                self.state = ServiceState.FAILED if self._killed else ServiceState.STOPPED
                return []
            case ServiceState.STARTING | ServiceState.RUNNING:
                return self._ended(event, ran)
            case _:
                return []

    def _ended(self, event: ChildExited, ran: float) -> list[Action]:
        self.last_error = event.error
        if event.error is None:
            self.state = ServiceState.EXITED
            return []
        if event.retryable is False:
            self.state = ServiceState.EXITED
            return [GiveUp(f"its error is final: {event.error}")]
        if ran >= self.policy.stable_threshold.total_seconds():
            self.attempts = self._failures = 0
        return self._again(event)

    def _again(self, event: ChildExited) -> list[Action]:
        most = self.policy.max_attempts
        if most and self.attempts >= most:
            self.state = ServiceState.FAILED
            return [GiveUp(f"{self.attempts} starts in a row failed, the last with: {event.error}")]
        self._failures += 1
        delay = self.policy.delay(self._failures, event.jitter)
        self.state = ServiceState.STARTING
        self.attempts += 1
        self.restarts += 1
        return [StartChild(delay)]

    def _stop(self, reason: str) -> list[Action]:
        if self.state not in (ServiceState.STARTING, ServiceState.RUNNING):
            return []
        self._stop_reason = reason
        if self._child_lives:
            self.state = ServiceState.STOPPING
            return [self._stop_child()]
        self.state = ServiceState.STOPPED
        return [CancelStart()]

    def _stop_child(self) -> StopChild:
        return StopChild(self._stop_reason or "service stopping", self.policy.stop_timeout.total_seconds())

    def _stop_timed_out(self) -> list[Action]:
        if self.state is not ServiceState.STOPPING or not self._child_lives:
            return []
        self._killed = True
        self.last_error = "stop timeout"
        return [KillChild()]
