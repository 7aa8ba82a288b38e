"""The lease of a node that holds 20,000 names, its limit, ends: one event of the watch with all of them.

The survivors see them go, go on with everything else, and can have the names. The node, which was frozen meanwhile,
comes back without them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.errors import ClusterError
from cluster.etcd import Put
from cluster.members import Member
from cluster.names import MAX_OWN
from cluster.registry import Create, Entry
from cluster.tasks import Tasks
from tests.chaos.nodes import Cluster, chaos_cluster, eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(240)]

LOST = "n1"
SURVIVORS = ("n2", "n3")
AT_ONCE, WRITERS = 100, 4
LEASE_TTL = 15.0
"""Longer than elsewhere: the names are given while it runs."""
TTL = ("--set", f"cluster.lease_ttl={LEASE_TTL:g}s")
LONGEST = 5.0
"""Seconds for which a survivor may answer nothing while it takes the end of the names in: ten times what it should."""


@pytest_asyncio.fixture
async def cluster(servers: EmbeddedServers, cluster_name: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """On servers that nobody stops, and which keep nothing on the disk: 20,000 keys are not to wait for it."""
    gateway = SURVIVORS[0]  # a frozen node is registered for a while and would be asked
    async with (
        chaos_cluster(servers, cluster_name, tmp_path) as cluster,
        Client([servers.nats_url], [servers.etcd_url], cluster_name, gateway=gateway) as client,
    ):
        cluster.client = client
        yield cluster


def name_of(number: int) -> str:
    return f"held/{number}"


async def give_names(cluster: Cluster, member: Member, pid: str) -> None:
    """As if the process had registered them one by one, which takes longer than a test should.

    Its node must be frozen: it would give back at once what nobody there has asked for.
    """

    async def give(first: int) -> None:
        for number in range(first, MAX_OWN, AT_ONCE * WRITERS):
            keys = [cluster.keys.name(name_of(number + each)) for each in range(AT_ONCE)]
            await cluster.etcd.txn([], [Put(key, pid.encode(), lease=member.lease) for key in keys])

    await asyncio.gather(*(give(AT_ONCE * writer) for writer in range(WRITERS)))


async def find(cluster: Cluster, namer: str, number: int) -> str | None:
    found = (await cluster.client.call(namer, "find", {"name": name_of(number)}, timeout=2.0)).value
    return found.get("pid") if found else None


@asynccontextmanager
async def silences(cluster: Cluster) -> AsyncIterator[dict[str, float]]:
    """The longest time that each survivor took to answer a question about itself."""
    longest = dict.fromkeys(SURVIVORS, 0.0)
    over = asyncio.Event()

    async def ask(node: str) -> None:
        while not over.is_set():
            began = time.monotonic()
            with suppress(ClusterError):
                await cluster.client.ask(node, "health", timeout=10.0)
            longest[node] = max(longest[node], time.monotonic() - began)
            await asyncio.sleep(0.01)

    async with Tasks("silences") as tasks:
        asking = [tasks.start(ask(node), node) for node in SURVIVORS]
        yield longest
        over.set()
        await asyncio.gather(*asking)


async def test_the_names_of_a_frozen_node_go_at_once_and_everybody_lives_on(cluster: Cluster) -> None:
    await cluster.start_all((LOST,), *TTL)
    await cluster.works()
    await cluster.start_all(SURVIVORS, *TTL)
    pid = await cluster.client.spawn("app:namer_process", f"{LOST}@app:processes")
    namers = [await cluster.client.spawn("app:namer_process", f"{node}@app:processes") for node in SURVIVORS]
    async with silences(cluster) as longest:
        await cluster.nodes[LOST].freeze()
        frozen_at = time.monotonic()
        await give_names(cluster, (await cluster.members())[LOST], pid)
        for namer in namers:

            async def shown(namer: str = namer) -> bool:
                return await find(cluster, namer, MAX_OWN - 1) == pid

            await eventually(shown, within=LEASE_TTL, what="every node shows the last name")
        for namer in namers:

            async def gone(namer: str = namer) -> bool:
                first, last = await find(cluster, namer, 0), await find(cluster, namer, MAX_OWN - 1)
                return first is None and last is None

            await eventually(gone, within=LEASE_TTL + 10, what="the names are gone")
        took = time.monotonic() - frozen_at
        await cluster.works(without=LOST, within=LEASE_TTL + 10)
    silent = {node: round(seconds, 3) for node, seconds in longest.items()}
    print(json.dumps({"names": MAX_OWN, "gone_after": round(took, 1), "longest_silence": silent}))
    assert max(longest.values()) < LONGEST, f"a node answered nothing for {longest} s"

    cluster.nodes[LOST].signal(signal.SIGCONT)
    await cluster.nodes[LOST].says("node registered again", within=30)
    await cluster.reaches(LOST, within=30)

    for number, namer in enumerate(namers):
        taken = (await cluster.client.call(namer, "take", {"name": name_of(number)})).value
        assert taken == {"ok": True}
    for number, holder in enumerate(namers):
        for namer in namers:

            async def found(namer: str = namer, number: int = number, holder: str = holder) -> bool:
                return await find(cluster, namer, number) == holder

            await eventually(found, within=5, what="both nodes show who has the name now")
    async with cluster.client.registry("test", None) as registry:
        version = (await registry.commit([Create(Entry("app:after", "registry.entry"))])).version
    settled = await cluster.client.settled(version, 10.0)
    assert sorted(settled) == sorted((LOST, *SURVIVORS))
    assert all("Traceback" not in node.err for node in cluster.nodes.values())
