"""Module ``logger`` and ``print``: what Lua code logs, with who said it and where.

Casts only: ``debug``, ``info``, ``warn``, ``error`` [message, fields, logger name, location] and
``print`` [text, location]. Nothing here fails the process that logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog

from cluster.envelope import to_text
from node.modules.contract import Answer, Caller, Values, argument, invalid

LEVELS = frozenset({"debug", "info", "warn", "error"})
RESERVED = frozenset(
    {
        *("event", "message", "level", "time", "exception", "exc_info", "stack_info"),
        *("logger", "node", "pid", "entry", "location"),
        *("self", "method_name"),
    }
)
"""Keys the record itself uses; a field of that name gets a trailing underscore."""


class LoggerModule:
    """Python half of ``logger``; the Lua half is the kernel's."""

    name = "logger"
    deadlines: Mapping[str, timedelta | None] = {}

    def __init__(self, log: Any = None) -> None:
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
        record = _record(fields)
        record["pid"] = caller.pid_text
        record["entry"] = caller.entry
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


def _record(fields: Any) -> dict[str, Any]:
    """The fields of a Lua table as keywords; a list counts as positions, a lone value as ``value``."""
    match to_text(fields):
        case None:
            return {}
        case dict() as table:
            return {f"{key}_" if key in RESERVED else str(key): value for key, value in table.items()}
        case list() as values:
            return {str(position): value for position, value in enumerate(values, 1)}
        case value:
            return {"value": value}


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)
