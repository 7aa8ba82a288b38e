"""Kinds of key-value stores: ``store.memory`` (one node) and ``store.kv.raft`` (the cluster's etcd)."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from node.durations import Duration
from node.kinds.lifecycle import Lifecycle
from node.kinds.model import Int, Kind, KindModel


class MemoryStore(KindModel):
    """Keys and values of one node, gone with it."""

    max_size: Int = Field(default=10_000, ge=0)
    """Keys at most, 0 = the default; a full store refuses new ones."""
    cleanup_interval: Duration = timedelta(minutes=5)
    """How often expired keys are removed; 0 = only when met."""
    lifecycle: Lifecycle = Lifecycle()
    """A store is there on every node whatever this says."""


class ClusterStore(KindModel):
    """Keys and values of the whole cluster, linearizable."""

    namespace: str = Field(pattern=r"^[a-z][a-z0-9._-]*$", max_length=128)
    """Separates the keys of stores; stores of one namespace share them."""
    lifecycle: Lifecycle = Lifecycle()
    """A store is there on every node whatever this says."""


KINDS = (
    Kind("store.memory", MemoryStore),
    Kind("store.kv.raft", ClusterStore),
)
