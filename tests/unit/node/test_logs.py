"""Log lines for people and machines: aligned, honest about what is in them, never raising, never waiting."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import structlog

from node import logs as logs_module
from node.logs import Console, Encoding, Level, Logs, LogSettings
from node.output import Output


class Lines(Output):
    """Keeps what is put instead of writing it."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.stuck = 0

    @property
    def pending(self) -> int:
        return self.stuck

    def put(self, descriptor: int, data: bytes) -> None:
        assert descriptor == 2
        self.data += data

    def flush(self, timeout: float) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        return self.data.decode().splitlines()


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def configured(lines: Lines) -> Iterator[Any]:
    """``configured(encoding, level)`` installs the log for the test; afterwards all is as before."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level)

    def configure(encoding: Encoding = "console", level: Level = "info", colour: bool = False) -> Logs:
        logs = Logs(lines, LogSettings(level=level, encoding=encoding, colour=colour), node="node-1")
        logs.configure()
        return logs

    yield configure
    structlog.reset_defaults()
    root.handlers, root.level = before


LUA = {"pid": "{node-1@app:processes|1-2a}", "entry": "app:pinger", "location": "app:pinger:21", "logger": "wippy.lua"}


class TestConsole:
    def test_a_line_shows_time_level_node_message_fields_and_place(self, configured: Any, lines: Lines) -> None:
        configured()
        structlog.get_logger("wippy.lua").info("Pinger sent ping", round=3, **LUA)
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d\.\d{3} INFO  node-1 Pinger sent ping {16,} round=3 app:pinger:21 1-2a", lines.lines[0]
        )

    def test_fields_of_different_lines_stand_in_one_column(self, configured: Any, lines: Lines) -> None:
        configured()
        log = structlog.get_logger("wippy.x")
        log.info("short", key=1)
        log.warning("somewhat longer", key=2)
        assert len({line.index("key=") for line in lines.lines}) == 1

    def test_the_runtime_shows_its_logger_as_place(self, configured: Any, lines: Lines) -> None:
        configured()
        structlog.get_logger("wippy.router").info("ready")
        assert lines.lines[0].endswith("ready                            wippy.router")

    def test_control_characters_can_not_forge_a_line_or_colour_the_terminal(
        self, configured: Any, lines: Lines
    ) -> None:
        configured()
        log = structlog.get_logger("wippy.lua")
        log.info("evil\n12:00:00.000 ERROR forged\x1b[31m", key="a\nb\x9b", **{"na\nme": "v"})
        assert len(lines.lines) == 1
        assert "\x1b" not in lines.lines[0]
        assert "evil\\n" in lines.lines[0]

    def test_text_with_spaces_is_quoted_and_tables_are_json(self, configured: Any, lines: Lines) -> None:
        configured()
        structlog.get_logger("wippy.lua").info("m", a="two words", b={"x": [1, None]}, c="plain", d="")
        assert 'a="two words" b={"x": [1, null]} c=plain d=""' in lines.lines[0]

    def test_colours_only_when_asked_for(self, configured: Any, lines: Lines) -> None:
        configured(colour=True)
        structlog.get_logger("wippy.x").error("red")
        assert "\x1b[31mERROR\x1b[0m" in lines.data.decode()

    def test_an_exception_follows_indented(self, configured: Any, lines: Lines) -> None:
        configured()
        try:
            raise ValueError("why")
        except ValueError:
            structlog.get_logger("wippy.x").exception("failed")
        assert "failed" in lines.lines[0]
        assert lines.lines[-1] == "    ValueError: why"

    def test_milliseconds_belong_to_their_second(self) -> None:
        console = Console(colour=False)
        assert [console.line(now, {"event": "x"})[9:12] for now in (10.0, 10.75, 11.25)] == ["000", "750", "250"]


class TestJson:
    def test_a_line_is_one_object_with_the_fields_at_the_top(self, configured: Any, lines: Lines) -> None:
        configured("json")
        structlog.get_logger("wippy.lua").warning("Pinger sent ping", round=3, nested={"a": [1]}, **LUA)
        record = json.loads(lines.lines[0])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
        assert record == {
            "level": "warning",
            "message": "Pinger sent ping",
            "node": "node-1",
            "round": 3,
            "nested": {"a": [1]},
            **LUA,
        }

    @pytest.mark.parametrize(
        "value", [float("nan"), float("inf"), {1: {2: object()}}, "\udcff\udc00", {("a", 1): 2}, b"\xff\x00", {1, 2}]
    )
    def test_any_value_gives_valid_json(self, configured: Any, lines: Lines, value: Any) -> None:
        configured("json")
        structlog.get_logger("wippy.lua").info("m", value=value, kept=7)
        assert json.loads(lines.lines[0])["kept"] == 7

    def test_a_value_without_end_is_cut(self, configured: Any, lines: Lines) -> None:
        configured("json")
        endless: dict[str, Any] = {}
        endless["self"] = endless
        structlog.get_logger("wippy.lua").info("m", value=endless)
        assert json.loads(lines.lines[0])["message"] == "m"


class TestFields:
    """What a program gives as fields."""

    FIELDS: ClassVar = {"level": "INFO", "round": 3, "pid": "{x@y|0-0}", "time": 1}

    def test_the_console_shows_them_as_they_are(self, configured: Any, lines: Lines) -> None:
        configured()
        structlog.get_logger("wippy.lua").info("m", fields=self.FIELDS, **LUA)
        assert lines.lines[0].endswith("level=INFO round=3 pid={x@y|0-0} time=1 app:pinger:21 1-2a")

    def test_in_json_they_can_not_replace_what_the_runtime_says(self, configured: Any, lines: Lines) -> None:
        configured("json")
        structlog.get_logger("wippy.lua").info("m", fields=self.FIELDS, **LUA)
        record = json.loads(lines.lines[0])
        assert (record["level"], record["level_"]) == ("info", "INFO")
        assert (record["pid"], record["pid_"]) == (LUA["pid"], "{x@y|0-0}")
        assert (record["round"], record["time_"]) == (3, 1)

    @pytest.mark.parametrize("encoding", ["console", "json"])
    def test_the_own_pid_is_not_said_twice(self, configured: Any, lines: Lines, encoding: Encoding) -> None:
        configured(encoding)
        structlog.get_logger("wippy.lua").info("m", fields={"pid": LUA["pid"]}, **LUA)
        assert "pid=" not in lines.lines[0]
        assert "pid_" not in lines.lines[0]


class TestLevels:
    @pytest.mark.parametrize(
        ("level", "shown"),
        [
            ("debug", ["debug", "info", "warning", "error"]),
            ("info", ["info", "warning", "error"]),
            ("warning", ["warning", "error"]),
            ("error", ["error"]),
            ("silent", []),
        ],
    )
    def test_the_level_and_above_is_shown(self, configured: Any, lines: Lines, level: Level, shown: list[str]) -> None:
        configured("json", level)
        log = structlog.get_logger("wippy.x")
        log.debug("m")
        log.info("m")
        log.warning("m")
        log.error("m")
        assert [json.loads(line)["level"] for line in lines.lines] == shown

    def test_a_terminal_program_that_hides_logs_still_shows_errors(self, configured: Any, lines: Lines) -> None:
        logs = configured("json")
        log = structlog.get_logger("wippy.x")
        logs.held = True
        log.warning("hidden")
        log.error("shown")
        logs.held = False
        log.info("shown too")
        assert [json.loads(line)["message"] for line in lines.lines] == ["shown", "shown too"]


class TestPressure:
    def test_lines_nobody_reads_are_dropped_and_counted(
        self, configured: Any, lines: Lines, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs_module, "MAX_PENDING", 100)
        logs = configured("json")
        log = structlog.get_logger("wippy.x")
        lines.stuck = 101
        for _ in range(3):
            log.info("lost")
        lines.stuck = 0
        log.info("kept")
        assert [(json.loads(line)["message"], json.loads(line).get("count")) for line in lines.lines] == [
            ("log lines dropped", 3),
            ("kept", None),
        ]
        assert logs.dropped == 3


class TestForeignLogs:
    def test_libraries_log_through_the_same_line_from_warning_upwards(self, configured: Any, lines: Lines) -> None:
        configured("json")
        nats = logging.getLogger("nats.aio.client")
        nats.info("chatter")
        nats.warning("lost %s", "connection")
        record = json.loads(lines.lines[0])
        assert (record["logger"], record["level"], record["message"]) == (
            "nats.aio.client",
            "warning",
            "lost connection",
        )
        assert len(lines.lines) == 1

    def test_a_library_that_formats_badly_is_still_heard(self, configured: Any, lines: Lines) -> None:
        configured("json")
        logging.getLogger("odd").error("%d things", "no number")
        assert json.loads(lines.lines[0])["message"] == "%d things"


ENDING = """
import os, time
from node.logs import Logs, LogSettings
from node.output import Output

def slowly(descriptor, data):
    time.sleep(0.05)
    return os.write(descriptor, data)

with Output(write=slowly) as output:
    logs = Logs(output, LogSettings())
    logs.write("why it ends")
    logs.end_process(70)
"""


def test_a_process_that_ends_itself_has_said_why() -> None:
    ended = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stderr) == (70, "why it ends")
