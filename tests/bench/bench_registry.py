"""How fast a changed entry is seen everywhere, how fast entries are found, how fast a node boots.

Prints one JSON line per figure. The peer of the first is bare etcd: a put to its watch event.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import structlog

from cluster.embedded import EmbeddedServers
from cluster.etcd import Batch, Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.registry import Entry, Registry, RegistryState, Update

KEYS = Keys("bench")
ROUNDS = 200


def entries(count: int) -> list[Entry]:
    return [
        Entry(f"bench:e{i}", "registry.entry", {"type": f"t{i % 200}", "title": f"entry {i}"}, {"n": i})
        for i in range(count)
    ]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def show(figure: str, unit: str, value: float, **more: Any) -> None:
    line = {"figure": figure, "value": round(value, 3), "unit": unit} | more
    print(json.dumps({key: round(x, 3) if isinstance(x, float) else x for key, x in line.items()}), flush=True)


async def opened(stack: AsyncExitStack, url: str, name: str) -> Registry:
    etcd = await stack.enter_async_context(Etcd([url]))
    watch = PrefixWatch(etcd, KEYS.prefix, unloaded=[KEYS.blobs])
    registry = Registry(etcd, watch, KEYS, name)
    await stack.enter_async_context(watch)
    return await stack.enter_async_context(registry)


async def put_to_watch(stack: AsyncExitStack, url: str) -> list[float]:
    """Milliseconds from a put to its event, bare."""
    etcd = await stack.enter_async_context(Etcd([url]))
    watch = PrefixWatch(etcd, "/peer/")
    seen = asyncio.Event()

    def on_batch(batch: Batch) -> None:
        if not batch.relist:
            seen.set()

    watch.subscribe("/peer/", on_batch)
    await stack.enter_async_context(watch)
    times = []
    for i in range(ROUNDS):
        seen.clear()
        began = time.perf_counter()
        await etcd.put("/peer/k", str(i).encode())
        await seen.wait()
        times.append((time.perf_counter() - began) * 1e3)
    return times


async def apply_to_seen(stack: AsyncExitStack, url: str) -> None:
    replicas = [await opened(stack, url, name) for name in "abc"]
    await replicas[0].publish(entries(1_000), "always")
    times = []
    for i in range(ROUNDS):
        began = time.perf_counter()
        change = Update(Entry("bench:e500", "registry.entry", {"type": "t0"}, {"round": i}))
        version = (await replicas[i % 3].commit([change])).version
        await asyncio.gather(*(registry.reached(version) for registry in replicas))
        times.append((time.perf_counter() - began) * 1e3)
    peer = await put_to_watch(stack, url)
    p99, peer_p99 = percentile(times, 0.99), percentile(peer, 0.99)
    show(
        "apply_to_seen_p99_ms",
        "ms",
        p99,
        p50=statistics.median(times),
        p99=p99,
        peer="bare etcd put to watch",
        peer_value=peer_p99,
        peer_p50=statistics.median(peer),
        ratio=p99 / peer_p99,
    )


async def boot(stack: AsyncExitStack, url: str) -> None:
    began = time.perf_counter()
    registry = await opened(stack, url, "late")
    show("boot_registry_seconds", "s", time.perf_counter() - began, entries=len(registry.state))


def find() -> None:
    state = RegistryState.of(entries(10_000), 0)
    for figure, filter in (
        ("registry_find_us", {"meta.type": "t7"}),
        ("registry_find_regex_us", {"~meta.title": "entry 77[0-9]+$"}),
    ):
        times = []
        for _ in range(100):
            began = time.perf_counter()
            found = state.find(filter)
            times.append((time.perf_counter() - began) * 1e6)
        p99 = percentile(times, 0.99)
        show(figure, "us", statistics.median(times), p50=statistics.median(times), p99=p99, found=len(found))


async def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    find()
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(EmbeddedServers(with_nats=False))
        await apply_to_seen(stack, servers.etcd_url)
        await boot(stack, servers.etcd_url)


if __name__ == "__main__":
    asyncio.run(main())
