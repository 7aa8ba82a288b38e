"""The drain of a node: told first, watched to its end, called off, and what a node does before it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from cluster.drain import AT_ONCE
from cluster.errors import Unavailable
from cluster.migration.actions import Verdict
from cluster.tasks import Tasks
from node import draining as module
from node.draining import Draining, Surroundings
from node.inhabitants import Inhabitants
from node.moving.moved import Outcome


@dataclass
class Service:
    service: str
    replica: int
    pids: list[bytes]
    able: frozenset[str] = frozenset({"n2", "n3"})


@dataclass
class World:
    """A node whose processes move, end and hang as a test wants it."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)
    others: list[str] = field(default_factory=lambda: ["n2", "n3"])
    refusing: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    """Moves of these wait for ``go``."""
    unknown: set[str] = field(default_factory=set)
    """Nobody knows what becomes of the moves of these until they are taken out."""
    stubborn: set[str] = field(default_factory=set)
    """They do not end when asked."""
    told: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    settles: bool = True
    silent: bool = False
    under_way: int = 0
    in_flight: set[str] = field(default_factory=set)
    most: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    deadlines: list[int] = field(default_factory=list)

    def runs(self, *pids: str, **more: Any) -> None:
        for pid in pids:
            self.rows[pid] = {"pid": pid, "entry": "app:p", "kind": "process", "parent": "", **more}

    # what a drain needs

    async def processes(self) -> list[dict[str, Any]]:
        if self.silent:
            raise TimeoutError
        await asyncio.sleep(0)
        return list(self.rows.values())

    def where(self, pid: str) -> str:
        return self.places.get(pid, "n1")

    def is_moving(self, pid: str) -> bool:
        return pid in self.unknown or pid in self.in_flight

    async def move(self, pid: str, to: str, within: float) -> Outcome:
        assert within <= module.MOVE_WITHIN
        if pid in self.in_flight:
            return Outcome(Verdict.STAYED, "it is moving already", 0.0)
        self.in_flight.add(pid)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0.001)
            if pid in self.slow:
                await self.go.wait()
        finally:
            self.under_way -= 1
            self.in_flight.discard(pid)
        if pid in self.unknown:
            return Outcome(None, "etcd does not answer", 0.1)
        if pid in self.refusing:
            return Outcome(Verdict.STAYED, f"{to} is full", 0.001)
        self.told.append(f"move {pid} to {to}")
        del self.rows[pid]
        self.places[pid] = to
        self.services = [one for one in self.services if pid.encode() not in one.pids]
        return Outcome(Verdict.MOVED, "", 0.001)

    async def settled(self, within: float) -> bool:
        self.told.append("settle")
        return self.settles

    async def hand_over(self, service: str, replica: int, within: float) -> str:
        if service in self.stubborn:
            return "it does not stop"
        self.told.append(f"hand over {service} {replica}")
        for one in [one for one in self.services if one.service == service]:
            self.services.remove(one)
            for pid in one.pids:
                self.rows.pop(pid.decode(), None)
        return ""

    def cancel(self, pid: str, reason: str, deadline: int) -> None:
        self.told.append(f"cancel {pid}: {reason}")
        self.deadlines.append(deadline)
        if pid not in self.stubborn:
            del self.rows[pid]

    def terminate(self, pid: str) -> None:
        self.told.append(f"kill {pid}")
        del self.rows[pid]

    async def loads(self, nodes: Sequence[str]) -> dict[str, int]:
        return {node: int(node[1:]) for node in nodes if node != "n3"}

    async def say(self) -> None:
        self.told.append("draining")


@pytest.fixture
def world() -> World:
    return World()


@pytest_asyncio.fixture
async def draining(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Draining]:
    monkeypatch.setattr(module, "LAST_SECONDS", 0.2)
    monkeypatch.setattr(module, "UNSURE", 0.001)
    around = Surroundings(
        inhabitants=Inhabitants("n1", world.processes, list, lambda: world.services),
        moves=world,
        hand_over=world.hand_over,
        ready=lambda: world.others,
        loads=world.loads,
        cancel=world.cancel,
        terminate=world.terminate,
    )
    async with Tasks("test") as tasks:
        yield Draining("n1", around, world.say, tasks)


async def over(draining: Draining, *phases: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while draining.progress()["phase"] not in (phases or ("drained", "left", "called off")):
            await asyncio.sleep(0.005)
    return draining.progress()


async def test_a_node_says_that_it_drains_before_anything_else_and_is_empty_at_the_end(
    draining: Draining, world: World
) -> None:
    world.runs("a", "b", migratable=True)
    world.runs("plain")
    world.runs("s")
    world.services.append(Service("app:s", 0, [b"s"]))
    assert draining.progress() == {"node": "n1", "phase": "none"}
    await draining.begin(5.0)
    told = await over(draining)
    assert world.told[0] == "draining"
    assert world.told[-1] == "settle"
    assert {"move a to n2", "move b to n3", "cancel plain: node draining", "hand over app:s 0"} < set(world.told)
    assert (told["phase"], told["moved"], told["cancelled"], told["handed_over"]) == ("drained", 2, 1, 1)
    assert told["settled"] is True
    assert not draining.is_under_way


async def test_who_is_asked_to_end_hears_until_when(draining: Draining, world: World) -> None:
    import time

    world.runs("plain")
    began = time.time() * 1000
    await draining.begin(5.0)
    await over(draining)
    (deadline,) = world.deadlines
    assert began + 4900 < deadline < began + 10_000


async def test_when_the_cluster_can_not_be_told_nothing_is_begun(world: World) -> None:
    async def fail() -> None:
        raise Unavailable("etcd is away")

    async with Tasks("test") as tasks:
        draining = Draining("n1", None, fail, tasks)  # type: ignore[arg-type]
        with pytest.raises(Unavailable):
            await draining.begin(1.0)
        assert draining.progress()["phase"] == "none"


async def test_what_does_not_end_is_killed_at_the_deadline_and_what_can_not_move_is_left(
    draining: Draining, world: World
) -> None:
    world.others = []
    world.runs("may", migratable=True)
    world.runs("stubborn")
    world.stubborn = {"stubborn", "app:s"}
    world.runs("s")
    world.services.append(Service("app:s", 2, [b"s"]))
    await draining.begin(0.3)
    told = await over(draining)
    assert "kill stubborn" in world.told
    assert (told["phase"], told["left"], told["killed"]) == ("left", 2, 1)
    assert {(one["id"], one["reason"]) for one in told["still_here"]} == {
        ("may", "no node took it in time"),
        ("app:s/2", "it does not stop"),
    }
    assert "may" in world.rows


async def test_so_many_move_at_a_time(draining: Draining, world: World) -> None:
    world.runs(*map(str, range(100)), migratable=True)
    await draining.begin(10.0)
    told = await over(draining)
    assert told["moved"] == 100
    assert world.most == AT_ONCE


async def test_a_second_drain_while_one_is_under_way_changes_nothing_and_a_later_one_begins_anew(
    draining: Draining, world: World
) -> None:
    world.runs("a", migratable=True)
    world.slow = {"a"}
    await draining.begin(5.0)
    await draining.begin(0.001)
    assert world.told.count("draining") == 1
    world.go.set()
    await over(draining)
    await draining.begin(5.0)
    assert (await over(draining))["moved"] == 0


async def test_called_off_what_moves_comes_to_its_end_and_nothing_else_begins(draining: Draining, world: World) -> None:
    world.runs(*map(str, range(20)), migratable=True)
    world.slow = set(world.rows)
    await draining.begin(5.0)
    while world.under_way < AT_ONCE:
        await asyncio.sleep(0.001)
    draining.call_off()
    assert not draining.is_under_way
    world.go.set()
    while world.under_way:
        await asyncio.sleep(0.001)
    told = draining.progress()
    assert (told["phase"], told["moved"], len(world.rows)) == ("called off", AT_ONCE, 20 - AT_ONCE)
    draining.call_off()


async def test_a_process_that_starts_meanwhile_is_taken_in(draining: Draining, world: World) -> None:
    world.runs("a", migratable=True)
    world.slow = {"a"}
    await draining.begin(5.0)
    while not world.under_way:
        await asyncio.sleep(0.001)
    world.runs("late")
    async with asyncio.timeout(5):
        while "late" in world.rows:
            await asyncio.sleep(0.005)
    world.go.set()
    assert (await over(draining))["cancelled"] == 1


async def test_a_node_that_becomes_ready_takes_what_waited(draining: Draining, world: World) -> None:
    world.others = []
    world.runs("a", migratable=True)
    await draining.begin(5.0)
    await asyncio.sleep(0.1)
    assert not world.under_way
    world.others = ["n3"]
    assert (await over(draining))["moved"] == 1
    assert world.places == {"a": "n3"}


@pytest.mark.parametrize("place", ["n1", "n2"])
async def test_a_move_of_unknown_end_is_waited_for(draining: Draining, world: World, place: str) -> None:
    world.runs("a", migratable=True)
    world.unknown = {"a"}
    await draining.begin(10.0)
    async with asyncio.timeout(5):
        while world.under_way or not draining.progress()["moving"]:
            await asyncio.sleep(0.001)
    if place == "n2":
        del world.rows["a"]
        world.places["a"] = "n2"
    world.unknown.clear()
    told = await over(draining)
    assert (told["phase"], told["moved"]) == ("drained", 1)
    assert ("move a to n2" in world.told or "move a to n3" in world.told) is (place == "n1")


async def test_one_that_somebody_else_moves_is_not_refused_but_waited_for(draining: Draining, world: World) -> None:
    world.runs("a", migratable=True)
    world.slow = {"a"}
    moving = asyncio.ensure_future(world.move("a", "n3", 5.0))
    await asyncio.sleep(0.005)
    await draining.begin(5.0)
    await asyncio.sleep(0.1)
    world.go.set()
    told = await over(draining)
    assert (told["moved"], told["cancelled"], dict(told["reasons"])) == (1, 0, {})
    assert (await moving).moved
    assert world.places == {"a": "n3"}


async def test_a_vm_that_does_not_answer_is_asked_again(draining: Draining, world: World) -> None:
    world.runs("a")
    world.silent = True
    await draining.begin(5.0)
    await asyncio.sleep(0.1)
    assert draining.progress()["phase"] == "draining"
    world.silent = False
    assert (await over(draining))["cancelled"] == 1


async def test_what_is_refused_twice_ends_like_the_others(draining: Draining, world: World) -> None:
    world.runs("a", migratable=True)
    world.refusing = {"a"}
    await draining.begin(5.0)
    told = await over(draining)
    assert (told["moved"], told["cancelled"]) == (0, 1)
    assert told["reasons"] == {"n2 is full": 1, "n3 is full": 1}


class TestBeforeStop:
    async def test_others_get_what_they_can_take_and_the_rest_is_left_to_the_end_of_the_node(
        self, draining: Draining, world: World
    ) -> None:
        world.runs("a", migratable=True)
        world.runs("stubborn")
        world.stubborn = {"stubborn"}
        left = await draining.before_stop(5.0)
        assert 0 < left < 5.0
        assert world.told == ["cancel stubborn: node stopping", "move a to n2", "settle"]

    async def test_the_last_node_does_not_wait_and_asks_nobody(self, draining: Draining, world: World) -> None:
        world.others = []
        world.runs("a", migratable=True)
        assert await draining.before_stop(5.0) == 5.0
        assert world.told == []

    async def test_when_the_others_stop_too_nothing_is_waited_for(self, draining: Draining, world: World) -> None:
        world.runs("a", migratable=True)
        world.refusing = {"a"}
        world.runs("b", migratable=True)
        world.slow = {"b"}
        stopping = asyncio.ensure_future(draining.before_stop(60.0))
        while not world.under_way:
            await asyncio.sleep(0.001)
        world.others = []
        world.refusing = {"a", "b"}
        world.go.set()
        assert await asyncio.wait_for(stopping, 10) > 30

    async def test_what_hangs_holds_the_node_up_for_no_longer_than_its_time(
        self, draining: Draining, world: World
    ) -> None:
        world.runs("a", migratable=True)
        world.slow = {"a"}
        asyncio.get_running_loop().call_later(0.5, world.go.set)
        assert await asyncio.wait_for(draining.before_stop(0.2), 10) == 0.0

    async def test_a_drain_that_is_under_way_gives_way(self, draining: Draining, world: World) -> None:
        world.runs(*map(str, range(20)), migratable=True)
        world.slow = {"0"}
        await draining.begin(5.0)
        while not world.under_way:
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_later(0.2, world.go.set)
        await draining.before_stop(5.0)
        assert world.rows == {}
