"""``wippy services``: what is to run, who has it, and why something runs nowhere.

Every node tells of its own replicas, of those others have claimed, and of those nobody has. A replica's own node
knows it best; where that node is silent, what its claim says is shown, and that nothing more is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import Format, ago, note, show
from node.cli.gateway import AsJson, Listing, listing, tell_silent

if TYPE_CHECKING:
    from cluster.client import Client

_NOWHERE = ("unplaced", "quarantined")
_WELL = ("running", "exited", "stopped")
_COLUMNS = {
    "service": "SERVICE", "replica": "REPLICA", "node": "NODE", "state": "STATE", "pid": "PID", "claim": "CLAIM",
    "up": "UP", "restarts": "RESTARTS", "why": "WHY",
}  # fmt: skip


async def services(
    client: Client,
    on: Annotated[str | None, typer.Option("--on", metavar="NODE", help="Only replicas of this node")] = None,
    troubled: Annotated[
        bool, typer.Option("--troubled", help="Only those that do not run, and those that nobody has")
    ] = False,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """The services: which node has each, its state, and why one does not run."""
    if on is not None:
        await client.member(on)
    answers = await client.services()
    rows = merged(answers.by_node, answers.silent)
    rows = [row for row in rows if on in (None, row["node"]) and not (troubled and row["state"] in _WELL)]
    asked = listing(format, as_json)
    columns = {key: heading for key, heading in _COLUMNS.items() if _is_told(key, rows)}
    shown = rows if asked is Format.JSON else [_short(row) for row in rows]
    nothing = "no services" if on is None and not troubled else "no such services"
    show(shown, columns, asked, empty=nothing, whole=("service", "pid"), spare=("up", "claim", "restarts"))
    waiting = sum(row["state"] in _NOWHERE for row in rows)
    if waiting and asked is Format.TEXT:
        note(f"{waiting} run nowhere")
    tell_silent(answers)


def merged(by_node: Mapping[str, list[dict[str, Any]]], silent: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for each replica and node that has it, and one for each replica that nobody has."""
    rows: dict[tuple[str, int, str], dict[str, Any]] = {}
    for node, told in by_node.items():
        for row in told:
            key = (row["service"], row["replica"], row["node"])
            if row["node"] == node or key not in rows:  # what others know of a replica gives way to its own node
                rows[key] = {**row, "why": row.get("why") or _why(row, silent)}
    had = {(service, replica) for service, replica, node in rows if node}
    return [rows[key] for key in sorted(rows) if key[2] or key[:2] not in had]


def _why(row: Mapping[str, Any], silent: Mapping[str, str]) -> str:
    """What keeps it from running, as far as the row tells."""
    if row["node"] in silent:
        return f"{row['node']} did not answer: this is what its claim says"
    if row.get("waits_for"):
        return f"waits for {row['waits_for']}"
    return "" if row["state"] in _WELL else str(row.get("last_error") or "")


def _is_told(key: str, rows: list[dict[str, Any]]) -> bool:
    if key == "replica":
        return any(row["replica"] for row in rows)
    if key in ("up", "claim"):
        return any(row.get("since" if key == "up" else key) for row in rows)
    return key != "why" or any(row["why"] for row in rows)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """The row for people: of a reason the first line, which tells enough."""
    import time

    why = row["why"].strip().partition("\n")[0]
    up = ago(time.time() - row["since"]) if row.get("since") and row["state"] == "running" else None
    return {**row, "why": why or None, "up": up, "node": row["node"] or None, "pid": row["pid"] or None}
