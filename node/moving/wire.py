"""What nodes say to each other about a process that moves, as envelopes (kinds 14 to 24 of ``cluster.envelope``).

They are for the process wherever it is: the PID may stand without the place where it was born, as ``{|uniq}``, which
is all a node knows of one it has never met. The state of a process goes in chunks, so that what else is on the link
gets its turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

from cluster.envelope import Envelope, Kind, unpack
from cluster.migration.items import (
    Ask,
    Assertion,
    Flush,
    Flushed,
    Forwarded,
    Holding,
    Item,
    LinkFlush,
    LinkFlushed,
    Message,
    Note,
    Parcel,
    Refused,
    Reserved,
    Watcher,
    Way,
)
from cluster.pid import uniq_of
from node.router import HOSTED
from node.router import LENGTHS as FROM_NODES

MOST_STATE = 64 * 1024 * 1024
"""Bytes of a process that moves, all it has included."""
CHUNK = 256 * 1024
"""Bytes of the state in one envelope."""
LENGTHS = {14: 8, 15: 5, 16: 4, 17: 5, 18: 4, 19: 5, 20: 4, 21: 5, 22: 7, 23: 7, 24: 6}
OF_LINKS = frozenset({Kind.LINK_FLUSH, Kind.LINK_FLUSHED})
"""Kinds that may be about no process."""
TO_PROCESSES = {kind: (length,) for kind, length in FROM_NODES.items() if kind not in HOSTED} | {1: (8, 9), 9: (5, 6)}
"""Items of the envelopes that may be forwarded, by kind."""
NAMED = frozenset({Kind.MESSAGE})
"""Kinds of envelopes that carry the revision of a name."""


class TooLarge(ValueError):
    """The process is more than may move."""


@dataclass(frozen=True, slots=True)
class Body:
    """What of a parcel is for the target's node rather than for the core. ``text`` is the kernel's."""

    pid: str
    host: str
    entry: str
    text: bytes
    groups: Any = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the source tells of the process with its question: the target looks whether it could run it."""

    pid: str
    host: str
    entry: str
    version: int
    keys: tuple[str, ...] = ()

    def to_wire(self) -> dict[bytes, Any]:
        return {
            b"pid": _raw(self.pid),
            b"host": _raw(self.host),
            b"entry": _raw(self.entry),
            b"version": self.version,
            b"keys": [_raw(key) for key in self.keys],
        }

    @classmethod
    def of(cls, what: Any) -> Wanted:
        """Raises ValueError on anything but what ``to_wire`` gives."""
        try:
            keys = tuple(_text(key) for key in what[b"keys"])
            return cls(_text(what[b"pid"]), _text(what[b"host"]), _text(what[b"entry"]), int(what[b"version"]), keys)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected what is to be known of a process, got {what!r} ({error!r})") from None


def address(uniq: bytes) -> bytes:
    """A process, wherever it is."""
    return b"{|" + uniq + b"}"


def message_of(envelope: Envelope, sender: str, number: int) -> Message:
    """An envelope for a process as the core knows it."""
    return Message(sender, number, envelope, envelope[7] if envelope[0] in NAMED else 0)


def watcher_of(node: str, pid: bytes, watch: int) -> Watcher:
    """A process that monitors (1) or is linked to (2) another."""
    return Watcher(node, f"{watch}{_text(pid)}")


def watch_of(watcher: Watcher) -> tuple[bytes, int]:
    """PID and way of a watcher."""
    return _raw(watcher.id[1:]), int(watcher.id[0])


# -- to the wire


def envelope_of(note: Note, to: bytes, node: str) -> Envelope:
    """The envelope of anything but an Ask and a Parcel, as ``node`` sends it."""
    match note:
        case Message():
            return _forward(note, (), node)
        case Forwarded(Message() as message, passed):
            return _forward(message, passed, node)
        case Flush() | Forwarded(Flush(), _):
            flush, passed = (note, ()) if isinstance(note, Flush) else (note.item, note.passed)
            assert isinstance(flush, Flush)
            return [int(Kind.FLUSH), to, _raw(flush.node), flush.number, _passed(passed)]
        case Assertion() | Forwarded(Assertion(), _):
            asserted, passed = (note, ()) if isinstance(note, Assertion) else (note.item, note.passed)
            assert isinstance(asserted, Assertion)
            pid, watch = watch_of(asserted.watcher)
            origin = b"" if asserted.watcher.node == node else _raw(asserted.watcher.node)
            return [int(Kind.WATCH), to, pid, asserted.number, watch, _passed(passed), origin]
        case Flushed(flush):
            return [int(Kind.FLUSHED), to, _raw(flush.node), flush.number]
        case LinkFlush(number):
            return [int(Kind.LINK_FLUSH), to, b"", number, []]
        case LinkFlushed(number):
            return [int(Kind.LINK_FLUSHED), to, b"", number]
        case Reserved(attempt):
            return [int(Kind.MOVE_RESERVED), to, b"", attempt]
        case Refused(attempt, reason):
            return [int(Kind.MOVE_REFUSED), to, b"", attempt, _raw(reason)]
        case _:
            raise AssertionError(f"{note!r} is not said in one envelope")


def asking(ask: Ask, wanted: Wanted, uniq: bytes) -> Envelope:
    return [int(Kind.MOVE_ASK), address(uniq), b"", ask.attempt, wanted.to_wire()]


def answer_to(uniq: bytes, assertion: Assertion, alive: bool) -> Envelope:
    """The answer to an assertion of another node."""
    pid, watch = watch_of(assertion.watcher)
    return [int(Kind.WATCHED), address(uniq), pid, assertion.number, watch, alive]


def _forward(message: Message, passed: tuple[str, ...], node: str) -> Envelope:
    envelope = message.envelope
    origin = b"" if message.sender == node else _raw(message.sender)
    return [int(Kind.FORWARD), envelope[1], envelope[2], 0, _passed(passed), origin, message.number, envelope]


def chunks(parcel: Parcel, uniq: bytes) -> Iterator[Envelope]:
    """The envelopes of a parcel. Raises TooLarge before the first."""
    packed = _pack(parcel)
    if len(packed) > MOST_STATE:
        raise TooLarge(
            f"the process has {len(packed)} bytes of state and messages, more than the {MOST_STATE} that may move"
        )
    parts = [packed[at : at + CHUNK] for at in range(0, len(packed), CHUNK)]
    to = address(uniq)
    return ([int(Kind.MOVE_STATE), to, b"", parcel.attempt, n, len(parts), part] for n, part in enumerate(parts))


def _pack(parcel: Parcel) -> bytes:
    body: Body = parcel.body
    packed: bytes = msgpack.packb(
        {
            "attempt": parcel.attempt,
            "revision": parcel.revision,
            "epoch": parcel.epoch,
            "body": [body.pid, body.host, body.entry, body.text, body.groups],
            "holdings": [[held.key, held.value, held.revision] for held in parcel.holdings],
            "accepted": dict(parcel.accepted),
            "former": sorted(parcel.former),
            "watchers": [[watcher.node, watcher.id] for watcher in parcel.watchers],
            "held": [[message.sender, message.number, message.envelope] for message in parcel.held],
        },
        use_bin_type=False,
        unicode_errors="surrogateescape",
    )
    return packed


# -- from the wire


def is_wellformed(envelope: Envelope) -> bool:
    """Whether an envelope of these kinds, whose first four items are sound, has the others."""
    kind, uniq = envelope[0], uniq_of(envelope[1])
    if len(envelope) != LENGTHS.get(kind) or not uniq.isascii():
        return False
    if not uniq and kind not in OF_LINKS:
        return False  # the address of a host: were it in the table, nothing could be started there
    match kind:
        case Kind.FORWARD:
            _, _, _, _, passed, origin, number, inner = envelope
            return (
                _are_texts(passed)
                and type(origin) is bytes
                and type(number) is int
                and _is_forwarded(inner)
                and inner[1] == envelope[1]
            )
        case Kind.FLUSH | Kind.LINK_FLUSH:
            return _are_texts(envelope[4])
        case Kind.MOVE_REFUSED:
            return type(envelope[4]) is bytes
        case Kind.MOVE_STATE:
            _, _, _, _, chunk, of, part = envelope
            return type(chunk) is int and type(of) is int and type(part) is bytes and 0 <= chunk < of
        case Kind.WATCH:
            return envelope[4] in (1, 2) and _are_texts(envelope[5]) and type(envelope[6]) is bytes
        case Kind.WATCHED:
            return envelope[4] in (1, 2) and type(envelope[5]) is bool
        case _:
            return True


def item_of(envelope: Envelope, peer: str) -> tuple[Item, Way]:
    """FORWARD, FLUSH and WATCH as they came over the link from ``peer``."""
    match envelope[0]:
        case Kind.FORWARD:
            _, _, _, _, passed, origin, number, inner = envelope
            return message_of(inner, _text(origin) or peer, number), Way(peer, _nodes(passed))
        case Kind.FLUSH:
            _, _, node, number, passed = envelope
            return Flush(_text(node), number), Way(peer, _nodes(passed))
        case Kind.WATCH:
            _, _, pid, number, watch, passed, origin = envelope
            watcher = watcher_of(_text(origin) or peer, pid, watch)
            return Assertion(watcher, number), Way(peer, _nodes(passed))
        case kind:
            raise AssertionError(f"{kind} is nothing that is addressed to a process")


def parcel_of(packed: bytes) -> Parcel:
    """The parcel in all its chunks. Raises ValueError."""
    value = unpack(packed)
    try:
        pid, host, entry, text, groups = value[b"body"]
        return Parcel(
            int(value[b"attempt"]),
            int(value[b"revision"]),
            int(value[b"epoch"]),
            Body(_text(pid), _text(host), _text(entry), text, groups),
            tuple(Holding(_text(key), held, int(revision)) for key, held, revision in value[b"holdings"]),
            {_text(node): int(number) for node, number in value[b"accepted"].items()},
            frozenset(int(one) for one in value[b"former"]),
            frozenset(_watcher(node, id) for node, id in value[b"watchers"]),
            tuple(_held(node, number, envelope) for node, number, envelope in value[b"held"]),
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not the state of a process ({error!r})") from None


def _held(node: bytes, number: Any, envelope: Any) -> Message:
    if not _is_forwarded(envelope):
        raise ValueError(f"{envelope!r:.200} is nothing that waits for a process")
    return message_of(envelope, _text(node), int(number))


def _watcher(node: bytes, id: bytes) -> Watcher:
    if id[:1] not in (b"1", b"2"):
        raise ValueError(f"{id!r} is no watcher")
    return Watcher(_text(node), _text(id))


def _is_forwarded(envelope: Any) -> bool:
    """Whether it is an envelope for a process, with all that the router and the kernel look at."""
    if type(envelope) is not list or len(envelope) < 4:
        return False
    kind, to, sender, ref = envelope[:4]
    return (
        type(kind) is int
        and len(envelope) in TO_PROCESSES.get(kind, ())
        and type(to) is bytes
        and type(sender) is bytes
        and type(ref) is int
        and (kind not in (1, 12) or (type(envelope[5]) is list and type(envelope[7]) is int))
        and (len(envelope) != 9 or type(envelope[8]) is int)
        and (kind != 13 or (type(envelope[4]) is int and type(envelope[5]) is bytes))
    )


def _are_texts(value: Any) -> bool:
    return type(value) is list and all(type(one) is bytes for one in value)


def _nodes(passed: list[bytes]) -> tuple[str, ...]:
    return tuple(_text(node) for node in passed)


def _passed(passed: tuple[str, ...]) -> list[bytes]:
    return [_raw(node) for node in passed]


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
