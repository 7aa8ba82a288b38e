"""What the registry should hold after each version: a model in plain maps that knows nothing of the code.

An *intent* is what somebody wanted to change. The log says in which order intents became
versions; the model says what each must have made of the version before it, and which were not
allowed. Entries are tuples ``(kind, meta, data, origin)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ModelEntry = tuple[str, dict[str, Any], Any, str]


class NotAllowed(Exception):
    """The intent must not become a version here."""


class NothingToDo(Exception):
    """The intent changes nothing here, so it must not become a version."""


@dataclass(frozen=True)
class World:
    """One version."""

    entries: Mapping[str, ModelEntry] = field(default_factory=dict)
    overlays: Mapping[str, tuple[Any, int]] = field(default_factory=dict)
    overridden: frozenset[str] = frozenset()

    def seen(self) -> dict[str, ModelEntry]:
        """The entries with what operators laid over them."""
        found = dict(self.entries)
        for id, (mapping, _) in self.overlays.items():
            kind, meta, data, origin = found[id]
            found[id] = (kind, meta, _laid(data, mapping), origin)
        return found

    def with_entries(self, entries: Mapping[str, ModelEntry], overridden: frozenset[str], touched: set[str]) -> World:
        kept = {id: over for id, over in self.overlays.items() if id not in touched or takes_overlay(entries.get(id))}
        return World(dict(entries), kept, overridden)


def takes_overlay(entry: ModelEntry | None) -> bool:
    return entry is not None and (entry[0] == "registry.entry" or entry[1].get("overlay") is True)


def _laid(data: Any, mapping: Any) -> Any:
    if not isinstance(mapping, dict):
        return mapping
    merged = dict(data) if isinstance(data, dict) else {}
    for key, value in mapping.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _laid(merged.get(key), value)
    return merged


@dataclass(frozen=True)
class Commit:
    """``operations``: (what, id, entry), made against ``base``."""

    operations: tuple[tuple[str, str, ModelEntry | None], ...]
    base: World

    def apply(self, world: World) -> World:
        if any(world.entries.get(id) != self.base.entries.get(id) for _, id, _ in self.operations):
            raise NotAllowed("an entry was changed meanwhile")
        entries, overridden = dict(world.entries), set(world.overridden)
        for what, id, entry in self.operations:
            if (what == "create") == (id in entries):
                raise NotAllowed(f"{what} of {id}")
            standing = world.entries.get(id)
            if standing is not None and standing[3] == "files":
                overridden.add(id)
            if entry is None:
                del entries[id]
            else:
                entries[id] = entry
        return world.with_entries(entries, frozenset(overridden), {id for _, id, _ in self.operations})


@dataclass(frozen=True)
class Push:
    """The files: (kind, meta, data) by id."""

    files: Mapping[str, tuple[str, dict[str, Any], Any]]
    take: str | None
    prune: bool

    def apply(self, world: World) -> World:
        entries: dict[str, ModelEntry] = {}
        for id in world.entries.keys() | self.files.keys():
            mine = self._wanted(id, world)
            if mine is not None:
                entries[id] = mine
        touched = {id for id in world.entries.keys() | entries.keys() if world.entries.get(id) != entries.get(id)}
        if not touched:
            raise NothingToDo
        overridden = {
            id for id in world.overridden if id in self.files and (id not in entries or entries[id][3] == "runtime")
        }
        return world.with_entries(entries, frozenset(overridden), touched)

    def _wanted(self, id: str, world: World) -> ModelEntry | None:
        theirs = world.entries.get(id)
        if id not in self.files:
            keeps = theirs is not None and theirs[3] == "runtime" and not self.prune
            return theirs if keeps else None
        ours = (*self.files[id], "files")
        if theirs is not None and theirs[:3] == ours[:3]:
            return theirs
        was_changed = theirs[3] == "runtime" if theirs is not None else id in world.overridden
        if not was_changed or self.take == "files":
            return ours
        if self.take is None:
            raise NotAllowed(f"{id} was changed at run time")
        return theirs


@dataclass(frozen=True)
class Rollback:
    target: World

    def apply(self, world: World) -> World:
        entries = self.target.entries
        touched = {id for id in world.entries.keys() | entries.keys() if world.entries.get(id) != entries.get(id)}
        if not touched and self.target.overridden == world.overridden:
            raise NothingToDo
        return world.with_entries(entries, self.target.overridden, touched)


@dataclass(frozen=True)
class Fold:
    """``mapping`` is None for an overlay that was taken away."""

    id: str
    mapping: Any
    mod: int

    def apply(self, world: World) -> World:
        overlays = dict(world.overlays)
        if overlays.get(self.id, (None, 0))[1] == self.mod:
            raise NotAllowed(f"overlay of {self.id} folded twice")
        if self.mapping is None:
            del overlays[self.id]
        elif takes_overlay(world.entries.get(self.id)):
            overlays[self.id] = (self.mapping, self.mod)
        else:
            raise NotAllowed(f"{self.id} takes no overlay")
        return World(world.entries, overlays, world.overridden)


Intent = Commit | Push | Rollback
