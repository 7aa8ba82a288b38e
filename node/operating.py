"""What an operator asks of this node: to take nothing new, to take work again, to give away all it has or one process,
other labels, a service released.

What changes what the cluster knows of the node, or of a service, is answered when etcd has it. A drain is answered when
it has begun; ``drained`` tells how far it is. A move is answered when it is over.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import BadPid, Unavailable
from cluster.members import Member, NodeState
from cluster.migration.actions import Verdict
from cluster.pid import Pid, is_pid
from node.moving.moved import NO_PROCESS, Outcome
from node.query import MAX_TIMEOUT, BadQuery, NotFound, Query, text_of, timeout_of

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
_LONGEST_VALUE = 255
_LONGEST_DRAIN = 24 * 3600.0


@dataclass(frozen=True)
class Operated:
    """The node, as far as an operator may change it."""

    state: Callable[[], NodeState]
    cordon: Callable[[], Awaitable[None]]
    uncordon: Callable[[], Awaitable[None]]
    label: Callable[[Mapping[str, str | None]], Awaitable[Mapping[str, str]]]
    """Set labels, or with None take them away; those it has then."""
    knows: Callable[[str], bool]
    """Whether a service of that id is known here."""
    release: Callable[[str], Awaitable[bool]]
    is_stopping: Callable[[], bool]
    drain: Callable[[float], Awaitable[None]]
    """Begin to empty the node within so many seconds, unless that is under way."""
    drained: Callable[[], dict[str, Any]]
    move: Callable[[str, str, float], Awaitable[Outcome]]
    """Move a process of this node: (PID, node, seconds)."""
    where: Callable[[str], str]
    """The node a process is on; empty when it is on none."""
    named: Callable[[str], str | None]
    """The PID behind a name."""
    member: Callable[[str], Member | None]


class Operating:
    """The operator's queries."""

    def __init__(self, node: str, operated: Operated) -> None:
        self._node = node
        self._operated = operated

    async def cordon(self, query: Query) -> Any:
        state = self._operated.state()
        if state not in (NodeState.READY, NodeState.CORDONED):
            raise BadQuery(f"node {self._node} is {state.value}: only a node that is ready can be cordoned")
        await self._operated.cordon()
        return self._told()

    async def uncordon(self, query: Query) -> Any:
        """Also calls off a drain."""
        state = self._operated.state()
        if state is NodeState.JOINING or self._operated.is_stopping():
            said = "stopping" if self._operated.is_stopping() else state.value
            raise BadQuery(f"node {self._node} is {said}: only one that is cordoned or drained can take work again")
        await self._operated.uncordon()
        return self._told()

    async def drain(self, query: Query) -> Any:
        state, within = self._operated.state(), _seconds_of(query, _LONGEST_DRAIN)
        if state is NodeState.JOINING or self._operated.is_stopping():
            said = "stopping" if self._operated.is_stopping() else state.value
            raise BadQuery(f"node {self._node} is {said}: only a node that is ready or cordoned can be drained")
        try:
            async with asyncio.timeout(timeout_of(query)):
                await self._operated.drain(within)
        except TimeoutError:  # who asked is told, and it must not begin later
            problem = f"node {self._node} could not say in time that it drains, and keeps what it has"
            raise Unavailable(f"{problem}: etcd does not answer") from None
        return self._told()

    async def drained(self, query: Query) -> Any:
        return {**self._operated.drained(), "state": self._operated.state().value}

    async def move(self, query: Query) -> Any:
        """Move a process that is here. Of one that is elsewhere that is answered: ask there."""
        pid, to, within = self._pid_of(query), text_of(query, "to"), _seconds_of(query, MAX_TIMEOUT)
        here = self._operated.where(pid)
        if not here:
            raise NotFound(f"no process {pid}: it ended, or never was")
        if here != self._node:
            return {"pid": pid, "elsewhere": here}
        member = self._operated.member(to)
        if member is None:
            raise BadQuery(f"node {to!r} is not in the cluster; `wippy nodes` shows those that are")
        if to == self._node:
            return _moved(pid, to, Outcome(None, "", 0.0))
        if member.state is not NodeState.READY:
            return _moved(pid, here, Outcome(Verdict.STAYED, f"node {to} is {member.state.value}", 0.0))
        outcome = await self._operated.move(pid, to, within)
        if outcome.reason == NO_PROCESS:
            raise NotFound(f"no process {pid}: it ended, or never was")
        return _moved(pid, to if outcome.verdict is Verdict.MOVED else here, outcome)

    def _pid_of(self, query: Query) -> str:
        target = text_of(query, "process")
        try:
            pid = str(Pid.parse(target)) if is_pid(target) else self._operated.named(target)
        except BadPid as error:
            raise BadQuery(str(error)) from None
        if pid is None:
            raise NotFound(f"no process is registered as {target!r}; `wippy names` shows the names")
        return pid

    async def label(self, query: Query) -> Any:
        changes = query.get("labels")
        if not isinstance(changes, dict) or not changes:
            raise BadQuery(f"op 'label' expects a map 'labels' with at least one label, got {changes!r}")
        for name, value in changes.items():
            _check_label(name, value)
        return {"node": self._node, "labels": dict(await self._operated.label(changes))}

    async def release(self, query: Query) -> Any:
        service = text_of(query, "service")
        released = await self._operated.release(service)
        if not released and not self._operated.knows(service):
            raise NotFound(f"no service {service!r} is known to node {self._node}, and nothing is held against one")
        return {"service": service, "released": released}

    def _told(self) -> dict[str, str]:
        return {"node": self._node, "state": self._operated.state().value}


def _seconds_of(query: Query, most: float) -> float:
    within = query.get("within")
    if isinstance(within, bool) or not isinstance(within, int | float) or not 0 < within <= most:
        raise BadQuery(f"op {query['op']!r} expects 'within', of 0 to {most:g} seconds, got {within!r}")
    return float(within)


def _moved(pid: str, node: str, outcome: Outcome) -> dict[str, Any]:
    """``verdict`` is empty when there was nothing to do, or nobody knows yet what became of it (then with a reason)."""
    verdict = "" if outcome.verdict is None else outcome.verdict.value
    return {"pid": pid, "node": node, "verdict": verdict, "reason": outcome.reason, "seconds": outcome.seconds}


def _check_label(name: object, value: object) -> None:
    if not isinstance(name, str) or not _LABEL.fullmatch(name):
        form = "1 to 63 letters, digits and ._/- that begin with a letter or digit"
        raise BadQuery(f"expected the name of a label, {form}, got {name!r}")
    if value is not None and not (isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_VALUE):
        form = f"a printable text of at most {_LONGEST_VALUE} characters"
        raise BadQuery(f"expected {form} as the value of label {name}, got {value!r}")
