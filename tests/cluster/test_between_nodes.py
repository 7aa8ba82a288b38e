"""What processes of different nodes can do with each other, and what they learn of each other's end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from cluster.client import Client, QueryFailed
from tests.cluster.lab import Lab
from tests.cluster.processes import eventually

pytestmark = pytest.mark.servers

NODES = ("node-1", "node-2", "node-3")


@pytest.fixture(scope="module")
def lab(binaries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab"), "--set", "limits.dead_letters=20000") as lab:
        yield lab


class TestSpawn:
    def test_a_process_on_another_node_answers(self, lab: Lab) -> None:
        seen = lab.experiment("spawn")
        assert seen["pid"].startswith("{node-3@app:processes|")
        assert seen["from"] == seen["answer"]["pid"] == seen["pid"]
        assert (seen["answer"]["topic"], seen["answer"]["data"]) == ("question", {"text": "who?"})

    def test_what_can_not_be_spawned_is_said_by_what_is_wrong(self, lab: Lab) -> None:
        seen = lab.experiment("nowhere")
        assert seen["node"]["kind"] == "Unavailable"
        assert "node-9" in seen["node"]["error"]
        assert seen["host"]["kind"] == "NotFound"
        assert "app:nohost" in seen["host"]["error"]
        assert "its hosts are: app:processes" in seen["host"]["error"]
        assert seen["entry"]["kind"] == "NotFound"
        assert "app:nothing" in seen["entry"]["error"]
        assert seen["oversize"]["kind"] == "Invalid"
        assert seen["message"]["kind"] == "Unavailable"
        assert "no node node-9 in the cluster" in seen["message"]["error"]
        assert [each.get("value") for each in seen.values()] == [None] * 5

    def test_exec_gives_the_value_or_the_error(self, lab: Lab) -> None:
        seen = lab.experiment("exec")
        assert seen["good"] == {"value": {"n": 42}}
        assert (seen["bad"]["kind"], seen["bad"]["error"]) == ("PermissionDenied", "not allowed")
        assert "on purpose" in seen["worse"]["error"]


class TestMonitors:
    def test_a_return_is_an_exit_with_the_value(self, lab: Lab) -> None:
        seen = lab.experiment("spawn_monitored", "returns", {"list": [1, 2], "text": "x"})
        assert seen["is_child"] is True
        assert seen["event"]["kind"] == "pid.exit"
        assert seen["event"]["value"] == {"list": [1, 2], "text": "x"}
        assert "error" not in seen["event"]

    def test_a_crash_is_an_exit_with_the_error_and_its_place(self, lab: Lab) -> None:
        event = lab.experiment("spawn_monitored", "raises")["event"]
        assert (event["kind"], event["error_kind"]) == ("pid.exit", "Internal")
        assert re.fullmatch(r"app:subject:\d+: on purpose", event["error"])

    def test_a_returned_error_keeps_kind_and_details(self, lab: Lab) -> None:
        event = lab.experiment("spawn_monitored", "refuses")["event"]
        assert (event["error_kind"], event["error"]) == ("PermissionDenied", "not allowed")
        assert event["details"] == {"by": "subject"}

    def test_a_second_monitor_and_one_of_the_dead_are_refused(self, lab: Lab) -> None:
        seen = lab.experiment("monitor")
        assert seen["again"]["kind"] == "AlreadyExists"
        assert seen["event"]["kind"] == "pid.exit"
        assert seen["afterwards"]["kind"] == "NotFound"

    def test_who_stopped_watching_hears_nothing(self, lab: Lab) -> None:
        assert lab.experiment("unmonitor") == {"kind": "none"}
        assert lab.experiment("unlink") == {"kind": "none"}

    def test_all_messages_come_before_the_exit_in_order(self, lab: Lab) -> None:
        seen = lab.experiment("order", 2000)
        assert seen["in_order"] == 2000
        assert (seen["is_child"], seen["event"]["kind"], seen["event"]["value"]) == (True, "pid.exit", "counted")


class TestLinks:
    def test_who_traps_links_gets_an_event_of_an_end_with_an_error(self, lab: Lab) -> None:
        seen = lab.experiment("spawn_linked", "raises")
        assert (seen["is_child"], seen["event"]["kind"]) == (True, "pid.link.down")
        assert "on purpose" in seen["event"]["error"]

    def test_a_normal_end_is_not_told(self, lab: Lab) -> None:
        assert lab.experiment("spawn_linked", "returns", 1)["event"] == {"kind": "none"}

    def test_who_does_not_trap_ends_too(self, lab: Lab) -> None:
        seen = lab.experiment("linked_dies_too")
        assert seen["is_fuse"] is True
        assert "linked process failed" in seen["event"]["error"]

    def test_a_link_is_of_both_sides(self, lab: Lab) -> None:
        seen = lab.experiment("links_back")
        assert seen["is_remote"] is True
        assert "linked process failed" in seen["event"]["error"]


class TestSignals:
    def test_cancel_brings_its_reason(self, lab: Lab) -> None:
        seen = lab.experiment("cancel")
        assert seen["event"]["value"] == {"kind": "pid.cancel", "reason": "that will do", "from": seen["me"]}

    def test_terminate_ends_at_once_and_only_once(self, lab: Lab) -> None:
        seen = lab.experiment("terminate")
        assert (seen["event"]["kind"], seen["event"]["error"]) == ("pid.exit", "terminated")
        assert seen["again"]["kind"] == "NotFound"

    def test_a_message_too_large_or_reserved_is_refused_and_the_next_one_arrives(self, lab: Lab) -> None:
        seen = lab.experiment("oversize")
        assert seen["refused"]["kind"] == "Invalid"
        assert re.search(r"10\d{5} bytes is over the limit of 921600 bytes", seen["refused"]["error"])
        assert seen["reserved"]["kind"] == "Invalid"
        assert seen["data"] == "small"


def heard(lab: Lab, node: str) -> dict[str, int]:
    return dict(lab.call(f"listener@{node}", "heard")["heard"] or {})


class TestEvents:
    def test_an_application_event_reaches_every_node_once(self, lab: Lab) -> None:
        sender = lab.ask(lambda client: client.call_function("app:publish", 50), gateway="node-2")
        assert sender.startswith("{node-2@")
        expected = {f"lab test.done /{number}": 1 for number in range(1, 51)}
        for node in NODES:

            def all_of_them(node: str = node) -> bool:
                found = {key: count for key, count in heard(lab, node).items() if key.startswith("lab ")}
                return found == expected

            eventually(all_of_them, within=5, what=f"{node} heard each event once")

    def test_each_node_tells_its_own_of_a_new_version_once(self, lab: Lab) -> None:
        def commits(node: str) -> int:
            return sum(count for key, count in heard(lab, node).items() if key.startswith("registry registry.commit"))

        before = {node: commits(node) for node in NODES}
        lab.wippy("config", "set", "app:setting", "level=2")
        try:
            for node in NODES:
                eventually(
                    lambda node=node: heard(lab, node).get("registry entry.update app:setting") == 1,
                    within=5,
                    what=f"{node} told of the change",
                )
            assert {node: commits(node) - before[node] for node in NODES} == dict.fromkeys(NODES, 1)
        finally:
            lab.wippy("config", "unset", "app:setting")


class TestMetrics:
    def test_every_figure_is_there_and_plausible(self, lab: Lab) -> None:
        lab.experiment("order", 100)
        lab.experiment("order", 5000, node="node-1")

        def figure(text: str, name: str, **labels: str) -> float:
            wanted = "".join(rf'(?=[^}}]*\b{key}="{re.escape(value)}")' for key, value in labels.items())
            found = re.findall(rf"^{name}(?:\{{{wanted}[^}}]*\}})? (\S+)$", text, re.MULTILINE)
            assert found, f"no {name} {labels}"
            return sum(float(value) for value in found)

        one, three = lab.metrics("node-1"), lab.metrics("node-3")
        host = "app:processes"
        assert figure(one, "wippy_processes", host=host, entry="app:listener") == 1
        assert figure(three, "wippy_spawned_total", host=host, entry="app:subject") >= 1
        assert figure(one, "wippy_spawned_total", host=host, entry="app:listener") == 1
        assert figure(three, "wippy_exits_total", host=host, reason="normal") >= 1
        assert figure(one, "wippy_mailbox_depth", host=host) == 0
        assert 5000 <= figure(one, "wippy_messages_total", path="local") < 5500
        assert figure(one, "wippy_messages_total", path="remote_in") >= 100
        assert figure(three, "wippy_messages_total", path="remote_out") >= 100
        assert 0 < figure(one, "wippy_vm_step_seconds_sum", host=host) < 60
        assert figure(one, "wippy_vm_step_seconds_count", host=host) > 0
        assert figure(one, "wippy_vm_memory_bytes", host=host) > 100_000
        assert figure(one, "wippy_registry_version") == figure(one, "wippy_registry_head") >= 0
        assert 1 < figure(one, "wippy_lease_ttl_seconds") <= 5
        assert figure(one, "wippy_link_state", peer="node-3") == 1
        assert figure(one, "wippy_link_envelopes_total", peer="node-3", dir="in") >= 100
        assert figure(one, "wippy_nats_connected", connection="data") == 1
        assert figure(one, "wippy_nats_reconnects_total", connection="control") == 0
        assert figure(one, "wippy_nats_slow_consumer_drops_total") == 0
        assert figure(one, "wippy_nats_permission_errors_total") == 0
        assert figure(one, "wippy_nodes", state="ready") == 3


class TestNames:
    @pytest.mark.parametrize(("count", "burst"), [(2500, 4), (4000, 20)])
    def test_each_message_to_a_name_that_moves_arrives_once_and_in_order_or_is_a_dead_letter(
        self, lab: Lab, count: int, burst: int
    ) -> None:
        """From node-3 to a name that goes to and fro between node-1 and node-2."""
        name = f"moving {burst}"
        moved = lab.experiment("moving_name", name, count, burst)
        assert moved["moves"] > 5

        async def seen(client: Client) -> tuple[list[list[int]], dict[int, str]]:
            got = [(await client.call(pid, "order", {"deed": "report"})).value for pid in moved["holders"]]
            letters = (await client.dead_letters()).by_node
            dead = [letter for letters in letters.values() for letter in letters if letter["name"] == name]
            assert len({letter["topic"] for letter in dead}) == len(dead)
            return got, {int(letter["topic"][1:]): letter["reason"] for letter in dead}

        def all_of_them() -> tuple[list[list[int]], dict[int, str]] | None:
            got, dead = lab.ask(seen)
            assert sum(map(len, got)) + len(dead) >= count, (list(map(len, got)), len(dead))
            return got, dead

        got, dead = eventually(all_of_them, within=15, what="every message is somewhere")
        assert [numbers for numbers in got if numbers != sorted(numbers)] == []
        assert sorted([*got[0], *got[1], *dead]) == list(range(1, count + 1))
        assert all(got), "both held the name"
        assert set(dead.values()) <= {"stale_name", "stale_name_free", "stale_name_overtaken"}

    def test_a_message_of_a_client_to_a_name_that_moves_is_taken_once_or_refused(self, lab: Lab) -> None:
        name = "moving for clients"

        async def send_meanwhile(client: Client) -> tuple[Any, list[int], Counter[str]]:
            taken: list[int] = []
            refused: Counter[str] = Counter()
            experiment = client.call_function("app:experiment", "moving_name", "node-3", name, 1000, 2, timeout=20.0)
            async with asyncio.TaskGroup() as tasks:
                moved = tasks.create_task(experiment)
                while not moved.done():
                    number = 10_000 + len(taken) + refused.total()
                    try:
                        await client.send(name, "n0", number)
                        taken.append(number)
                    except QueryFailed as error:
                        refused[error.code] += 1
            return moved.result(), taken, refused

        moved, taken, refused = lab.ask(send_meanwhile)
        assert len(taken) > 50
        assert set(refused) <= {"noproc", "stale_name"}

        async def got(client: Client) -> list[int]:
            told = [(await client.call(pid, "order", {"deed": "report"})).value for pid in moved["holders"]]
            return sorted(number for numbers in told for number in numbers if number >= 10_000)

        assert lab.ask(got) == taken


class TestLoss:
    """A node is lost; what its neighbours learn. Each test has a cluster of its own."""

    @pytest.mark.chaos
    def test_a_monitor_gets_exit_a_link_link_down_or_takes_its_process_along(
        self, binaries: None, tmp_path: Path
    ) -> None:
        ways = ("monitoring", "linked and trapping", "linked")
        with Lab(tmp_path) as lab:

            async def watched(client: Client) -> str:
                pid = await client.spawn("app:subject", "node-3@app:processes", "waits_for_ever")
                for how in ways:
                    await client.spawn("app:witness", "node-1@app:processes", how, pid)
                return pid

            pid = lab.ask(watched)

            def told(how: str) -> Any:
                return lab.call(f"witness {how}", "seen")["seen"]

            for how in ways:
                assert eventually(lambda how=how: [told(how)], within=5, what=how) == [[]]
            os.kill(lab.pids["node-3"], signal.SIGKILL)

            for how, kind in (("monitoring", "pid.exit"), ("linked and trapping", "pid.link.down")):
                (event,) = eventually(lambda how=how: told(how), within=9, what=f"the one {how} is told")
                assert (event["kind"], event["from"], event["what"]) == (kind, pid, "Unavailable")
                assert "node-3" in event["error"] or "node disconnected" in event["error"]
            entries = [one["entry"] for one in lab.json("ps", "--json")]
            assert entries.count("app:witness") == 2, "the one that traps nothing ended"

    def test_a_draining_node_says_so_until_it_is_gone(self, binaries: None, tmp_path: Path) -> None:
        with Lab(tmp_path, "--set", "shutdown.timeout=2s", "--set", "logger.level=info") as lab:
            (ready,) = [each["metrics"] for each in lab.place["nodes"] if each["name"] == "node-2"]
            ready = ready.replace("/metrics", "/readyz")
            with urlopen(ready, timeout=5) as answer:
                assert answer.status == 200
            lab.ask(lambda client: client.spawn("app:subject", "node-2@app:processes", "waits_for_ever"))
            os.kill(lab.pids["node-2"], signal.SIGTERM)

            def refused() -> str | None:
                try:
                    with urlopen(ready, timeout=1):
                        return None
                except HTTPError as error:
                    return f"{error.code} {error.read().decode()}"

            assert re.match(r"503 .*draining", eventually(refused, within=2, what="503"), re.DOTALL)

            def present() -> list[str]:
                return [each["node"] for each in lab.json("nodes", "--json") if each["state"] != "gone"]

            eventually(lambda: present() == ["node-1", "node-3"], within=10, what="node-2 left")
            assert "processes are asked to end; after shutdown.timeout they are killed" in lab.err
