"""Which node a child goes to. Pure.

Among the ready nodes that fit, the one with the fewest children of this supervisor; among equals the
first by rendezvous hashing, so that the same child tends to go to the same node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cluster.members import Member, NodeState
from cluster.placement import weight
from node.kinds.supervisor import ANY, LOCAL
from node.trees.definition import Work


def choose(
    work: Work,
    key: str,
    own: str,
    members: Sequence[Member],
    load: Mapping[str, int],
    refused: Collection[str] = (),
) -> str | None:
    """The node for a child, None when there is none now. ``load`` counts this supervisor's children by node;
    ``refused`` are nodes that could not be reached just now."""
    if work.is_local:
        return own
    fitting = [member.node for member in members if _fits(work, member) and member.node not in refused]
    return min(fitting, key=lambda node: (load.get(node, 0), -weight(key, 0, node), node), default=None)


def _fits(work: Work, member: Member) -> bool:
    named = work.node in (LOCAL, ANY, member.node)
    return named and member.carries(work.labels) and member.state is NodeState.READY


def missing(work: Work, named: Member | None) -> str:
    """What a child without a place waits for. ``named`` is the node it names, None when that is not registered."""
    if work.labels:
        return "a ready node with " + ", ".join(f"{name}={value}" for name, value in work.labels)
    if work.node in (LOCAL, ANY):
        return "a ready node"
    return f"node {work.node}, which is {'not there' if named is None else named.state.value}"
