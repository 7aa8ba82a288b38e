"""Pushing an application's files to a real cluster: what is said, and what is held back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.errors import Invalid
from node.cli.registry import Pushed, opened, push_project
from node.cli.watching import push_saved
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
        self.write(text)
        await push_saved(self._client, self.directory, (), Settings)

    async def ids(self) -> set[str]:
        async with opened(self._client) as registry:
            return {entry.id for entry in registry.state.entries()}


@pytest.fixture
def app(tmp_path: Path, client: Client) -> App:
    return App(tmp_path, client)


async def test_a_push_names_what_it_changed(app: App) -> None:
    text = HEAD + PLAIN + CODE % "io" + MORE
    assert await app.push(text) == Pushed(0, True, ())
    assert await app.push(text) == Pushed(0, False, ())
    assert await app.push(text.replace("rate: 2", "rate: 3")) == Pushed(1, False, ["app:limits"])
    changed = text.replace("rate: 2", "rate: 3").replace("function() end", "function() return 1 end")
    assert await app.push(changed) == Pushed(2, False, ["app:a"], keeps_code=True)


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
    assert len((await app.push(f"{HEAD} []")).changed_ids) == 4, "asked for, it is done"


async def test_a_save_may_delete_a_few(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    await app.push(HEAD + PLAIN + MORE)
    await app.save(HEAD + MORE)
    assert capsys.readouterr().err == "pushed: 1 entry changed, now v1: app:limits\n"
