"""The cluster's registry, opened for one verb, checked as the nodes check it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.console import note
from node.cli.failures import Failed

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.errors import Problem
    from cluster.registry.registry import Registry
    from cluster.registry.state import RegistryState
    from node.project import Project

AppDirectory = Annotated[Path, typer.Argument(metavar="[APP]", help="The application's directory")]
Overrides = Annotated[list[str] | None, typer.Option("-o", metavar="NS:ENTRY:PATH=VALUE", help="Change an entry first")]
At = Annotated[str | None, typer.Option("--at", metavar="VERSION", help="As it was at this version, e.g. v3")]
Message = Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="Why, for the history")]


@asynccontextmanager
async def opened(client: Client, *, empty: bool = False) -> AsyncIterator[Registry]:
    """The cluster's registry. Raises Failed when nothing was ever published, unless ``empty`` is fine."""
    from cluster.registry import open_registry
    from node.kinds import CAPABILITY

    await client.check()
    async with open_registry(client.etcd, client.keys, author(), check, capability=CAPABILITY) as registry:
        if registry.state.version < 0 and not empty:
            raise Failed(
                f"cluster {client.cluster!r} has no registry yet; start a node, or `wippy registry push` an application"
            )
        yield registry


def check(state: RegistryState) -> list[Problem]:
    """What the nodes would refuse."""
    from node.kinds import check_state
    from node.modules import MODULES

    return check_state(state.entries(), MODULES)


def author() -> str:
    """Who changes the registry; from which machine is noted beside it."""
    try:
        return getuser()
    except (KeyError, OSError):
        return "unknown"


def version_number(text: str) -> int:
    """The number in ``v3`` or ``3``."""
    number = version_or_none(text)
    if number is None:
        raise Failed(f"expected a version such as v3, got {text!r}; `wippy registry history` shows them", code=2)
    return number


def version_or_none(text: str) -> int | None:
    digits = text.removeprefix("v")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else None


async def state_at(registry: Registry, at: str | None) -> RegistryState:
    """The state at a version as people write it, the one that holds now without."""
    return registry.state if at is None else await registry.state_at(version_number(at))


def loaded(app: Path, overrides: list[str] | None) -> Project:
    """The application of a directory. Raises Failed (wrong usage) when there is none, Invalid with every problem."""
    from node.modules import MODULES
    from node.project import load_project

    if not app.is_dir():
        raise Failed(f"no directory {app}; name the application's directory", code=2)
    project = load_project(app.resolve(), overrides=tuple(overrides or ()), modules=MODULES)
    for warning in project.warnings:
        note(f"warning: {warning}")
    return project
