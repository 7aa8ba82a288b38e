"""Where a child goes."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.members import Member, NodeState
from node.trees.definition import Work
from node.trees.places import choose, missing


def member(name: str, state: NodeState = NodeState.READY, **labels: str) -> Member:
    return Member(name, 1, 1, 1, 1, state, labels, "", {}, "", "")


def work(node: str = "local", **labels: str) -> Work:
    return Work("app:child", "app:processes", node, tuple(labels.items()), [])


MEMBERS = [member("n1", zone="a"), member("n2", zone="b"), member("n3", NodeState.CORDONED, zone="b")]


@pytest.mark.parametrize(
    ("wanted", "load", "refused", "chosen"),
    [
        (work(), {}, (), "n1"),
        (work("n2"), {}, (), "n2"),
        (work("n3"), {}, (), None),
        (work("n9"), {}, (), None),
        (work(zone="b"), {}, (), "n2"),
        (work("any", zone="c"), {}, (), None),
        (work("any"), {"n1": 3, "n2": 2}, (), "n2"),
        (work("any"), {"n1": 3, "n2": 2}, {"n2"}, "n1"),
        (work("any"), {}, {"n1", "n2"}, None),
    ],
)
def test_a_child_goes_where_it_fits(wanted: Work, load: Any, refused: Any, chosen: str | None) -> None:
    assert choose(wanted, "app:top/a", "n1", MEMBERS, load, refused) == chosen


def test_the_same_child_goes_to_the_same_node_and_different_ones_to_different() -> None:
    chosen = {key: choose(work("any"), key, "n1", MEMBERS, {}) for key in map(str, range(40))}
    assert chosen == {key: choose(work("any"), key, "n1", MEMBERS[::-1], {}) for key in chosen}
    assert set(chosen.values()) == {"n1", "n2"}


def test_what_is_missing_is_said() -> None:
    assert missing(work("n3"), None) == "node n3, which is not there"
    assert missing(work("n3"), member("n3", NodeState.DRAINING)) == "node n3, which is draining"
    assert missing(work(zone="c"), None) == "a ready node with zone=c"
    assert missing(work("any"), None) == "a ready node"
