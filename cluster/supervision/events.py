"""What happens to a supervisor, and what it wants done.

Every start of a child has a number, its ``run``; what is told of a child names the run it
means. The shell answers each ``Start`` with exactly one of Started, Failed or Postponed, and
each run that was Started ends with exactly one Exited. ``at`` is a time in seconds, ``jitter``
a random number in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from cluster.supervision.specs import BranchSpec, ChildSpec, Ending


@dataclass(frozen=True, slots=True)
class Begin:
    """Start the children there are, in order."""


@dataclass(frozen=True, slots=True)
class Started:
    child: str
    run: int
    at: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The child could not be started."""

    child: str
    run: int
    at: float
    error: str
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Postponed:
    """There is no place for the child now, which is nobody's failure. ``Due`` says when there is."""

    child: str
    run: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The child ended. Exits with one ``cause``, such as the loss of a node, count as one towards the intensity."""

    child: str
    run: int
    at: float
    ending: Ending
    error: str = ""
    jitter: float = 0.0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """The wait of ``run`` is over: start the child."""

    child: str
    run: int


@dataclass(frozen=True, slots=True)
class GraceOver:
    """The time a child had to end is over."""

    child: str
    run: int


@dataclass(frozen=True, slots=True)
class End:
    """Stop the children in reverse order, or kill them all at once, then finish."""

    kill: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """The supervisor and its children as they are from now on; those added at run time stay."""

    spec: BranchSpec
    children: Sequence[ChildSpec]


@dataclass(frozen=True, slots=True)
class AddChild:
    """The commands; ``ref`` comes back in the Answer."""

    ref: int
    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class TerminateChild:
    ref: int
    child: str


@dataclass(frozen=True, slots=True)
class RestartChild:
    ref: int
    child: str


@dataclass(frozen=True, slots=True)
class DeleteChild:
    ref: int
    child: str


Command: TypeAlias = AddChild | TerminateChild | RestartChild | DeleteChild
Event: TypeAlias = Begin | Started | Failed | Postponed | Exited | Due | GraceOver | End | Change | Command


@dataclass(frozen=True, slots=True)
class Start:
    child: str
    run: int
    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the child to end; feed GraceOver when it lives after ``grace`` seconds (None: never)."""

    child: str
    run: int
    grace: float | None


@dataclass(frozen=True, slots=True)
class Kill:
    child: str
    run: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Feed Due after so many seconds."""

    child: str
    run: int
    seconds: float


class Outcome(Enum):
    """How a command ended."""

    OK = "ok"
    STARTED = "started"
    FAILED = "failed"
    """It could not be started; ``error`` says why."""
    POSTPONED = "postponed"
    """It is started as soon as there is a place for it."""
    NOT_FOUND = "not_found"
    RUNNING = "running"
    RESTARTING = "restarting"
    ALREADY_STARTED = "already_started"
    ALREADY_PRESENT = "already_present"
    DYNAMIC = "dynamic"
    """A dynamic child has no spec of its own to restart or to delete."""
    BUSY = "busy"
    """Too many commands wait for their turn; this one was not taken."""
    ENDING = "ending"
    """The supervisor ends."""


@dataclass(frozen=True, slots=True)
class Answer:
    ref: int
    outcome: Outcome
    error: str = ""
    child: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """The children were started."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing of the supervisor lives any more; this is how it ended."""

    ending: Ending
    reason: str
    by_design: bool = False
    """It has done its work: ``auto_shutdown`` asked for the end."""


Action: TypeAlias = Start | Stop | Kill | Wait | Answer | Begun | Finish
