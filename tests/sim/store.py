"""An etcd with leases in virtual time, and what each process sees of it over a network that fails.

A request travels, is applied at one moment (or never), and its answer travels back (or is lost): what the client
raises is what the real one raises. Leases end late, never early, and a restart of the store gives each its full
time again. A watch hands out batches in order and waits while its process can't reach the store; when the history
was thrown away meanwhile it gets the differences as one batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Self

from cluster.errors import CallTimeout, OutcomeUnknown, Unavailable
from cluster.etcd import Batch, Compare, Delete, Get, KeyEvent, KeyValue, Lease, LeaseGone, Put, TxnResult
from tests.sim.memory_etcd import MemoryEtcd
from tests.sim.world import Actor, ProcessLoop, World

PATIENCE = 2.0
"""Seconds a client waits for an answer."""


class Store(MemoryEtcd):
    """The store itself. Its keys and revisions are those of ``MemoryEtcd``."""

    def __init__(self, world: World) -> None:
        super().__init__(world.random)
        self.world = world
        self.down = False
        self.unreachable: set[str] = set()
        self.lost_answers = 0.0
        self.until: dict[int, float] = {}
        self.on_lease_end: Callable[[int], None] = lambda lease: None
        """Called before the keys of a lease go."""
        self.on_delete: Callable[[KeyValue], None] = lambda kv: None
        """Called before a key goes that somebody deletes."""
        self._ttl: dict[int, float] = {}
        world.after(0.3, self._expire)

    def reachable(self, node: str) -> bool:
        return not self.down and node not in self.unreachable

    def alive(self, lease: int) -> bool:
        """Whether the store still takes the lease for granted: what nobody but the store knows."""
        return lease in self.leases

    def new_lease(self, ttl: float) -> int:
        self._next_lease += 1
        lease = self._next_lease
        self.leases.add(lease)
        self._ttl[lease] = ttl
        self.until[lease] = self.world.now + ttl
        return lease

    def keep_alive(self, lease: int) -> float:
        """The TTL, 0 when the lease is over."""
        if lease not in self.leases:
            return 0.0
        self.until[lease] = self.world.now + self._ttl[lease]
        return self._ttl[lease]

    def restart(self) -> None:
        """It is back: every lease has its whole time again."""
        self.down = False
        for lease in self.leases:
            self.until[lease] = self.world.now + self._ttl[lease]

    def expire(self, lease: int) -> bool:
        if lease in self.leases:
            self.on_lease_end(lease)
        return super().expire(lease)

    def _expire(self) -> None:
        if not self.down:
            for lease in sorted(self.leases):
                if self.world.now >= self.until[lease]:
                    self.world.note("store", "lease ends", lease)
                    self.expire(lease)
        self.world.after(self.world.pick([0.1, 0.5]), self._expire)

    def _remember(self, revision: int) -> None:
        """Nobody asks here for what was."""

    def transact(
        self, compares: Sequence[Compare], success: Sequence[Put | Delete | Get], failure: Sequence[Any]
    ) -> TxnResult:
        if all(self._holds(compare) for compare in compares):
            for operation in success:
                if isinstance(operation, Delete) and operation.key in self.kvs:
                    self.on_delete(self.kvs[operation.key])
            responses = self._apply(success)
            return TxnResult(True, self.revision, responses)
        return TxnResult(False, self.revision, [self._one(operation, 0, []) for operation in failure])


class Client:
    """The store as one process sees it."""

    def __init__(self, store: Store, node: str, loop: ProcessLoop) -> None:
        self._store = store
        self._node = node
        self._loop = loop
        self._world = store.world

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Put | Delete | Get], failure: Sequence[Any] = ()
    ) -> TxnResult:
        result: TxnResult = await self._ask(lambda: self._store.transact(compares, success, failure))
        return result

    async def get(self, key: str, revision: int = 0) -> KeyValue | None:
        try:
            found: KeyValue | None = await self._ask(lambda: self._store.kvs.get(key))
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from None
        return found

    async def put(self, key: str, value: bytes, lease: int = 0, *, repeatable: bool = False) -> int:
        return (await self.txn([], [Put(key, value, lease)])).revision

    async def delete(self, key: str, *, repeatable: bool = False) -> bool:
        return (await self.txn([], [Delete(key)])).responses == [1]

    async def grant(self, ttl_seconds: int) -> Lease:
        try:
            lease: int = await self._ask(lambda: self._store.new_lease(float(ttl_seconds)))
        except OutcomeUnknown as error:  # a lease nobody knows of ends by itself
            raise Unavailable(str(error)) from None
        return Lease(lease, ttl_seconds)

    async def keep_alive(self, lease: int, timeout: timedelta, on_send: Callable[[], None]) -> float:
        """As the keeper asks: ``on_send`` is called when the request leaves."""
        on_send()
        try:
            ttl: float = await self._ask(lambda: self._store.keep_alive(lease))
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from None
        return ttl

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def revoke(self, lease: int) -> bool:
        revoked: bool = await self._ask(lambda: self._store.expire(lease))
        return revoked

    async def _ask(self, work: Callable[[], Any]) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any, error: Exception | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        self.request(work, done, self._loop)
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError:
            raise OutcomeUnknown("the answer of the store was lost") from None

    def request(self, work: Callable[[], Any], done: Callable[[Any, Exception | None], None], actor: Actor) -> None:
        """Send a request; ``done(result, error)`` in ``actor``, or nothing at all."""
        world, random = self._world, self._world.random
        if not self._store.reachable(self._node) and random.random() < 0.5:
            world.after(0.05, lambda: done(None, Unavailable("the store can't be reached")), actor)
            return
        # what was sent before a partition may still arrive, long after its sender gave up
        late = self._store.lost_answers and random.random() < 0.1
        on_the_way = random.uniform(0, 3) if late else world.pick((0.0005, 0.001, 0.003, 0.02))

        def arrive() -> None:
            if not self._store.reachable(self._node):
                return
            try:
                result, error = work(), None
            except LeaseGone as gone:
                result, error = None, gone
            if random.random() >= self._store.lost_answers:
                slow = self._store.lost_answers and random.random() < 0.2
                back = random.uniform(0, 2.5) if slow else world.pick((0.0005, 0.001, 0.003, 0.02))
                world.after(back, lambda: self._answer(done, result, error), actor)

        world.after(on_the_way, arrive)

    def _answer(self, done: Callable[[Any, Exception | None], None], result: Any, error: Exception | None) -> None:
        if self._store.reachable(self._node):
            done(result, error)


class Watch:
    """What ``PrefixWatch`` is to its subscribers."""

    def __init__(self, store: Store, node: str, loop: ProcessLoop) -> None:
        self.applied = 0
        self._store = store
        self._node = node
        self._loop = loop
        self._subscribers: list[tuple[str, Callable[[Batch], None]]] = []
        self._queue: list[Batch] = []
        self._known: dict[str, int] = {}
        self._scheduled = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.forget = False
        """The history is thrown away at the next opportunity."""

    def subscribe(self, prefix: str, handler: Callable[[Batch], None]) -> Callable[[], None]:
        self._subscribers.append((prefix, handler))
        return lambda: None

    def start(self) -> None:
        self._read_anew()
        self._store.join(self)  # type: ignore[arg-type]

    def take(self, batch: Batch) -> None:
        self._queue.append(batch)
        self.later()

    def later(self) -> None:
        """Something is to be told; while the store can't be reached it is looked for again now and then."""
        if not self._scheduled and not self._loop.dead and (self._queue or self.forget):
            self._scheduled = True
            world = self._store.world
            delay = world.pick((0.001, 0.002, 0.01, 0.08)) if self._store.reachable(self._node) else 0.2
            world.after(delay, self._tell, self._loop)

    def _tell(self) -> None:
        self._scheduled = False
        if self._store.reachable(self._node):
            if self.forget:
                self.forget = False
                self._read_anew()
            else:
                for _ in range(len(self._queue) if self._store.world.random.random() < 0.7 else 1):
                    self._hand_out(self._queue.pop(0))
        self.later()

    def _read_anew(self) -> None:
        self._queue.clear()
        kvs = self._store.kvs
        revision = self._store.revision
        gone = [KeyEvent(True, KeyValue(key, b"", 0, revision, 0, 0)) for key in self._known if key not in kvs]
        new = [KeyEvent(False, kv) for kv in kvs.values() if self._known.get(kv.key) != kv.mod_revision]
        self._hand_out(Batch(revision, gone + new, relist=True))

    def _hand_out(self, batch: Batch) -> None:
        for event in batch.events:
            if event.deleted:
                self._known.pop(event.kv.key, None)
            else:
                self._known[event.kv.key] = event.kv.mod_revision
        if len(batch.events) == 1 and not batch.relist:
            key = batch.events[0].kv.key
            for prefix, handler in self._subscribers:
                if key.startswith(prefix):
                    handler(batch)
        else:
            self._hand_out_parts(batch)
        self.applied = batch.revision
        reached = [waiter for revision, waiter in self._waiting if revision <= self.applied]
        self._waiting = [(revision, waiter) for revision, waiter in self._waiting if revision > self.applied]
        for waiter in reached:
            if not waiter.done():
                waiter.set_result(None)

    def _hand_out_parts(self, batch: Batch) -> None:
        for prefix, handler in self._subscribers:
            events = [event for event in batch.events if event.kv.key.startswith(prefix)]
            if events or batch.relist:
                handler(Batch(batch.revision, events, batch.relist))

    async def reached(self, revision: int, timeout: float = 5.0) -> None:
        if self.applied >= revision:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((revision, waiter))
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            raise CallTimeout("watch", timeout) from None
