"""Durations as people write them: ``500ms``, ``1.5s``, ``1h30m``.

The notation is Go's: a sequence of decimal numbers, each with a unit (ns, us, ms, s, m, h),
and an optional sign. A plain ``0`` needs no unit; any other bare number is refused, because
nobody can tell whether it means seconds or milliseconds.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"([+-]?)((?:{_PART.pattern})+)")


def parse_duration(text: str) -> timedelta:
    """The duration in ``text``. Raises ValueError saying what was expected.

    A timedelta counts microseconds: finer parts are rounded.
    """
    if text.strip() in ("0", "+0", "-0"):
        return timedelta(0)
    whole = _WHOLE.fullmatch(text.strip())
    if whole is None:
        raise ValueError(f"expected a duration such as 500ms, 1.5s or 1h30m, got {text!r}")
    total = sum(float(number) * _NANOSECONDS[unit] for number, unit in _PART.findall(whole[2]))
    try:
        return timedelta(microseconds=(-total if whole[1] == "-" else total) / 1_000)
    except OverflowError:
        raise ValueError(f"expected a duration below a million years, got {text!r}") from None


def format_duration(duration: timedelta) -> str:
    """``duration`` in the notation ``parse_duration`` reads."""
    microseconds = duration // timedelta(microseconds=1)
    if microseconds == 0:
        return "0s"
    sign, microseconds = ("-", -microseconds) if microseconds < 0 else ("", microseconds)
    if microseconds < 1_000:
        return f"{sign}{microseconds}us"
    if microseconds < 1_000_000:
        return f"{sign}{_decimal(microseconds, 1_000)}ms"
    minutes, rest = divmod(microseconds, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    parts = (
        f"{hours}h" if hours else "",
        f"{minutes}m" if minutes else "",
        f"{_decimal(rest, 1_000_000)}s" if rest else "",
    )
    return sign + "".join(parts)


def _decimal(number: int, divisor: int) -> str:
    whole, fraction = divmod(number, divisor)
    digits = str(fraction).rjust(len(str(divisor)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def _read(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    if value == 0 and not isinstance(value, bool):
        return timedelta(0)
    raise ValueError(f"expected a duration such as 500ms, 1.5s or 1h30m, got {value!r}")


def _read_positive(value: Any) -> timedelta:
    duration = _read(value)
    if duration <= timedelta(0):
        raise ValueError(f"expected a duration above zero, got {value!r}")
    return duration


def _read_not_negative(value: Any) -> timedelta:
    duration = _read(value)
    if duration < timedelta(0):
        raise ValueError(f"expected a duration of zero or more, got {value!r}")
    return duration


Duration = Annotated[timedelta, BeforeValidator(_read_not_negative)]
"""A model field: zero or more."""

PositiveDuration = Annotated[timedelta, BeforeValidator(_read_positive)]
"""A model field: above zero."""
