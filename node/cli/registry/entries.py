"""``wippy registry list`` and ``show``: what is in the registry, now or at an earlier version."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import Format, say, show_json
from node.cli.console import show as show_rows
from node.cli.failures import Failed
from node.cli.gateway import AsJson, Listing, listing
from node.cli.registry.opening import At, opened, state_at

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.registry.entry import Entry
    from cluster.registry.state import RegistryState

AsYaml = Annotated[bool, typer.Option("--yaml", help="As YAML")]
_CONDITION = re.compile(r"([A-Za-z0-9_.-]+)([=~*^$])(.*)", re.DOTALL)
_MISSING = object()


class Source(StrEnum):
    """Where an entry came from."""

    FILES = "files"
    RUNTIME = "runtime"


async def list_(
    client: Client,
    kind: Annotated[
        str | None, typer.Option("-k", "--kind", metavar="GLOB", help="Only this kind; * stands for anything")
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("-n", "--ns", "--namespace", metavar="GLOB", help="Only this namespace; * stands for anything"),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="GLOB", help="Only this name; * stands for anything")
    ] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option(
            "--meta",
            metavar="FIELD=VALUE",
            help="Only with this metadata: FIELD=VALUE exactly, ~ regular expression, * contains, ^ starts, $ ends "
            "with; repeatable",
        ),
    ] = None,
    origin: Annotated[Source | None, typer.Option("--origin", help="Only what came from there")] = None,
    at: At = None,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
    as_yaml: AsYaml = False,
) -> None:
    """The entries of the registry."""
    from cluster.registry.filter import glob
    from node.cli.registry import drawing

    wanted = conditions(meta or ())
    async with opened(client) as registry:
        state = await state_at(registry, at)
    rows = [
        _row(entry, state)
        for entry in state.entries()
        if glob(kind or "*", entry.kind)
        and glob(namespace or "*", entry.ns)
        and glob(name or "*", entry.name)
        and (origin is None or entry.origin == origin.value)
        and all(holds(entry) for holds in wanted)
    ]
    if as_yaml:
        say(drawing.as_yaml(rows).removesuffix("\n"))
        return
    columns = {"id": "ENTRY", "kind": "KIND", "origin": "ORIGIN", "overlaid": "OVERLAID", "comment": "COMMENT"}
    empty = f"no such entries in v{state.version}"
    show_rows(rows, columns, listing(format, as_json), empty=empty, whole=("id",), spare=("comment", "overlaid"))


def conditions(meta: Sequence[str]) -> list[Callable[[Entry], bool]]:
    """The filters of ``--meta``. A value stands for the text and for the number or truth value it spells.

    Raises Failed (wrong usage) on one that is none.
    """
    import json

    from cluster.errors import Invalid
    from cluster.registry.filter import Filter

    found: list[Callable[[Entry], bool]] = []
    for text in meta:
        matched = _CONDITION.fullmatch(text)
        if matched is None:
            raise Failed(f"expected --meta FIELD=VALUE (or ~ * ^ $ instead of =), got {text!r}", code=2)
        field, how, value = matched.groups()
        meant: list[Any] = [value]
        try:
            meant.append(json.loads(value) if how in "=*" else value)
        except ValueError:
            pass  # a text only
        prefix = "" if how == "=" else how
        try:
            filters = [Filter.parse({f"{prefix}meta.{field}": each}) for each in meant]
        except Invalid as invalid:
            raise Failed(f"--meta {text}: {invalid.problems[0].message}", code=2) from None
        found.append(lambda entry, filters=filters: any(each.holds(entry) for each in filters))  # type: ignore[misc]
    return found


def _row(entry: Entry, state: RegistryState) -> dict[str, Any]:
    comment = entry.meta.get("comment") or entry.meta.get("title") or entry.meta.get("description") or ""
    return {
        "id": entry.id,
        "kind": entry.kind,
        "origin": str(entry.origin),
        "overlaid": entry.id in state.overlays,
        "comment": str(comment).strip().splitlines()[0] if str(comment).strip() else "",
        "meta": entry.meta,
    }


async def show(
    client: Client,
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="Its id, e.g. app:limits")],
    field: Annotated[
        str | None, typer.Option("-f", "--field", metavar="PATH", help="Only this part, e.g. data.rate or meta.type")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The base alone, as it is stored, without what operators laid over it")
    ] = False,
    at: At = None,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
    as_yaml: AsYaml = False,
) -> None:
    """One entry as everybody sees it; what an operator laid over it is shown too."""
    from node.cli.registry import drawing

    async with opened(client) as registry:
        state = await state_at(registry, at)
    shown = _shown(entry, state, raw)
    part = shown if field is None else _part(shown, field, entry)
    if listing(format, as_json) is Format.JSON:
        show_json(part if field is not None else shown | {"version": state.version})
    elif as_yaml or isinstance(part, dict | list):
        say(drawing.as_yaml(part).removesuffix("...\n").removesuffix("\n"))
    elif isinstance(part, str):
        say(part)
    else:
        show_json(part)


def _shown(id: str, state: RegistryState, raw: bool) -> dict[str, Any]:
    found = state.base.get(id) if raw else state.get(id)
    if found is None:
        raise Failed(f"no entry {id} in v{state.version}{_similar(id, state)}; `wippy registry list` shows all")
    overlay = None if raw else state.overlays.get(id)
    return found.as_dict() | ({"base": state.base[id].data, "overlay": overlay.mapping} if overlay else {})


def _part(shown: dict[str, Any], path: str, entry: str) -> Any:
    """The value at ``path``; a name that is no part of an entry is looked for in its data, then in its metadata."""
    for start in (shown, shown["data"], shown["meta"]):
        found = _at(start, path)
        if found is not _MISSING:
            return found
    data = shown["data"] if isinstance(shown["data"], dict) else {}
    raise Failed(f"entry {entry} has no {path}; it has {', '.join([*shown, *(f'data.{key}' for key in data)])}")


def _at(value: Any, path: str) -> Any:
    for step in path.split("."):
        if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return _MISSING
    return value


def _similar(entry: str, state: RegistryState) -> str:
    from difflib import get_close_matches

    close = get_close_matches(entry, [each.id for each in state.entries()], n=1)
    return f"; did you mean {close[0]}?" if close else ""
