"""The bytes of one link frame: built from envelopes that are packed already, read back in one go.

A frame is the msgpack array ``[src, src_epoch, dst_epoch, n, seq, ack, envelopes]``; a RESET is
``["reset", src_epoch, dst_epoch]`` with the epochs as they stood in the frame it rejects. ``seq`` 0 is
unsequenced: with an empty array an ack (or the first frame of a new session), with nil a probe.

This module knows the form only. What a frame means is decided in ``cluster.link``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgpack

from cluster.envelope import Envelope

_pack = msgpack.Packer(use_bin_type=False, autoreset=True).pack

_LIMIT = 1 << 63
_RESET = b"reset"
_EMPTY = b"\x90"
_NIL = b"\xc0"
_HEADERS = [_pack(number) for number in range(128)]
_ARRAYS = [msgpack.Packer(autoreset=True).pack_array_header(number) for number in range(64)]


class Frame(NamedTuple):
    """A frame as read. ``envelopes`` is None in a probe."""

    src: bytes
    src_epoch: int
    dst_epoch: int
    n: int
    seq: int
    ack: int
    envelopes: list[Envelope] | None


class Reset(NamedTuple):
    """A RESET as read: the pair of epochs it rejects, the receiver's own epoch first."""

    src_epoch: int
    dst_epoch: int


def head(src: str, src_epoch: int, dst_epoch: int, n: int) -> bytes:
    """What all frames of one session begin with."""
    return b"\x97" + b"".join(map(_pack, (src, src_epoch, dst_epoch, n)))


def data(begin: bytes, seq: int, ack: int, packed: Sequence[bytes]) -> bytes:
    """A sequenced frame of packed envelopes; ``begin`` is what ``head`` gave."""
    return b"".join((begin, _number(seq), _number(ack), _array(len(packed)), *packed))


def ack(begin: bytes, seen: int) -> bytes:
    """An unsequenced frame that only says what was received."""
    return begin + b"\x00" + _number(seen) + _EMPTY


def probe(begin: bytes, seen: int) -> bytes:
    """An unsequenced frame that asks for one ack."""
    return begin + b"\x00" + _number(seen) + _NIL


def reset(src_epoch: int, dst_epoch: int) -> bytes:
    """A RESET for the pair that stood in a rejected frame."""
    packed: bytes = _pack([_RESET, src_epoch, dst_epoch])
    return packed


def read(payload: bytes) -> Frame | Reset:
    """The frame in ``payload``. Raises ValueError when it is none, saying what is wrong."""
    try:
        fields = msgpack.unpackb(payload, raw=True, strict_map_key=False)
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"frame is not msgpack: {error!r}") from None
    if type(fields) is not list:
        raise ValueError(f"expected a frame as an array, got {type(fields).__name__}")
    if len(fields) == 7:
        return _frame(fields)
    if len(fields) == 3 and fields[0] == _RESET and _numbers(fields[1:]):
        return Reset(fields[1], fields[2])
    raise ValueError(f"expected a frame of 7 fields or a RESET of 3, got {len(fields)} fields")


def _frame(fields: list[object]) -> Frame:
    frame = Frame(*fields)  # type: ignore[arg-type]
    if type(frame.src) is not bytes or not _numbers(fields[1:6]):
        raise ValueError("expected [src text, five numbers of 0 to 2**63-1, envelopes] in a frame")
    envelopes = frame.envelopes
    if frame.seq == 0:
        if envelopes:
            raise ValueError("a frame with envelopes needs a seq > 0")
        return frame
    if type(envelopes) is not list or not envelopes:
        raise ValueError(f"expected envelopes in frame {frame.seq}, got {type(envelopes).__name__}")
    for envelope in envelopes:
        if type(envelope) is not list or len(envelope) < 4 or type(envelope[0]) is not int:
            raise ValueError(f"frame {frame.seq} holds something that is no envelope")
    return frame


def _numbers(fields: list[object]) -> bool:
    return all(type(field) is int and 0 <= field < _LIMIT for field in fields)


def _number(number: int) -> bytes:
    packed: bytes = _HEADERS[number] if number < 128 else _pack(number)
    return packed


def _array(length: int) -> bytes:
    packed: bytes = _ARRAYS[length] if length < 64 else msgpack.Packer(autoreset=True).pack_array_header(length)
    return packed
