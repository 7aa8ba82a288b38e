"""What a supervisor is told: how it supervises, and how each of its children is kept.

The words and their meaning are those of Erlang's ``supervisor``. Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from cluster.supervision.backoff import Backoff


class Strategy(Enum):
    """What the end of one child means for the others."""

    ONE_FOR_ONE = "one_for_one"
    """Nothing: that child alone is started again."""
    ONE_FOR_ALL = "one_for_all"
    """All others are stopped, then all are started."""
    REST_FOR_ONE = "rest_for_one"
    """Those started after it are stopped, then it and those are started."""
    DYNAMIC = "dynamic"
    """Children come at run time, each from one template; they stand alone, and one that ended for good is forgotten.
    Erlang's ``simple_one_for_one``."""


class Ending(Enum):
    """How a child, or the supervisor, ended."""

    NORMAL = "normal"
    SHUTDOWN = "shutdown"
    """Told to end, or a supervisor that ended by its own rules: no failure for a transient child."""
    FAILED = "failed"


class Restart(Enum):
    """Which ends of a child call for a restart."""

    PERMANENT = "permanent"
    """Every end."""
    TRANSIENT = "transient"
    """An end with an error that is no shutdown."""
    TEMPORARY = "temporary"
    """None; once it has ended it is forgotten."""

    def is_due_after(self, ending: Ending) -> bool:
        """Whether a child that ended so is to be started again."""
        return self is Restart.PERMANENT or (self is Restart.TRANSIENT and ending is Ending.FAILED)


class AutoShutdown(Enum):
    """Whether the supervisor itself ends when significant children end by themselves for good."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"
    """When the last of them that ran has ended."""


@dataclass(frozen=True)
class ChildSpec:
    """One child. ``work`` is what to start, which is the shell's to know."""

    id: str
    restart: Restart = Restart.PERMANENT
    shutdown: float | None = 5.0
    """Seconds between being asked to end and being killed; 0: killed at once; None: as long as it takes."""
    significant: bool = False
    is_supervisor: bool = False
    work: Any = None

    def __post_init__(self) -> None:
        if self.shutdown is not None and self.shutdown < 0:
            raise ValueError(f"expected shutdown >= 0, got {self.shutdown}")
        if self.significant and self.restart is Restart.PERMANENT:
            raise ValueError(f"child {self.id}: a permanent child never ends for good, so it can't be significant")


@dataclass(frozen=True)
class BranchSpec:
    """The supervisor itself: more than ``intensity`` restarts in ``period`` seconds end it."""

    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: int = 3
    period: float = 5.0
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        if self.intensity < 0 or self.period <= 0:
            raise ValueError(f"expected intensity >= 0 and period > 0, got {self.intensity}, {self.period}")
