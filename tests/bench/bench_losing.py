"""How soon monitors are told that a node was killed, beside two nodes of Erlang.

    python -m tests.bench.bench_losing [--rounds 10]

One node watches processes on others, which are killed (SIGKILL), each at a moment of its own; the time ends when the
last monitor of that node has fired. Here the node's lease has to run out (TTL 5 s), because a node that can't be
reached is not dead; an Erlang node is told at once by the broken connection, and by nothing when the machine is gone
(``net_ticktime``, 60 s). ``WIPPY_BENCH_ROUNDS=30`` makes it 30 kills. One JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from contextlib import AsyncExitStack

import uvloop

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.members import NodeState
from tests.bench.bench_remote import APP, ROOT, run
from tests.bench.erlang import ErlangPair, erlang_part

FIGURES = ("monitor_told_after_kill_seconds",)
ROUNDS = 10
AT_ONCE = 5
PROCESSES = 20
SPREAD = 2.0
"""Seconds over which the nodes of one batch are killed."""


async def start(stack: AsyncExitStack, servers: EmbeddedServers, name: str, scratch: str) -> Process:
    command = [sys.executable, "-m", "node.cli", "run", str(APP), "--node", name, "--cluster", "bench"]
    command += ["--nats", servers.nats_url, "--etcd", servers.etcd_url, "-s"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=scratch, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=asyncio.subprocess.DEVNULL
    )
    stack.push_async_callback(_end, process)
    return process


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    async with asyncio.timeout(30):
        await process.wait()


async def ready(client: Client, names: list[str]) -> None:
    async with asyncio.timeout(90):
        while not {m.node for m in await client.nodes() if m.state is NodeState.READY} >= set(names):
            await asyncio.sleep(0.05)


async def batch(client: Client, victims: dict[str, Process]) -> list[float]:
    """Seconds from the kill of each until all its monitors were told."""
    hosts = [f"{name}@bench:processes" for name in victims]
    watcher = await run(client, "bench:watch", hosts, PROCESSES)
    killed: dict[str, float] = {}
    for name, process in victims.items():
        await asyncio.sleep(random.uniform(0, SPREAD / len(victims)))
        killed[name] = time.time()
        process.send_signal(signal.SIGKILL)
    told = await run(client, "bench:told", watcher)
    return [told[name] / 1e6 - at for name, at in killed.items()]


async def measure(rounds: int) -> None:
    ours: list[float] = []
    others: list[float] = []
    with tempfile.TemporaryDirectory(prefix="wippy-bench-") as scratch:
        async with AsyncExitStack() as stack:
            servers = await stack.enter_async_context(EmbeddedServers())
            erlang = await stack.enter_async_context(ErlangPair())
            await start(stack, servers, "a", scratch)
            client = await stack.enter_async_context(
                Client([servers.nats_url], [servers.etcd_url], "bench", gateway="a")
            )
            while len(ours) < rounds:
                names = [f"b{len(ours) + i}" for i in range(min(AT_ONCE, rounds - len(ours)))]
                victims = {name: await start(stack, servers, name, scratch) for name in names}
                await ready(client, ["a", *names])
                ours += await batch(client, victims)
                for _ in names:
                    others += await erlang.told_after_kill(PROCESSES)
    line = {
        "figure": FIGURES[0],
        "value": round(statistics.median(ours), 2),
        "unit": "seconds",
        "max": round(max(ours), 2),
    }
    more = {"rounds": len(ours), **erlang_part(statistics.median(ours), others, 4)}
    if others:
        more["erlang_max"] = round(max(others), 4)
    print(json.dumps(line | more), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("WIPPY_BENCH_ROUNDS", ROUNDS)))
    uvloop.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
