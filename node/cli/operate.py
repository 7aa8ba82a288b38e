"""Verbs that operate: cordon and uncordon a node, give it labels, release a service from quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.console import note, shown
from node.cli.failures import Failed
from node.cli.gateway import Timeout, seconds

if TYPE_CHECKING:
    from cluster.client import Client

Node = Annotated[str, typer.Argument(metavar="NODE", help="The node's name, as `wippy nodes` shows it")]


async def cordon(client: Client, target: Node, timeout: Timeout = "5s") -> None:
    """Let a node keep what it has and get nothing new, until it is uncordoned or started anew."""
    told = await client.ask(target, "cordon", timeout=seconds(timeout))
    print(f"{told['node']} is {told['state']}")


async def uncordon(client: Client, target: Node, timeout: Timeout = "5s") -> None:
    """Let a cordoned node take work again."""
    told = await client.ask(target, "uncordon", timeout=seconds(timeout))
    print(f"{told['node']} is {told['state']}")


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
