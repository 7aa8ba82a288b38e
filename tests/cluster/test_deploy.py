"""Three nodes from three directories, each with its own configuration, on servers that run anyway."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cluster.embedded import EmbeddedServers
from tests.cluster.processes import ROOT, WIPPY, Program, eventually, wippy

pytestmark = pytest.mark.servers

NODES = ("node-1", "node-2", "node-3")


def commands() -> list[str]:
    """What the README says to type on each machine."""
    found = re.findall(r"^wippy (run \. --node .+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(found) == 3
    return found


@pytest.fixture
def machines(servers: EmbeddedServers, tmp_path: Path, cluster_name: str) -> Iterator[dict[str, Program]]:
    """The README's three commands, each in a directory of its own, with these servers and this cluster's name."""
    with ExitStack() as stack:
        programs = {}
        for node, typed in zip(NODES, commands(), strict=True):
            directory = tmp_path / node
            shutil.copytree(ROOT / "examples" / "counter", directory, ignore=shutil.ignore_patterns(".wippy"))
            (directory / ".wippy.yaml").write_text(configuration(node))
            here = {
                "nats://10.0.0.1:4222": servers.nats_url,
                "http://10.0.0.1:2379": servers.etcd_url,
                "shop": cluster_name,
            }
            arguments = [here.get(word, word) for word in typed.split()]
            programs[node] = stack.enter_context(Program([*WIPPY, *arguments], directory, "node"))
        for program in programs.values():
            program.until(lambda program=program: "node ready" in program.err)
        yield programs


def configuration(node: str) -> str:
    return (
        f"logger:\n  encoding: json\ncluster:\n  labels:\n    machine: {node}\n  lease_ttl: 5s\nmetrics:\n  port: 0\n"
    )


def ask(servers: EmbeddedServers, cluster: str, directory: Path, *arguments: str, code: int = 0) -> str:
    """A verb that finds the cluster by the environment, as on an operator's machine."""
    env = {"WIPPY_NATS": servers.nats_url, "WIPPY_ETCD": servers.etcd_url, "WIPPY_CLUSTER": cluster}
    return wippy(directory, *arguments, code=code, env=env).stdout


def test_three_machines_form_one_cluster_and_stop_in_good_order(
    machines: dict[str, Program], servers: EmbeddedServers, cluster_name: str, tmp_path: Path
) -> None:
    import json

    def run(*arguments: str) -> Any:
        return json.loads(ask(servers, cluster_name, tmp_path, *arguments))

    nodes = {node["node"]: node for node in run("nodes", "--json")}
    assert {name: node["labels"] for name, node in nodes.items()} == {name: {"machine": name} for name in NODES}
    answer = eventually(
        lambda: run("call", "worker@node-3", "work", '{"n": 2}', "--node", "node-1"), within=10, what="node-3 answers"
    )
    assert answer["node"] == "node-3"
    assert all(line.startswith("{") for line in machines["node-1"].err.splitlines()), "each has its own configuration"

    runs_on = run("call", "counter", "get")["node"]
    machines[runs_on].process.send_signal(signal.SIGTERM)
    assert machines[runs_on].process.wait(40) == 0
    moved = eventually(
        lambda: (found := run("call", "counter", "get"))["node"] != runs_on and found,
        within=8,
        what="an orderly stop hands the counter over",
    )
    assert moved["count"] == 2
    assert runs_on not in {node["node"] for node in run("nodes", "--json")}


def test_a_second_node_of_the_same_name_waits_and_says_why(
    machines: dict[str, Program], servers: EmbeddedServers, cluster_name: str, tmp_path: Path
) -> None:
    arguments = ["run", str(tmp_path / "node-1"), "--node", "node-1", "--cluster", cluster_name]
    addresses = ["--nats", servers.nats_url, "--etcd", servers.etcd_url]
    with Program([*WIPPY, *arguments, *addresses], tmp_path, "twin") as twin:
        twin.until(lambda: "name is taken" in twin.err)
        assert "node ready" not in twin.err
        machines["node-1"].stop()
        twin.until(lambda: "node ready" in twin.err, within=20)
