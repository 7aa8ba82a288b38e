"""Servers that go away and come back: what a node owns stops in time, everything else lives on."""

from __future__ import annotations

import signal
import time

import pytest

from cluster.errors import ClusterError
from tests.chaos.nodes import LEASE_TTL, Cluster, eventually
from tests.chaos.proxy import Proxy

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

NODES = ("n1", "n2")
AWAY = 10.0


async def test_a_node_that_is_cut_off_from_etcd_stops_owning_before_another_takes_over(cluster: Cluster) -> None:
    async with Proxy(cluster.servers.etcd.port) as way:
        cut_off = cluster.start("n1", etcd=way.url)
        await cut_off.ready()
        owner, _ = await cluster.works()
        assert owner == "n1"
        await cluster.start_all(["n2"])
        watcher = await cluster.reaches("n1")
        assert (await cluster.ask("n1", "watch", pid=await cluster.reaches("n2")))["ok"]
        former = await cluster.members()

        await way.cut()
        cut_at = time.monotonic()
        await cluster.works(without="n1", within=LEASE_TTL + 3)
        assert "service stopped" in cut_off.err, "the former owner had ended by then"
        assert "n1" not in await cluster.members()
        await cut_off.says("node n2 does not know this node's registration")
        assert "the lease of this node is lost" not in cut_off.err, "its peer told it, not etcd"
        await eventually(lambda: _passed(cut_at, AWAY), within=AWAY, what="the way was cut long enough")
        assert cut_off.process.poll() is None

        await way.mend()
        await cut_off.says("node registered again", within=15)
        assert await cluster.reaches("n1") == watcher
        now = await cluster.members()
        assert now["n1"].epoch > former["n1"].epoch
        assert (await cluster.owner())[0] == "n2"
        cluster.writes.check_one_owner()
        assert "Traceback" not in cut_off.err
        # its process must end while there is a way to etcd
        cut_off.signal(signal.SIGTERM)
        assert await cut_off.ended(within=10) == 0


async def test_after_a_restart_of_nats_everything_works_and_nothing_hangs(cluster: Cluster) -> None:
    await cluster.start_all(NODES)
    owner, pid = await cluster.works()
    (other,) = [name for name in NODES if name != owner]
    await cluster.reaches(other)
    assert (await cluster.ask(other, "watch", pid=pid))["ok"]

    await cluster.servers.nats.kill()
    for node in cluster.nodes.values():
        await node.says("NATS disconnected")
    with pytest.raises(ClusterError):
        await cluster.ask(other, "seen")
    await cluster.servers.nats.start()

    for name in NODES:
        await cluster.reaches(name, within=15)
    seen = await cluster.ask(other, "seen")
    watchers = {name: await cluster.reaches(name) for name in NODES}
    for name, peer in (NODES, NODES[::-1]):
        assert await cluster.ask(name, "watch", pid=watchers[peer]) == {"ok": True}, "a link that closed is open again"
    assert (await cluster.owner()) == (owner, pid), "what runs does not need NATS"
    for node in cluster.nodes.values():
        node.check_log()
    # what was watched over a link that closed is told; over one that went on it is not
    closed = [line for line in cluster.nodes[other].err.splitlines() if "link closed" in line]
    assert bool(seen["exits"]) == bool(closed)
    cluster.writes.check_one_owner()


async def _passed(since: float, seconds: float) -> bool:
    return time.monotonic() - since >= seconds
