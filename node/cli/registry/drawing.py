"""Differences of entries as text for people: a heading per entry, then unified diffs.

What an entry says is compared as YAML; texts of several lines in it, such as sources, are
compared line by line on their own. Everything printed has control characters escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

from node.cli.console import paint, printable
from node.cli.registry.changes import EntryChange, What

if TYPE_CHECKING:
    from cluster.registry.entry import Entry

_STYLES = {
    What.CREATED: ("+", "bold green"),
    What.UPDATED: ("~", "bold yellow"),
    What.KIND_CHANGED: ("!", "bold magenta"),
    What.DELETED: ("-", "bold red"),
}
_LONGEST = 20_000
"""Lines in both texts together that are compared; beyond, only their lengths are told."""
_UNFINISHED = "\\ no newline at the end"

Line = tuple[str, str]
"""``(text, style)``"""


def show_changes(changes: Sequence[EntryChange], left: str, right: str, *, headings_only: bool = False) -> None:
    """Print them, coloured on a terminal. ``left`` and ``right`` name the two sides."""
    for change in changes:
        paint([heading(change)] if headings_only else list(drawn(change, left, right)))


def draw(changes: Sequence[EntryChange], left: str, right: str) -> list[str]:
    """The same without colours."""
    return [text for change in changes for text, _ in drawn(change, left, right)]


def heading(change: EntryChange) -> Line:
    sign, style = _STYLES[change.what]
    entry = change.after or change.before
    kinds = f"{change.before.kind} -> {change.after.kind}" if change.what is What.KIND_CHANGED else ""  # type: ignore[union-attr]
    remark = f"; {change.remark}" if change.remark else ""
    return f"{sign} {change.id} {change.what.value} ({kinds or (entry.kind if entry else '')}){remark}", style


def drawn(change: EntryChange, left: str, right: str) -> Iterator[Line]:
    """The heading and what differs."""
    yield heading(change)
    before, after = _texts(change.before), _texts(change.after)
    both = [*before.items(), *after.items()]
    names = sorted({name for name, text in both if "\n" in text})
    origin = _origins(change)
    sides = [("", _yaml(change.before, names, origin), _yaml(change.after, names, origin))]
    sides += [(f" {name}", _lines(before.get(name, "")), _lines(after.get(name, ""))) for name in names]
    for name, old, new in sides:
        yield from _unified(old, new, f"{left} {change.id}{name}", f"{right} {change.id}{name}")


def _unified(old: list[str], new: list[str], left: str, right: str) -> Iterator[Line]:
    if len(old) + len(new) > _LONGEST and old != new:
        yield f"  {right}: {len(old)} lines before, {len(new)} after; too long to be compared", "dim"
        return
    for text in unified_diff(old, new, left, right, lineterm=""):
        yield "\t".join(printable(part) for part in text.split("\t")), _style(text)


def _style(text: str) -> str:
    if text.startswith(("--- ", "+++ ")):
        return "dim"
    return {"+": "green", "-": "red", "@": "cyan"}.get(text[:1], "")


def _texts(entry: Entry | None) -> dict[str, str]:
    """The texts in the entry's data, by field."""
    data = entry.data if entry is not None and isinstance(entry.data, dict) else {}
    return {key: value for key, value in data.items() if isinstance(value, str)}


def _yaml(entry: Entry | None, apart: Sequence[str], origin: bool) -> list[str]:
    """What is compared as YAML, without the texts that are compared on their own."""
    if entry is None:
        return []
    said: dict[str, Any] = {"kind": entry.kind, "meta": entry.meta}
    data = entry.data
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key not in apart or not isinstance(value, str)}
    return _lines(as_yaml(said | {"data": data} | ({"origin": str(entry.origin)} if origin else {}), sort=True))


def _origins(change: EntryChange) -> bool:
    """Whether the origin is all that differs, so that it must be seen."""
    return bool(change.before and change.after and change.before.same_content(change.after))


def _lines(text: str) -> list[str]:
    if not text:
        return []
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else [*lines, _UNFINISHED]


def as_yaml(value: Any, *, sort: bool = False) -> str:
    """A value as people write it, texts of several lines kept as such; nothing for None."""
    import yaml

    class Readable(yaml.SafeDumper):
        def represent_text(self, text: str) -> yaml.ScalarNode:
            return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Readable.add_representer(str, Readable.represent_text)
    if value is None:
        return ""
    return yaml.dump(value, Dumper=Readable, sort_keys=sort, allow_unicode=True, width=120)
