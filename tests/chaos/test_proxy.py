"""The proxy does to a connection what its verbs say, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.chaos.proxy import Proxy, Slowness, Way

SOON = 5.0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the test broke the connection
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


async def connect(proxy: Proxy) -> Connection:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def echoed(connection: Connection, data: bytes, within: float = SOON) -> bytes:
    connection[1].write(data)
    return await came(connection, len(data), within)


async def came(connection: Connection, size: int, within: float = SOON) -> bytes:
    async with asyncio.timeout(within):
        return await connection[0].readexactly(size)


async def test_what_is_sent_comes_through_whole_and_in_order(proxy: Proxy) -> None:
    connection, data = await connect(proxy), bytes(range(256)) * 4096
    assert await echoed(connection, data) == data
    assert proxy.passed == {Way.OUT: len(data), Way.BACK: len(data)}
    connection[1].close()


async def test_a_cut_breaks_connections_and_refuses_new_ones_until_it_is_mended(proxy: Proxy) -> None:
    connection = await connect(proxy)
    assert await echoed(connection, b"before") == b"before"
    await proxy.cut()
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await came(connection, 1)
    with pytest.raises(OSError):
        await connect(proxy)
    await proxy.mend()
    assert await echoed(await connect(proxy), b"after") == b"after"


async def test_what_is_held_is_silent_and_arrives_when_it_is_mended(proxy: Proxy) -> None:
    old = await connect(proxy)
    assert await echoed(old, b"before") == b"before"
    proxy.hold()
    new = await connect(proxy)
    for connection in (old, new):
        with pytest.raises(TimeoutError):
            await echoed(connection, b"held", within=0.1)
    await proxy.mend()
    for connection in (old, new):
        assert await came(connection, 4) == b"held"


async def test_one_direction_can_be_held_while_the_other_goes_on(proxy: Proxy) -> None:
    connection = await connect(proxy)
    proxy.hold(Way.BACK)
    with pytest.raises(TimeoutError):
        await echoed(connection, b"deaf", within=0.1)
    assert proxy.passed[Way.OUT] == 4
    assert proxy.passed[Way.BACK] == 0


async def test_an_end_that_closes_while_all_is_held_is_learned_of_afterwards(proxy: Proxy) -> None:
    connection = await connect(proxy)
    assert await echoed(connection, b"before") == b"before"
    proxy.hold()
    connection[1].close()
    again = await connect(proxy)
    await proxy.mend()
    assert await echoed(again, b"after") == b"after"


async def test_a_slow_link_delays_what_it_carries_and_keeps_its_order(proxy: Proxy) -> None:
    connection = await connect(proxy)
    proxy.slow(Slowness(delay=0.1, jitter=0.1))
    began = time.monotonic()
    for number in range(20):
        connection[1].write(bytes([number]))
        await asyncio.sleep(0.001)
    assert await came(connection, 20) == bytes(range(20))
    assert time.monotonic() - began >= 0.2


async def test_a_narrow_link_takes_the_time_its_rate_says(proxy: Proxy) -> None:
    connection = await connect(proxy)
    proxy.slow(Slowness(rate=400_000), Way.OUT)
    began = time.monotonic()
    assert len(await echoed(connection, b"x" * 200_000)) == 200_000
    assert time.monotonic() - began >= 0.3


async def test_a_sender_that_is_held_waits_once_the_window_is_full(proxy: Proxy) -> None:
    connection = await connect(proxy)
    proxy.hold(Way.OUT)
    connection[1].write(b"x" * 40_000_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await connection[1].drain()
    connection[1].transport.abort()


async def test_a_server_that_is_not_there_ends_the_connection() -> None:
    async with Proxy(1) as proxy:
        connection = await connect(proxy)
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await came(connection, 1)


async def test_what_comes_while_it_loses_is_gone_for_good(proxy: Proxy) -> None:
    connection = await connect(proxy)
    assert await echoed(connection, b"before") == b"before"
    proxy.lose(Way.BACK)
    with pytest.raises(TimeoutError):
        await echoed(connection, b"lost", within=0.1)
    assert proxy.passed[Way.OUT] == 10
    await proxy.mend()
    assert await echoed(connection, b"after") == b"after"
