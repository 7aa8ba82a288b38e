"""A development cluster with the laboratory of ``tests/apps/lab``: experiments between processes of different nodes."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from cluster.client import Client
from tests.cluster.processes import WIPPY, Development, Program

LAB = Path(__file__).parents[1] / "apps" / "lab"


class Lab(Development):
    """Three nodes with the laboratory of ``tests/apps/lab``."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.app = Path(shutil.copytree(LAB, directory / "lab"))
        command = [*WIPPY, "up", "lab", "--nodes", "3", "--set", "logger.level=warn", *options]
        Program.__init__(self, command, directory, "up")

    def ask(self, what: Any, gateway: str | None = "node-1") -> Any:
        """``what(client)``, awaited."""

        async def ask() -> Any:
            place = self.place
            async with Client(place["nats"], place["etcd"], place["cluster"], gateway=gateway) as client:
                return await what(client)

        return asyncio.run(ask())

    def experiment(self, name: str, *args: Any, node: str = "node-3") -> Any:
        """Run an experiment on node-1 with a process on ``node``."""
        return self.ask(lambda client: client.call_function("app:experiment", name, node, *args, timeout=10.0))

    def metrics(self, node: str) -> str:
        (address,) = [each["metrics"] for each in self.place["nodes"] if each["name"] == node]
        with urlopen(address, timeout=5) as answer:
            return str(answer.read().decode())
