"""Reads, writes and transactions against a real etcd."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from cluster.embedded import EmbeddedServers, free_port
from cluster.errors import OutcomeUnknown, Unavailable
from cluster.etcd import Compacted, Compare, Delete, Etcd, EtcdRefused, Get, LeaseGone, Put, TooLarge
from cluster.tasks import Tasks
from tests.chaos.proxy import Proxy, Way

pytestmark = pytest.mark.servers


@pytest.fixture
def base(cluster_name: str) -> str:
    return f"/wippy/{cluster_name}/"


async def fill(etcd: Etcd, prefix: str, count: int, value: bytes = b"v", lease: int = 0) -> None:
    for start in range(0, count, 2000):
        keys = range(start, min(start + 2000, count))
        await etcd.txn([], [Put(f"{prefix}{number:06d}", value, lease) for number in keys])


class TestReadingAndWriting:
    async def test_key_put_is_read_with_its_revisions(self, etcd: Etcd, base: str) -> None:
        first = await etcd.put(base + "k", b"1")
        second = await etcd.put(base + "k", b"2")
        kv = await etcd.get(base + "k")
        assert kv is not None
        assert (kv.value, kv.create_revision, kv.mod_revision, kv.version) == (b"2", first, second, 2)

    async def test_absent_key_is_none(self, etcd: Etcd, base: str) -> None:
        assert await etcd.get(base + "nothing") is None

    async def test_older_value_is_read_at_its_revision(self, etcd: Etcd, base: str) -> None:
        first = await etcd.put(base + "k", b"1")
        await etcd.put(base + "k", b"2")
        kv = await etcd.get(base + "k", revision=first)
        assert kv is not None
        assert kv.value == b"1"

    async def test_delete_tells_whether_there_was_one(self, etcd: Etcd, base: str) -> None:
        await etcd.put(base + "k", b"1")
        assert await etcd.delete(base + "k") is True
        assert await etcd.delete(base + "k") is False

    async def test_delete_prefix_counts_and_leaves_the_neighbours(self, etcd: Etcd, base: str) -> None:
        for key in ("a/1", "a/2", "b"):
            await etcd.put(base + key, b"")
        assert await etcd.delete_prefix(base + "a/") == 2
        assert [kv.key for kv in (await etcd.range(base)).kvs] == [base + "b"]

    async def test_future_revision_is_refused(self, etcd: Etcd, base: str) -> None:
        with pytest.raises(EtcdRefused, match="future revision"):
            await etcd.get(base + "k", revision=10**12)


class TestPaging:
    async def test_twenty_thousand_keys_come_in_order_at_one_revision(self, etcd: Etcd, base: str) -> None:
        await fill(etcd, base, 20_000)
        whole = await etcd.range(base)
        assert [kv.key for kv in whole.kvs] == [f"{base}{number:06d}" for number in range(20_000)]
        assert whole.revision >= whole.kvs[-1].mod_revision
        assert not whole.more

    async def test_pages_do_not_see_writes_made_meanwhile(self, etcd: Etcd, base: str) -> None:
        await fill(etcd, base, 3000, b"old")
        revision = await etcd.revision()
        await fill(etcd, base, 3000, b"new")
        assert {kv.value for kv in (await etcd.range(base, revision=revision)).kvs} == {b"old"}

    async def test_limit_start_after_and_keys_only(self, etcd: Etcd, base: str) -> None:
        await fill(etcd, base, 10, b"value")
        part = await etcd.range(base, start_after=f"{base}000003", limit=2, keys_only=True)
        assert [(kv.key, kv.value) for kv in part.kvs] == [(f"{base}000004", b""), (f"{base}000005", b"")]
        assert part.more

    async def test_exact_range_excludes_its_end(self, etcd: Etcd, base: str) -> None:
        await fill(etcd, base, 5)
        part = await etcd.range("", exact_range=(f"{base}000001", f"{base}000003"))
        assert [kv.key for kv in part.kvs] == [f"{base}000001", f"{base}000002"]

    async def test_large_values_are_read_in_smaller_pages(self, etcd: Etcd, base: str) -> None:
        """68 MiB under one prefix: no single answer may be over the receive limit of 64 MiB."""
        for number in range(17):
            await etcd.put(f"{base}{number:02d}", b"x" * 4 * 1024 * 1024)
        whole = await etcd.range(base)
        assert [len(kv.value) for kv in whole.kvs] == [4 * 1024 * 1024] * 17
        await etcd.delete_prefix(base)


class TestTransactions:
    async def test_compares_that_hold_apply_all_at_one_revision(self, etcd: Etcd, base: str) -> None:
        await etcd.put(base + "gone", b"")
        result = await etcd.txn(
            [Compare.absent(base + "a")],
            [Put(base + "a", b"1"), Put(base + "b", b"2"), Delete(base + "gone"), Get(base, whole_prefix=True)],
        )
        assert result.succeeded
        put_a, put_b, deleted, listed = result.responses
        assert (put_a, put_b, deleted) == (None, None, 1)
        assert isinstance(listed, list)
        assert [(kv.key, kv.mod_revision) for kv in listed] == [
            (base + "a", result.revision),
            (base + "b", result.revision),
        ]

    async def test_compares_that_fail_take_the_other_branch(self, etcd: Etcd, base: str) -> None:
        revision = await etcd.put(base + "a", b"theirs")
        result = await etcd.txn([Compare.absent(base + "a")], [Put(base + "a", b"mine")], [Get(base + "a")])
        assert not result.succeeded
        [[kv]] = result.responses  # type: ignore[misc]
        assert (kv.value, kv.mod_revision) == (b"theirs", revision)

    async def test_every_kind_of_compare_holds_when_true_and_fails_when_false(self, etcd: Etcd, base: str) -> None:
        lease = await etcd.grant(60)
        create = await etcd.put(base + "k", b"1", lease=lease.id)
        mod = await etcd.put(base + "k", b"2", lease=lease.id)
        pairs = [
            (Compare.mod(base + "k", "=", mod), Compare.mod(base + "k", "<", mod)),
            (Compare.create(base + "k", "=", create), Compare.create(base + "k", ">", create)),
            (Compare.version(base + "k", "=", 2), Compare.version(base + "k", "!=", 2)),
            (Compare.value(base + "k", "=", b"2"), Compare.value(base + "k", "=", b"1")),
            (Compare.lease(base + "k", "=", lease.id), Compare.lease(base + "k", "=", 1)),
            (Compare.present(base + "k"), Compare.absent(base + "k")),
            (Compare.mod_prefix(base, "<", mod + 1), Compare.mod_prefix(base, "<", mod)),
        ]
        for true, false in pairs:
            assert (await etcd.txn([true], [])).succeeded, true
            assert not (await etcd.txn([false], [])).succeeded, false

    async def test_prefix_compare_fails_for_a_single_newer_key(self, etcd: Etcd, base: str) -> None:
        await fill(etcd, base, 100)
        seen = await etcd.revision()
        assert (await etcd.txn([Compare.mod_prefix(base, "<", seen + 1)], [])).succeeded
        await etcd.put(base + "000050", b"new")
        assert not (await etcd.txn([Compare.mod_prefix(base, "<", seen + 1)], [])).succeeded

    async def test_key_put_twice_is_refused_in_etcds_words(self, etcd: Etcd, base: str) -> None:
        with pytest.raises(EtcdRefused, match="duplicate key"):
            await etcd.txn([], [Put(base + "a", b"1"), Put(base + "a", b"2")])

    async def test_too_many_operations_are_refused_with_the_remedy(self, etcd: Etcd, base: str) -> None:
        with pytest.raises(TooLarge, match="--max-txn-ops"):
            await etcd.txn([], [Put(f"{base}{number}", b"") for number in range(4097)])

    async def test_too_large_a_value_is_refused_with_the_remedy(self, etcd: Etcd, base: str) -> None:
        with pytest.raises(TooLarge, match="--max-request-bytes"):
            await etcd.put(base + "a", b"x" * 9 * 1024 * 1024)


class TestLeases:
    async def test_keys_live_and_end_with_their_lease(self, etcd: Etcd, base: str) -> None:
        lease = await etcd.grant(60)
        await etcd.put(base + "a", b"", lease=lease.id)
        assert (await etcd.time_to_live(lease.id, keys=True)).keys == [base + "a"]
        assert await etcd.revoke(lease.id) is True
        assert await etcd.get(base + "a") is None
        assert await etcd.revoke(lease.id) is False

    async def test_renewal_answers_the_ttl_and_zero_when_the_lease_is_gone(self, etcd: Etcd) -> None:
        lease = await etcd.grant(60)
        assert await etcd.keep_alive(lease.id) == 60
        await etcd.revoke(lease.id)
        assert await etcd.keep_alive(lease.id) == 0
        assert (await etcd.time_to_live(lease.id)).remaining == -1

    async def test_put_on_a_lease_that_is_gone_says_so(self, etcd: Etcd, base: str) -> None:
        with pytest.raises(LeaseGone, match="grant a new one"):
            await etcd.put(base + "a", b"", lease=12345)


class TestLostAnswers:
    async def test_transaction_is_sent_once_and_its_outcome_unknown(
        self, servers: EmbeddedServers, etcd: Etcd, base: str
    ) -> None:
        async with Proxy(servers.etcd.port) as proxy, Etcd([proxy.url], timeout=timedelta(seconds=0.5)) as far:
            await far.get(base + "a")
            proxy.lose(Way.BACK)
            with pytest.raises(OutcomeUnknown, match="may have been applied"):
                await far.txn([], [Put(base + "a", b"1")])
            kv = await etcd.get(base + "a")
            assert kv is not None
            assert kv.version == 1

    async def test_plain_put_is_sent_once_and_a_repeatable_one_again(
        self, servers: EmbeddedServers, etcd: Etcd, base: str
    ) -> None:
        async with Proxy(servers.etcd.port) as proxy, Etcd([proxy.url], timeout=timedelta(seconds=5)) as far:
            await far.get(base + "a")
            proxy.lose(Way.BACK)

            async def cut_when_applied(key: str) -> None:
                while await etcd.get(key) is None:
                    pass
                await proxy.cut()
                await proxy.mend()

            async with Tasks("test") as together:
                cutting = together.start(cut_when_applied(base + "a"), "cut")
                with pytest.raises(OutcomeUnknown):
                    await far.put(base + "a", b"1")
                await cutting
            await far.get(base + "a")
            proxy.lose(Way.BACK)
            async with Tasks("test") as together:
                cutting = together.start(cut_when_applied(base + "b"), "cut")
                await far.put(base + "b", b"1", repeatable=True)
                await cutting
            again = await etcd.get(base + "b")
            assert again is not None
            assert again.version == 2

    async def test_read_is_asked_again_on_a_new_connection(self, own_servers: EmbeddedServers) -> None:
        async with Etcd([own_servers.etcd_url]) as etcd:
            await etcd.put("/a", b"1")
            await own_servers.etcd.kill()
            async with Tasks("test") as together:
                together.start(own_servers.etcd.start(), "start")
                assert await etcd.get("/a") is not None


class TestEndpoints:
    async def test_dead_first_endpoint_costs_nothing(self, servers: EmbeddedServers, base: str) -> None:
        async with Etcd([f"http://127.0.0.1:{free_port()}", servers.etcd_url]) as etcd:
            started = time.monotonic()
            await etcd.put(base + "a", b"1")
            assert time.monotonic() - started < 1

    async def test_calls_go_on_when_the_endpoint_in_use_is_cut(self, servers: EmbeddedServers, base: str) -> None:
        async with Proxy(servers.etcd.port) as first, Proxy(servers.etcd.port) as second:
            async with Etcd([first.url, second.url]) as etcd:
                await etcd.put(base + "a", b"1")
                await first.cut()
                assert await etcd.get(base + "a") is not None
                await etcd.txn([], [Put(base + "a", b"2")])
                await first.mend()
                await second.cut()
                assert await etcd.get(base + "a") is not None

    async def test_endpoint_that_swallows_answers_is_left_for_the_next(
        self, servers: EmbeddedServers, base: str
    ) -> None:
        async with Proxy(servers.etcd.port) as first, Proxy(servers.etcd.port) as second:
            async with Etcd([first.url, second.url], timeout=timedelta(seconds=2)) as etcd:
                await etcd.get(base + "a")
                first.lose(Way.BACK)
                second.lose(Way.BACK)
                await second.mend()
                assert await etcd.get(base + "a") is None

    async def test_nobody_there_is_unavailable_with_the_reason_and_in_time(self) -> None:
        port = free_port()
        started = time.monotonic()
        async with Etcd([f"http://127.0.0.1:{port}"], timeout=timedelta(seconds=0.3)) as etcd:
            with pytest.raises(Unavailable, match=rf"no connection to etcd at http://127.0.0.1:{port} .*refused"):
                await etcd.txn([], [Put("/a", b"")])
        assert time.monotonic() - started < 2


async def test_compacted_revision_says_so(own_servers: EmbeddedServers) -> None:
    async with Etcd([own_servers.etcd_url]) as etcd:
        old = await etcd.put("/a", b"1")
        await etcd.compact(await etcd.put("/a", b"2"))
        with pytest.raises(Compacted, match="read the current state instead"):
            await etcd.get("/a", revision=old)
