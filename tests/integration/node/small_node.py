"""A node in small: one VM with the real modules behind it, on the shared servers.

``Lua`` runs Lua text as a process and gives what it returned; ``small_node`` makes one. What it
lacks of a node: links, hosts from entries, supervision.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.bus import Bus
from cluster.embedded import EmbeddedServers
from cluster.envelope import error_map, to_text
from cluster.etcd import Etcd, PrefixWatch
from cluster.events import EventBus
from cluster.keys import Keys
from cluster.locks import Locks
from cluster.members import Members
from cluster.names import Names
from cluster.registry import Entry, Registry
from cluster.subjects import Subjects
from cluster.tasks import Tasks
from node.env import EnvRegistry
from node.groups import Groups
from node.host.vm import Vm, VmConfig
from node.lua.dialect import transform
from node.modules import Dispatcher, load_halves
from node.modules.env import EnvModule
from node.modules.events import EventsModule
from node.modules.halves import MODULES
from node.modules.io import IoModule
from node.modules.locks import LocksModule
from node.modules.logger import LoggerModule
from node.modules.names import NamesModule
from node.modules.permits import EVERY_NAMESPACE, MOVE, Permits
from node.modules.pg import PgModule
from node.modules.process import ProcessModule
from node.modules.registry import RegistryModule
from node.modules.store import StoreModule
from node.modules.system import Facts, SystemModule
from node.modules.time import TimeModule
from node.output import Output
from node.stores import Namespaces, Stores
from node.system_events import registry_events

NODE, HOST = "node-1", "app:processes"
PARENT = b"{node-1@node:test|1-1s}"

ENTRIES = (
    Entry("app:terminal", "terminal.host"),
    Entry("app:memory", "env.storage.memory"),
    Entry("app:level", "env.variable", {}, {"variable": "LOG_LEVEL", "storage": "app:memory", "default": "info"}),
    Entry("app:counters", "store.memory"),
    Entry("app:shared", "store.kv.raft", {}, {"namespace": "shared"}),
    Entry("app:copied", "store.kv.crdt", {}, {"namespace": "copied"}),
)


class LuaFailed(Exception):
    """The process ended with an error; the map is its error."""


class Screen(Output):
    """Keeps what is put."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[tuple[int, bytes]] = []

    def put(self, descriptor: int, data: bytes) -> None:
        self.puts.append((descriptor, data))

    @property
    def text(self) -> str:
        return b"".join(data for _, data in self.puts).decode()


@dataclass
class Lua:
    """Runs Lua text in a VM."""

    etcd: Etcd
    registry: Registry
    events: EventBus
    stores: Stores
    dispatcher: Dispatcher
    screen: Screen
    io: IoModule
    names: Names
    tasks: Tasks
    fences: dict[bytes, tuple[str, int]]
    sources: dict[bytes, str] = field(default_factory=dict)
    exits: dict[bytes, asyncio.Future[Any]] = field(default_factory=dict)
    replies: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    others: list[list[Any]] = field(default_factory=list)
    count: int = 0
    vm: Any = None

    def take(self, vm: Vm, items: list[list[Any]]) -> None:
        for item in items:
            match item[0]:
                case 50 | 51 | 53 | 56:
                    self.dispatcher.take(vm, item)
                    if item[0] == 53:
                        self.tasks.start(self.names.release(item[1].decode()), "release names")
                case 52 if item[2] in self.sources:
                    vm.post([40, item[1], None, [self._package(item[2])]])
                case 52:
                    vm.post([40, item[1], error_map("NotFound", f"no entry {item[2].decode()}"), []])
                case 3:
                    self.replies[item[3]].set_result((item[4], item[5]))
                case 8:
                    self.exits.setdefault(item[2], asyncio.get_running_loop().create_future()).set_result(item)
                case _:
                    self.others.append(item)

    def _package(self, id: bytes) -> dict[bytes, Any]:
        source = transform(self.sources[id], id.decode())
        return {
            b"id": id,
            b"kind": b"process.lua",
            b"source": source.encode(),
            b"method": b"main",
            b"modules": [name.encode() for name in sorted(MODULES)],
            b"imports": {},
            b"version": 0,
        }

    async def start(self, source: str, *args: Any) -> bytes:
        """Start ``source`` as a process; its PID."""
        self.count += 1
        id = f"app:test{self.count}".encode()
        self.sources[id] = source
        ref = self.count * 64
        reply = self.replies[ref] = asyncio.get_running_loop().create_future()
        host = f"{{{NODE}@{HOST}|}}".encode()
        self.vm.post([2, host, PARENT, ref, id, list(args), {b"monitor": True}])
        async with asyncio.timeout(10):
            status, value = await reply
        assert status == 0, value
        pid: bytes = value
        return pid

    async def result(self, pid: bytes) -> Any:
        """What the process returned, in text form. Raises LuaFailed."""
        ended = self.exits.setdefault(pid, asyncio.get_running_loop().create_future())
        async with asyncio.timeout(20):
            exit = await ended
        if exit[6] is not None:
            raise LuaFailed(to_text(exit[6]))
        return to_text(exit[5])

    async def __call__(self, source: str, *args: Any) -> Any:
        """Run ``source`` to its end: a chunk that returns {main = function}, or the body of main."""
        if "return {main = main}" not in source:
            source = f"local function main(...)\n{source}\nend\nreturn {{main = main}}"
        return await self.result(await self.start(source, *args))


class SureLease:
    """A lease that is never in doubt."""

    def __init__(self, lease: int) -> None:
        self.lease = lease

    def current(self) -> int:
        return self.lease

    def may_start_owned(self, lease: int) -> bool:
        return lease == self.lease


def facts(members: Members) -> Facts:
    """Of a node without hosts and services."""

    async def none() -> list[dict[str, Any]]:
        return []

    return Facts(NODE, members.all, list, none, list, lambda id: False, lambda code: None, load_halves())


async def stays(pid: str, to: str, within: float) -> dict[str, Any]:
    """There is no other node to move to."""
    return {"pid": pid, "node": NODE, "verdict": "stayed", "reason": f"node {to} is not there", "seconds": 0.0}


async def at_once(revision: int, seconds: float) -> None:
    """There is no other node to wait for."""


@asynccontextmanager
async def small_node(servers: EmbeddedServers, cluster_name: str, etcd: Etcd, directory: Path) -> AsyncIterator[Lua]:
    keys, subjects = Keys(cluster_name), Subjects(cluster_name)
    watch = PrefixWatch(etcd, keys.prefix, unloaded=[f"{keys.prefix}kv/"])
    registry = Registry(etcd, watch, keys, NODE)
    env = EnvRegistry({}, directory)
    screen = Screen()
    io = IoModule(screen, args=["one", "two words"])
    fences: dict[bytes, tuple[str, int]] = {}
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(Tasks("node"))
        lease = await etcd.grant(60)
        members = Members(watch, keys)
        locks = Locks(etcd, watch, keys, tasks)
        names = Names(etcd, watch, keys, tasks, lambda: lease.id, at_once)
        bus = await stack.enter_async_context(Bus([servers.nats_url], name=NODE, inbox=subjects.inbox(NODE)))
        stores = await stack.enter_async_context(
            Stores(etcd, keys, env.lookup, Namespaces(bus.data, subjects, NODE, 1))
        )
        events = EventBus(bus.data, subjects, NODE, 1)
        await stack.enter_async_context(watch)
        await stack.enter_async_context(registry)
        groups = Groups(NODE, 1, lambda item: lua.vm.post(item), members.all, env.lookup, tasks)
        modules = [
            RegistryModule(registry, Permits(lambda id: registry.state.get(id), env.lookup, EVERY_NAMESPACE)),
            EventsModule(events),
            EnvModule(env),
            StoreModule(stores, lambda pid: [fences[pid]] if pid in fences else []),
            io,
            LoggerModule(),
            TimeModule(),
            NamesModule(names, NODE, lambda: lease.id),
            LocksModule(locks, SureLease(lease.id)),
            PgModule(groups, lambda node: False),
            ProcessModule(
                lambda pid: fences[pid][1] if pid in fences else None,
                lambda name: None,
                stays,
                Permits(lambda id: registry.state.get(id), env.lookup, EVERY_NAMESPACE, MOVE),
            ),
            SystemModule(facts(members)),
        ]
        dispatcher = await stack.enter_async_context(Dispatcher(modules))
        await registry.publish(ENTRIES, "always", author="test")
        env.converge(registry.state.entries())
        for entry in registry.state.entries():
            if stores.handles(entry.kind):
                await stores.put(entry)
        await groups.put(Entry("app:groups", "pg.scope"))
        lua = Lua(etcd, registry, events, stores, dispatcher, screen, io, names, tasks, fences)
        vm = Vm(
            slot=1,
            node=NODE,
            incarnation=1,
            host_id=HOST,
            config=VmConfig(),
            modules=load_halves(),
            on_output=lua.take,
            on_failure=lambda vm, error: lua.others.append([vm, error]),
        )
        lua.vm = await stack.enter_async_context(vm)
        vm.post([47, [NODE.encode()]])

        def raise_events(before: Any, after: Any, changed: Any) -> None:
            for event in registry_events(before, after, changed):
                events.send_local(event.system, event.kind, event.path, event.data)

        registry.on_change(raise_events)
        names.on_change(lambda name, pid, revision: vm.post([43, name.encode(), (pid or "").encode(), revision]))
        yield lua
        assert lua.others == []


async def until(condition: Callable[[], Any]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)
