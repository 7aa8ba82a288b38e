"""Processes that leave: asked to, packed, and sent, or left where they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog

from cluster.envelope import Envelope
from cluster.errors import BadPid
from cluster.migration import MoveCore, Place
from cluster.migration.actions import Finished, Verdict
from cluster.migration.belongings import MOST_HOLDINGS, Belongings, CannotMove
from cluster.migration.items import Holding, Luggage
from cluster.pid import Pid, slot_of, uniq_of
from node.host.boundary import In
from node.moving import wire
from node.moving.cores import Cores
from node.moving.moved import NO_PROCESS, Leaving, Moved, Outcome

log = structlog.get_logger("wippy.moving")

WITHIN = 10.0
"""Seconds a process has to hand over its state, unless somebody says otherwise."""
POLL = 0.002
"""Seconds between two looks whether it has."""
DECIDED_WITHIN = 5.0
"""Seconds after its deadline in which a move is decided, as long as etcd answers."""


class Shown(Protocol):
    """What is needed of the hosts."""

    async def look(self, pid: str, slot: int) -> dict[str, Any] | None: ...


class Memberships(Protocol):
    """What is needed of the process groups."""

    def memberships(self, pid: str) -> Any: ...


class Departures:
    """The moves that begin here. ``version`` is the registry's."""

    def __init__(
        self,
        cores: Cores,
        hosts: Shown,
        groups: Memberships,
        open_nodes: Callable[[], frozenset[str]],
        version: Callable[[], int],
        when_clear: Callable[[Callable[[], None]], None],
    ) -> None:
        self._cores = cores
        self._hosts = hosts
        self._groups = groups
        self._open_nodes = open_nodes
        self._version = version
        self._when_clear = when_clear
        self.verdicts: dict[str, int] = {verdict.value: 0 for verdict in Verdict}
        """How the moves that began here ended."""
        cores.performer.on_finished = self._finished

    async def move(self, pid: str, to: str, within: float = WITHIN) -> Outcome:
        """Move a process that runs here to node ``to``. It has ``within`` seconds to hand over its state."""
        began = time.monotonic()

        def outcome(verdict: Verdict | None, reason: str) -> Outcome:
            return Outcome(verdict, reason, time.monotonic() - began)

        try:
            parsed, raw = Pid.parse(pid), pid.encode("utf-8", "surrogateescape")
        except BadPid as error:
            return outcome(Verdict.STAYED, str(error))
        elsewhere = self._cores.where(raw)
        if elsewhere != self._cores.node:
            return outcome(Verdict.STAYED, f"it does not run here but on node {elsewhere}")
        shown = await self._hosts.look(pid, self._slot(raw))
        problem = _why_not(shown)
        if problem or shown is None:
            return outcome(Verdict.STAYED, problem)
        try:
            keys = self._keys_of(pid)
        except CannotMove as error:
            return outcome(Verdict.STAYED, str(error))
        moved = self._cores.known(uniq_of(raw), self._cores.node)
        await _has_come(moved, within)
        if moved.leaving is not None:
            return outcome(Verdict.STAYED, "it is moving already")
        moved.pid = raw
        core = self._cores.core(moved)
        ended: asyncio.Future[tuple[Verdict, str]] = asyncio.get_running_loop().create_future()
        wanted = wire.Wanted(pid, parsed.host, str(shown["entry"]), self._version(), keys)
        moved.leaving = leaving = Leaving(ended, wanted, int((time.time() + within) * 1000))
        actions = core.leave(to)
        if core.departure is not None:
            leaving.number = core.departure.target.attempt
        self._cores.perform(moved, actions)
        verdict, reason = await self._decided(moved, core, ended, within)
        if leaving.is_unmovable and await self._hosts.look(pid, self._slot(raw)) is None:
            self._ended_before(moved, core)
        return outcome(verdict, reason)

    def _ended_before(self, moved: Moved, core: MoveCore) -> None:
        """It ended before anything here knew that it was to move, so that nobody was told."""
        if moved.core is core and core.place is Place.RUNS and core.departure is None:
            moved.inbox = None
            self._cores.perform(moved, core.exited())

    async def _decided(
        self, moved: Moved, core: MoveCore, ended: asyncio.Future[tuple[Verdict, str]], within: float
    ) -> tuple[Verdict | None, str]:
        done, _ = await asyncio.wait({ended}, timeout=within)
        if not done:
            self._cores.perform(moved, core.deadline(f"it was not done within {within:g} s"))
            done, _ = await asyncio.wait({ended}, timeout=DECIDED_WITHIN)
        if not done:
            return None, "etcd does not answer; until it says where the process is, it waits and runs nowhere"
        return ended.result()

    def _keys_of(self, pid: str) -> tuple[str, ...]:
        """The keys a process would take along. Raises CannotMove."""
        for part in self._cores.belongings:
            part.check(pid)
        holdings = self._packed(pid)
        for part in self._cores.belongings:
            part.stays(pid)
        return tuple(held.key for held in holdings)

    def leaving(self, moved: Moved, item: Envelope) -> None:
        """It has handed over its state. What comes now waits until all that came before is in its mailbox."""
        leaving = moved.leaving
        if leaving is None or leaving.number != item[2] or moved.inbox is None:
            return  # given up: the item that says so is on its way
        leaving.entry = item[3].decode("utf-8", "surrogateescape")
        leaving.held = []
        moved.inbox.post([int(In.FREEZE), moved.pid, leaving.number])

    def luggage(self, moved: Moved, item: Envelope) -> None:
        """It is frozen. What it has sent must have left this node before it does."""
        self._when_clear(lambda: self._frozen(moved, item))

    def _frozen(self, moved: Moved, item: Envelope) -> None:
        _, pid, number, text, watchers = item
        leaving, core = moved.leaving, moved.core
        if leaving is None or leaving.number != number or core is None:
            return  # given up: the item that says so is on its way
        try:
            holdings = self._packed(pid.decode("utf-8", "surrogateescape"))
        except CannotMove as error:
            self._cores.perform(moved, core.deadline(str(error)))
            return
        leaving.packed = True
        wanted = leaving.wanted
        body = wire.Body(wanted.pid, wanted.host, leaving.entry, text, self._groups.memberships(wanted.pid))
        leaving.watchers = frozenset(wire.watcher_of(self._cores.where(one), one, watch) for one, watch in watchers)
        luggage = Luggage(body, leaving.watchers, self._open_nodes(), tuple(holdings))
        self._cores.perform(moved, core.frozen(luggage))
        self._give(moved, leaving)

    def _packed(self, pid: str) -> list[Holding]:
        """All that a process has, packed by each part; by none when it can't go. Raises CannotMove."""
        holdings: list[Holding] = []
        packed: list[Belongings] = []
        try:
            for part in self._cores.belongings:
                holdings += part.pack(pid)
                packed.append(part)
            _check_number(holdings)
        except Exception as error:
            for part in packed:
                part.stays(pid)
            if isinstance(error, CannotMove):
                raise
            log.exception("what a process has could not be packed", pid=pid)
            where = f"the log of node {self._cores.node} says more"
            raise CannotMove(f"what it has could not be packed: {error!r}; {where}") from error
        return holdings

    def _give(self, moved: Moved, leaving: Leaving) -> None:
        """What waited for the process to be frozen is the core's now."""
        held, leaving.held = leaving.held, None
        for item, way in held or ():
            self._cores.perform(moved, self._cores.core(moved).arrived(item, way))

    def _finished(self, moved: Moved, finished: Finished) -> None:
        leaving, moved.leaving = moved.leaving, None
        self.verdicts[finished.verdict.value] += 1
        log.debug("move ended", pid=moved.pid.decode(), verdict=finished.verdict.value, reason=finished.reason)
        if leaving is None:
            return
        self._give(moved, leaving)
        if not leaving.ended.done():
            leaving.ended.set_result((finished.verdict, finished.reason))
        if not moved.revision:
            moved.gone_at = time.monotonic()

    def unmovable(self, moved: Moved, item: Envelope) -> None:
        """It can't leave, and goes on."""
        if moved.leaving is not None and moved.leaving.number == item[2] and moved.core is not None:
            moved.leaving.is_unmovable = True
            self._cores.perform(moved, moved.core.deadline(item[3].decode("utf-8", "replace")))

    def _slot(self, pid: bytes) -> int:
        inbox = self._cores.inbox_of(pid)
        return slot_of(pid) if inbox is None else inbox.slot


async def _has_come(moved: Moved, within: float) -> None:
    """One that has just come leaves when all that came on the former way is there: soon, as a rule."""
    deadline = time.monotonic() + within
    while _is_coming(moved) and time.monotonic() < deadline:  # noqa: ASYNC110 - rare and short, and nobody has an event
        await asyncio.sleep(POLL)


def _is_coming(moved: Moved) -> bool:
    return moved.core is not None and moved.core.redirect.pending is not None


def _why_not(shown: dict[str, Any] | None) -> str:
    """Why a process, as its VM shows it, can't move; empty when it can."""
    if shown is None:
        return NO_PROCESS
    if shown.get("supervised"):
        return "it is the child of a supervisor, which starts it elsewhere when this node is drained"
    if not shown.get("migratable"):
        return "it does not move: its program has not said process.set_options({migratable = true})"
    return ""


def _check_number(holdings: Sequence[Holding]) -> None:
    if len(holdings) > MOST_HOLDINGS:
        raise CannotMove(
            f"it holds {len(holdings)} names, locks and claims, more than the {MOST_HOLDINGS} that may move"
        )
