"""Verbs that act on processes and functions, anywhere in the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cluster.pid import is_pid
from node.cli.console import show_json
from node.cli.failures import Failed
from node.cli.gateway import FROM, Timeout, json_argument, seconds, target_argument

if TYPE_CHECKING:
    from cluster.client import Client

Target = Annotated[
    str, typer.Argument(metavar="PID|NAME", help="A PID such as '{node-1@app:processes|1-2a}', or a name")
]
Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The message's topic")]
Payload = Annotated[
    str | None, typer.Argument(metavar="[JSON]", help=f"The message's payload; {FROM}", show_default=False)
]
Args = Annotated[
    list[str] | None,
    typer.Argument(metavar="[JSON]...", help=f"Arguments, one JSON value each; {FROM}", show_default=False),
]


async def send(client: Client, target: Target, topic: Topic, payload: Payload = None, timeout: Timeout = "5s") -> None:
    """Send a message; done when the process's node accepted it."""
    payloads = () if payload is None else (json_argument(payload),)
    print(await client.send(target_argument(target), topic, *payloads, timeout=seconds(timeout)))


async def call(
    client: Client,
    target: Annotated[str, typer.Argument(metavar="PID|NAME|FUNCTION", help="A PID, a name, or the id of a function")],
    rest: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPIC] [JSON]...",
            help=f"For a process a topic and a payload, for a function its arguments; {FROM}",
        ),
    ] = None,
    timeout: Timeout = "5s",
) -> None:
    """Send a message and print the first reply, or call a function and print its result, as JSON."""
    given, deadline, target = list(rest or []), seconds(timeout), target_argument(target)
    if await is_function(client, target, deadline):
        try:
            arguments = [json_argument(each) for each in given]
        except Failed as wrong:
            kind = f"{target} is taken for a function, whose arguments are JSON; a process is called by its PID or name"
            raise Failed(f"{wrong}; {kind}", code=wrong.code) from None
        show_json(await client.call_function(target, *arguments, timeout=deadline))
        return
    if not 1 <= len(given) <= 2:
        raise Failed(
            f"expected a topic and at most one JSON payload after {target}, got {len(given)} arguments", code=2
        )
    topic, *payload = given
    reply = await client.call(target, topic, *map(json_argument, payload), timeout=deadline)
    show_json(reply.value)


async def is_function(client: Client, target: str, timeout: float) -> bool:
    """A text with a colon is the id of a function, unless a process is registered under it."""
    if is_pid(target) or ":" not in target:
        return False
    names = await client.names(timeout=min(timeout, 3.0))
    return not any(name["name"] == target for held in names.by_node.values() for name in held)


async def spawn(
    client: Client,
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="The id of a process entry, e.g. app:worker")],
    host: Annotated[str, typer.Argument(metavar="HOST", help="The host to run it on: ns:host, or node@ns:host")],
    args: Args = None,
    timeout: Timeout = "10s",
) -> None:
    """Start a process and print its PID."""
    print(await client.spawn(entry, host, *map(json_argument, args or []), timeout=seconds(timeout)))


async def cancel(
    client: Client,
    target: Target,
    reason: Annotated[str, typer.Option("--reason", help="What the process is told")] = "",
    timeout: Timeout = "5s",
) -> None:
    """Ask a process to end: it gets a cancel event and may take its time."""
    print(await client.cancel(target_argument(target), reason, timeout=seconds(timeout)))


async def terminate(client: Client, target: Target, timeout: Timeout = "5s") -> None:
    """End a process at once."""
    print(await client.terminate(target_argument(target), timeout=seconds(timeout)))
