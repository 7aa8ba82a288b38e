"""etcd away for longer than a lease lasts: what is owned stops, all else goes on, and services soon answer again.

Twice: killed and started again, which gives every lease its whole time anew, so that the nodes keep theirs; and out of
reach, so that all leases end meanwhile and every node registers anew. ``WIPPY_CHAOS=full`` makes it a minute, and knows
more ways to be out of reach.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.request import urlopen

import pytest

from tests.chaos.nodes import LEASE_TTL, Cluster, eventually
from tests.chaos.proxy import Proxy
from tests.cluster.processes import wippy

FULL = os.environ.get("WIPPY_CHAOS") == "full"
AWAY = 60.0 if FULL else 8.0
Deed = Callable[[], Awaitable[None]]

NODES = ("n1", "n2")
PAIRS = (NODES, NODES[::-1])
WAYS = ("cut", "held", "frozen") if FULL else ("cut",)
"""Connections end; they live on and nothing passes; etcd stands still."""
SOON = 3.0
"""Seconds after which services are to answer again; a test machine gets three times as much."""

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(240 if FULL else 120)]


class Streams:
    """Numbered messages on their way all the time: between the nodes, both ways, and within one."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._sources: dict[tuple[str, str], str] = {}

    async def begin(self) -> None:
        for pair in (*PAIRS, ("n1", "n1")):
            node, to = pair
            await eventually(partial(self._seen, to), within=15, what=f"the sink of {to} has its name")
            self._sources[pair] = await self._cluster.client.spawn(
                "app:steady_process", f"{node}@app:processes", to, "10ms"
            )

    async def _seen(self, node: str) -> dict[str, Any]:
        seen = (await self._cluster.client.call(f"sink@{node}", "seen", {}, timeout=2.0)).value
        assert not seen["wrong"], seen["wrong"]
        return dict(seen)

    async def _arrived(self, pair: tuple[str, str]) -> bool:
        pid = self._sources[pair]
        said = (await self._cluster.client.call(pid, "steady", {}, timeout=2.0)).value
        assert said["refused"] == 0, f"from {pair[0]} to {pair[1]}: {said}"
        seen = await self._seen(pair[1])
        return bool(seen["last"].get(pid, 0) >= said["sent"] > AWAY * 20)

    async def check_nothing_is_lost(self) -> None:
        for pair in self._sources:
            await eventually(partial(self._arrived, pair), within=15, what=f"all from {pair[0]} arrived at {pair[1]}")


async def metric(cluster: Cluster, node: str, line: str) -> float:
    """The value of one line of a node's metrics."""
    found = re.search(r"metrics=(\S+)", cluster.nodes[node].err)
    assert found is not None

    def read() -> str:
        with urlopen(found[1], timeout=5) as answer:
            return str(answer.read().decode())

    text = await asyncio.to_thread(read)
    value = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    assert value is not None, f"no {line} in the metrics of {node}"
    return float(value[1])


async def check_goes_on(cluster: Cluster, seconds: float) -> None:
    """Messages between the nodes, and within, flow all the time; nothing owned does."""
    began = time.monotonic()
    lines = ['wippy_messages_total{path="remote_in"}', 'wippy_messages_total{path="local"}']
    before: dict[tuple[str, str], float] = {}
    while time.monotonic() - began < seconds:
        await asyncio.sleep(2.0)
        for node, line in (("n1", lines[0]), ("n2", lines[0]), ("n1", lines[1])):
            now = await metric(cluster, node, line)
            assert now > before.get((node, line), 0.0), f"{line} of {node} stands still at {now}"
            before[node, line] = now
    assert all(node.process.poll() is None for node in cluster.nodes.values())


async def check_can_be_looked_at(cluster: Cluster) -> None:
    """What asks the nodes works without etcd: they say who there is."""
    urls = ("--nats", cluster.servers.nats_url, "--etcd", cluster.servers.etcd_url, "--cluster", cluster.name)
    shown = await asyncio.to_thread(wippy, cluster.directory, "ps", "--json", *urls)
    assert {row["node"] for row in json.loads(shown.stdout)} == set(NODES)
    assert "etcd does not answer" in shown.stderr


async def answers(cluster: Cluster, former: str) -> bool:
    """Whether the service answers, and is another process than before: that one had to end."""
    return bool((await cluster.client.call("owner", "owner", {}, timeout=0.5)).value["pid"] != former)


async def outage(cluster: Cluster, way: str, end: Deed, back: Deed) -> None:
    """etcd goes away and comes back; how soon the service answers again is printed and checked."""
    owner, pid = await cluster.works()
    await end()
    away_since = time.monotonic()
    node = cluster.nodes[owner]
    await node.says("owned work is cancelled", within=LEASE_TTL)
    await node.says("service stopped", within=LEASE_TTL)
    assert time.monotonic() - away_since < LEASE_TTL, "it stops before its lease can have ended"
    if cluster.servers.etcd.pid is None:
        await check_can_be_looked_at(cluster)
    await check_goes_on(cluster, AWAY - (time.monotonic() - away_since))
    await back()
    back_at = time.monotonic()
    await eventually(partial(answers, cluster, pid), within=30, what="the service answers")
    took = time.monotonic() - back_at
    print(json.dumps({"etcd": way, "away": AWAY, "answers_after": round(took, 2)}))
    assert took < 3 * SOON, f"the service answers {took:.1f} s after etcd does"
    await cluster.works()
    cluster.writes.check_one_owner()


async def test_killed_and_started_again_the_nodes_keep_their_leases_and_links(cluster: Cluster) -> None:
    await cluster.start_all(NODES)
    watchers = {name: await cluster.reaches(name) for name in NODES}
    for name, other in PAIRS:
        assert (await cluster.ask(name, "watch", pid=watchers[other]))["ok"]
    streams = Streams(cluster)
    await streams.begin()
    former = await cluster.members()

    await outage(cluster, "killed", cluster.servers.etcd.kill, cluster.servers.etcd.start)
    await streams.check_nothing_is_lost()
    for name in NODES:
        assert await cluster.reaches(name, within=15) == watchers[name], "processes that own nothing live on"
        assert not (await cluster.ask(name, "seen"))["exits"], "no monitor fired: nobody ended"
        assert "link closed" not in cluster.nodes[name].err
        assert "Traceback" not in cluster.nodes[name].err
    assert {name: one.epoch for name, one in (await cluster.members()).items()} == {
        name: one.epoch for name, one in former.items()
    }


async def start_behind(cluster: Cluster, proxy: Proxy) -> None:
    """Start the nodes with their way to etcd through ``proxy``."""
    for name in NODES:
        cluster.start(name, etcd=f"http://127.0.0.1:{proxy.port}")
    for name in NODES:
        await cluster.nodes[name].ready()


@pytest.mark.parametrize("way", WAYS)
async def test_out_of_reach_until_all_leases_ended_the_nodes_register_anew(cluster: Cluster, way: str) -> None:
    async with Proxy(cluster.servers.etcd.port) as proxy:

        async def end() -> None:
            match way:
                case "cut":
                    await proxy.cut()
                case "held":
                    proxy.hold()
                case _:
                    cluster.servers.etcd.signal(signal.SIGSTOP)

        async def back() -> None:
            await proxy.mend()
            cluster.servers.etcd.signal(signal.SIGCONT)

        await start_behind(cluster, proxy)
        watchers = {name: await cluster.reaches(name) for name in NODES}
        streams = Streams(cluster)
        await streams.begin()
        former = await cluster.members()

        await outage(cluster, way, end, back)
        for name in NODES:
            await cluster.nodes[name].says("node registered again")
            assert await cluster.reaches(name, within=15) == watchers[name], "processes that own nothing live on"
            assert "Traceback" not in cluster.nodes[name].err
        now = await cluster.members()
        for name in NODES:
            assert now[name].epoch > former[name].epoch
            assert now[name].incarnation == former[name].incarnation
        for name, other in PAIRS:
            assert (await cluster.ask(name, "watch", pid=watchers[other]))["ok"], "they reach each other again"


async def test_with_nats_away_as_well_nodes_live_on_and_come_back_with_the_last_of_them(cluster: Cluster) -> None:
    async with Proxy(cluster.servers.etcd.port) as proxy:
        await start_behind(cluster, proxy)
        _, pid = await cluster.works()
        watchers = {name: await cluster.reaches(name) for name in NODES}
        await proxy.cut()
        await cluster.servers.nats.kill()
        for name in NODES:
            await cluster.nodes[name].says("the lease may be over", within=LEASE_TTL + 5)
        await asyncio.sleep(AWAY / 4)
        assert all(node.process.poll() is None for node in cluster.nodes.values())

        # a lease is new at once, but no registration is complete without NATS
        await proxy.mend()
        for name in NODES:
            await cluster.nodes[name].says("can't register again yet", within=15)
        await asyncio.sleep(AWAY / 4)
        await cluster.servers.nats.start()
        back_at = time.monotonic()
        await eventually(partial(answers, cluster, pid), within=30, what="the service answers")
        took = time.monotonic() - back_at
        print(json.dumps({"etcd and nats": "away", "answers_after": round(took, 2)}))
        assert took < 3 * SOON, f"the service answers {took:.1f} s after the last server is back"
        for name in NODES:
            assert await cluster.reaches(name, within=15) == watchers[name], "processes that own nothing live on"
            assert "Traceback" not in cluster.nodes[name].err
        cluster.writes.check_one_owner()
