"""Patterns over dotted names, for event subscriptions.

A pattern is split at its dots: ``*`` stands for one segment, ``**`` for any number of them (none too), and
``(a|b)`` for alternatives within a segment. Matching costs at most segments of the pattern x segments of the
name. A malformed or oversize pattern raises ValueError when it is made, never when it is matched.
"""

from __future__ import annotations

import re
from itertools import product

MAX_LENGTH = 256
MAX_SEGMENTS = 32
MAX_ALTERNATIVES = 64

_ANY_ONE = None
_ANY_NUMBER = "**"
_PIECE = re.compile(r"\(([^()]*)\)|([^()|*]+)")

Segment = frozenset[str] | str | None


class Pattern:
    """A compiled pattern. ``literal`` is its text when it has no wildcard and no alternatives, else None."""

    def __init__(self, text: str) -> None:
        if not text or len(text) > MAX_LENGTH:
            raise ValueError(f"expected a pattern of 1 to {MAX_LENGTH} characters, got {len(text)}")
        parts = text.split(".")
        if len(parts) > MAX_SEGMENTS:
            raise ValueError(f"expected at most {MAX_SEGMENTS} segments in a pattern, got {len(parts)}")
        self.text = text
        self.literal = None if any(sign in text for sign in "*(|)") else text
        self._segments = [_segment(part, text) for part in parts]

    def matches(self, name: str) -> bool:
        if self.literal is not None:
            return name == self.literal
        segments = self._segments
        # reached[i]: the first i segments of the pattern match what has been read of the name
        reached = _skip_any([True] + [False] * len(segments), segments)
        for part in name.split("."):
            step = [False] * (len(segments) + 1)
            for i, segment in enumerate(segments):
                if segment == _ANY_NUMBER:
                    step[i + 1] = reached[i + 1] or reached[i]
                elif reached[i] and (segment is _ANY_ONE or part in segment):
                    step[i + 1] = True
            reached = _skip_any(step, segments)
        return reached[-1]

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def _skip_any(reached: list[bool], segments: list[Segment]) -> list[bool]:
    """``**`` may stand for nothing."""
    for i, segment in enumerate(segments):
        if segment == _ANY_NUMBER and reached[i]:
            reached[i + 1] = True
    return reached


def _segment(part: str, text: str) -> Segment:
    if part == "*":
        return _ANY_ONE
    if part == "**":
        return _ANY_NUMBER
    return frozenset(_alternatives(part, text))


def _alternatives(part: str, text: str) -> list[str]:
    """The texts a segment stands for."""
    choices: list[list[str]] = []
    count, position = 1, 0
    while position < len(part):
        piece = _PIECE.match(part, position)
        if piece is None:
            raise ValueError(f"bad segment {part!r} in pattern {text!r}: use *, **, text, or (a|b) within one segment")
        options = piece[1].split("|") if piece[1] is not None else [piece[2]]
        count *= len(options)
        if count > MAX_ALTERNATIVES or any("*" in option for option in options):
            raise ValueError(f"bad segment {part!r} in pattern {text!r}: at most {MAX_ALTERNATIVES} plain alternatives")
        choices.append(options)
        position = piece.end()
    return ["".join(pieces) for pieces in product(*choices)]
