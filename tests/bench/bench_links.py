"""Throughput of one link between two processes, beside plain nats-py.

    python -m tests.bench.bench_links [--nats URL] [--messages 300000] [--rounds 3]

Sends small envelopes (a map with an id and 100 bytes) from this process to another through ``Links``, packing
and unpacking included, and then the same bytes as single nats-py messages decoded in their callback. Prints one
JSON line. Starts a nats-server of its own unless ``--nats`` names one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import nats
import structlog
import uvloop
from nats.aio.msg import Msg

from cluster.bus import Bus
from cluster.embedded import EmbeddedServers
from cluster.envelope import Envelope, Kind
from cluster.errors import Unavailable
from cluster.links import Links
from cluster.members import Member, MemberChange, NodeState
from cluster.subjects import Subjects

SUBJECTS = Subjects("bench-links")
NODES = {"a": 1, "b": 2}


class Fixed:
    """Members that never change."""

    applied = 10

    def all(self) -> list[Member]:
        return [Member(n, e, e, 0, 1, NodeState.READY, {}, "", {}, "", "") for n, e in NODES.items()]

    def on_change(self, handler: MemberChange) -> None:
        """Nothing ever changes."""


def envelope(number: int) -> Envelope:
    payload = {b"id": number, b"data": b"x" * 100}
    return [Kind.MESSAGE, b"{b@app:processes|2-1}", b"{a@app:processes|1-1}", 0, b"topic", [payload], b"", 0]


@asynccontextmanager
async def links(url: str, node: str) -> AsyncIterator[tuple[Bus, Links]]:
    async with Bus([url], name=node, inbox=SUBJECTS.inbox(node)) as bus:
        async with Links(bus.data, Fixed(), SUBJECTS, node) as opened:
            yield bus, opened


async def receive(url: str, messages: int) -> None:
    """The other process: counts envelopes, then plain messages, and prints how long each took."""
    async with links(url, "b") as (_, peer):
        await report("links", messages, lambda count: link_counter(peer, count))
        client = await nats.connect(url)
        await report("plain", messages, lambda count: plain_counter(client, count))
        await client.close()


async def report(what: str, messages: int, start: Any) -> None:
    done = asyncio.Event()
    times: list[float] = []
    got = 0

    def count(number: int) -> None:
        nonlocal got
        if not got:
            times.append(time.perf_counter())
        got += number
        if got >= messages:
            times.append(time.perf_counter())
            done.set()

    await start(count)
    print("ready", flush=True)
    async with asyncio.timeout(120):
        await done.wait()
    print(json.dumps({what: times[1] - times[0]}), flush=True)


async def link_counter(peer: Links, count: Any) -> None:
    peer.on_envelopes(lambda node, envelopes: count(len(envelopes)))
    await peer.open(NODES["b"])


async def plain_counter(client: Any, count: Any) -> None:
    async def handler(message: Msg) -> None:
        msgpack.unpackb(message.data, raw=True, strict_map_key=False)
        count(1)

    await client.subscribe("bench.plain", cb=handler)
    await client.flush()
    await asyncio.sleep(0)
    await client.flush()


async def send_links(peer: Links, messages: int) -> None:
    """As a router does: a burst, then a turn of the loop; when the link is full, wait for it."""
    item = envelope(1)
    sent = 0
    while sent < messages:
        try:
            for _ in range(min(256, messages - sent)):
                peer.send("b", item)
                sent += 1
        except Unavailable:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)


async def send_plain(client: Any, messages: int) -> None:
    item = envelope(1)
    packer = msgpack.Packer(use_bin_type=False)
    for number in range(messages):
        await client.publish("bench.plain", packer.pack(item))
        if number % 256 == 255:
            await asyncio.sleep(0)
    await client.flush(30)


async def one_round(url: str, messages: int) -> dict[str, float]:
    command = ["-m", "tests.bench.bench_links", "--receive", "--nats", url, "--messages", str(messages)]
    child = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    answers: dict[str, float] = {}
    await child.stdout.readline()
    async with links(url, "a") as (bus, peer):
        await peer.open(NODES["a"])
        await send_links(peer, messages)
        await bus.data.flush()
        answers |= json.loads(await child.stdout.readline())
    client = await nats.connect(url)
    await child.stdout.readline()
    await send_plain(client, messages)
    answers |= json.loads(await child.stdout.readline())
    await client.close()
    await child.wait()
    return {what: messages / seconds for what, seconds in answers.items()}


async def measure(url: str, messages: int, rounds: int) -> dict[str, Any]:
    """The figure as ``make bench`` prints it; the median of the rounds."""
    results = [await one_round(url, messages) for _ in range(rounds)]
    ours = statistics.median(result["links"] for result in results)
    peer = statistics.median(result["plain"] for result in results)
    return {
        "figure": "links_one_way",
        "value": round(ours),
        "unit": "envelopes/s",
        "peer": "nats-py single messages with decode",
        "peer_value": round(peer),
        "ratio": round(ours / peer, 2),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nats", default="")
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.receive:
        await receive(given.nats, given.messages)
    elif given.nats:
        print(json.dumps(await measure(given.nats, given.messages, given.rounds)))
    else:
        async with EmbeddedServers(with_etcd=False) as servers:
            print(json.dumps(await measure(servers.nats_url, given.messages, given.rounds)))


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the figures
    uvloop.run(main())
