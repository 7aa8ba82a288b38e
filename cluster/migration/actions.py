"""What the core of a move asks of its shell, in order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from cluster.migration.items import Item, Message, Note, Parcel, Watcher
from cluster.migration.transactions import Read, Transact


class Reason(Enum):
    """Why something could not be handed on, or why a watcher hears."""

    NOPROC = "noproc"
    NOCONNECTION = "noconnection"
    EXIT = "exit"
    """The process said so itself, or its last place did in its stead."""


class Verdict(Enum):
    """How a move ended for the node that began it."""

    MOVED = "moved"
    STAYED = "stayed"
    """The process runs where it was."""
    DIED = "died"


@dataclass(frozen=True, slots=True)
class Send:
    """Put this on the link to ``node``, behind all that went there before."""

    node: str
    note: Note


@dataclass(frozen=True, slots=True)
class Deliver:
    """A message for the process here; or an assertion, which the kernel answers under its number."""

    item: Item


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that came too late: a later one of its node has been accepted."""

    message: Message


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a request, keep a message as a dead letter, answer an assertion under its number."""

    item: Item
    reason: Reason


@dataclass(frozen=True, slots=True)
class Freeze:
    """Tell the process that it is to leave for ``to``; ``frozen`` when it has handed over its state."""

    to: str


@dataclass(frozen=True, slots=True)
class Resume:
    """The process goes on here: thaw it, or withdraw what Freeze asked for."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget the frozen process, telling nobody."""


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process: the lease it came here under is over."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Run the process from its parcel; its names and claims stand at ``revision``, under this node's lease. It asserts
    its own monitors and links anew and joins its groups."""

    parcel: Parcel
    revision: int


@dataclass(frozen=True, slots=True)
class Fire:
    """A watcher of this node hears that the process ended (EXIT: with what the envelope says)."""

    watcher: Watcher
    reason: Reason


@dataclass(frozen=True, slots=True)
class TellWatchers:
    """Send EXIT to these in the name of the process, which ended with its node."""

    watchers: frozenset[Watcher]


@dataclass(frozen=True, slots=True)
class Finished:
    """The move this node began is over."""

    verdict: Verdict
    reason: str


Action: TypeAlias = (
    Send
    | Deliver
    | DeadLetter
    | Refuse
    | Freeze
    | Resume
    | Drop
    | Kill
    | Adopt
    | Fire
    | TellWatchers
    | Finished
    | Transact
    | Read
)
