"""A frozen owner comes back after somebody else took over: nothing of what it still sends is ever accepted.

The resources: a row of an SQL database that keeps the highest fencing token it has seen; a key of etcd that whoever has
it writes only while the owner's claim is the one the writer names; and a key of a store of the cluster, which compares
the claim by itself. What the old owner had sent
before it froze is kept back by the network until the new one has written, so that there is something to refuse.
``WIPPY_CHAOS=full`` freezes often, for times of all lengths, and in half of the rounds without help by the network.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from functools import partial
from typing import Any

import pytest

from cluster.bus import Bus
from cluster.envelope import to_text, unpack
from cluster.errors import ClusterError
from cluster.etcd import Batch, Compare, PrefixWatch, Put
from cluster.events import Event, EventBus
from cluster.fencing import EXIT_CODE
from cluster.subjects import Subjects
from cluster.tasks import Tasks
from tests.chaos.nodes import LEASE_TTL, Cluster, Node, eventually
from tests.chaos.proxy import Proxy, Way

FULL = os.environ.get("WIPPY_CHAOS") == "full"
ROUNDS = 12 if FULL else 1
NODES = ("n1", "n2")
BOOKING = ("-o", "app:booker:lifecycle.auto_start=true")

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(600 if FULL else 90)]


class Book:
    """What the keepers of the book write to, and everything that was accepted and refused."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._database = sqlite3.connect(":memory:")
        self._database.execute("CREATE TABLE book (id INTEGER PRIMARY KEY, fence INTEGER, pid TEXT, n INTEGER)")
        self._database.execute("INSERT INTO book VALUES (1, 0, '', 0)")
        self._claim = cluster.keys.service("app:booker", 0)
        self._key = cluster.keys.store("fenced") + "book"
        self._received: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.accepted: list[tuple[str, int]] = []
        """(pid, n) of every write the database took, in its order."""
        self.refused: Counter[str] = Counter()
        """Writes the database refused, by who wrote."""
        self.kept: list[tuple[str, int]] = []
        """The same of the key in etcd."""
        self.turned_away: Counter[str] = Counter()
        self.copied: list[tuple[str, int]] = []
        """What the key of the store held, in etcd's order."""

    def close(self) -> None:
        self._database.close()

    def on_event(self, event: Event) -> None:
        self._received.put_nowait((event.kind, to_text(event.data)))

    def on_copy(self, batch: Batch) -> None:
        for event in batch.events:
            value = to_text(unpack(event.kv.value))[1]
            self.copied.append((value["pid"], value["n"]))

    async def keep(self) -> None:
        while True:
            kind, said = await self._received.get()
            await (self._raise(said) if kind == "raise" else self._write(said))

    async def _raise(self, said: dict[str, Any]) -> None:
        """The fence first; what a new keeper reads after it can't change under its hands."""
        if self._execute("UPDATE book SET fence = :token WHERE id = 1 AND fence <= :token", said):
            ((ends,),) = self._database.execute("SELECT n FROM book WHERE id = 1")
            try:
                await self._cluster.client.send(said["pid"], "ends", {"n": ends})
            except ClusterError:
                pass  # it asks again, or has ended

    async def _write(self, said: dict[str, Any]) -> None:
        pid, n = said["pid"], said["n"]
        query = "UPDATE book SET fence = :token, pid = :pid, n = :n WHERE id = 1 AND fence <= :token"
        if self._execute(query, said):
            self.accepted.append((pid, n))
        else:
            self.refused[pid] += 1
        mine = [Compare.mod(self._claim, "=", said["token"])]
        if (await self._cluster.etcd.txn(mine, [Put(self._key, f"{pid} {n}".encode())])).succeeded:
            self.kept.append((pid, n))
        else:
            self.turned_away[pid] += 1

    def _execute(self, query: str, values: dict[str, Any]) -> bool:
        return self._database.execute(query, values).rowcount == 1

    @property
    def keeper(self) -> str:
        return self.accepted[-1][0] if self.accepted else ""

    def check(self) -> None:
        """Each keeper has one turn, and goes on where the one before ended."""
        assert [n for _, n in self.accepted] == list(range(1, len(self.accepted) + 1)), "a write was lost or doubled"
        for writes in (self.accepted, self.kept, self.copied):
            pids = [pid for pid, _ in writes]
            turns = [pid for pid, former in zip(pids, ["", *pids]) if pid != former]
            assert len(turns) == len(set(turns)), f"keepers interleave: {turns}"


async def test_what_a_frozen_owner_sent_is_refused_once_another_has_taken_over(cluster: Cluster) -> None:
    seed = int(os.environ.get("WIPPY_CHAOS_SEED") or random.randrange(10**6))
    print(f"WIPPY_CHAOS_SEED={seed} repeats this run")
    dice = random.Random(seed)
    async with AsyncExitStack() as stack:
        ways: dict[str, list[Proxy]] = {}
        for name in NODES:
            targets = (cluster.servers.nats.port, cluster.servers.etcd.port)
            ways[name] = [await stack.enter_async_context(Proxy(target)) for target in targets]

        def start(name: str) -> Node:
            nats, etcd = ways[name]
            urls = {"nats": f"nats://127.0.0.1:{nats.port}", "etcd": f"http://127.0.0.1:{etcd.port}"}
            return cluster.start(name, *BOOKING, **urls)

        for node in [start(name) for name in NODES]:
            await node.ready()
        bus = Bus([cluster.servers.nats_url], name="book", inbox=Subjects(cluster.name).inbox("book"))
        async with bus, Tasks("book") as tasks:
            with closing(Book(cluster)) as book:
                events = EventBus(bus.data, Subjects(cluster.name), "book", 0)
                await events.subscribe("ledger", None, book.on_event)
                watch = PrefixWatch(cluster.etcd, cluster.keys.store("copy"))
                watch.subscribe(cluster.keys.store("copy"), book.on_copy)
                await stack.enter_async_context(watch)
                tasks.start(book.keep(), "book")
                refused = {True: 0, False: 0}
                for number in range(ROUNDS):
                    kept_back, before = number % 2 == 0, sum(book.refused.values())
                    await freeze_the_keeper(cluster, start, book, ways, dice, kept_back=kept_back)
                    refused[kept_back] += sum(book.refused.values()) - before
                await all_are_back(cluster, start)  # registered again: all they sent before has arrived
                book.check()
                assert book.refused
                assert book.turned_away
                figures = {"refused": sum(book.refused.values()), "refused_without_help": refused[False]}
                print(json.dumps({"rounds": ROUNDS, "accepted": len(book.accepted), **figures}))
    cluster.writes.check_one_owner()
    assert all("Traceback" not in node.err for node in cluster.nodes.values())


async def all_are_back(cluster: Cluster, start: Callable[[str], Node]) -> None:
    """Wait until every node is registered. One that was frozen in the middle of a step has ended itself, as it must
    (F3); whoever runs it starts it again."""

    async def is_back(name: str) -> bool:
        node = cluster.nodes[name]
        if node.process.poll() is not None:
            assert node.process.returncode == EXIT_CODE
            assert "would outlive the lease" in node.err
            start(name)
        return "pid" in await cluster.ask(name, "seen")

    for name in NODES:
        await eventually(partial(is_back, name), within=30, what=f"{name} is back")


async def freeze_the_keeper(
    cluster: Cluster,
    start: Callable[[str], Node],
    book: Book,
    ways: dict[str, list[Proxy]],
    dice: random.Random,
    *,
    kept_back: bool,
) -> None:
    """One round; ``kept_back``: what it sends in the last moments before it freezes comes after its successor's."""

    async def writes() -> bool:
        seen = len(book.accepted)
        await asyncio.sleep(0.2)
        return len(book.accepted) > seen + 10

    await all_are_back(cluster, start)
    await eventually(writes, within=20, what="the book is written")
    frozen = book.keeper
    name = frozen[1:].partition("@")[0]
    if kept_back:
        for way in ways[name]:
            way.hold(Way.OUT)
        await asyncio.sleep(dice.uniform(0.05, 0.3))
    else:
        await asyncio.sleep(dice.uniform(0.0, 0.5))
    cluster.nodes[name].signal(signal.SIGSTOP)

    async def taken_over() -> bool:
        return book.keeper != frozen and book.copied[-1][0] != frozen

    await eventually(taken_over, within=LEASE_TTL + 10, what="another keeps the book")
    await asyncio.sleep(dice.uniform(0.0, 2.0) if kept_back else 0.0)
    for way in ways[name]:
        await way.mend()
    cluster.nodes[name].signal(signal.SIGCONT)
    if kept_back:

        async def refused() -> bool:
            return book.refused[frozen] > 0 and book.turned_away[frozen] > 0

        await eventually(refused, within=10, what="what the frozen keeper had sent was refused")
    book.check()
