"""Verbs that operate: cordon and uncordon a node, give it labels, release a service from quarantine, move a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.console import note, shown
from node.cli.failures import Failed
from node.cli.gateway import Timeout, seconds, target_argument

if TYPE_CHECKING:
    from cluster.client import Client

Node = Annotated[str, typer.Argument(metavar="NODE", help="The node's name, as `wippy nodes` shows it")]


async def cordon(client: Client, target: Node, timeout: Timeout = "5s") -> None:
    """Let a node keep what it has and get nothing new, until it is uncordoned or started anew."""
    print(f"{target} is {(await client.cordon(target, timeout=seconds(timeout))).value}")


async def uncordon(client: Client, target: Node, timeout: Timeout = "5s") -> None:
    """Let a cordoned or drained node take work again; a drain that is under way is called off."""
    print(f"{target} is {(await client.uncordon(target, timeout=seconds(timeout))).value}")


async def move(
    client: Client,
    process: Annotated[
        str, typer.Argument(metavar="PID|NAME", help="A PID such as '{node-1@app:processes|1-2a}', or a name")
    ],
    to: Annotated[str, typer.Argument(metavar="NODE", help="The node it is to run on")],
    within: Annotated[
        str, typer.Option("--within", metavar="DURATION", help="How long it may take to hand over its state")
    ] = "10s",
) -> None:
    """Move a running process to another node, with its PID, state and mailbox. Exit code 1 when it stayed."""
    moved = await client.move(target_argument(process), to, within=seconds(within))
    if moved.verdict == "moved":
        print(f"moved to {moved.node} in {_span(moved.seconds)}")
    elif not moved.verdict and not moved.reason:
        print(f"it runs on {moved.node} already")
    elif moved.verdict == "died":
        raise Failed(f"not moved, and ended: {moved.reason}")
    else:
        raise Failed(f"not moved: {moved.reason}; it runs on {moved.node}" if moved.verdict else moved.reason)


def _span(taken: float) -> str:
    return f"{taken * 1000:.0f} ms" if taken < 1 else f"{taken:.1f} s"


async def label(
    client: Client,
    target: Node,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE | NAME-]...", help="Labels to set, or to take away")
    ] = None,
    timeout: Timeout = "5s",
) -> None:
    """Give a running node other labels, until it is started anew; without any, show those it has."""
    if changes:
        wanted = dict(map(_change, changes))
        had = (await client.member(target)).labels
        labels = (await client.ask(target, "label", labels=wanted, timeout=seconds(timeout)))["labels"]
        for name in sorted(name for name, value in wanted.items() if value is None and name not in had):
            note(f"{target} had no label {name}: nothing to take away")
    else:
        labels = dict((await client.member(target)).labels)
    for name, value in sorted(labels.items()):
        print(f"{shown(name)}={shown(value)}")
    if not labels:
        note(f"{target} has no labels")


def _change(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if equals and name:
        return name, value
    if name.endswith("-") and len(name) > 1:
        return name[:-1], None
    raise Failed(f"expected NAME=VALUE to set a label or NAME- to take it away, got {text!r}", code=2)


async def release(
    client: Client,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The id of a service, e.g. app:counter")],
    timeout: Timeout = "5s",
) -> None:
    """Let a service start again that is quarantined, or that nodes avoid because it failed there."""
    told = await client.through("release", service=service, timeout=seconds(timeout))
    if told["released"]:
        print(f"{told['service']} may start again on every node")
    else:
        print(f"nothing is held against {told['service']}")
