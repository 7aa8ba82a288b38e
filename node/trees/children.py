"""The children of one supervisor as processes: spawned, asked to end, killed, lost and looked for.

It does what the core wants done with a child and tells it what became of that, each start and each
end once. A child on a node that can't be reached lives until it is certain that it does not; one
whose node takes nothing now waits for a place, which is nobody's failure.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from cluster.envelope import Envelope, Kind, Status, Watch, to_raw
from cluster.members import Members, NodeState
from cluster.pid import host_address
from cluster.supervision import Branch, Phase
from cluster.supervision.events import Due, Event, Exited, Failed, GraceOver, Postponed, Start, Started
from cluster.supervision.specs import Ending
from cluster.tasks import Tasks
from node.ports import Ports
from node.trees.contact import ABANDON, HOST, Contact
from node.trees.definition import Work
from node.trees.places import choose, missing
from node.trees.requests import Requests, reason_of
from node.trees.runs import Run, Runs

log = structlog.get_logger("wippy.trees")

KILL_PATIENCE = 5.0
"""Seconds a killed child may take to be gone before it is killed again, and that is said."""
LOOK_AGAIN = 1.0
"""Seconds until nodes that could not be reached are tried again for a child without a place."""


@dataclass(frozen=True)
class World:
    """What supervisors need of their node. ``in_doubt``: its lease may be over, and others may own what it owned."""

    node: str
    ports: Ports
    members: Members
    contact: Contact
    in_doubt: Callable[[], bool]
    born: Callable[[bytes, bytes], None]
    """A child of this supervisor runs on this node."""
    gone: Callable[[bytes], None]
    refuse: Callable[[Envelope, Status, dict[bytes, object], str], None]


class Children:
    """The processes of the supervisor ``pid`` of ``entry``. ``feed`` tells its ``core`` what happened.

    ``may_double``: whether a child that can't be reached may be started again at once.
    """

    def __init__(
        self,
        world: World,
        entry: str,
        pid: bytes,
        core: Branch,
        feed: Callable[[Event], None],
        tasks: Tasks,
        may_double: Callable[[], bool],
    ) -> None:
        self.runs = Runs()
        self.homeless: dict[str, int] = {}
        """Children without a place, and their runs."""
        self.requests = Requests(pid, world.ports.next_ref, world.ports.route)
        self._world = world
        self._entry = entry
        self._pid = pid
        self._core = core
        self._feed = feed
        self._tasks = tasks
        self._may_double = may_double
        self._is_sending = False
        self._refused: dict[str, set[str]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._confirming: set[tuple[str, int]] = set()
        self._losses: Counter[str] = Counter()
        """How often each node was lost."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Nothing is to happen later, and what still starts is not wanted."""
        self.requests.abandon(self._world.ports.abandon)
        for timer in self._timers.values():
            timer.cancel()

    def node_down(self, node: str) -> None:
        """A node's registration ended or the link to it closed."""
        self._losses[node] += 1
        for run in self.runs.on(node):
            run.is_lost = True
        self.requests.node_down(node.encode())
        for run in self.runs.on(node):
            self._make_certain(run.node, run.epoch)

    def members_changed(self) -> None:
        """Children without a place look for one."""
        for child, number in list(self.homeless.items()):
            self._look_for_place(child, number)

    def start(self, action: Start) -> None:
        work: Work = action.spec.work
        node = self._place(action.child, work)
        if node is None:
            self._no_place(action.child, action.run, work)
            return
        member = self._world.members.get(node)
        epoch = member.epoch if member is not None and node != self._world.node else 0
        run = Run(action.child, action.run, node, epoch)
        self.runs.add(run)
        options: dict[bytes, Any] = {b"monitor": True, b"owner": True}
        if action.spec.is_supervisor:
            options[b"revision"] = self._world.members.applied
        to = host_address(node, work.host or HOST).encode()
        arguments = [work.process.encode(), to_raw(work.input), options]
        self._is_sending = True
        try:
            self.requests.ask(Kind.SPAWN, to, *arguments, then=lambda status, value: self._spawned(run, status, value))
        finally:
            self._is_sending = False

    def _place(self, child: str, work: Work) -> str | None:
        """The node the child goes to, None when there is none now."""
        members = () if work.is_local else self._world.members.all()
        refused = self._refused.get(child, ())
        return choose(work, f"{self._entry}/{child}", self._world.node, members, self.runs.load, refused)

    def _spawned(self, run: Run, status: Status, value: Any) -> None:
        if self.runs.get(run.number) is not run:  # it was given up, with the node's lease
            if status is Status.OK:
                self._world.ports.route([int(Kind.TERMINATE), value, self._pid, 0])
        elif status is Status.OK:
            self._refused.pop(run.child, None)
            self.runs.born(run, value)
            if run.node == self._world.node:
                self._world.born(self._pid, value)
            self._feed(Started(run.child, run.number, self._loop.time()))
        elif status is not Status.NOCONNECTION:
            self._loop.call_soon(self._not_started, run, value)
        elif self._is_sending:  # it never left this node
            self._loop.call_soon(self._try_elsewhere, run)
        else:
            run.is_lost = True
            self._make_certain(run.node, run.epoch)

    def _not_started(self, run: Run, told: Any) -> None:
        member = self._world.members.get(run.node)
        is_ready = member is not None and member.state is NodeState.READY
        if run.node != self._world.node and (not is_ready or _detail(told, b"not_now") is True):
            self._try_elsewhere(run)
            return
        error = reason_of(told)
        self.runs.remove(run)
        self._refused.pop(run.child, None)
        log.error("child can't start", supervisor=self._entry, child=run.child, node=run.node, error=error)
        self._feed(Failed(run.child, run.number, self._loop.time(), error, random.uniform(-1, 1)))

    def _try_elsewhere(self, run: Run) -> None:
        """The node takes nothing now, which is not the child's fault."""
        self.runs.remove(run)
        self._refused.setdefault(run.child, set()).add(run.node)
        self.homeless[run.child] = run.number
        self._feed(Postponed(run.child, run.number))
        self._look_for_place(run.child, run.number)

    def _no_place(self, child: str, number: int, work: Work) -> None:
        log.warning("child has no place", supervisor=self._entry, child=child, waits_for=self._missing(work))
        self.homeless[child] = number
        self.wait(child, LOOK_AGAIN, None)
        self._feed(Postponed(child, number))

    def _missing(self, work: Work) -> str:
        return missing(work, self._world.members.get(work.node))

    def waits_for(self, child: str) -> str:
        """The place a child waits for; empty when it waits for none."""
        known = self._core.children.get(child)
        is_waiting = known is not None and child in self.homeless and known.phase is Phase.WAITING
        return self._missing(known.spec.work) if known is not None and is_waiting else ""

    def _look_for_place(self, child: str, number: int) -> None:
        known = self._core.children.get(child)
        if known is None or known.run != number or known.phase is not Phase.WAITING:
            self.homeless.pop(child, None)
            self._refused.pop(child, None)
            return
        if self._place(child, known.spec.work) is None:
            self.wait(child, LOOK_AGAIN, None)
            return
        del self.homeless[child]
        self._feed(Due(child, number))

    def wait(self, child: str, seconds: float, due: Due | None) -> None:
        """Feed ``due`` later; without one, look for a place, also on nodes that could not be reached."""
        former = self._timers.pop(child, None)
        if former is not None:
            former.cancel()
        self._timers[child] = self._loop.call_later(seconds, self._time_is_up, child, due)

    def _time_is_up(self, child: str, due: Due | None) -> None:
        del self._timers[child]
        if due is not None:
            self._feed(due)
        elif child in self.homeless:
            self._refused.pop(child, None)
            self._look_for_place(child, self.homeless[child])

    def stop(self, number: int, grace: float | None) -> None:
        run = self.runs.get(number)
        if run is None:
            return
        self._cast(Kind.CANCEL, run, b"supervisor stopping")
        if grace is not None:
            run.timer = self._loop.call_later(grace, self._feed, GraceOver(run.child, number))

    def kill(self, number: int) -> None:
        run = self.runs.get(number)
        if run is None:
            return
        run.cancel_timer()
        self._cast(Kind.TERMINATE, run)
        run.timer = self._loop.call_later(KILL_PATIENCE, self._kill_again, number)

    def _kill_again(self, number: int) -> None:
        run = self.runs.get(number)
        if run is not None and not run.is_lost:
            log.error("child does not end", supervisor=self._entry, child=run.child, pid=run.pid.decode())
        self.kill(number)

    def _cast(self, kind: Kind, run: Run, *rest: Any) -> None:
        if run.pid and not run.is_lost:
            self.requests.ask(kind, run.pid, *rest, then=lambda status, value: self._told(run, status))

    def _told(self, run: Run, status: Status) -> None:
        """A process that is not there has ended, also when nothing was heard of its end."""
        if status is Status.NOPROC and self.runs.get(run.number) is run:
            error = {b"message": b"it was not there any more when it was to end"}
            self._loop.call_soon(self.exited, run.pid, error)

    def exited(self, pid: bytes, error: Any) -> None:
        """A process that was watched has ended."""
        run = self.runs.of(pid)
        if run is None:
            return
        ending, cause = _ending(error), ""
        member = self._world.members.get(run.node)
        if run.node != self._world.node and (member is None or member.state is NodeState.DRAINING):
            ending, cause = Ending.FAILED, f"{run.node} {run.epoch} drains"  # it was told to end by its node
        self._ended(run, ending, "" if error is None else reason_of(error), cause)

    def _ended(self, run: Run, ending: Ending, error: str, cause: str = "") -> None:
        self.runs.remove(run)
        if run.node == self._world.node:
            self._world.gone(run.pid)
        known = self._core.children.get(run.child)
        if ending is Ending.FAILED and known is not None and known.phase is Phase.UP:
            log.warning("child failed", supervisor=self._entry, child=run.child, pid=run.pid.decode(), error=error)
        jitter = random.uniform(-1, 1)
        self._feed(Exited(run.child, run.number, self._loop.time(), ending, error, jitter, cause))

    def _make_certain(self, node: str, epoch: int) -> None:
        if (node, epoch) not in self._confirming:
            self._confirming.add((node, epoch))
            self._tasks.start(self._until_certain(node, epoch), f"until {node} is certain")

    async def _until_certain(self, node: str, epoch: int) -> None:
        world = self._world
        answered, losses = True, -1
        while answered and losses != self._losses[node] and not self._may_double():
            losses = self._losses[node]  # an answer of before the last loss says nothing of what began after it
            answered = await world.contact.certain(node, epoch, world.members.applied, self._entry, self._pid)
        self._confirming.discard((node, epoch))
        what = "the link to it closed" if answered else "its registration is over"
        for run in self.runs.lost_on(node, epoch):
            self._lost(run, f"node {node} is lost: {what}", f"{node} {epoch}: {what}")

    def _lost(self, run: Run, error: str, cause: str) -> None:
        if run.pid:
            self._ended(run, Ending.FAILED, error, cause)
        else:
            self.runs.remove(run)
            self._feed(Postponed(run.child, run.number))
            self._feed(Due(run.child, run.number))

    def abandon_supervisors(self, kills: bool) -> None:
        """The supervisors that are being started are not wanted any more: they answer that they did not start."""
        starting = (run.node for run in self.runs if not run.pid and not run.is_lost)
        for node in sorted(set(starting)):
            to = host_address(node, HOST).encode()
            self._world.ports.route([int(Kind.CALL), to, self._pid, 0, ABANDON, [kills], {}])

    def give_up(self) -> None:
        """Wait for no other node: the lease of this one may be over. They end these children when they learn of it."""
        for run in [run for run in self.runs if run.node != self._world.node]:
            if run.pid:
                self._world.ports.route([int(Kind.EXIT), run.pid, self._pid, 0, int(Watch.OWNER), None, None])
                self._ended(run, Ending.FAILED, "the lease of the node is over")
            else:
                self.runs.remove(run)
                self._feed(Failed(run.child, run.number, self._loop.time(), "the lease of the node is over"))

    def pid_of(self, child: str) -> bytes:
        """The process of a child, empty when it has none."""
        known = self._core.children.get(child)
        run = self.runs.get(known.run) if known is not None else None
        return run.pid if run is not None else b""


def _ending(error: Any) -> Ending:
    """How a process with this error ended, for its supervisor."""
    if error is None:
        return Ending.NORMAL
    return Ending.SHUTDOWN if _detail(error, b"exit") == b"shutdown" else Ending.FAILED


def _detail(error: Any, name: bytes) -> Any:
    """One of the details of an error map; None when it has none of that name."""
    details = error.get(b"details") if isinstance(error, dict) else None
    return details.get(name) if isinstance(details, dict) else None
