"""What only store.memory does: its bound, its clock, its sweep. The rest is in the contract."""

from __future__ import annotations

import pytest

from node.stores import MemoryStore, Precondition
from node.stores.contract import StoreFull, VersionChanged


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_full_store_refuses_new_keys_and_still_changes_known_ones(clock: Clock) -> None:
    store = MemoryStore("app:cache", max_size=2, clock=clock)
    await store.write(b"a", 1, 0)
    await store.write(b"b", 1, 0)
    with pytest.raises(StoreFull, match="app:cache is full: 2 keys"):
        await store.write(b"c", 1, 0)
    await store.write(b"a", 2, 0)
    await store.delete(b"b")
    await store.write(b"c", 1, 0)


async def test_bytes_are_bounded_and_given_back(clock: Clock) -> None:
    store = MemoryStore("app:cache", max_bytes=1000, clock=clock)
    await store.write(b"a", b"x" * 800, 5)
    with pytest.raises(StoreFull, match="app:cache is full: 1000 bytes; delete some keys or raise max_bytes"):
        await store.write(b"b", b"x" * 800, 0)
    await store.write(b"a", b"x" * 700, 5)
    clock.now += 5
    await store.write(b"b", b"x" * 800, 0)


async def test_versions_of_an_earlier_life_of_the_store_match_nothing(clock: Clock) -> None:
    former = await MemoryStore("app:cache", clock=clock).write(b"a", 1, 0)
    store = MemoryStore("app:cache", clock=clock)
    await store.write(b"a", 1, 0)
    with pytest.raises(VersionChanged):
        await store.write(b"a", 2, 0, Precondition(version=former.version))


async def test_expired_keys_make_room(clock: Clock) -> None:
    store = MemoryStore("app:cache", max_size=1, clock=clock)
    await store.write(b"a", 1, 5)
    clock.now += 5
    await store.write(b"b", 1, 0)
    assert len(store) == 1


async def test_an_expired_key_is_gone_for_every_reader_at_once(clock: Clock) -> None:
    store = MemoryStore("app:cache", clock=clock)
    await store.write(b"a", 1, 5)
    clock.now += 4.9
    assert await store.read(b"a") is not None
    clock.now += 0.1
    assert await store.read(b"a") is None
    assert (await store.page(b"", b"", 10)).items == []
    assert not await store.delete(b"a")


async def test_writes_sweep_once_per_interval(clock: Clock) -> None:
    store = MemoryStore("app:cache", cleanup_interval=60, clock=clock)
    await store.write(b"a", 1, 5)
    clock.now += 30
    await store.write(b"b", 1, 0)
    assert len(store) == 2
    clock.now += 30
    await store.write(b"c", 1, 0)
    assert len(store) == 2


async def test_new_limits_keep_the_data() -> None:
    store = MemoryStore("app:cache", max_size=5)
    for key in (b"a", b"b", b"c"):
        await store.write(key, 1, 0)
    store.configure(2, 1.0)
    assert len(store) == 3
    with pytest.raises(StoreFull):
        await store.write(b"d", 1, 0)


async def test_zero_means_the_default_size() -> None:
    store = MemoryStore("app:cache", max_size=0)
    await store.write(b"a", 1, 0)
    store.configure(0, 0.0)
    await store.write(b"b", 1, 0)
