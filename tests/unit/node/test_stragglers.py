"""All that was sent before a change has arrived: each step comes behind what it waits for."""

from __future__ import annotations

import pytest

from cluster.errors import CallTimeout
from node.stragglers import Stragglers


class Around:
    """The other nodes, the VMs here and the links."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.steps: list[str] = []
        self.stragglers = Stragglers(self.everywhere, self.barrier, self.flushed)

    async def everywhere(self, revision: int, timeout: float, *, processes: bool = False) -> None:
        assert (revision, processes) == (7, True)
        self.steps.append("everywhere")
        if self.fails == "everywhere":
            raise CallTimeout("b", timeout)

    async def barrier(self) -> None:
        self.steps.append("barrier")
        if self.fails == "barrier":
            raise TimeoutError

    async def flushed(self, within: float) -> bool:
        self.steps.append("flushed")
        return self.fails != "flushed"


async def test_the_links_are_asked_last() -> None:
    around = Around()
    assert await around.stragglers.arrived(7, 1.0)
    assert around.steps == ["everywhere", "barrier", "flushed"]


@pytest.mark.parametrize("step", ["everywhere", "barrier", "flushed"])
async def test_a_step_that_does_not_end_in_time_is_told(step: str) -> None:
    around = Around(fails=step)
    assert not await around.stragglers.arrived(7, 1.0)
    assert around.steps[-1] == step
