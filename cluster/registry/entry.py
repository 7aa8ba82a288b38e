"""One entry of the registry: an id ``ns:name``, a kind, metadata and data.

Everything an application consists of is an entry: code, hosts, services, configuration. An
entry is immutable; a change is a new entry under the same id. ``parse`` reads the form that
YAML, Lua and JSON share and refuses a bad one with every problem found; an ``Entry`` built
directly is checked when a changeset takes it in (``problems``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from cluster.errors import Invalid, Problem
from cluster.registry.value import flaw, same

MAX_ID = 256
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
# Everything printable except what would break a PID ({node@host|uniq}) or an etcd key.
_NAME = re.compile(r"[^\s\x00-\x20\x7f{}|@/]+")
_KIND = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Origin(StrEnum):
    """Where an entry came from: the project's files or a change at run time."""

    FILES = "files"
    RUNTIME = "runtime"


def split_id(text: str) -> tuple[str, str]:
    """``(ns, name)``, split on the first colon; without one the namespace is empty."""
    ns, colon, name = text.partition(":")
    return (ns, name) if colon else ("", text)


def with_default_ns(text: str, ns: str) -> str:
    """``text`` as a full id: a reference without a namespace means the referring entry's own."""
    own, name = split_id(text)
    return f"{own or ns}:{name}"


def id_text(raw: Any) -> str:
    """The id in ``raw``, a text or a map ``{ns, name}``. Raises Invalid on another shape."""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, Mapping) and isinstance(raw.get("name"), str) and isinstance(raw.get("ns", ""), str):
        return f"{raw.get('ns', '')}:{raw['name']}"
    raise Invalid([Problem(f"expected an id like 'ns:name' or a map with ns and name, got {raw!r}", field="id")])


def id_flaw(text: str) -> str:
    """What is wrong with ``text`` as the id of an entry; empty when nothing is."""
    ns, name = split_id(text)
    if not ns:
        return f"expected an id like 'ns:name', got {text!r}"
    if len(text.encode(errors="replace")) > MAX_ID:
        return f"id is longer than {MAX_ID} bytes"
    if not _NAMESPACE.fullmatch(ns):
        return f"namespace {ns!r} may hold letters, digits, '_', '-' and single dots between them"
    if not _NAME.fullmatch(name) or flaw(name):
        return f"name {name!r} must not be empty nor hold spaces, '/', '@', '|', '{{' or '}}'"
    return ""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry. ``meta`` and ``data`` are JSON-like values that nobody may change in place."""

    id: str
    kind: str
    meta: dict[str, Any] = field(default_factory=dict)
    data: Any = field(default_factory=dict)
    origin: Origin = Origin.RUNTIME

    @property
    def ns(self) -> str:
        return split_id(self.id)[0]

    @property
    def name(self) -> str:
        return split_id(self.id)[1]

    @classmethod
    def parse(cls, raw: Any, origin: Origin | None = None) -> Entry:
        """The entry in a map ``{id, kind, meta?, data?, origin?}``. Raises Invalid with every problem.

        ``origin`` overrides the map's own. An empty list stands for an empty map, because Lua
        can't tell them apart.
        """
        if not isinstance(raw, Mapping):
            raise Invalid([Problem(f"expected an entry as a map with id and kind, got {type(raw).__name__}")])
        unknown = sorted(str(key) for key in raw if key not in ("id", "kind", "meta", "data", "origin"))
        id = id_text(raw.get("id"))
        if unknown:
            raise Invalid([Problem(f"unknown field {', '.join(unknown)}; put the payload under data", entry=id)])
        if origin is None:
            origin = _origin(raw.get("origin", Origin.RUNTIME), id)
        kind, meta = raw.get("kind", ""), _map(raw.get("meta"))
        if not isinstance(kind, str):
            raise Invalid([Problem(f"expected a kind like 'process.lua', got {kind!r}", entry=id, field="kind")])
        if not isinstance(meta, dict):
            raise Invalid([Problem(f"expected a map, got {type(meta).__name__}", entry=id, field="meta")])
        entry = cls(id, kind, meta, _map(raw.get("data")), origin)
        if problems := entry.problems():
            raise Invalid(problems)
        return entry

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; ``parse`` reads it back."""
        return {"id": self.id, "kind": self.kind, "meta": self.meta, "data": self.data, "origin": str(self.origin)}

    def problems(self) -> list[Problem]:
        """Everything wrong with id, kind, meta and data."""
        wrongs = {
            "id": id_flaw(self.id),
            "kind": "" if _KIND.fullmatch(self.kind) else f"expected a kind like 'process.lua', got {self.kind!r}",
            "meta": flaw(self.meta),
            "data": flaw(self.data),
        }
        return [Problem(wrong, entry=self.id, field=name) for name, wrong in wrongs.items() if wrong]

    def same_content(self, other: Entry) -> bool:
        """Whether both say the same, whatever their origin."""
        return (
            self.id == other.id
            and self.kind == other.kind
            and same(self.meta, other.meta)
            and same(self.data, other.data)
        )

    def identical(self, other: Entry) -> bool:
        return self.origin is other.origin and self.same_content(other)

    def with_data(self, data: Any) -> Entry:
        return replace(self, data=data)

    def with_origin(self, origin: Origin) -> Entry:
        return self if self.origin is origin else replace(self, origin=origin)


def _map(raw: Any) -> Any:
    return {} if raw is None or raw == [] else raw


def _origin(raw: Any, id: str) -> Origin:
    try:
        return Origin(raw)
    except ValueError:
        raise Invalid([Problem(f"expected origin files or runtime, got {raw!r}", entry=id, field="origin")]) from None
