"""Processes that move: a node emptied under load, one process at a time, and what it costs who talks to it.

    python -m tests.bench.bench_moving [--processes 1000] [--many 10000] [--rate 5] [--moves 200] [--hops 100]

Three real nodes. On ``a`` stand processes with some state; clients on ``b`` and ``c`` each send each of them ``--rate``
numbers a second and wait for the answers. What is lost, doubled or reordered is counted on both ends, exactly: every
number has to arrive next after the one before, and so has its answer. A pause is the longest wait for an answer, for
each process and client; ``before`` is the same without a drain. ``still`` is the time a process did not run, as it saw
that itself. The stream of ``hop_throughput_ratio`` goes on from a third node while the process hops between two.

Erlang has no migration. Its peer is what one does there by hand: every process starts a successor with its state on
the other node, and ends. That keeps neither PID nor names nor mail, so it is a lower bound and not the same thing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.members import NodeState
from tests.bench.erlang import ErlangPair, erlang_part
from tests.cluster.processes import WIPPY, Program

APP = Path(__file__).parent / "moving"
FIGURES = (
    "drain_1000_seconds",
    "drain_lost",
    "drain_pause_p99_ms",
    "drain_10000",
    "move_ms",
    "hop_throughput_ratio",
    "outdated_1000",
)
NODES = ("a", "b", "c")
TARGETS = 100
"""Processes that one client talks to."""
WARM_UP, STILL = 3.0, 3.0
LIMIT = 290.0
HOST = "bench:processes"


@dataclass(frozen=True)
class Heard:
    """What the clients saw, all together. The waits are in ms, one for each process and client."""

    sent: int
    missing: int
    wrong: int
    waits: tuple[float, ...]


class Bench:
    """The programs in ``tests/bench/moving``, on three nodes."""

    def __init__(self, client: Client, rate: float) -> None:
        self._client = client
        self._every = max(1, round(1000 / rate))

    async def run(self, node: str, entry: str, *args: Any) -> Any:
        return await self._client.call_function("bench:run", f"bench:{entry}", f"{node}@{HOST}", *args, timeout=LIMIT)

    async def settle(self, count: int, keeper: str | None = None) -> list[str]:
        pids: list[str] = await self.run("a", "settle", count, *([keeper] if keeper else []))
        return pids

    async def end(self, pids: Sequence[str]) -> None:
        await self.run("c", "census", list(pids), True)

    async def census(self, pids: Sequence[str]) -> dict[str, Any]:
        told: dict[str, Any] = await self.run("c", "census", list(pids), False)
        return told

    async def talkers(self, pids: Sequence[str]) -> list[str]:
        groups = [list(pids[at : at + TARGETS]) for at in range(0, len(pids), TARGETS)]
        return [
            await self._client.spawn("bench:talker", f"{node}@{HOST}", group, self._every)
            for node in ("b", "c")
            for group in groups
        ]

    async def ask(self, pids: Sequence[str], topic: str) -> Heard:
        """Tell all clients something; what they have heard until then."""
        asked = [self._client.call(pid, topic, timeout=60.0) for pid in pids]
        told = [reply.value for reply in await asyncio.gather(*asked)]
        return Heard(
            sum(one["sent"] for one in told),
            sum(one["missing"] + one["refused"] for one in told),
            sum(one["wrong"] for one in told),
            tuple(wait / 1000 for one in told for wait in one["waits"]),
        )

    async def drain(self) -> dict[str, Any]:
        """Empty node a, and let it take work again. One that is not empty in time is told as it is then."""
        await self._client.drain("a", LIMIT)
        began = time.monotonic()
        while (told := await self._client.drained("a", timeout=60.0))["phase"] == "draining":
            if time.monotonic() - began > LIMIT:
                break
            await asyncio.sleep(0.25)
        await self._client.uncordon("a", timeout=60.0)
        return told

    # -- the figures

    async def drain_under_load(self, processes: int, erlang: ErlangPair) -> None:
        others = await erlang.measure("hand_over", processes)
        pids = await self.settle(processes)
        talkers = await self.talkers(pids)
        await asyncio.sleep(WARM_UP)
        await self.ask(talkers, "begin")
        await asyncio.sleep(STILL)
        before = await self.ask(talkers, "begin")
        told = await self.drain()
        await asyncio.sleep(0.5)
        heard = await self.ask(talkers, "stop")
        found = await self.census(pids)
        load = {"processes": processes, "messages": heard.sent, "moved": told["moved"], "left": told["left"]}
        show("drain_1000_seconds", told["seconds"], "seconds", **load, **erlang_part(told["seconds"], others, 4))
        lost = processes - found["alive"]
        bad = {"wrong_at_process": found["wrong"], "wrong_at_client": heard.wrong, "ended": lost}
        show("drain_lost", heard.missing + heard.wrong + found["wrong"], "messages", **bad, sent=heard.sent)
        pauses = {"p50": percentile(heard.waits, 50), "max": max(heard.waits)}
        still = [value / 1000 for value in found["stills"]]
        more = {"before_p99": percentile(before.waits, 99), "still_p99": percentile(still, 99), "still_max": max(still)}
        show("drain_pause_p99_ms", percentile(heard.waits, 99), "ms", **pauses, **more)
        await self.end(pids)

    async def drain_many(self, processes: int, erlang: ErlangPair) -> None:
        others = await erlang.measure("hand_over", processes)
        pids = await self.settle(processes)
        told = await self.drain()
        found = await self.census(pids)
        whole = {"per_second": round(told["moved"] / told["seconds"]), "whole": found["whole"], "left": told["left"]}
        show(
            "drain_10000",
            told["seconds"],
            "seconds",
            moved=told["moved"],
            **whole,
            **erlang_part(told["seconds"], others, 4),
        )
        await self.end(pids)

    async def single_moves(self, moves: int, erlang: ErlangPair) -> None:
        others = await erlang.measure("hand_over_one", moves)
        (pid,) = await self.settle(1)
        took = [1000 * await self._move(pid, "b" if number % 2 == 0 else "a") for number in range(moves)]
        found = await self.census([pid])
        more = {
            "p99": percentile(took, 99),
            "max": max(took),
            "moves": found["starts"],
            "still_max": found["stills"][0],
        }
        show("move_ms", statistics.median(took), "ms", **more, **erlang_part(statistics.median(took), others, 4))
        await self.end([pid])

    async def hopping(self, hops: int) -> None:
        (pid,) = await self.settle(1)
        stream = await self._client.spawn("bench:stream", f"c@{HOST}", pid)
        await asyncio.sleep(1.0)
        standing = await self._taken(stream, asyncio.sleep(STILL))
        began = time.perf_counter()
        moving = await self._taken(stream, self._hop(pid, hops))
        seconds = time.perf_counter() - began
        standing_again = await self._taken(stream, asyncio.sleep(STILL))
        await self._client.call(stream, "stop", timeout=60.0)
        found = await self.census([pid])
        still = statistics.mean((standing, standing_again))
        rates = {"moving": round(moving), "still": round(still), "hops": found["starts"], "seconds": round(seconds, 2)}
        show("hop_throughput_ratio", moving / still, "ratio", **rates, wrong=found["wrong"])
        await self.end([pid])

    async def _hop(self, pid: str, hops: int) -> None:
        for number in range(hops):
            await self._move(pid, "b" if number % 2 == 0 else "a")

    async def _taken(self, stream: str, doing: Any) -> float:
        """Messages per second while that is done."""
        first = (await self._client.call(stream, "so far", timeout=60.0)).value
        await doing
        last = (await self._client.call(stream, "so far", timeout=60.0)).value
        return float((last["taken"] - first["taken"]) / (last["at"] - first["at"]))

    async def _move(self, pid: str, to: str) -> float:
        """Seconds, as the node measured them. One that is not done is tried again."""
        async with asyncio.timeout(60):
            while True:
                moved = await self._client.move(pid, to)
                if moved.verdict == "moved":
                    return moved.seconds
                print(f"not moved: {moved}", file=sys.stderr)
                await asyncio.sleep(0.01)

    async def outdated(self, processes: int) -> None:
        keeper = await self._client.spawn("bench:collector", f"c@{HOST}", processes)
        pids = await self.settle(processes, keeper)
        talkers = await self.talkers(pids)
        await asyncio.sleep(WARM_UP)
        await self.ask(talkers, "begin")
        began = time.time()
        await self.run("b", "change", "another remark")
        at = (await self._client.call(keeper, "wait", timeout=LIMIT)).value
        heard = await self.ask(talkers, "stop")
        found = await self.census(pids)
        lost = {"lost": heard.missing + heard.wrong + found["wrong"], "upgraded": found["starts"], "sent": heard.sent}
        show("outdated_1000", at - began, "seconds", **lost, pause_p99_ms=percentile(heard.waits, 99))
        await self.end(pids)


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)], 2)


def show(figure: str, value: float, unit: str, **more: Any) -> None:
    rounded = {key: round(each, 3) if isinstance(each, float) else each for key, each in more.items()}
    print(json.dumps({"figure": figure, "value": round(value, 3), "unit": unit, **rounded}), flush=True)


def start(stack: AsyncExitStack, servers: EmbeddedServers, name: str, scratch: Path) -> None:
    urls = ("--nats", servers.nats_url, "--etcd", servers.etcd_url, "--cluster", "moving")
    command = [*WIPPY, "run", str(APP), "--node", name, *urls, "--set", "metrics.port=0", "--set", "logger.level=warn"]
    stack.enter_context(Program(command, scratch, name))


async def ready(client: Client) -> None:
    async with asyncio.timeout(90):
        while {member.node for member in await client.nodes() if member.state is NodeState.READY} != set(NODES):
            await asyncio.sleep(0.05)


async def measure(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="wippy-bench-") as scratch:
        async with AsyncExitStack() as stack:
            servers = await stack.enter_async_context(EmbeddedServers())
            for name in NODES:
                start(stack, servers, name, Path(scratch))
            client = Client([servers.nats_url], [servers.etcd_url], "moving", gateway="c")
            await stack.enter_async_context(client)
            await ready(client)
            erlang = await stack.enter_async_context(ErlangPair())
            bench = Bench(client, given.rate)
            await bench.drain_under_load(given.processes, erlang)
            await bench.single_moves(given.moves, erlang)
            await bench.hopping(given.hops)
            await bench.outdated(given.processes)
            await bench.drain_many(given.many, erlang)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1000)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--hops", type=int, default=100)
    uvloop.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
