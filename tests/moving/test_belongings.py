"""Names, locks and groups of processes that move between whole nodes: theirs all the time, and free when they end."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cluster.embedded import EmbeddedServers
from cluster.registry import Entry
from tests.moving.world import Town, eventually, program

pytestmark = [pytest.mark.servers]

NODES = ("n1", "n2", "n3")
HOPS = 15
ALL = {"name": "it", "groups": "g"}


@pytest_asyncio.fixture
async def three(servers: EmbeddedServers, cluster_name: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town(servers, cluster_name, tmp_path) as built:
        built.entries = [
            *built.entries,
            Entry("app:groups", "pg.scope"),
            program("owner", "process", "channel", "pg", "system"),
            program("crier", "process", "channel", "pg", "time"),
        ]
        await built.start(*NODES)
        yield built


def found(town: Town, name: str) -> set[str | None]:
    """Who has a name, as the nodes see it."""
    held = [parts.names.lookup(name) for parts in town.nodes.values()]
    return {one.pid if one else None for one in held}


def members(town: Town, node: str, group: str = "g") -> list[str]:
    scope = town.nodes[node].groups.find("app:groups")
    assert scope is not None
    return scope.core.members(group)


async def whereabouts(town: Town, pid: str) -> str:
    """Its node; for a moment after a move none may say yet that it is there."""
    nodes = town.nodes.items()
    place: str = await eventually(
        lambda: next((name for name, parts in nodes if parts.moving.where(pid) == name), None), "it is somewhere"
    )
    return place


async def moved(town: Town, pid: str, to: str) -> None:
    async def move() -> bool:
        await whereabouts(town, pid)
        return (await town.move(pid, to)).moved

    await eventually(move, f"it moves to {to}")


async def test_what_it_holds_it_holds_on_every_node_it_comes_to(three: Town) -> None:
    pid = await three.spawn("n1", "app:owner")
    assert await three.call("n1", pid, "get", ALL)
    assert found(three, "it-here") == {pid, None}
    before: list[int] = await three.call("n2", pid, "fences", ALL)
    for to in ("n2", "n3", "n1", "n2"):
        await moved(three, pid, to)
        fences = await three.call("n3", pid, "fences", ALL)
        assert fences[0] == fences[1] > max(before)
        before = fences
        lease = three.nodes[to].keeper.lease.id
        for name in ("it", "it-soon", "it-strong"):
            await eventually(lambda name=name: found(three, name) == {pid}, f"{name} is known everywhere")
            kv = await three.nodes["n1"].etcd.get(three.nodes["n1"].keys.name(name))
            assert kv is not None
            assert (kv.lease, kv.mod_revision) == (lease, fences[0])
        assert found(three, "it-here") == {None}
        assert {tuple(members(three, node)) for node in NODES} == {(pid,)}
    assert await three.call("n1", pid, "give_back", ALL) == [True, False, True, True, []]
    await eventually(lambda: found(three, "it") == {None}, "the name is free")
    assert found(three, "it-soon") == {pid}
    assert (await three.call("n1", pid, "tally", {}))["revoked"] in ([], {})
    three.cast("n3", pid, "end")
    for name in ("it-soon", "it-strong"):
        await eventually(lambda name=name: found(three, name) == {None}, f"{name} is free")

    async def locks_free() -> bool:
        return not await three.nodes["n1"].etcd.count(three.nodes["n1"].keys.locks)

    await eventually(locks_free, "its locks are free")


async def test_whoever_speaks_to_its_group_is_heard_once_and_in_order(three: Town) -> None:
    pid = await three.spawn("n1", "app:owner")
    assert await three.call("n1", pid, "get", ALL)
    await eventually(lambda: all(members(three, node) == [pid] for node in NODES), "it is a member everywhere")
    told: list[Any] = []
    scope = three.nodes["n3"].groups.find("app:groups")
    assert scope is not None
    three.nodes["n3"].groups.watch(scope, told.append)
    criers = [await three.spawn(node, "app:crier", "g", pid, "2ms") for node in NODES]
    chance = random.Random(11)
    for _ in range(HOPS):
        here = await whereabouts(three, pid)
        await moved(three, pid, chance.choice([node for node in NODES if node != here]))
    sent = {crier: (await three.call("n1", crier, "stop"))["sent"] for crier in criers}
    assert min(sent.values()) > HOPS

    async def all_heard() -> bool:
        return bool((await three.call("n2", pid, "tally", {}))["last"] == sent)

    await eventually(all_heard, "the last of each crier is heard")
    tally = await three.call("n2", pid, "tally", {})
    assert (list(tally["wrong"]), tally["moves"], told) == ([], HOPS, [])
    three.cast("n1", pid, "end")
    await eventually(lambda: not any(members(three, node) for node in NODES), "it is a member nowhere", within=20)
