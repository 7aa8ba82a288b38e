"""Supervisors: how fast a child is there again, and ten thousand children under one.

    python -m tests.bench.bench_supervision [--rounds 3]

``restart_latency_us``: from the message that makes a child fail to the first message of the next one, median;
``dynamic_start_seconds``: until 10,000 children of one dynamic supervisor are started, a hundred at a time;
``dynamic_child_bytes``: resident memory a child adds, its process and what its supervisor keeps. The peer is the
``supervisor`` of Erlang/OTP in the same run, where ``erl`` is installed. One JSON line each.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import resource
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import structlog
import uvloop

from cluster.envelope import Kind
from cluster.registry import Entry
from node.trees import HOST, Definitions, Guard, Trees
from tests.bench.erlang import Erlang
from tests.unit.node.hostworld import HostWorld, Nobody

FIGURES = ("restart_latency_us", "dynamic_start_seconds", "dynamic_child_bytes")
RESTARTS, CHILDREN, AT_ONCE = 1000, 10_000, 100
PEER = Path(__file__).parent / "supervision_peer.erl"
SOURCES = {
    "child": """return { main = function(to)
        process.send(to, "up")
        process.inbox():receive()
        error("failed")
    end }""",
    "idle": "return { main = function(number) process.inbox():receive() end }",
}
CHILD = {"id": "child", "process": "app:child", "host": "app:processes"}


class World(HostWorld):
    """One node with a supervisor in it."""

    def tree(self, **data: Any) -> Trees:
        entries = {f"app:{name}": Entry(f"app:{name}", "process.lua", {}, {}) for name in SOURCES}
        entries["app:top"] = Entry("app:top", "process.supervisor", {}, data)
        members = SimpleNamespace(get=lambda name: None, all=list, on_change=lambda handler: None, applied=0)
        trees = Trees(
            "n1",
            self.router.ports,
            cast(Any, members),
            Definitions(entries.get, lambda name: None),
            Guard(cast(Any, _NoOwner())),
            applied=_never,
            barrier=self.hosts.barrier,
            in_doubt=lambda: False,
            refuse=self.router.refuse,
        )
        self.router.hosts[HOST] = trees
        return trees

    async def top(self) -> bytes:
        return await self.port.spawn(f"{{n1@{HOST}|}}".encode(), "app:top", [], {}, timeout=10)


class _NoOwner(Nobody):
    """Nothing is owned here."""

    def in_doubt(self) -> None: ...

    def kill_owned(self) -> None: ...

    def sure(self) -> None: ...

    def owns(self) -> bool:
        return False


async def _never(revision: int, seconds: float) -> None:
    """There is no other node that asks."""


@asynccontextmanager
async def world(**data: Any) -> AsyncIterator[World]:
    async with World(SOURCES) as made:
        trees = made.tree(**data)
        await made.put(max_processes=CHILDREN * 2)
        try:
            yield made
        finally:
            await trees.stop("the end", 30)
            await trees.close()


async def latency() -> float:
    """Microseconds until a failed child is there again, median."""
    async with world(intensity=RESTARTS * 2, children=[CHILD | {"input": []}]) as made:
        child = CHILD | {"input": [made.port.pid.decode()]}
        made.tree(intensity=RESTARTS * 2, children=[child])
        await made.top()
        times = []
        pid, _, _ = await made.port.messages.get()
        for _ in range(RESTARTS):
            began = time.perf_counter()
            made.post(pid, "fail")
            pid, _, _ = await made.port.messages.get()
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e6


async def growth() -> tuple[float, float]:
    """Seconds until all children are there, and the bytes of each."""
    template = {"process": "app:idle", "host": "app:processes"}
    async with world(strategy="dynamic", template=template) as made:
        top = await made.top()
        await _add(made, top, CHILDREN // 100)
        gc.collect()
        before, began = resident(), time.perf_counter()
        await _add(made, top, CHILDREN)
        took = time.perf_counter() - began
        gc.collect()
        return took, (resident() - before) / CHILDREN


async def _add(made: World, top: bytes, count: int) -> None:
    for first in range(0, count, AT_ONCE):
        asked = [
            made.port.request(Kind.CALL, top, b"start_child", [number], {}, timeout=60)
            for number in range(first, min(first + AT_ONCE, count))
        ]
        await asyncio.gather(*asked)


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as figures:
        return int(figures.read().split()[1]) * resource.getpagesize()


async def peer(figure: str, count: int, rounds: int) -> float | None:
    async with Erlang(PEER) as erlang:
        told = [number for _ in range(rounds) for number in await erlang.measure(figure, count)]
    return statistics.median(told) if told else None


def tell(figure: str, value: float, unit: str, other: float | None) -> None:
    line: dict[str, Any] = {"figure": figure, "value": round(value, 3), "unit": unit}
    line["peer"] = "erlang supervisor"
    line["peer_value"] = None if other is None else round(other, 3)
    line["ratio"] = None if not other else round(value / other, 3)
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    took, size = uvloop.run(growth())  # first, while the process holds no memory it could use again
    takes = [took, *(uvloop.run(growth())[0] for _ in range(rounds - 1))]
    times = [uvloop.run(latency()) for _ in range(rounds)]
    tell(FIGURES[0], statistics.median(times), "us", uvloop.run(peer("restart_latency", RESTARTS, rounds)))
    tell(FIGURES[1], statistics.median(takes), "seconds", uvloop.run(peer("dynamic_start", CHILDREN, rounds)))
    tell(FIGURES[2], size, "bytes", uvloop.run(peer("dynamic_bytes", CHILDREN, rounds)))


if __name__ == "__main__":
    main()
