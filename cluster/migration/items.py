"""What is addressed to a process that may move, the way it came, and what nodes say to each other about the move.

All of it travels on the links, in their order. A shell gives each its form as an envelope; here it has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Message:
    """A message or signal for the process, numbered by the node it was sent on (see ``cluster.migration.numbers``).

    ``revision`` is that of the name it was sent by; 0: by PID.
    """

    sender: str
    number: int
    envelope: Any
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Flush:
    """Answered once everything that went the same way before it has reached the process: ``node`` asks, the
    ``number`` is one of its own."""

    node: str
    number: int


@dataclass(frozen=True, slots=True)
class Watcher:
    """A process of ``node`` that monitors or is linked to the one that moves; ``id`` tells it from the others there."""

    node: str
    id: str


@dataclass(frozen=True, slots=True)
class Assertion:
    """The watcher is to hear of the end. Said again until it is answered under this very number."""

    watcher: Watcher
    number: int


Item: TypeAlias = Message | Flush | Assertion


@dataclass(frozen=True, slots=True)
class Way:
    """The link an item came over (empty: it begins here), and the nodes that forwarded it before, first to last."""

    link: str = ""
    passed: tuple[str, ...] = ()

    @property
    def begins_here(self) -> bool:
        return not self.link


HERE = Way()


@dataclass(frozen=True, slots=True)
class Forwarded:
    """An item a former holder passes on; ``passed`` are the nodes that did so, the sending one last."""

    item: Item
    passed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flushed:
    """The answer to a Flush, on the way it came, hop by hop."""

    flush: Flush


@dataclass(frozen=True, slots=True)
class LinkFlush:
    """Answered at once by the node that gets it: all the process sent it before has arrived."""

    number: int


@dataclass(frozen=True, slots=True)
class LinkFlushed:
    number: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Will you take the process? ``attempt`` is the asking node's number of this move."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Reserved:
    attempt: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The target won't have it, or has it no more."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Holding:
    """A name or claim of the process: its etcd key, the value, and the mod_revision it stands at."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Luggage:
    """What a frozen process is: ``body`` is the kernel's (state, mailbox in order, watchers, own monitors, context)."""

    body: Any
    watchers: frozenset[Watcher] = frozenset()
    sent_to: frozenset[str] = frozenset()
    """The nodes it has sent anything to from here."""
    holdings: tuple[Holding, ...] = ()


@dataclass(frozen=True, slots=True)
class Parcel:
    """The process on its way: with what the commit compares, and the highest number accepted from each node."""

    attempt: int
    revision: int
    epoch: int
    body: Any
    holdings: tuple[Holding, ...] = ()
    accepted: Mapping[str, int] = field(default_factory=dict)
    former: frozenset[int] = frozenset()
    """Revisions its names had earlier, under it."""
    watchers: frozenset[Watcher] = frozenset()
    held: tuple[Message, ...] = ()
    """What arrived for it until it was sent, in order: all of that comes before whatever is forwarded."""


Note: TypeAlias = Item | Forwarded | Flushed | LinkFlush | LinkFlushed | Ask | Reserved | Refused | Parcel
"""Whatever one node sends another about a process that moves."""
