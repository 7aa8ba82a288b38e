"""A node from its first start to its end: what it keeps, what it shows meanwhile, and in which order it stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from cluster.embedded import EmbeddedServers
from cluster.etcd import Etcd, KeyEvent, PrefixWatch
from cluster.keys import Keys
from tests.cluster.processes import WIPPY, Program, eventually, is_running, wippy
from tests.cluster.test_apps import copied, records

pytestmark = pytest.mark.servers


class TestStores:
    def test_are_thrown_away_unless_they_are_to_be_kept(self, binaries: None, tmp_path: Path) -> None:
        app = copied("ledger", tmp_path)
        for _ in range(2):
            assert wippy(app, "run", "-x", "app:write").stdout == "line 1\n"
        assert not (app / ".wippy" / "servers").exists()
        for line in (1, 2):
            assert wippy(app, "run", "--keep", "-x", "app:write").stdout == f"line {line}\n"
        assert (app / ".wippy" / "servers").is_dir()
        assert wippy(app, "run", "-x", "app:write").stdout == "line 1\n"

    def test_of_a_development_cluster_are_kept_the_same_way(self, binaries: None, tmp_path: Path) -> None:
        copied("ledger", tmp_path)
        for line in (1, 2):
            with Program([*WIPPY, "up", "ledger", "--nodes", "1", "--keep"], tmp_path, f"up{line}") as up:
                up.until(lambda up=up: "Ctrl-C stops everything" in up.out)
                assert wippy(tmp_path, "run", "ledger", "-x", "app:write").stdout == f"line {line}\n"
                assert up.stop() == 0


class TestStop:
    async def test_owned_work_ends_before_the_lease(
        self, servers: EmbeddedServers, etcd: Etcd, cluster_name: str, tmp_path: Path
    ) -> None:
        keys = Keys(cluster_name)
        addresses = ["--nats", servers.nats_url, "--etcd", servers.etcd_url, "--cluster", cluster_name]
        command = [*WIPPY, "run", "--node", "node-1", *addresses, "--set", "logger.encoding=json"]
        seen: list[KeyEvent] = []
        watch = PrefixWatch(etcd, keys.prefix)
        watch.subscribe(keys.prefix, lambda batch: seen.extend(batch.events))
        async with watch:
            with Program(command, copied("ledger", tmp_path), "node") as node:
                await asyncio.to_thread(node.until, lambda: "the book is open" in node.err)
                assert await asyncio.to_thread(node.stop) == 0
            async with asyncio.timeout(5):
                while not any(event.deleted and event.kv.key == keys.node("node-1") for event in seen):
                    await asyncio.sleep(0.02)
        order = [event.kv.key.removeprefix(keys.prefix) for event in seen]
        closed = order.index("kv/book/closed")
        left = next(i for i, event in enumerate(seen) if event.deleted and event.kv.key == keys.node("node-1"))
        states = [json.loads(event.kv.value)["state"] for event in seen[:left] if event.kv.key == keys.node("node-1")]
        assert states[:2] == ["joining", "ready"]
        assert states[-1] == "draining"
        assert closed < left, "the service wrote, under its claim, before the node gave its lease back"
        (written,) = [record for record in records(node.err) if record["message"] == "the book is closed"]
        assert written["written"] is True

    def test_one_signal_told_twice_is_one(self, binaries: None, tmp_path: Path) -> None:
        with Program([*WIPPY, "run"], copied("ledger", tmp_path), "node") as node:
            node.until(lambda: "the book is open" in node.err)
            for each in (signal.SIGINT, signal.SIGTERM):  # as `timeout` tells its child, and then the child's group
                node.process.send_signal(each)
            assert node.process.wait(20) == 0
        assert "the book is closed" in node.err
        assert "ending at once" not in node.err

    def test_a_node_that_is_killed_takes_its_embedded_servers_along(self, binaries: None, tmp_path: Path) -> None:
        app = copied("ledger", tmp_path)
        with Program([*WIPPY, "run"], app, "node") as node:
            node.until(lambda: "the book is open" in node.err)
            place = json.loads((app / ".wippy" / "cluster.json").read_text())
            assert place["pid"] == node.pid
            port = int(place["etcd"][0].rpartition(":")[2])
            os.kill(node.pid, signal.SIGKILL)
            node.process.wait(10)

        def is_free() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) != 0

        assert eventually(is_free, within=10, what="etcd ended")
        assert not is_running(node.pid)
        # what it left behind does not keep the next one from starting
        assert wippy(app, "run", "-x", "app:write").stdout == "line 1\n"


class TestProbes:
    def test_two_nodes_count_their_ports_up_and_say_where_they_are(
        self, servers: EmbeddedServers, cluster_name: str, tmp_path: Path
    ) -> None:
        app = copied("ledger", tmp_path)
        addresses = ["--nats", servers.nats_url, "--etcd", servers.etcd_url, "--cluster", cluster_name]
        nodes = [Program([*WIPPY, "run", "--node", name, *addresses], app, name) for name in ("a", "b")]
        with nodes[0], nodes[1]:
            for node in nodes:
                node.until(lambda node=node: "node ready" in node.err)
            shown = json.loads(wippy(app, "nodes", "--json", *addresses).stdout)
            urls = [each["metrics"] for each in shown]
            ports = [int(url.removesuffix("/metrics").rpartition(":")[2]) for url in urls]
            assert len(set(ports)) == 2
            assert all(9464 <= port < 9564 for port in ports)
            for url, node in zip(urls, nodes, strict=True):
                assert f"metrics={url}" in node.err
            base = urls[0].removesuffix("/metrics")
            assert get(f"{base}/livez")[0] == get(f"{base}/readyz")[0] == 200
            found: Any = json.loads(get(f"{base}/sd")[1])
            assert sorted(each["labels"]["node"] for each in found) == ["a", "b"]

    def test_a_port_that_was_asked_for_and_is_taken_is_one_clear_error(self, binaries: None, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            sets = ["prometheus.enabled=true", f"prometheus.address=127.0.0.1:{port}"]
            arguments = [part for text in sets for part in ("--set", text)]
            ended = wippy(copied("ledger", tmp_path), "run", *arguments, code=1)
        (error,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert str(port) in error


def get(url: str) -> tuple[int, str]:
    with urlopen(url, timeout=5) as answer:
        return answer.status, answer.read().decode()
