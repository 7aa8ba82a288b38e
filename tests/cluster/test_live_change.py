"""Entries that change while everything runs: code, services, hosts and stores, on all nodes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.embedded import EmbeddedServers
from cluster.etcd import Etcd
from cluster.keys import Keys
from tests.cluster.lab import Lab
from tests.cluster.processes import WIPPY, Program, eventually, wippy
from tests.cluster.test_apps import copied

pytestmark = pytest.mark.servers

NODES = ("node-1", "node-2", "node-3")

ANNEX = """\
version: "1.0"
namespace: annex
entries:
  - name: hall
    kind: process.host
    lifecycle: {auto_start: true}
  - name: shelf
    kind: store.kv.raft
    namespace: annex
    lifecycle: {auto_start: true}
  - name: guard_process
    kind: process.lua
    modules: [store]
    source: |
      return { main = function()
        assert(require("store").get("annex:shelf")):set("guard", process.pid())
        assert(process.registry.register("guard"))
        process.events():receive()
        require("store").get("annex:shelf"):set("guard", "gone")
      end }
  - name: guard
    kind: process.service
    process: guard_process
    host: hall
    lifecycle: {auto_start: true}
  - name: broken_process
    kind: process.lua
    source: |
      return { main = function() error("never works") end }
  - name: broken
    kind: process.service
    process: broken_process
    host: hall
    lifecycle: {auto_start: true, restart: {initial_delay: 50ms, max_attempts: 3}}
"""


@pytest.fixture(scope="module")
def lab(binaries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab"), "--no-watch") as lab:
        yield lab


def services(lab: Lab) -> dict[str, dict[str, Any]]:
    return {each["service"]: each for each in lab.json("services", "--json")}


def test_changed_code_is_that_of_the_next_process_and_the_running_one_keeps_its_own(lab: Lab) -> None:
    code = lab.app / "src" / "subject.lua"
    text = code.read_text()

    def answer(pid: str) -> Any:
        return lab.call(pid, "question", "who?")

    def start(node: str) -> str:
        return str(lab.ask(lambda client: client.spawn("app:subject", f"{node}@app:processes", "answers")))

    old = {node: start(node) for node in NODES}
    try:
        code.write_text(text.replace("topic = message:topic()", 'topic = "changed"'))
        assert lab.wippy("registry", "push", "lab").stdout.startswith("pushed")
        for node in NODES:
            eventually(
                lambda node=node: answer(start(node))["topic"] == "changed", within=5, what=f"{node} runs the new code"
            )
        assert {node: answer(pid)["topic"] for node, pid in old.items()} == dict.fromkeys(NODES, "question")
    finally:
        code.write_text(text)
        lab.wippy("registry", "push", "lab")


def test_a_namespace_comes_and_goes_with_its_host_its_store_and_its_service(lab: Lab) -> None:
    annex = lab.app / "src" / "annex"
    annex.mkdir()
    (annex / "_index.yaml").write_text(ANNEX)
    lab.wippy("registry", "push", "lab")
    guard = eventually(
        lambda: {each["name"]: each["pid"] for each in lab.json("names", "--json")}["guard"],
        within=10,
        what="the new service runs",
    )
    assert "@annex:hall|" in guard
    for node in NODES:
        made = lab.ask(
            lambda client, node=node: client.spawn("app:subject", f"{node}@annex:hall", "waits_for_ever"),
            gateway="node-2",
        )
        assert made.startswith(f"{{{node}@annex:hall|")

    # one that never works is given up after its attempts, and harms nobody
    broken = eventually(
        lambda: (found := services(lab).get("annex:broken")) and found["state"] == "failed" and found,
        within=10,
        what="the broken service is given up",
    )
    assert "never works" in json.dumps(broken)
    assert lab.experiment("exec")["good"] == {"value": {"n": 42}}

    (annex / "_index.yaml").unlink()
    annex.rmdir()
    lab.wippy("registry", "push", "lab")
    eventually(
        lambda: not [one for one in services(lab) if one.startswith("annex:")], within=15, what="the services went"
    )
    eventually(
        lambda: not [one for one in lab.json("ps", "--json") if "@annex:hall|" in one["pid"]],
        within=15,
        what="the host went with its processes",
    )
    assert "no host 'annex:hall'" in lab.wippy("spawn", "app:subject", "node-1@annex:hall", code=1).stderr
    assert guard not in [each["pid"] for each in lab.json("names", "--json")]
    assert lab.experiment("exec")["good"] == {"value": {"n": 42}}


def test_a_node_that_lacks_a_kind_in_use_stays_joining_until_it_is_not(
    servers: EmbeddedServers, cluster_name: str, tmp_path: Path
) -> None:
    keys = Keys(cluster_name)
    addresses = ["--nats", servers.nats_url, "--etcd", servers.etcd_url, "--cluster", cluster_name]

    async def floor(value: bytes | None) -> None:
        async with Etcd([servers.etcd_url]) as etcd:
            await (etcd.put(keys.floor, value) if value else etcd.delete(keys.floor))

    asyncio.run(floor(b'{"kinds": {"future.kind": 3}}'))
    with Program([*WIPPY, "run", "--node", "old", *addresses], copied("ledger", tmp_path), "old") as node:
        node.until(lambda: "can't become ready" in node.err)
        assert "kind future.kind with schema 3 (this node knows none)" in node.err
        (shown,) = json.loads(wippy(tmp_path, "nodes", "--json", *addresses).stdout)
        assert (shown["node"], shown["state"]) == ("old", "joining")
        assert "the book is open" not in node.err
        asyncio.run(floor(None))
        node.until(lambda: "the book is open" in node.err, within=20)
