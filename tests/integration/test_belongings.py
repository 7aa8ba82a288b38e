"""Names and locks of a process that moves, on a real etcd: they go with it, whatever is seen first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from cluster.envelope import Kind
from cluster.errors import CallTimeout, LockTaken, NameTaken, Unavailable
from cluster.etcd import Etcd, PrefixWatch, Put
from cluster.keys import Keys
from cluster.locks import Lock, Locks
from cluster.migration.belongings import CannotMove
from cluster.migration.items import Holding, Parcel
from cluster.migration.transactions import Registration, Transactions
from cluster.names import Names, Scope
from cluster.tasks import Tasks
from node.lockholders import LockHolders
from tests.forgetful import Forgetful
from tests.waiting import eventually

pytestmark = pytest.mark.servers

P, Q = "{a@app:h|1-1}", "{a@app:h|1-2}"
RAW = P.encode()


class Slow(PrefixWatch):
    """A watch that can be kept behind."""

    kept: list[Any] | None = None

    def _take(self, answer: Any) -> None:
        if self.kept is None:
            super()._take(answer)
        else:
            self.kept.append(answer)

    def go_on(self) -> None:
        kept, self.kept = self.kept or [], None
        for answer in kept:
            super()._take(answer)

    async def read_anew(self) -> None:
        """What was kept is not told of: the history was thrown away."""
        self.kept = None
        await self._load()


@dataclass
class Node:
    """What one node knows of names and locks, and what its processes lost."""

    name: str
    watch: Slow
    lease: int
    epoch: int
    revoked: list[tuple[str, str]] = field(default_factory=list)
    lost: list[Lock] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)
    may_run: bool = True

    def build(self, etcd: Etcd, keys: Keys, tasks: Tasks) -> None:
        self.names = Names(etcd, self.watch, keys, tasks, lambda: self.lease, at_once)
        self.locks = Locks(etcd, self.watch, keys, tasks)
        self.holders = LockHolders(self.locks, keys, self, self.sent.append)
        self.parts = (self.names, self.locks)
        self.names.on_revoked(lambda name, pid: self.revoked.append((name, pid)))
        self.locks.on_lost(self.lost.append)

    def may_run_owned(self, lease: int) -> bool:
        return self.may_run and lease == self.lease

    def pack(self) -> list[Holding]:
        return [held for part in self.parts for held in part.pack(P)]

    def stays(self) -> None:
        for part in self.parts:
            part.stays(P)

    def left(self) -> None:
        for part in self.parts:
            part.left(P)

    def expect(self, holdings: list[Holding]) -> None:
        for part in self.parts:
            part.expect(P, holdings)

    def arrived(self, holdings: list[Holding], revision: int) -> None:
        for part in self.parts:
            part.arrived(P, holdings, revision, self.lease)

    def lost_it(self, holdings: list[Holding]) -> None:
        for part in self.parts:
            part.lost(P, holdings)

    def holds(self, name: str) -> tuple[str, int, int] | None:
        held = self.names.lookup(name)
        return None if held is None else (held.pid, held.revision, held.lease)


async def at_once(revision: int, seconds: float) -> None:
    """Every node shows everything."""


@dataclass
class World:
    etcd: Forgetful
    keys: Keys
    a: Node
    b: Node
    mark: int = 0

    async def commit(self, holdings: list[Holding], source: Node, target: Node) -> int:
        """The mark of the source and the commit of the target; its revision."""
        marked = Transactions(self.keys, "1-1", source.name).mark(self.mark, source.lease)
        self.mark = (await self.etcd.txn(marked.compares, marked.success, marked.failure)).revision
        parcel = Parcel(1, self.mark, source.epoch, None, tuple(holdings))
        commit = Transactions(self.keys, "1-1", target.name).commit(
            parcel, source.name, Registration(target.epoch, target.lease)
        )
        result = await self.etcd.txn(commit.compares, commit.success, commit.failure)
        assert result.succeeded
        self.mark = result.revision
        return result.revision

    async def move(self, source: Node, target: Node) -> int:
        """All of a move, with nothing in its way."""
        holdings = source.pack()
        target.expect(holdings)
        revision = await self.commit(holdings, source, target)
        target.arrived(holdings, revision)
        source.left()
        return revision

    async def same(self) -> None:
        """Both watches are where etcd is."""
        now = await self.etcd.revision()
        for node in (self.a, self.b):
            await node.watch.reached(now)

    async def drop(self, key: str) -> None:
        """Somebody deletes the key."""
        await self.etcd.delete(key)

    async def is_free(self, key: str) -> bool:
        return await self.etcd.get(key) is None


async def free(world: World, key: str) -> None:
    async with asyncio.timeout(10):
        while not await world.is_free(key):
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def world(etcd: Etcd, servers, cluster_name: str) -> AsyncIterator[World]:  # type: ignore[no-untyped-def]
    keys = Keys(cluster_name)
    async with AsyncExitStack() as stack:
        forgetful = await stack.enter_async_context(Forgetful([servers.etcd_url]))
        nodes = []
        for name in ("a", "b"):
            tasks = await stack.enter_async_context(Tasks(name))
            lease = (await etcd.grant(60)).id
            epoch = (await etcd.txn([], [Put(keys.node(name), b"", lease)], [])).revision
            node = Node(name, Slow(forgetful, keys.prefix), lease, epoch)
            node.build(forgetful, keys, tasks)
            await stack.enter_async_context(node.watch)
            nodes.append(node)
        yield World(forgetful, keys, *nodes)


NAMES = {"counter": Scope.CONSISTENT, "room": Scope.STRONG, "soon": Scope.EVENTUAL}


async def settle(world: World) -> None:
    """The process on a has a name of each scope and two locks."""
    for name, scope in NAMES.items():
        await world.a.names.register(name, P, scope, world.a.lease)
    for name in ("orders", "bills"):
        await world.a.locks.acquire(name, RAW, world.a.lease)
    await eventually(lambda: world.a.names.stats().own == 3)
    await world.same()


class TestMoved:
    async def test_the_keys_are_packed_exactly_as_they_stand(self, world: World) -> None:
        await settle(world)
        packed = {held.key: (held.value, held.revision) for held in world.a.pack()}
        assert set(packed) == {*map(world.keys.name, NAMES), world.keys.lock("orders"), world.keys.lock("bills")}
        for key, held in packed.items():
            kv = await world.etcd.get(key)
            assert kv is not None
            assert held == (kv.value, kv.mod_revision)

    @pytest.mark.parametrize("behind", ["", "a", "b", "ab"])
    @pytest.mark.parametrize("first", ["arrived", "left"])
    async def test_nothing_is_lost_whatever_is_seen_first(self, world: World, behind: str, first: str) -> None:
        await settle(world)
        a, b = world.a, world.b
        holdings = a.pack()
        b.expect(holdings)
        for node in (a, b):
            if node.name in behind:
                node.watch.kept = []
        revision = await world.commit(holdings, a, b)
        await eventually(lambda: all(n.watch.kept or n.watch.applied >= revision for n in (a, b)))
        if first == "left":
            a.left()
        b.arrived(holdings, revision)
        if first == "arrived":
            a.left()
        assert {name: b.holds(name) for name in NAMES} == dict.fromkeys(NAMES, (P, revision, b.lease))
        assert b.names.stats().own == 3
        assert a.names.stats().own == 0
        assert (a.locks.token("orders", RAW), b.locks.token("orders", RAW)) == (None, revision)
        for node in (a, b):
            node.watch.go_on()
        await world.same()
        for node in (a, b):
            assert {name: node.holds(name) for name in NAMES} == dict.fromkeys(NAMES, (P, revision, b.lease))
            assert (node.revoked, node.lost) == ([], [])
            holder = node.locks.holder("orders")
            assert holder is not None
            assert (holder.token, holder.lease) == (revision, b.lease)
        assert not await world.is_free(world.keys.name("counter"))
        assert not await world.is_free(world.keys.lock("bills"))

    async def test_a_look_up_on_the_target_never_goes_back(self, world: World) -> None:
        b = world.b
        told: list[tuple[str, str | None, int]] = []
        b.names.on_change(lambda *change: told.append(change))
        b.watch.kept = []
        await world.a.names.register("counter", P, Scope.CONSISTENT, world.a.lease)
        revision = await world.move(world.a, b)
        await eventually(lambda: sum(len(answer.events) for answer in b.watch.kept or ()) >= 4)
        b.watch.go_on()
        await world.same()
        assert told == [("counter", P, revision)]
        assert b.revoked == []

    @pytest.mark.parametrize("behind", [True, False])
    async def test_on_the_target_it_gives_back_what_it_brought(self, world: World, behind: bool) -> None:
        await settle(world)
        b = world.b
        if behind:
            b.watch.kept = []
        await world.move(world.a, b)
        assert b.names.lookup("counter") is not None
        going = [
            asyncio.ensure_future(b.names.unregister("counter", P, Scope.CONSISTENT)),
            asyncio.ensure_future(b.names.unregister("soon", P, Scope.EVENTUAL)),
            asyncio.ensure_future(b.locks.release("orders", RAW)),
        ]
        await free(world, world.keys.name("counter"))
        b.watch.go_on()
        assert await asyncio.gather(*going) == [True, True, True]
        await world.same()
        assert await world.is_free(world.keys.lock("orders"))
        assert await world.is_free(world.keys.name("soon"))
        assert (world.a.revoked, b.revoked, world.a.lost, b.lost) == ([], [], [], [])

    async def test_its_end_there_frees_the_rest_and_its_former_node_is_told_nothing(self, world: World) -> None:
        await settle(world)
        await world.move(world.a, world.b)
        await world.b.names.release(P)
        world.b.locks.process_ended(RAW)
        for key in (*map(world.keys.name, NAMES), world.keys.lock("orders"), world.keys.lock("bills")):
            await free(world, key)
        await world.same()
        assert (world.a.revoked, world.a.lost, world.a.names.all(), world.b.names.all()) == ([], [], [], [])

    async def test_it_registers_and_acquires_there(self, world: World) -> None:
        await settle(world)
        await world.move(world.a, world.b)
        again = await world.b.names.register("counter", P, Scope.CONSISTENT, world.b.lease)
        assert world.b.holds("counter") == (P, again.revision, world.b.lease)
        await world.b.names.register("more", P, Scope.CONSISTENT, world.b.lease)
        await world.b.locks.acquire("more", RAW, world.b.lease)
        assert len(world.b.pack()) == 7

    async def test_coming_home_is_another_move(self, world: World) -> None:
        await settle(world)
        await world.move(world.a, world.b)
        revision = await world.move(world.b, world.a)
        await world.same()
        for node in (world.a, world.b):
            assert {name: node.holds(name) for name in NAMES} == dict.fromkeys(NAMES, (P, revision, world.a.lease))
        assert (world.a.names.stats().own, world.b.names.stats().own) == (3, 0)
        assert (world.a.locks.token("orders", RAW), world.b.locks.token("orders", RAW)) == (revision, None)
        await world.a.names.release(P)
        world.a.locks.process_ended(RAW)
        await free(world, world.keys.name("counter"))
        await free(world, world.keys.lock("orders"))
        assert (world.a.revoked, world.b.revoked, world.a.lost, world.b.lost) == ([], [], [], [])

    async def test_an_eventual_name_is_wished_for_where_the_process_is(self, world: World) -> None:
        await settle(world)
        await world.move(world.a, world.b)
        await world.drop(world.keys.name("soon"))
        await eventually(lambda: (world.b.holds("soon") or (P, 0, 0))[2] == world.b.lease)
        assert world.b.revoked == []
        await eventually(lambda: world.a.holds("soon") == world.b.holds("soon"))

    async def test_the_lease_of_its_node_is_the_one_that_counts(self, world: World) -> None:
        await settle(world)
        await world.move(world.a, world.b)
        await world.same()
        for node in (world.a, world.b):
            node.names.lease_lost(world.a.lease)
            node.locks.lease_lost(world.a.lease)
            assert (node.revoked, node.lost, node.names.stats().cluster) == ([], [], 3)
        world.b.names.lease_lost(world.b.lease)
        world.b.locks.lease_lost(world.b.lease)
        assert sorted(world.b.revoked) == [("counter", P), ("room", P)]
        assert sorted(lock.name for lock in world.b.lost) == ["bills", "orders"]

    async def test_whoever_takes_its_end_for_real_frees_nothing(self, world: World) -> None:
        await settle(world)
        holdings = world.a.pack()
        await world.a.names.release(P)
        world.b.expect(holdings)
        revision = await world.commit(holdings, world.a, world.b)
        await world.same()
        await world.b.names.release(P)
        world.b.arrived(holdings, revision)
        world.a.left()
        await world.a.names.release(P)
        world.a.locks.process_ended(RAW)
        assert {name: world.b.holds(name) for name in NAMES} == dict.fromkeys(NAMES, (P, revision, world.b.lease))
        assert not await world.is_free(world.keys.name("counter"))
        assert not await world.is_free(world.keys.lock("orders"))

    async def test_holders_are_guarded_where_they_are(self, world: World) -> None:
        await settle(world)
        a, b = world.a, world.b
        holdings = a.pack()
        assert (list(a.holders.guarded), a.holders.owns()) == ([], False)
        a.holders.kill_owned()
        b.expect(holdings)
        revision = await world.commit(holdings, a, b)
        b.arrived(holdings, revision)
        a.left()
        a.may_run = False
        assert a.holders.may_act(RAW)
        assert (a.sent, list(a.holders.guarded), list(b.holders.guarded)) == ([], [], [RAW])
        assert b.holders.may_act(RAW)
        assert b.holders.fences_of(RAW) == [(world.keys.lock(name), revision) for name in ("orders", "bills")]
        b.may_run = False
        assert not b.holders.may_act(RAW)
        assert b.sent == [[int(Kind.TERMINATE), RAW, b"", 0]]


class TestFrozen:
    async def test_it_gets_nothing_new_and_gives_nothing_back(self, world: World) -> None:
        await settle(world)
        a = world.a
        a.pack()
        for deed in (
            a.names.register("more", P, Scope.CONSISTENT, a.lease),
            a.names.register("more", P, Scope.LOCAL),
            a.names.register("more", P, Scope.EVENTUAL),
            a.names.unregister("counter", P, Scope.CONSISTENT),
            a.locks.acquire("more", RAW, a.lease),
            a.locks.release("orders", RAW),
        ):
            with pytest.raises(Unavailable, match="is moving to another node"):
                await deed
        a.stays()
        await a.names.register("more", P, Scope.CONSISTENT, a.lease)
        await a.locks.acquire("more", RAW, a.lease)
        assert await a.names.unregister("counter", P, Scope.CONSISTENT)
        assert await a.locks.release("orders", RAW)
        assert (a.revoked, a.lost) == ([], [])

    async def test_whoever_asks_for_what_it_holds_is_refused_and_nothing_is_freed(self, world: World) -> None:
        await settle(world)
        a = world.a
        a.pack()
        with pytest.raises(LockTaken):
            await a.locks.acquire("orders", Q.encode(), a.lease)
        with pytest.raises(NameTaken):
            await a.names.register("counter", Q, Scope.CONSISTENT, a.lease)
        a.stays()
        await world.same()
        assert not await world.is_free(world.keys.lock("orders"))
        assert not await world.is_free(world.keys.name("counter"))
        assert (a.revoked, a.lost) == ([], [])

    @pytest.mark.parametrize("stays", [True, False])
    async def test_what_is_lost_meanwhile_is_told_when_it_stays(self, world: World, stays: bool) -> None:
        await settle(world)
        a = world.a
        a.pack()
        for key in (world.keys.name("counter"), world.keys.lock("orders")):
            await world.drop(key)
        await world.same()
        assert (a.revoked, a.lost) == ([], [])
        if stays:
            a.stays()
            assert (a.revoked, [lock.name for lock in a.lost]) == ([("counter", P)], ["orders"])
            assert a.locks.token("bills", RAW) is not None
        else:
            a.left()
            assert (a.revoked, a.lost) == ([], [])

    async def test_a_lease_that_is_lost_meanwhile_ends_it_when_it_stays(self, world: World) -> None:
        await settle(world)
        a = world.a
        a.pack()
        a.names.lease_lost(a.lease)
        a.locks.lease_lost(a.lease)
        assert (a.revoked, a.lost, a.locks.owns()) == ([], [], False)
        a.stays()
        assert sorted(a.revoked) == [("counter", P), ("room", P)]
        assert sorted(lock.name for lock in a.lost) == ["bills", "orders"]

    async def test_an_eventual_name_is_not_pursued_until_it_is_known_who_wants_it(self, world: World) -> None:
        await settle(world)
        a = world.a
        a.pack()
        await world.drop(world.keys.name("soon"))
        await world.same()
        assert a.holds("soon") == (P, 0, 0)
        assert await world.is_free(world.keys.name("soon"))
        a.stays()
        await eventually(lambda: (a.holds("soon") or (P, 0, 0))[2] == a.lease)

    @pytest.mark.parametrize("stays", [True, False])
    async def test_when_its_vm_ends_meanwhile_all_is_freed_that_did_not_leave(self, world: World, stays: bool) -> None:
        await settle(world)
        a, b = world.a, world.b
        holdings = a.pack()
        await a.names.release(P)
        a.locks.process_ended(RAW)
        if stays:
            a.stays()
            for held in holdings:
                await free(world, held.key)
            await world.same()
            assert a.names.all() == []
        else:
            b.expect(holdings)
            b.arrived(holdings, await world.commit(holdings, a, b))
            a.left()
            await world.move(b, a)
            a.pack()
            a.stays()
            assert [await world.is_free(held.key) for held in holdings] == [False] * 5
        assert (a.revoked, a.lost, b.revoked, b.lost) == ([], [], [], [])

    async def test_local_names_end_when_it_is_gone(self, world: World) -> None:
        await settle(world)
        await world.a.names.register("here", P, Scope.LOCAL)
        await world.a.names.register("counter", P, Scope.LOCAL)
        assert len(world.a.pack()) == 5
        world.a.stays()
        assert world.a.names.lookup("here") is not None
        await world.move(world.a, world.b)
        assert world.a.names.lookup("here") is None
        assert world.a.names.stats().local == 0


class TestCanNotMove:
    async def test_while_a_name_is_registered(self, world: World) -> None:
        world.etcd.lost = [False] * 3
        registering = asyncio.ensure_future(world.a.names.register("counter", P, Scope.CONSISTENT, world.a.lease))
        await eventually(lambda: len(world.etcd.lost or ()) < 3)
        with pytest.raises(CannotMove, match="being registered"):
            world.a.names.pack(P)
        await registering
        assert len(world.a.names.pack(P)) == 1

    async def test_while_the_own_copy_does_not_show_its_name(self, world: World) -> None:
        world.a.watch.kept = []
        with pytest.raises(CallTimeout):
            await world.a.names.register("counter", P, Scope.CONSISTENT, world.a.lease, timeout=0.2)
        with pytest.raises(CannotMove, match="being registered"):
            world.a.names.pack(P)
        assert world.a.names.pack(Q) == []
        world.a.watch.go_on()
        assert len(world.a.names.pack(P)) == 1

    async def test_while_an_eventual_name_is_not_in_etcd(self, world: World) -> None:
        world.etcd.away = True
        await world.a.names.register("soon", P, Scope.EVENTUAL)
        with pytest.raises(CannotMove, match="'soon' is not in the cluster yet"):
            world.a.names.pack(P)
        world.etcd.away = False
        await eventually(lambda: (world.a.holds("soon") or (P, 0, 0))[2] == world.a.lease)
        assert len(world.a.names.pack(P)) == 1

    async def test_while_a_name_is_given_back(self, world: World) -> None:
        await settle(world)
        world.etcd.lost = [False] * 2
        leaving = asyncio.ensure_future(world.a.names.unregister("counter", P, Scope.CONSISTENT))
        await eventually(lambda: len(world.etcd.lost or ()) < 2)
        with pytest.raises(CannotMove, match="'counter' is being given back"):
            world.a.names.pack(P)
        assert await leaving
        assert len(world.a.names.pack(P)) == 2

    async def test_with_a_name_under_a_former_lease(self, world: World, etcd: Etcd) -> None:
        await settle(world)
        world.a.lease = (await etcd.grant(60)).id
        with pytest.raises(CannotMove, match="former lease"):
            world.a.names.pack(P)

    async def test_while_a_lock_is_acquired(self, world: World) -> None:
        world.etcd.lost = [False] * 3
        acquiring = asyncio.ensure_future(world.a.locks.acquire("orders", RAW, world.a.lease))
        await eventually(lambda: len(world.etcd.lost or ()) < 3)
        with pytest.raises(CannotMove, match="acquiring a lock"):
            world.a.locks.pack(P)
        await acquiring
        assert len(world.a.locks.pack(P)) == 1

    async def test_with_a_lock_it_has_lost(self, world: World) -> None:
        await settle(world)
        await world.drop(world.keys.lock("orders"))
        await eventually(lambda: world.a.lost != [])
        for ask in (world.a.locks.check, world.a.locks.pack):
            with pytest.raises(CannotMove, match="lost lock 'orders'"):
                ask(P)
        assert [lock.name for lock in world.a.locks.of(RAW)] == ["orders", "bills"]

    async def test_to_a_node_that_holds_all_it_may(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        await settle(world)
        keys = [held.key for held in world.a.pack()]
        assert [part.refusal(P, keys) for part in world.b.parts] == ["", ""]
        monkeypatch.setattr("cluster.names.MAX_OWN", 2)
        monkeypatch.setattr("cluster.locks.MAX_OWN", 1)
        full = [part.refusal(P, keys) for part in world.b.parts]
        assert [("limit" in reason) for reason in full] == [True, True]
        assert [part.refusal(P, []) for part in world.b.parts] == ["", ""]


class TestNotArrived:
    async def test_a_name_that_is_expected_is_left_alone_and_freed_when_nobody_comes(self, world: World) -> None:
        """No commit is applied once it is lost; but a name nobody wants must not stay in anybody's way either."""
        await settle(world)
        holdings = world.a.pack()
        world.b.expect(holdings)
        await world.commit(holdings, world.a, world.b)
        await world.same()
        assert [await world.is_free(held.key) for held in holdings] == [False] * 5
        assert world.b.names.stats().own == 3
        world.b.lost_it(holdings)
        for name in NAMES:
            await free(world, world.keys.name(name))
        assert (world.b.revoked, world.b.lost) == ([], [])

    async def test_when_it_was_not_moved_nothing_has_happened(self, world: World) -> None:
        await settle(world)
        holdings = world.a.pack()
        world.b.expect(holdings)
        world.b.lost_it(holdings)
        world.a.stays()
        await world.same()
        assert world.a.names.stats().own == 3
        assert [lock.name for lock in world.a.locks.of(RAW)] == ["orders", "bills"]
        assert [await world.is_free(held.key) for held in holdings] == [False] * 5
        await world.move(world.a, world.b)
        assert world.b.names.stats().own == 3

    @pytest.mark.parametrize("behind", [True, False])
    async def test_what_was_lost_before_it_could_run_is_told_when_it_runs(self, world: World, behind: bool) -> None:
        await settle(world)
        b = world.b
        holdings = world.a.pack()
        b.expect(holdings)
        if behind:
            b.watch.kept = []
        revision = await world.commit(holdings, world.a, b)
        for key in (world.keys.name("counter"), world.keys.name("soon"), world.keys.lock("orders")):
            await world.drop(key)
        if not behind:
            await world.same()
        assert (b.revoked, b.lost) == ([], [])
        b.arrived(holdings, revision)
        b.watch.go_on()
        await world.same()
        assert (b.revoked, [lock.name for lock in b.lost]) == ([("counter", P)], ["orders"])
        await eventually(lambda: (b.holds("soon") or (P, 0, 0))[2] == b.lease)


class TestHistoryLost:
    """The watch reads everything anew, and what happened in between is not told."""

    async def test_a_name_that_went_along_and_was_given_back_was_never_revoked(self, world: World) -> None:
        await settle(world)
        world.a.watch.kept = []
        await world.move(world.a, world.b)
        await world.b.names.release(P)
        world.b.locks.process_ended(RAW)
        await free(world, world.keys.lock("orders"))
        await world.a.watch.read_anew()
        assert (world.a.revoked, world.a.lost, world.a.names.all()) == ([], [], [])

    async def test_a_name_that_came_and_is_gone_was_revoked(self, world: World) -> None:
        world.b.watch.kept = []
        await world.a.names.register("counter", P, Scope.CONSISTENT, world.a.lease)
        await world.move(world.a, world.b)
        await world.drop(world.keys.name("counter"))
        assert world.b.names.lookup("counter") is not None
        await world.b.watch.read_anew()
        assert world.b.names.lookup("counter") is None
        assert world.b.revoked == [("counter", P)]
