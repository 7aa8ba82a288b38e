"""``wippy registry push``: makes the registry say what an application's files say.

One version, whole or not at all. Afterwards it waits until the nodes have it, and with
``--rollback-on-error`` takes it back when one can't use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from node.cli.console import Format, note, show_json
from node.cli.failures import Failed, tell
from node.cli.gateway import AsJson, Listing, Timeout, listing, seconds
from node.cli.registry.changes import EntryChange, as_value, between, from_files, ids_by_sort, summary
from node.cli.registry.drawing import show_changes
from node.cli.registry.opening import AppDirectory, Message, Overrides, check, loaded, opened
from node.cli.registry.settling import as_value as outcome_value
from node.cli.registry.settling import settle, tell_progress, tell_troubles, told

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.registry.changeset import Changeset
    from cluster.registry.entry import Entry
    from cluster.registry.state import RegistryState
    from cluster.settling import Outcome
    from node.project import Project

_FEW = 3
"""So many entries may be deleted by a save without a question."""
_BACK_SECONDS = 5.0
_RUNNING_CODE = ("process.lua", "library.lua")
Side = Annotated[
    Literal["files", "cluster"] | None,
    typer.Option("--take", help="Which side wins where an entry was changed at run time"),
]
Prune = Annotated[bool, typer.Option("--prune", help="Delete also entries made at run time")]


async def push(
    client: Client,
    app: AppDirectory = Path(),
    take: Side = None,
    prune: Prune = False,
    message: Message = "",
    override: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change and what would be refused; change nothing")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every ready node has it")] = True,
    timeout: Timeout = "30s",
    rollback_on_error: Annotated[
        bool, typer.Option("--rollback-on-error", help="Take it back when a node can't use it or says nothing in time")
    ] = False,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """Make the registry say what the application's files say.

    Exit code 0: all nodes have it (also when there was nothing to push), 1: refused, or a node can't use it, 2: wrong
    usage.
    """
    if rollback_on_error and not wait:
        raise Failed("--rollback-on-error needs to wait for the nodes: leave --no-wait out", code=2)
    patience, wanted = seconds(timeout), listing(format, as_json)
    project = loaded(app, override)
    if dry_run:
        await _rehearse(client, project, take, prune, wanted)
        return
    try:
        done = await push_project(client, project, take=take, prune=prune, message=message)
    except Exception as error:
        _show_conflict(error)
        raise
    # what somebody else pushed, or a push that was broken off, must be on the nodes too before all is said to be well
    nodes = await _awaited(client, done, patience) if wait and done.version >= 0 else Awaited()
    restored = await take_back(client, done) if nodes.is_bad and rollback_on_error and done.changes else None
    _tell(done, nodes, restored, wanted)
    if restored is not None and wanted is Format.TEXT:
        print(f"taken back: v{restored} has the entries of v{done.version - 1} again; {await _seen(client, restored)}")
    if nodes.is_bad:
        raise Failed("", code=1)


@dataclass(frozen=True)
class Awaited:
    """What became of a push on each node, in one line too; nothing when nobody waited."""

    outcomes: Sequence[Outcome] = ()
    says: str = ""
    is_bad: bool = False


async def _awaited(client: Client, done: Pushed, timeout: float) -> Awaited:
    """Wait for the nodes; what is wrong is told."""
    from cluster.errors import ClusterError

    try:
        outcomes, took = await settle(client, done.version, timeout, tell_progress)
    except ClusterError as error:
        tell(f"v{done.version} is there, but whether the nodes have it can't be told: {error}")
        return Awaited(is_bad=True)
    except asyncio.CancelledError:
        note(f"v{done.version} is there, and the nodes go on with it; `wippy registry rollback` takes it back")
        raise
    return Awaited(outcomes, told(outcomes, took), tell_troubles(outcomes))


async def _seen(client: Client, version: int) -> str:
    """Where a version is that takes another back; the nodes get a short time for it."""
    from cluster.errors import ClusterError

    try:
        return told(*await settle(client, version, _BACK_SECONDS))
    except ClusterError as error:
        return f"whether the nodes have it can't be told: {error}"


def _show_conflict(error: Exception) -> None:
    """Show both sides of a conflict. Raises Failed in its place."""
    from cluster.registry.publish import PushConflict

    if isinstance(error, PushConflict):
        show_changes(from_files(error.conflicts), "registry", "files")
        raise Failed(f"{error}; nothing was pushed: say --take files or --take cluster") from None


def _tell(done: Pushed, nodes: Awaited, restored: int | None, format: Format) -> None:
    if format is Format.JSON:
        show_json(
            {
                "version": done.version,
                "created": done.created,
                "changes": ids_by_sort(done.changes),
                "nodes": [outcome_value(each) for each in nodes.outcomes],
                "restored": restored,
            }
        )
        return
    print(f"{pushed(done)}; {nodes.says}" if nodes.says else pushed(done))
    if done.keeps_code:
        note("running processes keep their code until they upgrade themselves or are started anew")


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
    created: bool = False
    changes: Sequence[EntryChange] = ()
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

    async with opened(client, empty=True) as registry:
        if careful:
            check_deletions(registry.state, project.entries)
        try:
            result = await registry.publish(
                project.entries, "always", message=message, take=Take(take) if take else None, prune=prune
            )
        except Invalid as invalid:
            raise Invalid([project.locate(problem) for problem in invalid.problems]) from None
    changes = tuple(between(result.before, result.after))
    return Pushed(result.version, result.created, changes, any(_keeps_code(each) for each in changes))


def _keeps_code(change: EntryChange) -> bool:
    """Whether processes may run that have the code of before."""
    return change.before is not None and change.before.kind in _RUNNING_CODE


async def take_back(client: Client, done: Pushed) -> int | None:
    """Undo a push as a new version, unless others changed the registry since. Says why when that can't be."""
    from cluster.errors import ClusterError, RegistryConflict

    if done.created:
        note(f"v{done.version} is the first version: there is nothing to go back to")
        return None
    former = done.version - 1
    try:
        async with opened(client) as registry:

            def permit(changes: Changeset) -> None:
                if registry.state.version != done.version:
                    raise RegistryConflict(registry.state.version, [])

            why = f"back to version {former}: not all nodes could use v{done.version}"
            return (await registry.rollback(former, message=why, permit=permit)).version
    except RegistryConflict as conflict:
        tell(f"not taken back: v{conflict.head} came since; `wippy registry rollback v{former}` undoes that too")
    except ClusterError as error:
        tell(f"not taken back: {error}; `wippy registry rollback v{former}` does it")
    return None


def check_deletions(state: RegistryState, files: Sequence[Entry]) -> None:
    """Raises TooManyDeletions when ``files`` lack more than half of the entries that came from files."""
    from cluster.registry.entry import Origin

    owned = {id for id, entry in state.base.items() if entry.origin is Origin.FILES}
    deleted = owned - {entry.id for entry in files}
    if len(deleted) >= _FEW and 2 * len(deleted) > len(owned):
        raise TooManyDeletions(len(deleted), len(owned))


async def _rehearse(client: Client, project: Project, take: str | None, prune: bool, format: Format) -> None:
    """What a push would do, and what the nodes would say to it. Raises Failed when it would be refused."""
    from cluster.errors import Invalid
    from cluster.registry.publish import PushConflict, Take, plan_push

    async with opened(client, empty=True) as registry:
        state = registry.state
    try:
        plan = plan_push(state, project.entries, Take(take) if take else None, prune=prune)
    except PushConflict as conflict:
        if format is Format.JSON:
            changes = from_files(conflict.conflicts)
            show_json({"version": None, "changes": [as_value(each) for each in changes], "problems": [str(conflict)]})
            raise Failed("", code=1) from None
        _show_conflict(conflict)
        raise
    after = state.advance(plan, state.version + 1)
    changes = between(state, after)
    problems = [project.locate(problem) for problem in [*plan.problems(state.base), *check(after)]] if plan else []
    if format is Format.JSON:
        version = None if problems or not changes else after.version
        show_json(
            {
                "version": version,
                "changes": [as_value(each) for each in changes],
                "problems": [problem.as_dict() for problem in problems],
            }
        )
    else:
        show_changes(changes, f"v{state.version}" if state.version >= 0 else "nothing", "files")
    if problems:
        raise Invalid(problems)
    if format is Format.TEXT:
        would = f"a push would make v{after.version}: {summary(changes)}; nothing was changed"
        print(would if changes else f"nothing to push: the registry has it all (v{state.version})")


def pushed(done: Pushed) -> str:
    """What a push did, in one line."""
    if done.created:
        return f"pushed v{done.version}: the registry starts with {len(done.changes)} entries"
    if not done.changes:
        return f"nothing to push: the registry has it all (v{done.version})"
    return f"pushed v{done.version}: {summary(done.changes)}"
