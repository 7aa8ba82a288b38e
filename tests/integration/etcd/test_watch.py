"""The watch keeps order, loses nothing and doubles nothing, whatever happens to etcd and the network."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta

import pytest

from cluster.embedded import EmbeddedServers
from cluster.errors import CallTimeout, Unavailable
from cluster.etcd import Batch, Delete, Etcd, KeyEvent, PrefixWatch, Put
from cluster.tasks import Tasks
from tests.chaos.proxy import Proxy

pytestmark = pytest.mark.servers


@pytest.fixture
def base(cluster_name: str) -> str:
    return f"/wippy/{cluster_name}/"


async def until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.005)


def names(events: list[KeyEvent], base: str) -> list[str]:
    """``+key`` for a put and ``-key`` for a deletion."""
    return [("-" if event.deleted else "+") + event.kv.key.removeprefix(base) for event in events]


class Record:
    """A subscriber that keeps what it is told."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def __call__(self, batch: Batch) -> None:
        self.batches.append(batch)

    @property
    def events(self) -> list[KeyEvent]:
        return [event for batch in self.batches for event in batch.events]

    def state(self) -> dict[str, bytes]:
        """The keys and values somebody has who follows the batches."""
        state: dict[str, bytes] = {}
        for event in self.events:
            if event.deleted:
                del state[event.kv.key]
            else:
                state[event.kv.key] = event.kv.value
        return state


class TestFollowing:
    async def test_state_at_the_start_is_one_batch(self, etcd: Etcd, base: str) -> None:
        await etcd.txn([], [Put(base + "a", b"1"), Put(base + "b", b"2")])
        watch, record = PrefixWatch(etcd, base), Record()
        watch.subscribe(base, record)
        async with watch:
            [batch] = record.batches
            assert batch.relist
            assert batch.revision == watch.applied
            assert names(batch.events, base) == ["+a", "+b"]

    async def test_events_of_a_transaction_are_one_batch_in_order(self, etcd: Etcd, base: str) -> None:
        await etcd.put(base + "old", b"")
        watch, record = PrefixWatch(etcd, base), Record()
        watch.subscribe(base, record)
        async with watch:
            result = await etcd.txn([], [Put(base + "a", b"1"), Delete(base + "old"), Put(base + "b", b"2")])
            await watch.reached(result.revision)
            batch = record.batches[-1]
            assert (batch.revision, batch.relist) == (result.revision, False)
            assert names(batch.events, base) == ["+a", "-old", "+b"]
            assert {event.kv.mod_revision for event in batch.events} == {result.revision}

    async def test_subscriber_is_called_for_its_prefix_alone(self, etcd: Etcd, base: str) -> None:
        watch, nodes, all_keys = PrefixWatch(etcd, base), Record(), Record()
        watch.subscribe(base + "nodes/", nodes)
        watch.subscribe(base, all_keys)
        async with watch:
            await etcd.put(base + "names/x", b"")
            last = await etcd.txn([], [Put(base + "nodes/n", b""), Put(base + "names/y", b"")])
            await watch.reached(last.revision)
        assert [names(batch.events, base) for batch in nodes.batches] == [[], ["+nodes/n"]]
        assert [names(batch.events, base) for batch in all_keys.batches[1:]] == [["+names/x"], ["+nodes/n", "+names/y"]]

    async def test_unloaded_prefix_is_followed_but_not_read(self, etcd: Etcd, base: str) -> None:
        await etcd.txn([], [Put(base + "kv/old", b""), Put(base + "a", b""), Put(base + "z", b"")])
        watch, record = PrefixWatch(etcd, base, unloaded=[base + "kv/"]), Record()
        watch.subscribe(base, record)
        async with watch:
            await etcd.put(base + "kv/new", b"")
            await until(lambda: len(record.batches) == 2, "the new key")
        assert names(record.events, base) == ["+a", "+z", "+kv/new"]

    async def test_undone_subscription_hears_no_more(self, etcd: Etcd, base: str) -> None:
        watch, record = PrefixWatch(etcd, base), Record()
        undo = watch.subscribe(base, record)
        async with watch:
            await watch.reached(await etcd.put(base + "a", b""))
            undo()
            await watch.reached(await etcd.put(base + "b", b""))
        assert names(record.events, base) == ["+a"]

    async def test_failing_subscriber_harms_nobody_else(self, etcd: Etcd, base: str) -> None:
        def fail(batch: Batch) -> None:
            raise RuntimeError("no")

        watch, record = PrefixWatch(etcd, base), Record()
        watch.subscribe(base, fail)
        watch.subscribe(base, record)
        async with watch:
            await watch.reached(await etcd.put(base + "a", b""))
            assert names(record.events, base) == ["+a"]
            assert watch.stats().handler_failures == 2

    async def test_subscription_outside_the_prefix_is_refused(self, etcd: Etcd, base: str) -> None:
        with pytest.raises(ValueError, match="expected a prefix under"):
            PrefixWatch(etcd, base).subscribe("/elsewhere/", Record())

    async def test_start_without_etcd_says_so(self, own_servers: EmbeddedServers) -> None:
        await own_servers.etcd.kill()
        async with Etcd([own_servers.etcd_url], timeout=timedelta(seconds=0.2)) as etcd:
            with pytest.raises(Unavailable):
                async with PrefixWatch(etcd, "/"):
                    pass


class TestReached:
    async def test_revision_of_another_prefix_is_reached(self, etcd: Etcd, base: str) -> None:
        watch, record = PrefixWatch(etcd, base + "mine/"), Record()
        watch.subscribe(base + "mine/", record)
        async with watch:
            elsewhere = await etcd.put(base + "other", b"")
            await watch.reached(elsewhere)
            assert watch.applied >= elsewhere
            assert record.events == []

    async def test_state_is_known_when_reached_returns(self, servers: EmbeddedServers, etcd: Etcd, base: str) -> None:
        """Also when the revision waited for is of another prefix and the watch is behind: it lost its connection."""
        async with Proxy(servers.etcd.port) as proxy, Etcd([proxy.url]) as far:
            watch, record = PrefixWatch(far, base + "mine/"), Record()
            watch.subscribe(base + "mine/", record)
            async with watch:
                for number in range(20):
                    await proxy.cut()
                    await etcd.put(f"{base}mine/{number}", b"")
                    if number % 3 == 0:
                        await etcd.delete(f"{base}mine/{number // 2}")
                    elsewhere = await etcd.put(base + "other", b"")
                    await proxy.mend()
                    await watch.reached(elsewhere)
                    now = await etcd.range(base + "mine/", revision=elsewhere)
                    assert record.state() == {kv.key: kv.value for kv in now.kvs}

    async def test_deadline_holds_while_etcd_is_away(self, own_servers: EmbeddedServers) -> None:
        async with Etcd([own_servers.etcd_url]) as etcd, PrefixWatch(etcd, "/a/") as watch:
            await own_servers.etcd.kill()
            started = time.monotonic()
            with pytest.raises(CallTimeout, match="watch of /a/ to reach revision 1000"):
                await watch.reached(1000, timedelta(seconds=0.3))
            assert time.monotonic() - started < 1


class TestBadWeather:
    async def test_nothing_is_lost_or_doubled_over_kills_of_etcd_under_load(self, own_servers: EmbeddedServers) -> None:
        """Writers go on through three kill -9. Each key's versions must be seen as 1, 2, 3, ... to its last."""
        async with Etcd([own_servers.etcd_url]) as etcd, Etcd([own_servers.etcd_url]) as writer_etcd:
            watch, record = PrefixWatch(etcd, "/load/"), Record()
            watch.subscribe("/load/", record)
            stop = asyncio.Event()
            written = 0

            async def write(worker: int) -> None:
                nonlocal written
                dice = random.Random(worker)
                while not stop.is_set():
                    await writer_etcd.put(f"/load/{worker}/{dice.randrange(5)}", b"v", repeatable=True)
                    written += 1

            async with watch, Tasks("writers") as writers:
                workers = [writers.start(write(worker), f"writer {worker}") for worker in range(8)]
                for _ in range(3):
                    goal = written + 300
                    await until(lambda goal=goal: written > goal, "writers go on")  # type: ignore[misc]
                    await own_servers.etcd.kill()
                    await own_servers.etcd.start()
                goal = written + 300
                await until(lambda: written > goal, "writers go on")
                stop.set()
                await asyncio.gather(*workers)
                await watch.reached(await etcd.revision())

                revisions = [batch.revision for batch in record.batches]
                assert revisions == sorted(set(revisions))
                versions = defaultdict(list)
                for event in record.events:
                    versions[event.kv.key].append(event.kv.version)
                final = {kv.key: kv.version for kv in (await etcd.range("/load/")).kvs}
                assert versions == {key: list(range(1, last + 1)) for key, last in final.items()}
                assert watch.stats().reconnects >= 3
                assert watch.stats().relists == 0

    async def test_compaction_while_cut_off_gives_exactly_the_differences(self, own_servers: EmbeddedServers) -> None:
        async with Etcd([own_servers.etcd_url]) as etcd, Proxy(own_servers.etcd.port) as proxy:
            await etcd.txn([], [Put("/c/same", b""), Put("/c/changed", b"1"), Put("/c/gone", b"")])
            async with Etcd([proxy.url]) as far:
                watch, record, other = PrefixWatch(far, "/c/"), Record(), Record()
                watch.subscribe("/c/", record)
                watch.subscribe("/c/other/", other)
                back: list[int] = []
                watch.on_return(lambda: back.append(watch.applied))
                async with watch:
                    await proxy.cut()
                    assert back == []
                    await etcd.txn([], [Put("/c/changed", b"2"), Delete("/c/gone"), Put("/c/new", b"")])
                    await etcd.put("/c/brief", b"")
                    last = await etcd.txn([], [Delete("/c/brief")])
                    await etcd.compact(last.revision)
                    await proxy.mend()
                    await watch.reached(last.revision)
                    await until(lambda: len(record.batches) == 2, "the differences")
                    batch = record.batches[1]
                    assert batch.relist
                    assert names(batch.events, "/c/") == ["-gone", "+changed", "+new"]
                    assert other.batches[1] == Batch(batch.revision, [], relist=True)
                    # and the watch goes on from there
                    await watch.reached(await etcd.put("/c/after", b""))
                    assert names(record.batches[-1].events, "/c/") == ["+after"]
                    assert watch.stats().relists == 1
                    assert back, "it says when etcd is there again"

    async def test_catching_up_on_more_than_the_receive_limit_reads_anew(self, own_servers: EmbeddedServers) -> None:
        """While cut off, 72 MiB are written: etcd sends them as one message, which is over the limit of 64 MiB."""
        async with Etcd([own_servers.etcd_url]) as etcd, Proxy(own_servers.etcd.port) as proxy:
            async with Etcd([proxy.url], timeout=timedelta(seconds=20)) as far:
                watch, record = PrefixWatch(far, "/big/"), Record()
                watch.subscribe("/big/", record)
                async with watch:
                    await proxy.cut()
                    for number in range(12):
                        await etcd.put(f"/big/{number:02d}", b"x" * 6 * 1024 * 1024)
                    await proxy.mend()
                    await until(lambda: watch.stats().relists == 1, "the state read anew", seconds=30)
                    await until(lambda: len(record.state()) == 12, "every key", seconds=30)
                    await watch.reached(await etcd.put("/big/after", b""))
                    assert names(record.batches[-1].events, "/big/") == ["+after"]

    async def test_store_put_back_to_an_earlier_time_is_noticed(self, own_servers: EmbeddedServers) -> None:
        async with Etcd([own_servers.etcd_url]) as etcd:
            for _ in range(20):
                await etcd.put("/r/a", b"before")
            await etcd.put("/r/gone", b"")
            watch, record = PrefixWatch(etcd, "/r/"), Record()
            watch.subscribe("/r/", record)
            async with watch:
                await own_servers.etcd.kill()
                shutil.rmtree(own_servers.etcd.directory)
                await own_servers.etcd.start()
                revision = await etcd.put("/r/a", b"after")
                await until(lambda: record.state() == {"/r/a": b"after"}, "the new state")
                assert watch.applied < 20
                await watch.reached(revision)
                await watch.reached(await etcd.put("/r/b", b""))
                assert record.state() == {"/r/a": b"after", "/r/b": b""}

    @pytest.mark.slow
    async def test_connection_gone_silent_is_noticed_and_replaced(self, own_servers: EmbeddedServers) -> None:
        """A stopped etcd answers nothing, and its connections stay open: only pings tell."""
        async with Etcd([own_servers.etcd_url]) as etcd, PrefixWatch(etcd, "/a/") as watch:
            own_servers.etcd.signal(signal.SIGSTOP)
            await until(lambda: not watch.stats().connected, "the silence noticed", seconds=25)
            own_servers.etcd.signal(signal.SIGCONT)
            await watch.reached(await etcd.put("/a/b", b""), timedelta(seconds=10))
            assert watch.stats().keys == 1

    async def test_one_lease_with_sixty_thousand_keys_ends_as_one_batch(self, etcd: Etcd, base: str) -> None:
        """7 MB in one message, more than gRPC takes by default."""
        lease = await etcd.grant(60)
        name = base + "names/" + "n" * 80
        for start in range(0, 60_000, 4000):
            await etcd.txn([], [Put(f"{name}{number}", b"", lease.id) for number in range(start, start + 4000)])
        watch, record = PrefixWatch(etcd, base), Record()
        watch.subscribe(base, record)
        async with watch:
            await etcd.revoke(lease.id)
            await until(lambda: len(record.batches) > 1, "the deletions")
            [_, batch] = record.batches
            assert len(batch.events) == 60_000
            assert all(event.deleted for event in batch.events)
            assert watch.stats().reconnects == 0
            assert watch.stats().keys == 0
