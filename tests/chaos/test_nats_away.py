"""NATS away: for as long as links wait nothing is lost; past that both sides close, and everyone concerned is told.

``WIPPY_CHAOS=full`` keeps it away for a minute.
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial

import pytest

from tests.chaos.nodes import Cluster, eventually

FULL = os.environ.get("WIPPY_CHAOS") == "full"
AWAY = 60.0 if FULL else 12.0
NODES = ("n1", "n2")
PAIRS = (NODES, NODES[::-1])
LINK_TIMEOUT = 6.0

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(180 if FULL else 90)]


async def sinks(cluster: Cluster) -> None:
    for node in NODES:

        async def seen(node: str = node) -> bool:
            return (await cluster.client.call(f"sink@{node}", "seen", {})).value is not None

        await eventually(seen, within=15, what="the sinks have their names")


async def test_messages_wait_for_nats_and_none_is_lost(cluster: Cluster) -> None:
    await cluster.start_all(NODES)
    await sinks(cluster)
    steady = {}
    for node, other in PAIRS:
        host = f"{node}@app:processes"
        steady[node] = await cluster.client.spawn("app:steady_process", host, other, "2ms")
        await cluster.client.spawn("app:concerned_process", host, other)
    for node in NODES:
        await cluster.nodes[node].says(" concerned ")
    owner = await cluster.works()

    await cluster.servers.nats.kill()
    await asyncio.sleep(AWAY)
    written = len(cluster.writes.seen)
    await cluster.servers.nats.start()
    back_at = time.monotonic()

    async def sent(node: str) -> int:
        said = (await cluster.client.call(steady[node], "steady", {}, timeout=2.0)).value
        assert said["refused"] == 0, "a message was refused while NATS was away"
        return int(said["sent"])

    async def caught_up(node: str, other: str) -> bool:
        count = await sent(node)
        assert count > AWAY * 100, "it did not go on sending while NATS was away"
        seen = (await cluster.client.call(f"sink@{other}", "seen", {}, timeout=2.0)).value
        assert not seen["wrong"]
        return bool(seen["last"].get(steady[node], 0) >= count)

    for node, other in PAIRS:
        await eventually(partial(caught_up, node, other), within=30, what="all that was sent has arrived")
    print({"away": AWAY, "caught_up_after": round(time.monotonic() - back_at, 2)})
    assert await cluster.owner() == owner, "what is owned does not need NATS"
    assert written > AWAY * 10, "nor does the store"
    for node in NODES:
        err = cluster.nodes[node].err
        assert "link closed" not in err
        assert " told " not in err
        cluster.nodes[node].check_log()
    cluster.writes.check_one_owner()


async def test_past_the_timeout_of_links_both_sides_close_and_everyone_concerned_is_told(cluster: Cluster) -> None:
    await cluster.start_all(NODES, "--set", f"cluster.link_timeout={LINK_TIMEOUT:g}s")
    await sinks(cluster)
    for node, other in PAIRS:
        await cluster.client.spawn("app:concerned_process", f"{node}@app:processes", other)
    for node in NODES:
        await cluster.nodes[node].says(" concerned ")

    await cluster.servers.nats.kill()
    for node, other in PAIRS:
        await cluster.nodes[node].says(f"no acknowledgement from node {other} within {LINK_TIMEOUT:g} s", within=25)
        for what in ("monitor", "link", "call"):
            await cluster.nodes[node].says(f"what={what}")
    for node in NODES:
        told = [line for line in cluster.nodes[node].err.splitlines() if " told " in line]
        assert len(told) == 3, told
        assert all("no acknowledgement" in line for line in told), told
    await cluster.servers.nats.start()

    # the links go on with their next sessions
    async def concerned_again(node: str, other: str) -> bool:
        pid = await cluster.client.spawn("app:concerned_process", f"{node}@app:processes", other)
        return str((await cluster.client.call(pid, "concerned", {})).value["sink"]).startswith(f"{{{other}@")

    for node, other in PAIRS:
        await eventually(partial(concerned_again, node, other), within=15, what=f"{node} reaches {other} again")
    for node in NODES:
        assert cluster.nodes[node].err.count(" told ") == 3
        cluster.nodes[node].check_log()
