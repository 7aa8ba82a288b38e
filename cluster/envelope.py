"""What travels between processes: envelopes, and their final form on the wire.

An envelope is a list whose first four items are ``[kind, to, from, ref]``: the kind, the
PID it is for (for SPAWN and CALL a host: ``{node@host|}``), the PID it comes from, and the
number of the request (0 = no answer wanted). What follows depends on the kind, see ``Kind``.
Texts are bytes, because Lua strings are: nothing on the hot path decodes them.

On the wire an envelope is a msgpack array; strings are of msgpack's str family, read back
raw, so binary Lua strings survive. The same lists cross the boundary of a Lua VM, so one
router serves local and remote traffic.

Everything a process can observe is one of these (link rule L9), in one order per pair of nodes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeAlias

import msgpack

from cluster.errors import MessageTooBig

Envelope: TypeAlias = list[Any]

MAX_MESSAGE = 900 * 1024
"""Default limit of one packed envelope, in bytes."""


class Kind(IntEnum):
    """The kinds and their layout, in the order of the list."""

    MESSAGE = 1
    """``[1, to, from, ref, topic, payloads, name, revision]``. With ref != 0 the receiver answers REPLY OK when the
    mailbox took it. A message by name carries the name and its revision, else b"" and 0. With a number as a ninth item
    it comes back as RETURN when its name is another's by then."""
    SPAWN = 2
    """``[2, host, parent, ref, entry, args, options]``; options: monitor, link, owner, name, messages, context, ..."""
    REPLY = 3
    """``[3, to, from, ref, status, value]``; status is a ``Status``, value the result or an error map."""
    MONITOR = 4
    """``[4, to, from, ref]``"""
    UNMONITOR = 5
    """``[5, to, from, ref]``"""
    LINK = 6
    """``[6, to, from, ref]``"""
    UNLINK = 7
    """``[7, to, from, ref]``"""
    EXIT = 8
    """``[8, to, from, ref, watch, value, error]``: ``from`` ended; watch is a ``Watch``, error None or an error map."""
    CANCEL = 9
    """``[9, to, from, ref, reason]``; on the node where the process lives with a sixth item, the deadline: it is killed
    when it lives then, in ms since 1970."""
    TERMINATE = 10
    """``[10, to, from, ref]``"""
    CALL = 11
    """``[11, host, from, ref, function, args, options]``: a function call on another node."""
    RETURN = 12
    """``[12, to, from, 0, topic, payloads, name, applied, number]``: a message by name that process ``to`` sent to
    ``from``, which does not hold the name; applied is the revision at which the refusing node knows that."""

    MESSAGES = 13
    """``[13, to, from, 0, count, packed]``: so many MESSAGEs of one process to another, without name or ref, in their
    order; packed holds ``topic, payloads`` of each, one after the other. See ``unfold``."""

    FORWARD = 14
    """``[14, to, from, 0, passed, origin, number, envelope]``: for a process that has moved. The envelope was sent on
    node origin (empty: on the one it comes from) under this number; passed are the nodes that forwarded it. This kind
    and those that follow are between nodes about the process ``to``, and go to wherever it is, not to where its PID
    says it was born. See ``node.moving``."""
    FLUSH = 15
    """``[15, to, node, number, passed]``"""
    FLUSHED = 16
    """``[16, to, node, number]``"""
    LINK_FLUSH = 17
    """``[17, to, b"", number, passed]``"""
    LINK_FLUSHED = 18
    """``[18, to, b"", number]``"""
    MOVE_ASK = 19
    """``[19, to, b"", attempt, what]``; what says what is to come, see ``node.moving.wire``."""
    MOVE_RESERVED = 20
    """``[20, to, b"", attempt]``"""
    MOVE_REFUSED = 21
    """``[21, to, b"", attempt, reason]``"""
    MOVE_STATE = 22
    """``[22, to, b"", attempt, chunk, of, bytes]``: the state of the process, in so many chunks, counted from 0."""
    WATCH = 23
    """``[23, to, watcher, number, watch, passed, origin]``: the watcher, on node origin (empty: on the one it comes
    from), is to hear of the end; watch is a ``Watch``."""
    WATCHED = 24
    """``[24, to, watcher, number, watch, alive]``: the answer, under the number of the question."""


class Status(IntEnum):
    """How a request ended, in REPLY. NOCONNECTION means: outcome unknown."""

    OK = 0
    ERROR = 1
    NOPROC = 2
    NOCONNECTION = 3
    STALE_NAME = 4


class Watch(IntEnum):
    """Why an EXIT is told: the receiver monitored the process, is linked to it, or is owned by it and ends with it."""

    MONITOR = 1
    LINK = 2
    OWNER = 3


def error_map(kind: str, message: str, *, retryable: bool | None = None, details: Any = None) -> dict[bytes, Any]:
    """An error as it crosses the wire and the VM boundary.

    ``kind`` is one of the CamelCase kinds of the Lua API ("NotFound", "Invalid", ...).
    """
    error: dict[bytes, Any] = {b"kind": kind.encode(), b"message": message.encode()}
    if retryable is not None:
        error[b"retryable"] = retryable
    if details is not None:
        error[b"details"] = details
    return error


_packer = msgpack.Packer(use_bin_type=False, autoreset=True)


def pack(envelope: Envelope, limit: int = MAX_MESSAGE) -> bytes:
    """The packed envelope. Raises MessageTooBig over ``limit`` bytes. One thread only (the event loop's)."""
    packed: bytes = _packer.pack(envelope)
    if len(packed) > limit:
        raise MessageTooBig(len(packed), limit)
    return packed


def unpack(packed: bytes) -> Any:
    """The value in ``packed``, texts as bytes. Raises ValueError on malformed input."""
    try:
        return msgpack.unpackb(packed, raw=True, strict_map_key=False)
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not msgpack: {error!r}") from None


def unfold(envelope: Envelope) -> list[Envelope]:
    """The messages of a MESSAGES. Raises ValueError when it does not hold as many as it says."""
    _, to, sender, _, count, packed = envelope
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=0)
    try:
        unpacker.feed(packed)
        pairs = [(unpacker.unpack(), unpacker.unpack()) for _ in range(count)]
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not {count} messages: {error!r}") from None
    return [[int(Kind.MESSAGE), to, sender, 0, topic, payloads, b"", 0] for topic, payloads in pairs]


def to_text(value: Any) -> Any:
    """``value`` with bytes decoded to str (surrogateescape keeps binary), for people and clients."""
    match value:
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case dict():
            return {to_text(k): to_text(v) for k, v in value.items()}
        case list() | tuple():
            return [to_text(v) for v in value]
        case _:
            return value


def to_raw(value: Any) -> Any:
    """The inverse of ``to_text``: str encoded to bytes, for a VM or the wire."""
    match value:
        case str():
            return value.encode("utf-8", "surrogateescape")
        case dict():
            return {to_raw(k): to_raw(v) for k, v in value.items()}
        case list() | tuple():
            return [to_raw(v) for v in value]
        case _:
            return value
