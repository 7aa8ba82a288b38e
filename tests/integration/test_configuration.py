"""The operator's configuration in a real etcd; a test answers in place of a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.configuration import ChangedMeanwhile, Configuration
from cluster.embedded import EmbeddedServers
from cluster.errors import CallTimeout
from cluster.etcd import Etcd
from cluster.keys import Keys
from cluster.registry.status import OverlayStatus, Verdict
from cluster.tasks import Tasks

pytestmark = pytest.mark.servers

SCRIPT = Path(__file__).parents[2] / "deploy" / "operator" / "set_config.py"


@pytest.fixture
def keys(cluster_name: str) -> Keys:
    return Keys(cluster_name)


@pytest.fixture
def configuration(etcd: Etcd, keys: Keys) -> Configuration:
    return Configuration(etcd, keys)


async def answer(etcd: Etcd, keys: Keys, entry: str, mod: int, revision: int, reason: str = "") -> None:
    status = OverlayStatus(Verdict.ERROR if reason else Verdict.APPLIED, mod, revision, 3, reason)
    await etcd.put(keys.overlay_status(entry), status.encode())


class TestConfiguration:
    async def test_what_was_put_is_read_back_and_waits_for_an_answer(self, configuration: Configuration) -> None:
        mod = await configuration.put("app:limits", {"rate": 5})
        setting = await configuration.get("app:limits")
        assert (setting.mod_revision, json.loads(setting.raw or b"")) == (mod, {"rate": 5})
        assert not setting.is_answered

    async def test_an_answer_to_an_earlier_value_does_not_count(
        self, configuration: Configuration, etcd: Etcd, keys: Keys
    ) -> None:
        first = await configuration.put("app:limits", {"rate": 5})
        await answer(etcd, keys, "app:limits", first, first)
        second = await configuration.put("app:limits", {"rate": 6})
        assert not (await configuration.get("app:limits")).is_answered
        with pytest.raises(CallTimeout, match="is a node ready"):
            await configuration.answered("app:limits", second, second, 0.2)

    async def test_waits_until_a_node_answers(self, configuration: Configuration, etcd: Etcd, keys: Keys) -> None:
        mod = await configuration.put("app:limits", {"rate": 5})
        async with Tasks("node") as tasks:
            waiting = tasks.start(configuration.answered("app:limits", mod, mod, 5.0), "wait")
            await answer(etcd, keys, "app:limits", mod, mod, reason="no such entry")
            status = await waiting
        assert (status.status, status.reason) == (Verdict.ERROR, "no such entry")

    async def test_a_write_from_an_old_reading_is_refused(self, configuration: Configuration) -> None:
        await configuration.put("app:limits", {"rate": 5})
        with pytest.raises(ChangedMeanwhile):
            await configuration.put("app:limits", {"rate": 6}, expected=0)

    async def test_a_deleted_one_is_gone(self, configuration: Configuration) -> None:
        await configuration.put("app:limits", {"rate": 5})
        await configuration.delete("app:limits")
        assert (await configuration.get("app:limits")).raw is None
        assert await configuration.all() == []

    async def test_all_are_listed_with_their_answers(
        self, configuration: Configuration, etcd: Etcd, keys: Keys
    ) -> None:
        mod = await configuration.put("app:a", {})
        await configuration.put("app:b", {})
        await answer(etcd, keys, "app:a", mod, mod)
        assert [(each.entry, each.is_answered) for each in await configuration.all()] == [
            ("app:a", True),
            ("app:b", False),
        ]


def operator(servers: EmbeddedServers, cluster: str, *arguments: str) -> subprocess.Popen[str]:
    """The operator's script, in a process of its own."""
    command = [sys.executable, str(SCRIPT), "--etcd", servers.etcd_url, "--cluster", cluster, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PROTOCOL_BUFFERS")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


class TestOperatorScript:
    """With ``etcd3`` beside the protobuf everything else uses."""

    async def test_puts_without_waiting(
        self, servers: EmbeddedServers, configuration: Configuration, cluster_name: str
    ) -> None:
        script = operator(servers, cluster_name, "app:limits", '{"rate": 5}', "--no-wait")
        assert script.wait(30) == 0, script.stderr and script.stderr.read()
        assert (await configuration.get("app:limits")).raw == b'{"rate": 5}'

    async def test_says_that_no_node_answers(self, servers: EmbeddedServers, cluster_name: str) -> None:
        script = operator(servers, cluster_name, "app:limits", "{}", "--timeout", "0.5")
        _, said = script.communicate(timeout=30)
        assert script.returncode == 1
        assert said.startswith("error: no node answered for app:limits in time")

    async def test_deleting_nothing_is_no_error(self, servers: EmbeddedServers, cluster_name: str) -> None:
        script = operator(servers, cluster_name, "app:limits", "--delete")
        said, _ = script.communicate(timeout=30)
        assert (script.returncode, said) == (0, "nothing was laid over app:limits\n")
