"""The registry on a real etcd: several replicas, concurrent writers, publishing, history, overlays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from cluster.embedded import EmbeddedServers
from cluster.errors import Invalid, Problem, RegistryConflict
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.registry import (
    ABSENT,
    Collector,
    Create,
    Delete,
    Entry,
    Folding,
    Keep,
    Origin,
    PushConflict,
    Registry,
    RegistryState,
    Take,
    Update,
    Verdict,
    VersionNotFound,
    collect,
    open_registry,
    read_floor,
)
from cluster.registry.collect import read_log
from cluster.registry.snapshot import write_snapshot
from cluster.registry.status import OverlayStatus, report, status_of
from cluster.registry.store import Store

pytestmark = pytest.mark.servers

Open = Callable[..., Awaitable[Registry]]
WITHIN = timedelta(seconds=10)


def entry(name: str, n: int = 0, kind: str = "registry.entry", **meta: Any) -> Entry:
    return Entry(f"app:{name}", kind, meta, {"n": n})


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.005)


async def has_snapshots(etcd: Etcd, keys: Keys, count: int) -> bool:
    return len(await Store(etcd, keys).snapshots()) >= count


async def is_gone(etcd: Etcd, key: str) -> bool:
    return await etcd.get(key) is None


async def oldest_is(registry: Registry, version: int) -> bool:
    return (await registry.versions())[0].version == version


@pytest.fixture
def keys(cluster_name: str) -> Keys:
    return Keys(cluster_name)


@asynccontextmanager
async def replica(
    etcd: Etcd, keys: Keys, name: str, *, rank: int | None = None, **options: Any
) -> AsyncIterator[Registry]:
    """One node's registry; with a ``rank`` it folds overlays too."""
    watch = PrefixWatch(etcd, keys.prefix, unloaded=[keys.blobs])
    registry = Registry(etcd, watch, keys, name, **options)
    async with AsyncExitStack() as stack:
        folding = Folding(etcd, watch, keys, registry, lambda: rank or 0) if rank is not None else None
        await stack.enter_async_context(watch)
        await stack.enter_async_context(registry)
        if folding is not None:
            await stack.enter_async_context(folding)
        yield registry


@pytest_asyncio.fixture
async def opened(servers: EmbeddedServers, keys: Keys) -> AsyncIterator[Open]:
    """Opens replicas, each with an etcd client of its own."""
    async with AsyncExitStack() as stack:

        async def open_one(name: str = "a", **options: Any) -> Registry:
            client = await stack.enter_async_context(Etcd([servers.etcd_url]))
            return await stack.enter_async_context(replica(client, keys, name, **options))

        yield open_one


class TestCommit:
    async def test_an_empty_registry_becomes_version_0_and_others_see_it(self, opened: Open) -> None:
        a, b = await opened("a"), await opened("b")
        assert a.state.version == ABSENT
        info = await a.commit([Create(entry("x", 1))], "me", "first")
        assert (info.version, info.author, info.message, info.changed) == (0, "me", "first", 1)
        assert (await b.reached(0)).get("app:x") == entry("x", 1)

    async def test_what_does_not_apply_is_refused_naming_every_entry(self, opened: Open) -> None:
        a = await opened()
        await a.commit([Create(entry("x"))])
        with pytest.raises(Invalid) as refused:
            await a.commit([Create(entry("x")), Update(entry("y")), Delete("app:z"), Create(Entry("bad", "k"))])
        assert [p.entry for p in refused.value.problems] == ["app:x", "app:y", "app:z", "bad"]
        with pytest.raises(Invalid, match="no changes to apply"):
            await a.commit([])
        assert a.state.version == 0

    async def test_a_validator_sees_the_would_be_state_and_may_refuse_it(self, opened: Open) -> None:
        def validator(state: RegistryState) -> list[Problem]:
            return [Problem("too many", entry=e.id) for e in state.entries()[1:]]

        a = await opened(validator=validator)
        await a.commit([Create(entry("x"))])
        with pytest.raises(Invalid, match="app:y: too many"):
            await a.commit([Create(entry("y"))])
        assert [e.id for e in a.state.entries()] == ["app:x"]

    async def test_writers_of_different_entries_from_the_same_version_all_succeed(self, opened: Open) -> None:
        a, b = await opened("a"), await opened("b")
        base = (await a.commit([Create(entry("start"))])).version
        await b.reached(base)
        writers = [
            registry.commit([Create(entry(f"w{i}", i))], base_version=base) for i, registry in enumerate([a, b] * 4)
        ]
        versions = [info.version for info in await asyncio.gather(*writers)]
        assert sorted(versions) == list(range(base + 1, base + 9))
        await asyncio.gather(a.reached(base + 8), b.reached(base + 8))
        assert len(b.state) == len(a.state) == 9

    async def test_of_writers_of_the_same_entry_exactly_one_wins(self, opened: Open) -> None:
        a, b = await opened("a"), await opened("b")
        for operation in (Create, Update):
            base = max(a.state.version, b.state.version)
            await asyncio.gather(a.reached(base), b.reached(base))
            outcomes = await asyncio.gather(
                *(registry.commit([operation(entry("x", base * 100 + i))]) for i, registry in enumerate([a, b] * 4)),
                return_exceptions=True,
            )
            lost = [each for each in outcomes if isinstance(each, RegistryConflict)]
            assert len(lost) == 7
            assert {tuple(each.changed) for each in lost} == {("app:x",)}
            assert (await a.reached(base + 1)).version == base + 1

    async def test_a_change_made_against_an_old_version_conflicts_only_with_what_it_touches(self, opened: Open) -> None:
        a = await opened()
        await a.commit([Create(entry("x", 1)), Create(entry("y", 1))])
        await a.commit([Update(entry("x", 2))])
        await a.commit([Update(entry("y", 3))], base_version=0)
        with pytest.raises(RegistryConflict) as conflict:
            await a.commit([Update(entry("x", 3))], base_version=0)
        assert (conflict.value.head, conflict.value.changed) == (2, ["app:x"])
        with pytest.raises(RegistryConflict):
            await a.commit([Update(entry("y", 4))], base_version=1, rebase=False)

    async def test_every_replica_goes_through_the_same_states(self, opened: Open) -> None:
        replicas = [await opened(name) for name in "abc"]
        seen: list[list[tuple[int, bytes, frozenset[str]]]] = [[] for _ in replicas]
        for registry, states in zip(replicas, seen, strict=True):
            registry.on_change(lambda b, a, ids, states=states: states.append((a.version, a.payload(), ids)))  # type: ignore[misc]
        await asyncio.gather(
            *(replicas[i % 3].commit([Create(entry(f"e{i}"))]) for i in range(12)), return_exceptions=True
        )
        for registry in replicas:
            await registry.reached(11)
        assert seen[0] == seen[1] == seen[2]
        assert [version for version, _, _ in seen[0]] == list(range(12))
        assert all(len(ids) == 1 for _, _, ids in seen[0])

    async def test_a_listener_that_fails_stops_nothing(self, opened: Open) -> None:
        a = await opened()
        a.on_change(lambda before, after, ids: 1 / 0)  # type: ignore[arg-type, return-value]
        await a.commit([Create(entry("x"))])
        assert "app:x" in a.state

    async def test_twenty_megabytes_in_two_thousand_entries_are_one_version(self, opened: Open) -> None:
        a, b = await opened("a"), await opened("b")
        text = "x" * 10_000
        began = time.monotonic()
        await a.commit([Create(Entry(f"app:e{i}", "registry.entry", {}, {"text": text})) for i in range(2_000)])
        state = await b.reached(0)
        assert len(state) == 2_000
        assert state.get("app:e1999").data == {"text": text}  # type: ignore[union-attr]
        assert time.monotonic() - began < 20


class TestFloor:
    async def test_a_kind_that_a_ready_node_does_not_know_is_refused(
        self, opened: Open, etcd: Etcd, keys: Keys
    ) -> None:
        a = await opened(capability={"registry.entry": 1, "new.kind": 2})
        await etcd.put(keys.node("old"), b'{"state": "ready", "capability": {"registry.entry": 1}}')
        await a.commit([Create(entry("x"))])
        with pytest.raises(Invalid, match=r"node old does not know kind new\.kind with schema 2"):
            await a.commit([Create(entry("y", kind="new.kind"))])
        await etcd.put(keys.node("old"), b'{"state": "ready", "capability": {"registry.entry": 1, "new.kind": 2}}')
        await a.commit([Create(entry("y", kind="new.kind"))])
        floor = await read_floor(etcd, keys)
        assert floor.kinds == {"registry.entry": 1, "new.kind": 2}
        assert floor.unmet({"registry.entry": 1, "new.kind": 2}) == []
        assert floor.unmet({"registry.entry": 1, "new.kind": 1}) == ["kind new.kind with schema 2 (this node knows 1)"]


class TestPublish:
    FILES = (entry("x", 1), entry("y", 1))

    async def test_of_nodes_that_start_together_one_publishes_and_all_have_it(self, opened: Open) -> None:
        replicas = [await opened(name) for name in "abc"]
        results = await asyncio.gather(*(registry.publish(self.FILES, "if-empty") for registry in replicas))
        assert sorted(result.created for result in results) == [False, False, True]
        assert {result.version for result in results} == {0}
        assert all(e.origin is Origin.FILES for e in replicas[2].state.entries())

    async def test_publishing_the_same_twice_makes_no_second_version(self, opened: Open) -> None:
        a = await opened()
        assert (await a.publish(self.FILES, "always")).created
        again = await a.publish(self.FILES, "always")
        assert (again.version, again.created, again.changed) == (0, False, 0)

    async def test_a_loser_reports_how_its_files_differ(self, opened: Open) -> None:
        a = await opened()
        await a.publish(self.FILES, "if-empty")
        result = await a.publish([entry("x", 2), entry("z")], "if-empty")
        assert [str(each) for each in result.differences] == [
            "app:x differs",
            "app:y is only in the cluster",
            "app:z is only in the files",
        ]
        assert result.version == 0

    async def test_never_leaves_an_empty_registry_empty(self, opened: Open) -> None:
        a = await opened()
        assert (await a.publish(self.FILES, "never")).version == ABSENT
        assert len(a.state) == 0

    async def test_a_push_changes_what_files_own_and_asks_about_the_rest(self, opened: Open) -> None:
        a = await opened()
        await a.publish(self.FILES, "always")
        await a.commit([Update(entry("x", 7)), Create(entry("made", 1))])
        with pytest.raises(PushConflict):
            await a.publish([entry("x", 1)], "always")
        assert a.state.version == 1
        result = await a.publish([entry("x", 1)], "always", take=Take.FILES)
        assert (result.version, result.changed, result.differences) == (2, 2, [])
        assert [(e.id, e.data) for e in a.state.entries()] == [("app:made", {"n": 1}), ("app:x", {"n": 1})]

    async def test_files_that_are_refused_leave_the_registry_empty(self, opened: Open) -> None:
        a = await opened(validator=lambda state: [Problem("no", entry=e.id) for e in state.entries()])
        with pytest.raises(Invalid) as refused:
            await a.publish(self.FILES, "always")
        assert len(refused.value.problems) == 2
        assert a.state.version == ABSENT


class TestHistory:
    async def test_rollback_makes_a_new_version_with_the_old_entries_on_all_nodes(self, opened: Open) -> None:
        a, b = await opened("a"), await opened("b")
        await a.publish([entry("x", 1), entry("gone")], "always")
        await a.commit([Update(entry("x", 2)), Delete("app:gone"), Create(entry("new"))])
        done = await a.rollback(0, "me")
        assert (done.version, done.restored, done.changed, done.overlays) == (2, 0, 3, ())
        first = await a.state_at(0)
        assert (await b.reached(2)).entries() == first.entries()
        assert (await a.rollback(0)).changed == 0
        await b.apply_version(1)
        assert [e.id for e in b.state.entries()] == ["app:new", "app:x"]
        assert [(v.version, v.message) for v in await b.versions()] == [
            (0, "files published"),
            (1, ""),
            (2, "back to version 0"),
            (3, "version 1 applied"),
        ]

    async def test_any_version_can_be_read_and_others_are_not_found(self, opened: Open) -> None:
        a = await opened(snapshot_every=5)
        for i in range(25):
            await a.commit([Update(entry("x", i)) if i else Create(entry("x", 0))])
        late = await opened("late")
        for version in (0, 4, 5, 13, 24):
            state = await late.state_at(version)
            assert state.version == version
            assert state.get("app:x").data == {"n": version}  # type: ignore[union-attr]
        for version in (-1, 25):
            with pytest.raises(VersionNotFound, match="v0 to v24"):
                await late.state_at(version)

    async def test_a_program_that_is_no_node_can_read_and_write(self, opened: Open, etcd: Etcd, keys: Keys) -> None:
        a = await opened()
        await a.commit([Create(entry("x", 1))])
        async with open_registry(etcd, keys, "cli") as registry:
            info = await registry.commit([Update(entry("x", 2))], message="by hand")
        assert info.author == "cli"
        assert (await a.reached(1)).get("app:x") == entry("x", 2)


class TestBoot:
    async def test_a_node_starts_from_the_newest_snapshot(self, opened: Open, etcd: Etcd, keys: Keys) -> None:
        a = await opened(snapshot_every=10)
        for i in range(12):
            await a.commit([Create(entry(f"e{i}"))])
        await until(Store(etcd, keys).snapshots)
        before_snapshot = (await Store(etcd, keys).change(3)).blob  # type: ignore[union-attr]
        await etcd.delete_prefix(f"{keys.blobs}{before_snapshot.upload}/")
        late = await opened("late")
        assert late.state.version == 11
        assert late.state.payload() == a.state.payload()

    async def test_a_damaged_blob_is_bridged_by_a_snapshot_once_there_is_one(
        self, opened: Open, etcd: Etcd, keys: Keys
    ) -> None:
        a = await opened(patience=timedelta(seconds=20))
        await a.commit([Create(entry("x", 0))])
        await a.commit([Create(entry("y", 0))])
        record = await Store(etcd, keys).change(0)
        assert record is not None
        await etcd.put(keys.blob(record.blob.upload, 0), b"damaged")
        opening = asyncio.ensure_future(opened("late"))
        await asyncio.sleep(0.1)
        assert not opening.done()
        assert await write_snapshot(etcd, keys, a.state, timedelta(seconds=5))
        assert (await opening).state.payload() == a.state.payload()


class TestCollect:
    async def test_blobs_of_dead_writers_go_and_those_of_living_ones_stay(
        self, opened: Open, etcd: Etcd, keys: Keys
    ) -> None:
        a = await opened()
        await a.commit([Create(entry("x"))])
        living = await etcd.grant(60)
        await etcd.put(keys.upload("living"), b"", living.id)
        for name in ("dead", "living"):
            for chunk in range(3):
                await etcd.put(keys.blob(name, chunk), b"part")
        assert (await collect(etcd, keys)).blobs == ["dead"]
        found = await read_log(etcd, keys)
        assert "living" in found.blobs
        assert len(found.blobs) == 2
        await etcd.revoke(living.id)
        assert (await collect(etcd, keys)).blobs == ["living"]
        late = await opened("late")
        assert late.state.payload() == a.state.payload()

    async def test_history_beyond_what_is_kept_goes_and_the_rest_stays_readable(
        self, opened: Open, etcd: Etcd, keys: Keys
    ) -> None:
        a = await opened(snapshot_every=5)
        for i in range(22):
            await a.commit([Update(entry("x", i)) if i else Create(entry("x", 0))])
        await until(lambda: has_snapshots(etcd, keys, 4))
        assert not await collect(etcd, keys, Keep(5))
        gone = await collect(etcd, keys, Keep(5, time=timedelta(0)))
        assert gone.changes == list(range(14))
        assert gone.snapshots == [4, 9]
        assert len((await collect(etcd, keys, Keep(5, time=timedelta(0)))).blobs) == 16
        late = await opened("late")
        assert late.state.payload() == a.state.payload()
        assert (await late.state_at(17)).get("app:x").data == {"n": 17}  # type: ignore[union-attr]
        with pytest.raises(VersionNotFound, match="v14 to v21"):
            await late.state_at(13)
        await until(lambda: oldest_is(a, 14))

    async def test_the_first_in_rank_collects_now_and_then(self, opened: Open, etcd: Etcd, keys: Keys) -> None:
        await etcd.put(keys.blob("dead", 0), b"part")
        async with Collector(etcd, keys, lambda: 1, every=timedelta(milliseconds=20)):
            await asyncio.sleep(0.1)
            assert await etcd.get(keys.blob("dead", 0))
        async with Collector(etcd, keys, lambda: 0, every=timedelta(milliseconds=20)):
            await until(lambda: is_gone(etcd, keys.blob("dead", 0)))


class TestOverlay:
    async def status(self, etcd: Etcd, keys: Keys, name: str, mod: int) -> OverlayStatus:
        async with asyncio.timeout(10):
            while True:
                status = status_of(await etcd.get(keys.overlay_status(name)))
                if status is not None and status.mod == mod:
                    return status
                await asyncio.sleep(0.005)

    async def is_refused(self, etcd: Etcd, keys: Keys, name: str, mod: int) -> bool:
        return (await self.status(etcd, keys, name, mod)).status is Verdict.ERROR

    async def is_applied(self, etcd: Etcd, keys: Keys, name: str, mod: int) -> bool:
        return (await self.status(etcd, keys, name, mod)).status is Verdict.APPLIED

    async def test_a_valid_overlay_is_the_next_version_everywhere_and_its_deletion_restores_the_base(
        self, opened: Open, etcd: Etcd, keys: Keys
    ) -> None:
        replicas = [await opened(name, rank=rank) for rank, name in enumerate("abc")]
        a = replicas[0]
        await a.publish([Entry("app:limits", "registry.entry", {}, {"rate": 5, "on": {"x": 1, "y": 2}})], "always")
        base = a.state.get("app:limits")
        mod = await etcd.put(keys.overlay("app:limits"), b'{"rate": 9, "on": {"x": null}}')
        status = await self.status(etcd, keys, "app:limits", mod)
        assert (status.status, status.version, status.reason) == (Verdict.APPLIED, 1, "")
        assert status.revision >= mod
        for registry in replicas:
            assert (await registry.reached(1)).get("app:limits").data == {"rate": 9, "on": {"y": 2}}  # type: ignore[union-attr]
        await etcd.delete(keys.overlay("app:limits"))
        status = await self.status(etcd, keys, "app:limits", 0)
        assert (status.status, status.version) == (Verdict.APPLIED, 2)
        for registry in replicas:
            assert (await registry.reached(2)).get("app:limits") == base
        assert [(v.version, v.overlay) for v in await a.versions()] == [(0, ""), (1, "app:limits"), (2, "app:limits")]

    @pytest.mark.parametrize(
        ("name", "value", "why"),
        [
            ("app:limits", b"{broken", "neither JSON nor YAML"),
            ("app:limits", b"[1]", "expected a mapping, got a list"),
            ("app:limits", b'{"rate": -1}', "rate must be positive"),
            ("app:limits", b'{"rate": "fast"}', "could not be checked: TypeError"),
            ("app:code", b'{"source": "evil"}', "takes no overlay"),
            ("app:none", b"{}", "there is no such entry"),
            ("nonsense", b"{}", "there is no such entry"),
        ],
    )
    async def test_a_bad_overlay_is_refused_with_the_reason_and_changes_nothing(
        self, opened: Open, etcd: Etcd, keys: Keys, name: str, value: bytes, why: str
    ) -> None:
        def validator(state: RegistryState) -> list[Problem]:
            return [Problem("rate must be positive", e.id) for e in state.entries() if e.data.get("rate", 1) < 0]

        a = await opened(rank=0, validator=validator)
        files = [Entry("app:limits", "registry.entry", {}, {"rate": 5}), Entry("app:code", "process.lua")]
        await a.publish(files, "always")
        good = await etcd.put(keys.overlay("app:limits"), b'{"rate": 6}')
        await self.status(etcd, keys, "app:limits", good)
        before = a.state
        mod = await etcd.put(keys.overlay(name), value)
        status = await self.status(etcd, keys, name, mod)
        assert status.status is Verdict.ERROR
        assert why in status.reason
        assert a.state is before
        await etcd.delete(keys.overlay(name))
        assert (await self.status(etcd, keys, name, 0)).status is Verdict.APPLIED

    async def test_a_refusal_is_logged_once_not_at_every_version(self, opened: Open, etcd: Etcd, keys: Keys) -> None:
        a = await opened(rank=0)
        with capture_logs() as logs:
            mod = await etcd.put(keys.overlay("app:none"), b"{}")
            await self.status(etcd, keys, "app:none", mod)
            for n in range(4):
                await a.commit([Create(entry(f"x{n}"))])
            last = await etcd.put(keys.overlay("app:x0"), b"{}")  # answered in turn, after what is known is looked at
            await self.status(etcd, keys, "app:x0", last)
        assert [each["entry"] for each in logs if each["event"] == "overlay refused"] == ["app:none"]

    async def test_what_was_put_before_the_entry_or_the_node_came_is_folded_then(
        self, opened: Open, etcd: Etcd, keys: Keys
    ) -> None:
        mod = await etcd.put(keys.overlay("app:x"), b'{"n": 9}')
        a = await opened(rank=0)
        assert (await self.status(etcd, keys, "app:x", mod)).status is Verdict.ERROR
        await a.commit([Create(entry("x", 1))])
        assert (await a.reached(1)).get("app:x").data == {"n": 9}  # type: ignore[union-attr]
        await a.commit([Delete("app:x")])
        await until(lambda: self.is_refused(etcd, keys, "app:x", mod))
        assert not a.state.overlays

    async def test_an_overlay_refused_because_of_another_entry_is_folded_when_that_one_changes(
        self, opened: Open, etcd: Etcd, keys: Keys
    ) -> None:
        def validator(state: RegistryState) -> list[Problem]:
            rates = sum(e.data.get("n", 0) for e in state.entries())
            return [Problem("more than 10 in all")] if rates > 10 else []

        a = await opened(rank=0, validator=validator)
        await a.publish([entry("x", 1), entry("y", 5)], "always")
        good = await etcd.put(keys.overlay("app:x"), b'{"n": 2}')
        assert (await self.status(etcd, keys, "app:x", good)).status is Verdict.APPLIED
        mod = await etcd.put(keys.overlay("app:x"), b'{"n": 9}')
        assert (await self.status(etcd, keys, "app:x", mod)).reason == "more than 10 in all"
        assert a.state.get("app:x").data == {"n": 2}  # type: ignore[union-attr]
        await a.commit([Update(entry("y", 1))])
        await until(lambda: self.is_applied(etcd, keys, "app:x", mod))
        assert a.state.get("app:x").data == {"n": 9}  # type: ignore[union-attr]

    async def test_rollback_leaves_overlays_on_top_and_says_so(self, opened: Open, etcd: Etcd, keys: Keys) -> None:
        a = await opened(rank=0)
        await a.publish([Entry("app:x", "registry.entry", {}, {"n": 1, "m": 1})], "always")
        mod = await etcd.put(keys.overlay("app:x"), b'{"n": 9}')
        await self.status(etcd, keys, "app:x", mod)
        await a.commit([Update(Entry("app:x", "registry.entry", {}, {"n": 2, "m": 2}))])
        assert a.state.get("app:x").data == {"n": 9, "m": 2}  # type: ignore[union-attr]
        done = await a.rollback(0)
        assert done.overlays == ("app:x",)
        assert a.state.get("app:x").data == {"n": 9, "m": 1}  # type: ignore[union-attr]

    async def test_when_the_first_in_rank_is_gone_the_next_folds(self, opened: Open, etcd: Etcd, keys: Keys) -> None:
        b = await opened("b", rank=1)
        await b.commit([Create(entry("x", 1))])
        mod = await etcd.put(keys.overlay("app:x"), b'{"n": 9}')
        assert (await self.status(etcd, keys, "app:x", mod)).status is Verdict.APPLIED

    async def test_nodes_of_the_same_rank_fold_a_value_once(self, opened: Open, etcd: Etcd, keys: Keys) -> None:
        replicas = [await opened(name, rank=0) for name in "abc"]
        await replicas[0].commit([Create(entry("x", 1))])
        for n in range(5):
            mod = await etcd.put(keys.overlay("app:x"), b'{"n": %d}' % (n + 10))
            await self.status(etcd, keys, "app:x", mod)
        folded = [v for v in await replicas[0].versions() if v.overlay]
        assert len(folded) == 5

    async def test_a_status_never_goes_back(self, etcd: Etcd, keys: Keys) -> None:
        newer, older = (OverlayStatus(Verdict.APPLIED, mod, mod + 1, 1) for mod in (20, 10))
        assert await report(etcd, keys, "app:x", newer)
        assert not await report(etcd, keys, "app:x", older)
        assert status_of(await etcd.get(keys.overlay_status("app:x"))) == newer
