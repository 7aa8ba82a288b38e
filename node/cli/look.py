"""Verbs that look: nodes, ps, names, locks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import Format, ago, note, show
from node.cli.failures import Failed
from node.cli.gateway import AsJson, Listing, listing, tell_silent
from node.cli.places import find_file, read_place

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.members import Member

_SCOPES = {0: "local", 1: "eventual", 2: "consistent", 3: "strong"}


async def nodes(client: Client, format: Listing = Format.TEXT, as_json: AsJson = False) -> None:
    """The nodes: state, processes, registry version, where their metrics are."""
    from cluster.client import Answers
    from cluster.errors import Unavailable

    members = await client.nodes()
    unreachable = ""
    try:
        health = await client.ask_all("health")
    except Unavailable as error:  # what etcd knows is worth showing all the same
        unreachable = str(error)
        health = Answers({}, {member.node: "NATS does not answer" for member in members})
    rows = [_node(member, health.by_node.get(member.node), health.silent.get(member.node)) for member in members]
    rows += list(gone(client.cluster, {member.node for member in members}))
    columns = {"node": "NODE", "state": "STATE", "processes": "PROCESSES", "registry": "REGISTRY", "up": "UP"}
    columns |= {"labels": "LABELS", "pid": "OS PID", "metrics": "METRICS", "problem": "PROBLEM"}
    columns = {key: heading for key, heading in columns.items() if any(row.get(key) for row in rows) or key == "node"}
    empty = f"cluster {client.cluster!r} has no nodes; start one with `wippy run`"
    show(rows, columns, listing(format, as_json), empty=empty, whole=("node", "state"), spare=("up", "pid", "labels"))
    if unreachable:
        raise Failed(unreachable)


def _node(member: Member, health: dict[str, Any] | None, silence: str | None) -> dict[str, Any]:
    seen = health or {}
    return {
        "node": member.node,
        "state": "silent" if silence else member.state.value,
        "processes": seen.get("processes"),
        "registry": None if (version := seen.get("registry_version")) is None else f"v{version}",
        "up": _up(member.started),
        "metrics": f"http://{member.http}/metrics" if member.http else None,
        "epoch": member.epoch,
        "incarnation": member.incarnation,
        "labels": dict(member.labels),
        "version": member.version,
        "pid": seen.get("os_pid"),
        "problem": silence or "; ".join(seen.get("unready", ())),
    }


def _up(started: str) -> str | None:
    """How long ago an ISO time was."""
    try:
        return ago((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds())
    except (ValueError, TypeError):
        return None


def _since(started: Any) -> str | None:
    """How long ago a moment in nanoseconds was."""
    return ago(time.time() - started / 1e9) if isinstance(started, int) else None


def gone(cluster: str, present: set[str]) -> Iterator[dict[str, Any]]:
    """Nodes of the development cluster here, when ``cluster`` is that one, that are registered no more."""
    file = find_file(Path.cwd())
    try:
        found = read_place(file) if file is not None else None
    except Failed:
        return  # the cluster was found without it
    if found is None or found.cluster != cluster:
        return
    for node in found.nodes:
        if node["name"] not in present:
            yield {"node": node["name"], "state": "gone"}


async def ps(
    client: Client,
    on: Annotated[str | None, typer.Option("--on", metavar="NODE", help="Only processes of this node")] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="ID", help="Only processes of this host")] = None,
    entry: Annotated[str | None, typer.Option("--entry", metavar="ID", help="Only processes of this entry")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="At most so many, per node")] = None,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """The processes of all nodes, and which version of the registry the code of each is from."""
    if on is not None:
        await client.member(on)
    answers, names = await client.ps(limit=limit, host=host, entry=entry), await client.names()
    named: dict[str, set[str]] = {}
    for held in names.by_node.values():
        for name in held:
            named.setdefault(name["pid"], set()).add(name["name"])
    rows = [
        {"node": node, **process, "names": sorted(named.get(process["pid"], ())), "up": _since(process.get("started"))}
        for node, processes in sorted(answers.by_node.items())
        for process in processes
        if on in (None, node)
    ]
    for row in rows:
        row["code"] = f"v{row['version']}" if isinstance(row.get("version"), int) else None
    columns = {"pid": "PID", "entry": "ENTRY", "node": "NODE", "code": "CODE", "names": "NAMES", "state": "STATE"}
    columns |= {"mailbox": "MAILBOX", "up": "UP"}
    show(rows, columns, listing(format, as_json), empty="no processes", whole=("pid", "names"), spare=("up", "mailbox"))
    left_out = sum(total for node, total in answers.totals.items() if on in (None, node)) - len(rows)
    if limit is not None and left_out > 0:
        note(f"{left_out} more; a higher --limit shows them")
    tell_silent(answers, on)


async def names(client: Client, format: Listing = Format.TEXT, as_json: AsJson = False) -> None:
    """The registered names, and the processes that hold them."""
    answers = await client.names()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for node, held in answers.by_node.items():
        for name in held:
            scope = _SCOPES.get(name.get("scope"), str(name.get("scope")))
            known_on = node if scope == "local" else ""
            rows[name["name"], known_on] = {**name, "scope": scope, "node": known_on or None}
    columns = {"name": "NAME", "pid": "PID", "scope": "SCOPE", "node": "KNOWN ON"}
    ordered = [rows[key] for key in sorted(rows)]
    show(ordered, columns, listing(format, as_json), empty="no names are registered", whole=("name", "pid"))
    tell_silent(answers)


async def locks(client: Client, format: Listing = Format.TEXT, as_json: AsJson = False) -> None:
    """The locks that are held, the processes that hold them, and their fencing tokens."""
    answers = await client.locks()
    rows: dict[str, dict[str, Any]] = {}
    for held in answers.by_node.values():
        for lock in held:
            known = rows.get(lock["lock"])
            if known is None or known["token"] < lock["token"]:  # who saw the later holder knows more
                rows[lock["lock"]] = lock
    columns = {"lock": "LOCK", "pid": "PID", "token": "TOKEN"}
    ordered = [rows[name] for name in sorted(rows)]
    show(ordered, columns, listing(format, as_json), empty="no locks are held", whole=("lock", "pid"))
    tell_silent(answers)
