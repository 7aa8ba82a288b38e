"""Ordered delivery between this node and its peers: the shell around one ``LinkCore`` per peer.

``send`` packs an envelope and queues it; what was queued in one turn of the loop leaves together, in frames of
up to 32. ``on_envelopes`` gets what arrives, in the order the peer sent it, never twice. When a link closes, for
whatever reason, ``on_down`` is told once with the reason: what was under way has an unknown outcome.

While NATS is away, or the peer is slow, what is sent waits; when too much waits for a peer ``on_congestion`` says
so, for senders to be held back, and again when there is room.

Peers follow the watch: a link exists while both nodes are registered. A frame may come before the watch has
shown its sender; it is ignored, and comes again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import structlog

from cluster import frame as wire
from cluster.connection import Connection, Problem, Subscription, Trouble
from cluster.envelope import MAX_MESSAGE, Envelope, Kind, pack
from cluster.errors import MessageTooBig, NodeDown, NotConnected, Unavailable
from cluster.frame import Frame, Reset
from cluster.handlers import Handlers
from cluster.link import ACK_DELAY, Action, Closed, Counters, Deliver, Limits, LinkCore, Publish, State
from cluster.members import Member, MemberChange, NodeState
from cluster.subjects import Subjects, untoken
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.links")

HOUSEKEEPING = 0.1
"""Seconds between two looks at the clock for every link."""

ROOM_PAUSE = 0.005
"""Seconds until the next try when the connection's outbox is full."""

REFUSABLE = frozenset({Kind.MESSAGE, Kind.MESSAGES, Kind.SPAWN, Kind.CALL, Kind.RETURN})
"""What a full link may refuse: its sender is told at once, or it is a dead letter. All else somebody waits for."""

FORWARD = int(Kind.FORWARD)
WRAPPING = 4096
"""Bytes of a FORWARD beside the envelope in it."""

Received: TypeAlias = Callable[[str, list[Envelope]], None]
Down: TypeAlias = Callable[[str, str], None]
Congestion: TypeAlias = Callable[[str, bool], None]


class Peers(Protocol):
    """What links need to know of the members."""

    @property
    def applied(self) -> int: ...

    def all(self) -> list[Member]: ...

    def on_change(self, handler: MemberChange) -> None: ...


@dataclass(frozen=True)
class LinkStats:
    """One link, for people and metrics."""

    node: str
    state: State
    n: int
    peer_epoch: int
    waiting_envelopes: int
    waiting_bytes: int
    frames_in: int
    frames_out: int
    envelopes_in: int
    envelopes_out: int
    resent: int
    duplicates: int
    gaps: int
    closes: int
    congested: bool


@dataclass(frozen=True)
class LinksStats:
    """All links, and what was dropped on the way to them by reason."""

    epoch: int
    links: list[LinkStats]
    dropped: dict[str, int]


@dataclass
class _Peer:
    core: LinkCore
    subject: str = ""
    dirty: bool = False
    congested: bool = False


class Links:
    """The links of this node. ``async with`` runs it; ``open`` makes it reachable."""

    def __init__(
        self,
        connection: Connection,
        members: Peers,
        subjects: Subjects,
        node: str,
        *,
        limits: Limits | None = None,
        max_message: int = MAX_MESSAGE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._members = members
        self._subjects = subjects
        self._node = node
        self._limits = limits or Limits()
        self._max_message = max_message
        self._clock = clock
        self._epoch = 0
        self._sending = False
        self._peers: dict[str, _Peer] = {}
        self._former: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._sources: dict[str, str] = {}
        self._dirty: list[_Peer] = []
        self._flush_handle: asyncio.Handle | None = None
        self._ack_handle: asyncio.Handle | None = None
        self._dropped: Counter[str] = Counter()
        self._received: Received | None = None
        self._lull: Callable[[], None] = lambda: None
        self._down: Handlers[str, str] = Handlers("closed link")
        self._congestion: Handlers[str, bool] = Handlers("congested link")
        self._subscription: Subscription | None = None
        self._tasks = Tasks("links")

    async def __aenter__(self) -> Self:
        self._members.on_change(self._on_member)
        self._connection.on_reconnect(self._reconnected)
        self._connection.on_problem(self._on_problem)
        self._tasks.start(self._keep_house(), "housekeeping")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end("this node stops")
        if self._subscription is not None:
            await self._subscription.close()
        await self._tasks.close()
        for handle in (self._flush_handle, self._ack_handle):
            if handle is not None:
                handle.cancel()

    def on_envelopes(self, handler: Received) -> None:
        """``handler(node, envelopes)`` gets what arrives. One handler, set before ``open``."""
        self._received = handler

    def on_lull(self, handler: Callable[[], None]) -> None:
        """``handler()`` is called when all that has come was handed over: what it sends leaves at once."""
        self._lull = handler

    def on_down(self, handler: Down) -> None:
        """``handler(node, reason)`` is told once for each session that ends."""
        self._down.add(handler)

    def on_congestion(self, handler: Congestion) -> None:
        """``handler(node, congested)`` is told when too much waits for a peer, and when there is room again."""
        self._congestion.add(handler)

    # -- this node's registration

    async def open(self, epoch: int) -> None:
        """Receive under this epoch; links to all peers begin. Complete, behind the barrier, when it returns.

        Raises Unavailable or NotConnected when the subscription can't be made: then no link is open.
        """
        former, self._subscription = self._subscription, None
        self.end("this node registered anew")
        # Before the subscription: a frame that comes with it must find the epoch it is for, and be answered.
        self._epoch = epoch
        self._sending = True
        self._pair_all()
        try:
            self._subscription = await self._connection.subscribe(
                self._subjects.data_of(self._node, epoch),
                self._on_message,
                pending_msgs=1_000_000,
                pending_bytes=512 * 1024 * 1024,
            )
        except BaseException:
            self.end("this node can't receive")
            raise
        finally:
            if former is not None:
                await former.close()

    def end(self, reason: str) -> None:
        """This node's epoch is over: every link closes, and nothing is sent until the next ``open``."""
        self._epoch = 0
        self._sending = False
        self._pair_all(reason)

    # -- sending

    def send(self, node: str, envelope: Envelope) -> None:
        """Queue one envelope for ``node``.

        Raises MessageTooBig; NodeDown when the node's registration ended; Unavailable when the node is unknown,
        the link is closed, or far too much waits for it. Nothing was queued then.
        """
        peer = self._peers.get(node)
        if peer is None or not self._sending:
            raise self._refusal(node)
        kind = envelope[0]
        # a message of the largest size may be passed on as well
        packed = pack(envelope, self._max_message if kind != FORWARD else self._max_message + WRAPPING)
        peer.core.send(packed, kind in REFUSABLE)
        if not peer.dirty:
            self._mark(peer)
        if not peer.congested and peer.core.congested:
            peer.congested = True
            self._congestion.tell(node, True)

    def is_open(self, node: str) -> bool:
        """Whether what is sent to ``node`` now is on its way: both are registered."""
        peer = self._peers.get(node)
        return self._sending and peer is not None and peer.core.peer_epoch != 0

    def open_nodes(self) -> frozenset[str]:
        """The nodes with an open link."""
        return frozenset(node for node in self._peers if self.is_open(node))

    def _mark(self, peer: _Peer) -> None:
        """The peer has something to publish, at the end of this turn of the loop."""
        peer.dirty = True
        self._dirty.append(peer)
        self._schedule_flush()

    def close(self, node: str, reason: str) -> None:
        """Close the link to ``node``, if there is one; the next session begins at once."""
        peer = self._peers.get(node)
        if peer is not None:
            self._perform(node, peer, peer.core.close(reason))

    def _refusal(self, node: str) -> Unavailable | NodeDown:
        if node not in self._peers:
            if node in self._former:
                return NodeDown(node, self._former[node])
            return Unavailable(f"no node {node!r} is registered; look at the nodes of this cluster")
        return Unavailable(f"this node is not registered now, nothing was sent to {node}; try again")

    def _reconnected(self) -> None:
        now = self._clock()
        for peer in self._peers.values():
            peer.core.reconnected(now)
            if peer.core.to_publish and not peer.dirty:
                self._mark(peer)
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._dirty and self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Frame and publish what was queued this turn. While NATS is away it stays queued."""
        self._flush_handle = None
        if not self._connection.connected:
            return
        dirty, self._dirty = self._dirty, []
        now = self._clock()
        for position, peer in enumerate(dirty):
            if not self._connection.has_room:
                self._dirty = dirty[position:] + self._dirty
                self._flush_handle = asyncio.get_running_loop().call_later(ROOM_PAUSE, self._flush)
                return
            peer.dirty = False
            for payload in peer.core.frames(now):
                self._publish(peer.subject, payload)

    def _publish(self, subject: str, payload: bytes) -> None:
        try:
            self._connection.publish(subject, payload)
        except (NotConnected, Unavailable) as error:
            # lost like any other on the way: it goes again
            self._drop("not connected", subject, str(error))
        except MessageTooBig as error:
            self._drop("too big", subject, f"{error} (max_payload of the NATS server: set it to 1 MiB or more)")

    # -- receiving

    def _on_message(self, subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
        try:
            src = self._sources.get(subject) or self._source(subject)
            frame = wire.read(payload)
        except ValueError as error:
            self._drop("malformed", subject, str(error))
            return
        if isinstance(frame, Reset):
            self._on_reset(src, frame)
        elif frame.src.decode("utf-8", "surrogateescape") != src:
            self._drop("forged sender", subject, f"the frame says it comes from {frame.src!r}")
        else:
            self._on_frame(src, frame, len(payload))
            if self._subscription is not None and not self._subscription.waiting:
                self._answer()

    def _answer(self) -> None:
        """Nothing else waits: let the node answer, and send that in this turn of the loop rather than the next."""
        self._lull()
        if self._dirty and self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush()

    def _source(self, subject: str) -> str:
        if len(self._sources) > 10_000:
            self._sources.clear()
        src = self._sources[subject] = untoken(subject.rsplit(".", 1)[1])
        return src

    def _on_reset(self, src: str, reset: Reset) -> None:
        peer = self._peers.get(src)
        if peer is not None:
            self._perform(src, peer, peer.core.reset(reset))

    def _on_frame(self, src: str, frame: Frame, size: int) -> None:
        peer = self._peers.get(src) or self._stranger(src)
        actions = peer.core.frame(frame, size, self._clock(), self._members.applied)
        if peer.core.ack_due is not None and self._ack_handle is None:
            self._ack_handle = asyncio.get_running_loop().call_later(ACK_DELAY, self._acknowledge)
        self._perform(src, peer, actions)
        if peer.core.to_publish and not peer.dirty:
            self._mark(peer)
        if peer.congested:
            self._relieve(src, peer)

    def _relieve(self, node: str, peer: _Peer) -> None:
        if peer.core.relieved:
            peer.congested = False
            self._congestion.tell(node, False)

    def _stranger(self, src: str) -> _Peer:
        """A core for a sender the watch does not show: it can only ignore or reject, and is not kept."""
        peer = _Peer(LinkCore(self._node, src, self._limits))
        peer.core.pair(self._epoch, 0, "")
        return peer

    def _perform(self, node: str, peer: _Peer, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Deliver(envelopes):
                    if self._received is not None:
                        self._received(node, envelopes)
                case Publish(epoch, payload):
                    self._publish(self._subjects.data(node, epoch, self._node), payload)
                case Closed(reason):
                    self._closed(node, peer.core, reason)

    def _closed(self, node: str, core: LinkCore, reason: str) -> None:
        # the end of all links is told by whoever ended them, and a peer that said it leaves is meant to go
        say = log.warning if self._epoch and node not in self._leaving else log.info
        say("link closed", peer=node, reason=reason, n=core.n)
        self._down.tell(node, reason)
        peer = self._peers.get(node)
        if peer is not None and peer.congested:
            self._relieve(node, peer)

    def _acknowledge(self) -> None:
        self._ack_handle = None
        for node, peer in list(self._peers.items()):
            self._perform(node, peer, peer.core.acknowledge())

    def _drop(self, why: str, subject: str, detail: str) -> None:
        self._dropped[why] += 1
        count = self._dropped[why]
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            log.warning("frame dropped", why=why, subject=subject, detail=detail, count=count)

    # -- what the watch and the connection say

    def _on_member(self, before: Member | None, after: Member | None) -> None:
        member = after or before
        assert member is not None
        if member.node == self._node:
            if after is None and member.epoch == self._epoch:
                self.end("this node's registration ended")
            return
        if after is None:
            self._former[member.node] = member.epoch
            self._pair(member.node, 0, f"node {member.node} is gone (epoch {member.epoch} ended)")
            del self._peers[member.node]
            self._leaving.discard(member.node)
        else:
            self._note_leaving(after)
            self._former.pop(member.node, None)
            self._pair(after.node, after.epoch, f"node {after.node} registered anew")

    def _note_leaving(self, member: Member) -> None:
        if member.state is NodeState.DRAINING:
            self._leaving.add(member.node)
        else:
            self._leaving.discard(member.node)

    def _pair_all(self, reason: str = "") -> None:
        for member in self._members.all():
            if member.node != self._node:
                self._pair(member.node, member.epoch, reason)

    def _pair(self, node: str, epoch: int, reason: str) -> None:
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = _Peer(LinkCore(self._node, node, self._limits))
        actions = peer.core.pair(self._epoch, epoch, reason)
        if epoch:
            peer.subject = self._subjects.data(node, epoch, self._node)
        self._perform(node, peer, actions)

    def _on_problem(self, problem: Problem) -> None:
        """What the server forbids to publish is lost for good: close, rather than try until the time is over."""
        if problem.trouble is not Trouble.PUBLISH_DENIED:
            return
        for node, peer in list(self._peers.items()):
            # a session nothing was exchanged in is left alone: its own announcement is what was forbidden
            if peer.subject.lower() == problem.subject.lower() and peer.core.carried:
                self.close(node, f"{problem.trouble.value}: {problem.subject}")

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING)
            now = self._clock()
            connected = self._connection.connected
            for node, peer in list(self._peers.items()):
                self._perform(node, peer, peer.core.tick(now, connected))
            self._schedule_flush()

    def stats(self) -> LinksStats:
        return LinksStats(
            epoch=self._epoch,
            links=[_stats(node, peer.core) for node, peer in sorted(self._peers.items())],
            dropped=dict(self._dropped),
        )


def _stats(node: str, core: LinkCore) -> LinkStats:
    counters: Counters = core.counters
    return LinkStats(
        node=node,
        state=core.state,
        n=core.n,
        peer_epoch=core.peer_epoch,
        waiting_envelopes=core.waiting_envelopes,
        waiting_bytes=core.waiting_bytes,
        frames_in=counters.frames_in,
        frames_out=counters.frames_out,
        envelopes_in=counters.envelopes_in,
        envelopes_out=counters.envelopes_out,
        resent=counters.resent,
        duplicates=counters.duplicates,
        gaps=counters.gaps,
        closes=counters.closes,
        congested=core.congested,
    )
