"""Plain values as people write them: what a text means, and what may stand for a text."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_INT = re.compile(r"[-+]?\d{1,18}")
_SIZE = re.compile(r"(\d+)\s*([kmg]?)(i?b?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d{1,3})?")


def coerce(text: str) -> bool | int | float | str:
    """A text by its shape: true and false, whole numbers, decimal numbers, else the text itself."""
    if text in ("true", "false"):
        return text == "true"
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _plain_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"expected a size such as 900KiB, 64M or 1G, got {value!r}")
    return int(match[1]) * _FACTORS[match[2].lower()]


PlainText = Annotated[str, BeforeValidator(_plain_text)]
"""A text that may be written as a number or as true or false."""

Size = Annotated[int, BeforeValidator(_size), Field(ge=1)]
"""A number of bytes, also written with a unit: 900KiB, 64M, 1G."""
