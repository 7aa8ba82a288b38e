"""The hosts of one node with real VMs and a real router, and nothing else: no NATS, no etcd, no registry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from cluster.envelope import Kind, to_text
from cluster.pid import base36
from cluster.registry import Entry
from node.host import VmConfig
from node.hosts import Hosts
from node.limits import sizing
from node.lua.dialect import transform
from node.modules import Dispatcher, load_halves
from node.ports import Exit, Port
from node.router import Router
from node.workers import Host

HOST = "app:processes"
ADDRESS = f"{{n1@{HOST}|}}".encode()
PATIENCE = 20.0


class Nobody:
    """The other parts of a node, which have nothing to say."""

    guarded: frozenset[bytes] = frozenset()

    def lookup(self, name: str) -> None:
        return None

    def send(self, node: str, envelope: list[Any]) -> None:
        raise AssertionError(f"nothing is to leave the node, but {envelope} does")

    def may_act(self, pid: bytes) -> bool:
        return True

    def step_began(self, slot: int) -> None:
        pass

    def step_ended(self, slot: int) -> None:
        pass


def host_entry(**host: Any) -> Entry:
    return Entry(HOST, "process.host", {}, {"host": host})


class HostWorld:
    """``async with`` runs the hosts; ``cores`` is what the machine is said to have."""

    def __init__(self, sources: Mapping[str, str], *, cores: int = 16, config: VmConfig | None = None) -> None:
        nobody: Any = Nobody()
        self.sources = {f"app:{name}": source for name, source in sources.items()}
        self.router = Router("n1", 1, nobody, nobody)
        self.failures: list[BaseException] = []
        self.exits: dict[bytes, Exit] = {}
        self.hosts = Hosts(
            "n1",
            1,
            self.router,
            Dispatcher([]),
            load_halves(),
            config or VmConfig(),
            self._code,
            lambda entry, config: sizing(entry, config, lambda name: None),
            dict,
            nobody,
            lambda what, error: self.failures.append(error),
            set(),
            nobody,
        )
        self.hosts._cores = cores
        self.port: Port = self.router.ports.open("node:test")
        self.port.on_exit = self._exited

    async def __aenter__(self) -> Self:
        await self.hosts.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.hosts.__aexit__(None, None, None)
        assert self.failures == []

    def _code(self, id: str) -> dict[bytes, Any]:
        kind = b"function.lua" if id.startswith("app:fn_") else b"process.lua"
        return {
            b"id": id.encode(),
            b"kind": kind,
            b"source": transform(self.sources[id], id).encode(),
            b"method": b"main",
            b"modules": [b"time"],
            b"imports": {},
            b"version": 1,
        }

    def _exited(self, exit: Exit) -> None:
        self.exits[exit.pid] = exit

    @property
    def host(self) -> Host:
        """The host of the tests."""
        return self.hosts._running[HOST]

    @property
    def slots(self) -> list[int]:
        return [worker.vm.slot for worker in self.host.workers]

    def at(self, slot: int) -> bytes:
        """The address of one worker."""
        return f"{{n1@{HOST}|1-{base36(slot)}}}".encode()

    async def put(self, **host: Any) -> None:
        """Make the host what these fields of its block say."""
        await self.hosts.put(host_entry(**host))

    async def spawn(self, name: str, *args: Any, at: bytes = ADDRESS) -> bytes:
        """Start a process, monitored by the test."""
        return await self.port.spawn(at, f"app:{name}", list(args), {b"monitor": True}, timeout=PATIENCE)

    async def send(self, pid: bytes, topic: str, *payloads: Any) -> None:
        await self.port.send(pid, topic, list(payloads), timeout=PATIENCE)

    def post(self, pid: bytes, topic: str, *payloads: Any) -> None:
        """Send without waiting for the mailbox."""
        self.port.cast([int(Kind.MESSAGE), pid, self.port.pid, 0, topic.encode(), list(payloads), b"", 0])

    async def exit(self, pid: bytes) -> Exit:
        await self.until(lambda: pid in self.exits, f"{pid!r} to end")
        return self.exits[pid]

    async def result(self, pid: bytes) -> Any:
        """What the process returned."""
        exit = await self.exit(pid)
        assert exit.error is None, exit.error
        return to_text(exit.value)

    async def until(self, holds: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            await asyncio.sleep(0.01)
