"""Commands: processes that ``wippy run NAME`` starts, declared by ``meta.command``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cluster.errors import Problem
from cluster.registry.entry import Entry

COMMAND_KINDS = frozenset({"process.lua"})


@dataclass(frozen=True, slots=True)
class Command:
    """One command: what to type, what it starts, and what to say about it."""

    name: str
    entry: str
    short: str = ""
    main: bool = False
    use_case: str = "run"


def commands(entries: Iterable[Entry]) -> list[Command]:
    """Every well-formed command among ``entries``, by name."""
    found = [_command(entry) for entry in entries if _declares(entry) and not command_problems(entry)]
    return sorted(found, key=lambda command: command.name)


def command_problems(entry: Entry) -> list[Problem]:
    """What is wrong with the ``meta.command`` of ``entry``."""
    if not _declares(entry):
        return []
    raw = entry.meta["command"]
    if not isinstance(raw, dict):
        return [Problem(f"expected a map with name and short, got {raw!r}", entry.id, "meta.command")]
    name = raw.get("name")
    if not isinstance(name, str) or not name or name.split() != [name]:
        return [Problem(f"expected a name of one word, got {name!r}", entry.id, "meta.command.name")]
    return []


def _declares(entry: Entry) -> bool:
    return entry.kind in COMMAND_KINDS and entry.meta.get("command") is not None


def _command(entry: Entry) -> Command:
    raw: dict[str, Any] = entry.meta["command"]
    return Command(
        name=raw["name"],
        entry=entry.id,
        short=str(raw.get("short") or ""),
        main=raw.get("main") is True,
        use_case=str(raw.get("use_case") or "run"),
    )
