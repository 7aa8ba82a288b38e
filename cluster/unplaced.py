"""Why a replica runs nowhere, in words: what the placement core would have needed.

Pure: from what one node knows. Its view may be milliseconds old, and so may the answer be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from cluster.avoids import Avoid
from cluster.members import Member, NodeState
from cluster.placement import Service, suits
from cluster.quarantine import Loss

_MOST = 5
"""Nodes named in one sentence."""


def why_unplaced(
    service: Service, members: Sequence[Member], avoids: Sequence[Avoid], losses: Sequence[Loss] | None, first: str = ""
) -> str:
    """``losses``: of a quarantined service, else None. ``first``: the node that is first in rank for the replica."""
    if losses is not None:
        return quarantined(service.id, losses)
    if not any(member.state is NodeState.READY for member in members):
        return _states(members) or "no node is ready"
    fitting = [member for member in members if suits(service, member)]
    if not fitting:
        return _labels(service, members)
    ready = [member for member in fitting if member.state is NodeState.READY]
    if not ready:
        return f"no node with its labels takes new work: {_listed(f'{m.node} is {m.state.value}' for m in fitting)}"
    kept_from = {one.node: one for one in avoids if one.service == service.id}
    if all(member.node in kept_from for member in ready):
        return _listed(_avoided(kept_from[member.node]) for member in ready)
    return f"node {first} is about to claim it" if first else "a node is about to claim it"


def quarantined(service: str, losses: Sequence[Loss]) -> str:
    """Why it is quarantined, and how to end that."""
    lost = _listed(f"{loss.node} at {clock(loss.at)}" for loss in losses) or "its keys can't be read"
    return f"quarantined, because nodes hung in it ({lost}); `wippy release {service}` lets it start again"


def _states(members: Sequence[Member]) -> str:
    told = _listed(f"{member.node} is {member.state.value}" for member in members)
    return f"no node is ready: {told}" if told else ""


def _labels(service: Service, members: Sequence[Member]) -> str:
    wanted = _pairs(service.labels)
    there = _listed(
        f"{m.node} has {_pairs({k: v for k, v in m.labels.items() if k in service.labels})}" for m in members
    )
    return f"no node has the labels {wanted} ({there})"


def _avoided(avoid: Avoid) -> str:
    reason = avoid.reason.strip().partition("\n")[0]
    return f"{avoid.node} could not start it and tries again at {clock(avoid.until)}" + (
        f" ({reason})" if reason else ""
    )


def _pairs(labels: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items())) or "none of them"


def _listed(parts: Iterable[str]) -> str:
    told = list(parts)
    more = len(told) - _MOST
    return "; ".join(told[:_MOST]) + (f"; and {more} more" if more > 0 else "")


def clock(at: float) -> str:
    """The time of day of a Unix time, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
