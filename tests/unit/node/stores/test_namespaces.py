"""Entries that join and leave a namespace while it is still busy with what others said of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, ClassVar, Self, cast

import pytest

from cluster.errors import Unavailable
from cluster.subjects import Subjects
from node.stores import namespaces as module
from node.stores.namespaces import Namespaces, Wish

MEMORY, FILES = Wish(False, 10, 10_000), Wish(True, 10, 10_000)


class Replication:
    """One that takes until ``gate`` is open to say that all is published."""

    running: ClassVar[list[Replication]] = []
    gate = asyncio.Event()
    problem = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.level = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.running.append(self)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.running.remove(self)

    async def published(self, timeout: float) -> bool:
        await self.gate.wait()
        return True


@pytest.fixture
async def namespaces(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Namespaces]:
    async def purge(self: object, subject: str) -> None: ...

    monkeypatch.setattr(Replication, "running", [])
    monkeypatch.setattr(Replication, "gate", asyncio.Event())
    monkeypatch.setattr(module, "Replication", Replication)
    monkeypatch.setattr(module.Bucket, "purge", purge)
    connection = SimpleNamespace(on_reconnect=lambda handler: None, on_problem=lambda handler: None)
    namespaces = Namespaces(cast(Any, connection), Subjects("c"), "node-1", 1)
    yield namespaces
    Replication.gate.set()
    await namespaces.close()
    assert Replication.running == []


async def test_the_last_entries_of_a_namespace_may_go_while_it_changes_its_bucket(namespaces: Namespaces) -> None:
    await namespaces.join("app:a", "sess", MEMORY)
    await namespaces.join("app:b", "sess", MEMORY)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(namespaces.join("app:a", "sess", FILES))  # hands over to the new bucket
        await asyncio.sleep(0)
        tasks.create_task(namespaces.leave("app:a", "sess"))
        tasks.create_task(namespaces.leave("app:b", "sess"))
        await asyncio.sleep(0)
        Replication.gate.set()
    assert Replication.running == []


async def test_nothing_starts_again_when_the_node_ends_while_a_namespace_changes_its_bucket(
    namespaces: Namespaces,
) -> None:
    namespace = await namespaces.join("app:a", "sess", MEMORY)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(namespaces.join("app:a", "sess", FILES))
        await asyncio.sleep(0)
        tasks.create_task(namespaces.join("app:a", "sess", MEMORY))
        await asyncio.sleep(0)
        tasks.create_task(namespaces.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="this node ends"):
            await namespaces.join("app:b", "sess", MEMORY)
        Replication.gate.set()
    assert Replication.running == []
    with pytest.raises(Unavailable, match="no store on this node any more"):
        _ = namespace.replication


async def test_all_namespaces_hand_over_at_the_same_time_when_the_node_ends(namespaces: Namespaces) -> None:
    asked: list[float] = []

    async def published(self: Replication, timeout: float) -> bool:
        asked.append(timeout)
        await self.gate.wait()
        return True

    Replication.published, former = published, Replication.published  # type: ignore[method-assign]
    try:
        for name in ("one", "two", "three"):
            await namespaces.join("app:a", name, MEMORY)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(namespaces.close())
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(asked) == 3
            Replication.gate.set()
    finally:
        Replication.published = former  # type: ignore[method-assign]
