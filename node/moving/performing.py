"""What the core of a move asks for, done: envelopes to links, items to VMs, questions to etcd.

Each action is done in its turn and at once, but for what has to wait: etcd, and a state of many chunks. What becomes of
those is fed back to the core.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from cluster.envelope import Envelope, Kind, Status, Watch, error_map
from cluster.errors import ClusterError
from cluster.etcd import Etcd
from cluster.migration.actions import (
    Action,
    Adopt,
    DeadLetter,
    Deliver,
    Drop,
    Finished,
    Fire,
    Freeze,
    Kill,
    Reason,
    Refuse,
    Resume,
    Send,
    TellWatchers,
)
from cluster.migration.belongings import Belongings
from cluster.migration.items import HERE, Ask, Assertion, Forwarded, Message, Note, Parcel, Watcher
from cluster.migration.transactions import Answer, Read, Transact
from cluster.tasks import Tasks
from node.host.boundary import In
from node.moving import wire
from node.moving.moved import Leaving, Moved
from node.moving.transacting import PAUSE, ask
from node.router import Home, Router

log = structlog.get_logger("wippy.moving")

AT_ONCE = 8
"""Chunks of a state put on the link in one turn of the loop."""
ROOM_PAUSE = 0.005
"""Seconds until it is looked again whether a link has room."""


class Links(Protocol):
    """What is needed of the links."""

    def send(self, node: str, envelope: Envelope) -> None: ...


class Places(Protocol):
    """What is needed of the hosts."""

    def place(self, host: str) -> Home | None:
        """Where in ``host`` a process is to live that comes here; None when there is no such host."""

    def tell_ended(self, pid: bytes, error: dict[str, Any] | None) -> None:
        """A process that never came to run has ended."""


class Groups(Protocol):
    """What is needed of the process groups."""

    def left(self, pid: str) -> None: ...

    def rejoin(self, pid: str, memberships: Any) -> None: ...


class Performer:
    """Does what cores ask for. ``feed`` gives the core of a process what became of it."""

    def __init__(
        self,
        node: str,
        etcd: Etcd,
        links: Links,
        router: Router,
        places: Places,
        belongings: Sequence[Belongings],
        groups: Groups,
        keeper_of: Callable[[str], bytes],
        lease: Callable[[], int],
        tasks: Tasks,
    ) -> None:
        self._node = node
        self._etcd = etcd
        self._links = links
        self._router = router
        self._places = places
        self._belongings = belongings
        self._groups = groups
        self._keeper_of = keeper_of
        self._lease = lease
        self._tasks = tasks
        self.feed: Callable[[Moved, list[Action]], None] = lambda moved, actions: None
        self.on_finished: Callable[[Moved, Finished], None] = lambda moved, finished: None
        self.on_forwarded: Callable[[str], None] = lambda node: None

    def perform(self, moved: Moved, actions: list[Action]) -> None:
        """Do all of them: half a move would be worse than what one that fails leaves undone."""
        for action in actions:
            self._guarded(moved, type(action).__name__, partial(self._do, moved, action))

    def _guarded(self, moved: Moved, what: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception:
            log.exception("a step of a move failed; the move goes on without", pid=_text(moved.pid), step=what)

    def _tell_parts(self, moved: Moved, what: str, tell: Callable[[Belongings], None]) -> None:
        """Each part, also when one of them fails."""
        for part in self._belongings:
            self._guarded(moved, f"{what} of {type(part).__name__}", partial(tell, part))

    def _do(self, moved: Moved, action: Action) -> None:
        match action:
            case Send(node, note):
                self._send(moved, node, note)
            case Deliver(item):
                self._deliver(moved, item)
            case DeadLetter(message):
                self._dead_letter(message)
            case Refuse(item, reason):
                self._refuse(moved, item, reason)
            case Freeze(to):
                self._ask_to_leave(moved, to)
            case Resume():
                self._resume(moved)
            case Drop():
                self._drop(moved)
            case Kill():
                self.kill(moved)
            case Adopt(parcel, revision):
                self._adopt(moved, parcel, revision)
            case Fire(watcher, reason):
                self._fire(moved, watcher, reason)
            case TellWatchers(watchers):
                for watcher in sorted(watchers, key=lambda one: one.id):
                    self._tell(moved, watcher, "the node it ran on is gone", self._router.route)
            case Finished():
                self.on_finished(moved, action)
            case Transact() | Read():
                self._tasks.start(self._ask_etcd(moved, action), f"move {moved.uniq.decode()}")

    # -- envelopes

    def _send(self, moved: Moved, node: str, note: Note) -> None:
        if isinstance(note, Parcel):
            self._tasks.start(self._send_state(moved, node, note), f"state {moved.uniq.decode()}")
            return
        if isinstance(note, Ask):
            assert moved.leaving is not None
            envelope = wire.asking(note, moved.leaving.wanted, moved.uniq)
        else:
            envelope = wire.envelope_of(note, moved.pid or wire.address(moved.uniq), self._node)
        if isinstance(note, Forwarded):
            self.on_forwarded(node)
        self.put(node, envelope)

    def put(self, node: str, envelope: Envelope) -> None:
        """Put an envelope on the link; what can't be sent is lost with the link, and the core hears of that. A message
        is answered or kept, as any other that can't be delivered."""
        try:
            self._links.send(node, envelope)
        except ClusterError as error:
            if envelope[0] == Kind.FORWARD:
                unreachable = error_map("Unavailable", str(error), retryable=True)
                self._router.refuse(envelope[7], Status.NOCONNECTION, unreachable, "noconnection")
            else:
                log.debug("not sent", peer=node, kind=envelope[0], problem=str(error))

    async def _send_state(self, moved: Moved, node: str, parcel: Parcel) -> None:
        """The chunks, so that what others send in between is not held up for long."""
        leaving, core = moved.leaving, moved.core
        assert core is not None
        try:
            envelopes = list(wire.chunks(parcel, moved.uniq))
        except wire.TooLarge as error:
            self.feed(moved, core.deadline(str(error)))
            return
        for position, envelope in enumerate(envelopes):
            if position and position % AT_ONCE == 0:
                await asyncio.sleep(0)
            while moved.leaving is leaving and self._router.is_congested(node):  # noqa: ASYNC110 - nobody has an event
                await asyncio.sleep(ROOM_PAUSE)
            if moved.leaving is not leaving:
                return
            self.put(node, envelope)

    def _deliver(self, moved: Moved, item: object) -> None:
        inbox = moved.inbox
        if isinstance(item, Assertion):
            leaving = moved.leaving
            if leaving is not None and leaving.held is not None:
                # of a watcher here: what others assert is held before the core sees it
                leaving.held.append((item, HERE))
                return
            pid, watch = wire.watch_of(item.watcher)
            if inbox is None:
                self._answer(moved, item, alive=False)
                return
            moved.asked[pid, watch, item.number] = item.watcher.node
            inbox.post([int(In.WATCH), moved.pid, pid, watch, item.number])
            return
        assert isinstance(item, Message)
        envelope = item.envelope
        if item.revision != (envelope[7] if envelope[0] == Kind.MESSAGE else 0):
            envelope = [*envelope[:7], item.revision, *envelope[8:]]
        self._router.deliver_to(inbox, envelope)

    def _dead_letter(self, message: Message) -> None:
        gone = error_map("Unavailable", "a later message of its node has overtaken it", retryable=True)
        self._router.refuse(message.envelope, Status.NOCONNECTION, gone, "overtaken")

    def _refuse(self, moved: Moved, item: object, reason: Reason) -> None:
        if isinstance(item, Assertion):
            self._answer(moved, item, alive=False)
        elif isinstance(item, Message) and reason is Reason.NOPROC:
            self._router.no_process(item.envelope)
        elif isinstance(item, Message):
            text = f"no connection to node {moved.node}, where the process is"
            unreachable = error_map("Unavailable", text, retryable=True)
            self._router.refuse(item.envelope, Status.NOCONNECTION, unreachable, "noconnection")

    def _answer(self, moved: Moved, assertion: Assertion, alive: bool) -> None:
        if assertion.watcher.node == self._node:
            assert moved.core is not None
            self.feed(moved, moved.core.answer_assertion(assertion, alive))
        else:
            self.put(assertion.watcher.node, wire.answer_to(moved.uniq, assertion, alive))

    def answered(self, moved: Moved, pid: bytes, watch: int, number: int, alive: bool) -> None:
        """The kernel has answered an assertion."""
        node = moved.asked.pop((pid, watch, number), None)
        if node is not None:
            self._answer(moved, Assertion(wire.watcher_of(node, pid, watch), number), alive)

    # -- watchers

    def _fire(self, moved: Moved, watcher: Watcher, reason: Reason) -> None:
        if reason is Reason.EXIT:
            return  # the EXIT itself has been delivered
        why = "it ended or never was" if reason is Reason.NOPROC else f"no connection to node {moved.node}"
        self._tell(moved, watcher, why, self._router.route)

    def _tell(self, moved: Moved, watcher: Watcher, why: str, route: Callable[[Envelope], None]) -> None:
        pid, watch = wire.watch_of(watcher)
        text = f"node disconnected: noconnection to {moved.pid.decode('utf-8', 'backslashreplace')}: {why}"
        route(
            [int(Kind.EXIT), pid, moved.pid, 0, int(Watch(watch)), None, error_map("Unavailable", text, retryable=True)]
        )

    # -- the process

    def _ask_to_leave(self, moved: Moved, to: str) -> None:
        leaving = moved.leaving
        assert leaving is not None
        if moved.inbox is None:
            assert moved.core is not None
            self.feed(moved, moved.core.deadline("it has ended"))
            return
        moved.inbox.post([int(In.MIGRATE), moved.pid, leaving.number, to.encode(), leaving.deadline])

    def _resume(self, moved: Moved) -> None:
        leaving = moved.leaving
        assert leaving is not None
        self._unpack(moved, leaving)
        if moved.inbox is not None:
            moved.inbox.post([int(In.THAW), moved.pid, leaving.number, b"the move was given up"])
            return
        for watcher in sorted(leaving.watchers, key=lambda one: one.id):
            self._tell(moved, watcher, "its host was stopped while it was about to move", self._router.route)
        self._tasks.start(self._end(moved), f"end {moved.uniq.decode()}")

    def _unpack(self, moved: Moved, leaving: Leaving) -> None:
        if leaving.packed:
            leaving.packed = False
            self._tell_parts(moved, "stays", lambda part: part.stays(_text(moved.pid)))

    def _drop(self, moved: Moved) -> None:
        leaving = moved.leaving
        if leaving is not None:
            leaving.packed = False
            if moved.inbox is not None:
                moved.inbox.post([int(In.DROP), moved.pid, leaving.number])
        moved.inbox = None
        pid = _text(moved.pid)
        self._tell_parts(moved, "left", lambda part: part.left(pid))
        self._groups.left(pid)

    def kill(self, moved: Moved) -> None:
        """End the process, as from outside."""
        if moved.inbox is not None:
            moved.inbox.post([int(Kind.TERMINATE), moved.pid, b"", 0])

    def _adopt(self, moved: Moved, parcel: Parcel, revision: int) -> None:
        body: wire.Body = parcel.body
        moved.expected, moved.node = None, self._node
        lease = self._lease()
        self._tell_parts(moved, "arrived", lambda part: part.arrived(body.pid, parcel.holdings, revision, lease))
        moved.inbox = self._places.place(body.host)
        if moved.inbox is None:
            self._stillborn(moved, parcel)
            return
        self._guarded(moved, "rejoin", lambda: self._groups.rejoin(body.pid, body.groups))
        moved.inbox.post([int(In.ADOPT), moved.pid, body.text, self._keeper_of(body.pid)])

    def _stillborn(self, moved: Moved, parcel: Parcel) -> None:
        """Its host was removed while it came: it has ended."""
        log.error("a process came for a host that is gone; it has ended", pid=_text(moved.pid), host=parcel.body.host)
        for watcher in sorted(parcel.watchers, key=lambda one: one.id):
            self._tell(moved, watcher, f"host {parcel.body.host} is gone from node {self._node}", self._router.route)
        self._tasks.start(self._end(moved), f"end {moved.uniq.decode()}")

    async def _end(self, moved: Moved) -> None:
        self._places.tell_ended(moved.pid, {"kind": "NotFound", "message": "its host is gone"})

    # -- etcd

    async def _ask_etcd(self, moved: Moved, request: Transact | Read) -> None:
        core = moved.core
        assert core is not None
        if isinstance(request, Read) and core.arrival is not None:
            await asyncio.sleep(PAUSE)  # it has just been seen that nothing is decided yet
        answer: Answer = await ask(self._etcd, request)
        if moved.core is core:
            self.feed(moved, core.answered(answer))


def _text(pid: bytes) -> str:
    return pid.decode("utf-8", "surrogateescape")
