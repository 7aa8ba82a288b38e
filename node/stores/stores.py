"""The stores of this node: one per entry of a ``store.*`` kind, brought to what the registry says.

A changed entry keeps its data: limits of a store change in place, a ``store.kv.raft`` has its data in etcd, a
``store.kv.crdt`` takes them along when it becomes durable. Only a change of kind or namespace makes another store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from cluster.errors import Unavailable
from cluster.etcd import Etcd
from cluster.keys import Keys
from cluster.registry import Entry
from node.kinds import decode
from node.kinds.store import ClusterStore, ReplicatedStore
from node.kinds.store import MemoryStore as MemoryModel
from node.stores.contract import Store
from node.stores.crdt import CrdtStore
from node.stores.etcd import EtcdStore
from node.stores.memory import MemoryStore
from node.stores.namespaces import Namespaces, Wish

log = structlog.get_logger("wippy.stores")

FIRST_COPY = 5.0
"""Seconds an entry may take to get the copy of its data; then the node says that it lacks it, and tries on."""


class Stores:
    """Handler of the store kinds. ``async with``: leaving it ends the copies kept in step with other nodes."""

    name = "stores"

    def __init__(self, etcd: Etcd, keys: Keys, env: Callable[[str], str | None], namespaces: Namespaces) -> None:
        self._etcd = etcd
        self._keys = keys
        self._env = env
        self._namespaces = namespaces
        self._stores: dict[str, Store] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._namespaces.close()

    def find(self, id: str) -> Store | None:
        return self._stores.get(id)

    def ids(self) -> list[str]:
        return sorted(self._stores)

    def handles(self, kind: str) -> bool:
        return kind.startswith("store.")

    async def put(self, entry: Entry) -> None:
        """Make the store, or give it its limits. Raises Invalid, and Unavailable while it has no copy of its data."""
        known = self._stores.get(entry.id)
        match decode(entry, self._env):
            case MemoryModel(max_size=size, max_bytes=most, cleanup_interval=interval):
                store = known if isinstance(known, MemoryStore) else MemoryStore(entry.id)
                store.configure(size, interval.total_seconds(), most)
                await self._replace(entry.id, known, store)
            case ClusterStore(namespace=name):
                if not (isinstance(known, EtcdStore) and known.prefix == self._keys.store(name)):
                    await self._replace(entry.id, known, EtcdStore(entry.id, name, self._etcd, self._keys))
            case ReplicatedStore() as model:
                await self._replicate(entry.id, model)
            case _:
                raise AssertionError(f"kind {entry.kind} has no store")

    async def remove(self, id: str) -> None:
        await self._left(id, self._stores.pop(id, None))

    async def _replicate(self, id: str, model: ReplicatedStore) -> None:
        wish = Wish(model.durable, model.max_size, model.max_bytes)
        known = self._stores.get(id)
        namespace = await self._namespaces.join(id, model.namespace, wish)
        await self._replace(id, known, CrdtStore(id, namespace, self._namespaces.max_payload))
        replication = namespace.replication
        try:
            async with asyncio.timeout(FIRST_COPY):
                await replication.level.wait()
        except TimeoutError:
            raise Unavailable(f"no copy of its data yet: {replication.problem}") from None

    async def _replace(self, id: str, former: Store | None, store: Store) -> None:
        self._stores[id] = store
        stays = isinstance(store, CrdtStore) and isinstance(former, CrdtStore) and store.namespace is former.namespace
        if former is not store and not stays:
            await self._left(id, former)

    async def _left(self, id: str, store: Store | None) -> None:
        if isinstance(store, CrdtStore):
            await self._namespaces.leave(id, store.namespace.name)
