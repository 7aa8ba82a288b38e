"""Convergence: handlers follow the newest version; one that fails is retried and shown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from cluster.tasks import Tasks
from node.convergence import Convergence


@dataclass
class State:
    version: int


@dataclass
class Handler:
    name: str
    fails: int = 0
    raises: bool = False
    seen: list[int] = field(default_factory=list)

    async def converge(self, state: Any) -> dict[str, str]:
        self.seen.append(state.version)
        if self.raises:
            raise RuntimeError("broken")
        if self.fails > 0:
            self.fails -= 1
            return {"app:x": "no room"}
        return {}


async def test_a_failing_entry_is_shown_as_degraded_and_tried_again_until_it_works() -> None:
    handler, other = Handler("hosts", fails=1), Handler("stores")
    convergence = Convergence([handler, other])
    async with Tasks("test") as tasks:
        tasks.start(convergence.run(), "run")
        convergence.aim(State(3))  # type: ignore[arg-type]
        await convergence.reached(3, 1.0)
        (degraded,) = convergence.degraded()
        assert (degraded.handler, degraded.entry, degraded.version, degraded.reason) == ("hosts", "app:x", 3, "no room")
        assert other.seen == [3]
        async with asyncio.timeout(5):
            while convergence.degraded():
                await asyncio.sleep(0.01)
    assert handler.seen == [3, 3]


async def test_a_broken_handler_does_not_keep_the_others_from_converging() -> None:
    broken, other = Handler("hosts", raises=True), Handler("stores")
    convergence = Convergence([broken, other])
    await convergence.converge(State(1))  # type: ignore[arg-type]
    assert other.seen == [1]
    assert "RuntimeError: broken" in convergence.degraded()[0].reason
