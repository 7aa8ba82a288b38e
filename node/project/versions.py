"""Versions of modules and the constraints on them: ``1.2.3``, ``^1.2``, ``~1.2.0``, ``>=1.0.0 <2.0.0``, ``*``."""

from __future__ import annotations

import re

_NUMBER = r"([0-9]{1,18})"
_VERSION = re.compile(rf"v?{_NUMBER}(?:\.{_NUMBER})?(?:\.{_NUMBER})?(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")
_TERM = re.compile(r"(\^|~|>=|<=|>|<|=)?\s*([^\s<>=^~]+)")

Version = tuple[int, int, int]


def parse_version(text: str) -> Version:
    """The three numbers of a version; missing ones are 0. Raises ValueError."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a version such as 1.2.3, got {text[:80]!r}")
    return (int(match[1]), int(match[2] or 0), int(match[3] or 0))


def version_flaw(text: str) -> str:
    """What is wrong with ``text`` as a version; empty when nothing is, or no version is named."""
    try:
        parse_version(text or "0")
    except ValueError as error:
        return str(error)
    return ""


def satisfies(version: str, constraint: str) -> bool:
    """Whether ``version`` meets every term of ``constraint``. Raises ValueError for a malformed one."""
    if constraint.strip() in ("", "*", "latest"):
        return True
    have = parse_version(version)
    text = constraint.replace(",", " ")
    terms = _TERM.findall(text)
    if not terms or _TERM.sub("", text).strip():
        raise ValueError(f"expected a version constraint such as ^1.2.0, got {constraint!r}")
    return all(_meets(have, operator, parse_version(text)) for operator, text in terms)


def _meets(have: Version, operator: str, want: Version) -> bool:
    match operator:
        case ">=":
            return have >= want
        case ">":
            return have > want
        case "<=":
            return have <= want
        case "<":
            return have < want
        case "^":
            return want <= have < _next_breaking(want)
        case "~":
            return want <= have < (want[0], want[1] + 1, 0)
        case _:
            return have == want


def _next_breaking(version: Version) -> Version:
    """The first version that may break users of ``version``: the left-most number above zero grows."""
    major, minor, patch = version
    if major:
        return (major + 1, 0, 0)
    return (0, minor + 1, 0) if minor else (0, 0, patch + 1)
