"""Pushing an application's files to a real cluster: what is said, and what is held back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.errors import CallTimeout, ClusterError, Invalid, OutcomeUnknown, Unavailable
from cluster.registry import PublishResult, Registry
from cluster.tasks import Tasks
from node.cli.registry.changes import ids_by_sort
from node.cli.registry.opening import opened
from node.cli.registry.pushing import Pushed, push_project
from node.cli.watching import Watched, push_on_save, push_saved
from node.modules import MODULES
from node.project import load_project
from node.settings import Settings

pytestmark = pytest.mark.servers

HEAD = 'version: "1.0"\nnamespace: app\nentries:'
PLAIN = "\n  - {name: limits, kind: registry.entry, data: {rate: 2}}"
CODE = "\n  - {name: a, kind: process.lua, source: 'return {main = function() end}', method: main, modules: [%s]}"
MORE = "".join(f"\n  - {{name: e{n}, kind: registry.entry, data: {{n: 1}}}}" for n in range(3))


@pytest.fixture
async def client(servers: EmbeddedServers, cluster_name: str) -> AsyncIterator[Client]:
    async with Client([servers.nats_url], [servers.etcd_url], cluster_name) as client:
        yield client


class App:
    def __init__(self, directory: Path, client: Client) -> None:
        self.directory = directory
        self._client = client

    def write(self, text: str) -> None:
        (self.directory / "src").mkdir(exist_ok=True)
        (self.directory / "src" / "_index.yaml").write_text(text)

    async def push(self, text: str) -> Pushed:
        self.write(text)
        return await push_project(self._client, load_project(self.directory, modules=MODULES))

    async def save(self, text: str) -> None:
        watched = Watched(load_project(self.directory))
        self.write(text)
        await push_saved(self._client, watched, (), Settings)

    async def ids(self) -> set[str]:
        async with opened(self._client) as registry:
            return {entry.id for entry in registry.state.entries()}


@pytest.fixture
def app(tmp_path: Path, client: Client) -> App:
    return App(tmp_path, client)


async def test_a_push_names_what_it_changed(app: App) -> None:
    text = HEAD + PLAIN + CODE % "io" + MORE
    first = await app.push(text)
    assert (first.version, first.created, len(first.changes)) == (0, True, 5)
    assert await app.push(text) == Pushed(0)
    second = await app.push(text.replace("rate: 2", "rate: 3"))
    assert (second.version, second.created, second.keeps_code) == (1, False, False)
    assert ids_by_sort(second.changes) == {"created": [], "updated": ["app:limits"], "deleted": []}
    third = await app.push(text.replace("rate: 2", "rate: 3").replace("function() end", "function() return 1 end"))
    assert (third.version, [each.id for each in third.changes], third.keeps_code) == (2, ["app:a"], True)


async def test_a_push_is_told_also_when_it_is_not_seen_to_come_back(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """etcd goes away right after the commit, or the history is cut: the version is there all the same."""

    async def late(*_: object, **__: object) -> None:
        raise CallTimeout("registry version 0 (now at -1)", 1)

    monkeypatch.setattr(Registry, "reached", late)
    done = await app.push(HEAD + PLAIN)
    assert (done.version, ids_by_sort(done.changes)["created"]) == (0, ["app:limits"])


async def test_what_the_nodes_would_refuse_is_refused_with_file_and_line(app: App) -> None:
    await app.push(HEAD + PLAIN)
    app.write(HEAD + PLAIN + CODE % "loger")
    unchecked = load_project(app.directory)
    with pytest.raises(Invalid, match=r"src/_index\.yaml:5: app:a: modules\.0: unknown module 'loger'"):
        await push_project(app._client, unchecked)
    assert await app.ids() == {"app:limits"}


async def test_saving_an_emptied_file_deletes_nothing(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    await app.push(HEAD + PLAIN + MORE)
    await app.save(f"{HEAD} []")
    assert capsys.readouterr().err == (
        "error: saving would delete 4 of 4 entries; nothing was pushed; run `wippy registry push` to do it\n"
    )
    assert len(await app.ids()) == 4
    assert len((await app.push(f"{HEAD} []")).changes) == 4, "asked for, it is done"


async def test_a_save_may_delete_a_few(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    await app.push(HEAD + PLAIN + MORE)
    await app.save(HEAD + MORE)
    assert capsys.readouterr().err == "v1: 1 deleted (app:limits), no node is there: the next one that starts has it\n"


@asynccontextmanager
async def watched(client: Client, directory: Path) -> AsyncIterator[None]:
    """The directory's files are pushed when they are saved, as `wippy run --watch` and `wippy up` do."""
    stop = asyncio.Event()
    async with Tasks("test") as tasks:
        watching = tasks.start(push_on_save(client, load_project(directory), (), stop, Settings), "watch")
        await asyncio.sleep(0.3)  # watchfiles does not say when it has begun
        yield
        stop.set()
        async with asyncio.timeout(10):
            await watching


async def until(said: Callable[[], bool], what: str, within: float = 20.0) -> None:
    try:
        async with asyncio.timeout(within):
            while not said():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {within:g} s: {what}")


class Said:
    """What stderr got, all of it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.text = ""

    def __call__(self, *parts: str) -> bool:
        self.text += self._capsys.readouterr().err
        return all(part in self.text for part in parts)


class TestSaving:
    async def test_a_burst_is_one_version(self, app: App, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
        await app.push(HEAD + PLAIN)
        said = Said(capsys)
        async with watched(client, app.directory):
            for number in range(6):
                text = f"namespace: b{number}\nentries:\n  - {{name: x, kind: registry.entry, rate: 1}}\n"
                (app.directory / "src" / f"b{number}.yaml").write_text(text)
                await asyncio.sleep(0.06)
            await until(lambda: said("v1: "), "the push")
            await until(lambda: said("6 created (b0:x, b1:x, b2:x, b3:x, b4:x and 1 more)"), "one push of all")
        assert "v2:" not in said.text

    async def test_an_error_shows_file_and_line_and_the_next_good_save_goes_through(
        self, app: App, client: Client, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code = app.directory / "src" / "a.lua"
        entry = "\n  - {name: a, kind: process.lua, source: 'file://a.lua', method: main}"
        app.write(HEAD + PLAIN)
        code.write_text("return {main = function() end}\n")
        await app.push(HEAD + PLAIN + entry)
        said = Said(capsys)
        async with watched(client, app.directory):
            code.write_text("local x = 1\nlocal y = = 2\nreturn {main = function() end}\n")
            await until(lambda: said("error: src/a.lua:2:", "nothing was pushed"), "the error with its place")
            async with opened(client) as registry:
                assert registry.state.version == 0
            code.write_text("local x = 1\nreturn {main = function() end}\n")
            await until(lambda: said("v1: 1 updated (app:a)"), "the push")

    async def test_a_text_of_any_name_is_pushed_when_it_is_saved(
        self, app: App, client: Client, capsys: pytest.CaptureFixture[str]
    ) -> None:
        query = app.directory / "src" / "all.sql"
        entry = "\n  - {name: all, kind: registry.entry, source: 'file://all.sql'}"
        app.write(HEAD + PLAIN)
        query.write_text("select 1")
        await app.push(HEAD + PLAIN + entry)
        said = Said(capsys)
        async with watched(client, app.directory):
            query.write_text("select 2")
            await until(lambda: said("v1: 1 updated (app:all)"), "the push")
            app.write(HEAD + PLAIN + entry + entry.replace("all", "one"))
            await until(lambda: said("there is no file one.sql"), "the error")
            query.with_name("one.sql").write_text("select 1")
            await until(lambda: said("v2: 1 created (app:one)"), "what sets it right")

    async def test_a_module_that_is_worked_on_elsewhere_is_pushed_when_it_is_saved(
        self, app: App, client: Client, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
    ) -> None:
        module = tmp_path_factory.mktemp("module")
        text = "namespace: acme.tool\nentries: [{name: x, kind: registry.entry, rate: 1}]\n"
        (module / "_index.yaml").write_text(text)
        (app.directory / "wippy.lock").write_text(f"replacements: {{acme/tool: {module}}}\n")
        await app.push(HEAD + PLAIN)
        said = Said(capsys)
        async with watched(client, app.directory):
            (module / "_index.yaml").write_text(text.replace("1", "2"))
            await until(lambda: said("v1: 1 updated (acme.tool:x)"), "the push")

    @pytest.mark.parametrize(
        "error", [CallTimeout("the registry", 1), OutcomeUnknown("no answer"), Unavailable("away")]
    )
    async def test_a_save_without_a_clear_answer_is_owed(
        self, app: App, client: Client, monkeypatch: pytest.MonkeyPatch, error: ClusterError
    ) -> None:
        async def unanswered(*_: object, **__: object) -> PublishResult:
            raise error

        app.write(HEAD + PLAIN)
        saved = Watched(load_project(app.directory))
        with monkeypatch.context() as away:
            away.setattr(Registry, "publish", unanswered)
            assert not await push_saved(client, saved, (), Settings)
        assert await push_saved(client, saved, (), Settings)
        assert await app.ids() == {"app:limits"}

    async def test_what_is_saved_while_etcd_is_away_is_pushed_when_it_is_back(
        self, own_servers: EmbeddedServers, cluster_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        patience = timedelta(seconds=0.5)
        async with Client(
            [own_servers.nats_url], [own_servers.etcd_url], cluster_name, connect_timeout=patience
        ) as client:
            app = App(tmp_path, client)
            await app.push(HEAD + PLAIN)
            said = Said(capsys)
            async with watched(client, tmp_path):
                await own_servers.etcd.kill()
                app.write(HEAD + PLAIN.replace("2", "3"))
                await until(lambda: said("is pushed when the cluster answers"), "the promise")
                await asyncio.sleep(2)
                assert said.text.count("is pushed when the cluster answers") == 1, "it is told once"
                await own_servers.etcd.start()
                await until(lambda: said("v1: 1 updated (app:limits)"), "the push")
