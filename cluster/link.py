"""The link from one node to one peer: a pure state machine for ordered delivery in both directions.

A link is a duplex session, numbered ``n``, of one pair of epochs. Frames carry ``seq`` from 1 in each
direction; only the expected one is accepted, so what arrives is a prefix of what was sent, in order, once.
A lost frame goes again (``cluster.session``) until ``Limits.timeout``. What breaks a session for good closes it: n
grows, both directions are dropped, and each side tells its watchers once. What was sent in a closed session may or
may not have arrived; nothing of it arrives after the peer has seen the next one.

A lease in doubt closes nothing: while etcd is away nodes talk on. Each side judges the other by its own watch alone;
should a peer see that this node's registration is over, its RESET says so to the first frame that comes.

Here is no socket, clock or task: the shell (``cluster.links``) feeds events with the time and performs the actions.

    event                      in which state     what happens
    -----------------------    ---------------    ----------------------------------------------------------
    pair(own, peer)            any                an open session ends; a new pair starts at n = 1, the former goes on
    send(packed)               open               queued; Unavailable in any other state or beyond the hard limits
    frames(now)                open               frames that go again, then the queue as new ones
    reconnected(now)           open               everything unacknowledged goes again
    frame, foreign epochs      any                RESET when over for certain, else ignored: it comes again
    frame, n' > n              open               close with n = n', then taken
    frame, n' < n              open               dropped, answered with n
    frame, seq beyond next     open               dropped, answered with what is missing
    reset(pair)                open, same pair    close; silent until the pair changes
    tick(now, connected)       open               retries and probes; close when the peer was silent for too long
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from cluster import frame as wire
from cluster.envelope import Envelope
from cluster.errors import Unavailable
from cluster.frame import Frame, Reset
from cluster.session import Session

ACK_DELAY = 0.020
"""Seconds until an ack goes out by itself when no frame carries it."""

ACK_BYTES = 1024 * 1024
"""So many bytes taken without an ack are acknowledged at once, so that the sender's buffer empties."""

PROBE_EVERY = 5.0
"""Seconds of silence after which a peer that messages were exchanged with is asked whether it is there."""


class State(Enum):
    """What a link can do now."""

    CLOSED = "closed"
    """No pair of epochs: the peer or this node is not registered."""
    OPEN = "open"
    RESET = "reset"
    """The peer rejected the pair; silent until the watch changes it."""


@dataclass(frozen=True)
class Limits:
    """How much may wait for one peer, and for how long (seconds).

    Beyond ``max_bytes`` or ``max_envelopes`` the link is congested: its senders are to be held back. What they had
    sent before they heard of it is still taken, up to ``SLACK`` times as much.
    """

    max_bytes: int = 8 * 1024 * 1024
    max_envelopes: int = 100_000
    timeout: float = 90.0


SLACK = 4
RELIEF = 0.5
"""A congested link is free again when so much of the limits is used."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Send ``payload`` to the peer's data subject for ``epoch``."""

    epoch: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand these envelopes to the node, in order."""

    envelopes: list[Envelope]


@dataclass(frozen=True, slots=True)
class Closed:
    """The session ended: tell the watchers, once."""

    reason: str


Action: TypeAlias = Publish | Deliver | Closed


@dataclass
class Counters:
    """What happened on the link since the node started. Only the core writes it."""

    frames_in: int = 0
    frames_out: int = 0
    envelopes_in: int = 0
    envelopes_out: int = 0
    resent: int = 0
    duplicates: int = 0
    ignored: int = 0
    gaps: int = 0
    probes: int = 0
    resets_in: int = 0
    resets_out: int = 0
    closes: int = 0


class LinkCore:
    """The link between this node and ``peer``; the module's docstring is the table of its transitions."""

    def __init__(self, node: str, peer: str, limits: Limits | None = None) -> None:
        self.node = node
        self.peer = peer
        self.limits = limits or Limits()
        self.counters = Counters()
        self.own_epoch = 0
        self.peer_epoch = 0
        self.n = 1
        self._former = (0, 0, 0)
        self.ack_due: float | None = None
        self._rejected = False
        self._carried = False
        self._heard_at = self._probed_at = 0.0
        self._probing_since: float | None = None
        self._start_session(1, confirmed=True)

    # -- who we are and who the peer is

    @property
    def state(self) -> State:
        if not self.own_epoch or not self.peer_epoch:
            return State.CLOSED
        return State.RESET if self._rejected else State.OPEN

    @property
    def waiting_envelopes(self) -> int:
        return self._session.waiting_envelopes

    @property
    def waiting_bytes(self) -> int:
        return self._session.waiting_bytes

    @property
    def carried(self) -> bool:
        """Whether envelopes went over the link in this session, in either direction."""
        return self._carried or self._session.unframed > 0

    @property
    def to_publish(self) -> bool:
        """Whether ``frames`` would give something."""
        return self._session.queued

    def pair(self, own_epoch: int, peer_epoch: int, reason: str) -> list[Action]:
        """The watch shows these epochs (0 = none). An open session of the former pair ends, for ``reason``."""
        if (own_epoch, peer_epoch) == (self.own_epoch, self.peer_epoch):
            return []
        told = self._tell(reason)
        if self.own_epoch and self.peer_epoch:
            self._former = (self.own_epoch, self.peer_epoch, self.n)
        self.own_epoch, self.peer_epoch = own_epoch, peer_epoch
        self._rejected = False
        if self._former[:2] != (own_epoch, peer_epoch):
            self._start_session(1, confirmed=True)
            return told
        # this node could not receive for a while: the peer may still be in the session that ended here
        self._start_session(self._former[2] + 1, confirmed=False)
        return [*told, self._ack()]

    def close(self, reason: str) -> list[Action]:
        """End the session and begin the next one, telling the watchers here and, by an empty frame, the peer."""
        if not self._open:
            return []
        told = self._tell(reason)
        self._start_session(self.n + 1, confirmed=False)
        return [*told, self._ack()]

    # -- sending

    @property
    def congested(self) -> bool:
        """Whether senders are to be held back."""
        return self._filled(1.0)

    @property
    def relieved(self) -> bool:
        """Whether held back senders may go on."""
        return not self._filled(RELIEF)

    def _filled(self, share: float) -> bool:
        session, limits = self._session, self.limits
        return (
            session.waiting_bytes >= limits.max_bytes * share
            or session.waiting_envelopes >= limits.max_envelopes * share
        )

    def send(self, packed: bytes, refusable: bool = True) -> None:
        """Queue one packed envelope. Raises Unavailable when the link can't take it now.

        What is not ``refusable`` is taken however much waits: exits and answers, for which somebody waits.
        """
        if not self._open:
            raise Unavailable(f"link to node {self.peer} is {self.state.value}; try again when it is open")
        session = self._session
        is_full = session.waiting_bytes >= self._hard_bytes or session.waiting_envelopes >= self._hard_envelopes
        if is_full and refusable:
            raise Unavailable(
                f"{self.waiting_envelopes} messages ({self.waiting_bytes} bytes) wait for node {self.peer}, "
                "more are not taken; try again when it has caught up"
            )
        session.add(packed)

    def frames(self, now: float) -> list[bytes]:
        """What is to be published, in order; each new frame carries the ack."""
        session, counters = self._session, self.counters
        if not self._open:
            return []
        before = session.seq
        counters.envelopes_out += session.unframed
        frames = session.frames(now)
        fresh = session.seq - before
        counters.frames_out += len(frames)
        counters.resent += len(frames) - fresh
        if fresh:
            if not self._carried:
                self._carried, self._heard_at = True, now
            self._ack_went_out()
        return frames

    def reconnected(self, now: float) -> None:
        """What was published just before the connection broke may be lost."""
        self._session.again(now)

    def acknowledge(self) -> list[Action]:
        """Send the ack that is due, if one is."""
        return [self._ack()] if self._open and self.ack_due is not None else []

    # -- receiving

    def frame(self, frame: Frame, size: int, now: float, revision: int) -> list[Action]:
        """A frame of ``size`` bytes from the peer; ``revision`` is what the watch has applied."""
        if not self.own_epoch or frame.dst_epoch > self.own_epoch:
            self.counters.ignored += 1
            return []
        if frame.dst_epoch < self.own_epoch:
            return self._reject(frame)
        if frame.src_epoch != self.peer_epoch:
            if frame.src_epoch > revision:
                self.counters.ignored += 1
                return []
            return self._reject(frame)
        if self._rejected:
            self.counters.ignored += 1
            return []
        self.counters.frames_in += 1
        if frame.n == self.n:
            return self._take(frame, size, now)
        if frame.n < self.n:
            self.counters.ignored += 1
            return [self._ack()]
        closed = self._tell(f"node {self.peer} closed the link")
        self._start_session(frame.n, confirmed=True)
        answer = [self._ack()] if frame.seq == 0 and frame.envelopes is not None else []
        return [*closed, *answer, *self._take(frame, size, now)]

    def reset(self, reset: Reset) -> list[Action]:
        """A RESET from the peer: counts only for the current pair, and is never answered."""
        if not self._open or reset != (self.own_epoch, self.peer_epoch):
            self.counters.ignored += 1
            return []
        self.counters.resets_in += 1
        told = self._tell(f"node {self.peer} does not know this node's registration")
        self._rejected = True
        self._start_session(self.n + 1, confirmed=False)
        return told

    # -- time

    def tick(self, now: float, connected: bool = True) -> list[Action]:
        """Time passed: what got no answer goes again; a peer silent for too long closes the link."""
        if not self._open:
            return []
        session = self._session
        oldest = session.waiting_since(now)
        if self._probing_since is not None and (oldest is None or self._probing_since < oldest):
            oldest = self._probing_since
        if oldest is not None and now - oldest > self.limits.timeout:
            return self.close(f"no acknowledgement from node {self.peer} within {self.limits.timeout:g} s")
        actions: list[Action] = []
        if connected and (payload := session.retry(now)) is not None:
            self.counters.resent += 1
            actions.append(Publish(self.peer_epoch, payload))
        if self._carried and now - self._heard_at >= PROBE_EVERY and now - self._probed_at >= PROBE_EVERY:
            self._probed_at = now
            self._probing_since = self._probing_since or now
            if connected:
                self.counters.probes += 1
                actions.append(Publish(self.peer_epoch, wire.probe(session.head, session.accepted)))
        return actions

    # -- sessions

    def _take(self, frame: Frame, size: int, now: float) -> list[Action]:
        session = self._session
        if frame.ack > session.seq:
            return self.close(f"node {self.peer} acknowledged frame {frame.ack} of {session.seq}: protocol error")
        session.confirmed = True
        self._heard_at, self._probing_since = now, None
        moved = session.acknowledged(frame.ack, now)
        if frame.seq == 0:
            if frame.envelopes is None:
                return [self._ack()]
            if not moved:  # one that says something new is no complaint: what is under way is not missing yet
                session.missing(frame.ack, now)
            return []
        if frame.seq > session.accepted + 1:
            self.counters.gaps += 1
            return self._complain() if session.naks(now) else []
        if frame.seq <= session.accepted:
            self.counters.duplicates += 1
            self.ack_due = self.ack_due or now + ACK_DELAY
            return []
        assert frame.envelopes is not None
        session.accepted = frame.seq
        self._carried = True
        self.counters.envelopes_in += len(frame.envelopes)
        return self._deliver(frame.envelopes, size, now)

    def _deliver(self, envelopes: list[Envelope], size: int, now: float) -> list[Action]:
        self._bytes_since_ack += size
        if self._bytes_since_ack >= ACK_BYTES:
            return [self._ack(), Deliver(envelopes)]
        if self.ack_due is None:
            self.ack_due = now + ACK_DELAY
        return [Deliver(envelopes)]

    def _complain(self) -> list[Action]:
        """Something is missing. An ack with news is no complaint: when one is owed, it goes first."""
        owed = [] if self.ack_due is None else [self._ack()]
        return [*owed, self._ack()]

    def _reject(self, frame: Frame) -> list[Action]:
        self.counters.resets_out += 1
        return [Publish(frame.src_epoch, wire.reset(frame.src_epoch, frame.dst_epoch))]

    def _tell(self, reason: str) -> list[Action]:
        """What the watchers hear when a session ends: nothing when it had ended before."""
        if not self._open:
            return []
        self.counters.closes += 1
        return [Closed(reason)]

    def _start_session(self, n: int, confirmed: bool) -> None:
        self.n = n
        self._open = self.state is State.OPEN
        self._session = Session(wire.head(self.node, self.own_epoch, self.peer_epoch, n), confirmed)
        self._carried = False
        self._heard_at = self._probed_at = 0.0
        self._probing_since = None
        self._hard_bytes, self._hard_envelopes = self.limits.max_bytes * SLACK, self.limits.max_envelopes * SLACK
        self._ack_went_out()

    def _ack(self) -> Publish:
        self._ack_went_out()
        return Publish(self.peer_epoch, wire.ack(self._session.head, self._session.accepted))

    def _ack_went_out(self) -> None:
        self.ack_due = None
        self._bytes_since_ack = 0
