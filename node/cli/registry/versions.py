"""``wippy registry history`` and ``rollback``: the versions, and the way back to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import Format, note, show
from node.cli.failures import Failed
from node.cli.gateway import AsJson, Listing, Timeout, listing, seconds, warn_silent
from node.cli.registry.opening import Message, opened, version_number
from node.cli.registry.settling import settle, tell_progress, tell_troubles, told

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.registry.record import VersionInfo

LIMIT = 20


async def history(
    client: Client,
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="So many, the newest; 0 for all")] = LIMIT,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """The versions: who changed what, when and why, and which nodes have applied which."""
    async with opened(client) as registry:
        versions = await registry.versions()
        head = registry.state.version
    nodes, silent = await _nodes(client)
    shown = versions[-limit:] if limit else versions
    rows = [_row(each, head, nodes) for each in reversed(shown)]
    columns = {"version": "VERSION", "time": "TIME", "author": "AUTHOR", "where": "FROM", "changed": "CHANGED"}
    columns |= {"nodes": "NODES"}
    if any(row["overlay"] for row in rows):
        columns |= {"overlay": "OVERLAY OF"}
    columns |= {"message": "MESSAGE"}
    show(
        rows,
        columns,
        listing(format, as_json),
        empty="no versions",
        whole=("version", "time"),
        spare=("where", "message"),
    )
    listed = {each.version for each in shown}
    for node, version in sorted(nodes.items()):
        if version not in listed:
            note(f"{node} is at v{version}")
    if len(shown) < len(versions):
        note(f"{len(versions) - len(shown)} earlier versions; --limit 0 shows all")
    warn_silent(silent)


async def _nodes(client: Client) -> tuple[dict[str, int], dict[str, str]]:
    """The version each node has applied, and why some don't say."""
    from cluster.errors import ClusterError

    try:
        answers = await client.ask_all("health")
    except ClusterError as error:
        note(f"which nodes have which version can't be told: {error}")
        return {}, {}
    return {node: int(health["converged_version"]) for node, health in answers.by_node.items()}, answers.silent


def _row(each: VersionInfo, head: int, nodes: dict[str, int]) -> dict[str, Any]:
    return {
        "version": f"v{each.version}",
        "time": each.time.astimezone().isoformat(" ", "seconds"),
        "author": each.author,
        "where": each.where,
        "changed": each.changed,
        "nodes": sorted(node for node, version in nodes.items() if version == each.version),
        "overlay": each.overlay,
        "entries": list(each.entries),
        "message": each.message,
        "current": each.version == head,
    }


async def rollback(
    client: Client,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="e.g. v3; the one before the current without")
    ] = None,
    message: Message = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every ready node has it")] = True,
    timeout: Timeout = "30s",
) -> None:
    """Bring the entries of an earlier version back, as a new version, on all nodes."""
    patience = seconds(timeout)
    number = version_number(version) if version is not None else None
    async with opened(client) as registry:
        wanted = number if number is not None else registry.state.version - 1
        if wanted < 0:
            raise Failed("there is no version before v0")
        done = await registry.rollback(wanted, message=message)
    if not done.changed:
        print(f"nothing to do: v{done.version} has the entries of v{done.restored}")
        _tell_overlays(done.overlays)
        return
    seen, is_bad = "", False
    if wait:
        outcomes, took = await settle(client, done.version, patience, tell_progress)
        seen, is_bad = f"; {told(outcomes, took)}", tell_troubles(outcomes)
    print(f"rolled back: v{done.version} has the entries of v{done.restored} ({done.changed} changed){seen}")
    _tell_overlays(done.overlays)
    note("the files still say what they said: the next push or saved file brings that back")
    if is_bad:
        raise Failed("", code=1)


def _tell_overlays(overlays: Sequence[str]) -> None:
    if overlays:
        note(f"what operators laid over entries stays on top: {', '.join(overlays)} (`wippy config list`)")
