"""What keeps services from nodes, on a real etcd: avoided nodes and quarantine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from cluster.avoids import Avoid, Avoids
from cluster.claims import Claims
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.quarantine import WINDOW, Loss, Quarantine, suspect
from tests.waiting import eventually

pytestmark = pytest.mark.servers

SERVICE = "app:poison"


@dataclass
class Node:
    etcd: Etcd
    keys: Keys
    claims: Claims
    avoids: Avoids
    quarantine: Quarantine
    lease: int
    begun: list[str] = field(default_factory=list)
    now: float = 1000.0

    def loss(self, epoch: int, service: str = SERVICE) -> Loss:
        return Loss(service, f"n{epoch}", epoch, 1000.0 + epoch, "it hung")

    async def suspects(self, *epochs: int, service: str = SERVICE) -> None:
        for epoch in epochs:
            await suspect(self.etcd, self.keys, self.loss(epoch, service))


@pytest_asyncio.fixture
async def nodes(etcd: Etcd, cluster_name: str) -> AsyncIterator[tuple[Node, Node]]:
    keys = Keys(cluster_name)
    async with AsyncExitStack() as stack:
        made: list[Node] = []
        for number, name in enumerate(("a", "b")):
            watch = PrefixWatch(etcd, keys.prefix)
            avoids = Avoids(etcd, watch, keys, name, lambda n=number: made[n].now)  # type: ignore[misc]
            claims = Claims(etcd, watch, keys, name)
            node = Node(etcd, keys, claims, avoids, Quarantine(etcd, watch, keys), (await etcd.grant(60)).id)
            node.quarantine.on_begun(lambda service, losses, n=node: n.begun.append(service))
            await stack.enter_async_context(watch)
            made.append(node)
        yield made[0], made[1]


async def test_who_gives_a_claim_back_and_avoids_it_does_both_in_one_change(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    token = await a.claims.claim(SERVICE, 0, a.lease)
    assert token is not None
    await eventually(lambda: b.claims.get(SERVICE, 0) is not None)
    seen: list[bool] = []
    b.claims.on_change(lambda before, after: seen.append((SERVICE, "a") in b.avoids.left()))
    b.avoids.on_change(lambda: seen.append(b.claims.get(SERVICE, 0) is None))
    assert await a.claims.release(SERVICE, 0, token, Avoid(SERVICE, "a", 1600.0, "no disk", a.lease))
    await eventually(lambda: len(seen) == 2)
    assert True in seen, "one of the two came with the other in view"
    assert b.avoids.left() == {(SERVICE, "a"): 600.0}
    (avoid,) = b.avoids.all()
    assert (avoid.reason, avoid.lease) == ("no disk", a.lease)
    assert a.avoids.has(SERVICE)
    assert not b.avoids.has(SERVICE)


async def test_a_claim_that_is_not_held_any_more_leaves_nothing_to_avoid(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    assert not await a.claims.release(SERVICE, 0, 1, Avoid(SERVICE, "a", 1600.0, "", a.lease))
    assert await a.etcd.count(a.keys.avoids) == 0


async def test_what_is_avoided_ends_with_its_time_and_with_the_node(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    for service in ("app:x", "app:y"):
        token = await a.claims.claim(service, 0, a.lease)
        assert token is not None
        await a.claims.release(
            service, 0, token, Avoid(service, "a", 1600.0 if service == "app:x" else 1700.0, "", a.lease)
        )
    await eventually(lambda: len(b.avoids.all()) == 2)
    b.now = 1650.0
    assert [avoid.service for avoid in b.avoids.all()] == ["app:y"]
    assert b.avoids.left() == {("app:y", "a"): 50.0}
    a.now = b.now
    assert (sorted(a.avoids.own()), a.avoids.own_ended(), b.avoids.own()) == (["app:x", "app:y"], ["app:x"], [])
    await a.etcd.revoke(a.lease)
    await eventually(lambda: not b.avoids.has("app:y") and b.avoids.all() == [])


async def test_one_loss_is_remembered_and_two_quarantine_the_service(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await a.suspects(1)
    await eventually(lambda: all(len(node.quarantine.losses(SERVICE)) == 1 for node in nodes))
    assert b.quarantine.services() == frozenset()
    await a.suspects(2)
    await eventually(lambda: all(node.quarantine.services() == {SERVICE} for node in nodes))
    assert b.quarantine.unwritten() == [SERVICE], "it holds before anybody wrote it down"
    for node in nodes:  # any may, and one does
        await node.quarantine.write(SERVICE)
    await eventually(lambda: all(node.begun == [SERVICE] for node in nodes))
    assert b.quarantine.unwritten() == []
    assert [loss.node for loss in b.quarantine.losses(SERVICE)] == ["n1", "n2"]


async def test_a_suspicion_lasts_ten_minutes_and_a_quarantine_longer(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await a.suspects(1, 2)
    await eventually(lambda: a.quarantine.unwritten() == [SERVICE])
    await a.quarantine.write(SERVICE)
    for epoch in (1, 2):
        kv = await a.etcd.get(a.keys.suspect(SERVICE, epoch))
        assert kv is not None
        assert WINDOW.total_seconds() - 5 <= (await a.etcd.time_to_live(kv.lease)).remaining <= WINDOW.total_seconds()
        await a.etcd.revoke(kv.lease)
    await eventually(lambda: all(node.quarantine.services() == {SERVICE} for node in nodes) and b.begun == [SERVICE])
    assert [loss.node for loss in b.quarantine.losses(SERVICE)] == ["n1", "n2"], "what it was for is kept with it"
    kept = await a.etcd.get(a.keys.quarantine(SERVICE))
    assert kept is not None
    assert kept.lease == 0


async def test_losses_of_different_services_do_not_add_up(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await a.suspects(1)
    await a.suspects(2, service="app:poison/other")
    await eventually(lambda: len(b.quarantine.losses("app:poison/other")) == 1)
    assert b.quarantine.services() == frozenset()


async def test_a_release_forgets_everything_and_a_late_write_brings_nothing_back(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await a.suspects(1, 2)
    await a.suspects(3, 4, service="app:poison2")
    await eventually(lambda: b.quarantine.services() == {SERVICE, "app:poison2"})
    await b.quarantine.write(SERVICE)
    assert await a.quarantine.release(SERVICE)
    await b.quarantine.write(SERVICE)  # by what it may have seen so far there are two losses
    await eventually(lambda: all(node.quarantine.services() == {"app:poison2"} for node in nodes))
    assert not b.quarantine.losses(SERVICE)
    assert not await a.quarantine.release(SERVICE), "nothing is left to release"


async def test_keys_that_can_not_be_read_do_no_harm(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    await a.etcd.put(a.keys.suspect(SERVICE, 1), b"{}")
    await a.etcd.put(a.keys.avoid(SERVICE, "a"), b"[]")
    await a.etcd.put(f"{a.keys.suspects}{SERVICE}/first", b"{}")
    await a.etcd.put(a.keys.quarantine("app:unclear"), b"?")
    await eventually(lambda: b.quarantine.services() == {"app:unclear"})
    assert b.quarantine.losses("app:unclear") == []
    assert b.avoids.all() == []
    await b.quarantine.release("app:unclear")
    await eventually(lambda: a.quarantine.services() == frozenset())
