"""Listings for people, pipes and programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import pytest

from node.cli.console import Format, ago, note, printable, say, show, shown
from node.cli.failures import tell

ROWS = [{"name": "a", "count": 1, "extra": None}, {"name": "long name", "count": 20, "extra": {"k": [1, True]}}]
COLUMNS = {"name": "NAME", "count": "COUNT"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, COLUMNS, Format.TEXT)
    assert capsys.readouterr().out == "NAME       COUNT\na          1\nlong name  20\n"


def test_a_program_gets_every_field_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, COLUMNS, Format.JSON)
    assert json.loads(capsys.readouterr().out) == ROWS


def test_json_of_nothing_is_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    show([], COLUMNS, Format.JSON, empty="none")
    assert json.loads(capsys.readouterr().out) == []


def test_nothing_is_said_beside_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    show([], COLUMNS, Format.TEXT, empty="no rows here")
    assert capsys.readouterr() == ("", "no rows here\n")


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    show([{"name": "[red]x[/red]", "count": 3}], COLUMNS, Format.TEXT)
    assert "[red]x[/red]" in terminal.getvalue(), "a value is no markup"
    assert "NAME" in terminal.getvalue()


WIDE = {
    "pid": "{node-1@app:processes|1-2a}",
    "entry": "app:a_rather_long_name_of_a_process",
    "names": "counter",
    "up": "3m12s",
}
HEADS = {"pid": "PID", "entry": "ENTRY", "names": "NAMES", "up": "UP"}


@pytest.mark.parametrize(("room", "has_up"), [(85, True), (84, False), (60, False), (30, False)])
def test_whole_columns_are_never_wrapped_and_spare_ones_give_way(
    monkeypatch: pytest.MonkeyPatch, room: int, has_up: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(room))
    show([WIDE], HEADS, Format.TEXT, whole=("pid", "names"), spare=("up",))
    shown_text = terminal.getvalue()
    assert WIDE["pid"] in shown_text
    assert WIDE["names"] in shown_text
    assert ("3m12s" in shown_text) is has_up


@pytest.mark.parametrize("say", [note, tell])
def test_a_name_in_a_message_cannot_paint_the_terminal(
    say: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    say("src/\x1b[31m.yaml\n\tis \u202e wrong")
    assert capsys.readouterr().err.removeprefix("error: ") == "src/\\x1b[31m.yaml\n\tis \\u202e wrong\n"


def test_what_others_wrote_is_harmless_on_a_terminal_and_whole_for_a_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say("a\x1b[2J\nb")
    assert capsys.readouterr().out == "a\x1b[2J\nb\n"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    say("a\x1b[2J\nb")
    assert terminal.getvalue() == "a\\x1b[2J\nb\n"


def test_a_value_cannot_paint_the_terminal() -> None:
    assert printable("a\x1b[31mb\nc\ud800") == "a\\x1b[31mb\\nc\\ud800"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        ("", ""),
        (1.5, "1.5"),
        ({}, "-"),
        ({"a": 1, "b": "x"}, "a=1 b=x"),
        ([1, 2], "1, 2"),
        ([], "-"),
    ],
)
def test_values_in_cells(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0.0s"), (4.12, "4.1s"), (192, "3m12s"), (7500, "2h05m"), (200_000, "2d07h")]
)
def test_spans_of_time(seconds: float, text: str) -> None:
    assert ago(seconds) == text
