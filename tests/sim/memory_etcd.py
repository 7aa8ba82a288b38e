"""An etcd in memory with faults, and an event loop whose time is virtual: for simulations.

``MemoryEtcd`` answers as the real client does for what the registry uses. Each request is
applied at one moment between being sent and being answered, other tasks run in between, and a
seeded random source decides what goes wrong: answers lost after or before the write, writes
that arrive late, refusals. ``MemoryWatch`` hands out batches in order, at its own pace. The same
contract test runs against the real etcd (tests/integration/test_registry_contract.py).
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from cluster.errors import OutcomeUnknown, Unavailable
from cluster.etcd import Batch, Compare, Delete, Get, KeyEvent, KeyValue, Lease, LeaseGone, Put, Range, TxnResult

T = TypeVar("T")
Handler = Callable[[Batch], None]


class _InstantSelector(selectors.SelectSelector):
    """Never waits: the time that would have passed is added to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits for ever")
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which an hour takes no time."""

    def __init__(self) -> None:
        self._instant = _InstantSelector()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Work for a thread is done at once: it takes no virtual time."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is handed on
            done.set_exception(error)
        return done


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


@dataclass
class Faults:
    """Chances per request, 0 to 1."""

    lost_answer: float = 0.0
    late_write: float = 0.0
    never_sent: float = 0.0


class MemoryEtcd:
    """Keys, leases and revisions of one etcd."""

    def __init__(self, random: Random, faults: Faults | None = None) -> None:
        self.random = random
        self.faults = faults or Faults()
        self.revision = 1
        self.kvs: dict[str, KeyValue] = {}
        self.leases: set[int] = set()
        self._past: dict[int, dict[str, KeyValue]] = {1: {}}
        self._next_lease = 100
        self._watches: list[MemoryWatch] = []

    async def get(self, key: str, revision: int = 0) -> KeyValue | None:
        await self._travel()
        found = self._at(revision).get(key)
        await self._travel()
        return found

    async def range(
        self,
        prefix: str,
        *,
        revision: int = 0,
        keys_only: bool = False,
        exact_range: tuple[str, str] | None = None,
    ) -> Range:
        await self._travel()
        at = revision or self.revision
        first, end = exact_range or (prefix, prefix + "\U0010ffff")
        kvs = [kv for key, kv in sorted(self._at(at).items()) if first <= key < end]
        await self._travel()
        return Range(kvs, at)

    async def put(self, key: str, value: bytes, lease: int = 0, *, repeatable: bool = False) -> int:
        result = await self.txn([], [Put(key, value, lease)])
        return result.revision

    async def delete(self, key: str, *, repeatable: bool = False) -> bool:
        result = await self.txn([], [Delete(key)])
        return result.responses == [1]

    async def delete_prefix(self, prefix: str, *, repeatable: bool = False) -> int:
        result = await self.txn([], [Delete(prefix, whole_prefix=True)])
        (deleted,) = result.responses
        assert isinstance(deleted, int)
        return deleted

    async def grant(self, ttl_seconds: int) -> Lease:
        await self._travel()
        self._next_lease += 1
        self.leases.add(self._next_lease)
        return Lease(self._next_lease, ttl_seconds)

    async def revoke(self, lease: int) -> bool:
        await self._travel()
        return self.expire(lease)

    def expire(self, lease: int) -> bool:
        if lease not in self.leases:
            return False
        self.leases.discard(lease)
        self._apply([Delete(kv.key) for kv in self.kvs.values() if kv.lease == lease])
        return True

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Put | Delete | Get], failure: Sequence[Any] = ()
    ) -> TxnResult:
        await self._travel()
        chance = self.random.random()
        if chance < self.faults.never_sent:
            raise Unavailable("not sent")
        if chance < self.faults.never_sent + self.faults.late_write:
            delay = self.random.choice([0.0, 0.01, 0.1, 1.0])
            asyncio.get_running_loop().call_later(delay, self._transact_quietly, compares, success)
            await self._travel()
            raise OutcomeUnknown("answer lost, request still on its way")
        result = self._transact(compares, success)
        await self._travel()
        if self.random.random() < self.faults.lost_answer:
            raise OutcomeUnknown("answer lost")
        return result

    def _transact_quietly(self, compares: Sequence[Compare], success: Sequence[Put | Delete | Get]) -> None:
        try:
            self._transact(compares, success)
        except LeaseGone:
            pass  # nobody waits for this answer any more

    def _transact(self, compares: Sequence[Compare], success: Sequence[Put | Delete | Get]) -> TxnResult:
        if not all(self._holds(compare) for compare in compares):
            return TxnResult(False, self.revision, [])
        responses = self._apply(success)
        return TxnResult(True, self.revision, responses)

    def _holds(self, compare: Compare) -> bool:
        if compare.whole_prefix:
            kvs = [kv for key, kv in self.kvs.items() if key.startswith(compare.key)]
            return all(self._compare(compare, kv) for kv in kvs) if kvs else self._compare(compare, None)
        return self._compare(compare, self.kvs.get(compare.key))

    @staticmethod
    def _compare(compare: Compare, kv: KeyValue | None) -> bool:
        name = compare.target.name
        number = getattr(kv, f"{name.lower()}_revision") if kv else 0
        wanted = compare.operand
        assert isinstance(wanted, int)
        return {"=": number == wanted, "!=": number != wanted, "<": number < wanted, ">": number > wanted}[
            compare.operator
        ]

    def _apply(self, operations: Sequence[Put | Delete | Get]) -> list[Any]:
        if any(isinstance(each, Put) and each.lease and each.lease not in self.leases for each in operations):
            raise LeaseGone("lease not found")
        now = self.revision + 1
        events: list[KeyEvent] = []
        responses = [self._one(operation, now, events) for operation in operations]
        if events:
            self.revision = now
            self._remember(now)
            for watch in self._watches:
                watch.take(Batch(now, events))
        return responses

    def _remember(self, revision: int) -> None:
        self._past[revision] = dict(self.kvs)

    def _one(self, operation: Put | Delete | Get, now: int, events: list[KeyEvent]) -> Any:
        match operation:
            case Put(key, value, lease):
                old = self.kvs.get(key)
                kv = KeyValue(
                    key, value, old.create_revision if old else now, now, old.version + 1 if old else 1, lease
                )
                self.kvs[key] = kv
                events.append(KeyEvent(False, kv))
                return None
            case Delete(key, whole_prefix):
                gone = [each for each in self.kvs if each == key or (whole_prefix and each.startswith(key))]
                for each in gone:
                    del self.kvs[each]
                    events.append(KeyEvent(True, KeyValue(each, b"", 0, now, 0, 0)))
                return len(gone)
            case Get(key, whole_prefix):
                return [
                    kv
                    for each, kv in sorted(self.kvs.items())
                    if each == key or (whole_prefix and each.startswith(key))
                ]

    def _at(self, revision: int) -> dict[str, KeyValue]:
        return self._past[revision or self.revision]

    async def _travel(self) -> None:
        """Some time on the wire, in which others go on."""
        await asyncio.sleep(self.random.choice([0, 0, 0.001, 0.003, 0.02]))

    def join(self, watch: MemoryWatch) -> None:
        self._watches.append(watch)

    def part(self, watch: MemoryWatch) -> None:
        self._watches.remove(watch)


class MemoryWatch:
    """What ``PrefixWatch`` is to the registry: ordered batches, later than they happened."""

    def __init__(self, etcd: MemoryEtcd) -> None:
        self.applied = 0
        self._etcd = etcd
        self._subscribers: list[tuple[str, Handler]] = []
        self._queue: list[Batch] = []
        self._busy = False

    def subscribe(self, prefix: str, handler: Handler) -> Callable[[], None]:
        self._subscribers.append((prefix, handler))
        return lambda: self._subscribers.remove((prefix, handler))

    def start(self) -> None:
        self._hand_out(Batch(self._etcd.revision, [KeyEvent(False, kv) for kv in self._etcd.kvs.values()], relist=True))
        self._etcd.join(self)

    def take(self, batch: Batch) -> None:
        self._queue.append(batch)
        if not self._busy:
            self._busy = True
            self._later()

    def _later(self) -> None:
        delay = self._etcd.random.choice([0, 0.001, 0.01, 0.05])
        asyncio.get_running_loop().call_later(delay, self._next)

    def _next(self) -> None:
        self._hand_out(self._queue.pop(0))
        self._busy = bool(self._queue)
        if self._busy:
            self._later()

    def _hand_out(self, batch: Batch) -> None:
        for prefix, handler in self._subscribers:
            events = [event for event in batch.events if event.kv.key.startswith(prefix)]
            if events or batch.relist:
                handler(Batch(batch.revision, events, batch.relist))
        self.applied = batch.revision
