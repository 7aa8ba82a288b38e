"""The registry at one version: entries, overlays, and fast look-ups. Immutable.

``get``, ``find`` and ``entries`` show what everyone sees: base entries with the operator's
overlays merged in. ``base`` and ``overlays`` are kept apart, so that removing an overlay gives
the base back. ``advance`` makes the next version and shares everything unchanged; it applies
unconditionally (a version that other nodes have is never refused), checking is
``Changeset.problems``. 10,000 entries: a look-up by ``meta.type`` takes microseconds, a new
version well under a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from cluster.errors import Invalid, Problem
from cluster.registry.changeset import Changeset, Create, Delete, Fold, Update
from cluster.registry.entry import Entry
from cluster.registry.filter import Condition, Filter, field_value
from cluster.registry.overlay import Overlay, overlaid, refusal
from cluster.registry.value import canonical, parse

ABSENT = -1
"""The version of a registry in which nothing was ever published."""

INDEXED = ("meta.type", ".kind", ".ns")

_Index = Mapping[str, frozenset[str]]


class RegistryState:
    """One version. Build the first with ``of`` or ``parse``, later ones with ``advance``."""

    __slots__ = ("_base", "_indexes", "_merged", "_order", "_overlays", "version")

    def __init__(
        self,
        version: int,
        base: dict[str, Entry],
        overlays: dict[str, Overlay],
        merged: dict[str, Entry],
        indexes: dict[str, _Index],
    ) -> None:
        self.version = version
        self._base = base
        self._overlays = overlays
        self._merged = merged
        self._indexes = indexes
        self._order: tuple[Entry, ...] | None = None

    @classmethod
    def of(
        cls, entries: Iterable[Entry] = (), version: int = ABSENT, overlays: Mapping[str, Overlay] | None = None
    ) -> RegistryState:
        base = {entry.id: entry for entry in entries}
        kept = {id: over for id, over in (overlays or {}).items() if not refusal(base.get(id))}
        merged = dict(base)
        merged.update((id, overlaid(base[id], over)) for id, over in kept.items())
        return cls(version, base, kept, merged, {field: _index(field, merged.values()) for field in INDEXED})

    def get(self, id: str) -> Entry | None:
        """The entry as everyone sees it."""
        return self._merged.get(id)

    def entries(self) -> tuple[Entry, ...]:
        """All of them as everyone sees them, by id."""
        if self._order is None:
            self._order = tuple(self._merged[id] for id in sorted(self._merged))
        return self._order

    def __len__(self) -> int:
        return len(self._merged)

    def __contains__(self, id: object) -> bool:
        return id in self._merged

    @property
    def base(self) -> Mapping[str, Entry]:
        """The entries without what the operator laid over them."""
        return MappingProxyType(self._base)

    @property
    def overlays(self) -> Mapping[str, Overlay]:
        return MappingProxyType(self._overlays)

    def find(self, filter: Filter | Mapping[str, Any]) -> list[Entry]:
        """The entries for which ``filter`` holds, by id. Raises Invalid on a bad regular expression."""
        wanted = filter if isinstance(filter, Filter) else Filter.parse(filter)
        narrow = [self._candidates(each) for each in wanted.conditions if each.indexable and each.field in INDEXED]
        if not narrow:
            return [entry for entry in self.entries() if wanted.holds(entry)]
        smallest = min(narrow, key=len)
        found = (self._merged[id] for id in sorted(smallest))
        return [entry for entry in found if wanted.holds(entry)]

    def _candidates(self, condition: Condition) -> frozenset[str]:
        return self._indexes[condition.field].get(condition.value, frozenset())

    def advance(self, changes: Changeset, version: int) -> RegistryState:
        """The state after ``changes``, as ``version``. Never fails; an overlay on an entry that went or
        takes none any more is dropped."""
        base, overlays = dict(self._base), dict(self._overlays)
        for operation in changes.operations:
            match operation:
                case Create(entry) | Update(entry):
                    base[entry.id] = entry
                case Delete(id):
                    base.pop(id, None)
                    overlays.pop(id, None)
                case Fold(id, None):
                    overlays.pop(id, None)
                case Fold(id, dict() as mapping, mod):
                    overlays[id] = Overlay(mapping, mod)
        return self._with(base, overlays, changes.touched, version)

    def _with(
        self, base: dict[str, Entry], overlays: dict[str, Overlay], touched: Iterable[str], version: int
    ) -> RegistryState:
        merged = dict(self._merged)
        changed: list[tuple[Entry | None, Entry | None]] = []
        for id in touched:
            entry = base.get(id)
            if id in overlays and refusal(entry):
                del overlays[id]
            before = merged.pop(id, None)
            if entry is not None:
                merged[id] = overlaid(entry, overlays[id]) if id in overlays else entry
            changed.append((before, merged.get(id)))
        indexes = {field: _reindex(field, index, changed) for field, index in self._indexes.items()}
        return RegistryState(version, base, overlays, merged, indexes)

    def at(self, version: int) -> RegistryState:
        """The same content as another version."""
        return RegistryState(version, self._base, self._overlays, self._merged, self._indexes)

    def differs_from(self, other: RegistryState, among: Iterable[str] | None = None) -> frozenset[str]:
        """The ids (all, or ``among``) whose entries as everyone sees them are not the same in both."""
        ids = self._merged.keys() | other._merged.keys() if among is None else among
        return frozenset(id for id in ids if not _identical(self._merged.get(id), other._merged.get(id)))

    def base_differs_from(self, other: RegistryState, among: Iterable[str]) -> list[str]:
        """Those of ``among`` whose base entries are not the same in both, sorted."""
        return sorted(id for id in set(among) if not _identical(self._base.get(id), other._base.get(id)))

    def payload(self) -> bytes:
        """The stored form: a snapshot."""
        return canonical(
            {
                "version": self.version,
                "entries": [self._base[id].as_dict() for id in sorted(self._base)],
                "overlays": {id: {"mapping": over.mapping, "mod": over.mod} for id, over in self._overlays.items()},
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> RegistryState:
        """The state in a snapshot. Raises Invalid."""
        try:
            value = parse(raw)
            overlays = {id: Overlay(over["mapping"], over["mod"]) for id, over in value["overlays"].items()}
            return cls.of((Entry.parse(each) for each in value["entries"]), value["version"], overlays)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Invalid([Problem(f"not a snapshot of the registry: {error!r}")]) from error


def _identical(left: Entry | None, right: Entry | None) -> bool:
    if left is right:
        return True
    return left is not None and right is not None and left.identical(right)


def _index(field: str, entries: Iterable[Entry]) -> _Index:
    sets: dict[str, set[str]] = {}
    for entry in entries:
        value = field_value(entry, field)
        if isinstance(value, str):
            sets.setdefault(value, set()).add(entry.id)
    return {value: frozenset(ids) for value, ids in sets.items()}


def _reindex(field: str, index: _Index, changed: list[tuple[Entry | None, Entry | None]]) -> _Index:
    gone: dict[str, set[str]] = {}
    come: dict[str, set[str]] = {}
    for before, after in changed:
        old = field_value(before, field) if before else None
        new = field_value(after, field) if after else None
        if before and isinstance(old, str) and old != new:
            gone.setdefault(old, set()).add(before.id)
        if after and isinstance(new, str) and old != new:
            come.setdefault(new, set()).add(after.id)
    if not gone and not come:
        return index
    fresh = dict(index)
    for value in gone.keys() | come.keys():
        ids = (fresh.get(value, frozenset()) - gone.get(value, set())) | come.get(value, set())
        if ids:
            fresh[value] = frozenset(ids)
        else:
            fresh.pop(value, None)
    return fresh


EMPTY = RegistryState.of()
