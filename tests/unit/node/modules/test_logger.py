"""What Lua logs carries who said it, and can't disguise it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog

from node.modules.logger import LoggerModule, lowest_shown

PID = b"{node-1@app:processes|1-1}"
WHO = {"pid": PID.decode(), "entry": "app:main"}


@pytest.fixture
async def log(asking: Any, vm: Any) -> Any:
    """``log(fn, args...)`` casts and gives the records that came of it."""
    asker = await asking(LoggerModule())

    def cast(fn: str, *args: Any) -> list[Any]:
        with structlog.testing.capture_logs() as records:
            asker.dispatcher.take(vm, [51, PID, b"app:main", b"logger", fn.encode(), list(args)])
        return list(records)

    return cast


@pytest.mark.parametrize(
    ("level", "logged"), [("debug", "debug"), ("info", "info"), ("warn", "warning"), ("error", "error")]
)
def test_a_line_has_its_level_message_fields_and_place(log: Any, level: str, logged: str) -> None:
    records = log(level, b"Room created", {b"room": b"general", b"n": 2}, b"auth", b"app:main:12")
    assert records == [
        {
            "event": "Room created",
            "log_level": logged,
            "fields": {"room": "general", "n": 2},
            "logger": "auth",
            "location": "app:main:12",
            **WHO,
        }
    ]


def test_print_is_an_info_line(log: Any) -> None:
    assert log("print", b"a\tb", b"app:main:3") == [
        {"event": "a\tb", "log_level": "info", "location": "app:main:3", **WHO}
    ]


def test_fields_stay_apart_from_who_said_it(log: Any) -> None:
    fields = {b"pid": b"{x@y|0-0}", b"event": b"other", b"level": b"error", b"self": 1, b"exc_info": True, b"fields": 2}
    (record,) = log("info", b"m", fields)
    assert (record["event"], record["log_level"], record["pid"]) == ("m", "info", WHO["pid"])
    assert record["fields"]["pid"] == "{x@y|0-0}"


@pytest.mark.parametrize("fields", [None, [], {}, [b"x", 2], b"lone", 7, {1: b"x", b"1": 2}])
def test_any_fields_are_taken(log: Any, fields: Any) -> None:
    assert log("info", b"m", fields)[0]["event"] == "m"


async def test_lines_below_the_least_level_are_left_out(asking: Any, vm: Any) -> None:
    asker = await asking(LoggerModule(min_level=1))
    with structlog.testing.capture_logs() as records:
        for fn in ("debug", "info", "print", "warn", "error"):
            asker.dispatcher.take(vm, [51, PID, b"app:main", b"logger", fn.encode(), [fn.encode()]])
    assert [record["event"] for record in records] == ["warn", "error"]


def test_fields_come_in_the_same_order_in_every_run(log: Any) -> None:
    fields = {b"to": 1, 10: 2, b"at": {b"z": 1, b"a": 2}, True: 3, 2: 4}
    (record,) = log("info", b"m", fields)
    assert list(record["fields"]) == ["True", "2", "10", "at", "to"]
    assert list(record["fields"]["at"]) == ["a", "z"]


def test_binary_in_a_message_is_no_failure(log: Any) -> None:
    assert log("info", b"\xff\x00", {b"\xfe": b"\xfd"})[0]["event"] == "\ufffd\x00"


def test_a_long_message_is_cut_and_says_how_long_it_was(log: Any) -> None:
    (record,) = log("info", b"x" * 100_000)
    assert record["event"] == "x" * 8192 + "… (100000 bytes)"


@pytest.mark.parametrize(
    "fields",
    [
        {b"text": b"x" * 1_000_000},
        {b"k%d" % number: number for number in range(100_000)},
        {b"list": list(range(100_000))},
        {b"a": {b"b": [b"x" * 100] * 10_000}},
        [[[b"deep"] * 100] * 100] * 100,
    ],
)
def test_large_fields_are_cut(log: Any, fields: Any) -> None:
    (record,) = log("info", b"m", fields)
    shown = repr(record["fields"])
    assert len(shown) < 200_000
    assert "…" in shown


def test_an_unknown_function_is_refused_in_the_log(log: Any) -> None:
    assert [record["event"] for record in log("shout", b"m")] == ["cast refused"]


class TestLowestShown:
    @pytest.mark.parametrize(
        ("number", "min_level", "lowest"),
        [
            (logging.DEBUG, -1, -1),
            (logging.INFO, -1, 0),
            (logging.INFO, 1, 1),
            (logging.ERROR, 0, 2),
            (logging.CRITICAL, -1, 3),
        ],
    )
    def test_it_is_the_higher_of_what_the_log_shows_and_what_is_set(
        self, number: int, min_level: int, lowest: int
    ) -> None:
        before = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
        try:
            assert lowest_shown(min_level) == lowest
        finally:
            structlog.configure(**before)
