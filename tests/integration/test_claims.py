"""Claims of service replicas on a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from cluster.claims import Claim, Claims, ClaimState
from cluster.etcd import Compare, Etcd, PrefixWatch, Put
from cluster.keys import Keys
from tests.waiting import eventually

pytestmark = pytest.mark.servers

STATE = ClaimState("a", "{a@app:h|1-1}", "2026-01-01T00:00:00Z", 1)
SERVICE = "app:counter"


@dataclass
class Node:
    claims: Claims
    lease: int
    changes: list[tuple[Claim | None, Claim | None]] = field(default_factory=list)


@pytest_asyncio.fixture
async def nodes(etcd: Etcd, cluster_name: str) -> AsyncIterator[tuple[Node, Node]]:
    keys = Keys(cluster_name)
    async with AsyncExitStack() as stack:
        made = []
        for name in ("a", "b"):
            watch = PrefixWatch(etcd, keys.prefix)
            node = Node(Claims(etcd, watch, keys, name), (await etcd.grant(60)).id)
            node.claims.on_change(lambda before, after, n=node: n.changes.append((before, after)))
            await stack.enter_async_context(watch)
            made.append(node)
        yield made[0], made[1]


async def test_one_of_two_gets_the_replica_and_both_see_it(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    tokens = await asyncio.gather(*(node.claims.claim(SERVICE, 0, node.lease) for node in nodes))
    assert sorted(token is None for token in tokens) == [False, True]
    winner = 0 if tokens[0] else 1
    await eventually(lambda: all(node.claims.get(SERVICE, 0) is not None for node in nodes))
    assert a.claims.all() == b.claims.all()
    (claim,) = a.claims.all()
    assert (claim.node, claim.token, claim.state) == ("ab"[winner], tokens[winner], None)
    assert nodes[winner].claims.own() == [claim]
    assert nodes[1 - winner].claims.own() == []


async def test_the_own_claim_is_found_again(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    token = await a.claims.claim(SERVICE, 0, a.lease)
    assert await a.claims.claim(SERVICE, 0, a.lease) == token


async def test_the_state_is_written_while_the_claim_is_held_and_goes_with_it(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    token = await a.claims.claim(SERVICE, 3, a.lease)
    assert token is not None
    assert await a.claims.write_state(SERVICE, 3, token, a.lease, STATE)
    await eventually(lambda: bool(b.claims.all()) and b.claims.all()[0].state == STATE)
    assert await a.claims.release(SERVICE, 3, token)
    await eventually(lambda: b.claims.all() == [])
    assert await a.claims.write_state(SERVICE, 3, token, a.lease, STATE) is False
    assert await b.claims.claim(SERVICE, 3, b.lease) is not None
    assert b.claims.all()[0].state is None


async def test_release_needs_the_token_of_the_owner(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    first = await a.claims.claim(SERVICE, 0, a.lease)
    assert first is not None
    await a.claims.release(SERVICE, 0, first)
    second = await b.claims.claim(SERVICE, 0, b.lease)
    assert second is not None
    assert second > first
    assert await a.claims.release(SERVICE, 0, first) is False
    await eventually(lambda: b.claims.get(SERVICE, 0) is not None)


async def test_a_new_owner_is_told_as_two_changes(nodes: tuple[Node, Node], etcd: Etcd) -> None:
    a, b = nodes
    await a.claims.claim(SERVICE, 0, a.lease)
    await etcd.revoke(a.lease)
    await eventually(lambda: b.claims.all() == [])
    await b.claims.claim(SERVICE, 0, b.lease)
    await eventually(lambda: len(a.changes) == 3)
    owners = [(before.node if before else None, after.node if after else None) for before, after in a.changes]
    assert owners == [(None, "a"), ("a", None), (None, "b")]


async def test_an_unreadable_key_is_ignored(nodes: tuple[Node, Node], etcd: Etcd, cluster_name: str) -> None:
    a, _ = nodes
    keys = Keys(cluster_name)
    await etcd.put(f"{keys.services}nonsense", b"")
    await etcd.put(f"{keys.services}app:x/one", b"")
    for value in (b"nonsense", b"[" * 99_999, b'{"node": "a", "pid": "", "since": "", "incarnation": 1e999}'):
        await etcd.put(keys.service_state("app:x", 0), value)
    await a.claims.claim(SERVICE, 0, a.lease)
    assert [claim.service for claim in a.claims.all()] == [SERVICE]


async def test_one_that_moves_with_its_process_is_never_absent(nodes: tuple[Node, Node], etcd: Etcd) -> None:
    """As the commit of a move writes it: from the node it was on to the one it goes to, in one revision."""
    a, b = nodes
    token = await a.claims.claim(SERVICE, 0, a.lease)
    assert token is not None
    assert a.claims.holdings(SERVICE, 0) == ()
    await a.claims.write_state(SERVICE, 0, token, a.lease, STATE)
    await eventually(lambda: a.claims.holdings(SERVICE, 0))
    claim, state = a.claims.holdings(SERVICE, 0)
    for held in (claim, state):
        kv = await etcd.get(held.key)
        assert kv is not None
        assert (kv.value, kv.mod_revision) == (held.value, held.revision)
    there = ClaimState("b", STATE.pid, STATE.since, 2)
    unchanged = [Compare.mod(held.key, "=", held.revision) for held in (claim, state)]
    puts = [Put(claim.key, b"b", b.lease), Put(state.key, there.to_json(), b.lease)]
    moved = await etcd.txn(unchanged, puts)
    assert moved.succeeded
    await b.claims.reached(moved.revision)
    assert b.claims.get(SERVICE, 0) == Claim(SERVICE, 0, "b", moved.revision, b.lease, there)
    assert [after for before, after in b.changes if before is None][-1].node == "b"  # type: ignore[union-attr]
    assert await a.claims.release(SERVICE, 0, token) is False
    assert await a.claims.write_state(SERVICE, 0, token, a.lease, STATE) is False
    await etcd.revoke(a.lease)
    await a.claims.reached((await etcd.txn([], [Put(f"{claim.key}x/1", b"b", b.lease)])).revision)
    assert a.claims.get(SERVICE, 0) is not None, "it is on the lease of the other node"
