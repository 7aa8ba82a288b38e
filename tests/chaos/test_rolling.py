"""A rolling restart: every node is stopped in good order and started again, one after the other, under load.

Senders and receivers are processes that move, so each of them is on every node in turn. Nothing is lost, doubled or
reordered; and services that are handed over answer all the time.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.errors import ClusterError
from tests.chaos.nodes import Cluster, chaos_cluster, eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

APP = Path(__file__).parent / "rolling"
HOST = "app:processes"
NODES = ("n1", "n2", "n3")
PITCHERS = 6
CATCHERS = 12
LONGEST_SILENCE = 2.0
ASK_EVERY = 0.02


class Rolling(Cluster):
    app = APP


@pytest_asyncio.fixture
async def rolling(own_servers: EmbeddedServers, cluster_name: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with chaos_cluster(own_servers, cluster_name, tmp_path, Rolling) as cluster:
        yield cluster


class Customer:
    """Asks a service by its name again and again, and notes the longest time without an answer."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self.answers = 0
        self.longest = 0.0
        self.last_error = ""

    async def go_on(self) -> None:
        answered = time.monotonic()
        while True:
            try:
                await self._client.call(self._name, "open?", timeout=0.5)
            except ClusterError as error:
                self.last_error = str(error)
            else:
                self.answers += 1
                self.longest = max(self.longest, time.monotonic() - answered)
                answered = time.monotonic()
            await asyncio.sleep(ASK_EVERY)


async def restart(cluster: Cluster, name: str) -> None:
    node = cluster.nodes[name]
    node.signal(signal.SIGTERM)
    assert await node.ended(within=30) == 0, node.err
    node.check_log()
    started = cluster.start(name)
    await started.ready()


async def test_nothing_is_lost_and_everything_answers(rolling: Cluster) -> None:
    await rolling.start_all(NODES, "--set", "shutdown.timeout=20s")
    client = rolling.client
    catchers = [await client.spawn("app:catcher", f"{NODES[i % 3]}@{HOST}") for i in range(CATCHERS)]
    targets = [*catchers, "till"]
    await eventually(lambda: client.call("till", "state"), within=15, what="the till is open")
    pitchers = [
        await client.spawn("app:pitcher", f"{NODES[i % 3]}@{HOST}", {"n": 0, "targets": targets, "unsent": []})
        for i in range(PITCHERS)
    ]
    customers = [Customer(client, name) for name in ("till", "shop", "kiosk")]
    for name in ("shop", "kiosk"):
        await eventually(lambda name=name: client.call(name, "open?"), within=15, what=f"{name} answers")
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(customer.go_on()) for customer in customers]
        for name in NODES:
            await restart(rolling, name)
        for task in asking:
            task.cancel()

    thrown = {pid: (await client.call(pid, "rest")).value for pid in pitchers}
    assert all(one["unsent"] == [] for one in thrown.values()), thrown
    counts = {pid: one["n"] for pid, one in thrown.items()}
    assert min(counts.values()) > 100

    async def caught() -> list[dict[str, Any]] | None:
        states = [dict((await client.call(one, "state")).value) for one in targets]
        return states if all(state["last"] == counts for state in states) else None

    states = await eventually(caught, within=10, what=f"everybody has caught {counts}")
    assert all(state["wrong"] == [] for state in states)
    assert sum(state["moves"] for state in states) >= len(targets)
    for customer in customers:
        assert customer.longest < LONGEST_SILENCE, f"{customer._name}: {customer.longest:.2f} s, {customer.last_error}"
        assert customer.answers > 50
