"""``wippy top``: the nodes and what they do, looked at again and again.

Rates are differences of two looks at the counters of a node, by the node's own clock. A node that does not
answer stays in the list, as silent; one that was started anew has no rates until the next look.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import Format, ago, note, printable, show, show_json
from node.cli.failures import Failed
from node.cli.gateway import AsJson, Listing, listing, seconds

if TYPE_CHECKING:
    from rich.console import Group

    from cluster.client import Answers, Client
    from cluster.members import Member

_UNITS = ("B", "K", "M", "G", "T")
_STYLES = {"ready": "green", "silent": "red", "joining": "yellow", "cordoned": "yellow", "draining": "yellow"}
_BUSIEST = 10


async def top(
    client: Client,
    once: Annotated[bool, typer.Option("--once", help="Show one frame and end")] = False,
    interval: Annotated[str, typer.Option("--interval", metavar="DURATION", help="Between two looks")] = "1s",
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """What the nodes do, live: CPU, memory, processes, messages, queues, services. Ctrl-C ends it."""
    pause = seconds(interval)
    before = await _look(client, pause)
    asked = listing(format, as_json)
    if once or asked is Format.JSON or not sys.stdout.isatty():
        await asyncio.sleep(pause)
        rows = await _frame(client, before, pause)
        if asked is Format.JSON:
            show_json(rows)
        else:
            _print(client.cluster, rows)
        if not any(row["state"] != "silent" for row in rows):
            raise Failed(f"no node of cluster {client.cluster!r} answers")
        return
    await _live(client, before, pause)


async def _live(client: Client, before: Mapping[str, Any], pause: float) -> None:
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:
        try:
            while True:
                await asyncio.sleep(pause)
                rows = await _frame(client, before, pause)
                before = {row["node"]: row["told"] for row in rows if row["told"]}
                live.update(_drawn(client.cluster, rows), refresh=True)
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _look(client: Client, pause: float) -> dict[str, Any]:
    """What every node that answers tells of itself."""
    return (await _stats(client, pause)).by_node


async def _stats(client: Client, pause: float) -> Answers:
    from cluster.client import Answers
    from cluster.errors import Unavailable

    try:
        return await client.ask_all("stats", timeout=max(pause, 1.0))
    except Unavailable as error:
        members = await client.nodes()
        return Answers({}, {member.node: str(error) for member in members})


async def _frame(client: Client, before: Mapping[str, Any], pause: float) -> list[dict[str, Any]]:
    members, answers = await asyncio.gather(client.nodes(), _stats(client, pause))
    return frame(members, before, answers.by_node, answers.silent)


def frame(
    members: Sequence[Member], before: Mapping[str, Any], told: Mapping[str, Any], silent: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A row for each registered node; the rates of what it ``told`` since ``before``."""
    return [_row(member, before.get(member.node), told.get(member.node), silent) for member in members]


def _row(
    member: Member, before: Mapping[str, Any] | None, told: Mapping[str, Any] | None, silent: Mapping[str, str]
) -> dict[str, Any]:
    row: dict[str, Any] = {"node": member.node, "state": member.state.value, "told": told}
    if told is None:
        return {**row, "state": "silent", "problem": silent.get(member.node, "no answer")}
    row |= {key: told[key] for key in ("resident", "processes", "mailbox", "run_queue", "services", "up", "hosts")}
    passed = told["at"] - before["at"] if before and before["incarnation"] == told["incarnation"] else 0.0
    if before is None or passed <= 0:
        return row
    row["cpu"] = (told["cpu_seconds"] - before["cpu_seconds"]) / passed
    for path, count in told["messages"].items():
        row[path] = max(count - before["messages"].get(path, 0), 0) / passed
    lost, former = sum(told["dead_letters"].values()), sum(before["dead_letters"].values())
    return {**row, "dead_letters": max(lost - former, 0) / passed}


_COLUMNS = {
    "node": "NODE", "state": "STATE", "up": "UP", "cpu": "CPU", "resident": "MEMORY", "processes": "PROCESSES",
    "local": "LOCAL/S", "remote_in": "IN/S", "remote_out": "OUT/S", "dead_letters": "DEAD/S", "mailbox": "QUEUED",
    "run_queue": "TO RUN", "services": "SERVICES",
}  # fmt: skip


def cell(key: str, row: Mapping[str, Any]) -> str:
    """The text of a column for a row."""
    value = row.get(key)
    if value is None:
        return printable(row.get("problem", "-")) if key == "services" and "problem" in row else "-"
    match key:
        case "up":
            return ago(value)
        case "cpu":
            return f"{value * 100:.0f}%"
        case "resident":
            return _bytes(value)
        case "local" | "remote_in" | "remote_out" | "dead_letters":
            return f"{value:,.0f}"
        case "services":
            return _services(value)
        case _:
            return printable(str(value))


def _services(counts: Mapping[str, int]) -> str:
    """How many run, and what else there is of them."""
    rest = [f"{count} {state}" for state, count in sorted(counts.items()) if state != "running"]
    return ", ".join([str(counts.get("running", 0)), *rest])


def _bytes(number: float) -> str:
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.0f}{_UNITS[unit]}"


def _hosts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The hosts with the most to do, on all nodes."""
    hosts = [{**host, "node": row["node"]} for row in rows for host in row.get("hosts") or ()]
    hosts = [host for host in hosts if host["processes"]]
    return sorted(hosts, key=lambda host: (-host["busy"], -host["mailbox"], -host["processes"]))[:_BUSIEST]


_HOST_COLUMNS = {
    "host": "HOST", "node": "NODE", "busy": "BUSY", "processes": "PROCESSES", "mailbox": "QUEUED", "memory": "MEMORY",
}  # fmt: skip


def _host(host: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a host's columns."""
    told = {key: printable(str(host[key])) for key in _HOST_COLUMNS}
    return {**told, "busy": f"{host['busy'] * 100:.0f}%", "memory": _bytes(host["memory"])}


def _title(cluster: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of the nodes that are meant to be there, by the settings of those that answer, are ready."""
    ready = sum(row["state"] == "ready" for row in rows)
    expected = max((int(row["told"].get("expected_nodes", 1)) for row in rows if row["told"]), default=1)
    return f"cluster {cluster}   {ready} of {max(expected, len(rows))} nodes ready   {time.strftime('%H:%M:%S')}"


def _drawn(cluster: str, rows: Sequence[Mapping[str, Any]]) -> Group:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    nodes = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for key, heading in _COLUMNS.items():
        nodes.add_column(heading, justify="left" if key in ("node", "state", "services") else "right")
    for row in rows:
        nodes.add_row(*(Text(cell(key, row), _STYLES.get(str(row.get(key)), "")) for key in _COLUMNS))
    hosts = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for key, heading in _HOST_COLUMNS.items():
        hosts.add_column(heading, justify="left" if key in ("host", "node") else "right")
    for host in _hosts(rows):
        hosts.add_row(*map(Text, _host(host).values()))
    return Group(Text(_title(cluster, rows), "bold"), nodes, *([hosts] if hosts.row_count else []))


def _print(cluster: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """One frame; into a pipe plain columns of the nodes and, after an empty line, of the hosts."""
    from rich.console import Console

    if not rows:
        note(f"cluster {cluster!r} has no nodes; start one with `wippy run`")
    elif sys.stdout.isatty():
        Console(highlight=False).print(_drawn(cluster, rows))
    else:
        note(_title(cluster, rows))
        show([{key: cell(key, row) for key in _COLUMNS} for row in rows], _COLUMNS, Format.TEXT)
        if hosts := [_host(host) for host in _hosts(rows)]:
            print()
            show(hosts, _HOST_COLUMNS, Format.TEXT)
