"""Dotted paths into an entry, as overrides and requirements write them.

``kind``, ``meta.<field>``, ``data.<field>`` or a bare ``<field>`` of the data; numbers count
into lists; maps missing on the way are made; a key that holds dots itself is found as a whole.
Values are copied, so that two entries never share one. The functions return what is wrong
with the path, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from cluster.registry.value import same
from node.project.draft import Draft

_SECTIONS = ("meta", "data")


def assign(draft: Draft, path: str, value: Any, origin: str) -> str:
    """Set the value at ``path``; ``origin`` is named when it turns out wrong."""
    if path == "kind":
        if not isinstance(value, str) or not value:
            return f"expected a kind such as process.lua, got {value!r}"
        draft.kind = value
        draft.changed["kind"] = origin
        return ""
    return _change(draft, path, lambda _: (deepcopy(value), ""), origin)


def append(draft: Draft, path: str, value: Any, origin: str) -> str:
    """Add ``value`` to the list at ``path``, which is made when there is none; one that is in it stays once."""

    def added(present: Any) -> tuple[Any, str]:
        if present is None:
            return [deepcopy(value)], ""
        if not isinstance(present, list):
            return present, f"expected a list to add to, there is {present!r}"
        return present if any(same(each, value) for each in present) else [*present, deepcopy(value)], ""

    return _change(draft, path, added, origin)


def _change(draft: Draft, path: str, change: Callable[[Any], tuple[Any, str]], origin: str) -> str:
    parts = path.split(".")
    if not all(parts):
        return f"expected a path such as meta.title or host, got {path!r}"
    if len(parts) == 1 and path in (*_SECTIONS, "kind"):
        return f"{path} can't be replaced as a whole; name a field"
    if path == "name":
        return "name can't be changed: it is part of the entry's id"
    section = draft.meta if parts[0] == "meta" else draft.data
    if parts[0] in _SECTIONS:
        parts = parts[1:]
    wrong = _change_in(section, parts, change)
    if not wrong:
        _note(draft, ("meta." if section is draft.meta else "") + ".".join(parts), origin)
    return wrong


def _note(draft: Draft, path: str, origin: str) -> None:
    draft.changed[path] = origin
    for text in [text for text in draft.texts if text == path or text.startswith(f"{path}.")]:
        del draft.texts[text]


def _change_in(container: Any, parts: list[str], change: Callable[[Any], tuple[Any, str]]) -> str:
    if isinstance(container, list):
        key, rest = parts[0], parts[1:]
        if not (key.isascii() and key.isdecimal() and int(key) < len(container)):
            return f"expected a position below {len(container)} in a list, got {key!r}"
        index: Any = int(key)
        present = container[index]
    elif isinstance(container, dict):
        index, rest = _step(container, parts)
        present = container.get(index)
    else:
        return f"{parts[0]!r} leads into {container!r}, which holds no fields"
    if rest:
        if present is None:
            present = container[index] = {}
        return _change_in(present, rest, change)
    value, wrong = change(present)
    if not wrong:
        container[index] = value
    return wrong


def _step(container: dict[str, Any], parts: list[str]) -> tuple[str, list[str]]:
    """The key to follow and what is left: the longest one that is there, else the first part."""
    for count in range(len(parts), 1, -1):
        if (key := ".".join(parts[:count])) in container:
            return key, parts[count:]
    return parts[0], parts[1:]
