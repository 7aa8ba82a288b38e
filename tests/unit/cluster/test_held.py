"""Frames kept until the watch shows their sender."""

from __future__ import annotations

from cluster.frame import Frame
from cluster.held import HOLD, HOLD_BYTES, HeldFrames


def frame(seq: int) -> Frame:
    return Frame(b"a", 1, 2, 1, seq, 0, [[1, b"to", b"from", 0]])


def test_they_come_back_in_order_and_once() -> None:
    held = HeldFrames()
    for seq in (1, 2, 3):
        assert held.add("a", frame(seq), 10, 0.0)
    assert held.add("b", frame(9), 10, 0.0)
    assert [(one.seq, size) for one, size in held.take("a")] == [(1, 10), (2, 10), (3, 10)]
    assert held.take("a") == []
    assert len(held) == 1


def test_all_of_a_sender_go_when_its_first_waited_too_long() -> None:
    held = HeldFrames()
    held.add("a", frame(1), 10, 0.0)
    held.add("a", frame(2), 10, HOLD)
    held.add("b", frame(3), 10, HOLD)
    assert held.expire(HOLD) == []
    assert [(src, one.seq) for src, one in held.expire(HOLD + 0.1)] == [("a", 1), ("a", 2)]
    assert len(held) == 1


def test_there_is_room_for_so_many_bytes_and_again_after_they_left() -> None:
    held = HeldFrames()
    assert held.add("a", frame(1), HOLD_BYTES, 0.0)
    assert not held.add("b", frame(1), 1, 0.0)
    held.take("a")
    assert held.add("b", frame(1), 1, 0.0)
