"""Lua entries made ready for a VM, and what a VM needs to know about one.

A code package is the transformed source (types erased, yield points in place, lines true)
with what ``require`` may load. Transforming is pure and costs milliseconds, so results are
kept by source text.
"""

from __future__ import annotations

from collections.abc import Callable as Function
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cluster.errors import Invalid, Problem
from cluster.registry.entry import Entry
from node.kinds.decode import decode, examine
from node.kinds.lua import Callable, Code
from node.kinds.table import KINDS
from node.lua.dialect import LuaSyntaxError, analyse

GLOBALS = frozenset(
    (
        "process", "channel", "payload", "errors", "os", "table", "math", "string", "coroutine", "print",
        "subscribe", "unsubscribe", "unpack",
    )
)  # fmt: skip
"""Present in every process; listing them under ``modules`` does no harm."""

_analysed = lru_cache(maxsize=4096)(analyse)


def is_code(kind: str) -> bool:
    """Whether entries of this kind hold Lua source."""
    return kind in KINDS and KINDS[kind].code


def syntax_problem(entry: Entry, source: str) -> Problem | None:
    """What keeps ``source`` from being Lua. Its ``file`` is the entry's id, its ``line`` counts within the source."""
    try:
        _analysed(source, entry.id)
    except LuaSyntaxError as error:
        return Problem(error.message, entry=entry.id, field="source", file=entry.id, line=error.line)
    return None


def code_package(entry: Entry, version: int) -> dict[bytes, Any]:
    """``entry`` as a VM takes it; ``version`` is the registry's. Raises Invalid when it is no valid Lua entry."""
    if not is_code(entry.kind):
        raise Invalid([Problem(f"kind {entry.kind} holds no Lua code", entry=entry.id, field="kind")])
    code = decode(entry, lambda _: None)
    assert isinstance(code, Code)
    if problem := syntax_problem(entry, code.source):
        raise Invalid([problem])
    return {
        b"id": entry.id.encode(),
        b"kind": entry.kind.encode(),
        b"source": _analysed(code.source, entry.id).text.encode(),
        b"method": code.method.encode() if isinstance(code, Callable) else b"",
        b"modules": [module.encode() for module in code.modules],
        b"imports": {alias.encode(): target.encode() for alias, target in code.imports.items()},
        b"version": version,
    }


def imported_ids(entry: Entry) -> frozenset[str]:
    """The entries a Lua entry imports; empty for any other, and for one that is broken."""
    if not is_code(entry.kind) or not isinstance(entry.data, dict) or not entry.data.get("imports"):
        return frozenset()
    code, _ = examine(entry)
    if not isinstance(code, Code):
        return frozenset()
    return frozenset(target for target in code.imports.values() if not target.startswith(":"))


def made_of(id: str, entry: Function[[str], Entry | None]) -> frozenset[str]:
    """``id`` and all it imports, through libraries of libraries; ``entry`` gives the entries."""
    found: set[str] = set()
    waiting = [id]
    while waiting:
        current = entry(waiting.pop())
        if current is not None and current.id not in found:
            found.add(current.id)
            waiting += imported_ids(current)
    return frozenset(found)


def required_names(entry: Entry, source: str) -> Mapping[str, int]:
    """What ``source``, free of syntax errors, requires by literal name; the line of the first time each."""
    return _analysed(source, entry.id).requires
