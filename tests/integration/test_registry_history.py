"""What the registry tells of its versions, catching up after a long absence, and large changes, on a real etcd."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.errors import Invalid, Problem, RegistryConflict, Unavailable
from cluster.etcd import Etcd, NoSpace, PrefixWatch, Room
from cluster.etcd import rpc_pb2 as rpc
from cluster.keys import Keys
from cluster.registry import (
    Create,
    Delete,
    Entry,
    Keep,
    Registry,
    RegistryState,
    Update,
    VersionNotFound,
    collect,
    open_registry,
)
from cluster.registry.changeset import Fold, Mark
from cluster.registry.snapshot import SNAPSHOT_EVERY
from tests.chaos.proxy import Proxy

pytestmark = pytest.mark.servers


def entry(name: str, n: int = 0) -> Entry:
    return Entry(f"app:{name}", "registry.entry", {}, {"n": n})


@pytest.fixture
def keys(cluster_name: str) -> Keys:
    return Keys(cluster_name)


@asynccontextmanager
async def node(url: str, keys: Keys, name: str, **options: Any) -> AsyncIterator[tuple[Registry, PrefixWatch]]:
    async with Etcd([url], timeout=timedelta(seconds=2)) as etcd:
        watch = PrefixWatch(etcd, keys.prefix, unloaded=[keys.blobs])
        registry = Registry(etcd, watch, keys, name, **options)
        async with watch, registry:
            yield registry, watch


class TestTelling:
    async def test_the_history_says_who_where_when_why_and_what(
        self, servers: EmbeddedServers, etcd: Etcd, keys: Keys
    ) -> None:
        began = datetime.now(UTC) - timedelta(seconds=1)
        async with node(servers.etcd_url, keys, "n1") as (registry, _), open_registry(etcd, keys, "cli:ann") as cli:
            await registry.commit([Create(entry("x")), Create(entry("y"))], message="first")
            await cli.reached(0)
            await cli.commit([Delete("app:x")])
            first, second = await cli.versions()
        assert (first.author, first.where, first.message, first.entries) == (
            "n1",
            "node n1",
            "first",
            ("app:x", "app:y"),
        )
        host = f"cli {socket.gethostname()}"
        assert (second.author, second.where, second.message, second.entries) == ("cli:ann", host, "", ("app:x",))
        assert began <= first.time <= second.time <= datetime.now(UTC)

    async def test_any_two_versions_can_be_compared_and_each_shows_its_operations(self, etcd: Etcd, keys: Keys) -> None:
        async with open_registry(etcd, keys, "a") as registry:
            await registry.commit([Create(entry("x", 1)), Create(entry("y", 1))])
            await registry.commit([Update(entry("x", 2))])
            await registry.commit([Delete("app:y"), Create(entry("z", 3))])
            changes = await registry.changes_between(0, 2)
            assert [(each.id, each.before, each.after) for each in changes] == [
                ("app:x", entry("x", 1), entry("x", 2)),
                ("app:y", entry("y", 1), None),
                ("app:z", None, entry("z", 3)),
            ]
            assert [each.id for each in await registry.changes_between(2, 1)] == ["app:y", "app:z"]
            assert (await registry.changeset(2)).operations == (Delete("app:y"), Create(entry("z", 3)))
            for wrong in (-1, 3):
                with pytest.raises(VersionNotFound):
                    await registry.changeset(wrong)

    async def test_versions_can_be_followed(self, etcd: Etcd, keys: Keys) -> None:
        async with open_registry(etcd, keys, "a") as registry, open_registry(etcd, keys, "b") as other:
            with registry.follow() as steps:
                for n in range(3):
                    await other.commit([Create(entry(f"e{n}"))], message=f"number {n}")
                for n in range(3):
                    step = await asyncio.wait_for(anext(steps), 10)
                    assert step.info is not None
                    assert (step.info.version, step.info.message, step.changed) == (n, f"number {n}", {f"app:e{n}"})
                    assert (step.before.version, step.after.version) == (n - 1, n)

    async def test_a_conflict_shows_the_versions_that_changed_the_same_entries(self, etcd: Etcd, keys: Keys) -> None:
        async with open_registry(etcd, keys, "a") as a, open_registry(etcd, keys, "ann") as b:
            await a.commit([Create(entry("x", 1)), Create(entry("y", 1))])
            await b.reached(0)
            await b.commit([Update(entry("x", 2))], message="faster")
            await b.commit([Update(entry("y", 2))], message="no matter")
            # so many that the record does not name them all
            await b.commit([*(Create(entry(f"a{n}")) for n in range(50)), Update(entry("x", 3))], message="release")
            with pytest.raises(RegistryConflict) as conflict:
                await a.commit([Update(entry("x", 9))], base_version=0)
        lost = conflict.value
        assert (lost.head, lost.changed) == (3, ["app:x"])
        assert [(each.version, each.author, each.message, each.entries[0]) for each in lost.meanwhile] == [
            (1, "ann", "faster", "app:x"),
            (3, "ann", "release", "app:x"),
        ]
        assert all(each.where.startswith("cli ") and each.time for each in lost.meanwhile)
        assert "v1 by ann at " in str(lost)
        assert "'release' changed app:x, app:a0, app:a1 and 48 more" in str(lost)

    async def test_only_changes_of_entries_can_be_asked_for(self, etcd: Etcd, keys: Keys) -> None:
        async with open_registry(etcd, keys, "a") as registry:
            await registry.commit([Create(entry("x", 1))])
            for operation in (Fold("app:x", {"n": 2}, 5), Mark("app:x", True)):
                with pytest.raises(Invalid, match=r"app:x: expected entry\.create, entry\.update or entry\.delete"):
                    await registry.commit([operation])


class TestShortWriters:
    async def test_programs_that_commit_once_and_end_write_snapshots_too(
        self, servers: EmbeddedServers, etcd: Etcd, keys: Keys
    ) -> None:
        """What a cluster does that is changed by commands only: without snapshots its history never ends."""
        for n in range(SNAPSHOT_EVERY + 1):
            async with open_registry(etcd, keys, "cli:ann") as cli:
                await cli.commit([(Update if n else Create)(entry("x", n))])
        snapshots = await etcd.range(keys.snapshots, keys_only=True)
        assert [kv.key for kv in snapshots.kvs] == [keys.snapshot(SNAPSHOT_EVERY - 1)]


class TestClient:
    async def test_a_program_outside_commits_like_everybody_and_is_checked(
        self, servers: EmbeddedServers, etcd: Etcd, keys: Keys
    ) -> None:
        def check(state: RegistryState) -> list[Problem]:
            return [Problem("too many", each.id) for each in state.entries()[2:]]

        async with open_registry(etcd, keys, "a") as a:
            await a.commit([Create(entry("x", 1))])
            async with Client([servers.nats_url], [servers.etcd_url], keys.cluster) as client:
                async with client.registry("billing", check) as registry:
                    info = await registry.commit([Create(entry("y"))], message="by program")
                    with pytest.raises(Invalid, match="app:z: too many"):
                        await registry.commit([Create(entry("z"))])
                    with pytest.raises(RegistryConflict):
                        await registry.commit([Create(entry("y"))], base_version=0)
            assert (await a.reached(1)).get("app:y") == entry("y")
        assert (info.author, info.where, info.message) == ("billing", f"client {socket.gethostname()}", "by program")


class TestAbsence:
    async def test_a_node_away_for_longer_than_the_history_catches_up_from_a_snapshot(
        self, own_servers: EmbeddedServers, keys: Keys
    ) -> None:
        """Its watch finds the history compacted, and the versions it lacks are collected."""
        target = urlsplit(own_servers.etcd_url).port
        assert target is not None
        async with Etcd([own_servers.etcd_url]) as etcd, Proxy(target) as proxy:
            async with (
                node(proxy.url, keys, "far") as (far, watch),
                node(own_servers.etcd_url, keys, "near", snapshot_every=5) as (near, _),
            ):
                await near.commit([Create(entry("x", 0)), Create(entry("gone"))])
                await far.reached(0)
                seen: list[int] = []
                far.on_change(lambda before, after, changed: seen.append(after.version))
                await proxy.cut()
                await near.commit([Delete("app:gone")])
                for n in range(1, 20):
                    await near.commit([Update(entry("x", n))])
                async with asyncio.timeout(10):
                    while not (await collect(etcd, keys, Keep(3, time=timedelta(0)))).changes:
                        await asyncio.sleep(0.02)  # the snapshot is written beside the commits
                await collect(etcd, keys, Keep(3, time=timedelta(0)))
                await etcd.compact(await etcd.revision())
                await proxy.mend()
                assert (await far.reached(20, timedelta(seconds=20))).payload() == near.state.payload()
                assert watch.stats().relists >= 1
                assert seen == [20], "it could not go through the versions in between"
                with pytest.raises(VersionNotFound):
                    await far.state_at(1)
                await far.commit([Update(entry("x", 99))])
                assert (await near.reached(21)).get("app:x") == entry("x", 99)


async def defragment_and_disarm(url: str) -> None:
    """The remedy, as `etcdctl defrag` and `etcdctl alarm disarm` do it."""
    async with grpc.aio.insecure_channel(urlsplit(url).netloc) as channel:
        call = "/etcdserverpb.Maintenance/"
        status = rpc.StatusResponse.FromString(await channel.unary_unary(f"{call}Status")(b""))
        await channel.unary_unary(f"{call}Defragment")(b"")
        # AlarmRequest{action: DEACTIVATE, memberID, alarm: NOSPACE}; Member has the number in field 1
        member = rpc.Member(ID=status.header.member_id).SerializeToString()[1:]
        await channel.unary_unary(f"{call}Alarm")(b"\x08\x02\x10" + member + b"\x18\x01")


class TestRoom:
    async def test_a_full_etcd_refuses_changes_naming_the_remedy_and_goes_on_afterwards(
        self, binaries: None, keys: Keys
    ) -> None:
        quota = 2 * 1024 * 1024
        servers = EmbeddedServers(with_nats=False, etcd_args=[f"--quota-backend-bytes={quota}"])
        async with servers, node(servers.etcd_url, keys, "n1") as (registry, _), Etcd([servers.etcd_url]) as etcd:
            room = Room(etcd, quota=quota)
            lease = await etcd.grant(60)
            await etcd.put(keys.blob("dead", 0), b"of a writer that died")
            await registry.commit([Create(entry("x", 1))])
            await room.look()
            assert (room.remarks(), room.latest and room.latest.alarms) == ([], ())
            with pytest.raises(NoSpace):
                for n in range(200):  # it looks at its size only now and then
                    await etcd.put(f"/other/{n % 10}", b"x" * 500_000)
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"alarm NOSPACE.*nothing was changed.*etcdctl alarm disarm"):
                await registry.commit([Update(entry("x", 2))])
            assert time.monotonic() - began < 10, "it does not try until its deadline"
            await room.look()
            assert "NOSPACE" in room.remarks()[0]
            assert "quota-backend-bytes" in room.remarks()[0]
            async with node(servers.etcd_url, keys, "n2") as (late, _):
                assert late.state.get("app:x") == entry("x", 1), "nodes go on reading, and new ones start"
            assert (await collect(etcd, keys)).blobs == ["dead"], "the collector still works"
            assert await etcd.get(keys.blob("dead", 0)) is None
            assert await etcd.keep_alive(lease.id) > 0, "who is alive stays alive"
            with pytest.raises(NoSpace):
                await etcd.grant(60)
            await etcd.delete_prefix("/other/")
            await etcd.compact(await etcd.revision())
            await defragment_and_disarm(servers.etcd_url)
            assert (await registry.commit([Update(entry("x", 3))])).version == 1
            await room.look()
            assert not room.remarks()

    async def test_an_etcd_that_nobody_compacts_is_noticed(self, own_servers: EmbeddedServers) -> None:
        async with Etcd([own_servers.etcd_url]) as etcd:
            for n in range(5):
                await etcd.put("/a", str(n).encode())
            room = Room(etcd, uncompacted=3, every=timedelta(milliseconds=10))
            async with room, asyncio.timeout(10):
                while not room.remarks():
                    await asyncio.sleep(0.01)
                assert "nobody compacts etcd" in room.remarks()[0]
                await etcd.compact(await etcd.revision())
                while room.remarks():
                    await asyncio.sleep(0.01)


class TestLarge:
    async def test_twenty_megabytes_are_one_version_and_the_event_loop_goes_on_meanwhile(
        self, servers: EmbeddedServers, keys: Keys
    ) -> None:
        text = "local x = 1 -- twenty-eight b\n" * 340
        changes = [Create(Entry(f"app:e{n}", "process.lua", {}, {"source": text})) for n in range(2_000)]
        checked = 0

        def check(state: RegistryState) -> list[Problem]:
            """As slow as compiling it all."""
            nonlocal checked
            until = time.monotonic() + 3
            while time.monotonic() < until:
                checked += 1
            return []

        async with (
            node(servers.etcd_url, keys, "a", validator=check) as (a, _),
            node(servers.etcd_url, keys, "b") as (b, _),
        ):
            longest, going = 0.0, True

            async def tick() -> None:
                nonlocal longest
                while going:
                    began = time.monotonic()
                    await asyncio.sleep(0.001)
                    longest = max(longest, time.monotonic() - began)

            async def work() -> None:
                nonlocal going
                await a.commit(changes)
                state = await b.reached(0, timedelta(seconds=30))
                assert len(state) == 2_000
                await b.rollback(0)
                await b.publish([each.entry for each in changes], "always")
                async with asyncio.timeout(20):
                    while not (await a.versions())[0].changed:
                        await asyncio.sleep(0.01)
                going = False

            await asyncio.gather(work(), tick())
            assert checked
            assert longest < 2.5, "a fifth of a second without neighbours; the node is taken for wedged after ten"
        async with node(servers.etcd_url, keys, "late") as (late, _):
            assert late.state.get("app:e1999") == changes[-1].entry


class TestDocument:
    async def test_the_program_of_the_page_runs(self, servers: EmbeddedServers, etcd: Etcd, keys: Keys) -> None:
        page = Path(__file__).parents[2] / "docs" / "registry.md"
        (program,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        async with open_registry(etcd, keys, "a") as registry:
            await registry.commit([Create(Entry("app:limits", "registry.entry", {}, {"rate": 5}))])
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, servers.nats_url, servers.etcd_url, keys.cluster, stdout=subprocess.PIPE
        )
        async with asyncio.timeout(60):
            shown, _ = await running.communicate()
        assert shown.decode().splitlines() == [
            "v1 by billing: end of the month",
            "app:limits {'rate': 5} -> {'rate': 9}",
        ]
