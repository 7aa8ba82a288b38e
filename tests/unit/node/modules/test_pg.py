"""Module pg: what a caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.envelope import Envelope
from cluster.groups import generation
from cluster.members import Member, NodeState
from cluster.registry import Entry
from cluster.tasks import Tasks
from node.groups import Groups, address
from node.modules.pg import PgModule
from tests.unit.node.modules.conftest import PID

SCOPE = b"app:g"
OTHER = b"{node-1@app:processes|1-9}"


class World:
    """The groups of node-1, beside b with a member of the group w."""

    def __init__(self, tasks: Tasks) -> None:
        self.sent: list[Envelope] = []
        self.congested: set[str] = set()
        nodes = [Member("b", 1, 1, 1, 5, NodeState.READY, {}, "", {}, "", "")]
        self.groups = Groups("node-1", 1, self.sent.append, lambda: nodes, lambda name: None, tasks)
        self.module = PgModule(self.groups, self.congested.__contains__)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Tasks("groups") as tasks:
        world = World(tasks)
        await world.groups.put(Entry("app:g", "pg.scope", {}, {"max_groups": 3}))
        state = [SCOPE, generation(5, 1), 1, 1, 1, [[b"w", b"{b@app:h|5-1}", 1]]]
        world.groups.accept([1, world.groups.address, address("b", 5), 0, b"@pg/state", state, b"", 0])
        world.sent.clear()
        yield world


@pytest.fixture
async def asker(asking: Any, world: World) -> Any:
    return await asking(world.module)


async def test_joining_and_leaving_in_batches(asker: Any) -> None:
    assert await asker.value("pg", "join", SCOPE, [b"w", b"v"]) is True
    assert await asker.value("pg", "get_members", SCOPE, b"w") == sorted([b"{b@app:h|5-1}", PID])
    assert await asker.value("pg", "get_local_members", SCOPE, b"w") == [PID]
    assert await asker.value("pg", "which_groups", SCOPE) == [b"v", b"w"]
    assert await asker.value("pg", "leave", SCOPE, [b"v", b"unknown"]) is True
    assert await asker.value("pg", "which_local_groups", SCOPE) == [b"w"]
    assert await asker.value("pg", "get_members", SCOPE, b"unknown") == []
    assert (await asker.error("pg", "leave", SCOPE, b"v"))[b"kind"] == b"Invalid"


@pytest.mark.parametrize(
    ("fn", "args", "kind"),
    [
        ("open", [b"app:none"], b"Internal"),
        ("open", [None], b"Invalid"),
        ("join", [SCOPE, None], b"Invalid"),
        ("join", [SCOPE, b""], b"Invalid"),
        ("join", [SCOPE, []], b"Invalid"),
        ("join", [SCOPE, [b"w", b""]], b"Invalid"),
        ("join", [SCOPE, {b"a": b"w"}], b"Invalid"),
        ("join", [SCOPE, b"x" * 256], b"Invalid"),
        ("join", [SCOPE, [b"1", b"2", b"3", b"4"]], b"RateLimited"),
        ("broadcast", [SCOPE, b"w"], b"Invalid"),
        ("broadcast", [SCOPE, b"w", b"@pg/state", 1], b"Invalid"),
        ("broadcast", [SCOPE, b"w", b"job", b"x" * 1_000_000], b"Invalid"),
        ("nothing", [SCOPE], b"Invalid"),
    ],
)
async def test_bad_input_is_refused_and_changes_nothing(
    asker: Any, world: World, fn: str, args: list[Any], kind: bytes
) -> None:
    assert (await asker.error("pg", fn, *args))[b"kind"] == kind
    assert world.sent == []


async def test_a_broadcast_carries_the_caller_and_its_payloads(asker: Any, world: World) -> None:
    assert await asker.value("pg", "broadcast", SCOPE, b"w", b"job", 1, {b"a": 2}) is True
    assert world.sent == [[1, address("b", 5), PID, 0, b"job", [1, {b"a": 2}], b"app:g w", 1]]


async def test_a_broadcast_waits_while_too_much_waits_for_a_node(asker: Any, world: World) -> None:
    world.congested.add("b")
    opid = asker.start("pg", "broadcast", SCOPE, b"w", b"job", 1)
    await asyncio.sleep(0.05)
    assert world.sent == []
    assert await asker.value("pg", "broadcast", SCOPE, b"v", b"job", 1) is True, "b has no member of that"
    world.congested.clear()
    assert (await asker.vm.answer(opid))[1] == [True]
    assert len(world.sent) == 1


async def test_a_monitor_gives_the_members_and_every_change_of_its_group(asker: Any, world: World) -> None:
    assert await asker.value("pg", "monitor", 11, SCOPE, b"w") == [b"{b@app:h|5-1}"]
    assert await asker.value("pg", "events", 12, SCOPE) == {b"w": [b"{b@app:h|5-1}"]}
    await asker.value("pg", "join", SCOPE, [b"w", b"v"], pid=OTHER)
    pushed = [(item[1], item[2][b"kind"], item[2][b"path"]) for item in asker.vm.posted if item[0] == 41]
    assert sorted(pushed) == [
        (11, b"member.joined", b"w"),
        (12, b"member.joined", b"v"),
        (12, b"member.joined", b"w"),
    ]
    data = next(item[2][b"data"] for item in asker.vm.posted if item[0] == 41)
    assert data[b"PIDs"] == [OTHER]
    await asker.value("pg", "close", 11)
    await asker.value("pg", "close", 12)
    assert world.groups.find("app:g").watchers == []  # type: ignore[union-attr]
