"""Claims that go to an heir, on a real etcd: with all it needs, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from cluster.claims import Claim, Claims
from cluster.etcd import Etcd, PrefixWatch, Put
from cluster.heirs import Heir, Heirs
from cluster.keys import Keys
from cluster.migration.items import Holding
from tests.waiting import eventually

pytestmark = pytest.mark.servers

KEY = ("app:counter", 0)


@dataclass
class Node:
    claims: Claims
    heirs: Heirs
    etcd: Etcd
    keys: Keys
    lease: int

    def claim(self) -> Claim:
        claim = self.claims.get(*KEY)
        assert claim is not None
        return claim


@pytest_asyncio.fixture
async def nodes(etcd: Etcd, cluster_name: str) -> AsyncIterator[tuple[Node, Node]]:
    """The owner, and the one that is to be its heir."""
    keys = Keys(cluster_name)
    async with AsyncExitStack() as stack:
        made = []
        for name in ("a", "b"):
            watch = PrefixWatch(etcd, keys.prefix)
            lease = (await etcd.grant(60)).id
            made.append(Node(Claims(etcd, watch, keys, name), Heirs(etcd, watch, keys, name), etcd, keys, lease))
            await stack.enter_async_context(watch)
        assert await made[0].claims.claim(*KEY, made[0].lease)
        await eventually(lambda: made[1].claims.get(*KEY) is not None)
        yield made[0], made[1]


async def wished(a: Node, b: Node) -> tuple[Heir, int]:
    """The wish as b sees it, and the token b begins under."""
    token = await a.heirs.name(*KEY, "b", a.lease)
    await eventually(lambda: b.heirs.get(*KEY) == Heir(*KEY, "b", token))
    begun = await b.heirs.begin(*KEY, b.lease)
    await eventually(lambda: a.heirs.has_begun(*KEY))
    return Heir(*KEY, "b", token), begun


async def named(a: Node) -> Holding:
    """A name on the lease of a, as b would take it."""
    key = a.keys.name("counter")
    result = await a.etcd.txn([], [Put(key, b"of a", a.lease)])
    return Holding(key, b"of b", result.revision)


async def test_claim_and_names_change_hands_at_one_revision(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    former, name = a.claim(), await named(a)
    heir, begun = await wished(a, b)
    token = await b.heirs.take(heir, former, begun, b.lease, [name])
    assert token is not None
    assert former.token < heir.token < begun < token
    await eventually(lambda: a.claim().token == token)
    assert (a.claim().node, a.claim().lease) == ("b", b.lease)
    kv = await a.etcd.get(name.key)
    assert kv is not None
    assert (kv.value, kv.lease, kv.mod_revision) == (b"of b", b.lease, token)
    assert await a.claims.release(*KEY, former.token) is False


async def test_a_wish_that_was_taken_back_gives_nothing(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    former, (heir, begun) = a.claim(), await wished(a, b)
    revision = await a.heirs.withdraw(*KEY, heir.token)
    assert await b.heirs.take(heir, former, begun, b.lease) is None
    await b.claims.reached(revision)
    assert b.heirs.get(*KEY) is None
    assert b.claim() == former


async def test_a_name_that_is_not_what_it_was_keeps_the_claim_where_it_is(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    former, name = a.claim(), await named(a)
    heir, begun = await wished(a, b)
    await named(a)
    assert await b.heirs.take(heir, former, begun, b.lease, [name]) is None
    assert b.claim() == former


async def test_an_heir_that_gave_up_or_a_claim_that_was_renewed_gives_nothing(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    former, (heir, begun) = a.claim(), await wished(a, b)
    await b.heirs.end(*KEY, begun)
    assert await b.heirs.take(heir, former, begun, b.lease) is None
    begun = await b.heirs.begin(*KEY, b.lease)
    await a.claims.release(*KEY, former.token)
    await a.claims.claim(*KEY, a.lease)
    assert await b.heirs.take(heir, former, begun, b.lease) is None
    assert a.claim().node == "a"


async def test_asked_twice_it_is_the_heirs_once(nodes: tuple[Node, Node]) -> None:
    """As after an answer that was lost."""
    a, b = nodes
    former, (heir, begun) = a.claim(), await wished(a, b)
    token = await b.heirs.take(heir, former, begun, b.lease)
    assert await b.heirs.take(heir, former, begun, b.lease) == token


async def test_what_is_left_over_is_no_token_of_anybody_else(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    heir, begun = await wished(a, b)
    assert await a.heirs.name(*KEY, "b", a.lease) > heir.token
    assert await b.heirs.begin(*KEY, b.lease) > begun


async def test_the_wish_and_the_beginning_end_with_their_leases(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await wished(a, b)
    await a.etcd.revoke(b.lease)
    await eventually(lambda: not a.heirs.has_begun(*KEY))
    await a.etcd.revoke(a.lease)
    await eventually(lambda: b.heirs.get(*KEY) is None and b.claims.get(*KEY) is None)
