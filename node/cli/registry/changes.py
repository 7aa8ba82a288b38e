"""What differs between two states of the registry, entry by entry. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.registry.entry import Entry
    from cluster.registry.publish import Difference
    from cluster.registry.state import RegistryState

_NAMED = 5
"""So many ids a summary names, of each sort."""


class What(StrEnum):
    """What happened to an entry."""

    CREATED = "created"
    UPDATED = "updated"
    KIND_CHANGED = "kind changed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class EntryChange:
    """One entry before and after; None where it is not there. ``remark`` says what else a reader should know."""

    id: str
    before: Entry | None
    after: Entry | None
    remark: str = ""

    @property
    def what(self) -> What:
        match self.before, self.after:
            case None, _:
                return What.CREATED
            case _, None:
                return What.DELETED
            case before, after if before.kind != after.kind:
                return What.KIND_CHANGED
        return What.UPDATED


def between(before: RegistryState, after: RegistryState) -> list[EntryChange]:
    """What leads from one state to another as everyone sees it, by id."""
    return [
        EntryChange(id, before.get(id), after.get(id), _remark(id, before, after))
        for id in sorted(after.differs_from(before))
    ]


def _remark(id: str, before: RegistryState, after: RegistryState) -> str:
    old, new = before.overlays.get(id), after.overlays.get(id)
    if old == new:
        return ""
    return "by an operator's overlay" if new is not None else "an operator's overlay is gone"


def from_files(differences: Iterable[Difference]) -> list[EntryChange]:
    """What a push would change; where the entry was changed at run time, that is said."""
    return [EntryChange(each.id, each.cluster, each.files, _conflict(each)) for each in differences]


def _conflict(difference: Difference) -> str:
    if difference.deleted:
        return "was deleted at run time"
    theirs = difference.cluster
    return "was changed at run time" if theirs is not None and theirs.origin == "runtime" else ""


def ids_by_sort(changes: Sequence[EntryChange]) -> dict[str, list[str]]:
    """``{"created": [...], "updated": [...], "deleted": [...]}``; a changed kind counts as an update."""
    sorts: dict[str, list[str]] = {"created": [], "updated": [], "deleted": []}
    for change in changes:
        sort = What.UPDATED if change.what is What.KIND_CHANGED else change.what
        sorts[sort].append(change.id)
    return sorts


def summary(changes: Sequence[EntryChange]) -> str:
    """In one line: ``1 created (app:a), 2 updated (app:x, app:y)``."""
    parts = []
    for sort, ids in ids_by_sort(changes).items():
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        if ids:
            parts.append(f"{len(ids)} {sort} ({', '.join(ids[:_NAMED])}{more})")
    return ", ".join(parts) or "nothing changed"


def as_value(change: EntryChange) -> dict[str, Any]:
    """For programs."""
    return {
        "id": change.id,
        "change": change.what.value,
        "remark": change.remark,
        "before": change.before.as_dict() if change.before else None,
        "after": change.after.as_dict() if change.after else None,
    }
