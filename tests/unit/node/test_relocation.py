"""A process is moved wherever it is, and who is asked for it says where."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import CallTimeout
from node.relocation import CHASES, DECIDED_WITHIN, Relocation, Unreachable

PID = "{n1@app:p|1-2a}"
MOVED = {"pid": PID, "node": "n3", "verdict": "moved", "reason": "", "seconds": 0.01}


class Nodes:
    """Answers of nodes, each once."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, float]] = []

    async def here(self, query: dict[str, Any]) -> Any:
        assert query == {"op": "move", "process": PID, "to": "n3", "within": 2.0}
        return self.answers["n1"]

    async def ask(self, node: str, op: str, timeout: float, **query: Any) -> Any:
        assert (op, query) == ("move", {"process": PID, "to": "n3", "within": 2.0})
        self.asked.append((node, timeout))
        if isinstance(self.answers[node], Exception):
            raise self.answers[node]
        return self.answers[node]

    async def move(self) -> dict[str, Any]:
        return await Relocation(self.here, self.ask)(PID, "n3", 2.0)


async def test_one_that_is_here_is_moved_from_here() -> None:
    nodes = Nodes(n1=MOVED)
    assert await nodes.move() == MOVED
    assert nodes.asked == []


async def test_one_that_is_elsewhere_is_followed() -> None:
    nodes = Nodes(n1={"pid": PID, "elsewhere": "n2"}, n2={"pid": PID, "elsewhere": "n4"}, n4=MOVED)
    assert await nodes.move() == MOVED
    assert nodes.asked == [("n2", 2.0 + DECIDED_WITHIN), ("n4", 2.0 + DECIDED_WITHIN)]


async def test_one_that_never_stands_still_is_given_up() -> None:
    nodes = Nodes(n1={"pid": PID, "elsewhere": "n2"}, n2={"pid": PID, "elsewhere": "n2"})
    with pytest.raises(Unreachable, match="try again"):
        await nodes.move()
    assert len(nodes.asked) == CHASES


async def test_a_node_that_does_not_answer_is_said() -> None:
    nodes = Nodes(n1={"pid": PID, "elsewhere": "n2"}, n2=CallTimeout("move at n2", 2.0))
    with pytest.raises(CallTimeout):
        await nodes.move()
