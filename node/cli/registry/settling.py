"""Waiting until the nodes have a version, and telling what became of it on each.

A node that could not bring an entry of the version about, or is not through within the time, is
trouble; one that leaves meanwhile is not. While etcd or NATS does not answer it waits on, up to the
end of its time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from node.cli.console import note
from node.cli.failures import tell

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.settling import Outcome

_AGAIN = 0.5
Told = Callable[["Outcome", float], None]
"""A node settled, so many seconds after the wait began."""


async def settle(
    client: Client, version: int, timeout: float, on_outcome: Told = lambda outcome, after: None
) -> tuple[list[Outcome], float]:
    """What became of ``version`` on each node, by name, and how many seconds that took.

    Raises ClusterError when NATS or etcd still does not answer at the end.
    """
    from cluster.errors import ClusterError

    began = time.monotonic()
    seen: set[str] = set()

    def on_settled(outcome: Outcome) -> None:
        if outcome.node not in seen:
            seen.add(outcome.node)
            on_outcome(outcome, time.monotonic() - began)

    while True:
        left = began + timeout - time.monotonic()
        try:
            outcomes = await client.settled(version, max(left, _AGAIN), on_settled)
            return [outcomes[node] for node in sorted(outcomes)], time.monotonic() - began
        except ClusterError:
            if left <= 0:
                raise
            await asyncio.sleep(min(_AGAIN, left))


def told(outcomes: Iterable[Outcome], seconds: float) -> str:
    """All of it in a few words: ``applied on 3 nodes in 40 ms``."""
    from cluster.settling import Settling

    by_fate: dict[Settling, list[str]] = {}
    for each in outcomes:
        by_fate.setdefault(each.settling, []).append(each.node)
    if not by_fate:
        return "no node is there: the next one that starts has it"
    applied = by_fate.get(Settling.CONVERGED, [])
    parts = [f"applied on {_nodes(len(applied))} in {span(seconds)}"] if applied else []
    words = {
        Settling.DEGRADED: "degraded on",
        Settling.LATE: "not applied in time on",
        Settling.GONE: "gone meanwhile:",
    }
    parts += [f"{word} {', '.join(by_fate[fate])}" for fate, word in words.items() if fate in by_fate]
    return ", ".join(parts)


def tell_troubles(outcomes: Sequence[Outcome]) -> bool:
    """Say on stderr which nodes did not take it, and why; whether there are any."""
    from cluster.settling import Settling

    is_bad = False
    for each in outcomes:
        if each.settling is Settling.DEGRADED:
            for failing in each.degraded:
                tell(f"{each.node} is degraded by v{failing.version}: {failing.entry}: {failing.reason}")
        elif each.settling is Settling.LATE:
            known = f"; it runs v{each.converged}" if each.converged >= 0 else ""
            tell(f"{each.node} did not apply it in time: {each.reason or 'no answer'}{known}")
        else:
            continue
        is_bad = True
    return is_bad


def tell_progress(outcome: Outcome, seconds: float) -> None:
    """One node is there; troubles are told at the end."""
    if not outcome.degraded:
        note(f"{outcome.node}: applied after {span(seconds)}")


def as_value(outcome: Outcome) -> dict[str, Any]:
    """For programs; ``state`` is applied, degraded, late or gone."""
    from cluster.settling import Settling

    state = "applied" if outcome.settling is Settling.CONVERGED else outcome.settling.value
    failing = [{"entry": each.entry, "version": each.version, "reason": each.reason} for each in outcome.degraded]
    return {
        "node": outcome.node,
        "state": state,
        "version": outcome.converged if outcome.converged >= 0 else None,
        "degraded": failing,
        "reason": outcome.reason,
    }


def span(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
