"""The verbs of the registry on a real etcd and NATS, with nodes that answer as they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.client import Client
from cluster.configuration import Configuration
from cluster.embedded import EmbeddedServers
from cluster.errors import CallTimeout, Invalid
from cluster.etcd import Etcd
from cluster.members import NodeState
from cluster.registry import VersionNotFound
from cluster.registry.changeset import Fold, Update
from cluster.registry.entry import Entry
from node.cli import config, doctor, registry
from node.cli.console import Format
from node.cli.failures import Failed
from node.cli.findings import Level, examine
from node.cli.gateway import quiet
from node.cli.registry import entries, pushing
from node.cli.registry.opening import opened
from tests.integration.test_client import Node

pytestmark = pytest.mark.servers

HEAD = 'version: "1.0"\nnamespace: app\nentries:'
LIMITS = "\n  - {name: limits, kind: registry.entry, meta: {type: limit, level: 3, tags: [a, b]}, rate: %s}"
CODE = "\n  - {name: a, kind: process.lua, source: 'file://a.lua', method: main, meta: {comment: Does it}}"
Told = Callable[[], tuple[str, str]]


@pytest.fixture
async def client(servers: EmbeddedServers, cluster_name: str) -> AsyncIterator[Client]:
    async with Client([servers.nats_url], [servers.etcd_url], cluster_name) as client:
        yield client


class App:
    """An application of two entries: its files, and what a push of them says."""

    def __init__(self, directory: Path, client: Client) -> None:
        self.directory = directory
        self.client = client

    def write(self, rate: int = 2, code: str = "return {main = function() end}\n", more: str = "") -> None:
        (self.directory / "src").mkdir(exist_ok=True)
        (self.directory / "src" / "_index.yaml").write_text(HEAD + LIMITS % rate + CODE + more)
        (self.directory / "src" / "a.lua").write_text(code)

    async def push(self, **options: Any) -> None:
        await registry.push(self.client, self.directory, **{"timeout": "2s", **options})


@pytest.fixture
async def app(tmp_path: Path, client: Client) -> App:
    """Pushed as v0."""
    app = App(tmp_path, client)
    app.write()
    await app.push(wait=False)
    return app


@pytest.fixture
def told(app: App, capsys: pytest.CaptureFixture[str]) -> Told:
    """What stdout and stderr got since it was called last."""
    quiet()
    capsys.readouterr()
    return lambda: (lambda both: (both.out, both.err))(capsys.readouterr())


class Nodes:
    """Nodes that have every version at once; ``degraded`` and ``stuck`` are by name."""

    def __init__(self, start: Any) -> None:
        self._start = start
        self.degraded: dict[str, list[dict[str, Any]]] = {}
        self.stuck: set[str] = set()
        self.version = 0

    async def start(self, *names: str) -> None:
        for name in names:
            await self._start(name, lambda query, name=name: self.answer(name, query))

    def answer(self, name: str, query: dict[str, Any]) -> Any:
        failing = self.degraded.get(name, [])
        if query["op"] == "health":
            self.version = max(self.version, 0)
            return {"ok": True, "value": {"converged_version": self.version, "degraded": failing}}
        if name in self.stuck:
            return None
        self.version = query["version"]
        value = {"applied": self.version, "converged": self.version, "waiting_for": "", "degraded": failing}
        return {"ok": True, "value": value}


@pytest.fixture
async def nodes(servers: EmbeddedServers, etcd: Etcd, cluster_name: str) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:

        async def start(name: str, answer: Any) -> None:
            await stack.enter_async_context(Node(name, answer).open(servers, etcd, cluster_name, NodeState.READY))

        yield Nodes(start)


def without_nats(servers: EmbeddedServers, cluster: str) -> Client:
    return Client(["nats://127.0.0.1:1"], [servers.etcd_url], cluster, connect_timeout=timedelta(seconds=0.3))


async def versions(client: Client) -> list[int]:
    async with opened(client) as opened_:
        return [each.version for each in await opened_.versions()]


class TestDiff:
    async def test_of_files_is_what_a_push_would_change(self, app: App, told: Told) -> None:
        await registry.diff(app.client, [str(app.directory)])
        assert told() == ("", "files and registry agree\n")
        app.write(rate=3)
        with pytest.raises(Failed) as failed:
            await registry.diff(app.client, [str(app.directory)])
        assert failed.value.code == 1
        out, err = told()
        assert out.startswith("~ app:limits updated (registry.entry)\n--- v0 app:limits\n+++ files app:limits\n")
        assert "-  rate: 2\n+  rate: 3\n" in out
        assert err == "v0 -> files: 1 updated (app:limits)\n"

    async def test_of_versions_compares_them_or_one_with_now(self, app: App, told: Told) -> None:
        for rate in (3, 4):
            app.write(rate=rate)
            await app.push(wait=False)
        told()
        for sides, left, right in ((["v0", "v1"], 2, 3), (["v1"], 3, 4), (["2", "v0"], 4, 2)):
            with pytest.raises(Failed):
                await registry.diff(app.client, sides)
            assert f"-  rate: {left}\n+  rate: {right}\n" in told()[0]
        await registry.diff(app.client, ["v2"])
        assert told()[1] == "v2 and v2 have the same entries\n"

    async def test_for_programs_has_both_sides(self, app: App, told: Told) -> None:
        app.write(rate=3)
        with pytest.raises(Failed):
            await registry.diff(app.client, [str(app.directory)], as_json=True)
        value = json.loads(told()[0])
        (change,) = value["changes"]
        assert (value["from"], value["to"], change["change"]) == ("v0", "files", "updated")
        assert (change["before"]["data"], change["after"]["data"]) == ({"rate": 2}, {"rate": 3})

    @pytest.mark.parametrize("sides", [["v0", "here"], ["here", "v0"], ["v0", "v1", "v2"], ["./nowhere"], ["-1", "v0"]])
    async def test_of_what_is_neither_is_wrong_usage(self, app: App, sides: list[str]) -> None:
        with pytest.raises(Failed) as failed:
            await registry.diff(app.client, sides)
        assert failed.value.code == 2

    async def test_of_a_version_there_is_not_names_those_there_are(self, app: App) -> None:
        with pytest.raises(VersionNotFound, match="version 7 is not in the history; it holds v0 to v0"):
            await registry.diff(app.client, ["v7"])


class TestDryRun:
    async def test_shows_what_would_change_and_changes_nothing(self, app: App, told: Told) -> None:
        app.write(rate=3)
        await app.push(dry_run=True)
        out, _ = told()
        assert "+  rate: 3" in out
        assert out.endswith("a push would make v1: 1 updated (app:limits); nothing was changed\n")
        assert await versions(app.client) == [0]

    async def test_says_what_the_nodes_would_refuse_with_file_and_line(self, app: App) -> None:
        app.write(more="\n  - {name: s, kind: process.service, process: 'app:nobody', host: 'app:nowhere'}")
        with pytest.raises(Invalid) as refused:
            await app.push(dry_run=True)
        assert all(problem.file == "src/_index.yaml" and problem.line for problem in refused.value.problems)
        assert await versions(app.client) == [0]

    async def test_says_which_entries_are_in_conflict(self, app: App, told: Told) -> None:
        async with opened(app.client) as opened_:
            changed = opened_.state.base["app:limits"].with_data({"rate": 8})
            await opened_.commit([Update(Entry(changed.id, changed.kind, changed.meta, changed.data))])
        app.write(rate=3)
        with pytest.raises(Failed, match="say --take files or --take cluster"):
            await app.push(dry_run=True)
        out, _ = told()
        assert "app:limits updated (registry.entry); was changed at run time" in out
        with pytest.raises(Failed):
            await app.push(dry_run=True, as_json=True)
        assert json.loads(told()[0])["problems"]
        await app.push(dry_run=True, take="files")
        assert await versions(app.client) == [0, 1]

    async def test_of_nothing_says_so(self, app: App, told: Told) -> None:
        await app.push(dry_run=True)
        assert told()[0] == "nothing to push: the registry has it all (v0)\n"

    async def test_works_before_there_is_a_registry(
        self, tmp_path: Path, client: Client, capsys: pytest.CaptureFixture[str]
    ) -> None:
        app = App(tmp_path, client)
        app.write()
        await app.push(dry_run=True)
        assert "a push would make v0: 2 created (app:a, app:limits)" in capsys.readouterr().out


class TestPush:
    async def test_waits_for_every_node_and_says_so(self, app: App, nodes: Nodes, told: Told) -> None:
        await nodes.start("a", "b")
        app.write(rate=3)
        await app.push(message="why not")
        out, err = told()
        assert out.startswith("pushed v1: 1 updated (app:limits); applied on 2 nodes in ")
        assert sorted(line.partition(" after")[0] for line in err.splitlines()) == ["a: applied", "b: applied"]
        async with opened(app.client) as opened_:
            assert (await opened_.versions())[-1].message == "why not"

    async def test_without_nodes_it_does_not_wait(self, app: App, told: Told) -> None:
        app.write(rate=3)
        await app.push()
        assert told()[0].endswith("no node is there: the next one that starts has it\n")

    async def test_a_node_that_can_not_use_it_is_an_error_with_entry_and_reason(
        self, app: App, nodes: Nodes, told: Told
    ) -> None:
        await nodes.start("a", "b")
        nodes.degraded["b"] = [{"entry": "app:limits", "version": 1, "reason": "disk full"}]
        app.write(rate=3)
        with pytest.raises(Failed) as failed:
            await app.push()
        assert failed.value.code == 1
        out, err = told()
        assert "applied on 1 node in" in out
        assert "degraded on b" in out
        assert "error: b is degraded by v1: app:limits: disk full\n" in err
        assert await versions(app.client) == [0, 1], "without being asked it takes nothing back"

    async def test_what_was_broken_before_is_not_put_down_to_it(self, app: App, nodes: Nodes) -> None:
        await nodes.start("a")
        nodes.degraded["a"] = [{"entry": "app:other", "version": 0, "reason": "disk full"}]
        app.write(rate=3)
        await app.push()

    async def test_repeated_it_fails_as_long_as_a_node_can_not_use_it(self, app: App, nodes: Nodes, told: Told) -> None:
        """A deployment that is run again, or one that finds the work of a broken off push done, must not look well."""
        await nodes.start("a", "b")
        nodes.degraded["b"] = [{"entry": "app:limits", "version": 1, "reason": "disk full"}]
        app.write(rate=3)
        await app.push(wait=False)
        told()
        for options in ({}, {"rollback_on_error": True}):
            with pytest.raises(Failed):
                await app.push(**options)
            out, err = told()
            assert out.startswith("nothing to push: the registry has it all (v1); applied on 1 node in ")
            assert "error: b is degraded by v1: app:limits: disk full\n" in err
        assert await versions(app.client) == [0, 1], "what another pushed is not taken back"
        nodes.degraded.clear()
        await app.push()

    async def test_a_node_that_says_nothing_in_time_is_an_error(self, app: App, nodes: Nodes, told: Told) -> None:
        await nodes.start("a", "b")
        nodes.stuck.add("b")
        app.write(rate=3)
        with pytest.raises(Failed):
            await app.push(timeout="700ms")
        out, err = told()
        assert "not applied in time on b" in out
        assert "error: b did not apply it in time" in err

    @pytest.mark.parametrize("trouble", ["degraded", "stuck"])
    async def test_it_is_taken_back_when_that_was_asked_for(
        self, app: App, nodes: Nodes, told: Told, trouble: str
    ) -> None:
        await nodes.start("a")
        if trouble == "degraded":
            nodes.degraded["a"] = [{"entry": "app:limits", "version": 1, "reason": "disk full"}]
        else:
            nodes.stuck.add("a")
        app.write(rate=3)
        with pytest.raises(Failed):
            await app.push(rollback_on_error=True, timeout="700ms", as_json=True)
        assert json.loads(told()[0])["restored"] == 2
        async with opened(app.client) as opened_:
            assert opened_.state.version == 2
            before = await opened_.state_at(0)
            assert not opened_.state.differs_from(before), "v2 equals v0, origins included"
        app.write(rate=5)
        nodes.degraded.clear()
        nodes.stuck.clear()
        await app.push()

    async def test_it_is_not_taken_back_over_the_change_of_another(
        self, app: App, nodes: Nodes, told: Told, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await nodes.start("a")
        nodes.degraded["a"] = [{"entry": "app:limits", "version": 1, "reason": "disk full"}]
        real = pushing.settle

        async def meanwhile(*args: Any) -> Any:
            async with opened(app.client) as opened_:
                await opened_.commit([Update(Entry("app:a", "registry.entry"))])
            return await real(*args)

        monkeypatch.setattr(pushing, "settle", meanwhile)
        app.write(rate=3)
        with pytest.raises(Failed):
            await app.push(rollback_on_error=True)
        assert "error: not taken back: v2 came since" in told()[1]
        assert await versions(app.client) == [0, 1, 2]

    async def test_what_was_taken_back_is_told_with_where_it_is(self, app: App, nodes: Nodes, told: Told) -> None:
        await nodes.start("a", "b")
        nodes.degraded["b"] = [{"entry": "app:limits", "version": 1, "reason": "disk full"}]
        app.write(rate=3)
        with pytest.raises(Failed):
            await app.push(rollback_on_error=True)
        assert "taken back: v2 has the entries of v0 again; applied on 2 nodes in" in told()[0]

    async def test_who_does_not_want_to_wait_any_more_learns_that_it_is_there(
        self, app: App, nodes: Nodes, told: Told
    ) -> None:
        await nodes.start("a")
        nodes.stuck.add("a")
        app.write(rate=3)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(app.push(timeout="30s"), 1.5)
        assert "v1 is there, and the nodes go on with it" in told()[1]
        assert await versions(app.client) == [0, 1]

    async def test_whether_nodes_have_it_can_be_unknown(
        self, app: App, nodes: Nodes, servers: EmbeddedServers, cluster_name: str, told: Told
    ) -> None:
        await nodes.start("a")
        app.write(rate=3)
        async with without_nats(servers, cluster_name) as client:
            app.client = client
            with pytest.raises(Failed):
                await app.push(timeout="300ms")
        assert "v1 is there, but whether the nodes have it can't be told: can't connect to NATS" in told()[1]

    @pytest.mark.parametrize("wrong", [{"timeout": "soon"}, {"rollback_on_error": True, "wait": False}])
    async def test_what_makes_no_sense_is_wrong_usage(self, app: App, wrong: dict[str, Any]) -> None:
        with pytest.raises(Failed) as failed:
            await app.push(**wrong)
        assert failed.value.code == 2


class TestHistory:
    async def test_says_who_why_and_which_node_is_where(self, app: App, nodes: Nodes, told: Told) -> None:
        await nodes.start("a", "b")
        app.write(rate=3)
        await app.push(message="more")
        told()
        await registry.history(app.client, as_json=True)
        newest, oldest = json.loads(told()[0])
        assert newest["nodes"] == ["a", "b"]
        assert oldest["nodes"] == []
        assert (newest["version"], newest["message"], newest["changed"], newest["current"]) == ("v1", "more", 1, True)
        assert newest["author"]
        assert newest["where"].startswith("cli ")
        assert newest["entries"] == ["app:limits"]

    async def test_can_be_cut_and_says_what_is_left_out(self, app: App, nodes: Nodes, told: Told) -> None:
        await nodes.start("a")
        for rate in (3, 4, 5):
            app.write(rate=rate)
            await app.push(wait=False)
        told()
        await registry.history(app.client, limit=2)
        out, err = told()
        assert [line.split()[0] for line in out.splitlines()] == ["VERSION", "v3", "v2"]
        assert err == "a is at v0\n2 earlier versions; --limit 0 shows all\n"
        await registry.history(app.client, limit=0)
        assert len(told()[0].splitlines()) == 5

    async def test_names_the_entry_an_operator_configured(self, app: App, told: Told) -> None:
        async with opened(app.client) as opened_:
            mod = await app.client.etcd.put(app.client.keys.overlay("app:limits"), b'{"rate": 9}')
            from cluster.etcd import Compare

            guard = Compare.mod(app.client.keys.overlay("app:limits"), "=", mod)
            await opened_.fold(Fold("app:limits", {"rate": 9}, mod), guard)
        await registry.history(app.client)
        out, _ = told()
        assert "OVERLAY OF" in out.splitlines()[0]
        assert "app:limits" in out.splitlines()[1]
        await registry.rollback(app.client, "v0", timeout="1s")
        assert "what operators laid over entries stays on top: app:limits" in told()[1]

    async def test_is_shown_when_nats_is_away(
        self, app: App, nodes: Nodes, servers: EmbeddedServers, cluster_name: str, told: Told
    ) -> None:
        await nodes.start("a")
        async with without_nats(servers, cluster_name) as client:
            await registry.history(client)
        out, err = told()
        assert out.splitlines()[1].startswith("v0")
        assert "which nodes have which version can't be told" in err


class TestRollback:
    async def test_makes_a_new_version_and_says_what_files_will_do(self, app: App, nodes: Nodes, told: Told) -> None:
        await nodes.start("a")
        app.write(rate=3)
        await app.push()
        told()
        await registry.rollback(app.client, "v0", timeout="2s")
        out, err = told()
        assert out.startswith("rolled back: v2 has the entries of v0 (1 changed); applied on 1 node in")
        assert "the next push or saved file brings that back" in err
        await registry.rollback(app.client, "v0", timeout="2s")
        assert told()[0] == "nothing to do: v2 has the entries of v0\n"

    @pytest.mark.parametrize("version", ["x", "v", "-1", "v1.5", "٣"])
    async def test_to_what_is_no_version_is_wrong_usage(self, app: App, version: str) -> None:
        with pytest.raises(Failed) as failed:
            await registry.rollback(app.client, version)
        assert failed.value.code == 2

    async def test_to_a_version_there_is_not_changes_nothing(self, app: App) -> None:
        with pytest.raises(VersionNotFound):
            await registry.rollback(app.client, "v99")
        with pytest.raises(Failed, match="no version before v0"):
            await registry.rollback(app.client)
        assert await versions(app.client) == [0]


class TestList:
    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ({}, ["app:a", "app:limits"]),
            ({"kind": "process.*"}, ["app:a"]),
            ({"namespace": "ap*"}, ["app:a", "app:limits"]),
            ({"name": "lim*s"}, ["app:limits"]),
            ({"meta": ["type=limit"]}, ["app:limits"]),
            ({"meta": ["level=3"]}, ["app:limits"]),
            ({"meta": ["level=4"]}, []),
            ({"meta": ["type~^li"]}, ["app:limits"]),
            ({"meta": ["tags*b"]}, ["app:limits"]),
            ({"meta": ["comment^Does"]}, ["app:a"]),
            ({"meta": ["comment$it"]}, ["app:a"]),
            ({"meta": ["type=limit", "level=4"]}, []),
            ({"origin": entries.Source.FILES}, ["app:a", "app:limits"]),
            ({"origin": entries.Source.RUNTIME}, []),
        ],
    )
    async def test_filters(self, app: App, told: Told, options: dict[str, Any], found: list[str]) -> None:
        await registry.list_(app.client, as_json=True, **options)
        assert [each["id"] for each in json.loads(told()[0])] == found

    @pytest.mark.parametrize("meta", ["type", "=x", "", "a b=c", "type~("])
    async def test_a_filter_that_is_none_is_wrong_usage(self, app: App, meta: str) -> None:
        with pytest.raises(Failed) as failed:
            await registry.list_(app.client, meta=[meta])
        assert failed.value.code == 2

    async def test_an_earlier_version_can_be_listed(self, app: App, told: Told) -> None:
        app.write(more="\n  - {name: new, kind: registry.entry}")
        await app.push(wait=False)
        told()
        await registry.list_(app.client, at="v0", name="new")
        assert told() == ("", "no such entries in v0\n")


class TestShow:
    async def show(self, app: App, told: Told, entry: str = "app:limits", **options: Any) -> str:
        await registry.show(app.client, entry, **options)
        return told()[0]

    async def test_a_part_alone(self, app: App, told: Told) -> None:
        assert await self.show(app, told, field="data.rate") == "2\n"
        assert await self.show(app, told, field="rate") == "2\n"
        assert await self.show(app, told, field="meta.tags.1") == "b\n"
        assert await self.show(app, told, field="tags", as_json=True) == '["a", "b"]\n'
        assert await self.show(app, told, "app:a", field="source") == "return {main = function() end}\n\n"
        with pytest.raises(
            Failed, match=r"entry app:limits has no data\.size; it has id, kind, meta, data, .*data\.rate"
        ):
            await self.show(app, told, field="data.size")

    async def test_the_base_alone_without_what_lies_over_it(self, app: App, told: Told) -> None:
        async with opened(app.client) as opened_:
            from cluster.etcd import Compare

            key = app.client.keys.overlay("app:limits")
            mod = await app.client.etcd.put(key, b'{"rate": 9}')
            await opened_.fold(Fold("app:limits", {"rate": 9}, mod), Compare.mod(key, "=", mod))
        assert "overlay:\n  rate: 9\n" in await self.show(app, told)
        assert await self.show(app, told, field="rate") == "9\n"
        assert await self.show(app, told, field="rate", raw=True) == "2\n"
        assert await self.show(app, told, field="rate", at="v0") == "2\n"

    async def test_as_yaml_or_json(self, app: App, told: Told) -> None:
        assert yaml.safe_load(await self.show(app, told, as_yaml=True))["data"] == {"rate": 2}
        assert json.loads(await self.show(app, told, as_json=True))["version"] == 0
        await registry.list_(app.client, as_yaml=True)
        assert [each["id"] for each in yaml.safe_load(told()[0])] == ["app:a", "app:limits"]

    async def test_one_there_is_not_names_a_similar_one(self, app: App, told: Told) -> None:
        with pytest.raises(Failed, match=r"no entry app:limit in v0; did you mean app:limits\?"):
            await self.show(app, told, "app:limit")


class TestConfig:
    async def test_says_pending_applied_at_a_version_or_refused_with_the_reason(self, app: App, told: Told) -> None:
        from cluster.registry.status import OverlayStatus, Verdict, report

        client = app.client
        await config.set_(client, "app:limits", ["rate=5"], wait=False)
        assert "config get app:limits" in told()[1]
        await config.get(client, "app:limits")
        assert told() == (
            '{"rate": 5}\n',
            "pending: no node has answered yet; is one ready? `wippy nodes` shows them\n",
        )
        with pytest.raises(CallTimeout, match="is a node ready"):
            await config.set_(client, "app:limits", ["rate=6"], timeout="200ms")
        held = await client.etcd.get(client.keys.overlay("app:limits"))
        assert held is not None
        mod = held.mod_revision
        for verdict, reason, remark in (
            (Verdict.APPLIED, "", "applied at v4\n"),
            (Verdict.ERROR, "not a mapping", "refused at v4: not a mapping\n"),
        ):
            revision = await client.etcd.revision() + (verdict is Verdict.ERROR)
            await report(client.etcd, client.keys, "app:limits", OverlayStatus(verdict, mod, revision, 4, reason))
            told()
            await config.get(client, "app:limits")
            assert told()[1] == remark
        await config.list_(client, as_json=True)
        (row,) = json.loads(told()[0])
        assert (row["state"], row["at"], row["reason"]) == ("refused", "v4", "not a mapping")
        with pytest.raises(Failed, match=r"nothing in the registry changed; .+ `wippy config unset app:limits`"):
            await config._await_answer(Configuration(client.etcd, client.keys), "app:limits", mod, mod, 1.0)


class TestDoctor:
    async def test_sees_what_there_is(self, app: App, nodes: Nodes) -> None:
        await nodes.start("a")
        sight = await doctor.look(app.client, 4.0)
        assert sight.head == 0
        assert not isinstance(sight.etcd, str)
        assert not isinstance(sight.nats, str)
        assert sight.nats.version.count(".") == 2
        assert not isinstance(sight.members, str)
        assert [member.node for member in sight.members] == ["a"]

    @pytest.mark.parametrize("away", ["NATS", "etcd", "both"])
    async def test_works_when_servers_are_away(
        self, app: App, nodes: Nodes, servers: EmbeddedServers, cluster_name: str, away: str, told: Told
    ) -> None:
        await nodes.start("a")
        nats = "nats://127.0.0.1:1" if away in ("NATS", "both") else servers.nats_url
        etcd = "http://127.0.0.1:1" if away in ("etcd", "both") else servers.etcd_url
        async with asyncio.timeout(20), Client([nats], [etcd], cluster_name) as client:
            with pytest.raises(Failed) as failed:
                await doctor.doctor(client, timeout="2s", format=Format.JSON)
        assert failed.value.code == 1
        found = {each["check"]: each for each in json.loads(told()[0])}
        assert found["NATS"]["level"] == ("ok" if away == "etcd" else "fail")
        assert found["etcd"]["level"] == ("ok" if away == "NATS" else "fail")
        assert found["nodes"]["level"] == "fail"
        assert all(each["remedy"] for each in found.values() if each["level"] == "fail")

    async def test_a_cluster_nobody_started_is_told(self, client: Client) -> None:
        found = examine(await doctor.look(client, 4.0))
        assert [each.says for each in found if each.level is Level.FAIL] == [f"cluster {client.cluster!r} has no nodes"]
