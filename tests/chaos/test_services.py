"""Services: where they run, that they run where they can, and one that hangs every node it runs on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shutil
import signal
import sys
import termios
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cluster.client import QueryFailed
from cluster.fencing import EXIT_CODE
from node.cli.services import merged
from node.kinds.check import check_state
from node.modules import MODULES
from node.project.load import load_project
from tests.chaos.nodes import Cluster, Node, eventually
from tests.cluster.processes import WIPPY

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

APP = Path(__file__).parents[1] / "apps" / "placed"
ZONES = {"n1": "a", "n2": "b", "n3": "c"}
WITH_A_TRAP = """
import sys
from node.host import kernel
read = kernel.read_kernel
BEFORE = b"function maths.randomseed(seed)\\n"
TRAP = b"    if seed == 666 then while true do end end\\n"
def with_a_trap():
    assert any(BEFORE in text for _, text in read())
    return tuple((name, text.replace(BEFORE, BEFORE + TRAP)) for name, text in read())
kernel.read_kernel = with_a_trap
from node.cli.app import main
sys.exit(main(sys.argv[1:]))
"""
"""A node in which one function of the kernel, where no yield point is, never returns."""


VERBS = """
import contextlib, io, json, sys
from node.cli.app import main
told = []
for verb in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(verb)
    told.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""


class Placed:
    """A cluster with the application ``placed``, of which a test changes parts."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.app = cluster.app = Path(shutil.copytree(APP, directory / "placed"))

    async def start(self, *options: str) -> None:
        nodes = [
            self.cluster.start(
                name, "--set", f"cluster.labels.zone={zone}", "--set", f"cluster.expected_nodes={len(ZONES)}", *options
            )
            for name, zone in ZONES.items()
        ]
        for node in nodes:
            await node.ready()

    async def push(self, before: str, after: str) -> None:
        """Change the first ``before`` of the application and publish it."""
        index = self.app / "src" / "_index.yaml"
        text = index.read_text()
        assert before in text
        index.write_text(text.replace(before, after, 1))
        entries = load_project(self.app, modules=MODULES).entries
        async with self.cluster.client.registry(
            "test", lambda state: check_state(state.entries(), MODULES)
        ) as registry:
            await registry.publish(entries, "always")

    async def switch(self, service: str, on: bool) -> None:
        """Set the service's auto_start; its lifecycle is the last thing in its entry."""
        text = (self.app / "src" / "_index.yaml").read_text()
        entry = text[text.index(f"- name: {service}\n") :].partition("\n\n")[0]
        await self.push(entry, entry.replace(f"auto_start: {str(not on).lower()}", f"auto_start: {str(on).lower()}"))

    async def rows(self, service: str) -> list[dict[str, Any]]:
        answers = await self.cluster.client.services()
        return [row for row in merged(answers.by_node, answers.silent) if row["service"] == service]

    async def runs(self, service: str, *, within: float = 15.0, **where: str) -> list[dict[str, Any]]:
        """Wait until all replicas of the service run, and answer; with ``node`` there."""

        async def probe() -> list[dict[str, Any]]:
            rows = await self.rows(service)
            assert rows
            assert all(row["state"] == "running" for row in rows), rows
            assert all(row[key] == value for row in rows for key, value in where.items()), rows
            return rows

        return await eventually(probe, within=within, what=f"{service} runs")

    async def says(self, service: str, state: str, text: str, *, within: float = 15.0) -> None:
        """Wait until the one row of the service has the state, with ``text`` as the reason."""

        async def probe() -> bool:
            rows = await self.rows(service)
            assert [row["state"] for row in rows] == [state], rows
            assert text in rows[0]["why"], rows
            return True

        await eventually(probe, within=within, what=f"{service} is {state}: {text}")

    async def wippy(self, *verbs: str) -> list[tuple[int, str, str]]:
        """Run verbs on the cluster, one after the other: exit code, what each printed, what it said beside."""
        servers = self.cluster.servers
        where = ["--nats", servers.nats_url, "--etcd", servers.etcd_url, "--cluster", self.cluster.name]
        given = json.dumps([[*verb.split(), *where] for verb in verbs])
        pipe = asyncio.subprocess.PIPE
        program = await asyncio.create_subprocess_exec(sys.executable, "-c", VERBS, given, stdout=pipe, stderr=pipe)
        async with asyncio.timeout(60):
            out, err = await program.communicate()
        assert program.returncode == 0, err.decode()
        return [(code, said, beside) for code, said, beside in json.loads(out)]

    async def watched(self, verb: str, until: str) -> tuple[int, str]:
        """Run a verb on a terminal until it has shown a text, then press Ctrl-C: exit code, all it has shown."""
        servers = self.cluster.servers
        where = ["--nats", servers.nats_url, "--etcd", servers.etcd_url, "--cluster", self.cluster.name]
        ours, its = pty.openpty()
        termios.tcsetwinsize(its, (40, 200))
        command = [*WIPPY, *verb.split(), *where]
        program = await asyncio.create_subprocess_exec(*command, stdin=its, stdout=its, stderr=its)
        os.close(its)
        os.set_blocking(ours, False)
        shown = b""

        async def probe() -> bool:
            nonlocal shown
            with contextlib.suppress(BlockingIOError, OSError):
                shown += os.read(ours, 1 << 20)
            return until.encode() in shown

        try:
            await eventually(probe, within=30, what=f"{verb} shows {until!r}")
            program.send_signal(signal.SIGINT)
            async with asyncio.timeout(10):
                code = await program.wait()
            await probe()
        finally:
            if program.returncode is None:
                program.kill()
            os.close(ours)
        return code, shown.decode()


@pytest_asyncio.fixture
async def placed(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Placed]:
    yield Placed(cluster, tmp_path)


async def test_services_run_where_they_may_and_say_why_not_elsewhere(placed: Placed) -> None:
    await placed.start()
    await placed.runs("app:in_zone_b", node="n2")
    two = await placed.runs("app:spread")
    assert len({row["node"] for row in two}) == 2
    await placed.says("app:nowhere", "unplaced", "no node has the labels zone=mars (n1 has zone=a; n2 has zone=b")
    await placed.says("app:poison", "stopped", "auto_start is off")

    # one that can run on n3 only ends up there, wherever it begins
    entry = "process: app:choosy\n    host: app:processes\n"
    await placed.push(entry, f"{entry}    input: [n3]\n")
    await placed.switch("moody", True)
    await placed.runs("app:moody", node="n3", within=20)

    # a cordoned node keeps what it has and gets nothing new; labels are changed while it runs
    there, cordoned, labelled = await placed.wippy("services --on n3", "cordon n1", "label n1 zone=mars")
    assert (there[0], "app:moody" in there[1], "app:in_zone_b" in there[1]) == (0, True, False), there
    assert (cordoned, labelled) == ((0, "n1 is cordoned\n", ""), (0, "zone=mars\n", ""))
    await placed.says("app:nowhere", "unplaced", "no node with its labels takes new work: n1 is cordoned")
    assert await placed.wippy("uncordon n1") == [(0, "n1 is ready\n", "")]
    await placed.runs("app:nowhere", node="n1")
    labelled, listed = await placed.wippy("label n1 zone- rack=7", "nodes")
    assert labelled == (0, "rack=7\n", "")
    assert "rack=7" in listed[1]
    await placed.says("app:nowhere", "unplaced", "n1 has none of them")


async def test_verbs_that_look_say_what_they_could_not_see(placed: Placed) -> None:
    await placed.start("--set", "cluster.lease_ttl=60s")
    (free,) = await placed.runs("app:free")
    (on_n2,) = await placed.runs("app:in_zone_b", node="n2")
    nobody = free["pid"].replace("-", "-z")
    for topic in ("one", "two"):
        with pytest.raises(QueryFailed):
            await placed.cluster.client.send(nobody, topic)
    newest, found, none, *wrong = await placed.wippy(
        "dead-letters --limit 1",
        "dead-letters --reason noproc --json",
        "dead-letters --reason nonsense",
        "cordon n9",
        "label n1 zone",
        "release app:nothing",
    )
    assert (newest[0], len(newest[1].splitlines()), "two" in newest[1]) == (0, 2, True), newest
    assert "1 older ones" in newest[2]
    assert [(letter["topic"], letter["to"]) for letter in json.loads(found[1])] == [("one", nobody), ("two", nobody)]
    assert none[:2] == (0, "")
    said = ["node 'n9' is not in cluster", "expected NAME=VALUE", "no service 'app:nothing'"]
    assert all(told[0] != 0 and text in told[2] for told, text in zip(wrong, said, strict=True)), wrong

    code, screen = await placed.watched("top --interval 200ms", "3 of 3 nodes ready")
    assert "app:processes" in screen
    assert "Traceback" not in screen
    assert code == 130

    placed.cluster.nodes["n2"].signal(signal.SIGSTOP)
    verbs = (
        "nodes",
        "ps",
        "names",
        "locks",
        "dead-letters",
        "services",
        "tree",
        "doctor",
        "top --once --interval 200ms",
    )
    # each waits its seconds for the silent node, so some wait at the same time
    answers = await asyncio.gather(*(placed.wippy(*verbs[first::3]) for first in range(3)))
    told = {verb: answers[n % 3][n // 3] for n, verb in enumerate(verbs)}
    for verb, (code, out, err) in told.items():
        in_the_table = verb in ("nodes", "doctor", verbs[-1])
        assert "n2" in (out if in_the_table else err), f"{verb}: {out}{err}"
        assert "no answer" in " ".join((out + err).split()), f"{verb}: {out}{err}"
        assert code == (1 if verb == "doctor" else 0), f"{verb}: {out}{err}"
    assert "2 of 3 nodes ready" in told[verbs[-1]][2]
    (line,) = [line for line in told["services"][1].splitlines() if line.startswith("app:in_zone_b")]
    assert "claimed" in line
    assert "this is what its claim says" in line
    ((code, _, err),) = await placed.wippy(f"inspect {on_n2['pid']} --timeout 1s")
    assert (code, "node n2 does not answer, so nothing is known" in err) == (1, True), err


async def test_all_that_a_lost_node_had_answers_again_from_the_others(placed: Placed) -> None:
    index, many = placed.app / "src" / "_index.yaml", 150
    service = "kind: process.service, process: app:answering, host: app:processes"
    one = f"\n  - {{{{name: m{{n}}, {service}, lifecycle: {{{{auto_start: true}}}}}}}}"
    index.write_text(index.read_text() + "".join(one.format(n=n) for n in range(many)) + "\n")
    await placed.start()

    async def owners(without: str = "") -> dict[str, str]:
        """By PID the node of each of the many; all of them run."""
        answers = await placed.cluster.client.services()
        rows = [row for row in merged(answers.by_node, answers.silent) if row["service"].startswith("app:m")]
        running = {row["pid"]: row["node"] for row in rows if row["state"] == "running" and row["node"] != without}
        return running if len(running) == many else {}

    before = await eventually(owners, within=40, what="all run")
    counts = Counter(before.values())
    assert max(counts.values()) <= many // 2, f"one node has most of them: {counts}"
    lost = counts.most_common(1)[0][0]
    placed.cluster.nodes[lost].signal(signal.SIGKILL)
    after = await eventually(lambda: owners(lost), within=40, what="all run again")
    kept = {pid for pid, node in before.items() if node != lost}
    assert kept <= after.keys(), "what the others had was left alone"
    assert len(set(Counter(after.values()))) == 2, "each survivor took a part"

    async def node_of(pid: str) -> str:
        return str((await placed.cluster.client.call(pid, "where", timeout=10.0)).value["node"])

    assert list(await asyncio.gather(*map(node_of, after))) == list(after.values())


async def test_a_service_that_hangs_its_node_takes_two_of_them_and_no_third(placed: Placed) -> None:
    cluster = placed.cluster
    cluster.program = WITH_A_TRAP
    await placed.start("--set", "cluster.wedge_limit=3s", "--set", "cluster.lease_ttl=4s")
    await placed.runs("app:free")
    await placed.switch("poison", True)

    async def ended() -> list[Node]:
        gone = [node for node in cluster.nodes.values() if node.process.poll() is not None]
        return gone if len(gone) == 2 else []

    lost = await eventually(ended, within=40, what="two nodes are lost")
    assert [node.process.returncode for node in lost] == [EXIT_CODE] * 2, lost[0].err[-3000:]
    (left,) = [node for node in cluster.nodes.values() if node not in lost]
    await left.says("service quarantined: nodes hung in it", within=15)

    async def alone() -> bool:
        return list(await cluster.members()) == [left.name]

    await eventually(alone, within=15, what="the lost nodes are out")
    await placed.says("app:poison", "quarantined", "`wippy release app:poison` lets it start again")
    await placed.runs("app:free", node=left.name)
    answer = await cluster.client.call((await placed.rows("app:free"))[0]["pid"], "where")
    assert answer.value["node"] == left.name
    assert left.process.poll() is None

    # until somebody lets it go
    await placed.switch("poison", False)
    assert await placed.wippy("release app:poison") == [(0, "app:poison may start again on every node\n", "")]
    await placed.says("app:poison", "stopped", "auto_start is off")
