"""The registry while etcd is killed and comes back.

etcd 3.5.0 to 3.5.2 may forget acknowledged writes when it is killed. A round in which that
happened (the store is at an earlier revision than was seen) says nothing and is played again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from cluster.embedded import EmbeddedServers
from cluster.errors import ClusterError, OutcomeUnknown, Unavailable
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.registry import Create, Entry, Folding, Registry, Update, collect
from cluster.registry.store import Store

pytestmark = [pytest.mark.servers, pytest.mark.chaos]
KEYS = Keys("outage")
ROUNDS = 5


class Node:
    def __init__(self, etcd: Etcd, name: str) -> None:
        self.watch = PrefixWatch(etcd, KEYS.prefix, unloaded=[KEYS.blobs])
        self.registry = Registry(etcd, self.watch, KEYS, name, snapshot_every=7, patience=timedelta(seconds=20))
        self.folding = Folding(etcd, self.watch, KEYS, self.registry, lambda: 0)


class Scene:
    """Two nodes, four writers, an etcd that is killed three times."""

    def __init__(self, servers: EmbeddedServers) -> None:
        self.servers = servers
        self.nodes: list[Node] = []
        self.told: dict[str, int] = {}
        self.unknown: set[str] = set()
        self.done = asyncio.Event()
        self.etcd_forgot = False

    async def play(self) -> None:
        async with AsyncExitStack() as stack:
            for name in ("a", "b"):
                client = await stack.enter_async_context(Etcd([self.servers.etcd_url], timeout=timedelta(seconds=2)))
                node = Node(client, name)
                await stack.enter_async_context(node.watch)
                await stack.enter_async_context(node.registry)
                await stack.enter_async_context(node.folding)
                self.nodes.append(node)
            async with asyncio.TaskGroup() as group:
                for i, node in enumerate([*self.nodes, *self.nodes]):
                    group.create_task(self.write(node.registry, f"w{i}"))
                for _ in range(3):
                    await self.kill_etcd()
                await self.overlay()
                self.done.set()
            await self.check()

    async def write(self, registry: Registry, name: str) -> None:
        """Changes an entry of its own until told to stop; every message is used once."""
        number = 0
        while not self.done.is_set():
            message = f"{name}-{number}"
            entry = Entry(f"app:{name}", "registry.entry", {}, {"n": number})
            change = Update(entry) if entry.id in registry.state else Create(entry)
            try:
                self.told[message] = (await registry.commit([change], name, message)).version
            except OutcomeUnknown:
                self.unknown.add(message)
            except Unavailable:
                await asyncio.sleep(0.01)  # nothing was applied: the next number tries again
            number += 1

    async def kill_etcd(self) -> None:
        before = len(self.told)
        await until(lambda: len(self.told) >= before + 10)
        await self.servers.etcd.kill()
        seen = max(node.watch.applied for node in self.nodes)
        await asyncio.sleep(0.2)
        await self.servers.etcd.restart()
        async with Etcd([self.servers.etcd_url]) as probe:
            self.etcd_forgot |= await probe.revision() < seen

    async def overlay(self) -> None:
        async with Etcd([self.servers.etcd_url]) as operator:
            await operator.put(KEYS.overlay("app:w0"), b'{"over": true}')

    async def check(self) -> None:
        await until(lambda: all(node.registry.state.overlays for node in self.nodes))
        async with Etcd([self.servers.etcd_url]) as etcd:
            store = Store(etcd, KEYS)
            head = (await store.head()).version
            changes = await store.changes()
            assert sorted(changes) == list(range(head + 1))
            messages = [record.message for record in changes.values() if record.overlay is None]
            assert len(messages) == len(set(messages))
            assert {message: changes[version].message for message, version in self.told.items()} == {
                message: message for message in self.told
            }
            assert set(messages) <= self.told.keys() | self.unknown
            state = await store.load(head)
            for node in self.nodes:
                assert (await node.registry.reached(head)).payload() == state.payload()
            await collect(etcd, KEYS)
            assert (await store.load(head)).payload() == state.payload()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_commits_survive_kills_of_etcd_and_tell_the_truth(binaries: None) -> None:
    for _ in range(ROUNDS):
        async with EmbeddedServers(with_nats=False, etcd_args=["--unsafe-no-fsync=false"]) as servers:
            scene = Scene(servers)
            try:
                await scene.play()
            except (AssertionError, ClusterError, ExceptionGroup, TimeoutError):
                if not scene.etcd_forgot and not any(node.watch.stats().relists for node in scene.nodes):
                    raise
            else:
                return
    pytest.fail(f"etcd forgot acknowledged writes in {ROUNDS} rounds out of {ROUNDS}")
