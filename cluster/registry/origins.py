"""Who owns an entry, files or run time, and how the registry remembers it. Pure.

An entry of the files that is changed or deleted at run time is *overridden*: the files' next push
must not undo that without a word. The state keeps the ids, because a deleted entry has no place
left to say so; the marks are operations of the changeset, so that every node and every restored
version agrees on them.
"""

from __future__ import annotations

from cluster.registry.changeset import Changeset, Create, Delete, Mark, Operation, Update, build_delta
from cluster.registry.entry import Origin
from cluster.registry.state import RegistryState


def at_run_time(state: RegistryState, changes: Changeset) -> Changeset:
    """``changes`` made at run time, with a mark for every entry of the files that they change or delete."""
    marks: list[Operation] = []
    for operation in changes.operations:
        standing = state.base.get(operation.id)
        if standing is None or standing.origin is not Origin.FILES or operation.id in state.overridden:
            continue
        match operation:
            case Delete():
                marks.append(Mark(operation.id, True))
            case Create(entry) | Update(entry) if entry.origin is Origin.RUNTIME:
                marks.append(Mark(operation.id, True))
    return Changeset((*changes.operations, *dict.fromkeys(marks)))


def restoring(state: RegistryState, target: RegistryState) -> Changeset:
    """What makes the base entries of ``state`` those of ``target``, and what is overridden as well."""
    delta = build_delta(state.base.values(), target.base.values())
    lost = [Mark(id, True) for id in sorted(target.overridden - state.overridden)]
    gained = [Mark(id, False) for id in sorted(state.overridden - target.overridden)]
    return Changeset((*delta.operations, *lost, *gained))
