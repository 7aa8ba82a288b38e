"""Writers of the registry that die or dawdle, on a real etcd: one process each, killed with SIGKILL."""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import timedelta

import pytest

from cluster.embedded import EmbeddedServers
from cluster.etcd import Etcd
from cluster.keys import Keys
from cluster.registry import Create, Entry, Update, collect, open_registry
from cluster.registry.store import Store
from tests.sim.registry_scene import Client, with_steps

pytestmark = pytest.mark.servers

TEXT = "x" * 1_200_000
"""Three chunks."""
STEPS = (*range(2, 12), 99)
"""Before and after each of: the lease, the upload with its first chunk, two more chunks, the commit; and the end,
which is further away when etcd is slow and requests are repeated."""

WRITER = """
import asyncio, os, signal, sys
from cluster.etcd import Etcd
from cluster.keys import Keys
from cluster.registry import Create, Entry, open_registry
from tests.sim.registry_scene import Client, with_steps

async def main(url, cluster, last):
    left = int(last)

    async def step():
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async with Etcd([url]) as etcd, open_registry(Client(etcd), Keys(cluster), "doomed") as registry:
        change = Create(Entry("app:big", "registry.entry", {}, {"text": "x" * 1_200_000}))
        await with_steps(step, registry.commit([change], message="doomed"))

asyncio.run(main(*sys.argv[1:]))
"""


async def killed_after(steps: int, url: str, cluster: str) -> bool:
    """Whether the writer was killed; it went through so many steps before."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, url, cluster, str(steps), stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        return await writer.wait() == -signal.SIGKILL


async def names(etcd: Etcd, prefix: str) -> set[str]:
    return {kv.key.removeprefix(prefix).split("/")[0] for kv in (await etcd.range(prefix, keys_only=True)).kvs}


async def expire_writers(etcd: Etcd, keys: Keys) -> None:
    for lease in {kv.lease for kv in (await etcd.range(keys.uploads)).kvs}:
        await etcd.revoke(lease)


async def test_a_writer_killed_at_any_step_leaves_all_or_nothing_and_garbage_that_is_collected(
    servers: EmbeddedServers, etcd: Etcd, cluster_name: str
) -> None:
    for steps in STEPS:
        keys = Keys(f"{cluster_name}-{steps}")
        async with open_registry(etcd, keys, "a") as registry:
            await registry.commit([Create(Entry("app:x", "registry.entry", {}, {"n": 0}))])
    some_at_once = asyncio.Semaphore(3)

    async def kill(steps: int) -> bool:
        async with some_at_once:
            return await killed_after(steps, servers.etcd_url, f"{cluster_name}-{steps}")

    killed = await asyncio.gather(*map(kill, STEPS))
    assert killed == [True] * 10 + [False], "there are ten steps at least"
    outcomes = [await outcome(etcd, Keys(f"{cluster_name}-{steps}")) for steps in STEPS]
    assert outcomes == sorted(outcomes), "before some step nothing was applied, after it all was"
    assert set(outcomes) == {False, True}


async def outcome(etcd: Etcd, keys: Keys) -> bool:
    """Whether the change was applied; checks everything else."""
    living = await names(etcd, keys.uploads)
    await collect(etcd, keys)
    assert living <= await names(etcd, keys.blobs), "what may be a slow writer's stays until its lease ends"
    await expire_writers(etcd, keys)
    await collect(etcd, keys)
    store = Store(etcd, keys)
    named = {record.blob.upload for record in (await store.changes()).values()}
    assert await names(etcd, keys.blobs) == named, "the collector takes exactly the garbage"
    async with open_registry(etcd, keys, "b") as registry:
        applied = registry.state.version == 1
        assert [entry.id for entry in registry.state.entries()] == (["app:big", "app:x"] if applied else ["app:x"])
        assert [info.author for info in await registry.versions()] == (["a", "doomed"] if applied else ["a"])
        info = await registry.commit([Update(Entry("app:x", "registry.entry", {}, {"n": 1}))])
        assert info.version == (2 if applied else 1)
    return applied


@pytest.mark.parametrize("expire_at", [None, *range(4, 14, 2)])
async def test_a_writer_so_slow_that_the_collector_runs_between_all_its_steps_wins(
    etcd: Etcd, cluster_name: str, expire_at: int | None
) -> None:
    """Also when its lease ends at one of them: then it starts over."""
    keys = Keys(cluster_name)
    number = 0

    async def step() -> None:
        nonlocal number
        if number == expire_at:
            await expire_writers(etcd, keys)
        number += 1
        await collect(etcd, keys)

    client: Etcd = Client(etcd)  # type: ignore[assignment]
    async with open_registry(client, keys, "slow") as registry, open_registry(etcd, keys, "other") as other:
        change = Create(Entry("app:big", "registry.entry", {}, {"text": TEXT}))
        info = await with_steps(step, registry.commit([change]))
        assert (await other.reached(info.version, timedelta(seconds=10))).get("app:big") == change.entry
    await collect(etcd, keys)
    async with open_registry(etcd, keys, "late") as late:
        assert late.state.get("app:big") == change.entry
