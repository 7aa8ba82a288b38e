"""Consoles on one node with real VMs: their queries as a client asks them, and no NATS, etcd or registry."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from cluster.envelope import Kind, to_text
from cluster.pid import slot_of
from cluster.registry import Entry
from cluster.tasks import Tasks
from node.console import (
    HOST_ENTRY,
    PROMPT,
    ConsoleModule,
    Consoles,
    Surroundings,
    console_halves,
    prompt_package,
)
from node.host import VmConfig
from node.hosts import Hosts
from node.limits import sizing
from node.lua.dialect import transform
from node.modules import Dispatcher, load_halves
from node.modules.time import TimeModule
from node.router import Router
from tests.unit.node.hostworld import Nobody

HOST = "app:processes"
ENTRIES = [("app:worker", "process.lua"), ("app:lib", "library.lua"), ("app:limits", "registry.entry")]


class Console:
    """One session, as its client has it."""

    def __init__(self, world: ConsoleWorld, opened: dict[str, Any], client: str) -> None:
        self.world = world
        self.id = str(opened["session"])
        self.pid = str(opened["pid"])
        self.client = client
        self.line = 0
        self.seen = 0
        self.events: list[dict[str, Any]] = []

    async def ask(self, op: str, **fields: Any) -> Any:
        return await self.world.ask(f"console_{op}", self.client, session=self.id, **fields)

    async def poll(self, wait: float = 0.2) -> list[dict[str, Any]]:
        answer = await self.ask("poll", after=self.seen, wait=wait)
        self.pid = answer["pid"]
        for event in answer["events"]:
            self.seen = event["n"]
            self.events.append(event)
        return list(answer["events"])

    async def until(self, kind: str, seconds: float = 20.0) -> dict[str, Any]:
        """The next event of that kind."""
        async with asyncio.timeout(seconds):
            while True:
                for at, event in enumerate(self.events):
                    if event["kind"] == kind:
                        del self.events[: at + 1]
                        return event
                await self.poll()

    async def begin(self, text: str) -> None:
        self.line += 1
        await self.ask("line", number=self.line, text=text)

    async def run(self, text: str) -> tuple[bool, list[tuple[str, str]]]:
        """Run a line: whether it went well, and what was shown until it was done."""
        await self.begin(text)
        shown: list[tuple[str, str]] = []
        async with asyncio.timeout(20):
            while True:
                while self.events:
                    event = self.events.pop(0)
                    if event["kind"] == "done":
                        assert event["number"] == self.line
                        return bool(event["ok"]), shown
                    shown.append((event["kind"], event["text"]))
                await self.poll()

    async def value(self, text: str) -> str:
        """What a line shows that goes well."""
        ok, shown = await self.run(text)
        assert ok, shown
        return "\n".join(text for kind, text in shown if kind == "value")


class ConsoleWorld:
    """``async with`` runs the node."""

    def __init__(self, **sources: str) -> None:
        nobody: Any = Nobody()
        self.sources = {f"app:{name}": source for name, source in sources.items()}
        self.enabled = True
        self.connected = True
        self.router = Router("n1", 1, nobody, nobody)
        self.tasks = Tasks("test")
        self.consoles = Consoles(
            Surroundings(
                node="n1",
                enabled=lambda: self.enabled,
                reachable=self._reachable,
                start_host=lambda: self.hosts.put(HOST_ENTRY),
                stop_host=lambda: self.hosts.remove(HOST_ENTRY.id),
                entries=lambda: ENTRIES,
                names=lambda: ["worker@n1", "counter"],
                trace=lambda pid: self.hosts.trace(pid, slot_of(pid.encode())),
            ),
            self.router.ports,
            self.tasks,
        )
        self.failures: list[BaseException] = []
        self.hosts = Hosts(
            "n1",
            1,
            self.router,
            Dispatcher([TimeModule(), ConsoleModule(self.consoles)]),
            {**load_halves(), **console_halves()},
            VmConfig(),
            self._code,
            lambda entry, config: sizing(entry, config, lambda name: None),
            dict,
            nobody,
            lambda what, error: self.failures.append(error),
            set(),
            nobody,
        )
        self.port = self.router.ports.open("node:test")

    async def __aenter__(self) -> Self:
        await self.hosts.__aenter__()
        await self.hosts.put(Entry(HOST, "process.host", {}, {}))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.tasks.close()
        await self.hosts.__aexit__(None, None, None)
        assert self.failures == []

    async def _reachable(self) -> bool:
        return self.connected

    def _code(self, id: str) -> dict[bytes, Any]:
        if id == PROMPT:
            return prompt_package(1)
        if id not in self.sources:
            raise LookupError(f"no entry {id!r}")
        kind = b"library.lua" if id.startswith("app:lib") else b"process.lua"
        return {
            b"id": id.encode(),
            b"kind": kind,
            b"source": transform(self.sources[id], id).encode(),
            b"method": b"main",
            b"modules": [b"time"],
            b"imports": {},
            b"version": 1,
        }

    async def ask(self, op: str, client: str = "client-1", **fields: Any) -> Any:
        return await self.consoles.ops[op]({"op": op, "client": client, **fields})

    async def open(self, client: str = "client-1") -> Console:
        return Console(self, await self.ask("console_open", client, who="ann@desk"), client)

    async def spawn(self, id: str, *args: Any) -> bytes:
        address = f"{{n1@{HOST}|}}".encode()
        return await self.port.spawn(address, id, list(args), {b"monitor": True}, timeout=20)

    async def send(self, pid: str, topic: str, *payloads: Any) -> None:
        await self.port.send(pid.encode(), topic, list(payloads), timeout=20)

    async def cancel(self, pid: str, reason: str) -> None:
        await self.port.request(Kind.CANCEL, pid.encode(), reason.encode(), timeout=20)

    async def prompts(self) -> list[str]:
        """The PIDs of the processes that are consoles."""
        listed = await self.hosts.processes()
        return [str(to_text(one["pid"])) for one in listed if one["entry"] == PROMPT]
