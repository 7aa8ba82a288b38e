"""Verbs of the registry: list, show, diff, push, history, rollback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from node.cli.console import Format, note, show_json
from node.cli.console import show as show_rows
from node.cli.failures import Failed
from node.cli.gateway import AsJson, Listing, listing

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.errors import Problem
    from cluster.registry.entry import Entry
    from cluster.registry.publish import Difference
    from cluster.registry.registry import Registry
    from cluster.registry.state import RegistryState
    from node.project import Project

AppDirectory = Annotated[Path, typer.Argument(metavar="[APP]", help="The application's directory")]
Overrides = Annotated[list[str] | None, typer.Option("-o", metavar="NS:ENTRY:PATH=VALUE", help="Change an entry first")]
_SHOWN = 5
"""How many of the changed entries a push names."""
_FEW = 3
"""So many entries may be deleted by a save without a question."""
_RUNNING_CODE = ("process.lua", "library.lua")
Version = Annotated[str | None, typer.Option("--at", metavar="VERSION", help="As it was at this version, e.g. v3")]


@asynccontextmanager
async def opened(client: Client) -> AsyncIterator[Registry]:
    """The cluster's registry, checked as the nodes check it."""
    from cluster.registry.registry import open_registry

    await client.check()
    async with open_registry(client.etcd, client.keys, f"cli:{_user()}", check) as registry:
        if registry.state.version < 0:
            raise Failed(
                f"cluster {client.cluster!r} has no registry yet; start a node, or `wippy registry push` an application"
            )
        yield registry


def check(state: RegistryState) -> list[Problem]:
    """What the nodes would refuse."""
    from node.kinds import check_state
    from node.modules import MODULES

    return check_state(state.entries(), MODULES)


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):
        return "unknown"


async def list_(
    client: Client,
    kind: Annotated[str | None, typer.Option("-k", "--kind", help="Only this kind; * stands for anything")] = None,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Only this namespace; * stands for anything")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only this name; * stands for anything")] = None,
    at: Version = None,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """The entries of the registry."""
    from fnmatch import fnmatchcase

    async with opened(client) as registry:
        state = await _state(registry, at)
    rows = [
        _row(entry, state)
        for entry in state.entries()
        if fnmatchcase(entry.kind, kind or "*")
        and fnmatchcase(entry.ns, namespace or "*")
        and fnmatchcase(entry.name, name or "*")
    ]
    columns = {"id": "ENTRY", "kind": "KIND", "origin": "ORIGIN", "overlaid": "OVERLAID", "comment": "COMMENT"}
    show_rows(sorted(rows, key=lambda row: row["id"]), columns, listing(format, as_json), empty="no such entries")


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


async def _state(registry: Registry, at: str | None) -> RegistryState:
    return registry.state if at is None else await registry.state_at(version_number(at))


def version_number(text: str) -> int:
    """The number in ``v3`` or ``3``."""
    digits = text.removeprefix("v")
    if not digits.isdecimal():
        raise Failed(f"expected a version such as v3, got {text!r}; `wippy registry history` shows them", code=2)
    return int(digits)


async def show(
    client: Client,
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="Its id, e.g. app:limits")],
    at: Version = None,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """One entry as everybody sees it; what an operator laid over it is shown too."""
    import yaml

    async with opened(client) as registry:
        state = await _state(registry, at)
    found = state.get(entry)
    if found is None:
        raise Failed(f"no entry {entry} in v{state.version}{_similar(entry, state)}; `wippy registry list` shows all")
    overlay = state.overlays.get(entry)
    shown = found.as_dict() | ({"base": state.base[entry].data, "overlay": overlay.mapping} if overlay else {})
    if listing(format, as_json) is Format.JSON:
        show_json(shown | {"version": state.version})
    else:
        print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), end="")


def _similar(entry: str, state: RegistryState) -> str:
    from difflib import get_close_matches

    close = get_close_matches(entry, [each.id for each in state.entries()], n=1)
    return f"; did you mean {close[0]}?" if close else ""


async def diff(client: Client, app: AppDirectory = Path(), override: Overrides = None) -> None:
    """What a push of the application's files would change. Exit code 1 when there is something."""
    from cluster.registry.publish import differences
    from node.modules import MODULES
    from node.project import load_project

    project = load_project(app.resolve(), overrides=tuple(override or ()), modules=MODULES)
    async with opened(client) as registry:
        found = differences(registry.state, project.entries)
    for each in found:
        print(unified(each))
    if found:
        raise Failed("", code=1)
    note("files and registry agree")


async def push(
    client: Client,
    app: AppDirectory = Path(),
    take: Annotated[
        Literal["files", "cluster"] | None,
        typer.Option("--take", help="Which side wins where an entry was changed at run time"),
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Delete also entries made at run time")] = False,
    message: Annotated[str, typer.Option("-m", "--message", help="Why, for the history")] = "",
    override: Overrides = None,
) -> None:
    """Make the registry say what the application's files say."""
    from cluster.registry.publish import PushConflict
    from node.modules import MODULES
    from node.project import load_project

    project = load_project(app.resolve(), overrides=tuple(override or ()), modules=MODULES)
    try:
        result = await push_project(client, project, take=take, prune=prune, message=message)
    except PushConflict as conflict:
        for each in conflict.conflicts:
            print(unified(each))
        raise Failed(f"{conflict}; nothing was pushed: say --take files or --take cluster") from None
    print(pushed(result))


class TooManyDeletions(Exception):
    """A push would delete more than half of what the files own, as happens when a file is saved half done."""

    def __init__(self, deleted: int, owned: int) -> None:
        super().__init__(deleted, owned)
        self.deleted = deleted
        self.owned = owned

    def __str__(self) -> str:
        return f"would delete {self.deleted} of {self.owned} entries"


@dataclass(frozen=True)
class Pushed:
    """What a push did. ``keeps_code``: processes may run that have the code of before."""

    version: int
    created: bool
    changed_ids: Sequence[str]
    keeps_code: bool = False


async def push_project(
    client: Client,
    project: Project,
    *,
    take: str | None = None,
    prune: bool = False,
    message: str = "",
    careful: bool = False,
) -> Pushed:
    """Push what was loaded. Raises Invalid with every problem, TooManyDeletions when ``careful``."""
    from cluster.errors import Invalid
    from cluster.registry.publish import Take
    from cluster.registry.registry import open_registry

    await client.check()
    steps: dict[int, Pushed] = {}

    def note_step(before: RegistryState, after: RegistryState, changed: frozenset[str]) -> None:
        steps[after.version] = Pushed(after.version, False, sorted(changed), _keeps_code(before, changed))

    async with open_registry(client.etcd, client.keys, f"cli:{_user()}", check) as registry:
        if careful:
            check_deletions(registry.state, project.entries)
        registry.on_change(note_step)
        try:
            result = await registry.publish(
                project.entries, "always", message=message, take=Take(take) if take else None, prune=prune
            )
            await registry.reached(result.version)
        except Invalid as invalid:
            raise Invalid([project.locate(problem) for problem in invalid.problems]) from None
    if result.created or not result.changed:
        return Pushed(result.version, result.created, ())
    return steps[result.version]


def check_deletions(state: RegistryState, files: Sequence[Entry]) -> None:
    """Raises TooManyDeletions when ``files`` lack more than half of the entries that came from files."""
    from cluster.registry.entry import Origin

    owned = {id for id, entry in state.base.items() if entry.origin is Origin.FILES}
    deleted = owned - {entry.id for entry in files}
    if len(deleted) >= _FEW and 2 * len(deleted) > len(owned):
        raise TooManyDeletions(len(deleted), len(owned))


def _keeps_code(before: RegistryState, changed: frozenset[str]) -> bool:
    """Whether code that processes hold was changed; functions are read anew for each call."""
    return any(entry.kind in _RUNNING_CODE for id in changed if (entry := before.base.get(id)) is not None)


def pushed(done: Pushed) -> str:
    """What a push did, for people."""
    if done.created:
        return f"pushed: the registry starts at v{done.version}"
    ids = done.changed_ids
    if not ids:
        return f"nothing to push: the registry has it all (v{done.version})"
    count = "1 entry" if len(ids) == 1 else f"{len(ids)} entries"
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    told = f"pushed: {count} changed, now v{done.version}: {', '.join(ids[:_SHOWN])}{more}"
    return f"{told}; running processes keep their code until they are started anew" if done.keeps_code else told


async def history(client: Client, format: Listing = Format.TEXT, as_json: AsJson = False) -> None:
    """The versions: who changed what, when and why."""
    async with opened(client) as registry:
        versions = await registry.versions()
        head = registry.state.version
    rows = [
        {
            "version": f"v{each.version}",
            "time": each.time.astimezone().isoformat(" ", "seconds"),
            "author": each.author,
            "changed": each.changed,
            "message": each.message,
            "current": each.version == head,
        }
        for each in reversed(versions)
    ]
    columns = {"version": "VERSION", "time": "TIME", "author": "AUTHOR", "changed": "CHANGED", "message": "MESSAGE"}
    show_rows(rows, columns, listing(format, as_json), empty="no versions")


async def rollback(
    client: Client,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="e.g. v3; the one before the current without")
    ] = None,
    message: Annotated[str, typer.Option("-m", "--message", help="Why, for the history")] = "",
) -> None:
    """Bring the entries of an earlier version back, as a new version, on all nodes."""
    async with opened(client) as registry:
        wanted = version_number(version) if version is not None else registry.state.version - 1
        if wanted < 0:
            raise Failed("there is no version before v0")
        done = await registry.rollback(wanted, message=message)
    if not done.changed:
        print(f"nothing to do: v{done.version} has the entries of v{done.restored}")
    else:
        print(f"rolled back: v{done.version} has the entries of v{done.restored} ({done.changed} changed)")
    if done.overlays:
        note(f"what operators laid over entries stays on top: {', '.join(done.overlays)} (`wippy config list`)")


def unified(difference: Difference) -> str:
    """Both sides of an entry as a unified diff, from the registry to the files."""
    from difflib import unified_diff

    lines = unified_diff(
        _lines(difference.cluster),
        _lines(difference.files),
        f"registry {difference.id}",
        f"files {difference.id}",
        lineterm="",
    )
    return "\n".join(lines)


def _lines(entry: Entry | None) -> list[str]:
    """The entry as people write it, texts of several lines kept as such."""
    import yaml

    class Readable(yaml.SafeDumper):
        def represent_text(self, text: str) -> yaml.ScalarNode:
            return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Readable.add_representer(str, Readable.represent_text)
    if entry is None:
        return []
    said = {"kind": entry.kind, "meta": entry.meta, "data": entry.data}
    return yaml.dump(said, Dumper=Readable, sort_keys=True, allow_unicode=True).splitlines()
