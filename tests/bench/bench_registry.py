"""How fast a changed entry is seen everywhere, how fast entries are found, how fast a node boots.

Prints one JSON line per figure. The peer of what is written is bare etcd in the same run: a put to
its watch event, or as many bare transactions.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from cluster.embedded import EmbeddedServers
from cluster.etcd import Batch, Compare, Etcd, PrefixWatch, Put
from cluster.keys import Keys
from cluster.registry import Changeset, Create, Entry, Registry, RegistryState, Update
from cluster.registry.record import Blob, ChangeRecord, SnapshotRecord, encode_head
from cluster.registry.upload import Payload

_NOW = datetime.now(UTC)
ROUNDS = 100
VERSIONS = 10_000
ENTRIES = 1_000
ROOT = Path(__file__).resolve().parents[2]
FIGURES = (
    "registry_find_us",
    "memory_per_entry",
    "boot_1000_entries_seconds",
    "boot_10000_versions_seconds",
    "apply_to_seen_p99_ms",
    "changesets_per_second",
    "changesets_per_second_8_writers",
    "commit_20mb_seconds",
    "commit_20mb_longest_block_ms",
)
SNAPSHOT_EVERY = 50


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


async def opened(stack: AsyncExitStack, url: str, name: str, keys: Keys) -> Registry:
    etcd = await stack.enter_async_context(Etcd([url]))
    watch = PrefixWatch(etcd, keys.prefix, unloaded=[keys.blobs])
    registry = Registry(etcd, watch, keys, name)
    await stack.enter_async_context(watch)
    return await stack.enter_async_context(registry)


async def put_to_watch(url: str) -> list[float]:
    """Milliseconds from a put to its event, bare."""
    async with Etcd([url]) as etcd:
        watch = PrefixWatch(etcd, "/peer/")
        seen = asyncio.Event()

        def on_batch(batch: Batch) -> None:
            if not batch.relist:
                seen.set()

        watch.subscribe("/peer/", on_batch)
        async with watch:
            times = []
            for i in range(ROUNDS):
                seen.clear()
                began = time.perf_counter()
                await etcd.put("/peer/k", str(i).encode())
                await seen.wait()
                times.append((time.perf_counter() - began) * 1e3)
            return times


async def apply_to_seen(url: str) -> None:
    """One entry of 1,000 changed, 100 times in a row, until all of three nodes have it."""
    async with AsyncExitStack() as stack:
        replicas = [await opened(stack, url, name, Keys("seen")) for name in "abc"]
        await replicas[0].publish(entries(ENTRIES), "always")
        times = []
        for i in range(ROUNDS):
            began = time.perf_counter()
            change = Update(Entry("bench:e500", "registry.entry", {"type": "t0"}, {"round": i}))
            version = (await replicas[i % 3].commit([change])).version
            await asyncio.gather(*(registry.reached(version) for registry in replicas))
            times.append((time.perf_counter() - began) * 1e3)
    peer = await put_to_watch(url)
    p99, peer_p99 = percentile(times, 0.99), percentile(peer, 0.99)
    more = {"p50": statistics.median(times), "p99": p99, "peer": "bare etcd put to watch"}
    more |= {"peer_value": peer_p99, "peer_p50": statistics.median(peer), "ratio": p99 / peer_p99}
    show("apply_to_seen_p99_ms", "ms", p99, **more)


async def rate(work: Callable[[int], Awaitable[Any]], writers: int) -> float:
    """How often ``work`` is done in a second by so many at once."""
    each = ROUNDS // writers * 2

    async def writer(number: int) -> None:
        for _ in range(each):
            await work(number)

    began = time.perf_counter()
    await asyncio.gather(*map(writer, range(writers)))
    return writers * each / (time.perf_counter() - began)


async def changesets(url: str) -> None:
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(Etcd([url]))
        replicas = [await opened(stack, url, f"w{number}", Keys("rate")) for number in range(8)]
        await replicas[0].publish(entries(ENTRIES), "always")

        async def change(number: int) -> None:
            await replicas[number].commit([Update(Entry(f"bench:e{number}", "registry.entry", {}, {}))])

        async def bare(number: int) -> None:
            await etcd.txn([Compare.present("/peer/k")], [Put("/peer/k", b"x"), Put("/peer/v", b"x" * 200)])

        await etcd.put("/peer/k", b"")
        for writers, figure in ((1, "changesets_per_second"), (8, "changesets_per_second_8_writers")):
            found, peer = await rate(change, writers), await rate(bare, writers)
            show(figure, "1/s", found, peer="bare etcd transactions", peer_value=peer, ratio=found / peer)


async def timed_boot(figure: str, url: str, keys: Keys, **more: Any) -> None:
    async with AsyncExitStack() as stack:
        began = time.perf_counter()
        registry = await opened(stack, url, "late", keys)
        took = time.perf_counter() - began
        show(figure, "s", took, entries=len(registry.state), versions=registry.state.version + 1, **more)


async def boot_node(servers: EmbeddedServers) -> None:
    """A whole node as a process of its own, to `ready` in etcd; its registry has 1,000 entries."""
    keys = Keys("node")
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(Etcd([servers.etcd_url]))
        await (await opened(stack, servers.etcd_url, "first", keys)).publish(entries(ENTRIES), "always")
        app = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (app / "_index.yaml").write_text('version: "1.0"\nnamespace: bench\nentries: []\n')
        urls = ["--nats", servers.nats_url, "--etcd", servers.etcd_url, "--cluster", keys.cluster]
        options = ["--node", "late", "--set", "metrics.port=0", *urls]
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "node.cli", "run", str(app), *options),
            cwd=app,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(30):
                while not ((kv := await etcd.get(keys.node("late"))) and json.loads(kv.value)["state"] == "ready"):
                    await asyncio.sleep(0.005)
            show("boot_1000_entries_seconds", "s", time.perf_counter() - began)
        finally:
            process.terminate()
            await process.wait()


async def write_log(etcd: Etcd, keys: Keys, *, snapshots: bool) -> None:
    """10,000 versions as commits would leave them, several in a transaction."""
    state = RegistryState.of([], -1)
    puts: list[Put] = []
    for version in range(VERSIONS):
        if version == 0:
            changes = Changeset(tuple(map(Create, entries(ENTRIES))))
        else:
            entry = Entry(f"bench:e{version % ENTRIES}", "registry.entry", {"type": "t1"}, {"n": version})
            changes = Changeset((Update(entry),))
        state = state.advance(changes, version)
        blob = _put_blob(puts, keys, f"u{version}", changes.payload())
        record = ChangeRecord(blob, "bench", _NOW, "", len(changes), where="node bench", entries=("bench:e1",))
        puts.append(Put(keys.change(version), record.encode()))
        if snapshots and version % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1 and version < VERSIONS - SNAPSHOT_EVERY + 1:
            blob = _put_blob(puts, keys, f"s{version}", state.payload())
            puts.append(Put(keys.snapshot(version), SnapshotRecord(blob).encode()))
        if len(puts) >= 100:
            await etcd.txn([], puts)
            puts = []
    await etcd.txn([], [*puts, Put(keys.head, encode_head(VERSIONS - 1))])


def _put_blob(puts: list[Put], keys: Keys, name: str, raw: bytes) -> Blob:
    payload = Payload.of(raw)
    puts.append(Put(keys.blob(name, 0), raw))
    return Blob(name, 1, payload.sha, len(raw))


async def boots(url: str) -> None:
    await timed_boot("boot_1000_entries_copy_seconds", url, Keys("seen"))
    async with Etcd([url]) as etcd:
        for snapshots, figure in ((True, "boot_10000_versions_seconds"), (False, "boot_10000_versions_bare_seconds")):
            keys = Keys(figure)
            await write_log(etcd, keys, snapshots=snapshots)
            began = time.perf_counter()
            await etcd.range(keys.changes)
            peer = time.perf_counter() - began
            await timed_boot(figure, url, keys, peer="bare read of the records", peer_value=peer)


async def large_commit(url: str) -> None:
    """2,000 entries of 10 kB; the longest time the event loop stood still meanwhile."""
    text = "local x = 1 -- 20 characters\n" * 350
    async with AsyncExitStack() as stack:
        keys = Keys("large")
        etcd = await stack.enter_async_context(Etcd([url]))
        writer, reader = [await opened(stack, url, name, keys) for name in "ab"]
        changes = [Create(Entry(f"bench:e{i}", "process.lua", {}, {"source": text})) for i in range(2_000)]
        longest = 0.0

        async def blocked() -> None:
            nonlocal longest
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                longest = max(longest, time.perf_counter() - began - 0.001)

        watching = asyncio.ensure_future(blocked())
        began = time.perf_counter()
        await writer.commit(changes)
        committed = time.perf_counter() - began
        await reader.reached(0)
        seen = time.perf_counter() - began
        watching.cancel()
        began = time.perf_counter()
        for number in range(40):
            await etcd.put(f"/peer/chunk/{number}", b"x" * 512 * 1024)
        peer = time.perf_counter() - began
        more = {"seen_seconds": seen, "peer": "bare etcd puts of 20 MiB", "peer_value": peer}
        show("commit_20mb_seconds", "s", committed, **more, ratio=committed / peer)
        show("commit_20mb_longest_block_ms", "ms", longest * 1e3)


def find() -> None:
    state = RegistryState.of(entries(10_000), 0)
    for figure, filter in (
        ("registry_find_us", {"meta.type": "t7"}),
        ("registry_find_other_field_us", {"meta.title": "entry 777"}),
        ("registry_find_regex_us", {"~meta.title": "entry 77[0-9]+$"}),
    ):
        times = []
        for _ in range(100):
            began = time.perf_counter()
            found = state.find(filter)
            times.append((time.perf_counter() - began) * 1e6)
        p99 = percentile(times, 0.99)
        show(figure, "us", statistics.median(times), p50=statistics.median(times), p99=p99, found=len(found))


def memory() -> None:
    """What one entry of a few hundred bytes takes in a node, indexes included."""
    raw = RegistryState.of(entries(10_000), 0).payload()
    tracemalloc.start()
    state = RegistryState.parse(raw)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    show("memory_per_entry", "bytes", held / len(state), stored=len(raw) / len(state))


async def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    find()
    memory()
    async with EmbeddedServers() as servers:
        await boot_node(servers)
        for measure in (apply_to_seen, changesets, boots, large_commit):
            await measure(servers.etcd_url)


if __name__ == "__main__":
    asyncio.run(main())
