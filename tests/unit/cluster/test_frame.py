"""The bytes of a frame: what is written is read back, and anything else is refused."""

from __future__ import annotations

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import frame as wire
from cluster.envelope import pack
from cluster.frame import Frame, Reset

NUMBER = st.integers(0, 2**63 - 1)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=8), inner, max_size=4),
    max_leaves=10,
)
ENVELOPE = st.lists(VALUE, max_size=4).map(lambda rest: [1, b"to", b"from", 0, *rest])


@given(
    epochs=st.tuples(NUMBER, NUMBER),
    n=NUMBER,
    ack=NUMBER,
    seq=st.integers(1, 2**63 - 1),
    envelopes=st.lists(ENVELOPE, min_size=1, max_size=70),
)
def test_a_data_frame_is_read_back(
    epochs: tuple[int, int], n: int, ack: int, seq: int, envelopes: list[object]
) -> None:
    payload = wire.data(wire.head("nöde", *epochs, n), seq, ack, [pack(e) for e in envelopes])
    assert wire.read(payload) == Frame("nöde".encode(), *epochs, n, seq, ack, envelopes)


def test_ack_probe_and_reset_are_told_apart() -> None:
    head = wire.head("a", 1, 2, 3)
    assert wire.read(wire.ack(head, 9)) == Frame(b"a", 1, 2, 3, 0, 9, [])
    assert wire.read(wire.probe(head, 9)) == Frame(b"a", 1, 2, 3, 0, 9, None)
    assert wire.read(wire.reset(4, 5)) == Reset(4, 5)


def test_a_frame_is_one_plain_msgpack_array() -> None:
    payload = wire.data(wire.head("a", 1, 2, 3), 4, 5, [pack([1, b"to", b"from", 0])])
    assert msgpack.unpackb(payload) == ["a", 1, 2, 3, 4, 5, [[1, "to", "from", 0]]]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"src": "a"}, "as an array"),
        (["a", 1, 2], "7 fields"),
        (["reset", 1, -2], "7 fields"),
        (["a", 1, 2, 3, 4, 5], "7 fields"),
        ([7, 1, 2, 3, 4, 5, [[1, "t", "f", 0]]], "src"),
        (["a", 1, 2, 3, -4, 5, [[1, "t", "f", 0]]], "src"),
        (["a", True, 2, 3, 4, 5, [[1, "t", "f", 0]]], "src"),
        (["a", 1, 2, 2**63, 4, 5, [[1, "t", "f", 0]]], "src"),
        (["a", 1, 2, 3, 0, 5, [[1, "t", "f", 0]]], "needs a seq"),
        (["a", 1, 2, 3, 4, 5, []], "expected envelopes"),
        (["a", 1, 2, 3, 4, 5, None], "expected envelopes"),
        (["a", 1, 2, 3, 4, 5, [[1, "t", "f"]]], "no envelope"),
        (["a", 1, 2, 3, 4, 5, [["1", "t", "f", 0]]], "no envelope"),
        (["a", 1, 2, 3, 4, 5, ["text"]], "no envelope"),
    ],
)
def test_what_is_no_frame_is_refused(value: object, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        wire.read(msgpack.packb(value))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_read_but_never_anything_else(payload: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(wire.read(payload), Frame | Reset)
