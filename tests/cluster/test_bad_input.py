"""Input that is wrong, at every door: who gave it is told, the cluster stays as it was and serves on."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import nats
import pytest

from cluster.client import Client
from cluster.etcd import Etcd
from cluster.keys import Keys
from cluster.pid import Pid, base36
from cluster.subjects import Subjects
from tests.cluster.lab import Lab
from tests.cluster.processes import eventually, wippy

pytestmark = pytest.mark.servers

NODES = ("node-1", "node-2", "node-3")

WRONG = """\
version: "1.0"
namespace: wrong
entries:
  - name: unknown
    kind: proces.lua
  - name: twice
    kind: process.host
  - name: twice
    kind: process.host
  - name: missing
    kind: library.lua
    source: return {}
    imports: {other: wrong:nothing}
  - name: syntax
    kind: process.lua
    source: |
      local x = 1
      local = 2
  - name: outside
    kind: library.lua
    source: file://../../../secret.lua
"""
TOLD = (
    "src/wrong/_index.yaml:5: wrong:unknown: kind: unknown kind 'proces.lua'; did you mean 'process.lua'?",
    "src/wrong/_index.yaml:8: wrong:twice: is defined twice, first at src/wrong/_index.yaml:6",
    "src/wrong/_index.yaml:13: wrong:missing: imports.other: there is no entry wrong:nothing",
    "src/wrong/_index.yaml:18: wrong:syntax: source: expected",
    "src/wrong/_index.yaml:21: wrong:outside: source: file://../../../secret.lua leads outside",
    "src/yaml/_index.yaml:3: not valid YAML",
)


def add_wrong_files(app: Path) -> None:
    for name, text in (("wrong", WRONG), ("yaml", "namespace: y\nentries:\n  - {name: [}\n")):
        (app / "src" / name).mkdir(parents=True)
        (app / "src" / name / "_index.yaml").write_text(text)


def remove_wrong_files(app: Path) -> None:
    for name in ("wrong", "yaml"):
        (app / "src" / name / "_index.yaml").unlink()
        (app / "src" / name).rmdir()


def assert_all_told(stderr: str) -> None:
    errors = [line.removeprefix("error: ") for line in stderr.splitlines() if line.startswith("error: ")]
    for told in TOLD:
        assert len([line for line in errors if line.startswith(told)]) == 1, (told, stderr)


@pytest.mark.parametrize("verb", [("run",), ("run", "-x", "wrong:syntax"), ("up",)], ids=" ".join)
def test_at_load_all_errors_are_told_at_once_and_nothing_starts(tmp_path: Path, verb: tuple[str, ...]) -> None:
    add_wrong_files(tmp_path)
    ended = wippy(tmp_path, *verb, code=1)
    assert_all_told(ended.stderr)
    assert "nats answers" not in ended.stderr
    assert ended.stdout == ""


@pytest.fixture(scope="module")
def lab(binaries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab"), "--no-watch") as lab:
        yield lab


@pytest.fixture(autouse=True)
def _as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that uses the cluster leaves its registry, its nodes and its service as they were."""
    if "lab" not in request.fixturenames:
        yield
        return
    lab: Lab = request.getfixturevalue("lab")

    async def standing(client: Client) -> tuple[Any, list[tuple[str, str]]]:
        head = await client.etcd.get(client.keys.head)
        return head, [(member.node, member.state.value) for member in await client.nodes()]

    before = lab.ask(standing)
    yield
    assert lab.ask(standing) == before
    assert before[1] == [(node, "ready") for node in NODES]
    for node in NODES:
        assert lab.experiment("exec", node=node)["good"] == {"value": {"n": 42}}


class TestRegistry:
    def test_a_push_with_errors_is_refused_whole(self, lab: Lab) -> None:
        add_wrong_files(lab.app)
        try:
            assert_all_told(lab.wippy("registry", "push", "lab", code=1).stderr)
        finally:
            remove_wrong_files(lab.app)

    @pytest.mark.parametrize(
        ("entry", "kind", "told"),
        [
            ({"id": "app:bad", "kind": "no.such"}, "Invalid", "no.such"),
            ({"id": "app:bad", "kind": "library.lua", "data": {"source": "local = 1"}}, "Invalid", "app:bad"),
            (
                {"id": "app:bad", "kind": "library.lua", "data": {"source": "return {}", "imports": {"x": "app:no"}}},
                "Invalid",
                "app:no",
            ),
            ({"id": "app:bad", "kind": "process.service", "data": {"process": 7}}, "Invalid", "app:bad"),
            ({"id": "no namespace", "kind": "registry.entry"}, "Invalid", "no namespace"),
            ({"id": "app:setting", "kind": "registry.entry"}, "Invalid", "app:setting"),
            ({"kind": "registry.entry"}, "Invalid", "id"),
            ({"id": "app:bad", "kind": "registry.entry", "data": {"text": "\udcff"}}, "Invalid", "UTF-8"),
        ],
        ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
    )
    def test_a_change_made_by_a_process_is_refused_whole(
        self, lab: Lab, entry: dict[str, Any], kind: str, told: str
    ) -> None:
        seen = lab.experiment("bad_change", entry)
        assert seen["applied"] is False
        assert seen["kind"] == kind
        assert told in seen["error"]

    @pytest.mark.parametrize("version", ["v99", "v-1", "latest"])
    def test_a_version_that_is_none_can_not_be_restored(self, lab: Lab, version: str) -> None:
        said = lab.wippy("registry", "rollback", version, code=None)
        assert said.returncode in (1, 2)
        assert said.stderr.startswith(("error:", "Usage:"))


class TestOverlay:
    @pytest.mark.parametrize(
        ("entry", "value", "reason"),
        [
            ("app:setting", b"{", "JSON"),
            ("app:setting", b"\xff\xfe", "UTF-8"),
            ("app:setting", b"[1]", "mapping"),
            ("app:setting", b"[" * 100_000, ""),
            ("app:nothing", b"{}", "no such entry"),
            ("app:subject", b'{"source": "return 1"}', "overlay"),
            ("no id at all", b"{}", ""),
        ],
        ids=["json", "utf-8", "list", "deep", "entry", "code", "id"],
    )
    def test_a_value_is_refused_with_the_reason(self, lab: Lab, entry: str, value: bytes, reason: str) -> None:
        place = lab.place
        key = Keys(place["cluster"]).overlay(entry)

        async def put_and_delete() -> dict[str, Any]:
            async with Etcd(place["etcd"]) as etcd:
                revision = await etcd.put(key, value)
                try:
                    async with asyncio.timeout(5):
                        while True:
                            status = await etcd.get(Keys(place["cluster"]).overlay_status(entry))
                            if status is not None and json.loads(status.value)["mod"] == revision:
                                return dict(json.loads(status.value))
                            await asyncio.sleep(0.02)
                finally:
                    await etcd.delete(key)

        status = asyncio.run(put_and_delete())
        assert status["status"] == "error"
        assert reason.lower() in status["reason"].lower()


class TestMessages:
    @pytest.mark.parametrize(
        ("arguments", "code", "told"),
        [
            (("send", "{node-1@app:processes|zz-zz}", "t"), 1, "noproc"),
            (("send", "{node-9@app:processes|1-1s}", "t"), 1, "noconnection"),
            (("send", "{a@b|", "t"), 2, "PID"),
            (("send", "listener@node-3", ""), 1, "topic"),
            (("send", "listener@node-3", "@pid/inbox"), 1, "reserved"),
            (("send", "listener@node-3", "t", "{'n': 1}"), 2, "JSON"),
            (("send", "listener@node-3", "t", "1e999"), None, ""),
            (("call", "app:nothing"), 1, "app:nothing"),
            (("call", "app:experiment", "[1]"), 1, ""),
            (("call", "app:experiment", "get"), 2, "a process is called by its PID or name"),
            (("spawn", "app:setting", "app:processes"), 1, "app:setting"),
            (("cancel", "nobody"), 1, "noproc"),
            (("terminate", "{x}"), 2, "PID"),
        ],
        ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
    )
    def test_what_can_not_be_done_is_one_line_that_says_why(
        self, lab: Lab, arguments: tuple[str, ...], code: int | None, told: str
    ) -> None:
        ended = lab.wippy(*arguments, "--node", "node-1", code=code)
        if ended.returncode:
            assert told in ended.stderr
            assert "a bug in wippy" not in ended.stderr


class TestGarbage:
    """Bytes that are nothing, on every subject and under every key a stranger could write to."""

    async def test_on_every_subject(self, lab: Lab) -> None:
        place = lab.place
        subjects = Subjects(place["cluster"])
        async with Etcd(place["etcd"]) as etcd:
            epochs = {
                kv.key.rpartition("/")[2]: kv.create_revision
                for kv in (await etcd.range(Keys(place["cluster"]).nodes)).kvs
            }
        pid = Pid.parse((await asyncio.to_thread(lab.json, "names", "--json"))[0]["pid"])
        aims = [
            *(subjects.data(node, epoch, "node-2") for node, epoch in epochs.items()),
            *(subjects.data(node, epoch, "stranger") for node, epoch in epochs.items()),
            *(subjects.control(node, epoch, "client-x") for node, epoch in epochs.items()),
            subjects.event("lab", "test.done"),
            subjects.announcements,
            subjects.pid(pid.node, base36(pid.incarnation), base36(pid.counter)),
            subjects.pid(pid.node, base36(pid.incarnation), "zz"),
        ]
        frame = {"src": "node-2", "src_epoch": epochs["node-2"], "dst_epoch": 1, "n": 1, "seq": 1, "ack": 0}
        wrong: list[bytes] = [
            b"",
            b"\xc1",
            b"\xdd\xff\xff\xff\xff",
            b"\x91" * 5000,
            os.urandom(3000),
            msgpack.packb([frame, None, 1]),
            msgpack.packb(frame | {"envelopes": [[1]]}),
            msgpack.packb(["node-2", -1, 2**63, 1, 1, 1, [[99, "x"]]]),
            msgpack.packb({"op": "send", "to": 1, "topic": None}),
            msgpack.packb({"op": ["x"], "timeout": "soon"}),
            msgpack.packb({"op": "spawn", "id": "app:subject", "host": "x" * 5000, "args": {}, "timeout": -1}),
        ]
        chance = random.Random(7)
        wrong += [bytes(chance.randbytes(chance.randrange(1, 60))) for _ in range(100)]
        connection = await nats.connect(place["nats"][0])
        try:
            for aim in aims:
                for payload in wrong:
                    await connection.publish(aim, payload)
            await connection.flush()
        finally:
            await connection.close()
        assert lab.process.poll() is None

    async def test_under_every_key_that_nodes_watch(self, lab: Lab) -> None:
        place = lab.place
        keys = Keys(place["cluster"])
        strangers = [
            keys.node("ghost"),
            keys.name("ghost"),
            keys.service("app:ghost", 0),
            f"{keys.services}ghost",
            keys.service_state("app:listeners", 0),
            keys.moved_process("1-1"),
            keys.lock("ghost"),
            keys.change(2**40),
            keys.snapshot(2**40),
            keys.blob("ghost", 0),
            keys.upload("ghost"),
            f"{keys.config_status}app:ghost",
            f"{keys.prefix}nonsense",
            f"{keys.prefix}\udcff",
        ]
        async with Etcd(place["etcd"]) as etcd:
            try:
                for key in strangers:
                    for value in (b"", b"\xff\xc1", b"[]", b'{"incarnation": 1e999}', b"[" * 99_999, os.urandom(500)):
                        await etcd.put(key, value)
                await asyncio.to_thread(
                    eventually, lambda: lab.experiment("exec")["good"], within=5, what="the cluster serves"
                )
            finally:
                for key in strangers:
                    await etcd.delete(key)
        assert set(lab.pids) == set(NODES)
        assert lab.process.poll() is None
