"""One supervisor process: performs what the supervision core decides, on this node and on others.

It is a process of the node itself, with a PID like everybody's: it can be monitored, linked,
cancelled (its children stop in reverse order, then it ends) and terminated (they are killed first).
Its children are spawned as its own: a kernel ends them when the supervisor is gone or the link to
its node closes, whatever they trap. A child on a node that can't be reached is started again only
when it is certain that it has ended, unless its entry allows duplicates.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import structlog

from cluster.envelope import Envelope, Kind, Status, Watch, error_map, to_text
from cluster.pid import node_of
from cluster.supervision import Branch, ChildSpec
from cluster.supervision.events import (
    Action,
    AddChild,
    Answer,
    Begin,
    Begun,
    Change,
    Command,
    Due,
    End,
    Event,
    Finish,
    Kill,
    Outcome,
    Start,
    Stop,
    Wait,
)
from cluster.supervision.specs import Ending
from cluster.tasks import Tasks
from node.trees.children import Children, World
from node.trees.contact import HOST
from node.trees.definition import Definition
from node.trees.requests import reason_of
from node.trees.watchers import Watchers

log = structlog.get_logger("wippy.trees")

LOOK_AT_LEASE = 0.2
MAX_OPEN = 20_000
"""Commands that may wait for their turn: while a node can't be reached, programs may ask again and again."""

OnAnswer: TypeAlias = Callable[[Answer], None]


class Overseer:
    """A supervisor of ``entry``. ``begun`` is told once: that its children were started (None), or why not (an error
    map). ``over`` is told when it has ended."""

    def __init__(
        self,
        world: World,
        entry: str,
        definition: Definition,
        parent: bytes,
        *,
        is_owned: bool,
        begun: Callable[[dict[bytes, Any] | None], None],
        over: Callable[[Overseer], None],
    ) -> None:
        self.entry = entry
        self.parent = parent
        self.definition = definition
        self.pid = world.ports.new_pid(HOST)
        self.watchers = Watchers()
        self.core = Branch(definition.spec, definition.children)
        self.is_being_killed = False
        self._world = world
        self.is_owned = is_owned
        self._begun = begun
        self._over = over
        self._tasks = Tasks(f"supervisor {entry}")
        self.has_begun = False
        """Whether it was told what became of its start."""
        self._abandoned: bool | None = None
        """Whether starts were abandoned for a stop (False) or to be killed (True); None: not yet."""
        self._events: deque[Event] = deque()
        self._is_handling = False
        self._commands: dict[int, OnAnswer] = {}
        self._last_ref = 0
        self.children = Children(
            world, entry, self.pid, self.core, self.feed, self._tasks, lambda: self.definition.allows_duplicates
        )

    def start(self, revision: int) -> None:
        """Begin, once nothing of a former run of it is left anywhere: every node has seen ``revision`` by then."""
        self._world.ports.admit(self)
        if self.definition.is_spread and not self.definition.allows_duplicates:
            self._tasks.start(self._start_afresh(revision), "start afresh")
        else:
            self.feed(Begin())

    async def _start_afresh(self, revision: int) -> None:
        certain, others = self._world.contact.certain, self._world.members.all()
        waits = [
            self._tasks.start(certain(member.node, member.epoch, revision, self.entry), f"afresh on {member.node}")
            for member in others
            if member.node != self._world.node
        ]
        await asyncio.gather(*waits)
        self.feed(Begin())

    def deliver(self, envelope: Envelope) -> None:
        """An envelope for the supervisor."""
        kind = envelope[0]
        if kind == Kind.REPLY:
            self.children.requests.replied(envelope)
        elif kind == Kind.EXIT:
            self._told_of_exit(envelope)
        elif self.watchers.take(envelope):
            self._reply(envelope)
        elif kind == Kind.CANCEL:
            self._reply(envelope)
            self.feed(End())
        elif kind == Kind.TERMINATE:
            self._reply(envelope)
            self.kill()
        else:
            error = error_map("Invalid", f"{self.pid.decode()} is a supervisor; it takes no messages", retryable=False)
            self._world.refuse(envelope, Status.ERROR, error, "supervisor")

    def node_down(self, node: bytes, reason: str) -> None:
        """A node's registration ended or the link to it closed."""
        self.watchers.forget_node(node)
        self.children.node_down(node.decode("utf-8", "replace"))
        if self.is_owned and node_of(self.parent) == node:
            self.kill()

    def members_changed(self) -> None:
        """Children without a place look for one."""
        self.children.members_changed()

    def kill(self) -> None:
        """End all children, then the supervisor, without asking anybody."""
        if not self.is_being_killed:
            self.is_being_killed = True
            self.feed(End(kill=True))
            self._check_lease()

    def end(self) -> None:
        """Stop the children in reverse order, then the supervisor."""
        self.feed(End())

    def change(self, definition: Definition) -> None:
        """The entry says this now."""
        self.definition = definition
        self.feed(Change(definition.spec, definition.children))

    def command(self, make: Callable[[int], Command], then: OnAnswer) -> None:
        """Do what a program asks; ``then`` has the answer."""
        if len(self._commands) >= MAX_OPEN:
            then(Answer(0, Outcome.BUSY))
            return
        self._last_ref += 1
        self._commands[self._last_ref] = then
        self.feed(make(self._last_ref))

    def add(self, spec: ChildSpec, then: OnAnswer) -> None:
        self.command(lambda ref: AddChild(ref, spec), then)

    def feed(self, event: Event) -> None:
        """Let the core decide. What comes up meanwhile waits for its turn."""
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._events:
                for action in self.core.handle(self._events.popleft()):
                    self._perform(action)
                if self.core.is_ending:
                    self._abandon_starts()
        finally:
            self._is_handling = False

    def _abandon_starts(self) -> None:
        """Tell supervisors that are still being started for this one that it ends. They may be waiting for other nodes,
        and those for this one to end."""
        if self._abandoned is not self.is_being_killed:
            self._abandoned = self.is_being_killed
            self.children.abandon_supervisors(self.is_being_killed)

    def _perform(self, action: Action) -> None:
        match action:
            case Start():
                self.children.start(action)
            case Stop(_, number, grace):
                self.children.stop(number, grace)
            case Kill(_, number):
                self.children.kill(number)
            case Wait(child, number, seconds):
                self.children.wait(child, seconds, Due(child, number))
            case Answer(ref):
                self._commands.pop(ref)(action)
            case Begun():
                log.info("supervisor runs", entry=self.entry, pid=self.pid.decode(), children=len(self.core.children))
                self._tell_begun(None)
            case Finish():
                self._finish(action)

    def _tell_begun(self, error: dict[bytes, Any] | None) -> None:
        """Whoever asked for it hears once what became of its start."""
        if not self.has_begun:
            self.has_begun = True
            self._begun(error)

    def _told_of_exit(self, envelope: Envelope) -> None:
        _, _, pid, _, watch, _, error = envelope
        if watch != Watch.OWNER:
            self.children.exited(pid, error)
        elif self.is_owned and pid == self.parent:
            self.kill()

    def _check_lease(self) -> None:
        """Killed because its node may own nothing any more, it can't wait for other nodes."""
        if not len(self.children.runs):
            return
        if self._world.in_doubt():
            self.children.give_up()
        asyncio.get_running_loop().call_later(LOOK_AT_LEASE, self._check_lease)

    def _finish(self, finish: Finish) -> None:
        error = self._error_of(finish)
        if error is None:
            log.info("supervisor stopped", entry=self.entry, pid=self.pid.decode())
        else:
            log.warning("supervisor ends", entry=self.entry, pid=self.pid.decode(), reason=reason_of(error))
        self._tell_begun(error or error_map("Canceled", "it was stopped while it started"))
        self.children.close()
        for envelope in self.watchers.exits(self.pid, error):
            self._world.ports.route(envelope)
        self._world.ports.close(self)
        self._over(self)

    def _error_of(self, finish: Finish) -> dict[bytes, Any] | None:
        """How the supervisor ended, for whoever watches it. None: it was asked to end."""
        if self.is_being_killed:
            return error_map("Canceled", "terminated")
        if not finish.reason:
            return None
        details = {b"exit": b"shutdown"} if finish.ending is Ending.SHUTDOWN else None
        message = f"supervisor {self.entry}: {finish.reason}"
        return error_map("Unavailable", message, retryable=not finish.by_design, details=details)

    async def close(self) -> None:
        """Nothing is waited for any more."""
        await self._tasks.close()

    def _reply(self, envelope: Envelope) -> None:
        if envelope[3]:
            self._world.ports.route([int(Kind.REPLY), envelope[2], self.pid, envelope[3], int(Status.OK), True])

    def shown(self) -> Iterator[dict[str, Any]]:
        """What is known of it, and then of each of its children, as plain data."""
        core, pid = self.core, self.pid.decode()
        yield {
            "pid": pid,
            "entry": self.entry,
            "node": self._world.node,
            "parent": self.parent.decode("utf-8", "replace"),
            "strategy": core.spec.strategy.value,
            "restarts": core.restarts,
            "is_ending": core.is_ending,
        }
        for id in core.children:
            yield {"of": pid, **self.shown_child(id)}

    def shown_child(self, id: str) -> dict[str, Any]:
        child = self.core.children[id]
        run = self.children.runs.get(child.run)
        state = "lost" if run is not None and run.is_lost else child.phase.value
        waits_for = self.children.waits_for(id)
        told: dict[str, Any] = {
            "id": id,
            "process": child.spec.work.process,
            "type": "supervisor" if child.spec.is_supervisor else "worker",
            "state": "waiting for a place" if waits_for else state,
            "restarts": child.restarts,
        }
        if pid := self.children.pid_of(id):
            told["pid"] = to_text(pid)
        if run is not None:
            told["node"] = run.node
        if waits_for:
            told["waits_for"] = waits_for
        if child.last_error:
            told["last_error"] = child.last_error
        return told
