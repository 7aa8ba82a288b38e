"""An etcd with transactions that are applied late or never, answers that are lost, leases, and one ordered log."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.etcd import Delete, Put
from cluster.etcd.values import Compare
from cluster.migration.transactions import Answer, Found, Outcome, Read, Transact


@dataclass(frozen=True)
class Kept:
    """A key as it stands."""

    value: bytes
    created: int
    revision: int
    lease: int


@dataclass(frozen=True)
class Event:
    """A change, as every watch shows it; ``value`` None: deleted."""

    revision: int
    key: str
    value: bytes | None


@dataclass(frozen=True)
class Pending:
    """A transaction that has not been applied; ``asked``: the life of its node that waits for the answer."""

    node: str
    transact: Transact
    asked: bool = True


class VirtualEtcd:
    """One revision for each transaction, as etcd does."""

    def __init__(self) -> None:
        self.revision = 100
        self.keys: dict[str, Kept] = {}
        self.log: list[Event] = []
        self.leases: set[int] = set()
        self.pending: list[Pending] = []

    def put(self, *puts: Put) -> int:
        self.revision += 1
        for put in puts:
            before = self.keys.get(put.key)
            created = before.created if before else self.revision
            self.keys[put.key] = Kept(put.value, created, self.revision, put.lease)
            self.log.append(Event(self.revision, put.key, put.value))
        return self.revision

    def grant(self) -> int:
        self.revision += 1
        self.leases.add(self.revision)
        return self.revision

    def end_lease(self, lease: int) -> None:
        self.leases.discard(lease)
        self.revision += 1
        for key in [key for key, kept in self.keys.items() if kept.lease == lease]:
            del self.keys[key]
            self.log.append(Event(self.revision, key, None))

    def found(self, key: str) -> Found | None:
        kept = self.keys.get(key)
        return Found(kept.value.decode(), kept.revision) if kept else None

    def read(self, read: Read) -> Answer:
        return Answer(read.request, Outcome.FAILED, found=self.found(read.key))

    def apply(self, transact: Transact) -> Answer:
        if not all(self._holds(compare) for compare in transact.compares):
            return Answer(transact.request, Outcome.FAILED, found=self.found(transact.failure[0].key))
        puts = [change for change in transact.success if isinstance(change, Put)]
        if any(put.lease not in self.leases for put in puts):
            return Answer(transact.request, Outcome.FAILED, found=self.found(transact.failure[0].key))
        if puts:
            self.put(*puts)
        else:
            self.revision += 1
        for change in transact.success:
            if isinstance(change, Delete):
                del self.keys[change.key]
                self.log.append(Event(self.revision, change.key, None))
        return Answer(transact.request, Outcome.DONE, self.revision)

    def _holds(self, compare: Compare) -> bool:
        kept = self.keys.get(compare.key)
        number = {"MOD": kept.revision, "CREATE": kept.created}[compare.target.name] if kept else 0
        assert compare.operator == "="
        return number == compare.operand
