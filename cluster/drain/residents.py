"""The processes, or the services, of a node that is emptied: each stands in one phase, found by id and by phase."""

from __future__ import annotations

from collections.abc import Mapping, ValuesView
from dataclasses import dataclass, field
from enum import Enum

from cluster.drain.events import Process


class Phase(Enum):
    """What becomes of it."""

    WAITING = "waiting"
    """For its turn to move, or to be handed over."""
    UNDER_WAY = "under way"
    ASKED = "asked"
    """To end."""
    ALONE = "alone"
    """It ends by itself, or with another."""
    KILLED = "killed"
    STUCK = "stuck"
    """Nothing more is tried."""


@dataclass(slots=True)
class Resident:
    """One of them. ``since`` is the tick at which it came into its phase."""

    process: Process
    phase: Phase
    since: int
    to: str = ""
    tries: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    """The nodes it was offered to, and in which round."""
    reason: str = ""
    """Why it did not move or was not handed over."""

    @property
    def id(self) -> str:
        return self.process.pid

    @property
    def why(self) -> str:
        """Why it is still here."""
        if self.reason:
            return self.reason
        match self.phase:
            case Phase.WAITING:
                return "no node took it in time"
            case Phase.UNDER_WAY:
                return "it is still on its way"
            case Phase.KILLED:
                return "it does not end though it is killed"
            case _:
                return "it has not ended"


class Residents:
    """All of them. What changes the phase of one goes through ``become``."""

    def __init__(self) -> None:
        self._all: dict[str, Resident] = {}
        self._phases: dict[Phase, dict[str, Resident]] = {phase: {} for phase in Phase}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, id: str) -> bool:
        return id in self._all

    def get(self, id: str) -> Resident | None:
        return self._all.get(id)

    def all(self) -> ValuesView[Resident]:
        return self._all.values()

    def standing(self, phase: Phase) -> Mapping[str, Resident]:
        """Those in this phase, in the order they came into it."""
        return self._phases[phase]

    def add(self, process: Process, phase: Phase, tick: int) -> Resident:
        resident = self._all[process.pid] = Resident(process, phase, tick)
        self._phases[phase][process.pid] = resident
        return resident

    def become(self, resident: Resident, phase: Phase, tick: int) -> None:
        del self._phases[resident.phase][resident.id]
        resident.phase, resident.since = phase, tick
        self._phases[phase][resident.id] = resident

    def drop(self, resident: Resident) -> None:
        del self._all[resident.id]
        del self._phases[resident.phase][resident.id]
