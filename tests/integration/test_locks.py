"""Locks on a real etcd: two nodes, one holder, and nothing left over by whoever ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from cluster import owned
from cluster.errors import LockTaken, OutcomeUnknown, Unavailable
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.locks import MAX_PER_PROCESS, Lock, Locks
from cluster.tasks import Tasks
from tests.forgetful import Forgetful
from tests.waiting import eventually

pytestmark = pytest.mark.servers

A1, A2, B1 = b"{a@app:h|1-1}", b"{a@app:h|1-2}", b"{b@app:h|2-1}"


@dataclass
class Node:
    """The locks of one node, and which of them it lost."""

    locks: Locks
    lease: int
    lost: list[str] = field(default_factory=list)

    async def acquire(self, name: str, pid: bytes) -> Lock:
        return await self.locks.acquire(name, pid, self.lease)


@dataclass
class Two:
    etcd: Forgetful
    keys: Keys
    a: Node
    b: Node

    async def is_free(self, name: str) -> bool:
        return await self.etcd.get(self.keys.lock(name)) is None


@pytest_asyncio.fixture
async def two(etcd: Etcd, servers, cluster_name: str) -> AsyncIterator[Two]:  # type: ignore[no-untyped-def]
    keys = Keys(cluster_name)
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(Tasks("test"))
        forgetful = await stack.enter_async_context(Forgetful([servers.etcd_url]))
        nodes = []
        for _ in range(2):
            watch = PrefixWatch(forgetful, keys.prefix)
            node = Node(Locks(forgetful, watch, keys, tasks), (await etcd.grant(60)).id)
            node.locks.on_lost(lambda lock, n=node: n.lost.append(lock.name))
            await stack.enter_async_context(watch)
            nodes.append(node)
        yield Two(forgetful, keys, *nodes)


async def free(two: Two, name: str) -> None:
    """Wait until nobody holds the lock."""
    async with asyncio.timeout(10):
        while not await two.is_free(name):
            await asyncio.sleep(0.01)


class TestAcquire:
    async def test_every_node_sees_the_holder_and_the_token(self, two: Two) -> None:
        lock = await two.a.acquire("orders", A1)
        await eventually(lambda: two.a.locks.all() == two.b.locks.all() == [lock])
        kv = await two.etcd.get(two.keys.lock("orders"))
        assert kv is not None
        assert (kv.mod_revision, kv.lease) == (lock.token, two.a.lease)
        assert two.a.locks.token("orders", A1) == lock.token
        assert two.a.locks.token("orders", A2) is None

    @pytest.mark.parametrize("other", [A1, A2, B1])
    async def test_a_held_lock_is_refused_at_once_also_to_the_holder_itself(self, two: Two, other: bytes) -> None:
        await two.a.acquire("orders", A1)
        node = two.b if other == B1 else two.a
        with pytest.raises(LockTaken) as refused:
            await node.acquire("orders", other)
        assert refused.value.by == A1.decode()

    async def test_of_two_hundred_races_each_has_one_winner(self, two: Two) -> None:
        pids = [f"{{{node}@app:h|1-{n}}}".encode() for node in "ab" for n in range(4)]
        order = random.Random(7)
        for number in range(200):
            order.shuffle(pids)
            tries = [(two.a if pid.startswith(b"{a@") else two.b).acquire(f"race{number}", pid) for pid in pids]
            results = await asyncio.gather(*tries, return_exceptions=True)
            winners = [result for result in results if isinstance(result, Lock)]
            assert len(winners) == 1
            assert {r.by for r in results if isinstance(r, LockTaken)} == {winners[0].pid}
            if number % 2:
                winner = winners[0].pid.encode()
                (two.a if winner.startswith(b"{a@") else two.b).locks.process_ended(winner)
        assert not two.a.lost
        assert not two.b.lost

    @pytest.mark.parametrize("applied", [True, False])
    async def test_a_lost_answer_is_asked_for_again(self, two: Two, applied: bool) -> None:
        two.etcd.lost = [applied]
        lock = await two.a.acquire("orders", A1)
        await eventually(lambda: two.b.locks.holder("orders") == lock)

    async def test_a_key_of_another_process_of_the_node_is_not_taken_for_the_own(self, two: Two) -> None:
        await two.a.acquire("orders", A1)
        two.etcd.lost = [True]
        with pytest.raises(LockTaken):
            await two.a.acquire("orders", A2)

    async def test_what_etcd_did_not_say_is_given_back_when_it_turns_up(
        self, two: Two, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(owned, "WITHIN", 0.05)
        two.etcd.lost = [True] * 5
        with pytest.raises(OutcomeUnknown):
            await two.a.acquire("orders", A1)
        two.etcd.lost = None
        await free(two, "orders")
        assert await two.b.acquire("orders", B1)

    @pytest.mark.parametrize("name", ["", "x" * 256])
    async def test_a_text_that_is_no_name_is_refused(self, two: Two, name: str) -> None:
        with pytest.raises(ValueError, match="expected the name of a lock"):
            await two.a.acquire(name, A1)

    async def test_a_process_holds_only_so_many(self, two: Two) -> None:
        await asyncio.gather(*(two.a.acquire(f"l{n}", A1) for n in range(MAX_PER_PROCESS)))
        with pytest.raises(Unavailable, match="its limit"):
            await two.a.acquire("one more", A1)
        await two.a.acquire("one more", A2)


class TestRelease:
    async def test_only_the_holder_can_and_only_once(self, two: Two) -> None:
        first = await two.a.acquire("orders", A1)
        assert await two.b.locks.release("orders", B1) is False
        assert await two.a.locks.release("orders", A2) is False
        assert await two.a.locks.release("orders", A1) is True
        assert await two.a.locks.release("orders", A1) is False
        second = await two.b.acquire("orders", B1)
        assert second.token > first.token
        await eventually(lambda: two.a.locks.all() == [second])
        assert two.a.lost == []

    async def test_whoever_is_told_of_a_release_can_acquire_at_once(self, two: Two) -> None:
        """The own copy of the other node may still show the former holder: it is not asked."""
        for _ in range(30):
            await two.a.acquire("baton", A1)
            await two.a.locks.release("baton", A1)
            await two.b.acquire("baton", B1)
            await two.b.locks.release("baton", B1)

    @pytest.mark.parametrize("applied", [True, False])
    async def test_a_lost_answer_is_asked_for_again(self, two: Two, applied: bool) -> None:
        await two.a.acquire("orders", A1)
        two.etcd.lost = [applied]
        assert await two.a.locks.release("orders", A1) is True
        assert await two.is_free("orders")

    async def test_what_etcd_does_not_take_is_given_back_behind_the_scenes(
        self, two: Two, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await two.a.acquire("orders", A1)
        monkeypatch.setattr(owned, "WITHIN", 0.05)
        two.etcd.lost = [False] * 3
        with pytest.raises(OutcomeUnknown):
            await two.a.locks.release("orders", A1)
        assert two.a.locks.token("orders", A1) is None
        two.etcd.lost = None
        await free(two, "orders")


class TestEnd:
    async def test_an_ended_process_holds_nothing(self, two: Two) -> None:
        await two.a.acquire("one", A1)
        await two.a.acquire("two", A1)
        kept = await two.a.acquire("other", A2)
        two.a.locks.process_ended(A1)
        await free(two, "one")
        await free(two, "two")
        await eventually(lambda: two.b.locks.all() == [kept])
        assert two.a.lost == []

    async def test_a_process_that_ends_while_it_acquires_keeps_nothing(self, two: Two) -> None:
        for number in range(20):
            name = f"l{number}"
            acquiring = asyncio.ensure_future(two.a.acquire(name, A1))
            await asyncio.sleep(number / 10_000)
            two.a.locks.process_ended(A1)
            if number % 2:
                acquiring.cancel()
            await asyncio.gather(acquiring, return_exceptions=True)
            two.a.locks.process_ended(A1)
            await free(two, name)
        assert not two.a.locks.owns()

    async def test_an_acquisition_whose_process_is_gone_when_the_answer_comes_is_refused(self, two: Two) -> None:
        acquiring = asyncio.ensure_future(two.a.acquire("orders", A1))
        await asyncio.sleep(0)
        two.a.locks.process_ended(A1)
        with pytest.raises(Unavailable, match="ended while it acquired"):
            await acquiring
        assert not two.a.locks.owns()
        await free(two, "orders")

    async def test_the_end_of_the_lease_is_told_to_the_holders_node_alone(self, two: Two, etcd: Etcd) -> None:
        await two.a.acquire("orders", A1)
        await two.b.acquire("other", B1)
        await etcd.revoke(two.a.lease)
        await eventually(lambda: two.a.lost == ["orders"])
        assert two.a.locks.of(A1), "it stays fenced by the token it had"
        assert two.b.lost == []
        assert await two.b.acquire("orders", B1)

    async def test_a_lock_taken_away_by_hand_is_lost(self, two: Two) -> None:
        await two.a.acquire("orders", A1)
        await two.etcd.delete(two.keys.lock("orders"))
        await eventually(lambda: two.a.lost == ["orders"])

    async def test_a_lease_known_to_be_over_loses_its_locks_before_etcd_says_so(self, two: Two) -> None:
        await two.a.acquire("orders", A1)
        two.a.locks.lease_lost(two.a.lease)
        assert two.a.lost == ["orders"]
        assert two.a.locks.owns(), "until its process has ended"
        two.a.locks.process_ended(A1)
        assert not two.a.locks.owns()
