"""Files into the registry: the first version, later pushes, and what differs.

Files own the entries of origin ``files``: a push creates, updates and deletes only those. An
entry that was changed at run time has origin ``runtime``, one that was deleted there is remembered
(``overridden``); when the files say something else about it, that is a conflict, shown with both
sides and decided by ``Take``. ``prune`` also deletes entries of origin ``runtime`` that are in no
file. A rollback changes what the registry holds, not who owns it: the next push of the files is a
new change and wins. All here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum

from cluster.errors import ClusterError
from cluster.registry.changeset import Changeset, Mark, build_delta
from cluster.registry.entry import Entry, Origin
from cluster.registry.state import EMPTY, RegistryState


class Mode(StrEnum):
    """When the files of a starting node go into the registry."""

    ALWAYS = "always"
    IF_EMPTY = "if-empty"
    NEVER = "never"


class Take(StrEnum):
    """Which side wins a conflict."""

    FILES = "files"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry that files and registry do not agree on; None on the side that lacks it.

    ``deleted``: the registry lacks it because it was deleted at run time."""

    id: str
    files: Entry | None
    cluster: Entry | None
    deleted: bool = False

    def __str__(self) -> str:
        if self.deleted:
            return f"{self.id} is in the files and was deleted at run time"
        if self.cluster is None:
            return f"{self.id} is only in the files"
        if self.files is None:
            return f"{self.id} is only in the cluster"
        return f"{self.id} differs"


class PushConflict(ClusterError):
    """Entries changed at run time that the files say something else about; nothing was applied."""

    def __init__(self, conflicts: list[Difference]) -> None:
        super().__init__(conflicts)
        self.conflicts = conflicts

    def __str__(self) -> str:
        ids = ", ".join(each.id for each in self.conflicts)
        return (
            f"changed or deleted at run time and different in the files: {ids}; take the files' side or the cluster's"
        )


@dataclass(frozen=True, slots=True)
class PublishResult:
    """``version`` holds now (-1: still nothing). ``changed``: how many entries this call changed.

    ``differences`` are what files and registry still disagree on. ``before`` and ``after`` are the states around
    the version this call made; the same one when it made none.
    """

    version: int
    created: bool
    changed: int = 0
    differences: list[Difference] = field(default_factory=list)
    before: RegistryState = field(default=EMPTY, repr=False, compare=False)
    after: RegistryState = field(default=EMPTY, repr=False, compare=False)


def as_files(entries: Iterable[Entry]) -> list[Entry]:
    return [entry.with_origin(Origin.FILES) for entry in entries]


def differences(state: RegistryState, files: Iterable[Entry]) -> list[Difference]:
    """What the files and the entries of origin files disagree on, by id; overlays are not looked at."""
    wanted = {entry.id: entry for entry in files}
    found = []
    for id in sorted(wanted.keys() | state.base.keys()):
        ours, theirs = wanted.get(id), state.base.get(id)
        if ours is None and theirs is not None and theirs.origin is Origin.RUNTIME:
            continue
        if ours is None or theirs is None or not ours.same_content(theirs):
            found.append(Difference(id, ours, theirs, theirs is None and id in state.overridden))
    return found


def plan_push(
    state: RegistryState, files: Sequence[Entry], take: Take | None = None, *, prune: bool = False
) -> Changeset:
    """What makes the registry say what the files say. Raises PushConflict unless ``take`` decides."""
    wanted = {entry.id: entry for entry in as_files(files)}
    after: dict[str, Entry] = {}
    conflicts = []
    for id, theirs in state.base.items():
        ours = wanted.pop(id, None)
        if ours is None:
            if theirs.origin is Origin.RUNTIME and not prune:
                after[id] = theirs
        elif theirs.same_content(ours) or (theirs.origin is Origin.RUNTIME and take is Take.CLUSTER):
            after[id] = theirs
        else:
            if theirs.origin is Origin.RUNTIME and take is None:
                conflicts.append(Difference(id, ours, theirs))
            after[id] = ours
    for id in wanted.keys() & state.overridden:
        ours = wanted[id]
        if take is None:
            conflicts.append(Difference(id, ours, None, deleted=True))
        if take is not Take.FILES:
            del wanted[id]
    if conflicts:
        raise PushConflict(sorted(conflicts, key=lambda each: each.id))
    after |= wanted
    delta = build_delta(state.base.values(), after.values())
    return _settled(state, delta, after, {entry.id for entry in files}) if delta else delta


def _settled(state: RegistryState, delta: Changeset, after: Mapping[str, Entry], files: Set[str]) -> Changeset:
    """``delta`` without the marks of entries that are the files' again, or no matter to them any more."""
    theirs = {id for id in state.overridden & files if id not in after or after[id].origin is Origin.RUNTIME}
    return Changeset((*delta.operations, *(Mark(id, False) for id in sorted(state.overridden - theirs))))
