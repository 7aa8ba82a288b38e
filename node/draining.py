"""Emptying this node: what the pure core of a drain decides, done and watched to its end.

The node says first that it drains: its readiness goes off and nothing new is placed here. Then processes move, services
are handed over, the rest ends. When the deadline has passed what was to end is killed, and what is still here then is
left and told. A node that was emptied stays, draining, until it takes work again or stops.

``begin`` is the operator's drain; ``before_stop`` the same for a node that is about to end, which waits for nothing
but what others can take: all else ends with the node anyway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import structlog

from cluster.drain import (
    Action,
    CallOff,
    Cancel,
    Deadline,
    Drain,
    Event,
    GiveUp,
    HandedOver,
    HandOver,
    Kill,
    Look,
    Move,
    MoveEnded,
    Targets,
)
from cluster.errors import ClusterError
from cluster.migration.actions import Verdict
from cluster.tasks import Tasks
from node.inhabitants import Inhabitants
from node.moving.moved import Outcome

log = structlog.get_logger("wippy.drain")

MOVE_WITHIN = 10.0
"""Most seconds one process may take to move."""
LAST_SECONDS = 3.0
"""Seconds after the deadline in which what was killed may end."""
DECIDED_WITHIN = 6.0
"""Seconds after the deadline in which it is known of moves what became of them, as long as etcd answers."""
SETTLE = 5.0
"""Most seconds to wait, when the node is empty, for what is still forwarded through it."""
LOADS_AGE = 5.0
"""Seconds after which the other nodes are asked again what they have."""
UNSURE = 0.25
"""Seconds between two looks at what became of a move nobody knows the end of."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two looks at what is here; they grow with what a look costs."""


class Moves(Protocol):
    """Who moves processes."""

    def where(self, pid: str) -> str:
        """The node a process is on, as far as is known here."""

    def is_moving(self, pid: str) -> bool: ...

    async def move(self, pid: str, to: str, within: float) -> Outcome:
        """Move a process of this node. Always answers."""

    async def settled(self, within: float) -> bool:
        """Wait until nothing is forwarded through this node any more; whether that came."""


@dataclass(frozen=True)
class Surroundings:
    """What a drain needs of its node and of the others."""

    inhabitants: Inhabitants
    moves: Moves
    hand_over: Callable[[str, int, float], Awaitable[str]]
    """(service, replica, within): why the service is still here, empty when it is not."""
    ready: Callable[[], Sequence[str]]
    """The other nodes that take new work."""
    loads: Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]
    """How many processes each of these nodes has, of those that answer soon."""
    cancel: Callable[[str, str, int], None]
    """Ask a process to end: (pid, reason, deadline in ms since 1970)."""
    terminate: Callable[[str], None]


class Draining:
    """The drains of this node, one at a time. ``say_draining`` tells the cluster, and returns when it knows."""

    def __init__(
        self, node: str, around: Surroundings, say_draining: Callable[[], Awaitable[None]], tasks: Tasks
    ) -> None:
        self._node = node
        self._around = around
        self._say_draining = say_draining
        self._tasks = tasks
        self._run: _Run | None = None
        self._beginning = asyncio.Lock()

    @property
    def is_under_way(self) -> bool:
        return self._run is not None and self._run.is_under_way

    async def begin(self, within: float) -> None:
        """Begin to empty the node, unless that is under way. Raises ClusterError when the cluster can't be told."""
        async with self._beginning:
            if self.is_under_way:
                return
            await self._say_draining()
            self._run = run = _Run(self._node, self._around, Drain(), within, "node draining")
            self._tasks.start(run.to_the_end(), "drain")

    def call_off(self) -> None:
        """The node keeps what it still has. What is moving comes to the end of its move."""
        if self._run is not None:
            self._run.call_off()

    def progress(self) -> dict[str, Any]:
        """How far the latest drain is; ``phase`` is ``none`` when there was none."""
        return {"node": self._node, "phase": "none"} if self._run is None else self._run.told()

    async def before_stop(self, within: float) -> float:
        """Give others what they can take; the seconds that are left then. At once when nobody can take anything."""
        self.call_off()
        if not self._around.ready():
            return within
        began = time.monotonic()
        self._run = run = _Run(self._node, self._around, Drain(is_patient=False), within, "node stopping")
        try:
            async with asyncio.timeout(within + DECIDED_WITHIN):
                await run.until_handed_on()
        except TimeoutError:
            log.warning("it is not known where all processes are", **run.counted())
        return max(within - (time.monotonic() - began), 0.0)


class _Run:
    """One drain. Everything that happens is fed to the core, and what it wants is done at once."""

    def __init__(self, node: str, around: Surroundings, core: Drain, within: float, reason: str) -> None:
        self._node = node
        self._around = around
        self._core = core
        self._reason = reason
        self._began = time.monotonic()
        self._within = within
        self._ends_at = self._began + within
        self._deadline = int((time.time() + within) * 1000)
        self._tasks = Tasks("drain", self._broke)
        self._progressed = asyncio.Event()
        self._loads_at = float("-inf")
        self._targets: tuple[str, ...] | None = None
        self._is_late = False
        self._was_called_off = False
        self._seconds: float | None = None
        self._settled: bool | None = None
        self._slowest = 0.0
        self._takeable: set[str] = set()
        """Services that another node may take."""

    @property
    def is_under_way(self) -> bool:
        return self._seconds is None and not self._was_called_off

    async def to_the_end(self) -> None:
        """Until nothing is left here, or what is left is given up."""
        log.info("drain begins", within=self._within)
        async with self._tasks:
            await self._until(lambda: self._core.is_over)
            if self._core.is_empty:
                self._settled = await self._around.moves.settled(SETTLE)
        self._seconds = time.monotonic() - self._began
        log.info("drain is called off" if self._was_called_off else "drain is over", **self.counted())

    async def until_handed_on(self) -> None:
        """Until nothing is here any more that others could take."""
        async with self._tasks:
            await self._until(self._is_handed_on)
            left = max(self._ends_at - time.monotonic(), 0.0)
            self._settled = await self._around.moves.settled(min(left, SETTLE))
        self._seconds = time.monotonic() - self._began
        log.info("given to other nodes", **self.counted())

    def _is_handed_on(self) -> bool:
        core = self._core
        return core.is_over or core.is_handed_on or (self._is_late and not core.progress().moving)

    def call_off(self) -> None:
        if self._seconds is None and not self._was_called_off:
            self._was_called_off = True
            self._feed(CallOff())
            self._progressed.set()

    def counted(self) -> dict[str, Any]:
        told = self.told()
        return {
            name: told[name] for name in ("moved", "restarted_elsewhere", "handed_over", "cancelled", "left", "seconds")
        }

    def told(self) -> dict[str, Any]:
        """The progress as plain data."""
        progress = asdict(self._core.progress())
        seconds = time.monotonic() - self._began if self._seconds is None else self._seconds
        return {
            "node": self._node,
            "phase": self._phase(),
            **progress,
            "still_here": [dict(one) for one in progress["still_here"]],
            "within": self._within,
            "seconds": round(seconds, 3),
            "slowest_move": round(self._slowest, 4),
            "settled": self._settled,
        }

    def _phase(self) -> str:
        if self._was_called_off:
            return "called off"
        if self._seconds is None:
            return "draining"
        return "drained" if self._core.is_empty else "left"

    # -- looking, again and again

    async def _until(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            await self._look_at_targets()
            cost = await self._look()
            self._mind_the_time()
            if is_done():
                return
            self._progressed.clear()
            pause = min(max(FIRST_PAUSE, 10 * cost), LONGEST_PAUSE)
            try:
                async with asyncio.timeout(pause):
                    while not is_done():
                        await self._progressed.wait()
                        self._progressed.clear()
            except TimeoutError:
                continue

    async def _look(self) -> float:
        """See what is here; how long that took."""
        began, tick = time.monotonic(), self._core.tick
        try:
            census = await self._around.inhabitants.count()
        except TimeoutError:
            log.debug("a VM does not say what lives in it")
        else:
            self._takeable |= {key for key, one in census.services.items() if one.able}
            self._feed(Look(tick, census.processes, list(census.services)))
        return time.monotonic() - began

    async def _look_at_targets(self) -> None:
        targets, now = tuple(self._around.ready()), time.monotonic()
        if targets == self._targets and now - self._loads_at < LOADS_AGE:
            return
        known = await self._around.loads(targets) if targets else {}
        most = max(known.values(), default=0)
        self._targets, self._loads_at = targets, now
        # one that does not say is asked after the others
        self._feed(Targets({node: known.get(node, most) for node in targets}))

    def _mind_the_time(self) -> None:
        now = time.monotonic()
        if self._was_called_off or now < self._ends_at:
            return
        if not self._is_late:
            self._is_late = True
            self._feed(Deadline())
        progress = self._core.progress()
        if now >= self._ends_at + LAST_SECONDS or not progress.ending + progress.moving:
            self._feed(GiveUp())

    # -- doing

    def _feed(self, event: Event) -> None:
        for action in self._core.handle(event):
            self._perform(action)
        if isinstance(event, MoveEnded | HandedOver):
            self._progressed.set()

    def _perform(self, action: Action) -> None:
        match action:
            case Move(pid, to):
                self._tasks.start(self._move(pid, to), f"move {pid}")
            case HandOver(service):
                self._tasks.start(self._hand_over(service), f"hand-over {service}")
            case Cancel(pid):
                self._around.cancel(pid, self._reason, self._deadline)
            case Kill(pid):
                self._around.terminate(pid)

    def _broke(self, task: str, error: BaseException) -> None:
        """A move or hand-over ended in a way it never should: the rest of the drain must not wait for it."""
        log.error("drain: task failed", task=task, exc_info=error)
        what, _, id = task.removeprefix("drain/").partition(" ")
        problem = f"it failed: {error!r}"
        self._feed(MoveEnded(id, Verdict.STAYED, problem) if what == "move" else HandedOver(id, problem))

    def _left(self) -> float:
        return max(self._ends_at - time.monotonic(), 0.1)

    async def _move(self, pid: str, to: str) -> None:
        if await self._verdict(pid) is Verdict.MOVED:  # somebody else was about to move it
            self._feed(MoveEnded(pid, Verdict.MOVED))
            return
        try:
            outcome = await self._around.moves.move(pid, to, min(self._left(), MOVE_WITHIN))
        except ClusterError as error:
            self._feed(MoveEnded(pid, Verdict.STAYED, str(error)))
            return
        verdict = None if self._around.moves.is_moving(pid) else outcome.verdict
        if verdict is None:
            verdict = await self._verdict(pid)
        self._slowest = max(self._slowest, outcome.seconds if verdict is Verdict.MOVED else 0.0)
        self._feed(MoveEnded(pid, verdict, outcome.reason))

    async def _verdict(self, pid: str) -> Verdict:
        """Where a process is when it moves no more: the end of a move may not be known when its time is over."""
        moves = self._around.moves
        while True:
            if moves.where(pid) != self._node:
                return Verdict.MOVED
            if not moves.is_moving(pid):
                return Verdict.STAYED
            await asyncio.sleep(UNSURE)

    async def _hand_over(self, service: str) -> None:
        id, _, replica = service.rpartition("/")
        try:
            reason = await self._around.hand_over(id, int(replica), self._left())
        except ClusterError as error:
            reason = str(error)
        self._feed(HandedOver(service, reason, service in self._takeable))
