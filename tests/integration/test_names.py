"""Names on a real etcd: two nodes, one truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from cluster.errors import CallTimeout, NameTaken, Unavailable
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.names import Names, NamesStats, Registered, Scope
from cluster.tasks import Tasks
from tests.forgetful import Forgetful
from tests.waiting import eventually

pytestmark = pytest.mark.servers

A1, A2, B1 = "{a@app:h|1-1}", "{a@app:h|1-2}", "{b@app:h|2-1}"


@dataclass
class Node:
    """The names of one node, and what it was told."""

    lease: int
    names: Names = field(init=False)
    changes: list[tuple[str, str | None]] = field(default_factory=list)
    revoked: list[tuple[str, str]] = field(default_factory=list)

    async def register(self, name: str, pid: str, scope: Scope = Scope.CONSISTENT) -> Registered:
        return await self.names.register(name, pid, scope, self.lease)


@dataclass
class Seen:
    """Whether every node shows a revision in time; what was asked."""

    asked: list[int] = field(default_factory=list)
    in_time: bool = True

    async def __call__(self, revision: int, seconds: float) -> None:
        self.asked.append(revision)
        if not self.in_time:
            raise CallTimeout("waiting for n3", seconds)


@dataclass
class Two:
    etcd: Forgetful
    keys: Keys
    everywhere: Seen
    a: Node
    b: Node


@pytest_asyncio.fixture
async def two(etcd: Etcd, servers, cluster_name: str) -> AsyncIterator[Two]:  # type: ignore[no-untyped-def]
    keys = Keys(cluster_name)
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(Tasks("names"))
        everywhere = Seen()
        forgetful = await stack.enter_async_context(Forgetful([servers.etcd_url]))
        nodes = []
        for _ in range(2):
            watch = PrefixWatch(forgetful, keys.prefix)
            lease = (await etcd.grant(60)).id
            node = Node(lease)
            node.names = Names(forgetful, watch, keys, tasks, lambda n=node: n.lease, everywhere)
            node.names.on_change(lambda name, pid, revision, n=node: n.changes.append((name, pid)))
            node.names.on_revoked(lambda name, pid, n=node: n.revoked.append((name, pid)))
            await stack.enter_async_context(watch)
            nodes.append(node)
        yield Two(forgetful, keys, everywhere, *nodes)


def pid_of(registered: Registered | None) -> str | None:
    return registered.pid if registered else None


class TestRegister:
    async def test_the_own_look_up_shows_it_at_once_and_the_others_soon(self, two: Two) -> None:
        registered = await two.a.register("counter", A1)
        assert two.a.names.lookup("counter") == registered
        await eventually(lambda: two.b.names.lookup("counter") == registered)
        kv = await two.etcd.get(two.keys.name("counter"))
        assert kv is not None
        assert (kv.value.decode(), kv.mod_revision, kv.lease) == (A1, registered.revision, two.a.lease)

    async def test_of_twenty_racers_one_wins_and_the_rest_learn_who(self, two: Two) -> None:
        pids = [f"{{a@app:h|1-{n}}}" for n in range(10)] + [f"{{b@app:h|2-{n}}}" for n in range(10)]
        tries = [(two.a if "{a@" in pid else two.b).register("leader", pid) for pid in pids]
        results = await asyncio.gather(*tries, return_exceptions=True)
        winners = [result for result in results if isinstance(result, Registered)]
        assert len(winners) == 1
        losers = [result for result in results if isinstance(result, NameTaken)]
        assert {loser.by for loser in losers} == {winners[0].pid}
        assert len(losers) == 19

    async def test_the_same_process_again_is_no_change(self, two: Two) -> None:
        first = await two.a.register("counter", A1)
        assert await two.a.register("counter", A1) == first
        assert two.a.changes == [("counter", A1)]

    @pytest.mark.parametrize("applied", [True, False])
    async def test_a_lost_answer_is_asked_for_again(self, two: Two, applied: bool) -> None:
        two.etcd.lost = [applied]
        registered = await two.a.register("counter", A1)
        assert two.a.names.lookup("counter") == registered

    async def test_a_name_held_under_the_former_lease_is_unavailable(self, two: Two, etcd: Etcd) -> None:
        await two.a.register("counter", A1)
        two.a.lease = (await etcd.grant(60)).id
        with pytest.raises(Unavailable, match="former lease"):
            await two.a.register("counter", A1)

    @pytest.mark.parametrize("name", ["", "{a@b|1-1}", "x" * 256])
    async def test_a_text_that_is_no_name_is_refused(self, two: Two, name: str) -> None:
        with pytest.raises(ValueError, match="expected a name"):
            await two.a.register(name, A1)


class TestUnregister:
    async def test_only_the_owner_can(self, two: Two) -> None:
        await two.a.register("counter", A1)
        await eventually(lambda: two.b.names.lookup("counter") is not None)
        assert await two.b.names.unregister("counter", B1, Scope.CONSISTENT) is False
        assert await two.a.names.unregister("counter", A1, Scope.CONSISTENT) is True
        assert two.a.names.lookup("counter") is None
        assert await two.a.names.unregister("counter", A1, Scope.CONSISTENT) is False
        assert two.a.revoked == []

    @pytest.mark.parametrize("applied", [True, False])
    async def test_a_lost_answer_is_asked_for_again(self, two: Two, applied: bool) -> None:
        await two.a.register("counter", A1)
        two.etcd.lost = [applied]
        assert await two.a.names.unregister("counter", A1, Scope.CONSISTENT) is True
        assert await two.etcd.get(two.keys.name("counter")) is None

    async def test_the_name_can_go_to_another_and_its_revision_grows(self, two: Two) -> None:
        first = await two.a.register("counter", A1)
        await two.a.names.unregister("counter", A1, Scope.CONSISTENT)
        await eventually(lambda: two.b.changes == [("counter", A1), ("counter", None)])
        second = await two.b.register("counter", B1)
        assert second.revision > first.revision


class TestRelease:
    async def test_an_ended_process_loses_all_its_names(self, two: Two) -> None:
        await two.a.register("one", A1)
        await two.a.register("two", A1)
        await two.a.register("other", A2)
        await two.a.names.register("here", A1, Scope.LOCAL)
        await two.a.names.release(A1)
        assert two.a.names.names_of(A1) == []
        assert [pid_of(two.a.names.lookup(name)) for name in ("one", "two", "here", "other")] == [None, None, None, A2]
        await eventually(lambda: two.b.names.stats() == NamesStats(local=0, cluster=1, own=0))
        assert two.a.revoked == []

    async def test_a_process_that_ends_while_it_registers_keeps_nothing(self, two: Two) -> None:
        results = await asyncio.gather(two.a.register("counter", A1), two.a.names.release(A1), return_exceptions=True)
        assert isinstance(results[0], Unavailable)
        assert await two.etcd.get(two.keys.name("counter")) is None
        assert await two.a.register("counter", A2)


class TestRevoked:
    async def test_the_end_of_the_lease_is_told_to_the_owner_alone(self, two: Two, etcd: Etcd) -> None:
        await two.a.register("counter", A1)
        await two.b.register("other", B1)
        await etcd.revoke(two.a.lease)
        await eventually(lambda: bool(two.a.revoked))
        await eventually(lambda: two.b.names.lookup("counter") is None)
        assert two.a.revoked == [("counter", A1)]
        assert two.b.revoked == []

    async def test_a_lease_known_to_be_over_frees_its_names_before_etcd_does(self, two: Two) -> None:
        await two.a.register("counter", A1)
        two.a.names.lease_lost(two.a.lease)
        assert two.a.names.lookup("counter") is None
        assert two.a.revoked == [("counter", A1)]


class TestLocal:
    async def test_a_local_name_is_this_nodes_only(self, two: Two) -> None:
        await two.a.names.register("here", A1, Scope.LOCAL)
        assert two.a.names.lookup("here") == Registered(A1, 0, Scope.LOCAL)
        with pytest.raises(NameTaken):
            await two.a.names.register("here", A2, Scope.LOCAL)
        await two.b.names.register("here", B1, Scope.LOCAL)
        assert pid_of(two.b.names.lookup("here")) == B1

    async def test_a_cluster_name_hides_a_local_one_until_it_goes(self, two: Two) -> None:
        await two.a.names.register("x", A1, Scope.LOCAL)
        await two.b.register("x", B1)
        await eventually(lambda: pid_of(two.a.names.lookup("x")) == B1)
        await two.b.names.unregister("x", B1, Scope.CONSISTENT)
        await eventually(lambda: pid_of(two.a.names.lookup("x")) == A1)
        assert two.a.changes == [("x", A1), ("x", B1), ("x", A1)]


class TestStrong:
    async def test_it_returns_when_every_node_shows_it(self, two: Two) -> None:
        registered = await two.a.register("one", A1, Scope.STRONG)
        assert two.everywhere.asked == [registered.revision]
        await eventually(lambda: two.b.names.lookup("one") == registered)
        assert registered.scope is Scope.STRONG
        with pytest.raises(NameTaken):
            await two.b.register("one", B1, Scope.STRONG)

    async def test_one_not_seen_in_time_is_given_back(self, two: Two) -> None:
        two.everywhere.in_time = False
        with pytest.raises(CallTimeout):
            await two.a.register("one", A1, Scope.STRONG)
        await eventually(lambda: two.a.names.lookup("one") is None)
        assert two.a.revoked == []

    async def test_one_the_process_had_already_stays(self, two: Two) -> None:
        await two.a.register("one", A1, Scope.STRONG)
        two.everywhere.in_time = False
        with pytest.raises(CallTimeout):
            await two.a.register("one", A1, Scope.STRONG)
        assert pid_of(two.a.names.lookup("one")) == A1

    async def test_the_scope_must_match_to_give_it_back(self, two: Two) -> None:
        await two.a.register("one", A1, Scope.STRONG)
        for scope in (Scope.LOCAL, Scope.EVENTUAL, Scope.CONSISTENT):
            assert await two.a.names.unregister("one", A1, scope) is False
        assert await two.a.names.unregister("one", A1, Scope.STRONG) is True


class TestEventual:
    async def test_it_is_there_at_once_here_and_soon_elsewhere(self, two: Two) -> None:
        await two.a.register("chat", A1, Scope.EVENTUAL)
        assert two.a.changes == [("chat", A1)]
        await eventually(lambda: pid_of(two.b.names.lookup("chat")) == A1)
        held = two.b.names.lookup("chat")
        assert held is not None
        assert (held.scope, held.lease) == (Scope.EVENTUAL, two.a.lease)

    async def test_it_works_while_etcd_is_away_and_gets_there_afterwards(self, two: Two) -> None:
        two.etcd.away = True
        await two.a.register("chat", A1, Scope.EVENTUAL)
        assert two.a.names.lookup("chat") == Registered(A1, 0, Scope.EVENTUAL)
        assert ("chat", Registered(A1, 0, Scope.EVENTUAL)) in two.a.names.all()
        two.etcd.away = False
        await eventually(lambda: pid_of(two.b.names.lookup("chat")) == A1)

    async def test_of_two_that_register_at_once_one_loses_it_and_is_told(self, two: Two) -> None:
        two.etcd.away = True
        await two.a.register("chat", A1, Scope.EVENTUAL)
        await two.b.register("chat", B1, Scope.EVENTUAL)
        two.etcd.away = False
        await eventually(lambda: bool(two.a.revoked or two.b.revoked))
        winner = B1 if two.a.revoked else A1
        await eventually(lambda: pid_of(two.a.names.lookup("chat")) == pid_of(two.b.names.lookup("chat")) == winner)
        assert two.a.revoked + two.b.revoked == [("chat", A1 if winner == B1 else B1)]

    async def test_a_consistent_registration_takes_it_from_one_that_is_not_in_etcd_yet(
        self, two: Two, etcd: Etcd
    ) -> None:
        two.etcd.away = True
        await two.a.register("chat", A1, Scope.EVENTUAL)
        await etcd.put(two.keys.name("chat"), B1.encode(), two.b.lease)
        await eventually(lambda: two.a.revoked == [("chat", A1)])
        assert pid_of(two.a.names.lookup("chat")) == B1

    async def test_a_held_one_is_refused(self, two: Two) -> None:
        await two.a.register("chat", A1, Scope.EVENTUAL)
        with pytest.raises(NameTaken):
            await two.a.register("chat", A2, Scope.EVENTUAL)
        await eventually(lambda: two.b.names.lookup("chat") is not None)
        with pytest.raises(NameTaken):
            await two.b.register("chat", B1, Scope.EVENTUAL)

    async def test_it_outlives_the_lease_of_its_node(self, two: Two, etcd: Etcd) -> None:
        await two.a.register("chat", A1, Scope.EVENTUAL)
        await eventually(lambda: two.b.names.lookup("chat") is not None)
        lost = two.a.lease
        two.a.lease = (await etcd.grant(60)).id
        await etcd.revoke(lost)
        two.a.names.lease_lost(lost)
        assert pid_of(two.a.names.lookup("chat")) == A1

        def again() -> bool:
            held = two.b.names.lookup("chat")
            return held is not None and held.lease == two.a.lease

        await eventually(again)
        assert two.a.revoked == []

    async def test_given_back_it_can_be_taken_by_the_next(self, two: Two) -> None:
        await two.a.register("chat", A1, Scope.EVENTUAL)
        await eventually(lambda: two.b.names.lookup("chat") is not None)
        assert await two.a.names.unregister("chat", A2, Scope.EVENTUAL) is False
        assert await two.a.names.unregister("chat", A1, Scope.EVENTUAL) is True
        await two.a.register("chat", A2, Scope.EVENTUAL)
        await eventually(lambda: pid_of(two.b.names.lookup("chat")) == A2)
        assert two.a.revoked == []

    async def test_one_given_back_before_it_got_into_etcd_leaves_nothing(self, two: Two) -> None:
        two.etcd.lost = [True] * 2
        await two.a.register("chat", A1, Scope.EVENTUAL)
        await asyncio.sleep(0)
        assert await two.a.names.unregister("chat", A1, Scope.EVENTUAL) is True
        assert two.a.names.lookup("chat") is None
        assert await two.b.register("other", B1)
        await eventually(lambda: two.b.names.lookup("chat") is None)
        async with asyncio.timeout(5):
            while await two.etcd.get(two.keys.name("chat")) is not None:
                await asyncio.sleep(0.02)

    async def test_the_next_one_gets_it_though_the_key_of_the_former_comes_late(self, two: Two) -> None:
        two.etcd.lost = [True]
        await two.a.register("chat", A1, Scope.EVENTUAL)
        await asyncio.sleep(0)
        await two.a.names.unregister("chat", A1, Scope.EVENTUAL)
        await two.a.register("chat", A2, Scope.EVENTUAL)
        await eventually(lambda: pid_of(two.b.names.lookup("chat")) == A2)
        assert two.a.revoked == []

    async def test_it_ends_with_its_process(self, two: Two) -> None:
        await two.a.register("chat", A1, Scope.EVENTUAL)
        await eventually(lambda: two.b.names.lookup("chat") is not None)
        await two.a.names.release(A1)
        await eventually(lambda: two.b.names.lookup("chat") is None)
        assert two.a.names.names_of(A1) == []


class TestGivenBack:
    async def test_a_name_on_its_way_back_is_not_given_to_the_same_process_for_a_moment(
        self, two: Two, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cluster.names.FREE_WITHIN", 0.05)
        monkeypatch.setattr("cluster.releases.PAUSE", 0.5)
        await two.a.register("chat", A1, Scope.EVENTUAL)
        await eventually(lambda: two.b.names.lookup("chat") is not None)
        two.etcd.away = True
        assert await two.a.names.unregister("chat", A1, Scope.EVENTUAL) is True
        two.etcd.away = False
        with pytest.raises(Unavailable, match="'chat' is being given back at this moment; try again"):
            await two.a.register("chat", A1)
        await eventually(lambda: two.a.names.lookup("chat") is None)
        registered = await two.a.register("chat", A1)
        assert two.a.names.lookup("chat") == registered

    async def test_a_name_that_was_taken_once_more_is_not_freed_with_the_former(
        self, two: Two, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await two.a.register("one", A1)
        reached, seen = asyncio.Event(), asyncio.Event()
        wait = two.a.names._watch.reached

        async def late(revision: int, timeout: float) -> None:
            monkeypatch.setattr(two.a.names._watch, "reached", wait)
            await wait(revision, timeout)
            reached.set()
            await seen.wait()

        monkeypatch.setattr(two.a.names._watch, "reached", late)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(two.a.names.release(A1))
            await reached.wait()
            again = await two.a.register("one", A1)
            seen.set()
        assert two.a.names.lookup("one") == again
