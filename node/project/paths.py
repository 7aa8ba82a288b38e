"""Dotted paths into an entry, as overrides and requirements write them.

``kind``, ``meta.<field>``, ``data.<field>`` or a bare ``<field>`` of the data; numbers count
into lists; maps missing on the way are made. The functions return what is wrong with the
path, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from node.project.draft import Draft


def assign(draft: Draft, path: str, value: Any, origin: str) -> str:
    """Set the value at ``path``; ``origin`` is named when it turns out wrong."""
    if path == "kind":
        if not isinstance(value, str) or not value:
            return f"expected a kind such as process.lua, got {value!r}"
        draft.kind = value
        draft.changed["kind"] = origin
        return ""
    return _change(draft, path, lambda _: (value, ""), origin)


def append(draft: Draft, path: str, value: Any, origin: str) -> str:
    """Add ``value`` to the list at ``path``, which is made when there is none."""

    def added(present: Any) -> tuple[Any, str]:
        if present is None:
            return [value], ""
        if isinstance(present, list):
            return [*present, value], ""
        return present, f"expected a list to add to, there is {present!r}"

    return _change(draft, path, added, origin)


def _change(draft: Draft, path: str, change: Callable[[Any], tuple[Any, str]], origin: str) -> str:
    parts = path.split(".")
    section: dict[str, Any] = draft.data
    if parts[0] in ("meta", "data") and len(parts) > 1:
        section = draft.meta if parts[0] == "meta" else draft.data
        parts = parts[1:]
    if not all(parts):
        return f"expected a path such as meta.title or host, got {path!r}"
    wrong = _change_in(section, parts, change)
    if not wrong:
        prefix = "meta." if section is draft.meta else ""
        draft.changed[prefix + ".".join(parts)] = origin
    return wrong


def _change_in(container: Any, parts: list[str], change: Callable[[Any], tuple[Any, str]]) -> str:
    key, rest = parts[0], parts[1:]
    if isinstance(container, list):
        if not key.isdecimal() or int(key) >= len(container):
            return f"expected a position below {len(container)} in a list, got {key!r}"
        index: Any = int(key)
        present = container[index]
    elif isinstance(container, dict):
        index = key
        present = container.get(key)
    else:
        return f"{key!r} leads into {container!r}, which holds no fields"
    if rest:
        if present is None:
            present = container[index] = {}
        return _change_in(present, rest, change)
    value, wrong = change(present)
    if not wrong:
        container[index] = value
    return wrong
