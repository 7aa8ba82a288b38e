"""Nodes that run the supervision trees of ``tests/apps/trees``, as processes a test may kill."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.errors import ClusterError
from node.cli.tree import grown
from tests.cluster.processes import WIPPY, Program, wippy

APP = Path(__file__).parents[1] / "apps" / "trees"
CHILD = "app:child"
NAMES = ("node-1", "node-2", "node-3")
T = TypeVar("T")


class Trees:
    """A cluster of one test."""

    def __init__(
        self, servers: EmbeddedServers, name: str, directory: Path, client: Client, stack: AsyncExitStack
    ) -> None:
        self.client = client
        self.app = Path(shutil.copytree(APP, directory / "app"))
        self._directory = directory
        self._servers = servers
        self._name = name
        self._stack = stack
        self.nodes: dict[str, Program] = {}

    async def start(self, *names: str, nats: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> None:
        """Start nodes; the first of a cluster alone, so that it has the supervisor at the top."""
        if not self.nodes and len(names) > 1:
            await self.start(names[0], nats=nats, options=options)
            await eventually(self.tree, within=20, what="the supervisor at the top runs")
            names = names[1:]
        for name in names:
            url = (nats or {}).get(name, self._servers.nats_url)
            urls = ("--nats", url, "--etcd", self._servers.etcd_url, "--cluster", self._name)
            command = [*WIPPY, "run", str(self.app), "--node", name, *urls, "--set", "metrics.port=0", *options]
            number = len(list(self._directory.glob(f"{name}.*.err")))
            self.nodes[name] = self._stack.enter_context(Program(command, self._directory, f"{name}.{number}"))
        for name in names:
            node = self.nodes[name]
            await asyncio.to_thread(node.until, lambda node=node: "node ready" in node.err)

    def kill(self, name: str) -> None:
        os.kill(self.nodes[name].pid, signal.SIGKILL)
        self.nodes[name].process.wait(10)

    def push(self) -> None:
        """Make the registry say what the files say."""
        urls = ("--nats", self._servers.nats_url, "--etcd", self._servers.etcd_url, "--cluster", self._name)
        wippy(self._directory, "registry", "push", str(self.app), *urls)

    def wippy(self, *arguments: str) -> str:
        urls = ("--nats", self._servers.nats_url, "--etcd", self._servers.etcd_url, "--cluster", self._name)
        return wippy(self._directory, *arguments, *urls).stdout

    async def tree(self, root: str = "app:top") -> dict[str, Any]:
        """The tree of a supervisor, as ``wippy tree`` puts it together."""
        told = await self.client.trees(timeout=2.0)
        roots = grown([row for rows in told.by_node.values() for row in rows], told.silent)
        (found,) = [tree for tree in roots if tree["entry"] == root]
        return found

    async def leaves(self, root: str = "app:top") -> dict[str, dict[str, Any]]:
        """The children of a tree, and theirs, by id."""
        return {child["id"]: child for child in _leaves(await self.tree(root))}

    async def running(self, *ids: str, but: Sequence[str] = (), within: float = 20.0) -> dict[str, dict[str, Any]]:
        """Wait until these children run, with other PIDs than ``but``."""

        async def probe() -> dict[str, dict[str, Any]] | None:
            found = await self.leaves()
            up = all(found[id]["state"] == "running" and found[id]["pid"] not in but for id in ids)
            return found if up else None

        return await eventually(probe, within=within, what=f"{', '.join(ids)} run")

    async def ask(self, name: str, *arguments: Any, gateway: str = "") -> Any:
        """Call a function of the module ``supervisor`` in a process of the node ``gateway``."""
        node = gateway or next(iter(self.nodes))
        return await self.client.ask(node, "call_function", id="app:ask", args=[name, *arguments], timeout=20.0)

    async def tell(self, pid: str, topic: str) -> None:
        await self.client.send(pid, topic)

    async def children_there(self) -> list[str]:
        """The PIDs of all processes that are children, on nodes that answer."""
        listed = await self.client.ps(entry=CHILD)
        return sorted(process["pid"] for rows in listed.by_node.values() for process in rows)

    async def children_on(self, nodes: Sequence[str]) -> list[str]:
        """The PIDs of all processes that are children on these nodes."""
        listed = [await self.client.ask(node, "list", entry=CHILD) for node in nodes]
        return sorted(process["pid"] for page in listed for process in page["items"])

    async def only(self, count: int, within: float = 15.0) -> list[str]:
        """Wait until there are exactly so many children: no orphans, no duplicates."""

        async def probe() -> list[str] | None:
            there = await self.children_there()
            return there if len(there) == count else None

        return await eventually(probe, within=within, what=f"{count} children, no more and no less")


def _leaves(branch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for child in branch["children"]:
        yield child
        if "supervisor" in child:
            yield from _leaves(child["supervisor"])


async def eventually(probe: Callable[[], Awaitable[T]], *, within: float, what: str) -> T:
    """The first truthy result; what is not there yet counts as not yet."""
    deadline = time.monotonic() + within
    seen: Any = None
    while time.monotonic() < deadline:
        try:
            result = await probe()
        except (ClusterError, KeyError, ValueError, AssertionError) as error:
            seen = error
        else:
            if result:
                return result
            seen = result
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {within:g} s: {what}; last seen: {seen!r}")


@asynccontextmanager
async def trees_cluster(servers: EmbeddedServers, name: str, directory: Path) -> AsyncIterator[Trees]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client([servers.nats_url], [servers.etcd_url], name))
        cluster = Trees(servers, name, directory, client, stack)
        try:
            yield cluster
        except BaseException:
            for node in cluster.nodes.values():
                print(f"---- {node.err[-6000:]}")
            raise
