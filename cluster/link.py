"""The link from one node to one peer: a pure state machine for ordered delivery in both directions.

A link is a duplex session, numbered ``n``, of one pair of epochs. Frames carry ``seq`` from 1 in each
direction; only the expected one is accepted, so what arrives is a prefix of what was sent, in order, once.
Whatever breaks that closes the session: n grows, both directions are dropped, and each side tells its
watchers once. What was sent in a closed session may or may not have arrived; nothing of it arrives later.

Here is no socket, clock or task: the shell (``cluster.links``) feeds events with the time and performs the
actions. Frames are not resent yet: a gap, or a frame that stays unacknowledged for ``Limits.timeout``, closes.

    event                      in which state     what happens
    -----------------------    ---------------    ----------------------------------------------------------
    pair(own, peer)            any                an open session ends; the new pair starts at n = 1
    send(packed)               open               queued; Unavailable in any other state or over the limits
    frames(now)                open               the queue as frames of <= 32 envelopes and < 256 KiB
    frame, foreign epochs      not in doubt       RESET when over for certain, else ignored or held
    frame, n' > n              open               close with n = n', then taken
    frame, n' < n              open               dropped, answered with n
    frame, seq beyond next     open               close: gap
    reset(pair)                open, same pair    close; silent until the pair changes
    doubt() / resume()         own lease          close silently, answer nothing / go on in the same pair
    tick(now)                  open               close when the oldest unacknowledged is too old
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from cluster import frame as wire
from cluster.envelope import Envelope
from cluster.errors import Unavailable
from cluster.frame import Frame, Reset

BATCH = 32
"""Most envelopes in one frame: more gains nothing (measured)."""

BATCH_BYTES = 256 * 1024
"""A frame stays under this, unless one envelope alone is larger."""

ACK_DELAY = 0.020
"""Seconds until an ack goes out by itself when no frame carries it."""

ACK_BYTES = 1024 * 1024
"""So many bytes taken without an ack are acknowledged at once, so that the sender's buffer empties."""


class State(Enum):
    """What a link can do now."""

    CLOSED = "closed"
    """No pair of epochs: the peer or this node is not registered."""
    OPEN = "open"
    RESET = "reset"
    """The peer rejected the pair; silent until the watch changes it."""
    DOUBT = "doubt"
    """This node's own lease is in doubt; nothing is sent or answered."""


@dataclass(frozen=True)
class Limits:
    """How much may wait for one peer, and for how long (seconds)."""

    max_bytes: int = 8 * 1024 * 1024
    max_envelopes: int = 100_000
    timeout: float = 90.0


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


@dataclass(frozen=True, slots=True)
class Hold:
    """The frame comes from an epoch the watch has not shown yet: offer it again when it has."""


Action: TypeAlias = Publish | Deliver | Closed | Hold


@dataclass
class Counters:
    """What happened on the link since the node started. Only the core writes it."""

    frames_in: int = 0
    frames_out: int = 0
    envelopes_in: int = 0
    envelopes_out: int = 0
    duplicates: int = 0
    ignored: int = 0
    gaps: int = 0
    resets_in: int = 0
    resets_out: int = 0
    closes: int = 0


@dataclass(slots=True)
class _Sent:
    """A frame that is not acknowledged yet."""

    seq: int
    envelopes: int
    size: int
    at: float


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
        self.ack_due: float | None = None
        self._rejected = False
        self._doubt = False
        self._queue: list[bytes] = []
        self._unacked: deque[_Sent] = deque()
        self._stuck_since: float | None = None
        self._seq = 0
        self._accepted = 0
        self._start_session(1)

    # -- who we are and who the peer is

    @property
    def state(self) -> State:
        if not self.own_epoch or not self.peer_epoch:
            return State.CLOSED
        if self._doubt:
            return State.DOUBT
        return State.RESET if self._rejected else State.OPEN

    def pair(self, own_epoch: int, peer_epoch: int, reason: str) -> list[Action]:
        """The watch shows these epochs (0 = none). An open session of the former pair ends, for ``reason``."""
        if (own_epoch, peer_epoch) == (self.own_epoch, self.peer_epoch):
            return []
        told = self._tell(reason)
        if own_epoch != self.own_epoch:
            self._doubt = False
        self.own_epoch, self.peer_epoch = own_epoch, peer_epoch
        self._rejected = False
        self._start_session(1)
        return told

    def doubt(self) -> list[Action]:
        """This node's lease may be over: tell the watchers, say nothing to the peer."""
        told = self._tell("this node's own lease is in doubt")
        self._doubt = True
        self._start_session(self.n + len(told))
        return told

    def resume(self) -> list[Action]:
        """The same lease answers again: go on in the same pair."""
        if not self._doubt:
            return []
        self._doubt = False
        self._start_session(self.n)
        return [self._ack()] if self._open else []

    def close(self, reason: str) -> list[Action]:
        """End the session and begin the next one, telling the watchers here and, by an empty frame, the peer."""
        if not self._open:
            return []
        return [*self._restart(self.n + 1, reason), self._ack()]

    # -- sending

    def send(self, packed: bytes) -> None:
        """Queue one packed envelope. Raises Unavailable when the link can't take it now."""
        if not self._open:
            raise Unavailable(f"link to node {self.peer} is {self.state.value}; try again when it is open")
        if self.waiting_envelopes >= self.limits.max_envelopes or self.waiting_bytes >= self.limits.max_bytes:
            raise Unavailable(
                f"{self.waiting_envelopes} messages ({self.waiting_bytes} bytes) wait for node {self.peer}, "
                "more are not taken; try again when it has caught up"
            )
        self._queue.append(packed)
        self.waiting_envelopes += 1
        self.waiting_bytes += len(packed)

    def frames(self, now: float) -> list[bytes]:
        """The queue as frames, in order; each carries the ack."""
        queue, frames = self._queue, []
        start = 0
        while start < len(queue):
            end = _batch_end(queue, start)
            frames.append(self._data_frame(queue[start:end], now))
            start = end
        queue.clear()
        self._stuck_since = None
        return frames

    def _data_frame(self, batch: list[bytes], now: float) -> bytes:
        self._seq += 1
        payload = wire.data(self._head, self._seq, self._accepted, batch)
        # Accounting stays exact when acked: what send() added for these envelopes, not the size of the frame.
        self._unacked.append(_Sent(self._seq, len(batch), sum(map(len, batch)), now))
        self.counters.frames_out += 1
        self.counters.envelopes_out += len(batch)
        self._ack_went_out()
        return payload

    def acknowledge(self) -> list[Action]:
        """Send the ack that is due, if one is."""
        return [self._ack()] if self._open and self.ack_due is not None else []

    # -- receiving

    def frame(self, frame: Frame, size: int, now: float, revision: int) -> list[Action]:
        """A frame of ``size`` bytes from the peer; ``revision`` is what the watch has applied."""
        if self._doubt or not self.own_epoch or frame.dst_epoch > self.own_epoch:
            self.counters.ignored += 1
            return []
        if frame.dst_epoch < self.own_epoch:
            return self._reject(frame)
        if frame.src_epoch != self.peer_epoch:
            return [Hold()] if frame.src_epoch > revision else self._reject(frame)
        if self._rejected:
            self.counters.ignored += 1
            return []
        self.counters.frames_in += 1
        if frame.n == self.n:
            return self._take(frame, size, now)
        if frame.n < self.n:
            self.counters.ignored += 1
            return [self._ack()]
        closed = self._restart(frame.n, f"node {self.peer} closed the link")
        return [*closed, self._ack(), *self._take(frame, size, now)]

    def reset(self, reset: Reset) -> list[Action]:
        """A RESET from the peer: counts only for the current pair, and is never answered."""
        if not self._open or reset != (self.own_epoch, self.peer_epoch):
            self.counters.ignored += 1
            return []
        self.counters.resets_in += 1
        told = self._tell(f"node {self.peer} does not know this node's registration")
        self._rejected = True
        self._start_session(self.n + 1)
        return told

    def tick(self, now: float) -> list[Action]:
        """Time passed: a frame unacknowledged, or an envelope unsent, for too long closes the link."""
        if self._queue and self._stuck_since is None:
            self._stuck_since = now
        oldest = self._unacked[0].at if self._unacked else self._stuck_since
        if oldest is None or now - oldest <= self.limits.timeout:
            return []
        return self.close(f"no acknowledgement from node {self.peer} within {self.limits.timeout:g} s")

    def _take(self, frame: Frame, size: int, now: float) -> list[Action]:
        if frame.ack > self._seq:
            return self.close(f"node {self.peer} acknowledged frame {frame.ack} of {self._seq}: protocol error")
        self._acknowledged(frame.ack)
        if frame.seq == 0:
            return [self._ack()] if frame.envelopes is None else []
        if frame.seq > self._accepted + 1:
            self.counters.gaps += 1
            return self.close(f"gap: expected frame {self._accepted + 1} from node {self.peer}, got {frame.seq}")
        if frame.seq <= self._accepted:
            self.counters.duplicates += 1
            self.ack_due = self.ack_due or now + ACK_DELAY
            return []
        assert frame.envelopes is not None
        self._accepted = frame.seq
        self.counters.envelopes_in += len(frame.envelopes)
        return self._deliver(frame.envelopes, size, now)

    def _deliver(self, envelopes: list[Envelope], size: int, now: float) -> list[Action]:
        self._bytes_since_ack += size
        if self._bytes_since_ack >= ACK_BYTES:
            return [self._ack(), Deliver(envelopes)]
        if self.ack_due is None:
            self.ack_due = now + ACK_DELAY
        return [Deliver(envelopes)]

    def _acknowledged(self, ack: int) -> None:
        unacked = self._unacked
        while unacked and unacked[0].seq <= ack:
            sent = unacked.popleft()
            self.waiting_envelopes -= sent.envelopes
            self.waiting_bytes -= sent.size

    def _reject(self, frame: Frame) -> list[Action]:
        self.counters.resets_out += 1
        return [Publish(frame.src_epoch, wire.reset(frame.src_epoch, frame.dst_epoch))]

    # -- sessions

    def _tell(self, reason: str) -> list[Action]:
        """What the watchers hear when a session ends: nothing when it had ended before."""
        if not self._open:
            return []
        self.counters.closes += 1
        return [Closed(reason)]

    def _restart(self, n: int, reason: str) -> list[Action]:
        told = self._tell(reason)
        self._start_session(n)
        return told

    def _start_session(self, n: int) -> None:
        self.n = n
        self._open = self.state is State.OPEN
        self._head = wire.head(self.node, self.own_epoch, self.peer_epoch, n)
        self._queue.clear()
        self._unacked.clear()
        self._stuck_since = None
        self.waiting_envelopes = 0
        self.waiting_bytes = 0
        self._seq = 0
        self._accepted = 0
        self._ack_went_out()

    def _ack(self) -> Publish:
        self._ack_went_out()
        return Publish(self.peer_epoch, wire.ack(self._head, self._accepted))

    def _ack_went_out(self) -> None:
        self.ack_due = None
        self._bytes_since_ack = 0


def _batch_end(queue: list[bytes], start: int) -> int:
    """Where the frame that begins with ``queue[start]`` ends: an oversize envelope goes alone."""
    end, size = start, 0
    limit = min(len(queue), start + BATCH)
    while end < limit:
        size += len(queue[end])
        if size > BATCH_BYTES and end > start:
            break
        end += 1
    return end
