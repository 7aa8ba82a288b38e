"""Module ``logger`` and ``print``: what Lua code logs, with who said it and where.

Casts only: ``debug``, ``info``, ``warn``, ``error`` [message, fields, logger name, location] and
``print`` [text, location]. What the program gives as fields stays apart from what the runtime says
of it (key ``fields`` of the record), so no program can forge where a line comes from. Nothing
here fails the process that logs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import structlog

from node.modules.contract import Answer, Caller, Values, argument, invalid

LEVELS = {"debug": -1, "info": 0, "warn": 1, "error": 2}
NUMBERS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
MAX_TEXT = 8192
"""Bytes of one message that are shown."""
MAX_FIELDS = 16_384
"""Characters and values of all fields of one record that are shown."""
MAX_SORTED = 1000
"""Fields of one table that are put in order, so that the same line reads the same in every run."""


def lowest_shown(min_level: int) -> int:
    """The lowest of ``LEVELS``, from ``min_level`` on, that the log of this node shows: what is below need not leave
    its VM. Beyond all of them when the log shows none."""
    log = structlog.get_logger("wippy.lua")
    shown = [level for name, level in LEVELS.items() if log.is_enabled_for(NUMBERS[name])]
    return max(min_level, min(shown, default=max(LEVELS.values()) + 1))


class LoggerModule:
    """Python half of ``logger``; the Lua half is the kernel's."""

    name = "logger"
    deadlines: Mapping[str, timedelta | None] = {}

    def __init__(self, log: Any = None, *, min_level: int = -1) -> None:
        self._min_level = min_level
        self._log = log if log is not None else structlog.get_logger("wippy.lua")

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        raise invalid(f"logger.{fn} gives no answer")

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        match fn:
            case "print":
                self._emit(caller, "info", argument(args, 0), None, None, argument(args, 1))
            case level if level in LEVELS:
                self._emit(caller, level, *(argument(args, i) for i in range(4)))
            case _:
                raise invalid(f"logger has no function {fn!r}")

    def _emit(self, caller: Caller, level: str, message: Any, fields: Any, name: Any, location: Any) -> None:
        if LEVELS[level] < self._min_level:
            return
        record: dict[str, Any] = {"pid": caller.pid_text, "entry": caller.entry}
        if fields:
            record["fields"] = _fields(fields)
        if name:
            record["logger"] = _plain(name)
        if location:
            record["location"] = _plain(location)
        match level:
            case "debug":
                self._log.debug(_plain(message), **record)
            case "warn":
                self._log.warning(_plain(message), **record)
            case "error":
                self._log.error(_plain(message), **record)
            case _:
                self._log.info(_plain(message), **record)


def _fields(fields: Any) -> dict[str, Any]:
    """The fields of a Lua table by name; those of a list by position, a lone value as ``value``."""
    match _readable(fields, [MAX_FIELDS]):
        case dict() as table:
            return {str(key): value for key, value in table.items()}
        case list() as values:
            return {str(position): value for position, value in enumerate(values, 1)}
        case value:
            return {"value": value}


def _readable(value: Any, left: list[int]) -> Any:
    """``value`` with texts as str, cut where ``left`` characters (and values) are used up."""
    left[0] -= 1
    match value:
        case bytes():
            return _cut(value, left)
        case dict() | list() if left[0] <= 0:
            return "…"
        case dict():
            found: dict[Any, Any] = {}
            for key, item in _in_order(value):
                if left[0] <= 0:
                    found["…"] = f"{len(value) - len(found)} more"
                    break
                found[_readable(key, left)] = _readable(item, left)
            return found
        case list():
            items: list[Any] = []
            for item in value:
                if left[0] <= 0:
                    items.append(f"… {len(value) - len(items)} more")
                    break
                items.append(_readable(item, left))
            return items
        case _:
            return value


def _in_order(table: dict[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """The fields by name, numbers first. A Lua table has no order of its own: it differs from run to run."""
    if len(table) > MAX_SORTED:
        return table.items()
    return sorted(table.items(), key=lambda field: (1, field[0]) if isinstance(field[0], bytes) else (0, field[0]))


def _cut(text: bytes, left: list[int]) -> str:
    room = max(left[0], 16)
    left[0] -= len(text)
    if len(text) <= room:
        return text.decode("utf-8", "surrogateescape")
    return f"{text[:room].decode('utf-8', 'replace')}… ({len(text)} bytes)"


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return _cut(value, [MAX_TEXT]) if len(value) > MAX_TEXT else value.decode("utf-8", "replace")
    return "" if value is None else str(value)
