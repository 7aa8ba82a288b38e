"""``store.kv.crdt`` between two nodes over a real NATS: cut off, restarted, emptied, not permitted."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.bus import Bus, Credentials
from cluster.embedded import EmbeddedServers
from cluster.errors import Unavailable
from cluster.keys import Keys
from cluster.registry import Entry
from cluster.subjects import Subjects
from node.stores import CrdtStore, Namespaces, Stores
from node.stores.replication import subject_of

pytestmark = pytest.mark.servers


def entry(**data: Any) -> Entry:
    return Entry("app:sessions", "store.kv.crdt", {}, {"namespace": "sess", **data})


class Node:
    """As much of a node as has stores."""

    def __init__(self, bus: Bus, stores: Stores) -> None:
        self.bus = bus
        self.stores = stores

    async def put(self, **data: Any) -> None:
        await self.stores.put(entry(**data))

    @property
    def store(self) -> CrdtStore:
        return cast(CrdtStore, self.stores.find("app:sessions"))

    async def all(self) -> dict[bytes, Any]:
        return {item.key: item.value for item in (await self.store.page(b"", b"", 1000)).items}

    async def all_of(self, limit: int) -> dict[bytes, Any]:
        """Page by page."""
        page = await self.store.page(b"", b"", limit)
        items = {item.key: item.value for item in page.items}
        while page.has_more:
            page = await self.store.page(b"", page.cursor, limit)
            items |= {item.key: item.value for item in page.items}
        return items

    async def reads(self, key: bytes, value: Any) -> None:
        await until(lambda: self.holds(key, value))

    async def holds(self, key: bytes, value: Any) -> bool:
        item = await self.store.read(key)
        return (None if item is None else item.value) == value


@asynccontextmanager
async def node(url: str, cluster: str, number: int, **login: Any) -> AsyncIterator[Node]:
    subjects, name = Subjects(cluster), f"node-{number}"
    async with Bus([url], name=name, inbox=subjects.inbox(name), **login) as bus:
        namespaces = Namespaces(bus.data, subjects, name, number)
        async with Stores(cast(Any, None), Keys(cluster), lambda name: None, namespaces) as stores:
            yield Node(bus, stores)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def same(*nodes: Node) -> None:
    """Wait until all hold the same and nothing is under way."""

    async def settled() -> bool:
        first, *others = [await node.all() for node in nodes]
        return first in others and not any(node.store.namespace.copy.is_waiting for node in nodes)

    await until(settled)


@pytest.fixture
async def pair(servers: EmbeddedServers, cluster_name: str) -> AsyncIterator[tuple[Node, Node]]:
    async with node(servers.nats_url, cluster_name, 1) as one, node(servers.nats_url, cluster_name, 2) as two:
        await asyncio.gather(one.put(), two.put())
        yield one, two


Pair = tuple[Node, Node]


async def test_what_one_node_writes_and_deletes_the_other_reads(pair: Pair) -> None:
    one, two = pair
    await one.store.write(b"user:1", {b"name": b"Ann"}, 0)
    await two.reads(b"user:1", {b"name": b"Ann"})
    await two.store.delete(b"user:1")
    await one.reads(b"user:1", None)


async def test_a_node_that_comes_later_has_all_before_its_entry_is_done(
    pair: Pair, servers: EmbeddedServers, cluster_name: str
) -> None:
    one, _ = pair
    for number in range(300):
        await one.store.write(b"%03d" % number, number, 0)
    await one.store.write(b"\xff" * 2000, b"a long key", 60)
    await one.store.namespace.replication.published(10)
    async with node(servers.nats_url, cluster_name, 3) as three:
        await three.put()
        assert await three.all() == await one.all()


async def test_keys_written_at_once_everywhere_end_the_same_everywhere(pair: Pair) -> None:
    for number in range(200):
        for which, each in enumerate(pair):
            await each.store.write(b"%d" % (number % 7), [which, number], 0)
        if number % 20 == 0:
            await asyncio.sleep(0)
    await same(*pair)


async def test_a_key_ends_on_every_node_when_its_time_is_over(pair: Pair) -> None:
    one, two = pair
    await one.store.write(b"a", 1, 0.4)
    await two.reads(b"a", 1)
    await one.reads(b"a", None)
    await two.reads(b"a", None)


async def test_what_somebody_else_writes_into_the_bucket_is_undone(pair: Pair, cluster_name: str) -> None:
    one, two = pair
    await one.store.write(b"a", 1, 0)
    await two.reads(b"a", 1)
    bucket = f"$KV.{Subjects(cluster_name).bucket(durable=False)}."
    subject = subject_of(bucket, "sess", b"a")
    await one.bus.control.request(subject, b"rubbish", 3)

    async def restored() -> bool:
        stream = f"KV_{Subjects(cluster_name).bucket(durable=False)}"
        ask = json.dumps({"last_by_subj": subject}).encode()
        answer = json.loads(await one.bus.control.request(f"$JS.API.STREAM.MSG.GET.{stream}", ask, 3))
        return bool(answer["message"]["data"] != "cnViYmlzaA==")

    await until(restored)
    assert await two.holds(b"a", 1)


@pytest.mark.parametrize("durable", [False, True])
async def test_while_nats_is_away_all_goes_on_and_afterwards_the_later_writes_are_everywhere(
    own_servers: EmbeddedServers, cluster_name: str, durable: bool
) -> None:
    url = own_servers.nats_url
    async with node(url, cluster_name, 1) as one, node(url, cluster_name, 2) as two:
        await asyncio.gather(one.put(durable=durable), two.put(durable=durable))
        for number in range(50):
            await one.store.write(b"kept:%d" % number, number, 0)
        await one.store.write(b"both", b"before", 0)
        await one.store.write(b"deleted", 1, 0)
        await two.reads(b"deleted", 1)
        await own_servers.nats.kill()
        async with asyncio.timeout(2):
            await one.store.write(b"both", b"earlier", 0)
            await asyncio.sleep(0.005)
            await two.store.write(b"both", b"later", 0)
            await one.store.write(b"one", 1, 0)
            await two.store.write(b"two", 2, 0)
            await two.store.delete(b"deleted")
            assert await one.holds(b"both", b"earlier")
        await own_servers.nats.start()
        await same(one, two)
        everything = await one.all()
        assert everything == {b"kept:%d" % number: number for number in range(50)} | {
            b"both": b"later",
            b"one": 1,
            b"two": 2,
        }
        async with node(url, cluster_name, 3) as three:
            await three.put(durable=durable)
            assert await three.all() == everything


async def test_only_a_durable_store_outlives_all_nodes_and_nats_and_a_store_can_become_one(
    own_servers: EmbeddedServers, cluster_name: str
) -> None:
    async with node(own_servers.nats_url, cluster_name, 1) as one, node(own_servers.nats_url, cluster_name, 2) as two:
        await asyncio.gather(one.put(), two.put())
        await one.store.write(b"a", 1, 0)
        await two.reads(b"a", 1)
        await one.put(durable=True)
        assert one.store.info.durable
        assert await one.holds(b"a", 1)
        await two.store.write(b"late", 2, 0)  # this node has not heard of the change yet
        await two.put(durable=True)
        await same(one, two)
        assert await one.all() == {b"a": 1, b"late": 2}
    await own_servers.nats.stop()
    await own_servers.nats.start()
    async with node(own_servers.nats_url, cluster_name, 3) as three:
        await three.put(durable=True)
        assert await three.all() == {b"a": 1, b"late": 2}
        await three.put(durable=False)
        assert await three.all() == {b"a": 1, b"late": 2}
        await three.stores.remove("app:sessions")
    await own_servers.nats.stop()
    await own_servers.nats.start()
    async with node(own_servers.nats_url, cluster_name, 4) as four:
        await four.put(durable=False)
        assert await four.all() == {}
        await four.put(durable=True)
        assert await four.all() == {}


async def test_a_node_that_stops_hands_over_what_it_wrote_last(servers: EmbeddedServers, cluster_name: str) -> None:
    async with node(servers.nats_url, cluster_name, 1) as one:
        await one.put()
        for number in range(500):
            await one.store.write(b"%d" % number, number, 0)
    async with node(servers.nats_url, cluster_name, 2) as two:
        await two.put()
        assert len(await two.all()) == 500


async def test_entries_of_one_namespace_see_the_same_keys_and_go_one_by_one(pair: Pair) -> None:
    one, _ = pair
    await one.stores.put(Entry("app:other", "store.kv.crdt", {}, {"namespace": "sess"}))
    await one.stores.put(Entry("app:else", "store.kv.crdt", {}, {"namespace": "sess.b"}))
    await one.store.write(b"a", 1, 0)
    other, elsewhere = one.stores.find("app:other"), one.stores.find("app:else")
    assert other is not None
    assert elsewhere is not None
    assert await other.read(b"a") is not None
    assert await elsewhere.read(b"a") is None
    former = one.store
    await one.stores.remove("app:sessions")
    assert await other.read(b"a") is not None
    await one.stores.remove("app:other")
    with pytest.raises(Unavailable, match="namespace sess has no store on this node any more"):
        await former.read(b"a")


async def test_new_limits_hold_at_once_and_keep_the_data(pair: Pair) -> None:
    one, _ = pair
    await one.store.write(b"a", 1, 0)
    await one.put(max_size=1)
    with pytest.raises(Exception, match="store sess is full: 1 keys"):
        await one.store.write(b"b", 1, 0)
    await one.put(max_size=2)
    await one.store.write(b"b", 1, 0)
    assert await one.all() == {b"a": 1, b"b": 1}


NATS = """
accounts {
  PLAIN { users = [ {user: plain, password: p} ] }
  STREAMS { jetstream: {max_mem: 1M, max_file: 30M}, users = [
    {user: full, password: p}
    {user: unflowing, password: p, permissions: { publish: { deny: ["$JS.FC.>"] } } }
    {user: permitted, password: p, permissions: { publish: [PERMITTED], subscribe: ["wippy.shop.inbox.node-1.>"] } }
    {user: barred, password: p, permissions: { publish: { deny: ["$JS.API.>", "$KV.>"] } } }
  ] }
}
"""


@pytest.fixture
async def guarded(binaries: None, tmp_path: Path) -> AsyncIterator[EmbeddedServers]:
    config = tmp_path / "nats.conf"
    page = (Path(__file__).parents[3] / "docs" / "deploy.md").read_text()
    permitted = ", ".join(f'"{subject}"' for subject in re.findall(r"^(\$(?:KV|JS)\.\S+)$", page, re.MULTILINE))
    config.write_text(NATS.replace("PERMITTED", permitted))
    async with EmbeddedServers(with_etcd=False, nats_args=["-c", str(config)]) as servers:
        yield servers


@pytest.mark.parametrize(
    ("user", "remedy"),
    [("plain", "start nats-server with --jetstream"), ("barred", r"may publish \$JS\.API\.\*\.\*\.KV_wippy_")],
)
async def test_without_jetstream_or_the_permission_the_node_says_what_is_missing(
    guarded: EmbeddedServers, cluster_name: str, user: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.bucket.DEADLINE", 0.2)
    monkeypatch.setattr("node.stores.stores.FIRST_COPY", 0.5)
    async with node(guarded.nats_url, cluster_name, 1, credentials=Credentials(user=user, password="p")) as one:
        with pytest.raises(Unavailable, match=remedy):
            await one.put()
        with pytest.raises(Unavailable, match=f"store app:sessions has no copy of its data on this node yet.*{remedy}"):
            await one.store.read(b"a")
        with pytest.raises(Unavailable, match=remedy):
            await one.store.write(b"a", 1, 0)


async def test_the_permissions_of_the_documentation_are_enough(guarded: EmbeddedServers) -> None:
    login = {"credentials": Credentials(user="permitted", password="p")}
    for number in (1, 2):
        subjects = Subjects("shop")
        async with Bus([guarded.nats_url], name="node-1", inbox=subjects.inbox("node-1"), **login) as bus:
            stores = Stores(
                cast(Any, None), Keys("shop"), lambda name: None, Namespaces(bus.data, subjects, "node-1", number)
            )
            async with stores:
                one = Node(bus, stores)
                await one.put(durable=True)
                if number == 1:
                    for key in range(200):
                        await one.store.write(b"%d" % key, b"x" * 100_000, 0)
                    assert await one.store.namespace.replication.published(10)
                    continue
                assert len(await one.all_of(100)) == 200
                for key in range(5, 200):
                    await one.store.delete(b"%d" % key)
                assert await one.store.namespace.replication.published(10)
                await one.put(durable=False)  # one bucket is emptied, the other filled
                assert await one.store.namespace.replication.published(10)
                assert bus.stats().data.permission_errors == 0


async def test_a_user_that_may_not_answer_flow_control_is_told_so(
    guarded: EmbeddedServers, cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, unflowing = ({"credentials": Credentials(user=user, password="p")} for user in ("full", "unflowing"))
    async with node(guarded.nats_url, cluster_name, 1, **full) as one:
        await one.put(durable=True)
        for key in range(100):
            await one.store.write(b"%d" % key, b"x" * 100_000, 0)
    monkeypatch.setattr("node.stores.stores.FIRST_COPY", 1.0)
    async with node(guarded.nats_url, cluster_name, 2, **unflowing) as two:
        with pytest.raises(
            Unavailable, match=r"NATS refuses to publish \$js\.fc\..*: give the user .* docs/deploy\.md"
        ):
            await two.put(durable=True)


async def test_when_the_storage_of_nats_is_full_the_node_keeps_the_writes_and_hands_them_over_when_there_is_room(
    guarded: EmbeddedServers, cluster_name: str
) -> None:
    login = {"credentials": Credentials(user="full", password="p")}
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(node(guarded.nats_url, cluster_name, 1, **login))
        two = await stack.enter_async_context(node(guarded.nats_url, cluster_name, 2, **login))
        await asyncio.gather(one.put(), two.put())
        for number in range(20):
            await one.store.write(b"%02d" % number, b"x" * 100_000, 0)

        async def half() -> bool:
            return len(await two.all()) >= 5

        await until(half)
        assert one.store.namespace.copy.is_waiting
        assert len(await one.all()) == 20
        for number in range(20):
            await one.store.write(b"%02d" % number, b"small", 0)
        await same(one, two)
        assert len(await two.all()) == 20
