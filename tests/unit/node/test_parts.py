"""What a node offers: the last word counts, also against a wish that waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.members import NodeState
from node import parts as module
from node.parts import Parts


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
