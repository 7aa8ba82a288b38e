"""A filter over entries, as ``registry.find`` takes it.

``.kind .ns .name .id`` compare exactly (``.kind`` with ``*`` as a wildcard) and ``meta.x`` compares
a field of the metadata. A prefix changes how a field is compared: ``~`` regular expression,
``*`` contains (a part of a text, an item of a list), ``^`` starts with, ``$`` ends with. All
conditions must hold. Keys of any other shape are ignored and listed, so that the caller can
warn once. Cost is at most linear in the entries, whatever the filter (see ``pattern``, ``index``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import Invalid, Problem
from cluster.registry.entry import Entry
from cluster.registry.pattern import BadPattern, Pattern, TooCostly
from cluster.registry.value import same

_FIELDS = (".kind", ".ns", ".name", ".id")
MISSING = object()
"""What ``field_value`` finds where there is no such field."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: ``how`` is ``=`` or one of the prefixes; ``pattern`` is set for ``~``."""

    field: str
    how: str
    value: Any
    pattern: Pattern | None = None

    def holds(self, entry: Entry) -> bool:
        found = field_value(entry, self.field)
        return found is not MISSING and self.fits(found)

    def fits(self, found: Any) -> bool:
        """Whether it holds for an entry with ``found`` in its field. Raises Invalid when that takes too long."""
        match self.how:
            case "=":
                return glob(self.value, found) if self.field == ".kind" else same(found, self.value)
            case "*" if isinstance(found, list):
                return any(same(item, self.value) for item in found)
        text, wanted = _text(found), _text(self.value)
        if text is None or wanted is None:
            return False
        match self.how:
            case "~":
                return self._occurs(text)
            case "*":
                return wanted in text
            case "^":
                return text.startswith(wanted)
            case _:
                return text.endswith(wanted)

    def _occurs(self, text: str) -> bool:
        try:
            return self.pattern is not None and self.pattern.search(text)
        except TooCostly as error:
            raise Invalid([Problem(str(error), field=f"~{self.field}")]) from None

    @property
    def is_exact(self) -> bool:
        """Whether it holds for one text only."""
        return self.how == "=" and isinstance(self.value, str) and not (self.field == ".kind" and "*" in self.value)


@dataclass(frozen=True, slots=True)
class Filter:
    conditions: tuple[Condition, ...]
    ignored: tuple[str, ...] = ()

    @property
    def matches_patterns(self) -> bool:
        """Whether it holds regular expressions: the only conditions that may take long."""
        return any(condition.pattern is not None for condition in self.conditions)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Filter:
        """The filter in a map. Raises Invalid on a bad regular expression."""
        conditions, ignored, problems = [], [], []
        for key, value in raw.items():
            how, field = (key[0], key[1:]) if key[:1] in ("~", "*", "^", "$") else ("=", key)
            if field not in _FIELDS and not (field.startswith("meta.") and len(field) > 5):
                ignored.append(key)
                continue
            try:
                conditions.append(Condition(field, how, value, _pattern(value) if how == "~" else None))
            except BadPattern as error:
                problems.append(Problem(str(error), field=key))
        if problems:
            raise Invalid(problems)
        return cls(tuple(conditions), tuple(ignored))

    def holds(self, entry: Entry) -> bool:
        return all(condition.holds(entry) for condition in self.conditions)


def _pattern(value: Any) -> Pattern:
    if not isinstance(value, str):
        raise BadPattern(f"expected a regular expression as text, got {value!r}")
    return Pattern(value)


def field_value(entry: Entry, field: str) -> Any:
    """What stands in ``field``; metadata keys with dots are tried whole first, then as a path."""
    match field:
        case ".kind":
            return entry.kind
        case ".ns":
            return entry.ns
        case ".name":
            return entry.name
        case ".id":
            return entry.id
        case _:
            return _at(entry.meta, field[5:])


def _at(meta: Mapping[str, Any], path: str) -> Any:
    if path in meta:
        return meta[path]
    value: Any = meta
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return MISSING
        value = value[step]
    return value


def _text(value: Any) -> str | None:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return None


def glob(pattern: Any, text: str) -> bool:
    """Whether ``text`` is ``pattern``, in which ``*`` stands for any characters."""
    if not isinstance(pattern, str):
        return False
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    *middle, last = rest
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
