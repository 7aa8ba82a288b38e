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

from cluster.envelope import Envelope, Kind, Status, error_map
from cluster.pid import VM_SLOTS, Pid, node_of
from tests.sim.by_name import BY_NAME, Names
from tests.sim.pack import TO_GROUP

if TYPE_CHECKING:
    from tests.sim.machine import Life

HOST = "app:processes"
STREAM = b"stream"
"""The topic of messages whose order and loss are checked."""
MESSAGE, REPLY, MONITOR, EXIT = int(Kind.MESSAGE), int(Kind.REPLY), int(Kind.MONITOR), int(Kind.EXIT)
RETURN = int(Kind.RETURN)
CANCEL, TERMINATE, SPAWN = int(Kind.CANCEL), int(Kind.TERMINATE), int(Kind.SPAWN)
ACTS = frozenset({MESSAGE, SPAWN, int(Kind.CALL), CANCEL, TERMINATE})
"""Items by which a process acts on others, as ``node.hosts`` has them."""


@dataclass(eq=False)
class Process:
    """One process. ``dying`` means that it was killed and its last step still runs."""

    pid: bytes
    alive: bool = True
    dying: bool = False
    obeys: bool = True
    """Whether it ends when it is cancelled."""
    of_service: bool = False
    keeper: int = 0
    """The counter of the port that started it."""
    born_at: float = 0.0
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
        self.names = Names(life)
        self.wedged = False
        self.whose_turn: Process | None = None
        """Whose step hangs."""
        self.wedged_at = 0.0
        self._is_steady = asyncio.Event()
        self._is_steady.set()

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

    def end(self, process: Process, error: str | None = None) -> None:
        """The process is gone: whoever watches it is told, after all it has sent. Not while another step runs."""
        if not process.alive:
            return
        if self.wedged:
            process.dying = True
            self._life.tasks.start(self._end_later(process, error), "end")
            return
        process.alive = False
        del self.processes[process.pid]
        self._life.sim.checker.process_ended(self._life, process.pid)
        for watcher in process.watchers:
            there = self.processes.get(watcher)
            if there is not None:
                self._fire(there, process.pid, "exit")
            else:
                problem = None if error is None else error_map("Internal", error)
                self.put([EXIT, watcher, process.pid, 0, 1, None, problem])
        for watched in process.watching:
            self.put([int(Kind.UNMONITOR), watched, process.pid, 0])
        self._life.process_ended(process.pid)

    async def _end_later(self, process: Process, error: str | None) -> None:
        await self.steady()
        self.end(process, error)

    def of_services(self) -> list[bytes]:
        return [pid for pid, process in self.processes.items() if process.of_service and not process.dying]

    def wedge(self, seconds: float, by: Process | None = None) -> None:
        """The step that begins now goes on for so long: nobody else in this VM runs, and nothing ends."""
        if not self.wedged:
            self._world.note(self._life.label, "step hangs", seconds)
            self.wedged = True
            self.whose_turn, self.wedged_at = by, self._world.now
            self._is_steady.clear()
            self._life.keeper.step_began(self.slot)
            asyncio.get_running_loop().call_later(seconds, self._step_ends)

    def _step_ends(self) -> None:
        self._world.note(self._life.label, "step ends")
        self.wedged = False
        self._life.keeper.step_ended(self.slot)
        self._is_steady.set()
        if self._busy:
            self._later()

    async def steady(self) -> None:
        """Wait until no step hangs."""
        while self.wedged:
            await self._is_steady.wait()

    def end_all(self) -> None:
        for process in list(self.processes.values()):
            self.end(process)

    def put(self, envelope: Envelope) -> bool:
        """Something leaves the VM; whether it was taken."""
        sender = envelope[2]
        owners = self._life.owners
        if envelope[0] in ACTS and sender in owners.guarded and not owners.may_act(sender):
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
            elif item[4] == TO_GROUP:
                self._life.sim.pack.arrived(self._life, item)
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
        if self.wedged:
            return  # it goes on when the step ends
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
        elif kind == RETURN:
            self.names.returned(item)
        elif kind == SPAWN:
            asyncio.get_running_loop().call_later(self._world.pick((0.0, 0.004, 0.2)), self._spawn_asked, item)
        elif kind < 32:
            process = self.processes.get(item[1])
            if process is None:
                self._life.router.no_process(item)
            else:
                self._for_process(kind, process, item)

    def _for_process(self, kind: int, process: Process, item: Envelope) -> None:
        if kind == MESSAGE and item[4] == BY_NAME:
            self._life.sim.by_name.arrived(self._life, item)
        elif kind == MONITOR:
            process.watchers[item[2]] = None
        elif kind == EXIT:
            self._fire(process, item[2], "exit")
        elif kind == int(Kind.UNMONITOR):
            process.watchers.pop(item[2], None)
        elif kind == TERMINATE:
            self.kill(process)
        elif kind == CANCEL and process.of_service and process.obeys:
            delay = self._world.pick((0.0, 0.05, 0.5, 1.0))
            asyncio.get_running_loop().call_later(delay, self.end, process)
        if item[3]:
            self.put([REPLY, item[2], process.pid, item[3], int(Status.OK), True])

    def _spawn_asked(self, item: Envelope) -> None:
        """A service is to begin; its code had to be fetched, perhaps."""
        services, args = self._life.sim.services, item[5]
        if self.wedged:
            self._queue.append(item)
            self._busy = True
            return
        if services.refuses(args):
            refusal = error_map("Invalid", "no such program")
            self.put([REPLY, item[2], item[1], item[3], int(Status.ERROR), refusal])
            return
        process = self.spawn()
        process.of_service, process.born_at = True, self._world.now
        process.keeper = Pid.parse(item[2].decode()).counter
        process.watchers[item[2]] = None
        self._life.sim.checker.homes[process.pid] = self._life
        self.put([REPLY, item[2], process.pid, item[3], int(Status.OK), process.pid])
        self._life.tasks.start(services.run(self._life, process, args), "service")

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
