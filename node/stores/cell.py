"""What a ``store.kv.crdt`` holds under one key, and which of two writes is the last.

A write is stamped by a hybrid logical clock: the writer's clock, or the latest stamp it has seen where that is
ahead, and a counter. A write made in knowledge of another is later than it, however wrong the clocks are; of two
made in ignorance of each other the one with the later clock wins, and where these are equal the writer with the
higher incarnation, of which no two are the same. So all nodes agree, in whatever order they hear of writes.

A deleted key is a cell without a value: it must win over older writes still under way.
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from cluster.envelope import unpack


class Stamp(NamedTuple):
    """When a write was made, ordered: milliseconds since 1970, a counter within them, the writer's incarnation."""

    wall: int
    counter: int
    writer: int

    @property
    def version(self) -> str:
        return f"{self.wall:x}-{self.counter:x}-{self.writer:x}"


class Cell(NamedTuple):
    """One write: ``value`` as msgpack, None when the key was deleted; ``expires`` in ms since 1970, 0 = never."""

    stamp: Stamp
    expires: int
    value: bytes | None

    def is_live(self, now: int) -> bool:
        """Whether readers see it at ``now`` (ms since 1970)."""
        return self.value is not None and not self.is_over(now)

    def is_over(self, now: int) -> bool:
        return 0 < self.expires <= now

    @property
    def end(self) -> int:
        """Since when no reader sees it, or will: ms since 1970, 0 = it stays."""
        return self.stamp.wall if self.value is None and not self.expires else self.expires


def later(one: Cell, other: Cell) -> Cell:
    """The cell that wins: the join of a semilattice, so order and repetition do not matter."""
    return one if _rank(one) >= _rank(other) else other


def _rank(cell: Cell) -> tuple[Stamp, int, bool, bytes]:
    # one stamp is one write; the rest only keeps two damaged cells of one stamp from being taken differently
    return cell.stamp, cell.expires, cell.value is not None, cell.value or b""


class HybridClock:
    """Gives stamps that are later than every stamp it has given or seen."""

    def __init__(self, writer: int) -> None:
        self._writer = writer
        self._wall = 0
        self._counter = 0

    def tick(self, now: int) -> Stamp:
        """A stamp for a write made at ``now`` (ms since 1970 by this node's clock)."""
        if now > self._wall:
            self._wall, self._counter = now, 0
        else:
            self._counter += 1
        return Stamp(self._wall, self._counter, self._writer)

    def observe(self, stamp: Stamp) -> None:
        """A write of another was seen."""
        self._wall, self._counter = max((self._wall, self._counter), (stamp.wall, stamp.counter))


def pack_cell(key: bytes, cell: Cell) -> bytes:
    """As it is kept in NATS: msgpack ``[key, wall, counter, writer, expires, value]``."""
    packed: bytes = msgpack.packb([key, *cell.stamp, cell.expires, cell.value], use_bin_type=False)
    return packed


def unpack_cell(packed: bytes) -> tuple[bytes, Cell]:
    """Raises ValueError."""
    match unpack(packed):
        case [bytes(key), int(wall), int(counter), int(writer), int(expires), bytes() | None as value] if (
            key and min(wall, counter, writer, expires) >= 0
        ):
            return key, Cell(Stamp(wall, counter, writer), expires, value)
        case _:
            raise ValueError("not [key, wall, counter, writer, expires, value]")
