"""Handing messages to nats-py at once: what it takes, what it refuses, and when they go the longer way."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
import pytest

from cluster import connection as module
from cluster.connection import Connection, ConnectionOptions
from cluster.credentials import Credentials

OPTIONS = ConnectionOptions(("nats://127.0.0.1:1",), Credentials(), None, "inbox", 1.0, 1000)


class Nats:
    """As much of nats-py's client as a publish needs."""

    def __init__(self) -> None:
        self.is_connected = True
        self.max_payload = 100
        self.pending_data_size = 0
        self.stats = {"in_msgs": 0, "in_bytes": 0, "out_msgs": 0, "out_bytes": 0}
        self.taken: list[bytes] = []
        self.error: Exception | None = None
        self.written: asyncio.Future[None] | None = None

    async def publish(self, subject: str, payload: bytes, reply: str, headers: Any) -> None:
        if self.error is not None:
            raise self.error
        self.taken.append(payload)
        if self.written is not None:
            await self.written


@pytest.fixture
async def nats_py() -> Nats:
    return Nats()


@pytest.fixture
async def connection(nats_py: Nats) -> Connection:
    connection = Connection("test", OPTIONS)
    connection._nats = nats_py  # type: ignore[assignment]
    connection._ready = True
    return connection


async def test_a_message_is_with_nats_py_when_publish_returns(connection: Connection, nats_py: Nats) -> None:
    connection.publish("a", b"1")
    connection.publish("a", b"2")
    assert nats_py.taken == [b"1", b"2"]


async def test_what_nats_py_would_wait_for_has_been_taken_all_the_same(connection: Connection, nats_py: Nats) -> None:
    nats_py.written = asyncio.get_running_loop().create_future()
    connection.publish("a", b"1")
    assert nats_py.taken == [b"1"]
    assert connection.stats().publishes_dropped == 0


@pytest.mark.parametrize("error", [nats.errors.ConnectionClosedError(), OSError("gone"), AttributeError("transport")])
async def test_what_nats_py_refuses_is_counted_and_ends_nothing(
    connection: Connection, nats_py: Nats, error: Exception
) -> None:
    nats_py.error = error
    connection.publish("a", b"1")
    nats_py.error = None
    connection.publish("a", b"2")
    assert nats_py.taken == [b"2"]
    assert connection.stats().publishes_dropped == 1


async def test_while_much_waits_in_nats_py_messages_queue_up_in_their_order(
    connection: Connection, nats_py: Nats
) -> None:
    connection.publish("a", b"1")
    nats_py.pending_data_size = module.AT_ONCE
    connection.publish("a", b"2")
    nats_py.pending_data_size = 0
    connection.publish("a", b"3")
    assert nats_py.taken == [b"1"]
    assert connection.stats().outbox_bytes == 2
    sending = asyncio.ensure_future(connection._send())
    async with asyncio.timeout(5):
        await connection._drained.wait()
    connection.publish("a", b"4")
    sending.cancel()
    assert nats_py.taken == [b"1", b"2", b"3", b"4"]


async def test_behind_one_that_waits_for_room_the_others_wait_too(connection: Connection, nats_py: Nats) -> None:
    nats_py.pending_data_size = module.AT_ONCE
    nats_py.written = asyncio.get_running_loop().create_future()
    connection.publish("a", b"1")
    sending = asyncio.ensure_future(connection._send())
    async with asyncio.timeout(5):
        while not nats_py.taken:
            await asyncio.sleep(0)
    nats_py.pending_data_size = 0
    connection.publish("a", b"2")
    assert nats_py.taken == [b"1"], "the outbox is empty, but what was in it is not written yet"
    nats_py.written.set_result(None)
    async with asyncio.timeout(5):
        await connection._drained.wait()
    sending.cancel()
    assert nats_py.taken == [b"1", b"2"]
