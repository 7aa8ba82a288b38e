"""Logs: structlog set up once per process, for people (console) or for machines (json).

One line per record on standard error, handed to the node's ``Output``: logging never waits
for a terminal. When more than ``MAX_PENDING`` bytes wait there, further lines are dropped and
counted, and the count is logged when there is room again. A control character in a value is
shown escaped, so no value can forge a line. A record never raises for what is in it.

``held`` keeps everything below error back while a terminal program that asked for it
(``terminal.host`` with ``hide_logs``) has the screen.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
import traceback
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Protocol

import structlog

from node.output import STDERR, Output

Record = MutableMapping[str, Any]
Encoding = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error", "silent"]

MAX_PENDING = 32 * 1024 * 1024
LAST_LINES_SECONDS = 0.2
"""How long a process that ends at once waits for its log: it may have to be gone before its lease is."""
NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "silent": 50}
MESSAGE_WIDTH = 32


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How to log."""

    level: Level = "info"
    """The lowest level shown; ``silent`` shows nothing."""
    encoding: Encoding = "console"
    colour: bool = False
    """Colours on the console; for a terminal only, which the caller knows."""


class Logs:
    """The log of this process. ``configure`` makes structlog and the standard library's logging use it."""

    def __init__(self, output: Output, settings: LogSettings, *, node: str = "", descriptor: int = STDERR) -> None:
        self._output = output
        self._settings = settings
        self._descriptor = descriptor
        self._format: Format = Json() if settings.encoding == "json" else Console(settings.colour)
        self.node = node
        """Name of this node, in every record once it is known."""
        self.held = False
        self.dropped = 0
        """Lines lost because nobody read them."""
        self._unsaid = 0

    def configure(self) -> None:
        """Install it for the whole process; loggers made at module level before use it as well."""
        number = NUMBERS[self._settings.level]
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, self.render],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=self._logger,
            cache_logger_on_first_use=False,
        )
        foreign = logging.getLogger()
        foreign.handlers = [Foreign(self)]
        foreign.setLevel(max(number, logging.WARNING))

    def render(self, logger: Any, method: str, record: Record) -> str:
        """The line of a record; the last structlog processor."""
        if self.node:
            record.setdefault("node", self.node)
        name = getattr(logger, "name", "")
        if name:
            record.setdefault("logger", name)
        error = record.pop("exc_info", None)
        if error:
            record["exception"] = _traceback(error)
        return self._format.line(time.time(), record)

    def write(self, line: str, level: str = "info") -> None:
        """Hand one line over, or count it as dropped. Any thread, never blocks."""
        if self.held and level not in ("error", "critical"):
            return
        if self._output.pending > MAX_PENDING:
            self.dropped += 1
            self._unsaid += 1
            return
        if self._unsaid:
            lost, self._unsaid = self._unsaid, 0
            notice = self._format.line(time.time(), {"level": "warning", "event": "log lines dropped", "count": lost})
            self._put(notice)
        self._put(line)

    def end_process(self, code: int) -> None:
        """``os._exit``, once the lines are written that say why: the thread that writes them ends with the process."""
        self._output.flush(LAST_LINES_SECONDS)
        os._exit(code)

    def _put(self, line: str) -> None:
        self._output.put(self._descriptor, line.encode("utf-8", "backslashreplace"))

    def _logger(self, *args: Any) -> Logger:
        return Logger(self, str(args[0]) if args else "")


class Logger:
    """What structlog hands its lines to."""

    __slots__ = ("_logs", "name")

    def __init__(self, logs: Logs, name: str) -> None:
        self._logs = logs
        self.name = name

    def debug(self, line: str) -> None:
        self._logs.write(line, "debug")

    def info(self, line: str) -> None:
        self._logs.write(line)

    def error(self, line: str) -> None:
        self._logs.write(line, "error")

    warning = warn = msg = log = info
    critical = fatal = exception = err = failure = error


class Foreign(logging.Handler):
    """Takes the records of libraries that use the standard library's logging."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        fields: Record = {"event": message, "level": level, "exc_info": record.exc_info}
        self._logs.write(self._logs.render(Logger(self._logs, record.name), level, fields), level)


class Format(Protocol):
    """How a record becomes a line, newline included."""

    def line(self, now: float, record: Record) -> str: ...


class Json:
    """One JSON object per line: time, level, message, node, logger, pid, entry, location, then the fields.

    A program's field that is named like one of these gets a trailing underscore.
    """

    ORDER = ("logger", "node", "pid", "entry", "location")

    def line(self, now: float, record: Record) -> str:
        ordered: dict[str, Any] = {
            "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.pop("level", "info"),
            "message": record.pop("event", ""),
        }
        for key in self.ORDER:
            if key in record:
                ordered[key] = record.pop(key)
        fields = record.pop("fields", {})
        ordered.update(record)
        for key, value in fields.items():
            if ordered.get(key) != value:
                ordered[f"{key}_" if key in ordered else key] = value
        try:
            return json.dumps(ordered, allow_nan=False, default=str) + "\n"
        except (TypeError, ValueError, RecursionError):
            return json.dumps(_plain(ordered, depth=8), allow_nan=False) + "\n"


class Console:
    """``12:01:07.250 INFO  node-1 Pinger sent ping   round=3  app:pinger:21 1-2a``"""

    MARKS: ClassVar[dict[str, str]] = {
        "debug": "DEBUG",
        "info": "INFO ",
        "warning": "WARN ",
        "error": "ERROR",
        "critical": "ERROR",
    }
    COLOURS: ClassVar[dict[str, str]] = {
        "debug": "\x1b[2m",
        "info": "\x1b[32m",
        "warning": "\x1b[33m",
        "error": "\x1b[31m",
    }

    def __init__(self, colour: bool) -> None:
        self._dim, self._bold, self._reset = ("\x1b[2m", "\x1b[1m", "\x1b[0m") if colour else ("", "", "")
        self._mark = {
            level: f"{self.COLOURS.get(level, self.COLOURS['error'])}{mark}{self._reset}" if colour else mark
            for level, mark in self.MARKS.items()
        }
        self._second = -1
        self._clock = ""

    def line(self, now: float, record: Record) -> str:
        level, event = record.pop("level", "info"), _shown(record.pop("event", ""))
        node, pid, place = record.pop("node", ""), record.get("pid"), self._place(record)
        trace = record.pop("exception", "")
        parts = [f"{self._dim}{self._time(now)}{self._reset} {self._mark.get(level, level)}"]
        if node:
            parts.append(f"{self._dim}{node}{self._reset}")
        said = {key: value for key, value in record.pop("fields", {}).items() if value != pid or key != "pid"}
        pairs = (*record.items(), *said.items())
        fields = " ".join(f"{self._dim}{_shown(key)}={self._reset}{_field(value)}" for key, value in pairs)
        message = event.ljust(MESSAGE_WIDTH) if fields or place else event
        parts.append(f"{self._bold}{message}{self._reset}")
        if fields:
            parts.append(fields)
        if place:
            parts.append(f"{self._dim}{place}{self._reset}")
        indented = "".join(f"\n    {_shown(line)}" for line in trace.splitlines())
        return f"{' '.join(parts)}{indented}\n"

    def _time(self, now: float) -> str:
        second, rest = divmod(now, 1)
        if second != self._second:
            self._second, self._clock = int(second), time.strftime("%H:%M:%S", time.localtime(second))
        return f"{self._clock}.{int(rest * 1000):03d}"

    def _place(self, record: Record) -> str:
        """Where it was said: ``entry:line uniq`` for Lua, the logger's name for the runtime."""
        location, entry = record.pop("location", ""), record.pop("entry", "")
        name, pid = record.pop("logger", ""), record.pop("pid", "")
        where = location or entry
        if name and name != "wippy.lua":
            where = f"{where} {name}" if where else name
        uniq = pid.rsplit("|", 1)[-1].rstrip("}") if isinstance(pid, str) else ""
        return _shown(f"{where} {uniq}".strip())


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BARE = re.compile(r"[^\s\"=\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def _shown(value: Any) -> str:
    """``value`` as text on one line."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), str(value))


def _field(value: Any) -> str:
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, dict | list | tuple):
        try:
            return _shown(json.dumps(value, ensure_ascii=False, default=str))
        except (TypeError, ValueError, RecursionError):
            return _scalar(value)
    return _shown(value)


def _scalar(value: Any) -> str:
    try:
        return _shown(value)
    except RecursionError:
        return f"<{type(value).__name__} too deep to show>"


def _plain(value: Any, depth: int) -> Any:
    """``value`` with only what JSON knows; too deep or not JSON becomes text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case dict() if depth:
            return {str(key): _plain(item, depth - 1) for key, item in value.items()}
        case list() | tuple() if depth:
            return [_plain(item, depth - 1) for item in value]
        case _:
            return _scalar(value)


def _traceback(error: Any) -> str:
    match error:
        case BaseException():
            return "".join(traceback.format_exception(error))
        case tuple():
            return "".join(traceback.format_exception(*error)) if error[1] is not None else ""
        case _:
            current = sys.exception()
            return "".join(traceback.format_exception(current)) if current is not None else ""
