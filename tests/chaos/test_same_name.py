"""Two processes under one node name: the second waits, and takes over only when the first one's lease has ended.

The first, when it was only frozen, comes back as the one that waits, and does its successor no harm.
"""

from __future__ import annotations

import signal

import pytest

from tests.chaos.nodes import LEASE_TTL, Cluster, eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

TAKEN = "the node's name is taken; waiting until that registration ends"


async def reaches_incarnation(cluster: Cluster, incarnation: int) -> None:
    """Wait until a message to the watcher of n1 arrives at the process of this incarnation."""

    async def probe() -> bool:
        return f"|{incarnation}-" in (await cluster.ask("n1", "seen"))["pid"]

    await eventually(probe, within=15, what=f"the watcher of incarnation {incarnation} answers")


async def test_the_second_waits_and_the_first_does_no_harm_when_it_comes_back(cluster: Cluster) -> None:
    await cluster.start_all(("n2", "n1"))
    first = cluster.nodes["n1"]
    held = (await cluster.members())["n1"]
    await reaches_incarnation(cluster, held.incarnation)
    second = cluster.start("n1")
    await second.says(TAKEN)
    assert f"incarnation {held.incarnation} (epoch {held.epoch}," in second.err
    assert (await cluster.members())["n1"] == held
    assert second.process.poll() is None

    await first.freeze()
    await second.ready(within=LEASE_TTL + 10)
    taken_over = (await cluster.members())["n1"]
    assert taken_over.epoch > held.epoch
    assert taken_over.incarnation > held.incarnation
    await reaches_incarnation(cluster, taken_over.incarnation)
    closes = cluster.nodes["n2"].err.count("link closed")

    first.signal(signal.SIGCONT)
    await first.says(TAKEN)
    assert (await cluster.members())["n1"].epoch == taken_over.epoch
    await reaches_incarnation(cluster, taken_over.incarnation)
    assert cluster.nodes["n2"].err.count("link closed") == closes, "the successor's link is its own"
    assert "link closed" not in second.err

    second.signal(signal.SIGTERM)
    assert await second.ended(within=15) == 0
    await first.says("node registered again")
    back = (await cluster.members())["n1"]
    assert back.epoch > taken_over.epoch
    assert back.incarnation == held.incarnation
    await reaches_incarnation(cluster, held.incarnation)
    cluster.writes.check_one_owner()
    second.check_log()
    assert "Traceback" not in first.err
