"""What an operator asks of a node, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cluster.members import NodeState
from node.operating import Operated, Operating
from node.query import BadQuery, NotFound


class World:
    """A node that does what it is asked."""

    def __init__(self, state: NodeState = NodeState.READY) -> None:
        self.state = state
        self.labels: dict[str, str] = {"zone": "a"}
        self.held: set[str] = set()
        operated = Operated(
            lambda: self.state, self.cordon, self.uncordon, self.label, lambda id: id == "app:s", self.release
        )
        self.operating = Operating("n1", operated)

    async def cordon(self) -> None:
        self.state = NodeState.CORDONED

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


@pytest.mark.parametrize("state", [NodeState.JOINING, NodeState.DRAINING])
@pytest.mark.parametrize("op", ["cordon", "uncordon"])
async def test_a_node_that_joins_or_drains_is_left_alone(state: NodeState, op: str) -> None:
    world = World(state)
    with pytest.raises(BadQuery, match=f"node n1 is {state.value}"):
        await world.ask(op)
    assert world.state is state


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
