"""A development cluster with the application of ``tests/apps/owners``: agents that do what they are told."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from cluster.client import Client
from tests.cluster.processes import WIPPY, Development, Program, eventually

T = TypeVar("T")
APP = Path(__file__).parents[1] / "apps" / "owners"


class Agents(Development):
    """Three nodes, each with an agent that does what it is told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.app = Path(shutil.copytree(APP, directory / "owners"))
        command = [*WIPPY, "up", "owners", "--nodes", "3", "--set", "logger.level=warn"]
        Program.__init__(self, command, directory, "up")

    def __enter__(self) -> Self:
        super().__enter__()
        for node in ("node-1", "node-2", "node-3"):
            eventually(lambda node=node: self.tell(node, "release", "x"), within=15, what=f"the agent of {node}")
        return self

    def tell(self, node: str, deed: str, *arguments: Any) -> dict[str, Any]:
        return dict(self.call(f"agent@{node}", deed, list(arguments), gateway="node-1"))

    def asked(self, what: Callable[[Client], Awaitable[T]]) -> T:
        """``what(client)``, awaited."""

        async def ask() -> T:
            place = self.place
            async with Client(place["nats"], place["etcd"], place["cluster"]) as client:
                return await what(client)

        return asyncio.run(ask())

    def ask(self, node: str, query: str) -> dict[str, Any]:
        """The answer of a node to a query of the command line."""
        return dict(self.asked(lambda client: client.ask(node, query)))

    def held(self) -> dict[str, str]:
        """The nodes of the holders by lock."""
        return {row["lock"]: row["pid"].partition("@")[0][1:] for row in self.json("locks", "--json")}
