"""Stopping in good order, also when something does not want to stop, and before the node is ready."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from node.main import SAME_SIGNAL
from tests.chaos.nodes import APP, Cluster, Node, eventually
from tests.cluster.processes import wippy

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

STUBBORN = ("-o", "app:stubborn:lifecycle.auto_start=true")


async def test_a_service_that_ignores_cancel_is_killed_and_only_then_is_the_lease_given_back(cluster: Cluster) -> None:
    node = cluster.start("n1", *STUBBORN)
    await node.ready()

    async def runs() -> bool:
        return any(row["service"] == "app:stubborn" and row["pid"] for row in await cluster.services("n1"))

    await eventually(runs, within=10, what="the stubborn service runs")
    (member,) = (await cluster.members()).values()
    node.signal(signal.SIGTERM)
    asked_at = time.monotonic()
    await node.says("a second signal ends it at once")

    async def released() -> bool:
        return await cluster.etcd.get(cluster.keys.service("app:stubborn", 0)) is None

    await eventually(released, within=8, what="its claim is gone")
    took = time.monotonic() - asked_at
    assert took > 2.0, f"released after {took:.2f} s: before the process was killed"
    assert "service does not stop; killing it" in node.err
    assert await node.ended(within=10) == 0
    assert member.lease not in await leases(cluster)
    assert not await cluster.members()
    node.check_log()


async def leases(cluster: Cluster) -> set[int]:
    found = await cluster.etcd.range(cluster.keys.prefix)
    return {kv.lease for kv in found.kvs if kv.lease}


async def test_a_second_signal_ends_the_node_at_once(cluster: Cluster) -> None:
    node = cluster.start("n1", *STUBBORN, "-o", "app:stubborn:lifecycle.stop_timeout=60s")
    await node.ready()
    await node.says("app:stubborn")
    node.signal(signal.SIGINT)
    await node.says("a second signal ends it at once")
    await asyncio.sleep(2 * SAME_SIGNAL)  # one that follows at once counts as the first one told twice
    node.signal(signal.SIGINT)
    assert await node.ended(within=2) == 130


async def test_a_node_that_waits_for_its_name_stops_when_it_is_told_to(cluster: Cluster) -> None:
    holder = cluster.start("n1")
    await holder.ready()
    waiting = cluster.start("n1")
    await waiting.says("the node's name is taken")
    waiting.signal(signal.SIGTERM)
    assert await waiting.ended(within=5) == 0
    assert "stopping before the node is ready" in waiting.err
    waiting.check_log()
    assert list(await cluster.members()) == ["n1"]
    holder.signal(signal.SIGTERM)
    assert await holder.ended(within=10) == 0


async def test_a_node_ends_in_order_when_its_parent_is_gone(cluster: Cluster) -> None:
    theirs, ours = os.pipe()
    os.set_inheritable(theirs, True)
    try:
        node = Inheriting(cluster, theirs)
        with node:
            await node.ready()
            os.close(ours)
            assert await node.ended(within=10) == 0
        assert not await cluster.members()
        node.check_log()
    finally:
        os.close(theirs)


class Inheriting(Node):
    """A node that has one of our descriptors."""

    def __init__(self, cluster: Cluster, descriptor: int) -> None:
        options = ("--parent-fd", str(descriptor))
        super().__init__(cluster.directory, "n9", cluster.servers, cluster.name, *options)
        self.inherited = (descriptor,)


@pytest.mark.parametrize("missing", ["etcd", "nats"])
async def test_a_node_without_one_of_its_servers_says_so_once_and_ends(cluster: Cluster, missing: str) -> None:
    gone = cluster.servers.etcd if missing == "etcd" else cluster.servers.nats
    await gone.stop()
    node = cluster.start("n1")
    assert await node.ended(within=20) == 1
    errors = [line for line in node.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, node.err
    assert str(gone.port) in errors[0]
    assert "Traceback" not in node.err


async def test_what_a_node_can_not_start_with_is_one_clear_error(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "_index.yaml").write_text(
        "version: '1.0'\nnamespace: app\nentries:\n  - name: x\n    kind: process.service\n    process: app:none\n"
    )
    urls = ("--nats", cluster.servers.nats_url, "--etcd", cluster.servers.etcd_url, "--cluster", cluster.name)
    ended = wippy(tmp_path, "run", "bad", "--node", "n1", *urls, code=1)
    assert "app:x" in ended.stderr
    port = cluster.servers.nats.port
    taken = ("--set", "prometheus.enabled=true", "--set", f"prometheus.address=127.0.0.1:{port}")
    ended = wippy(tmp_path, "run", str(APP), "--node", "n1", *urls, *taken, code=1)
    assert f"port {port} is taken" in ended.stderr
    assert not await cluster.members()


async def test_a_joining_node_with_other_files_says_once_what_differs(cluster: Cluster) -> None:
    await cluster.start_all(["n1"])
    joining = cluster.start("n2", "-o", "app:stubborn:lifecycle.stop_timeout=3s")
    await joining.ready()
    told = [line for line in joining.err.splitlines() if "files and registry differ" in line]
    assert len(told) == 1
    assert "app:stubborn differs" in told[0]
