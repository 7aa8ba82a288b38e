"""Gives a node that has come its share of this one's processes; what and when is decided in ``cluster.rebalancing``."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import structlog

from cluster.errors import ClusterError
from cluster.members import Member, Members
from cluster.migration.actions import Verdict
from cluster.rebalancing import Give, Rebalancing
from cluster.tasks import Tasks
from node.draining import Moves
from node.inhabitants import Inhabitants

log = structlog.get_logger("wippy.rebalancing")

ROUND = 1.0
"""Seconds between two rounds, while there is something to give."""
MOVE_WITHIN = 5.0


class Rebalancer:
    """``async with`` runs it. ``settle``: seconds a node has to be ready before it gets anything; 0: nothing moves."""

    def __init__(
        self,
        node: str,
        settle: float,
        members: Members,
        inhabitants: Inhabitants,
        moves: Moves,
        loads: Callable[[Sequence[str]], Awaitable[Mapping[str, int]]],
        own_load: Callable[[], int],
    ) -> None:
        self._node = node
        self._settle = settle
        self._members = members
        self._inhabitants = inhabitants
        self._moves = moves
        self._loads = loads
        self._own_load = own_load
        self._core = Rebalancing(node, settle)
        self._given: Counter[str] = Counter()
        self._tasks = Tasks("rebalancing")
        members.on_change(self._changed)

    async def __aenter__(self) -> Self:
        if self._settle > 0:
            self._tasks.start(self._run(), "run")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()

    def _changed(self, before: Member | None, after: Member | None) -> None:
        self._core.ready_are((member.node for member in self._members.ready()), time.time())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(ROUND)
            if self._core.due(time.time()):
                await self._round()

    async def _round(self) -> None:
        others = [member.node for member in self._members.ready() if member.node != self._node]
        try:
            census = await self._inhabitants.count()
        except TimeoutError:
            log.debug("a VM does not say what lives in it")
            return
        loads = {**await self._loads(others), self._node: self._own_load()}
        gives = self._core.decide(loads, census.processes, time.time())
        await asyncio.gather(*map(self._give, gives))
        if not self._core.due(time.time()) and self._given:
            log.info("gave processes to nodes that have come", given=dict(self._given))
            self._given.clear()

    async def _give(self, give: Give) -> None:
        try:
            outcome = await self._moves.move(give.pid, give.to, MOVE_WITHIN)
        except ClusterError as error:
            log.debug("a process was not given away", pid=give.pid, to=give.to, problem=str(error))
            self._core.refused(give)
            return
        if outcome.verdict is Verdict.MOVED:
            self._given[give.to] += 1
        else:
            log.debug("a process was not given away", pid=give.pid, to=give.to, problem=outcome.reason)
            self._core.refused(give)
