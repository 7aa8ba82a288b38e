"""Indexes over the entries of one version: which have which value in a field.

Any field with text values can be indexed: kind, namespace and metadata. A condition is then
tried once per different value instead of once per entry; values that are no texts are kept
apart and tried singly. ``without_and_with`` makes the index of the next version and shares
everything unchanged. Immutable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cluster.registry.entry import Entry
from cluster.registry.filter import MISSING, Condition, field_value

Replaced = tuple[Entry | None, Entry | None]
"""An entry before and after a version; None where it is not there."""


@dataclass(frozen=True, slots=True)
class Index:
    """``texts``: ids by value; ``others``: ids of the entries whose value is there and is no text."""

    name: str
    texts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    others: frozenset[str] = frozenset()

    @classmethod
    def of(cls, field: str, entries: Iterable[Entry]) -> Index:
        texts: dict[str, set[str]] = {}
        others: set[str] = set()
        for entry in entries:
            value = field_value(entry, field)
            if isinstance(value, str):
                texts.setdefault(value, set()).add(entry.id)
            elif value is not MISSING:
                others.add(entry.id)
        return cls(field, {value: frozenset(ids) for value, ids in texts.items()}, frozenset(others))

    def candidates(self, condition: Condition) -> frozenset[str]:
        """The ids of all entries for which ``condition`` may hold; exact but for ``others``."""
        if condition.is_exact:
            return self.texts.get(condition.value, frozenset())
        return self.others.union(*(ids for value, ids in self.texts.items() if condition.fits(value)))

    def without_and_with(self, changed: Iterable[Replaced]) -> Index:
        """The index after ``changed``."""
        gone: dict[str, set[str]] = {}
        come: dict[str, set[str]] = {}
        others = set(self.others)
        for before, after in changed:
            old = field_value(before, self.name) if before else MISSING
            new = field_value(after, self.name) if after else MISSING
            id = (before or after or _NOTHING).id
            others.discard(id)
            if new is not MISSING and not isinstance(new, str):
                others.add(id)
            if isinstance(old, str) and old != new:
                gone.setdefault(old, set()).add(id)
            if isinstance(new, str) and old != new:
                come.setdefault(new, set()).add(id)
        if not gone and not come and others == self.others:
            return self
        return Index(self.name, _moved(self.texts, gone, come), frozenset(others))


_NOTHING = Entry("", "")


def _moved(
    texts: Mapping[str, frozenset[str]], gone: Mapping[str, set[str]], come: Mapping[str, set[str]]
) -> Mapping[str, frozenset[str]]:
    fresh = dict(texts)
    for value in gone.keys() | come.keys():
        ids = (fresh.get(value, frozenset()) - gone.get(value, set())) | come.get(value, set())
        if ids:
            fresh[value] = frozenset(ids)
        else:
            fresh.pop(value, None)
    return fresh
