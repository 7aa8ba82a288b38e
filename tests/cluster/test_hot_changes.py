"""Changes of the registry reach what runs, on every node: code, services, resources, events."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from cluster.client import Client
from cluster.configuration import Configuration
from cluster.settling import Outcome, Settling
from node.kinds import check_state
from node.modules import MODULES
from node.project import load_project
from tests.cluster.lab import Lab
from tests.cluster.processes import WIPPY, Program, eventually

pytestmark = pytest.mark.servers

APP = Path(__file__).parents[1] / "apps" / "hot"
NODES = ("node-1", "node-2", "node-3")


class Hot(Lab):
    """Three nodes with ``tests/apps/hot``; what tests change in its files they put back."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.app = Path(shutil.copytree(APP, directory / "hot"))
        command = [
            *WIPPY,
            "up",
            "hot",
            "--nodes",
            "3",
            "--set",
            "logger.level=warn",
            "--set",
            "shutdown.timeout=1s",
            *options,
        ]
        Program.__init__(self, command, directory, "up")
        self.index = self.app / "src" / "_index.yaml"

    def push(self, text: str | None = None) -> dict[str, Outcome]:
        """Push the files, the index with ``text`` in it; what became of that on each node."""
        if text is not None:
            self.index.write_text(text)
        project = load_project(self.app, modules=MODULES)

        async def publish(client: Client) -> dict[str, Outcome]:
            async with client.registry("test", lambda state: check_state(state.entries(), MODULES)) as registry:
                result = await registry.publish(project.entries, "always")
            return await client.settled(result.version, 20.0)

        outcomes: dict[str, Outcome] = self.ask(publish, gateway=None)
        return outcomes

    def health(self) -> dict[str, dict[str, Any]]:
        async def ask(client: Any) -> Any:
            return (await client.ask_all("health")).by_node

        found: dict[str, dict[str, Any]] = self.ask(ask)
        return found

    def start(self, node: str, entry: str, *args: Any) -> str:
        async def spawn(client: Any) -> str:
            return str(await client.spawn(entry, f"{node}@app:processes", *args))

        return str(self.ask(spawn))

    def says(self, gateway: str) -> str:
        """What the function says, called in the node's own VM."""

        async def call(client: Any) -> Any:
            return await client.call_function("app:say")

        return str(self.ask(call, gateway=gateway))

    def change(self, what: str, *args: Any) -> dict[str, Any]:
        """A change made by a program."""

        async def call(client: Any) -> Any:
            return await client.call_function("app:change", what, *args, timeout=20.0)

        done: dict[str, Any] = self.ask(call)
        return done

    def lay(self, entry: str, mapping: dict[str, Any] | None) -> str:
        """Lay ``mapping`` over an entry as an operator does, None takes it away; why it was refused."""

        async def put(client: Client) -> str:
            configuration = Configuration(client.etcd, client.keys)
            if mapping is None:
                mod, revision = 0, await configuration.delete(entry)
            else:
                mod = revision = await configuration.put(entry, mapping)
            return (await configuration.answered(entry, mod, revision, 15.0)).reason

        return str(self.ask(put))

    def claim(self) -> Any:
        """The claim under which the service runs: its owner, and the revision."""

        async def read(client: Client) -> Any:
            kv = await client.etcd.get(client.keys.service("app:keeping", 0))
            assert kv is not None
            return kv.value, kv.mod_revision

        return self.ask(read)

    def ps(self) -> dict[str, dict[str, Any]]:
        """The processes of all nodes, by PID."""

        async def read(client: Client) -> Any:
            return [row for rows in (await client.ps()).by_node.values() for row in rows]

        return {row["pid"]: row for row in self.ask(read)}


@pytest.fixture(scope="module")
def hot(binaries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hot]:
    with Hot(tmp_path_factory.mktemp("hot"), "--no-watch") as hot:
        yield hot


@pytest.fixture(autouse=True)
def _as_before(hot: Hot) -> Iterator[None]:
    yield
    if hot.index.read_text() != (APP / "src" / "_index.yaml").read_text():
        hot.push((APP / "src" / "_index.yaml").read_text())


LOW = ('word = "one"', 'word = "two"')


def with_change(before: str, after: str) -> str:
    text = (APP / "src" / "_index.yaml").read_text()
    assert text.count(before) == 1
    return text.replace(before, after)


def test_once_every_node_took_a_version_the_next_call_uses_it_in_every_vm(hot: Hot) -> None:
    askers = [hot.start(node, "app:asker") for node in NODES]
    assert [hot.call(pid, "ask") for pid in askers] == ["one"] * 3
    assert [hot.says(node) for node in NODES] == ["one"] * 3
    outcomes = hot.push(with_change(*LOW))
    assert {node: each.settling for node, each in outcomes.items()} == dict.fromkeys(NODES, Settling.CONVERGED)
    assert [hot.call(pid, "ask") for pid in askers] == ["two"] * 3, "at once, in processes that run"
    assert [hot.says(node) for node in NODES] == ["two"] * 3


def test_a_process_that_opted_in_takes_the_new_code_and_keeps_what_it_is(hot: Hot) -> None:
    new = [hot.start(node, "app:watcher", True, f"new-{node}") for node in NODES]
    old = [hot.start(node, "app:watcher", False, f"old-{node}") for node in NODES]
    hot.start("node-1", "app:witness", new[2], "witness")

    version = {row["version"] for row in hot.ps().values() if row["entry"] == "app:watcher"}
    hot.push(with_change(*LOW))
    for node, pid in zip(NODES, new, strict=True):
        answer = hot.call(pid, "question")
        assert answer == {"word": "two", "upgrades": 1, "sources": ["app:low", "app:text", "app:watcher"]}
        assert hot.call(f"new-{node}", "question") == answer, "its name is still its own"
    for pid in old:
        assert hot.call(pid, "question")["word"] == "one"
    assert hot.call("witness", "question") == [], "to who watches it from elsewhere it is the same process"
    rows = hot.ps()
    assert {rows[pid]["outdated"] for pid in new} == {False}
    assert {rows[pid]["outdated"] for pid in old} == {True}
    assert {rows[pid]["version"] for pid in old} <= version
    assert min(rows[pid]["version"] for pid in new) > max(version)

    async def end(client: Client) -> None:
        await client.send(new[2], "end")

    hot.ask(end)
    seen = eventually(lambda: hot.call("witness", "question"), within=10, what="the end is told")
    assert seen == [{"from": new[2], "value": "ended"}]


def test_a_definition_that_changed_restarts_the_service_in_order_where_it_is(hot: Hot) -> None:
    before, claim = hot.call("keeper", "question"), hot.claim()
    hot.push(with_change("input: [first]", "input: [second]"))

    def restarted() -> Any:
        now = hot.call("keeper", "question")
        return now["input"] == "second" and now

    now = eventually(restarted, within=10, what="the service runs with its new input")
    assert now["starts"] == before["starts"] + 1
    assert now["last"] == {"reason": "service changed", "input": "first"}, "it was asked to end, and had its time"
    assert hot.claim() == claim


def test_a_service_that_fails_with_broken_code_runs_as_soon_as_the_code_is_right(hot: Hot) -> None:
    code = hot.app / "src" / "keeper.lua"
    right = code.read_text()
    slow = with_change("input: [first]", "input: [second]").replace(
        "stop_timeout: 5s", "stop_timeout: 5s\n      restart: {initial_delay: 10m, max_delay: 10m}"
    )
    code.write_text('return { main = function() error("not yet") end }')
    hot.push(slow)

    def waits() -> bool:
        async def services(client: Client) -> Any:
            return (await client.services()).by_node

        rows = [row for rows in hot.ask(services).values() for row in rows]
        return any("not yet" in row.get("last_error", "") for row in rows)

    try:
        eventually(waits, within=15, what="the service waits for its next start")
    finally:
        code.write_text(right)
        hot.push()
    eventually(lambda: hot.call("keeper", "question")["input"] == "second", within=15, what="it is started at once")


def test_what_a_running_service_can_live_with_does_not_touch_it(hot: Hot) -> None:
    before, claim = hot.call("keeper", "question"), hot.claim()
    outcomes = hot.push(
        with_change("runs once in the cluster", "runs once").replace("stop_timeout: 5s", "stop_timeout: 7s")
    )
    assert {each.settling for each in outcomes.values()} == {Settling.CONVERGED}
    assert hot.call("keeper", "question") == before
    version = hot.health()["node-1"]["registry_version"]
    hot.push()
    assert hot.health()["node-1"]["registry_version"] == version, "the same files are no version"
    assert hot.claim() == claim


def test_an_entry_that_can_not_be_brought_about_is_told_everywhere_until_it_is(hot: Hot) -> None:
    text = hot.index.read_text()
    bad = "\n  - name: file\n    kind: env.storage.file\n    file_path: data/late.env\n"
    outcomes = hot.push(text + bad)
    version = hot.health()["node-1"]["registry_version"]
    for node in NODES:
        assert outcomes[node].settling is Settling.DEGRADED
        (degraded,) = outcomes[node].degraded
        assert (degraded.entry, degraded.version) == ("app:file", version)
        assert "create it" in degraded.reason
        health = hot.health()[node]
        assert [(each["entry"], each["version"]) for each in health["degraded"]] == [("app:file", version)]
        assert 'wippy_degraded_entry{entry="app:file",reason=' in hot.metrics(node)
    (ready,) = [each["metrics"] for each in hot.place["nodes"] if each["name"] == "node-2"]
    with urlopen(ready.replace("/metrics", "/readyz"), timeout=5) as answer:
        assert "degraded: app:file since" in answer.read().decode()

    later = hot.push(with_change(*LOW) + bad)
    assert {each.settling for each in later.values()} == {Settling.CONVERGED}, "the others go on"
    assert [each.entry for each in later["node-1"].degraded_before] == ["app:file"]

    (hot.app / "data").mkdir()
    (hot.app / "data" / "late.env").write_text("")
    eventually(
        lambda: not any(each["degraded"] for each in hot.health().values()),
        within=40,
        what="every node tried again by itself",
    )


def test_an_operator_changes_a_service_that_runs_but_only_to_what_a_push_might_make_of_it(hot: Hot) -> None:
    before, claim = hot.call("keeper", "question"), hot.claim()
    assert "there is no entry app:nowhere" in hot.lay("app:keeping", {"host": "app:nowhere"})
    assert hot.call("keeper", "question") == before
    for value, heard in (({"input": ["laid over"]}, "laid over"), (None, "first")):
        assert hot.lay("app:keeping", value) == ""
        eventually(
            lambda heard=heard: hot.call("keeper", "question")["input"] == heard, within=15, what=f"it has {heard}"
        )
    assert hot.call("keeper", "question")["starts"] == before["starts"] + 2
    assert hot.claim() == claim


def test_every_node_hears_each_change_in_order_whoever_made_it(hot: Hot) -> None:
    for node in NODES:
        hot.start(node, "app:listener", f"listener-{node}")
    first = hot.change("create", {"id": "app:made", "kind": "registry.entry", "data": {"n": 1}})["version"]
    assert hot.lay("app:setting", {"level": 2}) == ""
    eventually(
        lambda: hot.health()["node-1"]["registry_version"] == first + 1, within=15, what="the overlay is a version"
    )
    hot.change("update", {"id": "app:made", "kind": "registry.entry", "data": {"n": 2}})
    assert hot.change("back", first)["version"] == first + 3
    hot.change("delete", "app:made")
    assert hot.lay("app:setting", None) == ""
    expected = [
        ["entry.create", "app:made", first],
        ["entry.update", "app:setting", first + 1],
        ["entry.update", "app:made", first + 2],
        ["entry.update", "app:made", first + 3],
        ["entry.delete", "app:made", first + 4],
        ["entry.update", "app:setting", first + 5],
    ]

    def heard(node: str) -> list[Any]:
        return [each for each in hot.call(f"listener-{node}", "question") if each[0] != "registry.commit"]

    for node in NODES:
        eventually(lambda node=node: len(heard(node)) >= len(expected), within=15, what=f"{node} heard it all")
        assert heard(node) == expected


def test_a_program_that_is_wrong_changes_nothing_and_is_told_where(hot: Hot) -> None:
    version = hot.health()["node-1"]["registry_version"]
    cases = {
        "source": ({"id": "app:bad", "kind": "library.lua", "data": {"source": "return {\n  1 +\n}"}}, "app:bad"),
        "imports": (
            {"id": "app:low", "kind": "library.lua", "data": {"source": "return {}", "imports": {"t": "app:text"}}},
            "app:low -> app:text -> app:low",
        ),
        "process": ({"id": "app:gone", "kind": "process.service", "data": {"host": "app:processes"}}, "app:gone"),
    }
    for field, (entry, said) in cases.items():
        done = hot.change("update" if entry["id"] == "app:low" else "create", entry)
        assert done["kind"] == "Invalid"
        assert said in done["message"]
        assert field in [problem["field"] for problem in done["details"]["problems"]]
    assert hot.health()["node-1"]["registry_version"] == version


def test_a_node_that_dies_while_a_version_is_waited_for_is_told_as_gone(hot: Hot) -> None:
    os.kill(hot.pids["node-3"], signal.SIGKILL)
    outcomes = hot.push(with_change(*LOW))
    assert outcomes.pop("node-3", None) in (None, Outcome("node-3", Settling.GONE, reason="its registration ended"))
    assert {node: each.settling for node, each in outcomes.items()} == {
        "node-1": Settling.CONVERGED,
        "node-2": Settling.CONVERGED,
    }
