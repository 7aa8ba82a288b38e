"""What there is on a node that is emptied, what happens to it, and what is to be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from cluster.migration.actions import Verdict


class Care(Enum):
    """Who starts a process again when it ends."""

    NOBODY = "nobody"
    SERVICE = "service"
    HERE = "here"
    """A supervisor on this node."""
    ELSEWHERE = "elsewhere"
    """A supervisor on another."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the node.

    ``service``: the one it is of, or whose supervisor started it. ``able``: the only nodes it may go to, None: all.
    ``is_busy``: somebody else moves it. ``started`` in seconds since 1970, where it matters.
    """

    pid: str
    entry: str = ""
    migratable: bool = False
    care: Care = Care.NOBODY
    service: str = ""
    is_call: bool = False
    is_busy: bool = False
    able: frozenset[str] | None = None
    started: float = 0.0

    @property
    def may_move(self) -> bool:
        return self.migratable and not self.is_call and self.care in (Care.NOBODY, Care.SERVICE)


@dataclass(frozen=True, slots=True)
class Look:
    """All there is on the node now. ``tick`` is what ``Drain.tick`` was when the looking began: what has changed
    since may be in it or not."""

    tick: int
    processes: Sequence[Process]
    services: Sequence[str]


@dataclass(frozen=True, slots=True)
class Targets:
    """The other nodes that are ready, and how many processes each has. Told again and again: a node that has refused a
    process is asked once more for it after that."""

    loads: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MoveEnded:
    pid: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The hand-over of a service is over; ``reason`` says why the service is still here, empty when it is not.

    ``is_elsewhere``: another node may have it now; else it was just stopped."""

    service: str
    reason: str = ""
    is_elsewhere: bool = True


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time is over for what was asked to end."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """What is still here is left here."""


@dataclass(frozen=True, slots=True)
class CallOff:
    """The node keeps what it has. What is under way comes to its end."""


Event: TypeAlias = Look | Targets | MoveEnded | HandedOver | Deadline | GiveUp | CallOff


@dataclass(frozen=True, slots=True)
class Move:
    """Answered by one MoveEnded."""

    pid: str
    to: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """Answered by one HandedOver."""

    service: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask the process to end, and say by when."""

    pid: str


@dataclass(frozen=True, slots=True)
class Kill:
    pid: str


Action: TypeAlias = Move | HandOver | Cancel | Kill


@dataclass(frozen=True, slots=True)
class Left:
    """A process or service that is still here, and why."""

    id: str
    entry: str
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What became of what was there.

    ``cancelled`` ended because it was asked to, ``killed`` of them at the deadline; ``lost`` died on the way to another
    node. ``left`` is counted when the deadline has passed, ``still_here`` are the first of those. ``reasons``: why
    something did not move or was not handed over, and how often.
    """

    moved: int = 0
    restarted_elsewhere: int = 0
    handed_over: int = 0
    cancelled: int = 0
    killed: int = 0
    lost: int = 0
    waiting: int = 0
    moving: int = 0
    ending: int = 0
    left: int = 0
    still_here: Sequence[Left] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
