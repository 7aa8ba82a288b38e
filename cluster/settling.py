"""Whether every node has taken a version of the registry: waits for the nodes, says what became of each.

A node has settled when it applied the version and tried every entry of it; what it could not bring
about it names (degraded). One whose registration ends meanwhile is ``GONE``: it can't serve
anything old. One that registers anew or becomes ready meanwhile is waited for like the others.
A node that does not get there in time is ``LATE``, with what it said last; it goes on by itself.
Nodes that are joining are not waited for: they don't serve, and start with the newest version.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cluster.errors import ClusterError, Unavailable
from cluster.members import Member, NodeState

SLICE = 1.0
"""Seconds a node is asked at a time; then the registrations are read again."""
POLL = 0.1

Ask = Callable[[Member, float], Awaitable[Any]]
"""The answer of a member to the query ``converged`` within so many seconds. Raises ClusterError."""


class Settling(StrEnum):
    """How far a node is with a version."""

    CONVERGED = "converged"
    """It runs what the version says."""
    DEGRADED = "degraded"
    """It tried; some entries of this version could not be brought about, and their former resources serve on."""
    LATE = "late"
    """It was not through when the time was over."""
    GONE = "gone"
    """Its registration ended while it was waited for."""


@dataclass(frozen=True, slots=True)
class Degraded:
    """An entry a node could not bring about, since ``version``."""

    entry: str
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a version on one node. ``applied`` and ``converged`` are versions, -1 when it never said."""

    node: str
    settling: Settling
    applied: int = -1
    converged: int = -1
    degraded: tuple[Degraded, ...] = ()
    """Entries that fail because of this version."""
    degraded_before: tuple[Degraded, ...] = ()
    """Entries that failed already before it."""
    reason: str = ""
    """Why it is late."""
    joined: bool = False
    """It was not there when the waiting began."""


async def settled(
    members: Callable[[], Awaitable[list[Member]]],
    ask: Ask,
    version: int,
    timeout: float,
    on_settled: Callable[[Outcome], None] = lambda outcome: None,
) -> dict[str, Outcome]:
    """What became of ``version`` on each node, by name, at most ``timeout`` seconds from now.

    ``on_settled`` is told as soon as a node is through.
    """
    if timeout <= 0:
        raise ValueError(f"expected timeout > 0, got {timeout}")
    now = asyncio.get_running_loop().time
    deadline = now() + timeout
    serving = _serving(await members())
    waiting = _Waiting(version, frozenset(serving))

    async def look(member: Member, seconds: float) -> None:
        waiting.note(member.node, await _answer(ask, member, seconds))
        if waiting.is_settled(member.node):
            on_settled(waiting.outcomes[member.node])

    while True:
        open_members = waiting.open(serving)
        left = deadline - now()
        if not open_members or left <= 0:
            return waiting.outcomes
        slice = min(SLICE, left)
        await asyncio.gather(*(look(member, slice) for member in open_members))
        if waiting.open(serving):
            await asyncio.sleep(min(POLL, max(deadline - now(), 0.0)))
        with contextlib.suppress(Unavailable, TimeoutError):
            # when etcd is away the nodes are those we know, and NATS still answers
            async with asyncio.timeout(slice):
                serving = _serving(await members())


def _serving(members: list[Member]) -> dict[str, Member]:
    return {member.node: member for member in members if member.state is not NodeState.JOINING}


async def _answer(ask: Ask, member: Member, seconds: float) -> Any:
    try:
        return await ask(member, seconds)
    except ClusterError as error:
        return error


class _Waiting:
    """What is known of each node so far."""

    def __init__(self, version: int, first: frozenset[str]) -> None:
        self._version = version
        self._first = first
        self.outcomes = {node: Outcome(node, Settling.LATE, reason="it was not asked yet") for node in first}

    def open(self, serving: Mapping[str, Member]) -> list[Member]:
        """The nodes still to ask; those that went are noted."""
        for node, outcome in self.outcomes.items():
            if node not in serving and outcome.settling is Settling.LATE:
                self.outcomes[node] = Outcome(node, Settling.GONE, reason="its registration ended")
        return [member for node, member in serving.items() if not self.is_settled(node)]

    def is_settled(self, node: str) -> bool:
        outcome = self.outcomes.get(node)
        return outcome is not None and outcome.settling in (Settling.CONVERGED, Settling.DEGRADED)

    def note(self, node: str, answer: Any) -> None:
        joined = node not in self._first
        if isinstance(answer, ClusterError):
            known = self.outcomes.get(node)
            applied, converged = (known.applied, known.converged) if known else (-1, -1)
            self.outcomes[node] = Outcome(node, Settling.LATE, applied, converged, reason=str(answer), joined=joined)
        else:
            self.outcomes[node] = self._outcome(node, answer, joined)

    def _outcome(self, node: str, answer: dict[str, Any], joined: bool) -> Outcome:
        applied, converged, reason = int(answer["applied"]), int(answer["converged"]), str(answer["waiting_for"])
        failing = [Degraded(each["entry"], each["version"], each["reason"]) for each in answer["degraded"]]
        of_this = tuple(each for each in failing if each.version >= self._version)
        before = tuple(each for each in failing if each.version < self._version)
        if reason or min(applied, converged) < self._version:
            settling = Settling.LATE
        else:
            settling = Settling.DEGRADED if of_this else Settling.CONVERGED
        return Outcome(node, settling, applied, converged, of_this, before, reason, joined)
