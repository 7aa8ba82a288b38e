"""The processes of one node, as the kernel in a VM runs them: who watches whom, who waits for what.

Items come in through one queue, in order and a moment late, and everything a process sends leaves in the order it
was sent. An ended process is told to whoever watched it, last of all it sends. When the link to a node closes, what
was asked there is answered with noconnection and what was watched there counts as ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from cluster.envelope import Envelope, Kind, Status
from cluster.pid import VM_SLOTS, Pid, node_of

if TYPE_CHECKING:
    from tests.sim.machine import Life

HOST = "app:processes"
STREAM = b"stream"
"""The topic of messages whose order and loss are checked."""
MESSAGE, REPLY, MONITOR, EXIT = int(Kind.MESSAGE), int(Kind.REPLY), int(Kind.MONITOR), int(Kind.EXIT)
CANCEL, TERMINATE = int(Kind.CANCEL), int(Kind.TERMINATE)


@dataclass(eq=False)
class Process:
    """One process. ``dying`` means that it was killed and its last step still runs."""

    pid: bytes
    alive: bool = True
    dying: bool = False
    watchers: dict[bytes, None] = field(default_factory=dict)
    watching: dict[bytes, Callable[[str], None]] = field(default_factory=dict)


@dataclass
class Asked:
    """A request that waits for its answer."""

    node: bytes
    what: str
    to: bytes
    at: float
    idle: float
    answer: Callable[[int], None]


class Vm:
    """The one VM of a life."""

    slot = 1
    host_id = HOST

    def __init__(self, life: Life) -> None:
        self._life = life
        self._world = life.sim.world
        self._counter = count(1)
        self._references = count(1)
        self._queue: deque[Envelope] = deque()
        self._busy = False
        self.processes: dict[bytes, Process] = {}
        self.asked: dict[int, Asked] = {}
        self.congested: dict[str, asyncio.Event] = {}

    # -- processes

    def spawn(self) -> Process:
        counter = next(self._counter) * VM_SLOTS + self.slot
        process = Process(str(Pid(self._life.name, HOST, self._life.incarnation, counter)).encode())
        self.processes[process.pid] = process
        return process

    def kill(self, process: Process) -> None:
        """Its step may run on for a while."""
        if process.alive and not process.dying:
            process.dying = True
            delay = self._world.pick((0.0, 0.001, 0.15))
            asyncio.get_running_loop().call_later(delay, self.end, process)

    def end(self, process: Process) -> None:
        """The process is gone: whoever watches it is told, after all it has sent."""
        if not process.alive:
            return
        process.alive = False
        del self.processes[process.pid]
        self._life.sim.checker.process_ended(self._life, process.pid)
        for watcher in process.watchers:
            there = self.processes.get(watcher)
            if there is not None:
                self._fire(there, process.pid, "exit")
            else:
                self.put([EXIT, watcher, process.pid, 0, 1, None, None])
        for watched in process.watching:
            self.put([int(Kind.UNMONITOR), watched, process.pid, 0])
        self._life.process_ended(process.pid)

    def end_all(self) -> None:
        for process in list(self.processes.values()):
            self.end(process)

    def name_revoked(self, pid: bytes) -> None:
        """CANCEL: the process lives on without it."""

    def put(self, envelope: Envelope) -> bool:
        """Something leaves the VM; whether it was taken."""
        sender = envelope[2]
        holders = self._life.holders
        if sender in holders.guarded and not holders.may_act(sender):
            return False
        letters = self._life.dead_letters
        before = letters.refused
        self._life.router.route(envelope)
        return letters.refused == before

    # -- requests

    def ask(self, kind: int, to: bytes, sender: Process, what: str, answer: Callable[[int], None], *rest: Any) -> None:
        """Send a request; ``answer(status)`` is called once, when it is answered."""
        reference = next(self._references) * VM_SLOTS + self.slot
        life = self._life
        self.asked[reference] = Asked(node_of(to), what, to, self._world.now, life.idle(), answer)
        self.put([kind, to, sender.pid, reference, *rest])

    def _answered(self, reference: int, status: int) -> None:
        asked = self.asked.pop(reference, None)
        if asked is not None:
            self._life.sim.checker.answered(self._life, asked, status)
            asked.answer(status)

    # -- what comes in

    def post(self, item: Envelope) -> None:
        checker = self._life.sim.checker
        if item[0] == MESSAGE and item[1] in self.processes:
            if item[6]:
                checker.delivered_by_name(self._life, item)
            elif item[4] == STREAM:
                checker.arrived(self._life, item)
        elif item[0] == EXIT:
            checker.exit_arrived(self._life, item[2])
        self._queue.append(item)
        if not self._busy:
            self._busy = True
            self._later()

    def _later(self) -> None:
        delay = self._world.pick((0.0, 0.0, 0.0005, 0.003))
        asyncio.get_running_loop().call_later(delay, self._turn)

    def _turn(self) -> None:
        queue, self._queue = self._queue, deque()
        for item in queue:
            self._handle(item)
        self._busy = bool(self._queue)
        if self._busy:
            self._later()

    def _handle(self, item: Envelope) -> None:
        kind = item[0]
        if kind == REPLY:
            self._answered(item[3], item[4])
        elif kind == 45:
            self._node_gone(item[1])
        elif kind == 37:
            self._congestion(item[1].decode(), item[2])
        elif kind < 32:
            process = self.processes.get(item[1])
            if process is None:
                self._life.router.no_process(item)
            else:
                self._for_process(kind, process, item)

    def _for_process(self, kind: int, process: Process, item: Envelope) -> None:
        if kind == MONITOR:
            process.watchers[item[2]] = None
        elif kind == EXIT:
            self._fire(process, item[2], "exit")
        elif kind == int(Kind.UNMONITOR):
            process.watchers.pop(item[2], None)
        elif kind == TERMINATE:
            self.kill(process)
        if item[3]:
            self.put([REPLY, item[2], process.pid, item[3], int(Status.OK), True])

    def _fire(self, process: Process, watched: bytes, why: str) -> None:
        told = process.watching.pop(watched, None)
        if told is not None:
            told(why)

    def _node_gone(self, node: bytes) -> None:
        for reference in [reference for reference, asked in self.asked.items() if asked.node == node]:
            self._answered(reference, int(Status.NOCONNECTION))
        for process in list(self.processes.values()):
            for watcher in [pid for pid in process.watchers if node_of(pid) == node]:
                del process.watchers[watcher]
            for watched in [pid for pid in process.watching if node_of(pid) == node]:
                self._fire(process, watched, "noconnection")

    # -- a full link holds its senders back

    def _congestion(self, node: str, congested: bool) -> None:
        self._life.sim.checker.congestion(self._life, node, congested)
        if congested:
            self.congested.setdefault(node, asyncio.Event())
        elif node in self.congested:
            self.congested.pop(node).set()

    async def relieved(self, node: str) -> None:
        while node in self.congested:
            await self.congested[node].wait()
