"""The operator overlay: a mapping merged over an entry's data, kept apart from the entry.

An operator puts ``config/<ns>:<name>`` with any etcd client; the entry that everyone sees is
the base with that mapping merged in. Deleting the key gives the base back, because the state
keeps both. Only plain configuration accepts one: an overlay must not be a door to running code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.documents import parse_bytes
from cluster.registry.entry import Entry
from cluster.registry.value import flaw, parse

MAX_BYTES = 256 * 1024


class Malformed(ValueError):
    """An overlay that can't be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """What lies over an entry, and the ``mod_revision`` of the key it was read from."""

    mapping: dict[str, Any]
    mod: int


def parse_overlay(raw: bytes) -> dict[str, Any]:
    """The mapping in the value of a ``config/`` key, JSON or YAML. Raises Malformed."""
    if len(raw) > MAX_BYTES:
        raise Malformed(f"{len(raw)} bytes are over the limit of {MAX_BYTES} bytes")
    value = _load(raw)
    if not isinstance(value, dict):
        raise Malformed(f"expected a mapping, got {_name(value)}")
    if wrong := flaw(value):
        raise Malformed(wrong)
    return value


def _load(raw: bytes) -> Any:
    try:
        return parse(raw)
    except ValueError:
        pass  # not JSON: YAML has the last word, read as the files of an application are
    document = parse_bytes(raw, "")
    if document.more:
        raise Malformed("expected one YAML document, got several")
    if document.problems:
        wrong = "; ".join(f"line {problem.line}: {problem.message}" for problem in document.problems)
        raise Malformed(f"neither JSON nor YAML: {wrong}" if document.broken else wrong)
    return None if document.root is None else document.root.plain()


def _name(value: Any) -> str:
    return {str: "a text", list: "a list", type(None): "nothing"}.get(type(value), f"a {type(value).__name__}")


def refusal(entry: Entry | None) -> str:
    """Why ``entry`` takes no overlay; empty when it does."""
    if entry is None:
        return "there is no such entry"
    if not (entry.kind == "registry.entry" or entry.meta.get("overlay") is True):
        return f"kind {entry.kind} takes no overlay; only registry.entry and entries with meta.overlay: true do"
    if not isinstance(entry.data, dict):
        return "the entry's data is not a mapping"
    return ""


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` merged into ``base``, mappings key by key at every depth; null removes a key.

    Lists and scalars replace. Neither argument is changed.
    """
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def overlaid(entry: Entry, overlay: Overlay) -> Entry:
    """The entry as everyone sees it."""
    return entry.with_data(merge(entry.data, overlay.mapping))
