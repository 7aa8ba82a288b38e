"""What stands before the cursor and could be completed: a text between quotes, or a name of the language."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z_][\w.]*(?::\w*)?$")


@dataclass(frozen=True, slots=True)
class Word:
    """``text`` is what is there of it; ``quoted`` says that it is a PID, a name or an id."""

    text: str
    quoted: bool


def word_before(text: str) -> Word | None:
    """The word that ends where ``text`` ends; None when there is nothing to complete."""
    quote, start = _open_quote(text)
    if quote:
        return Word(text[start:], True)
    found = _NAME.search(text)
    return Word(found[0], False) if found else None


def _open_quote(text: str) -> tuple[str, int]:
    """The quote that is open at the end of ``text``, and where what it holds begins."""
    quote, start, at = "", 0, 0
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif quote:
            if character == quote or character == "\n":
                quote = ""
        elif character in "\"'":
            quote, start = character, at + 1
        elif text.startswith("--", at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        at += 1
    return quote, start
