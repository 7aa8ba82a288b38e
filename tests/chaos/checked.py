"""A cluster whose every way to a server can be broken, with a workload that writes down what it does.

``CheckedCluster`` starts three nodes on servers of its own, each behind proxies, and observes etcd beside them.
``settle`` waits, once all is healed, until everything answers again; ``finish`` stops the senders, lets what is
under way arrive, and gives all that is known as a ``Run`` for the checkers.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.etcd import Etcd
from cluster.fencing import EXIT_CODE
from cluster.keys import Keys
from cluster.tasks import Tasks
from tests.chaos.checking.history import SECOND, History, Recording
from tests.chaos.checking.run import Run
from tests.chaos.checking.streams import Stream, streams_of
from tests.chaos.checking.troubles import Trouble, Troubles, What
from tests.chaos.checking.truth import Observer
from tests.chaos.nemesis import Kind
from tests.chaos.nodes import Node, eventually
from tests.chaos.proxy import Proxy
from tests.cluster.processes import Program

APP = Path(__file__).parent / "workload"
NODES = ("n1", "n2", "n3")
TTL = 5.0
RECORDED = ("tests.chaos.recorded",)


class RecordedNode(Node):
    """A node that writes its history to a file, with its own ways to the servers."""

    def __init__(
        self, program: Sequence[str], directory: Path, name: str, history: Path, nats: str, etcd: str, *options: str
    ) -> None:
        number = len(list(directory.glob(f"{name}.*.err"))) + 1
        recorded = (sys.executable, "-m", *program, str(history))
        urls = ("--nats", nats, "--etcd", etcd, "--cluster", "checked")
        command = [*recorded, "run", str(APP), "--node", name, *urls, "--set", "metrics.port=0", *options]
        Program.__init__(self, command, directory, f"{name}.{number}")
        self.name = name


class CheckedCluster:
    """Use it with ``async with``; it is a ``Target`` of the nemesis."""

    nodes = NODES

    def __init__(
        self,
        servers: EmbeddedServers,
        directory: Path,
        link_timeout: float,
        program: Sequence[str] = RECORDED,
    ) -> None:
        self.servers = servers
        self.program = program
        self.directory = directory
        self.link_timeout = link_timeout
        self.nats_ways = {node: Proxy(servers.nats.port) for node in NODES}
        self.etcd_ways = {node: Proxy(servers.etcd.port) for node in NODES}
        self.processes: dict[str, RecordedNode] = {}
        self.troubles = Troubles()
        self.endings: list[Ending] = []
        """Nodes that ended by themselves."""
        self._alive_at: dict[str, float] = {}
        self._recording = Recording(self.history_of(node) for node in NODES)
        self._scope = AsyncExitStack()

    async def __aenter__(self) -> Self:
        enter = self._scope.enter_async_context
        await self._scope.__aenter__()
        etcd = await enter(Etcd([self.servers.etcd_url]))
        self.client = await enter(Client([self.servers.nats_url], [self.servers.etcd_url], "checked"))
        self.observer = await enter(Observer(etcd, Keys("checked")))
        for way in (*self.nats_ways.values(), *self.etcd_ways.values()):
            await enter(way)
        tasks = await enter(Tasks("supervision"))
        tasks.start(self._start_again(), "start again")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._scope.__aexit__(kind, error, trace)

    async def _start_again(self) -> None:
        """What the operating system does for a node that ended by itself."""
        while True:
            for node in list(self._alive_at):
                code = self.processes[node].process.poll()
                if code is None:
                    self._alive_at[node] = time.monotonic_ns()
                else:
                    trouble = Trouble(node, What.DEAD, self._alive_at[node], time.monotonic_ns())
                    self.troubles.every.append(trouble)
                    self.endings.append(Ending(trouble, code, self.processes[node].err))
                    await self.start(node)
            await asyncio.sleep(0.02)

    # -- what the nemesis does

    async def start(self, node: str) -> None:
        nats, etcd = (f"{scheme}://127.0.0.1:{ways[node].port}" for scheme, ways in self._ways())
        options = ("--set", f"cluster.link_timeout={self.link_timeout:g}s")
        process = RecordedNode(self.program, self.directory, node, self.history_of(node), nats, etcd, *options)
        self.processes[node] = self._scope.enter_context(process)
        self._alive_at[node] = time.monotonic_ns()

    async def kill(self, node: str) -> None:
        process = self.processes[node]
        del self._alive_at[node]
        process.signal(signal.SIGKILL)
        await process.ended(within=10)

    def stop(self, node: str) -> None:
        self.processes[node].signal(signal.SIGSTOP)

    def go_on(self, node: str) -> None:
        self.processes[node].signal(signal.SIGCONT)

    async def kill_server(self, kind: Kind) -> None:
        await (self.servers.nats if kind is Kind.RESTART_NATS else self.servers.etcd).kill()

    async def start_server(self, kind: Kind) -> None:
        await (self.servers.nats if kind is Kind.RESTART_NATS else self.servers.etcd).start()

    def _ways(self) -> tuple[tuple[str, dict[str, Proxy]], ...]:
        return ("nats", self.nats_ways), ("http", self.etcd_ways)

    # -- what was recorded

    def history_of(self, node: str) -> Path:
        return self.directory / f"{node}.history"

    async def start_all(self) -> None:
        """Start the nodes, and wait until everything that is recorded has been done once."""
        for node in NODES:
            await self.start(node)
        await self.settle(time.monotonic_ns(), within=60)

    async def settle(self, since: int, within: float) -> float:
        """Wait until all that is recorded was done again after ``since``; the seconds that took.

        Every stream delivers, every name and lock finds a new holder, every node hears of the end of a process on
        every other.
        """
        began = time.monotonic()

        async def probe() -> bool:
            missing = _missing(self._recording.history(since))
            assert not missing, f"nothing yet of {missing}"
            return True

        await eventually(_every(0.5, probe), within=within, what="everything answers")
        return time.monotonic() - began

    async def finish(self) -> Run:
        """Stop the senders, wait for what is under way, and hand over what is known."""
        for node in NODES:
            await eventually(lambda node=node: self._tell_stop(node), within=10, what=f"the driver of {node} answers")  # type: ignore[misc]

        async def arrived() -> bool:
            so_far = self._known()
            under_way = [one.shown() for one in streams_of(so_far.history).values() if not _is_over(one, so_far)]
            assert not under_way, under_way
            return True

        try:
            await eventually(_every(0.3, arrived), within=5, what="what was sent arrives")
        except AssertionError as error:
            print(error)  # what is lost for good: the checkers say whether that may be
        run = self._known()
        assert not self.observer.problems, self.observer.problems
        return run

    def _known(self) -> Run:
        until = time.monotonic_ns()
        history = self._recording.history()
        return Run(history, self.observer.truth(), self.troubles, until, self.link_timeout, TTL)

    async def _tell_stop(self, node: str) -> bool:
        return bool((await self.client.call(f"driver@{node}", "stop", None, timeout=2.0)).value)

    def check_logs(self) -> None:
        """No log has a trace of Python, and no node ended but for a reason it gave."""
        for log in sorted(self.directory.glob("*.err")):
            text = log.read_text(errors="replace")
            assert "Traceback" not in text, f"{log.name}:\n{text[text.index('Traceback') - 500 :][:3000]}"
        for ending in self.endings:
            problem = ending.problem(self.troubles)
            assert not problem, f"{ending.trouble.node} {problem}; its log:\n{ending.log[-4000:]}"


@dataclass(frozen=True)
class Ending:
    """A node ended by itself."""

    trouble: Trouble
    code: int
    log: str

    def problem(self, troubles: Troubles) -> str:
        """What is wrong with that; empty when it had to.

        A node that starts does without no server. One that was stopped until its lease was over ends at once when a
        step of Lua was under way (F3).
        """
        node, at = self.trouble.node, self.trouble.end
        if self.code == EXIT_CODE and "process ends to protect what it owned" in self.log.splitlines()[-1]:
            stopped = troubles.of_between(node, at - 2 * SECOND, at, What.STOPPED)
            return "" if stopped else "ended to protect what it owned, but was not stopped"
        if self.code == 1 and "node ready" not in self.log and "error: " in self.log.splitlines()[-1]:
            without = troubles.of_between(node, at - 15 * SECOND, at, What.NATS, What.ETCD, What.STOPPED)
            return "" if without else "could not start, but had its servers"
        return f"ended with {self.code}"


def _every(seconds: float, probe: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    """A probe that is expensive, made less often; in between it says what it said last."""
    last, said = 0.0, AssertionError("not looked yet")

    async def rarely() -> bool:
        nonlocal last, said
        if time.monotonic() - last < seconds:
            raise said
        try:
            return await probe()
        except AssertionError as error:
            said = error
            raise
        finally:
            last = time.monotonic()

    return rarely


def _missing(history: History) -> list[str]:
    """What has not been done in this time."""
    done: set[str] = set()
    for record in history.of("took", "exit"):
        if "noconnection" not in str(record.fields.get("error")):
            done.add(f"{record.fields['f']} {record.fields['from'].split('@')[0]} at {record.node}")
    for operation in history.operations("register", "write"):
        if operation.ok:
            done.add(f"{operation.what} {operation.key}")
            done.add(f"{operation.what} on {operation.node}")
    wanted = {f"{what} on {node}" for what in ("register", "write") for node in NODES}
    wanted |= {f"register {key}" for key in "abcd"} | {f"write {key}" for key in "xyz"}
    wanted |= {f"{what} {{{a} at {b}" for what in ("took", "exit") for a in NODES for b in NODES if a != b}
    return sorted(wanted - done)


def _is_over(stream: Stream, run: Run) -> bool:
    """Whether the last that was accepted has arrived, or can't any more."""
    if run.ended(stream.sender) or run.ended(stream.receiver):
        return True
    accepted = [n for n, _ in stream.accepted()]
    return not accepted or accepted[-1] in stream.arrived()
