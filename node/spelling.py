"""Suggestions for mistyped words in error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST = 1000
"""Words compared: the search is slow, and a message need not be perfect."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest of ``known``, or nothing."""
    about_as_long = [each for each in known if abs(len(each) - len(word)) <= 3]
    near = get_close_matches(word, about_as_long[:_MOST], n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
