"""Verbs of the registry as programs: how they end, and what they do when etcd goes away."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.registry.changeset import Create, Operation, Update
from cluster.registry.entry import Entry
from node.cli.registry.opening import opened
from tests.cluster.processes import ROOT, WIPPY, Development, Program, wippy
from tests.cluster.test_apps import copied

pytestmark = pytest.mark.servers


@pytest.fixture
async def client(own_servers: EmbeddedServers, cluster_name: str) -> AsyncIterator[Client]:
    async with Client([own_servers.nats_url], [own_servers.etcd_url], cluster_name) as client:
        yield client


class Watch(Program):
    """``wippy registry watch``, once it follows."""

    def __init__(self, client: Client, servers: EmbeddedServers, directory: Path, *options: str) -> None:
        place = ["--nats", servers.nats_url, "--etcd", servers.etcd_url, "--cluster", client.cluster]
        super().__init__([*WIPPY, "registry", "watch", *options, *place], directory, "watch")

    def __enter__(self) -> Watch:
        super().__enter__()
        self.until(lambda: "waiting for the next version" in self.err, within=20)
        return self

    async def shows(self, count: int) -> list[str]:
        """So many lines of stdout."""
        async with asyncio.timeout(30):
            while len(lines := self.out.splitlines()) < count:
                assert self.process.poll() is None, self.err
                await asyncio.sleep(0.05)
        return lines


async def change(client: Client, *operations: Operation, message: str = "") -> None:
    async with opened(client, empty=True) as registry:
        await registry.commit(operations, message=message)


def limits(rate: int) -> Entry:
    return Entry("app:limits", "registry.entry", data={"rate": rate})


class TestWatch:
    async def test_shows_each_version_in_one_line_also_those_made_around_an_outage_and_ends_well(
        self, own_servers: EmbeddedServers, client: Client, tmp_path: Path
    ) -> None:
        with Watch(client, own_servers, tmp_path) as watch:
            await change(client, Create(limits(1)), message="first")
            (first,) = await watch.shows(1)
            assert first.startswith("v0  ")
            assert first.endswith('1 created (app:limits)  "first"')
            await own_servers.etcd.kill()
            async with asyncio.timeout(30):
                while "etcd does not answer; waiting for it" not in watch.err:
                    await asyncio.sleep(0.1)
            await own_servers.etcd.start()
            for rate in (2, 3):
                await change(client, Update(limits(rate)))
            lines = await watch.shows(3)
            assert [line.split()[0] for line in lines] == ["v0", "v1", "v2"]
            async with asyncio.timeout(30):
                while "etcd answers again" not in watch.err:
                    await asyncio.sleep(0.1)
            watch.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(watch.process.wait, 20) == 0
        assert "Traceback" not in watch.err

    async def test_is_for_programs_one_value_per_line_and_for_people_a_diff(
        self, own_servers: EmbeddedServers, client: Client, tmp_path: Path
    ) -> None:
        await change(client, Create(limits(1)))
        (tmp_path / "people").mkdir()
        with (
            Watch(client, own_servers, tmp_path, "--json") as programs,
            Watch(client, own_servers, tmp_path / "people", "--diff") as people,
        ):
            await change(client, Update(limits(2)), Create(Entry("app:a", "registry.entry")), message="m")
            (line,) = await programs.shows(1)
            value = json.loads(line)
            assert (value["version"], value["before"], value["message"]) == (1, 0, "m")
            assert (value["created"], value["updated"], value["deleted"]) == (["app:a"], ["app:limits"], [])
            assert "+  rate: 2" in await people.shows(14)
            assert programs.stop() == 0, "SIGTERM ends it as well as Ctrl-C"


async def test_exit_codes(own_servers: EmbeddedServers, client: Client, tmp_path: Path) -> None:
    env = {"WIPPY_NATS": own_servers.nats_url, "WIPPY_ETCD": own_servers.etcd_url, "WIPPY_CLUSTER": client.cluster}

    def code(*arguments: str) -> int:
        return wippy(tmp_path, *arguments, code=None, env=env).returncode

    assert code("registry", "list") == 1, "nothing was ever published"
    assert code("registry", "push", str(copied("shelf", tmp_path))) == 0
    assert code("registry", "diff", "v0") == 0
    await change(client, Create(limits(1)))
    assert code("registry", "diff", "v0", "v1") == 1
    assert code("registry", "diff", "v0", "x") == 2
    assert code("doctor") == 1, "there is no node"


class TestOnRealNodes:
    def test_a_push_a_node_can_not_use_is_taken_back_on_all_of_them(self, up: Development, tmp_path: Path) -> None:
        before = up.json("registry", "history", "--json")[0]
        app = tmp_path / "broken"
        shutil.copytree(up.app, app, ignore=shutil.ignore_patterns(".wippy"))
        (app / "src" / "broken.yaml").write_text(
            "namespace: broken\nentries:\n  - {name: file, kind: env.storage.file, "
            "file_path: /proc/nothing/here.env, auto_create: true}\n"
        )
        ended = up.wippy("registry", "push", str(app), "--rollback-on-error", "-m", "try", code=1)
        assert ended.stderr.count("is degraded by v") == 3
        assert "broken:file" in ended.stderr
        assert "taken back: v" in ended.stdout
        newest, tried = up.json("registry", "history", "--json", "--limit", "2")
        assert tried["message"] == "try"
        assert int(tried["version"][1:]) == int(before["version"][1:]) + 1
        assert sorted(newest["nodes"]) == ["node-1", "node-2", "node-3"]
        up.wippy("registry", "diff", before["version"], code=0)

    def test_the_rollout_of_the_deployment_page_works(self, up: Development) -> None:
        page = (ROOT / "docs" / "deploy.md").read_text()
        section = page.split("## Changing what runs")[1].split("\n## ")[0]
        (block,) = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        for line in block.splitlines():
            program, *words = shlex.split(line)
            assert program == "wippy"
            arguments = [str(up.app) if word == "." else word for word in words]
            ended = up.wippy(*arguments, code=None)
            is_difference = arguments[:2] == ["registry", "diff"] and ended.returncode == 1
            assert ended.returncode == 0 or is_difference, f"{line}\n{ended.stderr}"
            assert "error:" not in ended.stderr

    def test_ps_says_from_which_version_the_code_of_a_process_is(self, up: Development) -> None:
        rows = up.json("ps", "--json")
        assert rows
        assert all(row["code"].startswith("v") for row in rows)
        assert up.json("ps", "--json", "--entry", "app:counter_process")[0]["names"] == ["counter"]
        assert {row["node"] for row in up.json("ps", "--json", "--on", "node-2")} == {"node-2"}
        limited = up.wippy("ps", "--limit", "1", "--on", "node-1")
        assert len(limited.stdout.splitlines()) == 2
