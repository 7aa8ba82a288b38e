"""What a node offers: the last word counts, also against a wish that waits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from cluster.errors import Unavailable
from cluster.members import NodeState
from node import parts as module
from node.parts import Parts
from node.settings import Settings
from node.settings.schema import Shutdown


class Floor:
    """The kinds in use, all of them known or not."""

    def __init__(self) -> None:
        self.lacks = ["kind 2"]

    def unmet(self, capability: object) -> list[str]:
        return self.lacks

    def unchanged(self, keys: object) -> None:
        return None


class Registration:
    def __init__(self) -> None:
        self.published: list[NodeState] = []

    async def set_state(self, state: NodeState, *when: object) -> bool:
        await asyncio.sleep(0)
        self.published.append(state)
        return True


class Members:
    state = NodeState.READY

    def get(self, node: str) -> Any:
        return self


class Hosts:
    grace: timedelta | None = None

    def vms(self) -> list[Any]:
        return []

    async def drain(self, reason: str, grace: timedelta) -> None:
        self.grace = grace


class Drains:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.left = 3.0

    def call_off(self) -> None:
        self.said.append("called off")

    async def before_stop(self, within: float) -> float:
        self.said.append(f"before stop, {within:g}")
        return self.left


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch) -> Floor:
    floor = Floor()

    async def read(*whatever: object) -> Floor:
        await asyncio.sleep(0)
        return floor

    monkeypatch.setattr(module, "read_floor", read)
    monkeypatch.setattr(module, "FLOOR_PAUSE", 0.001)
    return floor


def cordoned() -> Any:
    """Of a node only what says its state."""
    parts = object.__new__(Parts)
    parts.registration = Registration()  # type: ignore[assignment]
    parts.etcd = parts.keys = None  # type: ignore[assignment]
    parts.state = NodeState.CORDONED
    parts.draining = Drains()  # type: ignore[assignment]
    parts.name, parts.members = "n1", Members()  # type: ignore[assignment]
    return parts


@pytest.mark.parametrize("later", [NodeState.CORDONED, NodeState.DRAINING])
async def test_an_uncordon_that_waits_gives_way_to_a_later_word(floor: Floor, later: NodeState) -> None:
    parts = cordoned()
    waiting = asyncio.ensure_future(parts.uncordon())
    await asyncio.sleep(0)
    await parts.set_state(later)
    floor.lacks = []
    await asyncio.wait_for(waiting, 5)
    assert (parts.state, parts.registration.published) == (later, [later])


async def test_an_uncordoned_node_takes_work_once_it_knows_every_kind(floor: Floor) -> None:
    parts = cordoned()
    waiting = asyncio.ensure_future(parts.uncordon())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    floor.lacks = []
    await asyncio.wait_for(waiting, 5)
    assert (parts.state, parts.registration.published) == (NodeState.READY, [NodeState.READY])


async def test_a_drained_node_takes_work_again_and_its_drain_is_called_off(floor: Floor) -> None:
    parts = cordoned()
    floor.lacks = []
    await parts.say_draining()
    await parts.uncordon()
    assert parts.registration.published == [NodeState.DRAINING, NodeState.READY]
    assert parts.draining.said == ["called off"]


async def test_readiness_goes_off_before_the_cluster_is_told_and_comes_back_when_it_can_not_be() -> None:
    parts = cordoned()
    parts.state = NodeState.READY
    seen: list[NodeState] = []

    async def fails(state: NodeState) -> bool:
        seen.append(parts.state)
        raise Unavailable("etcd is away")

    parts.registration.set_state = fails
    with pytest.raises(Unavailable):
        await parts.say_draining()
    assert (seen, parts.state) == ([NodeState.DRAINING], NodeState.READY)


async def test_what_the_cluster_has_heard_though_this_node_could_not_be_sure_is_taken_back(floor: Floor) -> None:
    parts = cordoned()
    parts.state, parts.members.state = NodeState.READY, NodeState.DRAINING
    floor.lacks = []
    await parts.uncordon()
    assert parts.registration.published == [NodeState.READY]


class TestStopping:
    def stopping(self) -> Any:
        parts = cordoned()
        parts.settings = Settings(shutdown=Shutdown(timeout=timedelta(seconds=5)))
        parts.failed = asyncio.Event()
        parts.hosts = Hosts()
        return parts

    async def test_others_get_what_they_can_take_and_the_processes_the_rest_of_the_time(self) -> None:
        parts = self.stopping()
        await parts.leave()
        await parts.drain()
        assert (parts.state, parts.is_stopping) == (NodeState.DRAINING, True)
        assert parts.draining.said == ["before stop, 5"]
        assert parts.hosts.grace == timedelta(seconds=3)

    async def test_they_have_a_moment_when_nothing_is_left_of_it(self) -> None:
        parts = self.stopping()
        parts.draining.left = 0.0
        await parts.leave()
        await parts.drain()
        assert parts.hosts.grace == timedelta(seconds=module.LEAST_GRACE)

    async def test_without_etcd_nothing_moves_and_they_have_all_of_it(self) -> None:
        async def fails(state: NodeState) -> bool:
            raise Unavailable("etcd is away")

        parts = self.stopping()
        parts.registration.set_state = fails
        await parts.leave()
        await parts.drain()
        assert parts.state is NodeState.DRAINING
        assert (parts.draining.said, parts.hosts.grace) == ([], timedelta(seconds=5))

    async def test_a_node_that_fails_gives_nothing_away(self) -> None:
        parts = self.stopping()
        parts.failed.set()
        await parts.leave()
        assert parts.draining.said == []
