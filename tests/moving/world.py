"""Several whole nodes in this process, on the shared servers: all that is left out is that each is a process alone.

``Town`` starts and ends them one by one; their parts can be looked into, and their links closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.embedded import EmbeddedServers
from cluster.envelope import Kind, to_raw, to_text
from cluster.errors import ClusterError
from cluster.pid import host_address
from cluster.registry import Entry
from cluster.tasks import Tasks
from node.logs import Logs, LogSettings
from node.main import NodeOptions, Place, _node
from node.moving import Outcome
from node.output import Output
from node.parts import Parts
from node.ports import Port
from node.settings import load_settings

HOST = "app:processes"
PROGRAMS = Path(__file__).parent / "programs"


def program(name: str, *modules: str) -> Entry:
    text = (PROGRAMS / f"{name}.lua").read_text()
    return Entry(f"app:{name}", "process.lua", {}, {"source": text, "method": "main", "modules": list(modules)})


def entries() -> list[Entry]:
    return [
        Entry(HOST, "process.host", {}, {"lifecycle": {"auto_start": True}}),
        program("counter", "process", "channel", "ctx"),
        program("stubborn", "process", "channel"),
        program("caller", "process", "channel", "time"),
        program("witness", "process", "channel"),
    ]


class Town:
    """The nodes by name. ``async with`` ends those that run."""

    def __init__(self, servers: EmbeddedServers, cluster: str, directory: Path, *, lease_ttl: str = "10s") -> None:
        self._servers = servers
        self._cluster = cluster
        self._directory = directory
        self._ttl = lease_ttl
        self._stacks: dict[str, AsyncExitStack] = {}
        self.nodes: dict[str, Parts] = {}
        self.entries: list[Entry] = entries()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._stacks):
            await self.stop(name)

    async def start(self, *names: str) -> None:
        for name in names:
            stack = self._stacks[name] = AsyncExitStack()
            options = NodeOptions(self._settings(), name, self.entries, self._directory, "always")
            place = Place(self._cluster, (self._servers.nats_url,), (self._servers.etcd_url,), False)
            output = Output()
            tasks = await stack.enter_async_context(Tasks(f"town {name}"))
            logs = Logs(output, LogSettings("warning", "console", False))
            self.nodes[name] = await stack.enter_async_context(_node(options, place, tasks, output, logs))
        await self.know_each_other()

    def _settings(self) -> Any:
        sets = ["metrics.port=0", f"cluster.lease_ttl={self._ttl}", "shutdown.timeout=3s", "cluster.expected_nodes=1"]
        return load_settings(self._directory, sets=sets)

    async def know_each_other(self) -> None:
        """Until every node has a link to every other."""

        def do() -> bool:
            return all(
                parts.links.is_open(other)
                for name, parts in self.nodes.items()
                for other in self.nodes
                if other != name
            )

        await eventually(do, "the nodes know each other")

    async def stop(self, name: str) -> None:
        self.nodes.pop(name, None)
        await self._stacks.pop(name).aclose()

    # -- what tests do

    def port(self, node: str) -> Port:
        return self.nodes[node].router.ports.open("node:test")

    async def spawn(self, node: str, entry: str, *args: Any) -> str:
        port = self.port(node)
        try:
            address = host_address(node, HOST).encode()
            return (await port.spawn(address, entry, to_raw(list(args)), {}, timeout=10)).decode()
        finally:
            port.close()

    async def call(self, node: str, to: str, topic: str, payload: Any = None, timeout: float = 5.0) -> Any:
        """Send a message from ``node`` and give the first that comes back."""
        port = self.port(node)
        try:
            await port.send(to.encode(), topic, to_raw([payload]), timeout=timeout)
            async with asyncio.timeout(timeout):
                _, _, payloads = await port.messages.get()
            return to_text(payloads[0]) if payloads else None
        finally:
            port.close()

    def cast(self, node: str, to: str, topic: str, payload: Any = None) -> None:
        """Send a message from ``node``, wanting no answer."""
        envelope = [int(Kind.MESSAGE), to.encode(), b"{%s@node:test|0-0}" % node.encode(), 0, topic.encode()]
        self.nodes[node].router.route([*envelope, to_raw([payload]), b"", 0])

    async def move(self, pid: str, to: str, within: float = 10.0) -> Outcome:
        """Move a process from wherever it is."""
        where = self.where(pid)
        return await self.nodes[where].moving.move(pid, to, within)

    def where(self, pid: str) -> str:
        """The node it runs on, by what that node says."""
        for name, parts in self.nodes.items():
            if parts.moving.where(pid) == name:
                return name
        raise AssertionError(f"{pid} is nowhere")


async def eventually(probe: Any, what: str, within: float = 10.0) -> Any:
    """Poll until ``probe()`` (or what it awaits) is true."""
    seen: Any = None
    try:
        async with asyncio.timeout(within):
            while True:
                try:
                    seen = probe()
                    if asyncio.iscoroutine(seen):
                        seen = await seen
                except ClusterError as error:
                    seen = error
                else:
                    if seen:
                        return seen
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {within:g} s: {what}; last seen {seen!r}") from None


@asynccontextmanager
async def town(
    servers: EmbeddedServers, cluster: str, directory: Path, names: Sequence[str] = ("n1", "n2", "n3"), **options: Any
) -> AsyncIterator[Town]:
    async with Town(servers, cluster, directory, **options) as built:
        await built.start(*names)
        yield built
