"""A changeset: operations applied whole or not at all, in their order.

``Create``, ``Update`` and ``Delete`` change entries; ``Fold`` sets or removes what the operator
laid over one; ``Mark`` notes that an entry of the files was changed at run time. ``problems`` says
everything that keeps a changeset from applying to a state; applying itself is
``RegistryState.advance``, which never fails, because a version that others have must never be
refused. ``payload`` and ``parse`` are the stored form, canonical JSON.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.errors import Invalid, Problem
from cluster.registry.entry import Entry, id_text
from cluster.registry.order import creation_order
from cluster.registry.value import canonical_list, flaw, outweighs, parse_list

MAX_PAYLOAD = 64 * 1024 * 1024
HEAVY = 128 * 1024
"""Payloads over this many bytes are made and read in a thread."""
_MANY = 64


@dataclass(frozen=True, slots=True)
class Create:
    entry: Entry

    @property
    def id(self) -> str:
        return self.entry.id


@dataclass(frozen=True, slots=True)
class Update:
    entry: Entry

    @property
    def id(self) -> str:
        return self.entry.id


@dataclass(frozen=True, slots=True)
class Delete:
    id: str


@dataclass(frozen=True, slots=True)
class Fold:
    """What lies over entry ``id`` from now on: ``mapping`` read at revision ``mod``; None and 0 = nothing."""

    id: str
    mapping: dict[str, Any] | None
    mod: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Whether entry ``id`` of the files counts as changed at run time from now on, deleted included."""

    id: str
    overridden: bool


Operation = Create | Update | Delete | Fold | Mark


@dataclass(frozen=True, slots=True)
class Changeset:
    operations: tuple[Operation, ...] = ()

    def __len__(self) -> int:
        return len(self.operations)

    @property
    def touched(self) -> frozenset[str]:
        """The ids of the entries it changes."""
        return frozenset(operation.id for operation in self.operations if not isinstance(operation, Mark))

    @property
    def is_heavy(self) -> bool:
        """Whether checking and storing it is too much work for an event loop."""
        return len(self.operations) > _MANY or outweighs(map(_content, self.operations), HEAVY)

    def problems(self, present: Container[str]) -> list[Problem]:
        """Why it does not apply to a registry that holds the ids ``present``; empty when it does."""
        if not self.operations:
            return [Problem("no changes to apply")]
        found: list[Problem] = []
        exists: dict[str, bool] = {}
        for operation in self.operations:
            there = exists.get(operation.id, operation.id in present)
            found += _problems(operation, there)
            exists[operation.id] = there if isinstance(operation, Fold | Mark) else not isinstance(operation, Delete)
        return found

    def payload(self) -> bytes:
        """The stored form. Raises Invalid when it is over the limit."""
        raw = canonical_list("operations", map(_as_dict, self.operations))
        if len(raw) > MAX_PAYLOAD:
            text = f"changeset of {len(raw)} bytes is over the limit of {MAX_PAYLOAD} bytes; split it"
            raise Invalid([Problem(text)])
        return raw

    @classmethod
    def parse(cls, raw: bytes) -> Changeset:
        """The changeset in a stored form. Raises Invalid."""
        try:
            value = parse_list(raw, "operations")
        except ValueError as error:
            raise Invalid([Problem(f"changeset is not JSON: {error}")]) from None
        if not isinstance(value, dict) or not isinstance(value.get("operations"), list):
            raise Invalid([Problem("changeset has no list of operations")])
        return cls(tuple(parse_operation(each) for each in value["operations"]))


def _problems(operation: Operation, exists: bool) -> list[Problem]:
    match operation:
        case Create(entry) if exists:
            return [Problem("exists already; update it instead", entry=entry.id)]
        case Update(entry) if not exists:
            return [Problem("does not exist; create it instead", entry=entry.id)]
        case Create(entry) | Update(entry):
            return entry.problems()
        case Delete(id) | Fold(id) if not exists:
            return [Problem("does not exist", entry=id)]
        case _:
            return []


def _as_dict(operation: Operation) -> dict[str, Any]:
    match operation:
        case Create(entry):
            return {"kind": "entry.create", "entry": entry.as_dict()}
        case Update(entry):
            return {"kind": "entry.update", "entry": entry.as_dict()}
        case Delete(id):
            return {"kind": "entry.delete", "id": id}
        case Fold(id, mapping, mod):
            return {"kind": "overlay", "id": id, "mapping": mapping, "mod": mod}
        case Mark(id, overridden):
            return {"kind": "mark", "id": id, "overridden": overridden}


def _content(operation: Operation) -> Any:
    match operation:
        case Create(entry) | Update(entry):
            return [entry.meta, entry.data]
        case Fold(_, mapping):
            return mapping
        case _:
            return None


def parse_operation(raw: Any) -> Operation:
    """The operation in a map ``{kind, entry}`` or ``{kind, id}``. Raises Invalid."""
    if not isinstance(raw, Mapping):
        raise Invalid([Problem(f"expected an operation as a map with kind and entry, got {type(raw).__name__}")])
    match raw.get("kind"):
        case "entry.create":
            return Create(Entry.parse(raw.get("entry")))
        case "entry.update":
            return Update(Entry.parse(raw.get("entry")))
        case "entry.delete":
            return Delete(_deleted(raw))
        case "overlay":
            return _fold(raw)
        case "mark":
            return Mark(id_text(raw.get("id")), raw.get("overridden") is True)
        case other:
            raise Invalid(
                [Problem(f"expected entry.create, entry.update or entry.delete, got {other!r}", field="kind")]
            )


def _deleted(raw: Mapping[str, Any]) -> str:
    if "id" in raw:
        return id_text(raw["id"])
    entry = raw.get("entry")
    return id_text(entry.get("id") if isinstance(entry, Mapping) and "id" in entry else entry)


def _fold(raw: Mapping[str, Any]) -> Fold:
    mapping, mod = raw.get("mapping"), raw.get("mod")
    if not isinstance(mod, int) or not (mapping is None or isinstance(mapping, dict)) or flaw(mapping):
        raise Invalid([Problem("malformed overlay in a changeset", entry=str(raw.get("id")))])
    return Fold(id_text(raw.get("id")), mapping, mod)


def build_delta(before: Iterable[Entry], after: Iterable[Entry]) -> Changeset:
    """What leads from ``before`` to ``after``: deletes, users before what they use; then creates
    and updates, what is used before its users."""
    old = {entry.id: entry for entry in before}
    new = {entry.id: entry for entry in after}
    gone = [entry for id, entry in old.items() if id not in new]
    changed = [entry for id, entry in new.items() if id not in old or not old[id].identical(entry)]
    operations: list[Operation] = [Delete(id) for id in reversed(creation_order(gone))]
    operations += [Update(new[id]) if id in old else Create(new[id]) for id in creation_order(changed)]
    return Changeset(tuple(operations))


def as_changeset(operations: Changeset | Sequence[Operation]) -> Changeset:
    return operations if isinstance(operations, Changeset) else Changeset(tuple(operations))
