"""The stores of this node: one per entry of a ``store.*`` kind, brought to what the registry says.

A changed entry keeps its data: limits of a memory store change in place, a cluster store has
its data in etcd. Only a change of kind or namespace makes another store.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.etcd import Etcd
from cluster.keys import Keys
from cluster.registry import Entry
from node.kinds import decode
from node.kinds.store import ClusterStore
from node.kinds.store import MemoryStore as MemoryModel
from node.stores.contract import Store
from node.stores.etcd import EtcdStore
from node.stores.memory import MemoryStore


class Stores:
    """Handler of the store kinds."""

    name = "stores"

    def __init__(self, etcd: Etcd, keys: Keys, env: Callable[[str], str | None]) -> None:
        self._etcd = etcd
        self._keys = keys
        self._env = env
        self._stores: dict[str, Store] = {}

    def find(self, id: str) -> Store | None:
        return self._stores.get(id)

    def ids(self) -> list[str]:
        return sorted(self._stores)

    def handles(self, kind: str) -> bool:
        return kind.startswith("store.")

    async def put(self, entry: Entry) -> None:
        """Make the store, or give it its limits. Raises Invalid."""
        self._stores[entry.id] = self._made(entry)

    async def remove(self, id: str) -> None:
        self._stores.pop(id, None)

    def _made(self, entry: Entry) -> Store:
        known = self._stores.get(entry.id)
        match decode(entry, self._env):
            case MemoryModel(max_size=size, cleanup_interval=interval):
                store = known if isinstance(known, MemoryStore) else MemoryStore(entry.id)
                store.configure(size, interval.total_seconds())
                return store
            case ClusterStore(namespace=namespace):
                if isinstance(known, EtcdStore) and known.prefix == self._keys.store(namespace):
                    return known
                return EtcdStore(entry.id, namespace, self._etcd, self._keys)
            case _:
                raise AssertionError(f"kind {entry.kind} has no store")
