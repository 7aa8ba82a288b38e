"""Why a replica runs nowhere, in words an operator can act on."""

from __future__ import annotations

from cluster.avoids import Avoid
from cluster.members import Member, NodeState
from cluster.placement import Service
from cluster.quarantine import Loss
from cluster.unplaced import why_unplaced


def member(node: str, state: NodeState = NodeState.READY, **labels: str) -> Member:
    return Member(node, 1, 1, 1, 1, state, labels, "", {}, "", "")


def why(service: Service, *members: Member, avoids: list[Avoid] | None = None, first: str = "") -> str:
    return why_unplaced(service, members, avoids or [], None, first)


S = Service("app:s")


def test_a_quarantine_names_the_nodes_it_cost_and_the_way_out() -> None:
    losses = [Loss("app:s", "n1", 1, 0.0, ""), Loss("app:s", "n2", 2, 61.0, "")]
    said = why_unplaced(S, [member("n3")], [], losses)
    assert said == (
        "quarantined, because nodes hung in it (n1 at 00:00:00 UTC; n2 at 00:01:01 UTC); "
        "`wippy release app:s` lets it start again"
    )
    assert "can't be read" in why_unplaced(S, [], [], [])


def test_without_a_ready_node_their_states_are_told() -> None:
    assert why(S) == "no node is ready"
    members = (member("n1", NodeState.JOINING), member("n2", NodeState.DRAINING))
    assert why(S, *members) == "no node is ready: n1 is joining; n2 is draining"


def test_labels_nobody_has_are_told_with_those_there_are() -> None:
    service = Service("app:s", labels={"zone": "b", "disk": "ssd"})
    said = why(service, member("n1", zone="a", more="1"), member("n2"))
    assert said == "no node has the labels disk=ssd zone=b (n1 has zone=a; n2 has none of them)"


def test_nodes_with_the_labels_that_take_nothing_new_are_told() -> None:
    service = Service("app:s", labels={"zone": "b"})
    members = (member("n1", zone="a"), member("n2", NodeState.CORDONED, zone="b"))
    assert why(service, *members) == "no node with its labels takes new work: n2 is cordoned"


def test_when_all_avoid_it_their_reasons_are_told() -> None:
    avoids = [Avoid("app:s", "n1", 3600.0, "no disk\nstack"), Avoid("app:other", "n2", 1.0, "")]
    assert why(S, member("n1"), avoids=avoids) == "n1 could not start it and tries again at 01:00:00 UTC (no disk)"
    assert why(S, member("n1"), member("n2"), avoids=avoids, first="n2") == "node n2 is about to claim it"


def test_of_many_nodes_a_few_are_named() -> None:
    said = why(S, *(member(f"n{i}", NodeState.CORDONED) for i in range(8)))
    assert said.endswith("n4 is cordoned; and 3 more")
