"""``store.kv.raft``: key-value data in etcd, linearizable and shared by all nodes.

A key lies under ``kv/<namespace>/``, percent-encoded where it is not plain text; the value is
msgpack of ``[expires, value]``. A version is the key's mod_revision. Every write of a process
that runs under a claim compares that claim in the same transaction (fencing rule F5).

A time to live is an etcd lease, shared by keys of about one TTL written shortly after each other, so a key may
stay up to a sixteenth of its TTL (at least a second) longer. Reads hide it in time by the
``expires`` stamp; conditional writes go by the lease alone, which no clock that runs ahead can
shorten: a key that reads as gone may refuse ``only_if_absent`` for that moment.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import msgpack

from cluster.envelope import unpack
from cluster.etcd import Compare, Delete, Etcd, Get, KeyValue, LeaseGone, Put, TxnResult
from cluster.etcd.values import Response
from cluster.keys import Keys
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
    Refused,
    StaleOwner,
    VersionChanged,
    check_key,
    check_size,
    check_ttl,
)

PLAIN = "!$&'()*+,/:;=@[]"
"""Characters of keys that stay as they are, besides letters, digits and ``_.-~``."""
VERSION = re.compile("[1-9][0-9]{0,17}")
READ_AT_ONCE = 32


class Shared(NamedTuple):
    """A lease keys of one TTL are put on while it is young."""

    id: int
    granted: float
    keys: int


class Leases:
    """Leases shared by the keys of a store: one per step of TTL and window of time, each a thirty-second of the TTL.

    So there are some thirty for each doubling of the TTL at a time, however many different ones are asked for.
    """

    KEYS = 1000
    KINDS = 1024
    SHORTEST_STEP = 0.5

    def __init__(self, etcd: Etcd, clock: Callable[[], float] = time.monotonic) -> None:
        self._etcd = etcd
        self._clock = clock
        self._shared: dict[float, Shared] = {}
        self._granting = asyncio.Lock()

    async def lease(self, ttl: float) -> int:
        """A lease that lives at least ``ttl`` seconds from now; 0 for no TTL."""
        if not ttl:
            return 0
        step = max(self.SHORTEST_STEP, 2.0 ** (math.floor(math.log2(ttl)) - 5))
        ttl = math.ceil(ttl / step) * step
        async with self._granting:
            window = max(self.SHORTEST_STEP, ttl / 32)
            now = self._clock()
            shared = self._shared.get(ttl)
            if shared is None or now - shared.granted >= window or shared.keys >= self.KEYS:
                lease = await self._etcd.grant(math.ceil(ttl + window))
                shared = Shared(lease.id, now, 0)
            if len(self._shared) >= self.KINDS:
                self._shared.clear()
            self._shared[ttl] = shared._replace(keys=shared.keys + 1)
            return shared.id

    def forget(self, lease: int) -> None:
        """The lease ended: put no more keys on it."""
        self._shared = {ttl: shared for ttl, shared in self._shared.items() if shared.id != lease}


class EtcdStore:
    """One namespace of the cluster's key-value data."""

    max_value = MAX_VALUE

    def __init__(
        self, id: str, namespace: str, etcd: Etcd, keys: Keys, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.info = Info(id, "kv.raft", "linearizable", durable=True)
        self.prefix = keys.store(namespace)
        self._etcd = etcd
        self._clock = clock
        self._leases = Leases(etcd)

    async def read(self, key: bytes) -> Item | None:
        check_key(key)
        found = await self._etcd.get(self._path(key))
        return None if found is None else self._item(found)

    async def write(
        self, key: bytes, value: Any, ttl: float, when: Precondition = ALWAYS, fences: Sequence[Fence] = ()
    ) -> Item:
        check_key(key)
        check_ttl(ttl)
        expires = round((self._clock() + ttl) * 1000) if ttl else 0
        packed = msgpack.packb([expires, value], use_bin_type=False)
        check_size(key, len(packed))
        path = self._path(key)
        compares = [*self._condition(path, when), *_fenced(fences)]
        result = await self._put(path, packed, ttl, compares, [Get(path), *_look(fences)])
        if result.succeeded:
            return Item(key, value, str(result.revision))
        found, *held = result.responses
        _check_owner(fences, held)
        raise self._unmet(key, when, found)

    async def _put(
        self, path: str, packed: bytes, ttl: float, compares: Sequence[Compare], otherwise: Sequence[Get]
    ) -> TxnResult:
        """The put, on a lease that outlives it: one that ended meanwhile (etcd was away long) is replaced once."""
        lease = await self._leases.lease(ttl)
        try:
            return await self._etcd.txn(compares, [Put(path, packed, lease)], otherwise)
        except LeaseGone:
            self._leases.forget(lease)
            lease = await self._leases.lease(ttl)
            return await self._etcd.txn(compares, [Put(path, packed, lease)], otherwise)

    async def delete(self, key: bytes, fences: Sequence[Fence] = ()) -> bool:
        check_key(key)
        path = self._path(key)
        result = await self._etcd.txn(_fenced(fences), [Get(path), Delete(path)], _look(fences))
        if not result.succeeded:
            _check_owner(fences, result.responses)
        found = result.responses[0]
        # what reads as gone was not there
        return isinstance(found, list) and any(not self._is_over(kv) for kv in found)

    async def page(self, prefix: bytes, after: bytes, limit: int) -> Page:
        items: list[Item] = []
        start = self._path(after) if after else None
        size = 0
        while True:
            found = await self._etcd.range(self._path(prefix), start_after=start, limit=READ_AT_ONCE)
            for kv in found.kvs:
                if len(items) == limit or size > PAGE_BYTES:
                    return Page(items, items[-1].key, True)
                item = self._item(kv)
                if item is not None:
                    items.append(item)
                    size += len(kv.value)
            if len(found.kvs) < READ_AT_ONCE:
                return Page(items, b"", False)
            start = found.kvs[-1].key

    def _path(self, key: bytes) -> str:
        return self.prefix + quote(key, safe=PLAIN)

    def _is_over(self, kv: KeyValue) -> bool:
        """Whether its time is over by this node's clock, though its lease may still be there."""
        try:
            expires, _ = unpack(kv.value)
        except (ValueError, TypeError):
            return False
        return isinstance(expires, int) and 0 < expires <= self._clock() * 1000

    def _item(self, kv: KeyValue) -> Item | None:
        try:
            expires, value = unpack(kv.value)
        except (ValueError, TypeError):
            raise Refused(f"etcd key {kv.key} holds no value of a store; somebody else wrote it") from None
        if expires and expires <= self._clock() * 1000:
            return None
        return Item(unquote_to_bytes(kv.key[len(self.prefix) :]), value, str(kv.mod_revision))

    def _condition(self, path: str, when: Precondition) -> list[Compare]:
        if when.absent:
            return [Compare.absent(path)]
        if when.version is None:
            return []
        if not VERSION.fullmatch(when.version):
            raise Refused(f"expected a version as `entry` gives it, got {when.version!r}")
        return [Compare.mod(path, "=", int(when.version))]

    def _unmet(self, key: bytes, when: Precondition, found: Response) -> Exception:
        if when.absent:
            return KeyExists(key)
        now = str(found[0].mod_revision) if isinstance(found, list) and found else None
        return VersionChanged(key, str(when.version), now)


def _fenced(fences: Sequence[Fence]) -> list[Compare]:
    return [Compare.mod(key, "=", token) for key, token in fences]


def _look(fences: Sequence[Fence]) -> list[Get]:
    """What to read when the transaction fails, to tell a lost claim or lock from a changed key."""
    return [Get(key) for key, _ in fences]


def _check_owner(fences: Sequence[Fence], found: Sequence[Response]) -> None:
    """Raises StaleOwner for the first that, as read in the failed transaction, is not the writer's."""
    for (key, token), held in zip(fences, found, strict=True):
        if not isinstance(held, list) or not held or held[0].mod_revision != token:
            raise StaleOwner(key, token)
