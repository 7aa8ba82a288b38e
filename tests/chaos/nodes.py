"""Nodes as processes of the operating system, on servers a test may stop, and what they did as etcd saw it.

Everything started here is ended by its process id when the ``with`` block is left. All waiting is polling with
a deadline.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.envelope import to_text, unpack
from cluster.errors import ClusterError
from cluster.etcd import Batch, Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.members import Member
from tests.cluster.processes import WIPPY, Program

APP = Path(__file__).parent / "app"
LEASE_TTL = 5.0
FREEZES = 200
"""Tries to stop a process at a moment at which it waits."""
T = TypeVar("T")


async def eventually(probe: Callable[[], Awaitable[T]], *, within: float, what: str) -> T:
    """The first truthy result of ``probe``; a ClusterError counts as not yet."""
    deadline = time.monotonic() + within
    seen: Any = None
    while time.monotonic() < deadline:
        try:
            async with asyncio.timeout(within):
                result = await probe()
        except (ClusterError, AssertionError) as error:
            seen = error
        else:
            if result:
                return result
            seen = result
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {within:g} s: {what}; last seen: {seen!r}")


class Node(Program):
    """One ``wippy run`` of the chaos app."""

    def __init__(
        self,
        directory: Path,
        name: str,
        servers: EmbeddedServers,
        cluster: str,
        *options: str,
        etcd: str = "",
        nats: str = "",
        app: Path = APP,
    ) -> None:
        number = len(list(directory.glob(f"{name}.*.err"))) + 1
        urls = ("--nats", nats or servers.nats_url, "--etcd", etcd or servers.etcd_url, "--cluster", cluster)
        command = [*WIPPY, "run", str(app), "--node", name, *urls, "--set", "metrics.port=0", *options]
        super().__init__(command, directory, f"{name}.{number}")
        self.name = name

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def freeze(self) -> None:
        """Stop the process while it waits: one that is stopped in the middle of a step ends itself when it goes on."""
        for _ in range(FREEZES):
            self.signal(signal.SIGSTOP)
            await asyncio.sleep(0.005)
            if self._waits():
                return
            self.signal(signal.SIGCONT)
            await asyncio.sleep(0.002)
        self.signal(signal.SIGSTOP)

    def _waits(self) -> bool:
        """Whether every thread is stopped within a call of the system; True where that can't be seen."""
        threads = list(Path(f"/proc/{self.pid}/task").glob("*"))
        try:
            stopped = all(_state(thread) == "T" for thread in threads)
            return stopped and all(
                (thread / "syscall").read_text().split()[0] not in ("-1", "running") for thread in threads
            )
        except OSError:
            return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)

    async def ready(self, within: float = 30.0) -> None:
        await self.says("node ready", within)

    async def says(self, text: str, within: float = 10.0) -> None:
        """Wait until the log has ``text``; a node that has ended says nothing more."""
        deadline = time.monotonic() + within
        while text not in self.err:
            ended = self.process.poll()
            if (ended is not None and text not in self.err) or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} (exit code {ended}) did not log {text!r}; its log:\n{self.err}")
            await asyncio.sleep(0.05)

    async def ended(self, within: float) -> int:
        """Wait for its end; the exit code."""

        async def probe() -> bool:
            return self.process.poll() is not None

        await eventually(probe, within=within, what=f"{self.name} ends; its log:\n{self.err}")
        return int(self.process.returncode)

    def check_log(self, *expected: str) -> None:
        """No trace of Python in it, and no error that the test has not asked for."""
        assert "Traceback" not in self.err, self.err
        bad = [line for line in self.err.splitlines() if _is_bad(line) and not any(text in line for text in expected)]
        assert not bad, "\n".join(bad)


def _state(thread: Path) -> str:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


def _is_bad(line: str) -> bool:
    return any(f" {level} " in line.upper() for level in ("ERROR", "CRITICAL"))


@dataclass
class Writes:
    """Every value the key "owner" had, in etcd's order: who owned the service, as far as the store is concerned."""

    seen: list[tuple[str, int]] = field(default_factory=list)

    def apply(self, batch: Batch) -> None:
        for event in batch.events:
            if not event.deleted:
                value = to_text(unpack(event.kv.value))[1]
                self.seen.append((value["pid"], value["n"]))

    def owners(self) -> list[str]:
        """The owners in the order of their first write."""
        return list(dict.fromkeys(pid for pid, _ in self.seen))

    def check_one_owner(self) -> None:
        """No owner's write comes after the first one of the next."""
        turns = [pid for pid, former in zip(self.pids(), ["", *self.pids()]) if pid != former]
        assert len(turns) == len(set(turns)), f"owners interleave: {turns}"
        for pid in set(turns):
            numbers = [n for who, n in self.seen if who == pid]
            assert numbers == sorted(set(numbers)), f"writes of {pid} are doubled or reordered"

    def pids(self) -> list[str]:
        return [pid for pid, _ in self.seen]


class Cluster:
    """A cluster of one test: its servers, its nodes, its client."""

    app: Path = APP
    program: str = ""
    """Python text the nodes run in the place of the command, its arguments behind it."""

    def __init__(self, servers: EmbeddedServers, name: str, directory: Path, etcd: Etcd, client: Client) -> None:
        self.servers = servers
        self.name = name
        self.directory = directory
        self.etcd = etcd
        self.client = client
        self.keys = Keys(name)
        self.writes = Writes()
        self.nodes: dict[str, Node] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        watch = PrefixWatch(self.etcd, self.keys.store("chaos"))
        watch.subscribe(self.keys.store("chaos"), self.writes.apply)
        await self._stack.enter_async_context(watch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def start(self, name: str, *options: str, etcd: str = "", nats: str = "") -> Node:
        """Start a node, not waiting for it; also one whose name an earlier process had. ``etcd`` and ``nats``: its ways
        there, in the place of the servers' addresses."""
        ways = {"etcd": etcd, "nats": nats}
        node = self.nodes[name] = Node(self.directory, name, self.servers, self.name, *options, **ways, app=self.app)
        if self.program:
            node._command = [sys.executable, "-c", self.program, *node._command[len(WIPPY) :]]
        return self._stack.enter_context(node)

    async def start_all(self, names: Iterable[str], *options: str) -> None:
        nodes = [self.start(name, *options) for name in names]
        for node in nodes:
            await node.ready()

    async def members(self) -> dict[str, Member]:
        return {member.node: member for member in await self.client.nodes()}

    async def owner(self) -> tuple[str, str]:
        """(node, PID) of the process that holds the service now."""
        claim = await self.etcd.get(self.keys.service("app:owner", 0))
        assert claim is not None, "nobody has claimed the service"
        state = await self.etcd.get(self.keys.service_state("app:owner", 0))
        assert state is not None, "the owner has not said where it runs"
        node = claim.value.decode()
        pids = [row["pid"] for row in (await self.services(node)) if row["service"] == "app:owner"]
        pid = str(pids[0]) if pids else ""
        assert pid.startswith(f"{{{node}@"), "it does not run yet"
        return node, pid

    async def services(self, node: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self.client.ask(node, "services", timeout=2.0))["items"]
        return [row for row in rows if row["node"] == node]

    async def works(self, *, without: str = "", within: float = 15.0) -> tuple[str, str]:
        """Wait until the service is owned by another node than ``without`` and writes; its node and PID."""

        async def probe() -> tuple[str, str] | None:
            node, pid = await self.owner()
            return (node, pid) if node != without and pid in self.writes.pids() else None

        return await eventually(probe, within=within, what="the service runs")

    async def ask(self, node: str, topic: str, **payload: Any) -> dict[str, Any]:
        """Call the watcher of ``node`` through any other node there is."""
        return dict((await self.client.call(f"watcher@{node}", topic, payload, timeout=3.0)).value)

    async def reaches(self, node: str, within: float = 10.0) -> str:
        """Wait until the watcher of ``node`` answers; its PID."""

        async def probe() -> str:
            return str((await self.ask(node, "seen"))["pid"])

        return await eventually(probe, within=within, what=f"the watcher of {node} answers")


@asynccontextmanager
async def chaos_cluster(
    servers: EmbeddedServers, name: str, directory: Path, kind: type[Cluster] = Cluster
) -> AsyncIterator[Cluster]:
    async with Etcd([servers.etcd_url]) as etcd, Client([servers.nats_url], [servers.etcd_url], name) as client:
        async with kind(servers, name, directory, etcd, client) as cluster:
            try:
                yield cluster
            finally:  # shown when the test failed, of which a fixture is not told
                _show_logs(directory)


def _show_logs(directory: Path) -> None:
    """Of every life of every node."""
    for log in sorted(directory.glob("*.err")):
        print(f"---- {log.name}\n{log.read_text()[-6000:]}")
