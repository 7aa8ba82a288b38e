"""``store.kv.crdt``: key-value data every node has a copy of, in step by way of NATS KV.

Reads are answered by this node's copy and never wait. A write is in the copy when it returns and on its way to the
others; while NATS is away both go on, and when it is back all copies become the same: of two writes to one key the
later one stays (``node.stores.cell``). So there are no conditional writes, and no fence holds a former owner off:
data that need them belong into ``store.kv.raft``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from cluster.envelope import unpack
from cluster.errors import Unavailable
from node.stores.cell import Cell
from node.stores.contract import (
    ALWAYS,
    MAX_VALUE,
    PAGE_BYTES,
    Fence,
    Info,
    Item,
    Page,
    Precondition,
    Refused,
    check_key,
    check_size,
    check_ttl,
)
from node.stores.namespaces import Namespace

ROOM = 8 * 1024
"""Bytes of a message of NATS that are not the value: key, stamp, headers."""


class CrdtStore:
    """One entry's view of a namespace."""

    def __init__(
        self, id: str, namespace: Namespace, max_payload: int, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.namespace = namespace
        self._id = id
        self.max_value = min(MAX_VALUE, max_payload - ROOM)
        self._clock = clock

    @property
    def info(self) -> Info:
        return Info(self._id, "kv.crdt", "eventual", durable=self.namespace.durable, conditional_put=False)

    async def read(self, key: bytes) -> Item | None:
        check_key(key)
        self._check_level()
        cell = self.namespace.copy.read(key, self._now())
        return None if cell is None else _item(key, cell)

    async def write(
        self, key: bytes, value: Any, ttl: float, when: Precondition = ALWAYS, fences: Sequence[Fence] = ()
    ) -> Item:
        check_key(key)
        check_ttl(ttl)
        if when != ALWAYS:
            raise Refused(
                f"store {self._id} is a store.kv.crdt and has no conditional writes; keep data that need"
                " only_if_absent or if_version in a store.kv.raft"
            )
        packed = msgpack.packb(value, use_bin_type=False)
        check_size(key, len(packed), self.max_value)
        self._check_level()
        now = self._now()
        cell = self.namespace.copy.write(key, packed, now + max(1, round(ttl * 1000)) if ttl else 0, now)
        self.namespace.replication.publish_soon()
        return Item(key, value, cell.stamp.version)

    async def delete(self, key: bytes, fences: Sequence[Fence] = ()) -> bool:
        check_key(key)
        self._check_level()
        was_there = self.namespace.copy.delete(key, self._now()) is not None
        self.namespace.replication.publish_soon()
        return was_there

    async def page(self, prefix: bytes, after: bytes, limit: int) -> Page:
        self._check_level()
        now, size = self._now(), 0
        items: list[Item] = []
        for key in self.namespace.copy.after(prefix, after):
            cell = self.namespace.copy.read(key, now)
            if cell is None:
                continue
            if len(items) == limit or size > PAGE_BYTES:
                return Page(items, items[-1].key, True)
            items.append(_item(key, cell))
            size += len(cell.value or b"")
        return Page(items, b"", False)

    def _check_level(self) -> None:
        """Raises Unavailable while this node has no copy yet."""
        replication = self.namespace.replication
        if not replication.level.is_set():
            raise Unavailable(f"store {self._id} has no copy of its data on this node yet: {replication.problem}")

    def _now(self) -> int:
        return round(self._clock() * 1000)


def _item(key: bytes, cell: Cell) -> Item:
    return Item(key, unpack(cell.value or b""), cell.stamp.version)
