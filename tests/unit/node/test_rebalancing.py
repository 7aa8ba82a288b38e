"""A node gives processes to one that has come, round by round, until that has its share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio

from cluster.errors import Unavailable
from cluster.members import Members
from cluster.migration.actions import Verdict
from node import rebalancing as module
from node.inhabitants import Inhabitants
from node.moving.moved import Outcome
from node.rebalancing import Rebalancer


class World:
    """This node and its loads; another node comes when a test says so."""

    def __init__(self, number: int) -> None:
        self.rows = {f"p{n}": {"pid": f"p{n}", "migratable": True, "started": 0} for n in range(number)}
        self.ready = ["n1"]
        self.handlers: list[Callable[[Any, Any], None]] = []
        self.moved: list[str] = []
        self.refusing: dict[str, Exception | Outcome] = {}
        self.silent = 0
        self.rounds = 0

    def come(self, *nodes: str) -> None:
        self.ready += nodes
        self.tell()

    def tell(self) -> None:
        for handler in self.handlers:
            handler(None, None)

    def members(self) -> Members:
        ready = lambda: [SimpleNamespace(node=node) for node in self.ready]  # noqa: E731
        return cast(Members, SimpleNamespace(ready=ready, on_change=self.handlers.append))

    async def processes(self) -> list[dict[str, Any]]:
        self.rounds += 1
        if self.silent:
            self.silent -= 1
            raise TimeoutError
        return list(self.rows.values())

    async def loads(self, nodes: Sequence[str]) -> dict[str, int]:
        return {node: len(self.moved) for node in nodes}

    async def move(self, pid: str, to: str, within: float) -> Outcome:
        refused = self.refusing.get(pid)
        if isinstance(refused, Exception):
            raise refused
        if refused is not None:
            return refused
        del self.rows[pid]
        self.moved.append(pid)
        return Outcome(Verdict.MOVED, "", 0.001)

    def rebalancer(self, settle: float) -> Rebalancer:
        inhabitants = Inhabitants("n1", self.processes, list, list)
        moves = cast(Any, SimpleNamespace(move=self.move))
        rebalancer = Rebalancer("n1", settle, self.members(), inhabitants, moves, self.loads, lambda: len(self.rows))
        self.tell()
        return rebalancer


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUND", 0.002)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    world = World(40)
    async with world.rebalancer(0.05):
        yield world


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0.002)


async def test_a_node_that_has_come_gets_its_share_and_no_more(world: World) -> None:
    world.come("n2")
    await until(lambda: len(world.moved) == 20)
    rounds = world.rounds
    await asyncio.sleep(0.05)
    assert (len(world.moved), world.rounds - rounds <= 1) == (20, True)


async def test_what_is_refused_stays_and_others_go_instead(world: World) -> None:
    world.refusing = {"p0": Outcome(Verdict.STAYED, "no", 0.0), "p1": Unavailable("etcd is away")}
    world.come("n2")
    await until(lambda: len(world.moved) == 20)
    assert {"p0", "p1"} <= set(world.rows)


async def test_a_vm_that_does_not_answer_is_asked_in_the_next_round(world: World) -> None:
    world.silent = 3
    world.come("n2")
    await until(lambda: len(world.moved) == 20)


@pytest.mark.parametrize("settle", [0.0, 3600.0])
async def test_nothing_moves_when_it_is_off_or_too_early(settle: float) -> None:
    world = World(40)
    async with world.rebalancer(settle):
        world.come("n2")
        await asyncio.sleep(0.1)
        assert (world.moved, world.rounds) == ([], 0)
