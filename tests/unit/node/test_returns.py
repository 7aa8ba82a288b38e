"""Messages by name that came back wait for the watch: in order, not for ever, and not without number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.envelope import Kind
from cluster.errors import CallTimeout
from cluster.tasks import Tasks
from node import returns
from node.deadletters import DeadLetters
from node.returns import Returns

SENDER, HOLDER = b"{n1@app:processes|7-2}", b"{n2@app:processes|1-3}"


class Watch:
    """Gets on when the test says so."""

    def __init__(self) -> None:
        self.applied = 10
        self._moved = asyncio.Event()

    def advance(self, revision: int) -> None:
        self.applied = revision
        self._moved.set()
        self._moved = asyncio.Event()

    async def reached(self, revision: int, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                while self.applied < revision:
                    await self._moved.wait()
        except TimeoutError:
            raise CallTimeout("watch", timeout) from None


class World:
    def __init__(self, tasks: Tasks) -> None:
        self.watch = Watch()
        self.given: list[int] = []
        self.letters = DeadLetters()
        self.returns = Returns(self.watch, tasks, lambda envelope: self.given.append(envelope[8]), self.letters)

    def take(self, number: int, revision: int, payload: Any = 1) -> None:
        self.returns.take([int(Kind.RETURN), SENDER, HOLDER, 0, b"topic", [payload], b"counter", revision, number])

    async def until_given(self, count: int) -> list[int]:
        async with asyncio.timeout(5):
            while len(self.given) < count:
                await asyncio.sleep(0)
        return self.given


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Tasks("test") as tasks:
        yield World(tasks)


async def test_one_refused_at_a_revision_that_is_known_here_goes_on_at_once(world: World) -> None:
    world.take(1, 10)
    assert world.given == [1]


async def test_all_others_wait_for_theirs_in_the_order_they_came(world: World) -> None:
    world.take(1, 12)
    world.take(2, 11)
    world.take(3, 10)
    await asyncio.sleep(0)
    world.watch.advance(11)
    await asyncio.sleep(0)
    assert world.given == []
    world.watch.advance(12)
    assert await world.until_given(3) == [1, 2, 3]
    world.take(4, 13)
    world.watch.advance(13)
    assert await world.until_given(4) == [1, 2, 3, 4]


async def test_one_whose_revision_does_not_come_is_a_dead_letter_and_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, "WITHIN", 0.02)
    world.take(1, 99)
    world.take(2, 10)
    assert await world.until_given(1) == [2]
    (letter,) = world.letters.kept()
    assert (letter.reason, letter.to, letter.sender, letter.name) == (
        "stale_name_late",
        HOLDER.decode(),
        SENDER.decode(),
        "counter",
    )


async def test_what_waits_is_bounded_in_number_and_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returns, "MOST", 2)
    for number in range(3):
        world.take(number, 11)
    assert world.letters.counts() == {"stale_name_late": 1}
    world.watch.advance(11)
    await world.until_given(2)
    for number in range(12):
        world.take(number, 12, b"x" * 800_000)
    assert world.letters.counts() == {"stale_name_late": 11}
    monkeypatch.setattr(returns, "MOST", 100)
    world.watch.advance(12)
    await world.until_given(4)
    for number in range(12):
        world.take(number, 13, b"x" * 800_000)
    assert world.letters.counts() == {"stale_name_late": 13}
