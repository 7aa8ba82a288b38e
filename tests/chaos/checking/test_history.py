"""Histories are read as they grow; what stands in them is put together as operations, and times as registrations."""

from __future__ import annotations

from math import inf
from pathlib import Path

from tests.chaos.checking.history import SECOND, Recording
from tests.chaos.checking.truth import Change, Epoch, Truth

A, B = "{n1@app:processes|1-a}", "{n1@app:others|1-b}"


def line(at: int, pid: str, text: str) -> bytes:
    return f"{at} {pid} {text}\n".encode()


def test_a_file_is_read_on_where_it_grew_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "history"
    recording = Recording([path, tmp_path / "none yet"])
    assert recording.history().records == []
    whole, half = line(1, A, '{"f":"ends"}'), line(2, B, '{"f":"ends"}')
    path.write_bytes(whole + half[:-3])
    assert [record.pid for record in recording.history().records] == [A]
    path.write_bytes(whole + half)
    assert [(record.pid, record.place) for record in recording.history().records] == [(A, 0), (B, 1)]
    assert [record.pid for record in recording.history(since=2).records] == [B]


def test_begin_and_end_are_one_operation_of_their_process(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(
        line(1, A, '{"f":"acquire","op":1,"key":"x"}')
        + line(2, B, '{"f":"acquire","op":1,"key":"x"}')
        + line(3, B, '{"done":1,"kind":"AlreadyExists","error":"held"}')
        + line(4, A, '{"done":1,"token":7}')
        + line(5, A, '{"f":"write","op":2,"key":"x"}')
        + line(6, A, '{"f":"ends"}')
    )
    history = Recording([path]).history()
    first, second = history.operations("acquire")
    assert (first.pid, first.begin, first.end, first.ok, first.answer["token"]) == (A, 1, 4, True, 7)
    assert (second.ok, second.problem, second.unknown) == (False, "AlreadyExists", False)
    (write,) = history.operations("write")
    assert (write.end, write.ok, write.unknown) == (None, False, True)
    assert "never answered" in str(write)
    assert [record.pid for record in history.of("ends")] == [A]
    assert history.ended == {A: 6}
    assert history.last_seen == {A: 6, B: 3}
    assert list(history.by_vm()) == [("n1", "1", "app:processes"), ("n1", "1", "app:others")]


def test_registrations_are_certain_only_between_what_was_seen() -> None:
    def change(revision: int, value: bytes | None, at: int) -> Change:
        return Change(revision, "nodes/n1", value, (at - 1) * SECOND, at * SECOND)

    truth = Truth([change(3, b"joining", 10), change(4, b"ready", 11), change(9, None, 20), change(12, b"joining", 30)])
    assert truth.epochs() == [
        Epoch("n1", 3, since=10 * SECOND, until=19 * SECOND, gone=20 * SECOND),
        Epoch("n1", 12, since=30 * SECOND),
    ]
    assert truth.epochs()[1].gone == inf
    assert truth.registered("n1", 10 * SECOND, 19 * SECOND)
    assert not truth.registered("n1", 10 * SECOND, 19.5 * SECOND)
    assert not truth.registered("n1", 19 * SECOND, 31 * SECOND)
    assert truth.registered("n1", 30 * SECOND, 99 * SECOND)
