"""What a supervisor knows of one child."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cluster.supervision.specs import ChildSpec


class Phase(Enum):
    """What a child does."""

    DOWN = "down"
    """Nothing of it lives, and nothing is planned."""
    WAITING = "restarting"
    """It is started again after a wait."""
    STARTING = "starting"
    UP = "running"
    STOPPING = "stopping"


@dataclass(slots=True)
class Child:
    """One child and its present run. A run lives from its Start to its Exited or Failed."""

    spec: ChildSpec
    phase: Phase = Phase.DOWN
    run: int = 0
    since: float = 0.0
    """When the present run was started."""
    failures: int = 0
    """Ends in a row without having been stable."""
    restarts: int = 0
    starting_for: int = 0
    """The ref of the command that has it started."""
    stopping_for: int = 0
    """The ref of the command that has it stopped."""
    is_new: bool = False
    """Never started; forgotten when that fails."""
    in_group: bool = False
    """Its restart is that of its group."""
    has_ended: bool = False
    """The present run has, which was not looked at yet."""
    last_error: str = ""

    @property
    def lives(self) -> bool:
        return self.phase in (Phase.STARTING, Phase.UP, Phase.STOPPING)

    @property
    def is_busy(self) -> bool:
        """Nothing else can be decided for it until the shell has answered."""
        return self.phase in (Phase.STARTING, Phase.STOPPING)

    def is_other_than(self, spec: ChildSpec) -> bool:
        """Whether a child of this spec has to be another process."""
        return self.spec.work != spec.work or self.spec.is_supervisor is not spec.is_supervisor
