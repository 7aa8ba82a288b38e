"""Nodes in one event loop: real supervisors, processes that are only records, links a test may break.

What is sent arrives in order. ``split`` holds it back; ``lose`` closes one side's session, as a timeout
does: what was under way to that side is gone, and the other side learns of it before anything later. A
process that is owned ends when its owner, or the link to it, does: what the kernels do.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from cluster.envelope import Envelope, Kind, Status, Watch, error_map
from cluster.members import Member, Members, NodeState
from cluster.pid import Pid, node_of, slot_of
from cluster.registry import Entry
from node.ports import Ports
from node.trees import HOST, Definitions, Guard, Trees

PROCESSES = "app:processes"
CODE = Entry("app:child", "process.lua", {}, {"source": "", "method": "main"})


@dataclass
class Process:
    """One that does nothing. ``name`` is its first argument."""

    pid: bytes
    name: str
    owner: bytes
    watchers: set[bytes] = field(default_factory=set)
    is_stubborn: bool = False
    arguments: list[Any] = field(default_factory=list)


class Node:
    """A node as far as supervisors know one."""

    def __init__(self, net: Net, name: str, number: int, epoch: int) -> None:
        self.name = name
        self.net = net
        self.epoch = epoch
        self.processes: dict[bytes, Process] = {}
        self.is_alive = True
        self.is_in_doubt = False
        """Its lease may be over."""
        self.refuses: Callable[[list[Any]], str] = lambda arguments: ""
        """Why a process does not start; empty when it does."""
        self.starts = 0
        self.late: dict[str, Member] = {}
        """Nodes whose end it has not seen yet: for it they are still there."""
        self._counter = 0
        self._number = number
        self.ports = Ports(name, number, self.route)
        guard = Guard(cast(Any, SimpleNamespace(guarded=(), may_act=bool, in_doubt=0, kill_owned=0, sure=0, owns=0)))
        self.trees = Trees(
            name,
            self.ports,
            net.members(self),
            Definitions(net.entries.get, lambda variable: None),
            guard,
            applied=self._applied,
            barrier=_nothing,
            in_doubt=lambda: self.is_in_doubt,
            refuse=lambda envelope, status, error, reason: self._reply(envelope, status, error),
        )

    def route(self, envelope: Envelope) -> None:
        if not self.is_alive:
            return
        to = node_of(envelope[1]).decode()
        if to == self.name:
            self.deliver(envelope)
        elif to in self.late:
            pass  # nobody is there; whoever waits for an answer hears of the end
        elif to in self.net.nodes and self.net.nodes[to].is_alive and (self.name, to) not in self.net.closed:
            self.net.send(self.name, to, envelope)
        elif envelope[3] and envelope[0] != Kind.REPLY:
            gone = error_map("Unavailable", f"no connection to {to}", retryable=True)
            self.deliver([int(Kind.REPLY), envelope[2], envelope[1], envelope[3], int(Status.NOCONNECTION), gone])

    def deliver(self, envelope: Envelope) -> None:
        if not self.is_alive:
            return
        kind, to = envelope[:2]
        if kind in (Kind.SPAWN, Kind.CALL) and f"@{HOST}|".encode() in to:
            self.trees.post(envelope)
        elif kind == Kind.SPAWN:
            self._spawn(envelope)
        elif slot_of(to) == 0:
            if not self.ports.deliver(envelope):
                self._reply(envelope, Status.NOPROC, None)
        elif to in self.processes:
            self._signal(self.processes[to], envelope)
        else:
            self._reply(envelope, Status.NOPROC, None)

    def _reply(self, envelope: Envelope, status: Status, value: Any) -> None:
        if envelope[3] and envelope[0] != Kind.REPLY:
            self.route([int(Kind.REPLY), envelope[2], envelope[1], envelope[3], int(status), value])

    def _spawn(self, envelope: Envelope) -> None:
        _, _, parent, _, _, arguments, options = envelope
        self.starts += 1
        if refusal := self.refuses(arguments):
            self._reply(envelope, Status.ERROR, error_map("Internal", refusal))
            return
        if options.get(b"owner") and self.is_in_doubt and node_of(parent) != self.name.encode():
            self._reply(envelope, Status.ERROR, error_map("Unavailable", "in doubt", details={b"not_now": True}))
            return
        self._counter += 64
        pid = str(Pid(self.name, PROCESSES, self._number, self._counter + 1)).encode()
        name = arguments[0].decode() if arguments else "?"
        process = Process(pid, name, parent if options.get(b"owner") else b"", arguments=arguments)
        if options.get(b"monitor"):
            process.watchers.add(parent)
        self.processes[pid] = process
        self.net.began(self, process)
        self._reply(envelope, Status.OK, pid)

    def _signal(self, process: Process, envelope: Envelope) -> None:
        match envelope[0]:
            case Kind.CANCEL:
                self._reply(envelope, Status.OK, True)
                if not process.is_stubborn:
                    self.end(process, None)
            case Kind.TERMINATE:
                self._reply(envelope, Status.OK, True)
                self.end(process, error_map("Canceled", "terminated"))
            case Kind.EXIT if envelope[4] == Watch.OWNER and envelope[2] == process.owner:
                self.end(process, error_map("Canceled", "its supervisor ended"))

    def end(self, process: Process, error: Any) -> None:
        """The process ends, and whoever watches it is told."""
        if self.processes.pop(process.pid, None) is not None:
            for watcher in process.watchers:
                self.route([int(Kind.EXIT), watcher, process.pid, 0, int(Watch.MONITOR), None, error])

    async def _applied(self, revision: int, seconds: float) -> None:
        while self.late:
            await asyncio.sleep(0.001)

    def learn_of_end(self, node: str) -> None:
        if self.late.pop(node, None) is not None:
            self.node_down(node)
            self.net.tell()
            self.net.pass_on(node, self.name)

    def node_down(self, node: str) -> None:
        for process in list(self.processes.values()):
            process.watchers = {pid for pid in process.watchers if node_of(pid) != node.encode()}
            if process.owner and node_of(process.owner) == node.encode():
                self.end(process, error_map("Canceled", "its supervisor can't be reached"))
        self.ports.node_down(node.encode(), "the link closed")


class Net:
    """The nodes, their links and their registrations."""

    def __init__(self, *names: str) -> None:
        self.entries: dict[str, Entry] = {"app:child": CODE}
        self.nodes: dict[str, Node] = {}
        self.closed: set[tuple[str, str]] = set()
        """(from, to) over which nothing can be sent: this side has closed, and waits for the other."""
        self.held: set[frozenset[str]] = set()
        self.doubles: list[str] = []
        self._under_way: dict[tuple[str, str], deque[Envelope]] = defaultdict(deque)
        self._handlers: list[Callable[[Any, Any], None]] = []
        self._states: dict[str, NodeState] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._epoch = 0
        self._dice = random.Random(0)
        for name in names:
            self.join(name)

    # members

    def members(self, node: Node) -> Members:
        """The registered nodes as ``node`` sees them."""

        def get(name: str) -> Member | None:
            return node.late.get(name) or self._member(name)

        def all() -> list[Member]:
            return [member for name in sorted(self.nodes) if (member := get(name)) is not None]

        return cast(Members, SimpleNamespace(get=get, all=all, on_change=self._handlers.append, applied=1))

    def _member(self, name: str) -> Member | None:
        node = self.nodes.get(name)
        if node is None or not node.is_alive:
            return None
        labels = self._labels.get(name, {})
        return Member(name, node.epoch, node.epoch, 1, 1, self._states[name], labels, "", {}, "", "")

    def tell(self) -> None:
        for handler in list(self._handlers):
            handler(None, None)

    def join(self, name: str, **labels: str) -> Node:
        self._epoch += 1
        self._labels[name] = labels
        self._states[name] = NodeState.READY
        node = self.nodes[name] = Node(self, name, self._epoch, self._epoch)
        self.closed = {pair for pair in self.closed if name not in pair}
        self.held = {pair for pair in self.held if name not in pair}
        self.tell()
        return node

    def set_state(self, name: str, state: NodeState) -> None:
        self._states[name] = state
        self.tell()

    def relabel(self, name: str, **labels: str) -> None:
        self._labels[name] = labels
        self.tell()

    def die(self, name: str, unseen_by: str = "") -> None:
        """Its registration ends; the others see that, each in its own time. ``unseen_by`` learns of it when told to."""
        member = self._member(name)
        assert member is not None
        self.nodes[name].is_alive = False
        for other in self.alive():
            self._under_way[other.name, name].clear()
            self._under_way[name, other.name].clear()
            other.late.setdefault(name, member)
            if other.name != unseen_by:
                asyncio.get_running_loop().call_later(self._dice.random() * 0.02, other.learn_of_end, name)

    def alive(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.is_alive]

    # links

    def send(self, source: str, target: str, envelope: Envelope) -> None:
        self._under_way[source, target].append(envelope)
        asyncio.get_running_loop().call_soon(self.pass_on, source, target)

    def pass_on(self, source: str, target: str) -> None:
        """Deliver what waits, as far as it may."""
        waiting = self._under_way[source, target]
        while waiting and self._is_open(source, target):
            self.nodes[target].deliver(waiting.popleft())

    def _is_open(self, source: str, target: str) -> bool:
        is_held = frozenset((source, target)) in self.held or source in self.nodes[target].late
        return not is_held and (target, source) not in self.closed

    def split(self, one: str, other: str) -> None:
        self.held.add(frozenset((one, other)))

    def lose(self, one: str, other: str) -> None:
        """The side of ``one`` gives up: what came for it is gone. The other side still believes in the link."""
        if (one, other) in self.closed or not (self.nodes[one].is_alive and self.nodes[other].is_alive):
            return
        self.closed.add((one, other))
        self._under_way[other, one].clear()
        self.nodes[one].node_down(other)

    def mend(self, one: str, other: str) -> None:
        """They reach each other again: a session that only one side closed ends on the other side first."""
        self.held.discard(frozenset((one, other)))
        ways = [(one, other), (other, one)]
        if any(way in self.closed for way in ways) and all(self.nodes[name].is_alive for name in (one, other)):
            for source, target in ways:
                self._under_way[target, source].clear()  # of the session that is over
                if (source, target) not in self.closed:
                    self.nodes[source].node_down(target)
            for way in ways:
                self.closed.discard(way)
        for way in ways:
            self.pass_on(*way)

    # what a test looks at

    def began(self, node: Node, process: Process) -> None:
        if self.running()[process.name] > 1:
            self.doubles.append(f"{process.name} on {node.name}")

    def running(self) -> Counter[str]:
        """How many processes of each name live, on nodes that live."""
        return Counter(process.name for node in self.alive() for process in node.processes.values())

    def find(self, name: str) -> tuple[Node, Process]:
        return next((n, p) for n in self.alive() for p in n.processes.values() if p.name == name)

    def fail(self, name: str) -> None:
        node, process = self.find(name)
        node.end(process, error_map("Internal", "told to fail"))

    def supervisor(self, id: str, **data: Any) -> None:
        self.entries[f"app:{id}"] = Entry(f"app:{id}", "process.supervisor", {}, data)

    async def start(self, id: str, on: str) -> bytes:
        """Start a supervisor; its PID."""
        node = self.nodes[on]
        port = node.ports.open("node:test")
        try:
            return await port.spawn(f"{{{on}@{HOST}|}}".encode(), f"app:{id}", [], {b"monitor": True}, timeout=5)
        finally:
            port.close()

    async def ask(self, pid: bytes, name: str, *arguments: Any, through: str) -> Any:
        """Run a command; its value. Raises Refused."""
        port = self.nodes[through].ports.open("node:test")
        try:
            return await port.request(Kind.CALL, pid, name.encode(), list(arguments), {}, timeout=5)
        finally:
            port.close()

    async def until(self, probe: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(5):
                while not probe():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            shown = [row for node in self.alive() for row in node.trees.shown()]
            raise AssertionError(f"never: {what}; running: {dict(self.running())}; trees: {shown}") from None

    async def turn(self, times: int = 1) -> None:
        """Let the loop go round."""
        for _ in range(times):
            await asyncio.sleep(0.002)

    async def runs(self, *names: str) -> None:
        """Wait until exactly these run, each once."""
        await self.until(lambda: self.running() == Counter(names), f"{', '.join(names)} run, each once")

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.trees.close()


def child(id: str, node: str = "local", **more: Any) -> dict[str, Any]:
    return {"id": id, "process": "app:child", "host": PROCESSES, "node": node, "input": [id], **more}


def below(id: str, node: str = "local", **more: Any) -> dict[str, Any]:
    """A child that is the supervisor of the same name."""
    return {"id": id, "process": f"app:{id}", "node": node, **more}


async def _nothing() -> None:
    """There are no VMs."""
