"""The contract of a store, over the memory and over a real etcd; then what only etcd has: fences, leases, outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from cluster.bus import Bus
from cluster.embedded import EmbeddedServers
from cluster.envelope import to_raw
from cluster.errors import Invalid, Unavailable
from cluster.etcd import Etcd
from cluster.keys import Keys
from cluster.registry import Entry
from cluster.subjects import Subjects
from node.modules.dispatch import Dispatcher
from node.modules.store import StoreModule
from node.stores import CrdtStore, EtcdStore, Info, MemoryStore, Namespaces, Precondition, Store, Stores
from node.stores.contract import MAX_KEY, MAX_VALUE, KeyExists, Refused, StaleOwner, VersionChanged
from node.stores.etcd import Leases
from node.stores.namespaces import Wish

pytestmark = pytest.mark.servers

NODE = "node-1"


@pytest.fixture
def keys(cluster_name: str) -> Keys:
    return Keys(cluster_name)


@pytest.fixture
async def namespaces(servers: EmbeddedServers, cluster_name: str) -> AsyncIterator[Namespaces]:
    subjects = Subjects(cluster_name)
    async with Bus([servers.nats_url], name=NODE, inbox=subjects.inbox(NODE)) as bus:
        namespaces = Namespaces(bus.data, subjects, NODE, 1)
        yield namespaces
        await namespaces.close()


@pytest.fixture(params=["memory", "etcd"])
def conditional(request: pytest.FixtureRequest, etcd: Etcd, keys: Keys) -> Store:
    """A store with conditional writes."""
    return MemoryStore("app:cache") if request.param == "memory" else EtcdStore("app:cache", "cache", etcd, keys)


@pytest.fixture
async def replicated(namespaces: Namespaces) -> CrdtStore:
    namespace = await namespaces.join("app:cache", "cache", Wish(False, 100_000, 2**26))
    async with asyncio.timeout(5):
        await namespace.replication.level.wait()
    return CrdtStore("app:cache", namespace, namespaces.max_payload)


@pytest.fixture(params=["memory", "etcd", "nats"])
def store(request: pytest.FixtureRequest, etcd: Etcd, keys: Keys, replicated: CrdtStore) -> Store:
    """Every store there is."""
    match request.param:
        case "memory":
            return MemoryStore("app:cache")
        case "etcd":
            return EtcdStore("app:cache", "cache", etcd, keys)
        case _:
            return replicated


class TestContract:
    @pytest.mark.parametrize(
        "value",
        [
            b"text",
            b"\xff\x00binary",
            0,
            -(2**62),
            1.5,
            False,
            [b"a", 2, None],
            {b"name": b"Alice", b"tags": [b"x"], 7: True},
            {},
        ],
    )
    async def test_what_was_written_is_read(self, store: Store, value: Any) -> None:
        await store.write(b"key", value, 0)
        item = await store.read(b"key")
        assert item is not None
        assert (item.key, item.value) == (b"key", value)

    async def test_a_key_that_is_not_there_reads_as_none(self, store: Store) -> None:
        assert await store.read(b"nothing") is None

    @pytest.mark.parametrize(
        "key", [b"user:123", b"a/b/../c", b"with space", b"\xff\x00\n", b"100%", b"%41", b"\xc3\xa4", b"x" * MAX_KEY]
    )
    async def test_any_bytes_are_a_key(self, store: Store, key: bytes) -> None:
        await store.write(key, 1, 0)
        assert await store.read(key) is not None
        assert [item.key for item in (await store.page(b"", b"", 10)).items] == [key]
        assert await store.delete(key)

    async def test_delete_says_whether_there_was_one(self, store: Store) -> None:
        await store.write(b"a", 1, 0)
        assert await store.delete(b"a") is True
        assert await store.delete(b"a") is False
        assert await store.read(b"a") is None

    async def test_the_version_changes_with_every_write(self, store: Store) -> None:
        first = await store.write(b"a", 1, 0)
        second = await store.write(b"a", 1, 0)
        read = await store.read(b"a")
        assert read is not None
        assert first.version != second.version == read.version

    async def test_only_if_absent_has_one_winner(self, conditional: Store) -> None:
        when = Precondition(absent=True)
        tries = [conditional.write(b"lock", number, 0, when) for number in range(5)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert [type(one) for one in results if isinstance(one, Exception)] == [KeyExists] * 4

    async def test_if_version_refuses_a_changed_key_and_names_the_version_it_has(self, conditional: Store) -> None:
        old = await conditional.write(b"a", 1, 0)
        new = await conditional.write(b"a", 2, 0)
        with pytest.raises(VersionChanged) as changed:
            await conditional.write(b"a", 3, 0, Precondition(version=old.version))
        assert changed.value.version == new.version
        await conditional.write(b"a", 3, 0, Precondition(version=new.version))

    async def test_if_version_refuses_a_key_that_is_gone(self, conditional: Store) -> None:
        old = await conditional.write(b"a", 1, 0)
        await conditional.delete(b"a")
        with pytest.raises(VersionChanged) as changed:
            await conditional.write(b"a", 2, 0, Precondition(version=old.version))
        assert changed.value.version is None

    @pytest.mark.parametrize("when", [Precondition(absent=True), Precondition(version="1")])
    async def test_a_store_without_conditional_writes_refuses_them_and_says_so_in_its_info(
        self, replicated: CrdtStore, when: Precondition
    ) -> None:
        assert not replicated.info.conditional_put
        with pytest.raises(Refused, match=r"app:cache is a store.kv.crdt .* keep data .* in a store.kv.raft"):
            await replicated.write(b"lock", 1, 0, when)
        assert await replicated.read(b"lock") is None

    async def test_pages_go_through_all_keys_once_in_order(self, store: Store) -> None:
        names = [b"s:%03d" % number for number in range(75)]
        for name in reversed(names):
            await store.write(name, 1, 0)
        await store.write(b"r:before", 1, 0)
        await store.write(b"t:after", 1, 0)
        seen: list[bytes] = []
        cursor = b""
        while True:
            page = await store.page(b"s:", cursor, 20)
            seen += [item.key for item in page.items]
            if not page.has_more:
                break
            cursor = page.cursor
        assert seen == names

    async def test_a_page_that_just_fits_has_no_more(self, store: Store) -> None:
        for name in (b"a", b"b"):
            await store.write(name, 1, 0)
        assert (await store.page(b"", b"", 2)).has_more is False
        assert (await store.page(b"", b"", 1)).has_more is True
        assert (await store.page(b"b", b"", 5)).items[0].key == b"b"
        assert (await store.page(b"a", b"zz", 5)).items == []

    async def test_a_time_to_live_ends(self, store: Store) -> None:
        await store.write(b"a", 1, 0.2)
        assert await store.read(b"a") is not None
        async with asyncio.timeout(5):
            while await store.read(b"a") is not None:
                continue

    async def test_a_write_without_ttl_keeps_the_key(self, store: Store) -> None:
        await store.write(b"a", 1, 0.05)
        await store.write(b"a", 2, 0)
        await asyncio.sleep(0.1)
        assert await store.read(b"a") is not None

    @pytest.mark.parametrize(
        ("key", "value", "ttl", "words"),
        [
            (b"", 1, 0, "key is empty"),
            (b"x" * (MAX_KEY + 1), 1, 0, f"over the limit of {MAX_KEY} bytes"),
            (b"a", b"x" * (MAX_VALUE + 1), 0, "value of key 'a' is .* over the limit of 10[0-9]{5} bytes"),
            (b"a", 1, -1, "ttl"),
            (b"a", 1, float("nan"), "ttl"),
            (b"a", 1, float("inf"), "ttl"),
        ],
    )
    async def test_bad_input_is_refused_with_the_limit(
        self, store: Store, key: bytes, value: Any, ttl: float, words: str
    ) -> None:
        with pytest.raises(Refused, match=words):
            await store.write(key, value, ttl)
        assert (await store.page(b"", b"", 10)).items == []

    async def test_a_value_of_the_largest_size_is_taken(self, store: Store) -> None:
        await store.write(b"a", b"x" * (store.max_value - 64), 0)
        assert await store.read(b"a") is not None

    async def test_a_large_page_ends_early_instead_of_filling_the_memory(self, store: Store) -> None:
        for number in range(12):
            await store.write(b"%02d" % number, b"x" * (store.max_value - 64), 0)
        page = await store.page(b"", b"", 100)
        assert page.has_more
        assert 8 <= len(page.items) <= 10
        rest = await store.page(b"", page.cursor, 100)
        assert len(page.items) + len(rest.items) == 12


class TestEtcd:
    @pytest.fixture
    def shared(self, etcd: Etcd, keys: Keys) -> EtcdStore:
        return EtcdStore("app:shared", "shared", etcd, keys)

    async def test_all_stores_of_a_namespace_share_their_keys_and_no_others(
        self, etcd: Etcd, keys: Keys, shared: EtcdStore
    ) -> None:
        await shared.write(b"a", 1, 0)
        assert await EtcdStore("app:other", "shared", etcd, keys).read(b"a") is not None
        assert await EtcdStore("app:other", "shared.more", etcd, keys).read(b"a") is None

    async def test_keys_can_be_read_with_any_etcd_client(self, etcd: Etcd, keys: Keys, shared: EtcdStore) -> None:
        await shared.write(b"user:1/name", b"x", 0)
        assert await etcd.get(f"{keys.prefix}kv/shared/user:1/name") is not None

    @pytest.mark.parametrize("version", ["", "x", "-1", "0", "9" * 30, "١"])
    async def test_a_version_nobody_gave_is_refused(self, shared: EtcdStore, version: str) -> None:
        with pytest.raises(Refused, match="version"):
            await shared.write(b"a", 1, 0, Precondition(version=version))

    async def test_somebody_elses_value_is_told_not_guessed(self, etcd: Etcd, shared: EtcdStore) -> None:
        await etcd.put(f"{shared.prefix}a", b"plain text")
        with pytest.raises(Refused, match="holds no value of a store"):
            await shared.read(b"a")

    async def test_an_owner_writes_under_its_fence(self, etcd: Etcd, keys: Keys, shared: EtcdStore) -> None:
        claim = keys.service("app:counter", 0)
        fence = (claim, await etcd.put(claim, b"node-1"))
        await shared.write(b"count", 1, 0, fences=[fence])
        item = await shared.write(b"count", 2, 0, Precondition(version=(await shared.read(b"count")).version), [fence])  # type: ignore[union-attr]
        assert item.value == 2
        assert await shared.delete(b"count", [fence])

    @pytest.mark.parametrize("loss", ["taken over", "ended"])
    async def test_a_former_owner_can_not_write_any_more(
        self, etcd: Etcd, keys: Keys, shared: EtcdStore, loss: str
    ) -> None:
        claim = keys.service("app:counter", 0)
        fence = (claim, await etcd.put(claim, b"node-1"))
        kept = await shared.write(b"count", 5, 0, fences=[fence])
        await etcd.delete(claim)
        if loss == "taken over":
            await etcd.put(claim, b"node-2")
        for when in (Precondition(), Precondition(absent=True), Precondition(version=kept.version)):
            with pytest.raises(StaleOwner):
                await shared.write(b"count", 6, 0, when, [fence])
        with pytest.raises(StaleOwner):
            await shared.delete(b"count", [fence])
        assert await shared.read(b"count") == kept

    async def test_a_valid_owner_hears_of_a_changed_key_not_of_its_fence(
        self, etcd: Etcd, keys: Keys, shared: EtcdStore
    ) -> None:
        claim = keys.service("app:counter", 0)
        fence = (claim, await etcd.put(claim, b"node-1"))
        old = await shared.write(b"count", 1, 0, fences=[fence])
        await shared.write(b"count", 2, 0, fences=[fence])
        with pytest.raises(VersionChanged):
            await shared.write(b"count", 3, 0, Precondition(version=old.version), [fence])
        with pytest.raises(KeyExists):
            await shared.write(b"count", 3, 0, Precondition(absent=True), [fence])

    async def test_a_key_that_reads_as_gone_still_refuses_only_if_absent(self, etcd: Etcd, keys: Keys) -> None:
        now = [1000.0]
        store = EtcdStore("app:s", "s", etcd, keys, clock=lambda: now[0])
        await store.write(b"lock", 1, 30)
        now[0] += 31  # a clock that runs ahead
        assert await store.read(b"lock") is None
        with pytest.raises(KeyExists):
            await store.write(b"lock", 2, 30, Precondition(absent=True))

    async def test_keys_of_one_ttl_share_a_lease_while_it_is_young(self, etcd: Etcd) -> None:
        now = [0.0]
        leases = Leases(etcd, clock=lambda: now[0])
        first = await leases.lease(32)
        assert await leases.lease(32) == first
        assert await leases.lease(33.1) != first
        assert await leases.lease(0) == 0
        now[0] += 1
        second = await leases.lease(32)
        assert second != first
        assert (await etcd.time_to_live(second)).granted >= 33

    async def test_however_many_different_ttls_there_are_the_leases_are_few_and_none_is_too_short(
        self, etcd: Etcd
    ) -> None:
        leases = Leases(etcd, clock=lambda: 0.0)
        asked = [60 + number / 7 for number in range(200)]
        given = {ttl: await leases.lease(ttl) for ttl in asked}
        assert len(set(given.values())) <= 25
        shortest: dict[int, float] = {}
        for ttl, lease in given.items():
            shortest.setdefault(lease, ttl)
            assert (await etcd.time_to_live(lease)).granted >= ttl
            assert (await etcd.time_to_live(lease)).granted <= shortest[lease] * (1 + 1 / 16) + 1

    async def test_to_delete_what_reads_as_gone_says_that_there_was_none(self, etcd: Etcd, keys: Keys) -> None:
        now = [1000.0]
        store = EtcdStore("app:s", "s", etcd, keys, clock=lambda: now[0])
        await store.write(b"a", 1, 30)
        now[0] += 31
        assert await store.delete(b"a") is False
        assert await etcd.get(f"{store.prefix}a") is None

    async def test_a_lease_that_ended_meanwhile_is_replaced(self, etcd: Etcd, shared: EtcdStore) -> None:
        await shared.write(b"a", 1, 1000)
        found = await etcd.get(f"{shared.prefix}a")
        assert found is not None
        await etcd.revoke(found.lease)
        await shared.write(b"b", 1, 1000)
        assert await shared.read(b"b") is not None


async def test_while_etcd_is_away_a_call_is_unavailable_within_its_deadline(
    own_servers: EmbeddedServers, cluster_name: str
) -> None:
    async with Etcd([own_servers.etcd_url], timeout=timedelta(milliseconds=300)) as etcd:
        store = EtcdStore("app:s", "s", etcd, Keys(cluster_name))
        await store.write(b"a", 1, 0)
        await own_servers.etcd.kill()
        async with asyncio.timeout(3):
            with pytest.raises(Unavailable):
                await store.read(b"a")
            with pytest.raises(Unavailable):
                await store.write(b"a", 2, 0)


@pytest.fixture
def stores(etcd: Etcd, keys: Keys, namespaces: Namespaces) -> Stores:
    return Stores(etcd, keys, lambda name: None, namespaces)


MEMORY = Entry("app:cache", "store.memory", {}, {"max_size": 2})
SHARED = Entry("app:shared", "store.kv.raft", {}, {"namespace": "shared"})
COPIED = Entry("app:copied", "store.kv.crdt", {}, {"namespace": "copied"})


class TestStores:
    async def test_stores_are_what_the_registry_says(self, stores: Stores) -> None:
        assert stores.handles("store.memory")
        assert not stores.handles("registry.entry")
        await stores.put(MEMORY)
        await stores.put(SHARED)
        assert stores.ids() == ["app:cache", "app:shared"]
        await stores.remove("app:cache")
        assert stores.find("app:cache") is None

    async def test_a_changed_entry_keeps_its_data(self, stores: Stores) -> None:
        await stores.put(MEMORY)
        store = stores.find("app:cache")
        assert store is not None
        await store.write(b"a", 1, 0)
        await stores.put(Entry("app:cache", "store.memory", {}, {"max_size": 1}))
        assert stores.find("app:cache") is store
        assert await store.read(b"a") is not None

    async def test_an_entry_that_can_not_be_used_keeps_the_former_store_and_says_why(self, stores: Stores) -> None:
        await stores.put(MEMORY)
        with pytest.raises(Invalid, match="max_size"):
            await stores.put(Entry("app:cache", "store.memory", {}, {"max_size": "many"}))
        assert stores.find("app:cache") is not None


PID = b"{node-1@app:processes|1-1}"


class Vm:
    """Collects the one answer asked for."""

    slot = 1
    host_id = "app:processes"

    def __init__(self) -> None:
        self.answers: asyncio.Queue[list[Any]] = asyncio.Queue()

    def post(self, item: list[Any]) -> None:
        self.answers.put_nowait(to_raw(item))


@pytest.fixture
async def ask(stores: Stores, etcd: Etcd, keys: Keys) -> AsyncIterator[Callable[..., Any]]:
    """``await ask(fn, args...)`` gives (error map, values); ``ask.fences`` are the claims of PIDs."""
    await stores.put(MEMORY)
    await stores.put(SHARED)
    await stores.put(COPIED)
    fences: dict[bytes, tuple[str, int]] = {}
    vm = Vm()
    async with Dispatcher([StoreModule(stores, lambda pid: [fences[pid]] if pid in fences else [])]) as dispatcher:

        async def call(fn: str, *args: Any, pid: bytes = PID) -> tuple[Any, list[Any]]:
            dispatcher.take(vm, [50, 1, pid, b"app:main", b"store", fn.encode(), list(args)])
            async with asyncio.timeout(5):
                _, _, error, values = await vm.answers.get()
            return error, values

        call.fences = fences  # type: ignore[attr-defined]
        yield call


class TestModule:
    @pytest.mark.parametrize("id", [b"app:cache", b"app:shared", b"app:copied"])
    async def test_the_functions_of_a_store(self, ask: Any, id: bytes) -> None:
        assert await ask("set", id, b"k", {b"n": 1}) == (None, [True])
        assert await ask("get", id, b"k") == (None, [{b"n": 1}])
        assert await ask("has", id, b"k") == (None, [True])
        error, (entry,) = await ask("entry", id, b"k")
        assert (error, entry[b"key"], entry[b"value"]) == (None, b"k", {b"n": 1})
        condition = {} if id == b"app:copied" else {b"if_version": entry[b"version"]}
        error, (put,) = await ask("put", id, b"k", b"new", {b"ttl": 60} | condition)
        assert (error, put[b"value"]) == (None, b"new")
        assert put[b"version"] != entry[b"version"]
        error, (page,) = await ask("list", id, {b"prefix": b"k", b"limit": 5})
        assert page == {b"items": [put], b"cursor": b"", b"has_more": False}
        assert await ask("delete", id, b"k") == (None, [True])
        assert await ask("has", id, b"k") == (None, [False])
        assert (await ask("get", id, b"k"))[0][b"kind"] == b"NotFound"

    async def test_info_says_what_a_store_can_do(self, ask: Any) -> None:
        _, (memory,) = await ask("info", b"app:cache")
        _, (shared,) = await ask("info", b"app:shared")
        assert (memory[b"backend"], memory[b"consistency"], memory[b"durable"]) == (b"memory", b"local", False)
        assert (shared[b"backend"], shared[b"consistency"], shared[b"durable"]) == (b"kv.raft", b"linearizable", True)
        _, (copied,) = await ask("info", b"app:copied")
        assert (copied[b"backend"], copied[b"consistency"], copied[b"durable"]) == (b"kv.crdt", b"eventual", False)
        assert [one[b"conditional_put"] for one in (memory, shared, copied)] == [True, True, False]
        assert set(memory) == {name.encode() for name in Info.__slots__}

    @pytest.mark.parametrize(
        ("fn", "args", "kind", "retryable"),
        [
            ("get", [b"app:nothing", b"k"], b"NotFound", False),
            ("get", [b"", b"k"], b"Invalid", False),
            ("get", [b"app:shared", b""], b"Invalid", False),
            ("get", [b"app:shared", 7], b"Invalid", False),
            ("set", [b"app:shared", b"k", None], b"Invalid", False),
            ("set", [b"app:shared", b"k", 1, b"soon"], b"Invalid", False),
            ("put", [b"app:shared", b"k", 1, {b"only_if_absent": True, b"if_version": b"1"}], b"Invalid", False),
            ("put", [b"app:shared", b"k", 1, {b"if_version": 1}], b"Invalid", False),
            ("put", [b"app:shared", b"k", 1, b"options"], b"Invalid", False),
            ("put", [b"app:shared", b"k", 1, {b"if_version": b"1"}], b"Conflict", True),
            ("put", [b"app:copied", b"k", 1, {b"only_if_absent": True}], b"Invalid", False),
            ("put", [b"app:copied", b"k", 1, {b"if_version": b"1"}], b"Invalid", False),
            ("list", [b"app:shared", {b"limit": True}], b"Invalid", False),
            ("list", [b"app:shared", {b"limit": 0}], b"Invalid", False),
            ("list", [b"app:shared", {b"limit": 1001}], b"Invalid", False),
            ("list", [b"app:shared", {b"prefix": 5}], b"Invalid", False),
            ("burn", [b"app:shared"], b"Invalid", False),
        ],
    )
    async def test_refusals_have_their_kind(
        self, ask: Any, fn: str, args: list[Any], kind: bytes, retryable: bool
    ) -> None:
        error, _ = await ask(fn, *args)
        assert (error[b"kind"], error[b"retryable"]) == (kind, retryable)

    async def test_only_if_absent_on_a_present_key_already_exists(self, ask: Any) -> None:
        await ask("set", b"app:shared", b"lock", 1)
        error, _ = await ask("put", b"app:shared", b"lock", 2, {b"only_if_absent": True})
        assert error[b"kind"] == b"AlreadyExists"

    async def test_a_full_memory_store_says_its_limit(self, ask: Any) -> None:
        for key in (b"a", b"b"):
            await ask("set", b"app:cache", key, 1)
        error, _ = await ask("set", b"app:cache", b"c", 1)
        assert (error[b"kind"], error[b"details"]) == (b"Unavailable", {b"limit": 2, b"unit": b"keys"})

    async def test_a_process_whose_service_went_elsewhere_is_a_stale_owner(
        self, ask: Any, etcd: Etcd, keys: Keys
    ) -> None:
        claim = keys.service("app:counter", 0)
        ask.fences[PID] = (claim, await etcd.put(claim, b"node-1"))
        assert await ask("set", b"app:shared", b"count", 1) == (None, [True])
        await etcd.put(claim, b"node-2")
        for call in (ask("set", b"app:shared", b"count", 2), ask("delete", b"app:shared", b"count")):
            error, _ = await call
            assert (error[b"kind"], error[b"retryable"]) == (b"PermissionDenied", False)
            assert error[b"details"][b"reason"] == b"stale_owner"
        assert await ask("set", b"app:shared", b"count", 9, pid=b"{node-1@app:processes|1-2}") == (None, [True])
