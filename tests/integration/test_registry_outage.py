"""The registry while etcd is killed and comes back.

This etcd writes to its disk: without fsync, as embedded servers run, a kill may take back what was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
import pytest_asyncio

from cluster.embedded import EmbeddedServers
from cluster.errors import OutcomeUnknown, Unavailable
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.registry import Create, Entry, Folding, Registry, Update, collect
from cluster.registry.store import Store

pytestmark = [pytest.mark.servers, pytest.mark.chaos]
KEYS = Keys("outage")


class Node:
    def __init__(self, etcd: Etcd, name: str) -> None:
        self.watch = PrefixWatch(etcd, KEYS.prefix, unloaded=[KEYS.blobs])
        self.registry = Registry(etcd, self.watch, KEYS, name, snapshot_every=7, patience=timedelta(seconds=20))
        self.folding = Folding(etcd, self.watch, KEYS, self.registry, lambda: 0)


async def write(registry: Registry, name: str, told: dict[str, int], unknown: set[str], done: asyncio.Event) -> None:
    """Changes an entry of its own until told to stop; every message is used once."""
    number = 0
    while not done.is_set():
        message = f"{name}-{number}"
        entry = Entry(f"app:{name}", "registry.entry", {}, {"n": number})
        try:
            change = Update(entry) if entry.id in registry.state else Create(entry)
            told[message] = (await registry.commit([change], name, message)).version
        except OutcomeUnknown:
            unknown.add(message)
        except Unavailable:
            pass  # nothing was applied: the next number tries again
        number += 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def durable_etcd(binaries: None) -> AsyncIterator[EmbeddedServers]:
    async with EmbeddedServers(with_nats=False, etcd_args=["--unsafe-no-fsync=false"]) as servers:
        yield servers


async def test_commits_survive_kills_of_etcd_and_tell_the_truth(durable_etcd: EmbeddedServers) -> None:
    told: dict[str, int] = {}
    unknown: set[str] = set()
    done = asyncio.Event()
    async with AsyncExitStack() as stack:
        nodes = []
        for name in ("a", "b"):
            client = await stack.enter_async_context(Etcd([durable_etcd.etcd_url], timeout=timedelta(seconds=2)))
            node = Node(client, name)
            for part in (node.watch, node.registry, node.folding):
                await stack.enter_async_context(part)  # type: ignore[arg-type]
            nodes.append(node)
        etcd = await stack.enter_async_context(Etcd([durable_etcd.etcd_url]))
        async with asyncio.TaskGroup() as group:
            for i, node in enumerate([*nodes, *nodes]):
                group.create_task(write(node.registry, f"w{i}", told, unknown, done))
            for _ in range(3):
                before = len(told)
                await until(lambda before=before: len(told) >= before + 10)  # type: ignore[misc]
                await durable_etcd.etcd.kill()
                await asyncio.sleep(0.2)
                await durable_etcd.etcd.restart()
            await etcd.put(KEYS.overlay("app:w0"), b'{"over": true}')
            done.set()
        await until(lambda: all(node.registry.state.overlays for node in nodes))
        head = (await Store(etcd, KEYS).head()).version
        changes = await Store(etcd, KEYS).changes()
        assert sorted(changes) == list(range(head + 1))
        messages = [record.message for record in changes.values() if record.overlay is None]
        assert len(messages) == len(set(messages))
        assert {message: changes[version].message for message, version in told.items()} == {m: m for m in told}
        assert set(messages) <= told.keys() | unknown
        state = await Store(etcd, KEYS).load((await Store(etcd, KEYS).head()).version)
        for node in nodes:
            assert (await node.registry.reached(state.version)).payload() == state.payload()
        await collect(etcd, KEYS)
        assert (await Store(etcd, KEYS).load(state.version)).payload() == state.payload()
