"""Process groups of real nodes: seen everywhere, spoken to in order, empty of a node that is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.cluster.agents import Agents
from tests.cluster.processes import eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

NODES = ("node-1", "node-2", "node-3")
LEASE_TTL = 5.0


@pytest.fixture(scope="module")
def agents(binaries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    with Agents(tmp_path_factory.mktemp("groups")) as agents:
        yield agents


def pid_of(agents: Agents, node: str) -> str:
    return str(agents.tell(node, "pid")["value"])


def until_members(agents: Agents, group: str, *pids: str) -> None:
    for node in agents.pids:
        eventually(
            lambda node=node: (agents.tell(node, "members", group)["value"] or []) == sorted(pids),
            within=10,
            what=f"{node} sees the members of {group}",
        )


def test_members_are_seen_on_every_node_and_counted(agents: Agents) -> None:
    pids = [pid_of(agents, node) for node in NODES]
    for node in NODES:
        assert agents.tell(node, "join", "workers") == {"value": True}
    until_members(agents, "workers", *pids)
    assert agents.tell("node-2", "local_members", "workers") == {"value": [pids[1]]}
    assert agents.tell("node-1", "join", ["workers", "all"]) == {"value": True}
    assert agents.tell("node-1", "leave", "workers") == {"value": True}
    eventually(
        lambda: agents.tell("node-3", "which_groups") == {"value": ["all", "workers"]}, within=5, what="a second group"
    )
    until_members(agents, "workers", *pids)
    assert agents.tell("node-2", "leave", "nobody")["kind"] == "Invalid"


def test_a_broadcast_reaches_every_member_once(agents: Agents) -> None:
    for node in NODES:
        agents.tell(node, "numbers")
    assert agents.tell("node-2", "broadcast", "workers", 7) == {"value": True}
    for node in NODES:
        eventually(lambda node=node: agents.tell(node, "numbers")["value"] == [7], within=5, what=f"7 at {node}")


@pytest.mark.parametrize("node", ["node-1", "node-2"])
def test_broadcasts_keep_their_place_among_the_messages_of_their_sender(agents: Agents, node: str) -> None:
    """The member is on the node of the sender, or on another."""
    count = 600
    for each in NODES:
        agents.tell(each, "numbers")
    agents.tell("node-1", "speak", "workers", pid_of(agents, node), count)
    heard: list[int] = []

    def all_heard() -> bool:
        heard.extend(agents.tell(node, "numbers")["value"] or [])
        return len(heard) >= count

    eventually(all_heard, within=20, what="every number")
    assert heard == list(range(1, count + 1))


def test_nothing_that_nodes_told_each_other_became_a_dead_letter(agents: Agents) -> None:
    for node in NODES:
        stats = agents.ask(node, "stats")
        assert not any(stats["dead_letters"].values()), stats["dead_letters"]


def test_the_members_of_a_killed_node_leave_and_watchers_are_told(agents: Agents) -> None:
    lost = pid_of(agents, "node-3")
    seen = agents.tell("node-1", "watch", "workers")["value"]
    assert lost in seen
    os.kill(agents.pids["node-3"], signal.SIGKILL)
    left = {"kind": "member.left", "pids": [lost]}
    eventually(
        lambda: agents.tell("node-1", "events", "workers")["value"]["events"] == [left],
        within=LEASE_TTL + 10,
        what="the member left",
    )
    kept = [pid_of(agents, node) for node in ("node-1", "node-2")]
    for node in ("node-1", "node-2"):
        eventually(
            lambda node=node: agents.tell(node, "members", "workers")["value"] == sorted(kept),
            within=5,
            what="the others stay",
        )
