"""What verbs print: tables for people, plain columns for pipes, JSON for programs.

Results go to stdout, everything about them (progress, hints) to stderr. Texts that come from
the cluster are shown with control characters escaped: a process name can't paint a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

_GAP = 3
_EDGES = 2
"""Blanks between two columns of a table, and at its edges."""
_LEAST = 8
"""A column that is narrower than this when wrapped is hard to read."""


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


def show(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    format: Format,
    *,
    empty: str = "",
    whole: Collection[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """A listing. ``columns`` maps a key of the rows to its heading; JSON shows all keys of the rows.

    On a terminal the columns ``whole`` are never wrapped, and when the others have no room for that, those of
    ``spare`` are left out, the first one first.
    """
    if format is Format.JSON:
        show_json(list(rows))
    elif not rows:
        note(empty or "nothing to show")
    elif sys.stdout.isatty():
        _table(rows, columns, whole, spare)
    else:
        _columns(rows, columns)


def show_json(value: Any) -> None:
    """``value`` as JSON: coloured on a terminal, one line per value of a listing's length elsewhere."""
    if not sys.stdout.isatty():
        print(json.dumps(value, ensure_ascii=False, default=str))
        return
    from rich.console import Console

    Console().print_json(json.dumps(value, default=str), ensure_ascii=False)


def note(text: str) -> None:
    """A remark beside the result."""
    print(harmless(text), file=sys.stderr)


def say(text: str) -> None:
    """A text that others wrote: as it is for programs, without what a terminal would obey for people."""
    print(harmless(text) if sys.stdout.isatty() else text)


def shown(value: Any) -> str:
    """A value in a table's cell."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case str():
            return printable(value)
        case int() | float():
            return f"{value:g}" if isinstance(value, float) else str(value)
        case Mapping():
            return " ".join(f"{shown(key)}={shown(item)}" for key, item in value.items()) or "-"
        case list() | tuple():
            return ", ".join(shown(item) for item in value) or "-"
        case _:
            return printable(str(value))


def printable(text: str) -> str:
    """``text`` with everything that is no visible character escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def harmless(text: str) -> str:
    """``text`` of several lines without what a terminal would obey: names of files and entries may hold that."""
    return "".join(c if c in "\n\t" else printable(c) for c in text) if not text.isprintable() else text


def ago(seconds: float) -> str:
    """A span of time in its largest two units: ``2h05m``, ``3m12s``, ``4.1s``."""
    if seconds < 60:
        return f"{max(seconds, 0.0):.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 48 else f"{hours // 24}d{hours % 24:02d}h"


def _table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], whole: Collection[str], spare: Sequence[str]
) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = {
        key: max(len(heading), *(cell_len(shown(row.get(key))) for row in rows)) for key, heading in columns.items()
    }
    columns = fitting(columns, widths, spare, console.width)
    if _room({key: widths[key] if key in whole else min(widths[key], _LEAST) for key in columns}) > console.width:
        _columns(rows, columns)  # lines the terminal wraps can still be copied whole
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for key, heading in columns.items():
        numeric = all(isinstance(row.get(key), int | float) and not isinstance(row.get(key), bool) for row in rows)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=key in whole)
    for row in rows:
        table.add_row(*(Text(shown(row.get(key)), style=_style(row.get(key))) for key in columns))
    console.print(table)


def fitting(
    columns: Mapping[str, str], widths: Mapping[str, int], spare: Sequence[str], room: int
) -> Mapping[str, str]:
    """``columns`` without as many of ``spare`` as it takes to fit into ``room``."""
    kept = dict(columns)
    for key in spare:
        if _room({each: widths[each] for each in kept}) <= room:
            break
        kept.pop(key, None)
    return kept


def _room(widths: Mapping[str, int]) -> int:
    """How wide a table of columns of these widths is."""
    return sum(width + _GAP for width in widths.values()) - _GAP + _EDGES


def _style(value: Any) -> str:
    """Colours for the few words that mean trouble or health."""
    match value:
        case "ready" | "running" | "applied":
            return "green"
        case "joining" | "cordoned" | "draining" | "starting" | "pending":
            return "yellow"
        case "gone" | "failed" | "refused" | "silent":
            return "red"
        case _:
            return ""


def _columns(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    lines = [list(columns.values()), *([shown(row.get(key)) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def paint(lines: Sequence[tuple[str, str]]) -> None:
    """Lines with a style each, such as ``bold red``; plain where stdout is no terminal or NO_COLOR is set."""
    if not sys.stdout.isatty():
        for text, _ in lines:
            print(text)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for text, style in lines:
        console.print(Text(text, style=style), soft_wrap=True)
