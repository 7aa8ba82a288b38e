"""Module system: this node's view of itself and of the cluster."""

from __future__ import annotations

import os
from typing import Any

import pytest

from node.modules import MODULES, load_halves
from node.modules.system import CLASSES, Facts, SystemModule
from tests.unit.node.services import member

SERVICES = [
    {"node": "b", "service": "app:s", "replica": 0, "state": "claimed", "pid": "{b@app:h|1-1}"},
    {
        "node": "a", "service": "app:s", "replica": 1, "state": "running", "pid": "{a@app:h|1-1}", "restarts": 2,
        "last_error": "", "since": 5.0,
    },
]  # fmt: skip


@pytest.fixture
async def asker(asking: Any) -> Any:
    exits: list[int] = []

    async def processes() -> list[dict[str, Any]]:
        return []

    facts = Facts(
        node="a",
        members=lambda: [member("b", {}), member("a", {"zone": "z"})],
        hosts=list,
        processes=processes,
        services=lambda: SERVICES,
        wanted=lambda service: service == "app:s",
        exit=exits.append,
        halves=load_halves(),
    )
    found = await asking(SystemModule(facts))
    found.exits = exits
    return found


async def test_the_own_node_comes_first_among_the_members(asker: Any) -> None:
    members = await asker.value("system", "cluster.members")
    assert [(one[b"id"], one[b"is_local"]) for one in members] == [(b"a", True), (b"b", False)]
    assert members[0][b"meta"][b"zone"] == b"z"
    assert await asker.value("system", "cluster.size") == 2
    assert await asker.value("system", "node.id") == b"a"
    assert await asker.value("system", "node.role") == b"non-member"
    assert await asker.value("system", "cluster.leader") == b""


async def test_of_a_service_the_replica_of_this_node_is_told(asker: Any) -> None:
    state = await asker.value("system", "supervisor.state", b"app:s")
    told = (state[b"status"], state[b"desired"], state[b"retry_count"], state[b"started_at"])
    assert told == (b"running", b"running", 2, 5_000_000_000)
    assert b"node a" in state[b"details"]
    assert (await asker.error("system", "supervisor.state", b"app:t"))[b"kind"] == b"NotFound"


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ({"state": "claimed", "node": "b", "pid": "{b@h|1-1}"}, b"running"),
        ({"state": "claimed", "node": "b"}, b"starting"),
        ({"state": "unplaced", "why": "no node is ready"}, b"unknown"),
        ({"state": "quarantined", "why": "it hung"}, b"failed"),
        ({"state": "exited", "node": "a", "changed": 7.5}, b"exited"),
    ],
)
async def test_states_are_told_in_the_documented_words(
    asker: Any, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], status: bytes
) -> None:
    told = {"service": "app:x", "replica": 0, "node": "", "pid": "", **row}
    monkeypatch.setattr("tests.unit.node.modules.test_system.SERVICES", [told])
    (state,) = await asker.value("system", "supervisor.states")
    assert state[b"status"] == status
    assert state[b"last_update"] == int(told.get("changed", 0) * 1e9)
    assert told.get("why", "").encode() in state[b"details"]


async def test_an_unknown_host_is_said_with_those_there_are(asker: Any) -> None:
    error = await asker.error("system", "hosts.processes", b"app:nohost")
    assert error[b"kind"] == b"NotFound"


async def test_every_module_is_listed_and_described(asker: Any) -> None:
    listed = {one[b"name"].decode(): one for one in await asker.value("system", "modules")}
    assert set(listed) == MODULES
    assert all(listed[name][b"description"] for name in set(listed) & set(CLASSES))
    assert listed["json"][b"class"] == [b"deterministic", b"encoding"]


@pytest.mark.parametrize(("code", "exit"), [(0, 0), (7, 7), (256, 0), (-1, 255)])
async def test_exit_ends_the_node_with_the_code(asker: Any, code: int, exit: int) -> None:
    assert await asker.value("system", "exit", code) is True
    assert asker.exits == [exit]


async def test_figures_are_those_of_this_process(asker: Any) -> None:
    assert await asker.value("system", "process.pid") == os.getpid()
    assert await asker.value("system", "process.cwd") == os.getcwd().encode()
    assert (await asker.value("system", "memory.stats"))[b"sys"] > 1_000_000
