"""Nodes that are emptied, and processes that are moved, from the command line, while somebody talks to them."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from cluster.client import Client
from node.cli.services import merged
from tests.cluster.processes import ROOT, WIPPY, Development, Program, environment, eventually

pytestmark = pytest.mark.servers

APP = Path(__file__).parents[1] / "apps" / "drained"
PAGE = (ROOT / "docs" / "draining.md").read_text()


class Crowd(Development):
    """Three nodes with processes that move and others that don't."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(APP, directory / "drained")
        options = ["--nodes", "3", "--no-watch", "--set", "shutdown.timeout=4s"]
        Program.__init__(self, [*WIPPY, "up", "drained", *options], directory, "up")

    def ask(self, what: Any, gateway: str | None = None) -> Any:
        """``what(client)``, awaited."""

        async def ask() -> Any:
            place = self.place
            async with Client(place["nats"], place["etcd"], place["cluster"], gateway=gateway) as client:
                return await what(client)

        return asyncio.run(ask())

    def start(self, node: str, entry: str, number: int = 1) -> list[str]:
        pids: list[str] = self.ask(lambda client: client.call_function("app:crowd", entry, number), node)
        return pids

    def places(self) -> dict[str, str]:
        """The node each process runs on."""
        answers = self.ask(lambda client: client.ps())
        assert not answers.silent
        return {row["pid"]: node for node, rows in answers.by_node.items() for row in rows}

    def states(self) -> dict[str, str]:
        return {member.node: member.state.value for member in self.ask(lambda client: client.nodes())}

    def services(self) -> dict[str, str]:
        """The node of each service that runs once."""
        answers = self.ask(lambda client: client.services())
        rows = merged(answers.by_node, answers.silent)
        return {row["service"]: row["node"] for row in rows if row["state"] == "running" and row["claim"]}

    def end(self, *pids: str) -> None:
        async def end(client: Client) -> None:
            for pid in pids:
                await client.terminate(pid)

        self.ask(end)

    def readiness(self, node: str) -> int:
        (url,) = [each["metrics"] for each in self.place["nodes"] if each["name"] == node]
        try:
            with urlopen(url.replace("/metrics", "/readyz"), timeout=5) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def crowd(binaries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with Crowd(tmp_path_factory.mktemp("crowd")) as crowd:
        eventually(lambda: len(crowd.services()) == 3, within=20, what="the services run")
        yield crowd


def test_a_process_moves_with_what_it_knows_and_says_how_long_that_took(crowd: Crowd) -> None:
    (pid,) = crowd.start("node-1", "app:wanderer")
    assert crowd.call(pid, "count") == {"count": 1, "moves": 0}
    said = crowd.wippy("move", pid, "node-2").stdout
    assert re.fullmatch(r"moved to node-2 in \d+ ms\n", said)
    for gateway, node in (("node-1", "node-3"), ("node-2", "node-1")):  # whoever is asked finds it
        moved = crowd.ask(lambda client, node=node: client.move(pid, node), gateway)
        assert (moved.verdict, moved.node) == ("moved", node)
    assert crowd.ask(lambda client: client.move(pid, "node-1")).verdict == ""
    assert crowd.call(pid, "count") == {"count": 2, "moves": 3}
    crowd.end(pid)
    gone = crowd.wippy("move", pid, "node-2", code=1)
    assert "no process" in gone.stderr


def test_one_that_does_not_move_runs_where_it_was(crowd: Crowd) -> None:
    (settler,) = crowd.start("node-1", "app:settler")
    refused = crowd.wippy("move", settler, "node-2", code=1).stderr
    assert re.search(r"not moved: .*migratable = true.*; it runs on node-1", refused)
    (slow,) = crowd.start("node-1", "app:wanderer")
    crowd.call(slow, "pack", 1500)
    late = crowd.wippy("move", slow, "node-2", "--within", "200ms", code=1).stderr
    assert "not moved: " in late
    assert "it runs on node-1" in late
    assert crowd.call(slow, "count")["count"] == 2
    crowd.end(settler, slow)


def test_a_program_moves_a_process_wherever_that_is(crowd: Crowd) -> None:
    (wanderer,), (settler,) = crowd.start("node-1", "app:wanderer"), crowd.start("node-1", "app:settler")

    def move(pid: str, node: str) -> Any:
        return crowd.ask(lambda client: client.call_function("app:mover", pid, node, timeout=20.0), "node-2")

    for node in ("node-3", "node-2"):
        assert 0 < move(wanderer, node) < 5000
    assert move(wanderer, "node-2") == 0
    assert crowd.places()[wanderer] == "node-2"
    told = move(settler, "node-2")
    assert (told["kind"], told["details"]["node"]) == ("Conflict", "node-1")
    assert "migratable = true" in told["message"]
    assert move("{node-1@app:processes|1-zzz}", "node-2")["kind"] == "NotFound"
    assert move(wanderer, "node-9")["kind"] == "Invalid"
    crowd.end(wanderer, settler)


def test_a_node_is_emptied_while_others_talk_to_what_runs_there(crowd: Crowd) -> None:
    node = crowd.services()["app:tree"]
    pids = crowd.start(node, "app:wanderer", 40)
    crowd.start(node, "app:settler", 3)

    async def talk(client: Client) -> tuple[Any, dict[str, list[int]]]:
        heard: dict[str, list[int]] = {pid: [] for pid in pids}
        is_over = False

        async def ask(pid: str) -> None:
            while not is_over:
                heard[pid].append((await client.call(pid, "count", timeout=20.0)).value["count"])

        talking = [asyncio.ensure_future(ask(pid)) for pid in pids[:8]]
        await asyncio.sleep(0.2)
        await client.drain(node, 20.0)
        while (told := await client.drained(node))["phase"] == "draining":
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        is_over = True
        await asyncio.gather(*talking)
        return told, heard

    gateway = next(name for name in crowd.states() if name != node)
    told, heard = crowd.ask(talk, gateway)
    assert (told["phase"], told["left"], told["settled"], told["lost"]) == ("drained", 0, True, 0)
    assert told["moved"] >= 40
    assert told["handed_over"] >= 1, "the tree"
    assert told["cancelled"] >= 4, "three settlers, and the service that is on every node"
    assert [numbers for numbers in heard.values() if numbers != list(range(1, len(numbers) + 1))] == []
    assert node not in crowd.places().values()
    assert (crowd.states()[node], crowd.readiness(node)) == ("draining", 503)
    eventually(lambda: len(crowd.services()) == 3 and node not in crowd.services().values(), within=15, what="services")

    assert crowd.wippy("uncordon", node).stdout == f"{node} is ready\n"
    assert crowd.readiness(node) == 200
    eventually(lambda: node in crowd.places().values(), within=10, what="what runs on every node is there again")
    crowd.end(*pids)


def test_what_no_node_takes_is_left_and_what_does_not_end_is_killed(crowd: Crowd) -> None:
    others = ("node-2", "node-3")
    (wanderer,), (mule,) = crowd.start("node-1", "app:wanderer"), crowd.start("node-1", "app:mule")
    try:
        for node in others:
            crowd.ask(lambda client, node=node: client.cordon(node))
        drained = subprocess.Popen(
            [*WIPPY, "drain", "node-1", "--deadline", "3s"],
            cwd=crowd.directory, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        left = eventually(
            lambda: [n for n in [crowd.call(mule, "left", gateway="node-2")] if n >= 0], within=20, what="it is asked"
        )
        assert 0 < left[0] <= 3000
        out, _ = drained.communicate(timeout=30)
        assert drained.returncode == 1
        assert "node-1 is not empty" in out
        assert f"  {wanderer}  app:wanderer  no node took it in time" in out
        assert mule not in crowd.places()
        assert crowd.call(wanderer, "count", gateway="node-2")["count"] == 1
    finally:
        for node in ("node-1", *others):
            crowd.ask(lambda client, node=node: client.uncordon(node))
    crowd.end(wanderer)


def test_who_stops_looking_on_leaves_it_running_and_uncordon_calls_it_off(crowd: Crowd) -> None:
    (mule,) = crowd.start("node-3", "app:mule")
    command = [*WIPPY, "drain", "node-3", "--deadline", "1h"]
    with Program(command, crowd.directory, "drain") as looking:
        eventually(lambda: "ending" in looking.err, within=15, what="it shows how far it is")
        os.kill(looking.pid, signal.SIGINT)
        assert looking.process.wait(15) == 130
        assert "the drain of node-3 goes on" in looking.err
    assert crowd.ask(lambda client: client.drained("node-3"))["phase"] == "draining"
    crowd.ask(lambda client: client.uncordon("node-3"))
    assert crowd.ask(lambda client: client.drained("node-3"))["phase"] == "called off"
    assert mule in crowd.places()
    crowd.end(mule)


def test_the_commands_of_the_page(crowd: Crowd) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 8
    for command in commands:
        assert crowd.wippy(*shlex.split(command)[1:]).stdout.strip(), command


def test_a_node_that_stops_gives_away_what_it_has(crowd: Crowd) -> None:
    pids = crowd.start("node-2", "app:wanderer", 30)
    (mule,) = crowd.start("node-2", "app:mule")
    began = time.monotonic()
    os.kill(crowd.pids["node-2"], signal.SIGTERM)
    # the mule does not end by itself: the node is gone when its time is over
    eventually(lambda: "node-2" not in crowd.states(), within=40, what="node-2 is gone")
    assert time.monotonic() - began > 3, "the mule had its time"
    places = crowd.places()
    assert {places[pid] for pid in pids} <= {"node-1", "node-3"}
    assert mule not in places
    for pid in pids[:3]:  # born on a node that is gone
        assert crowd.call(pid, "count")["count"] == 1
        assert crowd.ask(lambda client, pid=pid: client.move(pid, "node-1")).node == "node-1"
