"""The verb ``wippy tree``: supervisors and their children, drawn across nodes.

Every node tells of the supervisors it runs; they are put together by their PIDs. A branch whose node
does not answer is drawn as far as its supervisor knows it, and says so. Services stand beside the trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from node.cli.console import Format, note, paint, printable, show_json
from node.cli.gateway import AsJson, Listing, listing, tell_silent

if TYPE_CHECKING:
    from cluster.client import Client

STYLES = {"running": "", "starting": "yellow", "restarting": "yellow", "stopping": "yellow", "down": "dim"}


async def tree(client: Client, format: Listing = Format.TEXT, as_json: AsJson = False) -> None:
    """The supervision trees of the cluster, and the services beside them."""
    told, services = await client.trees(), await client.services()
    rows = [row for node in sorted(told.by_node) for row in told.by_node[node]]
    roots = grown(rows, told.silent) + list(alone(services.by_node, rows))
    if listing(format, as_json) is Format.JSON:
        show_json(roots)
    elif not roots:
        note("no supervisors and no services")
    else:
        paint([line for root in roots for line in drawn(root)])
    tell_silent(told)


def grown(rows: Sequence[Mapping[str, Any]], silent: Mapping[str, str]) -> list[dict[str, Any]]:
    """The trees in what the nodes told: supervisors, each with its ``children``; those that are supervisors too have
    theirs in turn. ``no_answer`` marks a child whose node is among the ``silent``."""
    branches = {row["pid"]: {**row, "children": []} for row in rows if "of" not in row}
    below: set[str] = set()
    for row in rows:
        branch = branches.get(row.get("of", ""))
        if branch is None:
            continue
        child = {key: value for key, value in row.items() if key != "of"}
        if row.get("node") in silent:
            child["no_answer"] = True
        inner = branches.get(row.get("pid", ""))
        if inner is not None:
            child["supervisor"] = inner
            below.add(inner["pid"])
        branch["children"].append(child)
    return [branch for pid, branch in branches.items() if pid not in below]


def alone(
    services: Mapping[str, Sequence[Mapping[str, Any]]], rows: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The services that are no supervisors, each as the node that runs it says."""
    supervisors = {row["pid"] for row in rows if "of" not in row} | {row["entry"] for row in rows if "of" not in row}
    nested = {row["process"] for row in rows if row.get("type") == "supervisor"}
    known: dict[tuple[str, int, str], dict[str, Any]] = {}
    for node, some in services.items():
        for service in some:
            key = (service["service"], service["replica"], service["node"] or "")
            if service["node"] == node or key not in known:
                known[key] = dict(service)
    for key in sorted(known):
        service = known[key]
        if service["state"] == "stopped" and service["service"] in nested:
            continue  # it runs, or may, as the child of another
        if service["service"] not in supervisors and service.get("pid") not in supervisors:
            yield service


def drawn(root: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines of one tree, each with its style."""
    if "service" in root:
        place = " ".join(str(root[key]) for key in ("pid", "node") if root.get(key))
        yield f"{printable(root['service'])}  service  {root['state']}  {printable(place)}", ""
        return
    yield f"{_supervisor(root)}", "bold"
    yield from _below(root, "")


def _below(branch: Mapping[str, Any], indent: str) -> Iterator[tuple[str, str]]:
    children = branch["children"]
    for position, child in enumerate(children):
        is_last = position == len(children) - 1
        style = "red" if child.get("no_answer") else STYLES.get(child["state"], "red")
        yield f"{indent}{'└─' if is_last else '├─'} {_child(child)}", style
        if "supervisor" in child:
            yield from _below(child["supervisor"], f"{indent}{'   ' if is_last else '│  '}")


def _supervisor(branch: Mapping[str, Any]) -> str:
    ending = "  ending" if branch.get("is_ending") else ""
    return f"{printable(branch['entry'])}  {branch['strategy']}{ending}  {printable(branch['pid'])}{_restarts(branch)}"


def _child(child: Mapping[str, Any]) -> str:
    inner = child.get("supervisor")
    what = f"  {inner['strategy']}" if inner is not None else ""
    pid = printable(child.get("pid", ""))
    text = f"{printable(child['id'])}  {printable(child['process'])}{what}  {child['state']}"
    text += f"  {pid}" if pid else ""
    if child.get("waits_for"):
        text += f"  ({printable(child['waits_for'])})"
    if child.get("no_answer"):
        text += f"  (node {printable(str(child['node']))} does not answer)"
    error = str(child.get("last_error") or "")
    if error and child["state"] != "running":
        text += f"  {printable(error.splitlines()[0][:100])}"
    return text + _restarts(child)


def _restarts(one: Mapping[str, Any]) -> str:
    return f"  restarts={one['restarts']}" if one.get("restarts") else ""
