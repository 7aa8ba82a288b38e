"""Plain values as people write them: what a text means, and what may stand for a text."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_INT = re.compile(r"[-+]?\d{1,18}")
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


PlainText = Annotated[str, BeforeValidator(_plain_text)]
"""A text that may be written as a number or as true or false."""
