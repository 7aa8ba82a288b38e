"""The etcd in memory answers like the real one, in everything the registry's simulations rest on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from cluster.etcd import Compare, Delete, Etcd, Get, LeaseGone, Put
from tests.sim.memory_etcd import MemoryEtcd

pytestmark = pytest.mark.servers


@pytest_asyncio.fixture(params=["real", "memory"])
async def store(request: pytest.FixtureRequest, etcd: Etcd) -> AsyncIterator[Any]:
    yield etcd if request.param == "real" else MemoryEtcd(Random(1))


async def test_a_transaction_happens_whole_or_not_at_all(store: Any, cluster_name: str) -> None:
    a, b = f"{cluster_name}/a", f"{cluster_name}/b"
    done = await store.txn([Compare.absent(a)], [Put(a, b"1"), Put(b, b"2"), Get(a)])
    assert done.succeeded
    kv = done.responses[2][0]
    assert (kv.value, kv.create_revision, kv.mod_revision, kv.version) == (b"1", done.revision, done.revision, 1)
    again = await store.txn([Compare.absent(a)], [Put(a, b"3"), Delete(b)])
    assert not again.succeeded
    assert again.revision == done.revision
    changed = await store.txn([Compare.mod(a, "=", done.revision)], [Put(a, b"3"), Delete(b), Get(b)])
    assert changed.responses[1:] == [1, []]
    kv = await store.get(a)
    assert (kv.create_revision, kv.mod_revision, kv.version) == (done.revision, changed.revision, 2)
    assert not (await store.txn([Compare.create(a, "=", changed.revision)], [])).succeeded


async def test_an_absent_key_compares_as_zero(store: Any, cluster_name: str) -> None:
    key = f"{cluster_name}/none"
    assert (await store.txn([Compare.mod(key, "=", 0), Compare.create(key, "=", 0)], [])).succeeded
    assert (await store.txn([Compare.mod_prefix(key, "<", 5)], [])).succeeded


async def test_a_prefix_compares_all_its_keys(store: Any, cluster_name: str) -> None:
    first = await store.put(f"{cluster_name}/a", b"")
    second = await store.put(f"{cluster_name}/b", b"")
    assert not (await store.txn([Compare.mod_prefix(f"{cluster_name}/", "<", first + 1)], [])).succeeded
    assert (await store.txn([Compare.mod_prefix(f"{cluster_name}/", "<", second + 1)], [])).succeeded


async def test_a_range_reads_the_past(store: Any, cluster_name: str) -> None:
    first = await store.put(f"{cluster_name}/a", b"1")
    await store.put(f"{cluster_name}/a", b"2")
    await store.put(f"{cluster_name}/b", b"2")
    then = await store.range(f"{cluster_name}/", revision=first)
    assert [(kv.key, kv.value) for kv in then.kvs] == [(f"{cluster_name}/a", b"1")]
    part = await store.range(f"{cluster_name}/", exact_range=(f"{cluster_name}/a", f"{cluster_name}/b"))
    assert [kv.key for kv in part.kvs] == [f"{cluster_name}/a"]
    assert await store.delete_prefix(f"{cluster_name}/") == 2
    assert (await store.range(f"{cluster_name}/")).kvs == []


async def test_keys_go_with_their_lease_and_a_lease_that_ended_takes_none(store: Any, cluster_name: str) -> None:
    lease = await store.grant(60)
    await store.put(f"{cluster_name}/a", b"", lease.id)
    assert (await store.get(f"{cluster_name}/a")).lease == lease.id
    assert await store.revoke(lease.id)
    assert await store.get(f"{cluster_name}/a") is None
    with pytest.raises(LeaseGone):
        await store.put(f"{cluster_name}/a", b"", lease.id)
