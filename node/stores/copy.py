"""This node's copy of one namespace of ``store.kv.crdt``: what its readers see, and what NATS has yet to get.

A pure core: no clock, no network, no waiting. ``replication`` tells it what the bucket holds and asks it what to
put there. It keeps to three rules. The later cell wins, wherever it comes from. A cell that wins over what the
bucket holds is published until it is there, or until a later one is. A put names the sequence it replaces, so the
bucket's value of a key only ever gets later, and whoever reads the bucket alone ends with the same cells.

Deleted and expired keys are remembered for ``FORGET_AFTER`` (those that ended first are forgotten earlier when there
are more of them than the copy may have keys): so long an older write that comes late can't bring the key back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from cluster.errors import Unavailable
from node.stores.cell import Cell, HybridClock, later
from node.stores.contract import StoreFull

FORGET_AFTER = 3_600_000
"""Milliseconds."""
SWEEP_PAUSE = 1000
"""Milliseconds between two looks for expired keys in a full copy."""
TRIMMED_AT_ONCE = 64
"""Ended keys looked at each time one more ended; more than one goes, so that they get fewer again."""
OVERHEAD = 200
"""Bytes a key takes besides its own and its value's, about."""


@dataclass(slots=True)
class Held:
    """What is known of a key. ``sequence``: where the bucket has a cell of it, 0 = nowhere as far as is known."""

    cell: Cell
    sequence: int = 0

    @property
    def size(self) -> int:
        return len(self.cell.value or b"")


@dataclass(frozen=True, slots=True)
class Publication:
    """One cell on its way to the bucket, over the one at ``replaces``."""

    key: bytes
    cell: Cell
    replaces: int
    era: int
    """Counts the buckets there have been; what an earlier one answered means nothing."""


@dataclass(frozen=True, slots=True)
class CopyStats:
    """``keys`` with a value, ``remembered`` without one, ``waiting`` to be published."""

    keys: int
    remembered: int
    waiting: int
    size: int


class Copy:
    """The cells of one namespace on this node. ``name`` stands in errors."""

    def __init__(self, name: str, writer: int, *, max_size: int, max_bytes: int) -> None:
        self._name = name
        self._clock = HybridClock(writer)
        self.max_size = max_size
        self.max_bytes = max_bytes
        self._held: dict[bytes, Held] = {}
        self._keys: list[bytes] = []
        self._ended: dict[bytes, None] = {}
        self._bytes = 0
        self._waiting: dict[bytes, None] = {}
        self._flying: set[bytes] = set()
        self._seen: set[bytes] | None = None
        self._found_up_to = 0
        self._era = 0
        self._swept = 0
        self.reached = 0
        """Up to where the changes of the bucket were told in order."""

    # -- for readers and writers on this node

    def read(self, key: bytes, now: int) -> Cell | None:
        held = self._held.get(key)
        return held.cell if held is not None and held.cell.is_live(now) else None

    def write(self, key: bytes, value: bytes, expires: int, now: int) -> Cell:
        """Raises StoreFull."""
        self._check_room(key, len(value), now)
        cell = Cell(self._clock.tick(now), expires, value)
        self._set(key, cell)
        self._waiting[key] = None
        return cell

    def delete(self, key: bytes, now: int) -> Cell | None:
        """What stands for the deletion; None when there was no such key."""
        if self.read(key, now) is None:
            return None
        cell = Cell(self._clock.tick(now), 0, None)
        self._set(key, cell)
        self._waiting[key] = None
        self._trim()
        return cell

    def after(self, prefix: bytes, after: bytes) -> Iterable[bytes]:
        """The keys that begin with ``prefix`` and sort after ``after``, in order; not all of them need be live."""
        start = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after) if after else 0)
        for key in islice(self._keys, start, None):
            if not key.startswith(prefix):
                return
            yield key

    # -- what the bucket says

    def begin(self, *, anew: bool, up_to: int) -> None:
        """All cells of the bucket are about to be told, which has sequences up to ``up_to``.

        ``anew``: it is another bucket than before, or one that lost its end: what was known of it means nothing.
        """
        if anew:
            for held in self._held.values():
                held.sequence = 0
            self._era += 1
            self.reached = 0
        self._seen = set()
        self._found_up_to = up_to

    def remote(self, key: bytes, cell: Cell, sequence: int) -> None:
        """The bucket has ``cell`` at ``sequence``."""
        self._clock.observe(cell.stamp)
        self._note(key)
        held = self._held.get(key)
        if held is None:
            self._set(key, cell, sequence)
            self._trim()
            return
        is_news, held.sequence = sequence >= held.sequence, max(sequence, held.sequence)
        if later(held.cell, cell) is not held.cell:
            self._set(key, cell)
            self._waiting.pop(key, None)
        elif cell.stamp == held.cell.stamp:
            self._waiting.pop(key, None)
        elif is_news:
            self._waiting[key] = None

    def foreign(self, key: bytes, sequence: int) -> None:
        """Under this key the bucket has something that is no cell: what is known of the key goes over it."""
        self._note(key)
        held = self._held.get(key)
        if held is not None and sequence >= held.sequence:
            held.sequence = sequence
            self._waiting[key] = None

    def absent(self, key: bytes) -> None:
        """The bucket has nothing under this key."""
        held = self._held.get(key)
        if held is not None:
            held.sequence = 0

    @property
    def is_loading(self) -> bool:
        """Whether not all was told yet that the bucket held at ``begin``: then what was told has gaps."""
        return self._seen is not None

    def level(self) -> None:
        """All that the bucket held at ``begin`` has been told."""
        seen, self._seen = self._seen, None
        if seen is None:
            return
        self.reached = max(self.reached, self._found_up_to)
        for key in [key for key in self._held if key not in seen and key not in self._waiting]:
            sequence = self._held[key].sequence
            if sequence == 0:
                self._waiting[key] = None
            elif sequence <= self._found_up_to:
                # it was there once: its time was over while this node did not hear of it
                self._forget(key)
        self._order_anew()

    def unpublish(self) -> None:
        """The cells go to another bucket, which knows none of them."""
        self.begin(anew=True, up_to=0)
        self._seen = None
        self._flying.clear()
        self._waiting = dict.fromkeys(self._held)

    def _note(self, key: bytes) -> None:
        if self._seen is not None:
            self._seen.add(key)

    # -- what the bucket has yet to get

    @property
    def is_waiting(self) -> bool:
        """Whether something is to be published, or under way."""
        return bool(self._waiting)

    def take(self, limit: int) -> list[Publication]:
        """Up to ``limit`` cells to publish, those first that wait or were tried longest ago; each is answered by
        ``landed``."""
        keys = list(islice((key for key in self._waiting if key not in self._flying), limit))
        self._flying.update(keys)
        return [Publication(key, self._held[key].cell, self._held[key].sequence, self._era) for key in keys]

    def landed(self, publication: Publication, sequence: int | None) -> None:
        """The bucket has it at ``sequence``; None: it was not taken, or nobody knows."""
        key = publication.key
        self._flying.discard(key)
        held = self._held.get(key)
        if held is None or publication.era != self._era:
            return
        if sequence is None:
            if key in self._waiting:  # behind the others: what NATS refuses for good must not hold them up
                del self._waiting[key]
                self._waiting[key] = None
            return
        # a late answer is no news: something else may be there by now
        if sequence >= held.sequence:
            held.sequence = sequence
            if held.cell.stamp == publication.cell.stamp:
                self._waiting.pop(key, None)

    # -- room

    def sweep(self, keys: Iterable[bytes], now: int) -> None:
        """Give back what expired cells take, and forget those that ended long ago and are no news to the bucket."""
        forgotten = False
        for key in keys:
            held = self._held.get(key)
            if held is None or not held.cell.end or held.cell.end > now or key in self._waiting:
                continue
            if held.cell.value is not None:
                self._set(key, held.cell._replace(value=None))
            if held.cell.end + FORGET_AFTER <= now:
                self._forget(key)
                forgotten = True
        if forgotten:
            self._order_anew()

    def knows(self, key: bytes) -> bool:
        """Whether anything is known of the key, be it that it was deleted."""
        return key in self._held

    def all_keys(self) -> list[bytes]:
        return list(self._keys)

    def stats(self) -> CopyStats:
        return CopyStats(self._live, len(self._ended), len(self._waiting), self._bytes)

    @property
    def _live(self) -> int:
        return len(self._held) - len(self._ended)

    def _check_room(self, key: bytes, size: int, now: int) -> None:
        if not self._has_room(key, size) and abs(now - self._swept) >= SWEEP_PAUSE:
            self._swept = now
            self.sweep(self.all_keys(), now)
        if key not in self._held and len(self._held) >= 2 * self.max_size:
            raise Unavailable(
                f"store {self._name}: NATS has yet to hear of {len(self._waiting)} writes and deletions, more can't be"
                " kept; try again when NATS is back"
            )
        if not self._fits_keys(key):
            raise StoreFull(self._name, self.max_size)
        if not self._has_room(key, size):
            raise StoreFull(self._name, self.max_bytes, "bytes")

    def _has_room(self, key: bytes, size: int) -> bool:
        held = self._held.get(key)
        more = size - held.size if held is not None else size + len(key) + OVERHEAD
        return self._fits_keys(key) and (more <= 0 or self._bytes + more <= self.max_bytes)

    def _fits_keys(self, key: bytes) -> bool:
        held = self._held.get(key)
        return (held is not None and held.cell.value is not None) or self._live < self.max_size

    def _set(self, key: bytes, cell: Cell, sequence: int = 0) -> None:
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = Held(cell, sequence)
            insort(self._keys, key)
            self._bytes += len(key) + OVERHEAD
        else:
            self._bytes -= held.size
            held.cell = cell
        self._bytes += held.size
        self._ended.pop(key, None)
        if cell.value is None:
            self._ended[key] = None

    def _remove(self, key: bytes) -> None:
        self._forget(key)
        del self._keys[bisect_left(self._keys, key)]

    def _order_anew(self) -> None:
        """Many were forgotten: one by one each would move the rest."""
        self._keys = [key for key in self._keys if key in self._held]

    def _forget(self, key: bytes) -> None:
        """All but its place in the order of the keys."""
        held = self._held.pop(key)
        self._bytes -= held.size + len(key) + OVERHEAD
        self._ended.pop(key, None)
        self._waiting.pop(key, None)

    def _trim(self) -> None:
        """Forget the keys that ended first, when there are more without a value than keys may be."""
        too_many = len(self._ended) - self.max_size
        if too_many > 0:
            for key in list(islice(self._ended, TRIMMED_AT_ONCE)):
                if too_many > 0 and key not in self._waiting:
                    self._remove(key)
                    too_many -= 1
