"""What an operator asks of a node, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from cluster.errors import Unavailable
from cluster.members import Member, NodeState
from cluster.migration.actions import Verdict
from node.moving.moved import NO_PROCESS, Outcome
from node.operating import Operated, Operating
from node.query import BadQuery, NotFound

PID, ELSEWHERE = "{n1@app:p|1-2a}", "{n1@app:p|1-3a}"
MEMBERS = {"n1": (NodeState.READY,), "n2": (NodeState.READY,), "n3": (NodeState.CORDONED,)}


def member(node: str, state: NodeState) -> Member:
    return Member(node, 1, 1, 1, 1, state, {}, "1", {}, "", "")


class World:
    """A node that does what it is asked."""

    def __init__(self, state: NodeState = NodeState.READY) -> None:
        self.state = state
        self.labels: dict[str, str] = {"zone": "a"}
        self.held: set[str] = set()
        self.is_stopping = False
        self.drains: list[float] = []
        self.places = {PID: "n1", ELSEWHERE: "n2"}
        self.outcome = Outcome(Verdict.MOVED, "", 0.012)
        self.moves: list[tuple[str, str, float]] = []
        operated = Operated(
            state=lambda: self.state,
            cordon=self.cordon,
            uncordon=self.uncordon,
            label=self.label,
            knows=lambda id: id == "app:s",
            release=self.release,
            is_stopping=lambda: self.is_stopping,
            drain=self.drain,
            drained=lambda: {"node": "n1", "phase": "draining"},
            move=self.move,
            where=lambda pid: self.places.get(pid, ""),
            named={"counter": PID}.get,
            member=lambda node: member(node, *MEMBERS[node]) if node in MEMBERS else None,
        )
        self.operating = Operating("n1", operated)

    async def cordon(self) -> None:
        self.state = NodeState.CORDONED

    async def drain(self, within: float) -> None:
        self.drains.append(within)
        self.state = NodeState.DRAINING

    async def move(self, pid: str, to: str, within: float) -> Outcome:
        self.moves.append((pid, to, within))
        return self.outcome

    async def uncordon(self) -> None:
        self.state = NodeState.READY

    async def label(self, changes: Mapping[str, str | None]) -> Mapping[str, str]:
        merged = {**self.labels, **changes}
        self.labels = {name: value for name, value in merged.items() if value is not None}
        return self.labels

    async def release(self, service: str) -> bool:
        held, self.held = service in self.held, self.held - {service}
        return held

    async def ask(self, op: str, **query: Any) -> Any:
        return await getattr(self.operating, op)({"op": op, **query})


async def test_a_ready_node_is_cordoned_and_takes_work_again() -> None:
    world = World()
    for _ in range(2):  # saying it twice changes nothing
        assert await world.ask("cordon") == {"node": "n1", "state": "cordoned"}
    for _ in range(2):
        assert await world.ask("uncordon") == {"node": "n1", "state": "ready"}


@pytest.mark.parametrize(
    ("state", "op"),
    [
        (NodeState.JOINING, "cordon"),
        (NodeState.DRAINING, "cordon"),
        (NodeState.JOINING, "uncordon"),
        (NodeState.JOINING, "drain"),
    ],
)
async def test_a_node_that_joins_is_left_alone_and_one_that_drains_is_not_cordoned(state: NodeState, op: str) -> None:
    world = World(state)
    with pytest.raises(BadQuery, match=f"node n1 is {state.value}"):
        await world.ask(op, within=1.0)
    assert world.state is state


@pytest.mark.parametrize("op", ["uncordon", "drain"])
async def test_a_node_that_stops_is_neither_drained_nor_does_it_take_work_again(op: str) -> None:
    world = World(NodeState.DRAINING)
    world.is_stopping = True
    with pytest.raises(BadQuery, match="node n1 is stopping"):
        await world.ask(op, within=1.0)


@pytest.mark.parametrize("state", [NodeState.READY, NodeState.CORDONED, NodeState.DRAINING])
async def test_a_node_is_drained_tells_how_far_it_is_and_takes_work_again(state: NodeState) -> None:
    world = World(state)
    assert await world.ask("drain", within=30) == {"node": "n1", "state": "draining"}
    assert world.drains == [30.0]
    assert await world.ask("drained") == {"node": "n1", "phase": "draining", "state": "draining"}
    assert await world.ask("uncordon") == {"node": "n1", "state": "ready"}


@pytest.mark.parametrize("within", [None, 0, -1, "30s", True, 1e9])
async def test_a_drain_without_a_sound_time_is_refused(within: object) -> None:
    world = World()
    with pytest.raises(BadQuery, match="'within'"):
        await world.ask("drain", within=within)
    assert world.drains == []


async def test_a_drain_that_can_not_be_told_in_time_does_not_begin_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    began = False

    async def drain(within: float) -> None:
        nonlocal began
        await asyncio.sleep(0.2)
        began = True

    world.operating._operated = replace(world.operating._operated, drain=drain)
    with pytest.raises(Unavailable, match="keeps what it has"):
        await world.ask("drain", within=1.0, timeout=0.01)
    await asyncio.sleep(0.3)
    assert not began


class TestMove:
    @pytest.mark.parametrize("target", [PID, "counter"])
    async def test_a_process_here_moves(self, target: str) -> None:
        world = World()
        told = await world.ask("move", process=target, to="n2", within=10)
        assert told == {"pid": PID, "node": "n2", "verdict": "moved", "reason": "", "seconds": 0.012}
        assert world.moves == [(PID, "n2", 10.0)]

    async def test_one_that_stayed_is_where_it_was(self) -> None:
        world = World()
        world.outcome = Outcome(Verdict.STAYED, "n2 is full", 0.1)
        told = await world.ask("move", process=PID, to="n2", within=10)
        assert (told["node"], told["verdict"], told["reason"]) == ("n1", "stayed", "n2 is full")

    async def test_of_one_that_is_elsewhere_it_is_said_where(self) -> None:
        world = World()
        assert await world.ask("move", process=ELSEWHERE, to="n1", within=1) == {"pid": ELSEWHERE, "elsewhere": "n2"}
        assert world.moves == []

    async def test_a_node_that_takes_nothing_is_not_asked(self) -> None:
        world = World()
        told = await world.ask("move", process=PID, to="n3", within=1)
        assert (told["verdict"], told["reason"], told["node"]) == ("stayed", "node n3 is cordoned", "n1")
        assert world.moves == []

    async def test_where_it_is_already_nothing_is_done(self) -> None:
        world = World()
        told = await world.ask("move", process=PID, to="n1", within=1)
        assert (told["verdict"], told["reason"], told["node"]) == ("", "", "n1")
        assert world.moves == []

    @pytest.mark.parametrize("target", ["{n9@app:p|9-9}", "nobody"])
    async def test_what_is_not_there_is_said(self, target: str) -> None:
        with pytest.raises(NotFound, match="no process"):
            await World().ask("move", process=target, to="n2", within=1)

    async def test_one_that_has_just_ended_is_not_there(self) -> None:
        world = World()
        world.outcome = Outcome(Verdict.STAYED, NO_PROCESS, 0.0)
        with pytest.raises(NotFound, match="no process"):
            await world.ask("move", process=PID, to="n2", within=1)

    @pytest.mark.parametrize(
        "query",
        [{"to": "n7"}, {"to": ""}, {"process": "{x"}, {"within": 0}, {"within": 10_000}, {"process": 1}],
    )
    async def test_what_makes_no_sense_is_refused(self, query: dict[str, Any]) -> None:
        world = World()
        with pytest.raises((BadQuery, NotFound)):
            await world.ask("move", **{"process": PID, "to": "n2", "within": 1, **query})
        assert world.moves == []


async def test_labels_are_set_and_taken_away() -> None:
    world = World()
    told = await world.ask("label", labels={"disk": "ssd", "zone": None})
    assert told == {"node": "n1", "labels": {"disk": "ssd"}}


@pytest.mark.parametrize(
    "labels",
    [None, {}, [], {"": "x"}, {"a b": "x"}, {"-x": "1"}, {"x" * 64: "1"}, {"x": 1}, {"x": "\n"}, {"x": "y" * 256}],
)
async def test_what_is_no_label_is_refused_and_changes_nothing(labels: Any) -> None:
    world = World()
    with pytest.raises(BadQuery, match=r"expected|label"):
        await world.ask("label", labels=labels)
    assert world.labels == {"zone": "a"}


async def test_a_service_is_released_and_one_nobody_knows_is_said() -> None:
    world = World()
    world.held = {"app:gone"}
    assert await world.ask("release", service="app:gone") == {"service": "app:gone", "released": True}
    assert await world.ask("release", service="app:s") == {"service": "app:s", "released": False}
    with pytest.raises(NotFound, match="no service 'app:gone'"):
        await world.ask("release", service="app:gone")
    with pytest.raises(BadQuery, match="text field 'service'"):
        await world.ask("release")
