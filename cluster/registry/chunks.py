"""Chunks of payloads that just went by in the watch, so that a version needs no read of its own.

Bounded in bytes; the oldest go first, and all of a payload goes when it was used. What is not here
any more is read from etcd.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from cluster.etcd import KeyEvent

MAX_BYTES = 32 * 1024 * 1024


class Chunks(Mapping[str, bytes]):
    """Values of ``blobs/`` keys, by key."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._values: OrderedDict[str, bytes] = OrderedDict()

    def note(self, event: KeyEvent) -> None:
        self.drop(event.kv.key)
        if event.deleted:
            return
        self._values[event.kv.key] = event.kv.value
        self._bytes += len(event.kv.value)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._values.popitem(last=False)[1])

    def drop(self, key: str) -> None:
        self._bytes -= len(self._values.pop(key, b""))

    def forget(self) -> None:
        self._values.clear()
        self._bytes = 0

    def __getitem__(self, key: str) -> bytes:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
