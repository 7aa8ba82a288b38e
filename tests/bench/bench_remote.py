"""Messages, round trips and names from Lua between two nodes, beside plain nats-py and two nodes of Erlang.

    python -m tests.bench.bench_remote [--rounds 3]

Starts NATS, etcd and two real nodes; the programs are in ``tests/bench/remote``. Prints one JSON line per figure,
medians of the rounds; the peers run between the rounds, plain nats-py against the same server. Names are beside
Erlang's ``global``, which keeps them on all nodes; it has one kind, so it is the peer of each scope.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import nats
import uvloop

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.members import NodeState
from tests.bench.erlang import ErlangPair, erlang_part

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "tests" / "bench" / "remote"
FIGURES = (
    "remote_one_way",
    "remote_one_way_10_fields",
    "remote_request",
    "remote_request_64",
    "name_register_consistent",
    "name_register_eventual",
    "name_register_local",
    "name_lookup",
)
NAMES = {"CONSISTENT": 300, "EVENTUAL": 300, "LOCAL": 3_000}
LOOKUPS = 100_000
MESSAGES, REQUESTS, PARALLEL = 100_000, 1_000, 64
PEER_MESSAGES = 50_000
ERLANG_TRIPS = 20_000
PAYLOAD = {b"id": 1, b"data": b"x" * 100}


@asynccontextmanager
async def node(servers: EmbeddedServers, name: str, scratch: str) -> AsyncIterator[None]:
    command = [sys.executable, "-m", "node.cli", "run", str(APP), "--node", name, "--cluster", "bench"]
    command += ["--nats", servers.nats_url, "--etcd", servers.etcd_url, "-s"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=scratch, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        async with asyncio.timeout(30):
            await process.wait()


async def two_ready(client: Client) -> None:
    async with asyncio.timeout(60):
        while [member.state for member in await client.nodes()] != [NodeState.READY] * 2:
            await asyncio.sleep(0.05)


async def run(client: Client, entry: str, *args: Any) -> Any:
    """Run a program on node a and give what it returned."""
    return await client.call_function("bench:run", entry, "a@bench:processes", *args, timeout=120.0)


async def plain_responder(url: str) -> None:
    """The peer's other process: answers requests and counts messages."""
    client = await nats.connect(url)
    got = 0

    async def answer(message: Any) -> None:
        value = msgpack.unpackb(message.data, raw=True)
        await client.publish(message.reply, msgpack.packb(value))

    async def count(message: Any) -> None:
        nonlocal got
        msgpack.unpackb(message.data, raw=True)
        got += 1
        if got == PEER_MESSAGES:
            got = 0
            await client.publish("bench.done", b"")

    await client.subscribe("bench.request", cb=answer)
    await client.subscribe("bench.message", cb=count)
    await asyncio.sleep(0)
    await client.flush()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await client.close()


class Plain:
    """Plain nats-py against ``plain_responder``."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def one_way(self) -> float:
        """Messages per second."""
        done = asyncio.Event()

        async def on_done(message: Any) -> None:
            done.set()

        subscription = await self._client.subscribe("bench.done", cb=on_done)
        await asyncio.sleep(0)
        await self._client.flush()
        began = time.perf_counter()
        for number in range(PEER_MESSAGES):
            await self._client.publish("bench.message", msgpack.packb(PAYLOAD))
            if number % 256 == 255:
                await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await done.wait()
        seconds = time.perf_counter() - began
        await subscription.unsubscribe()
        return PEER_MESSAGES / seconds

    async def requests(self, parallel: int, rounds: int) -> float:
        """Round trips per second."""

        async def ask() -> None:
            for _ in range(rounds):
                answer = await self._client.request("bench.request", msgpack.packb(PAYLOAD), timeout=10)
                msgpack.unpackb(answer.data, raw=True)

        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(parallel)))
        return parallel * rounds / (time.perf_counter() - began)


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Plain]:
    command = [sys.executable, "-m", "tests.bench.bench_remote", "--respond", url]
    child = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdin is not None
    await child.stdout.readline()
    client = await nats.connect(url)
    try:
        yield Plain(client)
    finally:
        await client.close()
        child.stdin.close()
        await child.wait()


def show(figure: str, values: list[float], unit: str, others: list[float], **more: Any) -> None:
    value = statistics.median(values)
    line = {"figure": figure, "value": round(value), "unit": unit} | more
    print(json.dumps(line | erlang_part(value, others, 0)), flush=True)


def beside(peer: str, values: list[float], peers: list[float]) -> dict[str, Any]:
    """What the first peer adds to the line."""
    theirs = statistics.median(peers)
    return {"peer": peer, "peer_value": round(theirs), "ratio": round(statistics.median(values) / theirs, 2)}


def latency(durations: list[int]) -> dict[str, Any]:
    quantiles = statistics.quantiles(durations, n=100)
    return {"p50": round(quantiles[49]), "p99": round(quantiles[98]), "latency_unit": "us"}


async def one_way(client: Client, peer: Plain, erlang: ErlangPair, rounds: int, fields: int, figure: str) -> None:
    ours, theirs, others = [], [], []
    for _ in range(rounds):
        ours.append(MESSAGES / await run(client, "bench:source", "b@bench:processes", MESSAGES, fields))
        theirs.append(await peer.one_way())
        if fields == 2:
            others += await erlang.measure("remote_one_way", MESSAGES)
    show(figure, ours, "messages/s", others, **beside("nats-py single messages with decode", ours, theirs))


async def requests(client: Client, peer: Plain, erlang: ErlangPair, rounds: int, parallel: int, figure: str) -> None:
    ours, theirs, others, durations = [], [], [], []
    each = REQUESTS if parallel == 1 else REQUESTS * 8 // parallel
    for _ in range(rounds):
        result = await run(client, "bench:askers", "b@bench:processes", parallel, each)
        ours.append(parallel * each / result["seconds"])
        durations += result["durations"]
        theirs.append(await peer.requests(parallel, each))
        others += await erlang.measure(figure, ERLANG_TRIPS)
    beside_plain = beside("nats-py request/reply", ours, theirs)
    show(figure, ours, "round trips/s", others, **latency(durations), **beside_plain)


async def registrations(client: Client, erlang: ErlangPair, rounds: int) -> None:
    """Names registered by a process, one after the other."""
    others = [rate for _ in range(rounds) for rate in await erlang.measure("name_register", NAMES["CONSISTENT"])]
    for scope, count in NAMES.items():
        seconds = [await run(client, "bench:names", scope, count) for _ in range(rounds)]
        ours = [count / registering for registering, _ in seconds]
        given_back = statistics.median(count / ending for _, ending in seconds)
        show(f"name_register_{scope.lower()}", ours, "names/s", others, given_back=round(given_back))


async def lookups(client: Client, erlang: ErlangPair, rounds: int) -> None:
    ours, others = [], []
    for _ in range(rounds):
        ours.append(LOOKUPS / await run(client, "bench:lookups", "CONSISTENT", LOOKUPS))
        others += await erlang.measure("name_lookup", LOOKUPS)
    show("name_lookup", ours, "look-ups/s", others)


async def measure(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="wippy-bench-") as scratch:
        async with AsyncExitStack() as stack:
            servers = await stack.enter_async_context(EmbeddedServers())
            await stack.enter_async_context(node(servers, "a", scratch))
            await stack.enter_async_context(node(servers, "b", scratch))
            client = await stack.enter_async_context(
                Client([servers.nats_url], [servers.etcd_url], "bench", gateway="a")
            )
            await two_ready(client)
            peer = await stack.enter_async_context(plain(servers.nats_url))
            erlang = await stack.enter_async_context(ErlangPair())
            await one_way(client, peer, erlang, rounds, 2, "remote_one_way")
            await one_way(client, peer, erlang, rounds, 10, "remote_one_way_10_fields")
            await requests(client, peer, erlang, rounds, 1, "remote_request")
            await requests(client, peer, erlang, rounds, PARALLEL, "remote_request_64")
            await registrations(client, erlang, rounds)
            await lookups(client, erlang, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--respond", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    uvloop.run(plain_responder(given.respond) if given.respond else measure(given.rounds))


if __name__ == "__main__":
    main()
