"""Nodes that die, freeze and come back: one owner at any time, nobody waits in vain."""

from __future__ import annotations

import signal
import time

import pytest

from cluster.client import QueryFailed
from tests.chaos.nodes import LEASE_TTL, Cluster, eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

NODES = ("n1", "n2", "n3")


async def test_a_killed_node_is_replaced_its_watchers_are_told_and_its_name_can_be_used_again(cluster: Cluster) -> None:
    await cluster.start_all(NODES)
    lost, pid = await cluster.works()
    others = [name for name in NODES if name != lost]
    former = await cluster.members()
    for name in others:
        await cluster.reaches(name)
        assert (await cluster.ask(name, "watch", pid=pid))["ok"]

    cluster.nodes[lost].signal(signal.SIGKILL)
    killed_at = time.monotonic()
    again = cluster.start(lost)
    found, _ = await cluster.works(without=lost)
    took = time.monotonic() - killed_at
    assert found in others
    assert took <= LEASE_TTL + 3, f"took {took:.1f} s"
    cluster.writes.check_one_owner()
    for name in others:

        async def told(name: str = name) -> str | None:
            exits = (await cluster.ask(name, "seen"))["exits"]
            return exits[pid] if exits else None

        assert "noconnection" in await eventually(told, within=5, what=f"the monitor on {name} fired")

    await again.says("the node's name is taken; waiting")
    await again.ready()
    now = await cluster.members()
    assert now[lost].epoch > former[lost].epoch
    assert now[lost].incarnation > former[lost].incarnation
    with pytest.raises(QueryFailed, match="it ended or never was") as refused:
        await cluster.client.send(pid, "who")
    assert refused.value.code == "noproc"
    await cluster.reaches(lost)

    # one that leaves in good order is no cause for a warning, and is replaced at once
    owner, _ = await cluster.works()
    leaving = cluster.nodes[owner]
    leaving.signal(signal.SIGTERM)
    left_at = time.monotonic()
    await cluster.works(without=owner)
    assert time.monotonic() - left_at < LEASE_TTL - 1
    assert await leaving.ended(within=10) == 0
    cluster.writes.check_one_owner()
    for node in cluster.nodes.values():
        node.check_log()
        warned = [line for line in node.err.splitlines() if "WARN" in line and f"node {owner} is gone" in line]
        assert len(warned) == (1 if owner == lost and node is not again else 0), warned


async def test_a_frozen_node_comes_back_as_a_new_registration_and_owns_nothing_of_before(cluster: Cluster) -> None:
    await cluster.start_all(NODES)
    frozen, pid = await cluster.works()
    node = cluster.nodes[frozen]
    watcher = await cluster.reaches(frozen)
    former = await cluster.members()

    await node.freeze()
    stopped_at = time.monotonic()
    found, _ = await cluster.works(without=frozen, within=LEASE_TTL + 3)
    assert found != frozen
    await eventually(lambda: _passed(stopped_at, 8.0), within=9, what="8 s are over")
    node.signal(signal.SIGCONT)

    await node.says("node registered again", within=10)
    now = await cluster.members()
    assert now[frozen].epoch > former[frozen].epoch
    assert now[frozen].incarnation == former[frozen].incarnation
    assert await cluster.reaches(frozen) == watcher, "a process that owned nothing but a name lives on"
    with pytest.raises(QueryFailed, match="it ended or never was"):
        await cluster.client.send(pid, "who")
    owner, _ = await cluster.owner()
    assert owner == found

    # the node that came back is as good as any: with the other two it takes over again
    cluster.nodes[found].signal(signal.SIGKILL)
    await cluster.works(without=found)
    assert len(cluster.writes.owners()) == 3
    cluster.writes.check_one_owner()
    assert all("Traceback" not in each.err for each in cluster.nodes.values())


async def _passed(since: float, seconds: float) -> bool:
    return time.monotonic() - since >= seconds
