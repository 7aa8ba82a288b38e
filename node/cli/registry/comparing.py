"""``wippy registry diff``: files against the cluster, one version against another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.console import Format, note, show_json
from node.cli.failures import Failed
from node.cli.gateway import AsJson, Listing, listing
from node.cli.registry.changes import EntryChange, as_value, between, from_files, summary
from node.cli.registry.drawing import show_changes
from node.cli.registry.opening import Overrides, loaded, opened, state_at, version_or_none

if TYPE_CHECKING:
    from cluster.client import Client


async def diff(
    client: Client,
    sides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[APP|VERSION [VERSION]]",
            help="A directory: its files against the cluster. v3: that version against now. v3 v5: one against the "
            "other",
        ),
    ] = None,
    override: Overrides = None,
    headings: Annotated[bool, typer.Option("--summary", help="Only which entries differ, not how")] = False,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """What a push of the files would change, or what changed between versions.

    Exit code 0: no difference, 1: there is one (or an error, told on stderr), 2: wrong usage.
    """
    given = list(sides or ["."])
    if versions_meant(given):
        left, right, changes = await _versions(client, given)
    else:
        left, right, changes = await _files(client, Path(given[0]), override)
    if listing(format, as_json) is Format.JSON:
        show_json({"from": left, "to": right, "changes": [as_value(each) for each in changes]})
    else:
        show_changes(changes, left, right, headings_only=headings)
    if changes:
        note(f"{left} -> {right}: {summary(changes)}")
        raise Failed("", code=1)
    note("files and registry agree" if right == "files" else f"{left} and {right} have the same entries")


def versions_meant(sides: Sequence[str]) -> bool:
    """Whether versions are compared, not files. Raises Failed (wrong usage) when it is neither.

    ``v3`` is a version also where a directory has that name: that one is ``./v3``.
    """
    numbers = [version_or_none(side) for side in sides]
    if None not in numbers and len(sides) <= 2:
        return True
    if len(sides) == 1:
        return False
    raise Failed(f"expected a directory, or one or two versions such as v3 v5, got {' '.join(sides)}", code=2)


async def _versions(client: Client, versions: Sequence[str]) -> tuple[str, str, list[EntryChange]]:
    async with opened(client) as registry:
        before = await state_at(registry, versions[0])
        after = await state_at(registry, versions[1] if len(versions) > 1 else None)
    return f"v{before.version}", f"v{after.version}", between(before, after)


async def _files(client: Client, app: Path, override: list[str] | None) -> tuple[str, str, list[EntryChange]]:
    from cluster.registry.publish import differences

    project = loaded(app, override)
    async with opened(client) as registry:
        return f"v{registry.state.version}", "files", from_files(differences(registry.state, project.entries))
