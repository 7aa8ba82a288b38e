"""Ordered streams between processes of two nodes while their NATS server is killed again and again.

Nothing is lost, doubled or reordered, and no link closes: what is under way waits, and senders wait with it.
``WIPPY_CHAOS=full`` makes it a million messages and twenty kills.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest

from tests.chaos.nodes import Cluster, eventually

FULL = os.environ.get("WIPPY_CHAOS") == "full"

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900 if FULL else 120)]

NODES = ("n1", "n2")
MESSAGES, KILLS, STREAMS = (1_000_000, 20, 8) if FULL else (100_000, 4, 4)
SIZE = 500
"""Bytes of padding: enough for the buffers to fill while the server is away."""


async def test_streams_survive_kills_of_nats_whole_and_in_order(cluster: Cluster) -> None:
    await cluster.start_all(NODES)
    for node in NODES:
        await eventually(lambda node=node: cluster.client.call(f"sink@{node}", "seen", {}), within=15, what="sinks")  # type: ignore[misc]
    count = MESSAGES // STREAMS
    sources = []
    for number in range(STREAMS):
        node, other = (NODES, NODES[::-1])[number % 2]
        sources.append(await cluster.client.spawn("app:source_process", f"{node}@app:processes", other, count, SIZE))
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(KILLS):
        await asyncio.sleep(dice.uniform(0.2, 1.5))
        await cluster.servers.nats.kill()
        await asyncio.sleep(dice.uniform(0.1, 2.0))
        await cluster.servers.nats.start()

    async def all_sent() -> list[dict[str, Any]]:
        answers = [await cluster.client.call(pid, "sent", {}, timeout=2.0) for pid in sources]
        return [answer.value for answer in answers]

    sent = await eventually(all_sent, within=300 if FULL else 60, what="all was sent")
    assert [one["sent"] for one in sent] == [count] * STREAMS, sent

    async def taken(node: str) -> dict[str, Any] | None:
        seen = (await cluster.client.call(f"sink@{node}", "seen", {}, timeout=2.0)).value
        return seen if seen["taken"] >= MESSAGES // 2 else None

    for node in NODES:
        seen = await eventually(lambda node=node: taken(node), within=60, what=f"all arrived at {node}")  # type: ignore[misc]
        assert seen["taken"] == MESSAGES // 2
        assert not seen["wrong"]
        assert set(seen["last"].values()) == {count}
    for node in cluster.nodes.values():
        assert "link closed" not in node.err
        assert "Traceback" not in node.err
