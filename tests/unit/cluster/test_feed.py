"""How a feed tells the changes of a bucket: in order, with pauses for others, and to an end that may move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from cluster import feed as feed_module
from cluster.bucket import Bucket, Record
from cluster.feed import AT_ONCE, Feed
from cluster.tasks import Tasks

Headers = dict[str, str] | None


class Server:
    """JetStream with one consumer, and the connection to it."""

    stream = "KV_b"

    def __init__(self) -> None:
        self.pending = 0
        self.answered: list[str] = []
        self.handler: Callable[[str, str, bytes, Headers], None] = lambda *message: None
        self.connection = self

    async def ask(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"num_pending": self.pending}

    async def subscribe(self, subject: str, handler: Callable[[str, str, bytes, Headers], None]) -> Server:
        self.handler = handler
        return self

    async def close(self) -> None: ...

    def publish(self, subject: str, payload: bytes) -> None:
        self.answered.append(subject)

    def tells(self, number: int, sequence: int, pending: int) -> None:
        self.handler(f"$KV.b.{sequence}", f"$JS.ACK.KV_b.c.1.{sequence}.{number}.0.{pending}", b"v", None)

    def beats(self, told: int, looked: int = 0, stalled: str = "") -> None:
        headers = {"Status": "100", "Description": "Idle Heartbeat"}
        headers |= {"Nats-Last-Consumer": str(told), "Nats-Last-Stream": str(looked)}
        self.handler("deliver", "", b"", headers | ({"Nats-Consumer-Stalled": stalled} if stalled else {}))

    def asks_for_room(self, reply: str) -> None:
        self.handler("deliver", reply, b"", {"Status": "100", "Description": "FlowControl Request"})


class World:
    """A feed of five changes, the last at 50, that runs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.told: list[int] = []
        self.level = False
        self.feed = Feed(
            cast(Bucket, server),
            "$KV.b.>",
            "deliver",
            after=0,
            level=50,
            on_record=self._on_record,
            on_level=self._on_level,
        )

    def _on_record(self, record: Record) -> None:
        self.told.append(record.sequence)

    def _on_level(self) -> None:
        self.level = True


@pytest.fixture
async def world() -> AsyncIterator[World]:
    server = Server()
    server.pending = 5
    world = World(server)
    async with world.feed, Tasks("feed") as tasks:
        tasks.start(world.feed.run(), "run")
        yield world


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_it_is_level_with_the_last_of_what_was_there(world: World) -> None:
    for number in range(1, 5):
        world.server.tells(number, 10 * number, 5 - number)
    await until(lambda: world.told == [10, 20, 30, 40])
    assert not world.level
    world.server.tells(5, 50, 0)
    await until(lambda: world.level)


async def test_it_is_level_when_the_rest_ended_before_it_was_told(world: World) -> None:
    world.server.tells(1, 10, 4)
    world.server.beats(told=1, looked=50, stalled="first")
    world.server.beats(told=1, looked=49)
    world.server.asks_for_room("second")
    await until(lambda: world.server.answered == ["first", "second"])
    assert not world.level
    world.server.beats(told=1, looked=50)
    await until(lambda: world.level)


async def test_others_have_their_turn_while_many_changes_are_told(world: World) -> None:
    for number in range(1, 20 * AT_ONCE + 1):
        world.server.tells(number, number, 1)
    turns = 0
    while len(world.told) < 20 * AT_ONCE:
        before = len(world.told)
        await asyncio.sleep(0)
        turns += 1
        assert len(world.told) - before <= AT_ONCE
    assert turns >= 20


async def test_the_server_gets_room_for_more_only_when_all_before_was_told(world: World) -> None:
    for number in range(1, 3 * AT_ONCE + 1):
        world.server.tells(number, number, 1)
    world.server.asks_for_room("more")
    await until(lambda: world.server.answered)
    assert len(world.told) == 3 * AT_ONCE


@pytest.mark.parametrize("how", ["by the next change", "by a sign of life"])
async def test_a_missed_change_ends_it(how: str) -> None:
    server = Server()
    server.pending = 5
    world = World(server)
    async with world.feed as feed:
        server.tells(1, 10, 4)
        if how == "by the next change":
            server.tells(3, 30, 2)
        else:
            server.beats(told=2)
        assert await asyncio.wait_for(feed.run(), 5) == "1 changes were missed"
    assert world.told == [10]


async def test_silence_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "SILENCE", 0.05)
    world = World(Server())
    async with world.feed as feed:
        assert world.level  # nothing was there
        assert "nothing was heard" in await asyncio.wait_for(feed.run(), 5)


async def test_what_waits_is_not_told_after_its_end() -> None:
    world = World(Server())
    async with world.feed as feed:
        world.server.tells(1, 10, 0)
        feed.end("NATS was away")
        assert await asyncio.wait_for(feed.run(), 5) == "NATS was away"
    assert world.told == []
