"""Module ``time``, named zones: when their offset from UTC changes.

The Lua half knows UTC, the local zone and fixed offsets; a zone like ``Europe/London`` it gets
from here, once per VM, as the list of its changes. They come from the machine's time zone
database (or the package ``tzdata``), as far as a program may look: 1850 to 2200.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from node.modules.contract import Answer, Caller, Values, argument, invalid, not_found, text, unavailable

FIRST = int(datetime(1850, 1, 1, tzinfo=UTC).timestamp())
LAST = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())
STRIDE = 10 * 86400
"""Seconds between two looks; no zone changed twice within ten days."""
NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,3}")


class TimeModule:
    """Python half of ``time``."""

    name = "time"
    deadlines: Mapping[str, timedelta | None] = {}

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        match fn:
            case "zone":
                return _zone_changes(text(argument(args, 0), "name of the time zone"))
            case _:
                raise invalid(f"time has no function {fn!r}")

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"time.{fn} wants an answer")


async def _zone_changes(name: str) -> Values:
    return [await asyncio.to_thread(zone_changes, name)]


@lru_cache(maxsize=64)
def zone_changes(name: str) -> dict[bytes, list[int] | list[bytes]]:
    """``{at, offset, name}``, three lists: from ``at`` on (seconds since 1970) a zone is so far east and called so.

    Raises LuaError: NotFound, Unavailable when the machine has no time zones at all.
    """
    zone = _zone(name)
    at, offsets, names = [FIRST], [], []
    offset, called = _look(zone, FIRST)
    offsets.append(offset)
    names.append(called.encode())
    for before in range(FIRST, LAST, STRIDE):
        if _look(zone, before + STRIDE) != (offset, called):
            change = _first_change(zone, before, before + STRIDE)
            offset, called = _look(zone, change)
            at.append(change)
            offsets.append(offset)
            names.append(called.encode())
    return {b"at": at, b"offset": offsets, b"name": names}


def _zone(name: str) -> ZoneInfo:
    try:
        if not NAME.fullmatch(name):
            raise ValueError("no name of a time zone")
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        if not available_timezones():
            raise unavailable(
                "this node has no time zone database; install the system's tzdata or the Python package tzdata",
                retryable=False,
            ) from None
        raise not_found(f"no time zone {name[:80]!r} in the database of this node") from None


def _look(zone: ZoneInfo, second: int) -> tuple[int, str]:
    there = datetime.fromtimestamp(second, zone)
    offset = there.utcoffset() or timedelta()
    return int(offset.total_seconds()), there.tzname() or ""


def _first_change(zone: ZoneInfo, before: int, after: int) -> int:
    """The first second at which it is not as it was ``before``."""
    old = _look(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        if _look(zone, middle) == old:
            before = middle
        else:
            after = middle
    return after
