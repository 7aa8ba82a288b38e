"""``store.memory``: key-value data of this node, lost with it.

Bounded by ``max_size`` keys and ``max_bytes``: when it is full, new keys are refused and known ones still change.
Expired items are gone for every reader at once and are swept on writes, at most every
``cleanup_interval`` and when the store is full. A process under a claim writes here without
a fence: the data never leaves the node the claim was granted to.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgpack

from node.stores.contract import (
    ALWAYS,
    MAX_VALUE,
    PAGE_BYTES,
    Fence,
    Info,
    Item,
    KeyExists,
    Page,
    Precondition,
    StoreFull,
    VersionChanged,
    check_key,
    check_size,
    check_ttl,
)

DEFAULT_SIZE = 10_000
DEFAULT_CLEANUP = 300.0
DEFAULT_BYTES = 256 * 1024 * 1024


class Held(NamedTuple):
    value: Any
    version: int
    expires: float
    size: int
    """Bytes of key and value, packed."""


class MemoryStore:
    """One in-memory store."""

    max_value = MAX_VALUE

    def __init__(
        self,
        id: str,
        *,
        max_size: int = DEFAULT_SIZE,
        max_bytes: int = DEFAULT_BYTES,
        cleanup_interval: float = DEFAULT_CLEANUP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.info = Info(id, "memory", "local", durable=False)
        self._max_size = max_size or DEFAULT_SIZE
        self._max_bytes = max_bytes
        self._interval = cleanup_interval
        self._clock = clock
        self._items: dict[bytes, Held] = {}
        self._keys: list[bytes] = []
        self._bytes = 0
        # later than all of an earlier life of this store, whose versions somebody may still hold
        self._version = time.time_ns()
        self._swept = clock()

    def __len__(self) -> int:
        return len(self._items)

    def configure(self, max_size: int, cleanup_interval: float, max_bytes: int = DEFAULT_BYTES) -> None:
        """New limits for the same data; what is over them stays until it expires or is deleted."""
        self._max_size = max_size or DEFAULT_SIZE
        self._max_bytes = max_bytes
        self._interval = cleanup_interval

    async def read(self, key: bytes) -> Item | None:
        check_key(key)
        held = self._live(key)
        return None if held is None else Item(key, held.value, str(held.version))

    async def write(
        self, key: bytes, value: Any, ttl: float, when: Precondition = ALWAYS, fences: Sequence[Fence] = ()
    ) -> Item:
        check_key(key)
        check_ttl(ttl)
        size = len(key) + len(msgpack.packb(value, use_bin_type=False))
        check_size(key, size - len(key))
        held = self._live(key)
        if when.absent and held is not None:
            raise KeyExists(key)
        if when.version is not None and (held is None or str(held.version) != when.version):
            raise VersionChanged(key, when.version, None if held is None else str(held.version))
        self._make_room(key, size)
        self._version += 1
        former = self._items.get(key)
        if former is None:
            insort(self._keys, key)
        self._bytes += size - (former.size if former is not None else 0)
        self._items[key] = Held(value, self._version, self._clock() + ttl if ttl else 0.0, size)
        return Item(key, value, str(self._version))

    async def delete(self, key: bytes, fences: Sequence[Fence] = ()) -> bool:
        check_key(key)
        held = self._live(key)
        self._remove(key)
        return held is not None

    async def page(self, prefix: bytes, after: bytes, limit: int) -> Page:
        start = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after) if after else 0)
        items: list[Item] = []
        size = 0
        for key in islice(self._keys, start, None):
            if not key.startswith(prefix):
                break
            held = self._live(key)
            if held is None:
                continue
            if len(items) == limit or size > PAGE_BYTES:
                return Page(items, items[-1].key, True)
            items.append(Item(key, held.value, str(held.version)))
            size += held.size
        return Page(items, b"", False)

    def _live(self, key: bytes) -> Held | None:
        held = self._items.get(key)
        if held is None or (held.expires and held.expires <= self._clock()):
            return None
        return held

    def _make_room(self, key: bytes, size: int) -> None:
        due = self._interval and self._clock() - self._swept >= self._interval
        if due or not (self._has_key_for(key) and self._has_bytes_for(key, size)):
            self._sweep()
        if not self._has_key_for(key):
            raise StoreFull(self.info.id, self._max_size)
        if not self._has_bytes_for(key, size):
            raise StoreFull(self.info.id, self._max_bytes, "bytes")

    def _has_key_for(self, key: bytes) -> bool:
        return key in self._items or len(self._items) < self._max_size

    def _has_bytes_for(self, key: bytes, size: int) -> bool:
        former = self._items.get(key)
        more = size - (former.size if former is not None else 0)
        return more <= 0 or self._bytes + more <= self._max_bytes

    def _sweep(self) -> None:
        self._swept = self._clock()
        over = [key for key in self._keys if self._live(key) is None]
        for key in over:
            self._bytes -= self._items.pop(key).size
        if over:  # one by one each would move the rest
            self._keys = [key for key in self._keys if key in self._items]

    def _remove(self, key: bytes) -> None:
        held = self._items.pop(key, None)
        if held is not None:
            self._bytes -= held.size
            del self._keys[bisect_left(self._keys, key)]
