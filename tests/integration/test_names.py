"""Names on a real etcd: two nodes, one truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from cluster.errors import NameTaken, Unavailable
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.names import Names, NamesStats, Registered, Scope
from tests.forgetful import Forgetful
from tests.waiting import eventually

pytestmark = pytest.mark.servers

A1, A2, B1 = "{a@app:h|1-1}", "{a@app:h|1-2}", "{b@app:h|2-1}"


@dataclass
class Node:
    """The names of one node, and what it was told."""

    names: Names
    lease: int
    changes: list[tuple[str, str | None]] = field(default_factory=list)
    revoked: list[tuple[str, str]] = field(default_factory=list)

    async def register(self, name: str, pid: str) -> Registered:
        return await self.names.register(name, pid, Scope.CONSISTENT, self.lease)


@dataclass
class Two:
    etcd: Forgetful
    keys: Keys
    a: Node
    b: Node


@pytest_asyncio.fixture
async def two(etcd: Etcd, servers, cluster_name: str) -> AsyncIterator[Two]:  # type: ignore[no-untyped-def]
    keys = Keys(cluster_name)
    async with AsyncExitStack() as stack:
        forgetful = await stack.enter_async_context(Forgetful([servers.etcd_url]))
        nodes = []
        for name in ("a", "b"):
            watch = PrefixWatch(forgetful, keys.prefix)
            node = Node(Names(forgetful, watch, keys, name), (await etcd.grant(60)).id)
            node.names.on_change(lambda name, pid, revision, n=node: n.changes.append((name, pid)))
            node.names.on_revoked(lambda name, pid, n=node: n.revoked.append((name, pid)))
            await stack.enter_async_context(watch)
            nodes.append(node)
        yield Two(forgetful, keys, *nodes)


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

    @pytest.mark.parametrize("scope", [Scope.EVENTUAL, Scope.STRONG])
    async def test_scopes_that_are_not_served_say_so(self, two: Two, scope: Scope) -> None:
        with pytest.raises(Unavailable, match=scope.name):
            await two.a.names.register("counter", A1, scope, two.a.lease)

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
