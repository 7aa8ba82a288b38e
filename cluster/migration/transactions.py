"""The four transactions of a move, with their exact compares, and what is heard of them.

``moved/<process>`` names the node that holds the process; its mod_revision decides every race. None is repeated by
itself: the one that asked decides what an unknown outcome means.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cluster.etcd import Compare, Delete, Get, Put
from cluster.keys import Keys
from cluster.migration.items import Parcel


class Outcome(Enum):
    """What became of a transaction. One that names a lease which has ended has FAILED."""

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """It may be applied yet, or never."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where ``moved/<process>`` says the process is, and at which revision it was written."""

    node: str
    revision: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the request of this number: the ``revision`` of one that is DONE, else what was ``found`` in the
    same transaction. A read is answered as FAILED with what it found, or as UNKNOWN."""

    request: int
    outcome: Outcome
    revision: int = 0
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """A registration of this node: its epoch and its lease."""

    epoch: int
    lease: int


@dataclass(frozen=True, slots=True)
class Transact:
    """Ask etcd, once; ``failure`` is read when a compare does not hold."""

    request: int
    compares: tuple[Compare, ...]
    success: tuple[Put | Delete, ...]
    failure: tuple[Get, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """Read the key, linearizable."""

    request: int
    key: str


class Transactions:
    """Builds the transactions about one process, and numbers them: an answer to any but the last is too late."""

    def __init__(self, keys: Keys, uniq: str, node: str) -> None:
        self._keys = keys
        self._key = keys.moved_process(uniq)
        self._node = node
        self._requests = 0

    def _next(self) -> int:
        self._requests += 1
        return self._requests

    def read(self) -> Read:
        return Read(self._next(), self._key)

    def mark(self, seen: int, lease: int) -> Transact:
        """The process is about to leave; 0 ``seen``: it never moved."""
        return self._put([Compare.mod(self._key, "=", seen)], lease)

    def abort(self, marked: int, lease: int) -> Transact:
        """The process stays. From then on the commit can't succeed."""
        return self._put([Compare.mod(self._key, "=", marked)], lease)

    def commit(self, parcel: Parcel, source: str, own: Registration) -> Transact:
        """The process is here, with all it holds."""
        compares = [
            Compare.mod(self._key, "=", parcel.revision),
            Compare.create(self._keys.node(source), "=", parcel.epoch),
            Compare.create(self._keys.node(self._node), "=", own.epoch),
            *(Compare.mod(held.key, "=", held.revision) for held in parcel.holdings),
        ]
        return self._put(compares, own.lease, *(Put(held.key, held.value, own.lease) for held in parcel.holdings))

    def delete(self, revision: int) -> Transact:
        """The process has ended."""
        compares = (Compare.mod(self._key, "=", revision),)
        return Transact(self._next(), compares, (Delete(self._key),), (Get(self._key),))

    def _put(self, compares: list[Compare], lease: int, *also: Put) -> Transact:
        moved = Put(self._key, self._node.encode(), lease)
        return Transact(self._next(), tuple(compares), (moved, *also), (Get(self._key),))
