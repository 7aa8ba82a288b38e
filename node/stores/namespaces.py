"""The namespaces of ``store.kv.crdt`` on this node: one copy each, however many entries look at it.

An entry joins its namespace and leaves it; with the last one the copy goes, the data stay in NATS. What several
entries of one namespace say is put together: it is durable when one of them is, and as large as the largest. When
that changes from memory to files or back, the copy's cells go to the other bucket and the former one forgets them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count

import structlog

from cluster.bucket import Bucket
from cluster.connection import Connection, Problem, Trouble
from cluster.errors import ClusterError, Unavailable
from cluster.subjects import Subjects, token
from cluster.tasks import Tasks
from node.stores.copy import Copy
from node.stores.replication import Replication

log = structlog.get_logger("wippy.stores")

LAST_WRITES = 2.0
"""Seconds a copy that goes may take to publish what it has."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one entry says of its namespace."""

    durable: bool
    max_size: int
    max_bytes: int


class Namespace:
    """One namespace on this node. ``copy`` lives as long as an entry wants it, ``replication`` changes buckets."""

    def __init__(self, name: str, writer: int, make: Callable[[bool], tuple[Bucket, str]]) -> None:
        self.name = name
        self.copy = Copy(name, writer, max_size=0, max_bytes=0)
        self.wishes: dict[str, Wish] = {}
        self._make = make
        self._bucket: Bucket | None = None
        self._durable = False
        self._replication: Replication | None = None
        self._running = AsyncExitStack()
        self._adapting = asyncio.Lock()

    @property
    def replication(self) -> Replication:
        """Raises Unavailable when no entry has this namespace any more."""
        if self._replication is None:
            raise Unavailable(f"namespace {self.name} has no store on this node any more; get the store again")
        return self._replication

    @property
    def durable(self) -> bool:
        return self._durable

    async def adapt(self) -> None:
        """Be what the entries say; nothing when none is left."""
        async with self._adapting:
            if self.wishes:
                await self._adapt()

    async def _adapt(self) -> None:
        self.copy.max_size = max(wish.max_size for wish in self.wishes.values())
        self.copy.max_bytes = max(wish.max_bytes for wish in self.wishes.values())
        durable = any(wish.durable for wish in self.wishes.values())
        if self._replication is not None and durable == self._durable:
            return
        former, has_data = self._bucket, self._replication is not None and self._replication.level.is_set()
        await self._running.aclose()
        if former is not None:
            self.copy.unpublish()
        self._durable = durable
        self._bucket, deliver = self._make(durable)
        self._replication = Replication(self._bucket, self.name, self.copy, deliver, has_data=has_data)
        self._running = AsyncExitStack()
        await self._running.enter_async_context(self._replication)
        if former is not None:
            await self._give_up(former)

    async def close(self) -> None:
        """Publish what is left, for a moment, and end."""
        async with self._adapting:  # what changes its bucket now would go on without an end
            replication, self._replication = self._replication, None
            if replication is not None and not await replication.published(0 if replication.problem else LAST_WRITES):
                waiting = self.copy.stats().waiting
                log.warning("writes of a store are lost: NATS does not have them", namespace=self.name, writes=waiting)
            await self._running.aclose()

    def wake(self) -> None:
        if self._replication is not None:
            self._replication.wake()

    def denied(self, subject: str) -> None:
        if self._replication is not None:
            self._replication.denied(subject)

    async def _give_up(self, former: Bucket) -> None:
        """The former bucket must not bring back later what is changed in the new one."""
        try:
            if await self.replication.published(LAST_WRITES):
                await former.purge(f"{former.prefix}{token(self.name)}.>")
        except ClusterError as error:
            log.warning("values stay in a bucket that is not used any more", bucket=former.name, reason=str(error))


class Namespaces:
    """All of them. ``writer`` is this node's incarnation, ``node`` its name."""

    def __init__(self, connection: Connection, subjects: Subjects, node: str, writer: int) -> None:
        self._connection = connection
        self._subjects = subjects
        self._node = node
        self._writer = writer
        self._numbers = count(1)
        self._all: dict[str, Namespace] = {}
        self._closed = False
        connection.on_reconnect(self._reconnected)
        connection.on_problem(self._on_problem)

    @property
    def max_payload(self) -> int:
        """Bytes NATS takes in one message."""
        return self._connection.server().max_payload

    async def join(self, id: str, name: str, wish: Wish) -> Namespace:
        """The namespace as the entry ``id`` and the others want it. Raises Unavailable when the node ends."""
        if self._closed:
            raise Unavailable(f"namespace {name} is not opened any more: this node ends")
        namespace = self._all.get(name)
        if namespace is None:
            namespace = self._all[name] = Namespace(name, self._writer, self._bucket)
        namespace.wishes[id] = wish
        await namespace.adapt()
        return namespace

    async def leave(self, id: str, name: str) -> None:
        """The entry ``id`` wants it no more."""
        namespace = self._all.get(name)
        if namespace is None or namespace.wishes.pop(id, None) is None:
            return
        if namespace.wishes:
            await namespace.adapt()
            return
        del self._all[name]
        await namespace.close()

    async def close(self) -> None:
        """The node ends."""
        self._closed = True
        async with Tasks("stores") as tasks:
            closing = [tasks.start(namespace.close(), f"close {name}") for name, namespace in self._all.items()]
            self._all.clear()
            await asyncio.gather(*closing)

    def _bucket(self, durable: bool) -> tuple[Bucket, str]:
        bucket = Bucket(self._connection, self._subjects.bucket(durable=durable), durable=durable)
        return bucket, f"{self._subjects.inbox(self._node)}.kv.{next(self._numbers)}"

    def _reconnected(self) -> None:
        for namespace in self._all.values():
            namespace.wake()

    def _on_problem(self, problem: Problem) -> None:
        if problem.trouble is Trouble.PUBLISH_DENIED and problem.subject.startswith("$js.fc."):
            for namespace in self._all.values():
                namespace.denied(problem.subject)
