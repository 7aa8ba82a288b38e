"""A node that hangs for whatever cause, its main loop or a step of a VM: it ends itself, and its lease stays."""

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
from node.router import Router

step, deliver = Kernel.step_packed, Router.deliver

def hanging_step(kernel, texts, *more):
    if any(b"hang in a step" in text for text in texts):
        time.sleep(120)
    return step(kernel, texts, *more)

def hanging_delivery(router, envelope):
    if b"hang in the main loop" in envelope:
        time.sleep(120)
    deliver(router, envelope)

Kernel.step_packed, Router.deliver = hanging_step, hanging_delivery
from node.cli.app import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def _hanging_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program of a node be one in which certain messages block what they come through."""
    enter = Node.__enter__

    def entered(node: Node) -> Node:
        at = node._command.index("run")
        node._command = [sys.executable, "-c", HANGING, *node._command[at:]]
        return enter(node)

    monkeypatch.setattr(Node, "__enter__", entered)


@pytest.mark.usefixtures("_hanging_nodes")
@pytest.mark.parametrize("message", ["hang in a step", "hang in the main loop"])
async def test_what_hangs_ends_its_node_without_giving_the_lease_back(cluster: Cluster, message: str) -> None:
    node = cluster.start("n1", "--set", "cluster.wedge_limit=3s")
    await node.ready()
    _, pid = await cluster.works()
    (member,) = (await cluster.members()).values()
    hung_at = time.monotonic()
    with pytest.raises(ClusterError):
        await cluster.client.send(pid, message, 1, timeout=1.0)
    assert await node.ended(within=20) == EXIT_CODE
    took = time.monotonic() - hung_at
    assert took > 3.0, "it ended before its limit"
    last = node.err.rstrip().splitlines()[-1]
    if "a step of VM" in last:
        assert message == "hang in a step"
        assert "VM is in one step" in node.err, "the watchdog has said nothing"
    else:  # also a step, when it was a short one's turn: those are done on the main loop
        assert "the main loop has not ticked" in last, f"the last line was {last!r}"
    kept = await cluster.etcd.get(cluster.keys.node("n1"))
    assert kept is not None, "its lease was given back"
    assert kept.create_revision == member.epoch
    assert await cluster.etcd.get(cluster.keys.service("app:owner", 0)) is not None

    async def gone() -> bool:
        return await cluster.etcd.get(cluster.keys.service("app:owner", 0)) is None

    await eventually(gone, within=LEASE_TTL * 3, what="its claim ends with the lease")
