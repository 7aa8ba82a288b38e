"""What a prompt's process asks its client for: what takes all nodes, as the verbs of the command line show it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from cluster.errors import ClusterError
from cluster.pid import Pid, is_pid

if TYPE_CHECKING:
    from cluster.client import Answers, Client

MOST_ROWS = 2000
CALL_SECONDS = 30.0
TRACE_SECONDS, LONGEST_TRACE = 10.0, 300.0
TRACE_LOOK = 0.25
_SCOPES = {0: "local", 1: "eventual", 2: "consistent", 3: "strong"}


class Screen(Protocol):
    def show(self, kind: str, text: str) -> None: ...


class Answering:
    """The answers. ``leave`` ends the console."""

    def __init__(self, client: Client, display: Screen, leave: Callable[[str], None]) -> None:
        self._client = client
        self._display = display
        self._leave = leave
        self._stopped = asyncio.Event()
        self._known: dict[str, Callable[[list[Any]], Awaitable[Any]]] = {
            "pids": self._pids,
            "nodes": self._nodes,
            "names": self._names,
            "services": self._services,
            "tree": self._tree,
            "inspect": self._inspect,
            "call": self._call,
            "trace": self._trace,
            "exit": self._exit,
        }

    def stop(self) -> None:
        """The line that asked was stopped."""
        self._stopped.set()
        self._stopped = asyncio.Event()

    async def outcome(self, what: str, args: list[Any]) -> dict[str, Any]:
        """``value``, or ``error`` with why there is none."""
        handler = self._known.get(what)
        if handler is None:
            return {"error": f"this version of wippy can't answer {what!r}; use the one of the node"}
        try:
            return {"value": await handler(args)}
        except (ClusterError, ValueError) as error:
            return {"error": str(error) or type(error).__name__}

    async def _pids(self, args: list[Any]) -> Any:
        answers = await self._client.ps()
        names: dict[str, set[str]] = {}
        for held in (await self._client.names()).by_node.values():
            for one in held:
                names.setdefault(one["pid"], set()).add(one["name"])
        rows = [
            {
                "pid": one["pid"],
                "entry": one.get("entry"),
                "node": node,
                "state": one.get("state"),
                "names": ", ".join(sorted(names.get(one["pid"], ()))) or None,
            }
            for node, processes in sorted(answers.by_node.items())
            for one in processes
        ]
        self._tell_silent(answers)
        return self._bounded(_matching(rows, args))

    async def _nodes(self, args: list[Any]) -> Any:
        members = await self._client.nodes()
        health = await self._client.ask_all("health")
        rows = []
        for member in members:
            seen = health.by_node.get(member.node, {})
            state = "silent" if member.node in health.silent else member.state.value
            rows.append(
                {
                    "node": member.node,
                    "state": state,
                    "processes": seen.get("processes"),
                    "registry": seen.get("registry_version"),
                    "labels": dict(member.labels),
                }
            )
        return _matching(rows, args)

    async def _names(self, args: list[Any]) -> Any:
        answers = await self._client.names()
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for node, held in answers.by_node.items():
            for one in held:
                scope = _SCOPES.get(one.get("scope"), "")
                known_on = node if scope == "local" else ""
                rows[one["name"], known_on] = {"name": one["name"], "pid": one["pid"], "scope": scope}
        self._tell_silent(answers)
        return self._bounded(_matching([rows[key] for key in sorted(rows)], args))

    async def _services(self, args: list[Any]) -> Any:
        from node.cli.services import merged

        answers = await self._client.services()
        columns = ("service", "replica", "node", "state", "pid")
        rows = [{name: row.get(name) for name in columns} for row in merged(answers.by_node, answers.silent)]
        self._tell_silent(answers)
        return self._bounded(_matching(rows, args))

    async def _tree(self, args: list[Any]) -> Any:
        from node.cli.tree import alone, drawn, grown

        told, services = await self._client.trees(), await self._client.services()
        rows = [row for node in sorted(told.by_node) for row in told.by_node[node]]
        roots = grown(rows, told.silent) + list(alone(services.by_node, rows))
        self._tell_silent(told)
        lines = [line for root in roots for line, _ in drawn(root)]
        return "\n".join(lines[:MOST_ROWS]) or "no supervisors and no services"

    async def _inspect(self, args: list[Any]) -> Any:
        pid = await self._pid(args)
        return (await self._found(pid))[1]

    async def _pid(self, args: list[Any]) -> Pid:
        target = args[0] if args else None
        if not isinstance(target, str) or not target:
            raise ValueError(f"expected a PID or a name, got {target!r}")
        if is_pid(target):
            return Pid.parse(target)
        for held in (await self._client.names()).by_node.values():
            for one in held:
                if one["name"] == target:
                    return Pid.parse(one["pid"])
        raise ValueError(f"no process is registered as {target!r}; names() shows the names")

    async def _call(self, args: list[Any]) -> Any:
        from node.cli.act import is_function

        if not args or not isinstance(args[0], str):
            raise ValueError("expected call(PID or name, topic [, value]) or call(function, ...)")
        target, *given = args
        if await is_function(self._client, target, CALL_SECONDS):
            return await self._client.call_function(target, *given, timeout=CALL_SECONDS)
        if not 1 <= len(given) <= 2 or not isinstance(given[0], str):
            raise ValueError(f"expected a topic and at most one value after {target!r}")
        reply = await self._client.call(target, *given, timeout=CALL_SECONDS)
        return reply.value

    async def _trace(self, args: list[Any]) -> Any:
        """Messages and events to a process, and its messages to others, as they happen."""
        pid = await self._pid(args)
        seconds = float(args[1]) if len(args) > 1 and args[1] is not None else TRACE_SECONDS
        if not 0 < seconds <= LONGEST_TRACE:
            raise ValueError(f"expected 0 to {LONGEST_TRACE:g} seconds, got {seconds:g}")
        stopped, (node, _) = self._stopped, await self._found(pid)
        loop = asyncio.get_running_loop()
        began, count, left_out, is_first = loop.time(), 0, 0, True
        while loop.time() - began < seconds and not stopped.is_set():
            seen = await self._client.ask(node, "console_trace", pid=str(pid))
            for record in () if is_first else seen["records"]:  # what is there at first was for somebody else
                count += 1
                self._display.show("text", _traced(record))
            left_out += 0 if is_first else int(seen["left_out"])
            is_first = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TRACE_LOOK):
                    await stopped.wait()
        return f"{count} seen of {pid}" + (f", {left_out} left out: more than can be shown" if left_out else "")

    async def _found(self, pid: Pid) -> tuple[str, dict[str, Any]]:
        """The node that has a process, wherever it was born, and what it knows of it."""
        answers = await self._client.ask_all("inspect", pid=str(pid))
        for node, detail in answers.by_node.items():
            return node, detail
        raise ValueError(f"no process {pid} on any node that answers: it ended or never was")

    async def _exit(self, args: list[Any]) -> Any:
        self._leave("")

    def _bounded(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(rows) > MOST_ROWS:
            self._display.show("note", f"the first {MOST_ROWS} of {len(rows)}; a text as argument selects")
        return rows[:MOST_ROWS]

    def _tell_silent(self, answers: Answers) -> None:
        for node, reason in answers.silent.items():
            self._display.show("note", f"{node} did not answer: {reason}")


def _matching(rows: list[dict[str, Any]], args: list[Any]) -> list[dict[str, Any]]:
    """The rows that have the text of the first argument in some column."""
    text = args[0] if args else None
    known = [{key: value for key, value in row.items() if value is not None} for row in rows]
    return [row for row in known if text is None or any(str(text) in str(value) for value in row.values())]


def _traced(record: Mapping[str, Any]) -> str:
    """One line of a trace."""
    at = datetime.fromtimestamp(int(record["at"]) / 1e9).astimezone().strftime("%H:%M:%S.%f")[:-3]
    data = record.get("data")
    if record["size"] and data is None:
        shown = f"({record['size']} bytes)"
    else:
        shown = ", ".join(json.dumps(value, ensure_ascii=False, default=str) for value in data or ())
    arrow = {"in": "<-", "out": "->"}.get(str(record["way"]), "!!")
    return f"{at}  {arrow} {record['other'] or '-'}  {record['topic']}  {shown}".rstrip()
