"""``wippy dead-letters``: the messages nobody took, node by node."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import Format, note, show
from node.cli.gateway import AsJson, Listing, listing, tell_silent

if TYPE_CHECKING:
    from cluster.client import Client

_SHOWN = 50


async def dead_letters(
    client: Client,
    on: Annotated[str | None, typer.Option("--on", metavar="NODE", help="Only those of this node")] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="REASON", help="Only those for this reason")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="At most so many, the newest")] = _SHOWN,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """The messages nobody took, the newest last: when, why, for whom and from whom."""
    if on is not None:
        await client.member(on)
    answers = await client.dead_letters(limit=limit, reason=reason)
    found = [
        {**letter, "node": node} for node, kept in answers.by_node.items() for letter in kept if on in (None, node)
    ]
    newest = sorted(found, key=lambda letter: letter["at"])[-limit:]
    rows = [{**letter, "time": _moment(letter["at"])} for letter in newest]
    columns = {"time": "TIME", "node": "NODE", "reason": "REASON", "to": "TO", "topic": "TOPIC", "sender": "FROM"}
    if any(row["name"] for row in rows):
        columns["name"] = "BY NAME"
    empty = "no dead letters"
    if reason is not None and not rows:
        empty = f"no dead letters for the reason {reason!r}; {await _reasons(client, on)}"
    show(rows, columns, listing(format, as_json), empty=empty, whole=("to",), spare=("sender", "time"))
    left_out = sum(total for node, total in answers.totals.items() if on in (None, node)) - len(rows)
    if left_out > 0:
        note(f"{left_out} older ones; a higher --limit shows them")
    tell_silent(answers, on)


async def _reasons(client: Client, on: str | None) -> str:
    """For what reasons there are some."""
    kept = await client.dead_letters()
    told = {letter["reason"] for node, letters in kept.by_node.items() for letter in letters if on in (None, node)}
    return f"there are some for {', '.join(sorted(told))}" if told else "there are none for another one either"


def _moment(at: Any) -> str:
    return datetime.fromtimestamp(float(at), UTC).strftime("%Y-%m-%d %H:%M:%S")
