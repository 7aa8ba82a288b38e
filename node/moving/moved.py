"""One process that has moved, or is about to, as this node knows it; and the table of all of them.

Of most of them a node knows only where they are. A core is there while more is to be decided: at the nodes between
which the process moves, at one it left (for as long as it lives), and at one that watches it or holds back what its
processes send to it, until the way is clear.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from cluster.migration import MoveCore, Place
from cluster.migration.actions import Verdict
from cluster.migration.items import Holding, Item, Watcher, Way
from node.moving.wire import Wanted
from node.router import Home

NO_PROCESS = "there is no such process: it ended or never was"


@dataclass(frozen=True)
class Outcome:
    """How a move ended. ``verdict`` is None when that is not known yet: the process waits until etcd says."""

    verdict: Verdict | None
    reason: str
    seconds: float

    @property
    def moved(self) -> bool:
        return self.verdict is Verdict.MOVED


@dataclass
class Leaving:
    """A move that began here."""

    ended: asyncio.Future[tuple[Verdict, str]]
    wanted: Wanted
    deadline: int
    """Until when the process has to have handed over its state, in ms since 1970."""
    number: int = 0
    entry: str = ""
    held: list[tuple[Item, Way]] | None = None
    """What came since the process has handed over its state, until all before that is in its mailbox."""
    packed: bool = False
    is_unmovable: bool = False
    """Whether its VM has said that it can't leave, perhaps as it has ended."""
    watchers: frozenset[Watcher] = frozenset()
    """Whom the process would tell of its end, as it was frozen."""


@dataclass
class Coming:
    """The state of a process on its way here."""

    source: str
    attempt: int
    at: float
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


@dataclass
class Moved:
    """``uniq`` as in the PID; ``node`` is where it is by what the watch said, at ``revision`` (0: no key)."""

    uniq: bytes
    node: str
    revision: int = 0
    told: str = ""
    """The node the VMs were told it is on."""
    pid: bytes = b""
    """Its PID, once this node has met it."""
    core: MoveCore | None = None
    inbox: Home | None = None
    """The VM it lives in, when it lives here."""
    leaving: Leaving | None = None
    coming: Coming | None = None
    expected: tuple[Holding, ...] | None = None
    """What the process brings, while it is not known whether it comes."""
    asked: dict[tuple[bytes, int, int], str] = field(default_factory=dict)
    """Assertions that wait for the kernel's answer: (watcher, watch, number) -> node of the watcher."""
    gone_at: float | None = None
    """When its key went; soon it is forgotten."""

    @property
    def is_idle(self) -> bool:
        """Whether the core says no more than the table does."""
        core = self.core
        return core is None or (
            core.place is Place.ELSEWHERE
            and core.arrival is None
            and core.redirect.pending is None
            and not core.watches.any
            and not core.relaying
            and not core.is_deleting
        )
