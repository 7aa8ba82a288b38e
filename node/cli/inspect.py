"""``wippy inspect``: everything its node knows of one process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.pid import Pid, is_pid
from node.cli.console import Format, ago, show_json, shown
from node.cli.failures import Failed
from node.cli.gateway import AsJson, Listing, Timeout, listing, seconds, target_argument

if TYPE_CHECKING:
    from cluster.client import Client

NOPROC = "noproc"
SUPERVISOR = "process.supervisor"
_WHERE = "`wippy names` shows the names, `wippy services` the PIDs of services"
_UNITS = ("B", "KiB", "MiB", "GiB")
_STATES = {"ready": "can run", "idle": "waits for a message", "blocked": "waits"}


async def inspect(
    client: Client,
    target: Annotated[
        str, typer.Argument(metavar="PID|NAME", help="A PID such as '{node-1@app:processes|1-2a}', or a name")
    ],
    timeout: Timeout = "5s",
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """What is known of one process: code, state, memory, mailbox, names, links, timers."""
    deadline, target = seconds(timeout), target_argument(target)
    pid = Pid.parse(target if is_pid(target) else await _holder(client, target, deadline))
    detail = await _ask(client, pid, deadline)
    if listing(format, as_json) is Format.JSON:
        show_json(detail)
        return
    width = max(map(len, (labels := _labelled(detail))))
    for label, value in labels.items():
        print(f"{label:<{width}}  {value}")


async def _holder(client: Client, name: str, timeout: float) -> str:
    answers = await client.names(timeout=timeout)
    for held in answers.by_node.values():
        for one in held:
            if one["name"] == name:
                return str(one["pid"])
    if answers.silent:
        silent = "; ".join(f"{node} did not answer: {reason}" for node, reason in sorted(answers.silent.items()))
        raise Failed(f"nothing is known of the name {name!r}: no node that answers has it, and {silent}")
    raise Failed(f"{NOPROC}: no process is registered as {name!r}; {_WHERE}")


async def _ask(client: Client, pid: Pid, timeout: float) -> dict[str, Any]:
    """What the node that has it answers: the one it was born on, or else another.

    Raises Failed when the process, or the node, is not there.
    """
    from cluster.client import NoNodes, QueryFailed
    from cluster.errors import CallTimeout, Unavailable

    try:
        detail: dict[str, Any] = await client.ask(pid.node, "inspect", pid=str(pid), timeout=timeout)
        return {**detail, "node": pid.node}
    except NoNodes as error:
        failed = Failed(f"{NOPROC}: the node of {pid} is gone: {error}")
    except QueryFailed as error:
        if error.code != NOPROC:
            raise
        failed = Failed(f"{NOPROC}: {error.message}: it ended or never was; `wippy ps` shows what lives")
    except (CallTimeout, Unavailable) as error:
        failed = Failed(f"node {pid.node} does not answer, so nothing is known of {pid}: {error}")
    return await _elsewhere(client, pid, timeout, failed)


async def _elsewhere(client: Client, pid: Pid, timeout: float, failed: Failed) -> dict[str, Any]:
    """What another node knows of a process that has moved there. Raises ``failed`` when none has it."""
    from cluster.errors import Unavailable

    try:
        answers = await client.ask_all("inspect", pid=str(pid), timeout=timeout)
    except Unavailable:
        raise failed from None
    for node, detail in answers.by_node.items():
        return {**detail, "node": node}
    raise failed


def _labelled(detail: dict[str, Any]) -> dict[str, str]:
    """The facts by label, in the order people ask for them."""
    if detail["kind"] == SUPERVISOR:
        return _supervisor(detail)
    began = detail.get("started")
    options = [name for name in ("trap_links", "upgradable", "migratable") if detail.get(name)]
    memory = _bytes(detail["memory"]) if detail.get("memory_complete") else f"more than {_bytes(detail['memory'])}"
    waits = detail.get("waits") or []
    state = f"waits for {', '.join(waits)}" if waits else _STATES.get(detail["state"], detail["state"])
    version = f"{detail['entry']} v{detail['version']}" + (", newer code is there" if detail.get("outdated") else "")
    return {
        "pid": shown(detail["pid"]),
        "kind": shown(detail["kind"]),
        "code": shown(version),
        "host": f"{shown(detail['host'])} on {shown(detail['node'])}",
        "worker": _worker(detail),
        "parent": shown(detail["parent"]) or "-",
        "age": ago(time.time() - began / 1e9) if isinstance(began, int) else "-",
        "state": shown(state),
        "memory": f"{memory} (estimate)",
        "mailbox": f"{detail['mailbox']} of {detail['mailbox_limit']}",
        "messages": f"{detail['received']} in, {detail['sent']} out",
        "names": shown(detail["names"]),
        "topics": shown(detail["topics"]),
        "links": shown(detail["links"]),
        "watched by": shown(detail["watchers"]),
        "watches": shown(detail["watching"]),
        "threads": shown(detail["threads"]),
        "timers": shown(detail["timers"]),
        "in flight": f"{detail['operations']} operations, {detail['calls']} calls, {detail['streams']} streams",
        "options": shown(options),
    }


def _supervisor(detail: dict[str, Any]) -> dict[str, str]:
    """The facts about a supervisor, which is a process of the node itself."""
    children = ", ".join(f"{count} {state}" for state, count in detail["children"].items())
    return {
        "pid": shown(detail["pid"]),
        "kind": SUPERVISOR,
        "code": shown(detail["entry"]),
        "host": f"{shown(detail['host'])} on {shown(detail['node'])}",
        "parent": shown(detail["parent"]) or "-",
        "state": "ending" if detail["is_ending"] else "runs",
        "strategy": detail["strategy"],
        "restarts": str(detail["restarts"]),
        "children": f"{children or 'none'}; `wippy tree` draws them",
    }


def _worker(detail: dict[str, Any]) -> str:
    number, there, asked = (detail.get(key, 1) for key in ("worker", "workers", "workers_asked"))
    return f"{number} of {there}" + (f", {asked} asked for" if asked > there else "")


def _bytes(number: int) -> str:
    """A size in the unit that leaves 1 to 1023 of it."""
    size, unit = float(number), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
