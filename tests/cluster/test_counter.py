"""The counter example on three nodes, looked at and acted on from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgpack
import nats
import pytest

from cluster.client import Client, QueryFailed
from cluster.errors import ClusterError
from cluster.pid import Pid, base36
from cluster.subjects import Subjects
from tests.cluster.processes import ROOT, Development, environment, eventually

pytestmark = pytest.mark.servers

NODES = ("node-1", "node-2", "node-3")


def status(up: Development, node: str) -> dict[str, Any]:
    return dict(up.call(f"worker@{node}", "status", gateway="node-1"))


def rates(up: Development) -> list[float]:
    return [status(up, node)["rate"] for node in NODES]


class TestLooking:
    def test_every_node_is_ready_and_says_where_its_metrics_are(self, up: Development) -> None:
        nodes = up.json("nodes", "--json")
        assert [(node["node"], node["state"]) for node in nodes] == [(name, "ready") for name in NODES]
        assert len({node["metrics"] for node in nodes}) == 3

    def test_a_worker_runs_on_every_node_and_the_counter_on_one(self, up: Development) -> None:
        entries = sorted(process["entry"] for process in up.json("ps", "--json"))
        assert entries.count("app:worker_process") == 3
        assert entries.count("app:counter_process") == 1

    def test_names_are_known_with_their_processes(self, up: Development) -> None:
        names = {name["name"]: name["pid"] for name in up.json("names", "--json")}
        assert {f"worker@{node}" for node in NODES} | {"counter"} <= set(names)
        assert Pid.parse(names["worker@node-2"]).node == "node-2"

    def test_services_are_listed_with_their_node(self, up: Development) -> None:
        services = [(service["service"], service["node"]) for service in up.json("services", "--json")]
        assert {("app:worker", node) for node in NODES} <= set(services)
        assert len([node for id, node in services if id == "app:counter"]) == 1

    def test_a_person_gets_columns(self, up: Development) -> None:
        shown = up.wippy("nodes").stdout.splitlines()
        assert shown[0].split()[:2] == ["NODE", "STATE"]
        assert len(shown) == 4

    def test_metrics_show_processes_registry_and_lease(self, up: Development) -> None:
        for node in up.place["nodes"]:
            with urlopen(node["metrics"], timeout=5) as answer:
                text = answer.read().decode()
            assert 'entry="app:worker_process"' in text
            assert re.search(r"^wippy_registry_version(?:\{.*\})? \d", text, re.MULTILINE)
            assert re.search(r"^wippy_lease_ttl_seconds(?:\{.*\})? [1-5]", text, re.MULTILINE)

    def test_service_discovery_lists_all_nodes(self, up: Development) -> None:
        one = up.place["nodes"][0]["metrics"].removesuffix("/metrics")
        with urlopen(f"{one}/sd", timeout=5) as answer:
            found = json.load(answer)
        assert sorted(each["targets"][0] for each in found) == sorted(
            node["metrics"].removeprefix("http://").removesuffix("/metrics") for node in up.place["nodes"]
        )


class TestActing:
    def test_a_call_through_node_1_reaches_a_process_on_node_3(self, up: Development) -> None:
        answer = up.json("call", "worker@node-3", "work", '{"n": 1}', "--timeout", "5s", "--node", "node-1")
        assert answer["node"] == "node-3"
        assert answer["count"] >= 1

    def test_a_call_by_pid_is_the_same(self, up: Development) -> None:
        pid = status(up, "node-3")["pid"]
        assert up.json("call", pid, "status", "--node", "node-1")["pid"] == pid

    def test_send_ends_when_the_node_of_the_process_accepted(self, up: Development) -> None:
        pid = status(up, "node-3")["pid"]
        assert up.wippy("send", pid, "status", "--node", "node-1").stdout.strip() == pid

    def test_send_to_a_dead_process_is_noproc(self, up: Development) -> None:
        living = Pid.parse(status(up, "node-3")["pid"])
        dead = str(Pid(living.node, living.host, living.incarnation, living.counter + 64 * 1000))
        said = up.wippy("send", dead, "work", "--node", "node-1", code=1).stderr
        assert said.startswith("error: noproc")
        assert said.count("\n") == 1

    def test_send_to_an_unknown_name_is_noproc(self, up: Development) -> None:
        assert up.wippy("send", "nobody", "work", code=1).stderr.startswith("error: noproc")

    def test_a_call_that_nobody_answers_ends_at_its_deadline(self, up: Development) -> None:
        pid = up.wippy("spawn", "app:counter_process", "node-2@app:processes").stdout.strip()
        try:
            # the second counter waits for its name and answers nothing
            said = up.wippy("call", pid, "get", "--timeout", "300ms", code=1).stderr
            assert "no answer within 0.3 s" in said
        finally:
            up.wippy("terminate", pid)

    def test_functions_are_called_by_their_id(self, up: Development) -> None:
        up.wippy("send", "counter", "add", '{"n": 1}')
        assert up.json("call", "app:total")["count"] >= 1

    def test_processes_are_spawned_cancelled_and_terminated_on_any_node(self, up: Development) -> None:
        for end in ("cancel", "terminate"):
            pid = up.wippy("spawn", "app:counter_process", "node-3@app:processes", "--node", "node-1").stdout.strip()
            assert Pid.parse(pid).node == "node-3"
            up.wippy(end, pid, "--node", "node-1")
            eventually(
                lambda pid=pid: pid not in [process["pid"] for process in up.json("ps", "--json")],
                within=10,
                what=f"{pid} ends after {end}",
            )

    def test_a_program_runs_beside_the_cluster(self, up: Development) -> None:
        before = up.call("counter", "get")["count"]
        ended = up.wippy("run", "examples/counter", "-x", "app:add", "3")
        assert f"count is {before + 3}" in ended.stdout


class TestChanging:
    @pytest.fixture(autouse=True)
    def _as_it_was(self, up: Development) -> Any:
        yield
        up.wippy("config", "unset", "app:limits", code=None)
        eventually(lambda: rates(up) == [2, 2, 2], within=10, what="the base holds again everywhere")

    def operator(self, up: Development, *arguments: str) -> subprocess.CompletedProcess[str]:
        place = up.place
        script = str(ROOT / "deploy" / "operator" / "set_config.py")
        command = [sys.executable, script, "--etcd", place["etcd"][0], "--cluster", place["cluster"], *arguments]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)

    def test_the_operator_script_changes_all_nodes_and_its_deletion_restores_the_base(self, up: Development) -> None:
        assert rates(up) == [2, 2, 2]
        done = self.operator(up, "app:limits", '{"rate": 5}')
        assert (done.returncode, done.stdout[:8]) == (0, "applied:"), done.stderr
        eventually(lambda: rates(up) == [5, 5, 5], within=5, what="the new rate on every node")
        assert self.operator(up, "app:limits", "--delete").returncode == 0
        eventually(lambda: rates(up) == [2, 2, 2], within=5, what="the base on every node")

    @pytest.mark.parametrize("malformed", ['{"rate": ', "just text", "[1, 2]"])
    def test_a_malformed_value_is_refused_with_the_reason_and_changes_nothing(
        self, up: Development, malformed: str
    ) -> None:
        before = up.json("registry", "history", "--json")[0]["version"]
        refused = self.operator(up, "app:limits", malformed)
        assert refused.returncode == 1
        assert re.match(r"refused: app:limits: .+; nothing changed", refused.stderr)
        (row,) = up.json("config", "list", "--json")
        assert (row["state"], bool(row["reason"])) == ("refused", True)
        assert rates(up) == [2, 2, 2]
        assert up.json("registry", "history", "--json")[0]["version"] == before

    def test_configuration_of_code_is_refused(self, up: Development) -> None:
        said = up.wippy("config", "set", "app:worker_process", '{"source": "return 1"}', code=1).stderr
        assert "takes no overlay" in said
        up.wippy("config", "unset", "app:worker_process")

    def test_processes_act_on_the_new_value(self, up: Development) -> None:
        up.wippy("config", "set", "app:limits", "rate=1")
        eventually(lambda: rates(up) == [1, 1, 1], within=5, what="the new rate on every node")
        shell = " & ".join([f"{sys.executable} -m node.cli call worker@node-2 work"] * 4) + " & wait"
        ended = subprocess.run(
            ["sh", "-c", shell],
            cwd=up.directory,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "over 1 jobs per second" in ended.stdout

    def test_a_saved_file_is_pushed_and_rolled_back_on_all_nodes(self, up: Development) -> None:
        index = up.app / "src" / "_index.yaml"
        text = index.read_text()
        try:
            index.write_text(text.replace("rate: 2\n", "rate: 9\n"))
            eventually(lambda: rates(up) == [9, 9, 9], within=15, what="the saved rate on every node")
            latest = up.json("registry", "history", "--json")[0]
            assert latest["message"] == "saved"
            former = f"v{int(latest['version'].removeprefix('v')) - 1}"
            assert up.wippy("registry", "rollback", former).stdout.startswith("rolled back:")
            eventually(lambda: rates(up) == [2, 2, 2], within=5, what="the former rate on every node")
            assert up.json("registry", "show", "app:limits", "--json")["data"]["rate"] == 2
        finally:
            index.write_text(text)
        eventually(
            lambda: up.wippy("registry", "diff", "examples/counter", code=None).returncode == 0, within=10, what="agree"
        )

    def test_files_with_errors_are_refused_whole(self, up: Development) -> None:
        broken = up.app / "src" / "broken.yaml"
        head = up.json("registry", "history", "--json")[0]["version"]
        try:
            broken.write_text(
                "version: '1.0'\nnamespace: more\nentries:\n  - {name: a, kind: no.such}\n  - {name: a, kind: x}\n"
            )
            said = up.wippy("registry", "push", "examples/counter", code=1).stderr
            assert len([line for line in said.splitlines() if line.startswith("error: src/broken.yaml:")]) >= 2
        finally:
            broken.unlink()
        assert up.json("registry", "history", "--json")[0]["version"] == head


class TestBadInput:
    """The caller is told, the cluster is as it was and serves on."""

    @pytest.fixture(autouse=True)
    def _serves_on(self, up: Development) -> Any:
        yield
        for node in NODES:
            assert status(up, node)["node"] == node

    def test_topics_of_the_runtime_are_refused(self, up: Development) -> None:
        assert "reserved" in up.wippy("send", "counter", "@pid/events", "{}", code=1).stderr

    def test_a_text_that_is_no_pid_is_refused(self, up: Development) -> None:
        assert "expected a PID" in up.wippy("send", "{nonsense}", "t", code=2).stderr

    def test_a_message_over_the_limit_is_refused_with_both_sizes(self, up: Development, tmp_path: Path) -> None:
        async def send() -> str:
            place = up.place
            async with Client(place["nats"], place["etcd"], place["cluster"]) as client:
                with pytest.raises(ClusterError) as refused:
                    await client.send("counter", "add", "x" * 1_000_000)
                return str(refused.value)

        assert re.search(r"\d{6,} bytes is over the limit of \d+ bytes", asyncio.run(send()))

    def test_an_unknown_entry_or_host_is_named(self, up: Development) -> None:
        assert "app:nothing" in up.wippy("spawn", "app:nothing", "app:processes", code=1).stderr
        assert "app:nowhere" in up.wippy("spawn", "app:counter_process", "app:nowhere", code=1).stderr
        assert "node-9" in up.wippy("spawn", "app:counter_process", "node-9@app:processes", code=1).stderr

    async def test_queries_that_are_none_are_answered_with_the_reason(self, up: Development) -> None:
        place = up.place
        async with Client(place["nats"], place["etcd"], place["cluster"]) as client:
            for op, query in (("nonsense", {}), ("send", {}), ("call", {"to": "counter"}), ("inspect", {"pid": 7})):
                with pytest.raises(QueryFailed) as refused:
                    await client.ask("node-1", op, **query)
                assert refused.value.kind == "Invalid"

    async def test_the_side_door_takes_plain_messages_and_refuses_the_rest(self, up: Development) -> None:
        place = up.place
        pid = Pid.parse(
            {name["name"]: name["pid"] for name in await asyncio.to_thread(up.json, "names", "--json")}["counter"]
        )
        subject = Subjects(place["cluster"]).pid(pid.node, base36(pid.incarnation), base36(pid.counter))
        before = (await asyncio.to_thread(up.call, "counter", "get"))["count"]
        connection = await nats.connect(place["nats"][0])
        try:
            as_json = {"Content-Type": "application/json"}
            add = {"topic": "add", "payload": {"n": 1000}}
            forged = add | {"from": "{node-1@app:processes|1-1}"}
            reserved = add | {"topic": "@pid/events"}
            oversize = add | {"payload": "x" * 950_000}
            bad = [b"\xc1\xff", b"{", b"null", *(json.dumps(each).encode() for each in (forged, reserved, oversize))]
            for payload in bad:
                await connection.publish(subject, payload, headers=as_json)
                await connection.publish(subject, payload)
            for each in (forged, reserved):
                await connection.publish(subject, msgpack.packb(each))
            await connection.publish(subject, json.dumps(add | {"payload": {"n": 10}}).encode(), headers=as_json)
            await connection.flush()
        finally:
            await connection.close()
        await asyncio.to_thread(
            eventually,
            lambda: up.call("counter", "get")["count"] == before + 10,
            within=5,
            what="exactly the good message arrived",
        )


def test_a_second_cluster_in_the_same_directory_is_refused(up: Development) -> None:
    said = up.wippy("up", "examples/counter", code=1).stderr
    assert f"a cluster runs here already (process {up.pid})" in said
    assert os.path.exists(up.directory / ".wippy" / "cluster.json")
