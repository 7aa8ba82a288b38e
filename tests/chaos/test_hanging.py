"""A Lua VM that does not come back from a step, for a cause nobody foresaw: the node ends itself, its lease stays."""

from __future__ import annotations

import sys
import time

import pytest

from cluster.errors import ClusterError
from cluster.fencing import EXIT_CODE
from tests.chaos.nodes import LEASE_TTL, Cluster, Node, eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

HANGING = """
import sys, time
from node.host.kernel import Kernel
step = Kernel.step_packed
def hanging(kernel, texts):
    if any(b"hang here" in text for text in texts):
        time.sleep(120)
    return step(kernel, texts)
Kernel.step_packed = hanging
from node.cli.app import main
sys.exit(main(sys.argv[1:]))
"""


def with_a_vm_that_hangs(node: Node) -> None:
    """Let the node's program be one in which a certain message blocks the step that brings it."""
    at = node._command.index("run")
    node._command = [sys.executable, "-c", HANGING, *node._command[at:]]


async def test_a_vm_that_hangs_ends_its_node_without_giving_the_lease_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = Node.__enter__

    def entered(node: Node) -> Node:
        with_a_vm_that_hangs(node)
        return enter(node)

    monkeypatch.setattr(Node, "__enter__", entered)
    node = cluster.start("n1", "--set", "cluster.wedge_limit=4s")
    await node.ready()
    _, pid = await cluster.works()
    (member,) = (await cluster.members()).values()
    hung_at = time.monotonic()
    with pytest.raises(ClusterError):
        await cluster.client.send(pid, "hang here", 1, timeout=1.0)
    assert await node.ended(within=20) == EXIT_CODE
    took = time.monotonic() - hung_at
    assert took > 4.0, "it ended before its limit"
    last = node.err.rstrip().splitlines()[-1]
    assert "a step of VM" in last, f"the last line was {last!r}"
    assert "VM is in one step" in node.err, "the watchdog has said nothing"
    kept = await cluster.etcd.get(cluster.keys.node("n1"))
    assert kept is not None, "its lease was given back"
    assert kept.create_revision == member.epoch
    assert await cluster.etcd.get(cluster.keys.service("app:owner", 0)) is not None

    async def gone() -> bool:
        return await cluster.etcd.get(cluster.keys.service("app:owner", 0)) is None

    await eventually(gone, within=LEASE_TTL * 3, what="its claim ends with the lease")
