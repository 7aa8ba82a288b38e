"""One numbered session of a link: what was sent and not acknowledged yet, and what was accepted. Pure.

Frames are numbered from 1. What is not acknowledged is kept and goes again, from the first one missing
(go-back-n): when the peer says that it misses something, after a reconnect, or when nothing moved for
``FIRST_RETRY`` (doubling to ``LAST_RETRY``). A retry sends the first frame only; if just that one is acknowledged
then, later ones are missing too and all of them follow. So a peer that is merely slow is not flooded.

A session is unconfirmed until the peer has spoken in it; until then the peer is asked, in growing intervals.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

from cluster import frame as wire

BATCH = 32
"""Most envelopes in one frame: more gains nothing (measured)."""

BATCH_BYTES = 256 * 1024
"""A frame stays under this, unless one envelope alone is larger."""

FIRST_RETRY, LAST_RETRY = 0.25, 2.0
"""Seconds without progress until the first unacknowledged frame goes again; doubling."""

NAK_PAUSE = 0.1
"""Seconds between two answers to the same gap, and between two times the same frames go again because of one."""


@dataclass(slots=True)
class _Sent:
    """A frame that is not acknowledged yet."""

    seq: int
    payload: bytes
    envelopes: int
    size: int
    at: float


class Session:
    """Both directions of session ``n``; ``head`` is what its frames begin with. Times are seconds of one clock."""

    def __init__(self, head: bytes, confirmed: bool) -> None:
        self.head = head
        self.confirmed = confirmed
        self.accepted = 0
        """The last frame of the peer that was taken."""
        self.seq = 0
        """The last frame that was sent."""
        self.waiting_envelopes = 0
        self.waiting_bytes = 0
        self._queue: list[bytes] = []
        self._stuck_since: float | None = None
        self._unacked: deque[_Sent] = deque()
        self._again = 0  # how many frames, counted from the end of the unacknowledged, go again
        self._retried = 0  # the frame that went again because nothing moved
        self._retry_delay = FIRST_RETRY
        self._retry_at: float | None = None
        self._went_back: tuple[int, float] = (-1, 0.0)
        self._nak: tuple[int, float] = (-1, 0.0)

    # -- sending

    def add(self, packed: bytes) -> None:
        """Queue one packed envelope."""
        self._queue.append(packed)
        self.waiting_envelopes += 1
        self.waiting_bytes += len(packed)

    @property
    def queued(self) -> bool:
        """Whether something is to be published: queued envelopes, or frames that go again."""
        return bool(self._queue or self._again)

    @property
    def unframed(self) -> int:
        """Queued envelopes that are in no frame yet."""
        return len(self._queue)

    def frames(self, now: float) -> list[bytes]:
        """What is to be published, in order: frames that go again, then the queue in new ones."""
        frames = self._frames_again()
        queue = self._queue
        start = 0
        while start < len(queue):
            end = _batch_end(queue, start)
            frames.append(self._new_frame(queue[start:end], now, self._stuck_since or now))
            start = end
        queue.clear()
        self._stuck_since = None
        return frames

    def _frames_again(self) -> list[bytes]:
        again, self._again = self._again, 0
        unacked = self._unacked
        return [sent.payload for sent in islice(unacked, len(unacked) - again, None)] if again else []

    def _new_frame(self, batch: list[bytes], now: float, since: float) -> bytes:
        """``since`` is when its envelopes began to wait: the time until the peer must have them counts from there."""
        self.seq += 1
        payload = wire.data(self.head, self.seq, self.accepted, batch)
        # what add() counted for these envelopes, not the size of the frame: the two must cancel out
        self._unacked.append(_Sent(self.seq, payload, len(batch), sum(map(len, batch)), since))
        if self._retry_at is None:
            self._retry_at = now + self._retry_delay
        return payload

    def acknowledged(self, ack: int, now: float) -> bool:
        """The peer has every frame up to ``ack``. Whether that is more than it had."""
        unacked = self._unacked
        if not unacked or unacked[0].seq > ack:
            return False
        while unacked and unacked[0].seq <= ack:
            sent = unacked.popleft()
            self.waiting_envelopes -= sent.envelopes
            self.waiting_bytes -= sent.size
        self._again = min(self._again, len(unacked))
        self._retry_delay = FIRST_RETRY
        self._retry_at = now + FIRST_RETRY if unacked else None
        if ack == self._retried:  # a peer that has later ones was slow: it acknowledges more than this one
            self._again = len(unacked)
        return True

    def missing(self, ack: int, now: float) -> None:
        """The peer got a frame beyond ``ack`` + 1: send again from there, unless that was done just now."""
        seq, at = self._went_back
        if self._unacked and self._unacked[0].seq == ack + 1 and (seq != ack or now - at >= NAK_PAUSE):
            self._went_back = (ack, now)
            self._again = len(self._unacked)

    def again(self, now: float) -> None:
        """The connection was lost: whatever is unacknowledged goes again."""
        self._again = len(self._unacked)
        if self._retry_at is not None or not self.confirmed:
            self._retry_at = now + self._retry_delay

    def retry(self, now: float) -> bytes | None:
        """What to send because nothing moved: the first unacknowledged frame, or a probe of an unconfirmed session."""
        if self._retry_at is None:
            if not self.confirmed:
                self._retry_at = now + self._retry_delay
            return None
        if now < self._retry_at:
            return None
        self._retry_delay = min(self._retry_delay * 2, LAST_RETRY)
        self._retry_at = now + self._retry_delay
        if self._unacked:
            self._retried = self._unacked[0].seq
            return self._unacked[0].payload
        if self.confirmed:
            self._retry_at = None
            return None
        return wire.probe(self.head, self.accepted)

    def waiting_since(self, now: float) -> float | None:
        """Since when the oldest envelopes wait: to be acknowledged, or in a queue that is stuck."""
        if self._queue and self._stuck_since is None:
            self._stuck_since = now
        return self._unacked[0].at if self._unacked else self._stuck_since

    # -- receiving

    def naks(self, now: float) -> bool:
        """A gap was seen. Whether to tell the peer now: once for each gap, and now and then again."""
        accepted, at = self._nak
        if accepted == self.accepted and now - at < NAK_PAUSE:
            return False
        self._nak = (self.accepted, now)
        return True


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
