"""Kinds of key-value stores: ``store.memory`` (one node), ``store.kv.raft`` (etcd), ``store.kv.crdt`` (NATS KV)."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from node.durations import Duration
from node.kinds.lifecycle import Lifecycle
from node.kinds.model import Int, Kind, KindModel
from node.scalars import Size


class MemoryStore(KindModel):
    """Keys and values of one node, gone with it."""

    max_size: Int = Field(default=10_000, ge=0)
    """Keys at most, 0 = the default; a full store refuses new ones."""
    max_bytes: Annotated[Size, Field(ge=1024)] = 256 * 1024**2
    """Bytes of keys and values at most. An addition to the original."""
    cleanup_interval: Duration = timedelta(minutes=5)
    """How often expired keys are removed; 0 = only when met."""
    lifecycle: Lifecycle = Lifecycle()
    """A store is there on every node whatever this says."""


class ClusterStore(KindModel):
    """Keys and values of the whole cluster, linearizable. They are in etcd: a `wippy up` without `--keep` throws them
    away when it ends."""

    namespace: str = Field(pattern=r"^[a-z][a-z0-9._-]*$", max_length=128)
    """Separates the keys of stores; stores of one namespace share them."""
    lifecycle: Lifecycle = Lifecycle()
    """A store is there on every node whatever this says."""


class ReplicatedStore(KindModel):
    """Keys and values every node has a copy of; of two writes to one key the later one stays."""

    namespace: str = Field(pattern=r"^[a-z][a-z0-9._-]*$", max_length=128)
    """Separates the keys of stores; stores of one namespace share them."""
    durable: bool = False
    """Whether NATS keeps the values in files: they then outlive a restart of all nodes and servers at once, but not
    the end of a `wippy up` without `--keep`, which throws the data of its servers away."""
    max_size: Int = Field(default=100_000, ge=1)
    """Keys at most; a full store refuses new ones. An addition to the original."""
    max_bytes: Annotated[Size, Field(ge=1024)] = 64 * 1024**2
    """Bytes at most, about; they are taken on every node. An addition to the original."""
    lifecycle: Lifecycle = Lifecycle()
    """A store is there on every node whatever this says."""


KINDS = (
    Kind(
        "store.memory",
        MemoryStore,
        one_node="to share the data make it a store.kv.raft, or a store.kv.crdt for fast reads of what may be late",
    ),
    Kind("store.kv.raft", ClusterStore),
    Kind("store.kv.crdt", ReplicatedStore),
)
