"""The events module: subscriptions are streams that end with their process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.errors import NotConnected
from cluster.events import Event, Listener
from node.modules.events import EventsModule

PID = b"{node-1@app:processes|1-1}"


class FakeBus:
    """Delivers to every listener; what it is told is kept."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.asked: list[tuple[str, str | None]] = []
        self.closed = asyncio.Event()
        self.raising: Exception | None = None

    def send(self, system: str, kind: str, path: str, data: Any = None) -> None:
        if self.raising is not None:
            raise self.raising
        for listener in self.listeners:
            listener(Event(system, kind, path, data))

    async def subscribe(self, system: str, kind: str | None, listener: Listener) -> FakeBus:
        await asyncio.sleep(0)
        if self.raising is not None:
            raise self.raising
        self.asked.append((system, kind))
        self.listeners.append(listener)
        return self

    async def close(self) -> None:
        self.listeners.clear()
        self.closed.set()


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus()


@pytest.fixture
async def asker(asking: Any, bus: FakeBus) -> Any:
    return await asking(EventsModule(bus))


class TestSubscribe:
    async def test_events_arrive_on_the_stream(self, asker: Any, bus: FakeBus, vm: Any) -> None:
        assert await asker.value("events", "subscribe", 7, b"users", b"user.*") == 7
        assert bus.asked == [("users", "user.*")]
        assert await asker.value("events", "send", b"users", b"user.created", b"/users/1", {b"name": b"Alice"}) is True
        event = {b"system": b"users", b"kind": b"user.created", b"path": b"/users/1", b"data": {b"name": b"Alice"}}
        assert [41, 7, event] in vm.posted

    async def test_an_event_without_data_has_no_data_field(self, asker: Any, bus: FakeBus, vm: Any) -> None:
        await asker.value("events", "subscribe", 7, b"**", b"")
        assert bus.asked == [("**", None)]
        bus.send("system", "heartbeat", "/health")
        assert vm.posted[-1] == [41, 7, {b"system": b"system", b"kind": b"heartbeat", b"path": b"/health"}]

    async def test_close_ends_the_stream_and_the_subscription(self, asker: Any, bus: FakeBus, vm: Any) -> None:
        await asker.value("events", "subscribe", 7, b"users", b"")
        assert await asker.value("events", "unsubscribe", 7) is True
        async with asyncio.timeout(5):
            await bus.closed.wait()
        assert [42, 7] in vm.posted
        assert await asker.value("events", "unsubscribe", 7) is True

    async def test_the_end_of_the_process_ends_the_subscription(self, asker: Any, bus: FakeBus, vm: Any) -> None:
        await asker.value("events", "subscribe", 7, b"users", b"")
        asker.dispatcher.take(vm, [53, PID, b"app:main", None])
        async with asyncio.timeout(5):
            await bus.closed.wait()

    async def test_a_process_can_not_close_the_subscription_of_another(self, asker: Any, bus: FakeBus) -> None:
        await asker.value("events", "subscribe", 7, b"users", b"")
        await asker.value("events", "unsubscribe", 7, pid=b"{node-1@app:processes|1-2}")
        assert not bus.closed.is_set()

    async def test_a_bad_pattern_is_invalid_and_leaves_no_stream(self, asker: Any, bus: FakeBus) -> None:
        bus.raising = ValueError("unbalanced parenthesis")
        assert (await asker.error("events", "subscribe", 7, b"(a", b""))[b"kind"] == b"Invalid"
        bus.raising = NotConnected("no connection to NATS")
        assert (await asker.error("events", "subscribe", 8, b"a", b""))[b"kind"] == b"Unavailable"
        assert asker.dispatcher.stats().streams == 0


class TestSend:
    @pytest.mark.parametrize(
        "args", [(b"", b"k", b"p"), (b"s", b"", b"p"), (b"s", b"k", b""), (b"s", b"k"), (1, b"k", b"p")]
    )
    async def test_an_empty_part_is_invalid(self, asker: Any, args: tuple[Any, ...]) -> None:
        assert (await asker.error("events", "send", *args))[b"kind"] == b"Invalid"

    async def test_without_nats_it_is_unavailable_and_may_be_repeated(self, asker: Any, bus: FakeBus) -> None:
        bus.raising = NotConnected("no connection to NATS")
        error = await asker.error("events", "send", b"s", b"k", b"p")
        assert (error[b"kind"], error[b"retryable"]) == (b"Unavailable", True)
