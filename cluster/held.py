"""Frames whose sender the watch has not shown yet.

NATS is faster than the watch: the first frame of a node that just registered may come before its registration is
seen. The link rules ignore such a frame and count on its being resent; as frames are not resent yet, ignoring it
would close the link of every node that joins. So it is kept, in order, until the watch shows the sender, for at
most two seconds and 4 MiB in all; what is dropped then is an ordinary loss.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.frame import Frame

HOLD = 2.0
"""Seconds a frame is kept."""

HOLD_BYTES = 4 * 1024 * 1024
"""Most bytes kept, over all senders."""


@dataclass(frozen=True, slots=True)
class _Held:
    until: float
    size: int
    frame: Frame


class HeldFrames:
    """The frames kept, by sender. Times are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._frames: dict[str, list[_Held]] = {}
        self._size = 0

    def __len__(self) -> int:
        return sum(map(len, self._frames.values()))

    def add(self, src: str, frame: Frame, size: int, now: float) -> bool:
        """Keep a frame of ``size`` bytes; False when there is no room."""
        if self._size + size > HOLD_BYTES:
            return False
        self._size += size
        self._frames.setdefault(src, []).append(_Held(now + HOLD, size, frame))
        return True

    def take(self, src: str) -> list[tuple[Frame, int]]:
        """The frames of one sender with their sizes, in their order; they are not kept any more."""
        held = self._frames.pop(src, [])
        self._size -= sum(one.size for one in held)
        return [(one.frame, one.size) for one in held]

    def expire(self, now: float) -> list[tuple[str, Frame]]:
        """Drop what waited too long; a sender's later frames go with its first, for they would be a gap."""
        late = [src for src, held in self._frames.items() if held[0].until < now]
        return [(src, frame) for src in late for frame, _ in self.take(src)]
