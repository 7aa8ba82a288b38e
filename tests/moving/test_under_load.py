"""Processes that move while everybody talks to them: each sender's numbers arrive as 1..N, all of them, once, in order.

Senders stand on all three nodes, in the VMs the process comes by; it hops at random among the nodes meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cluster.embedded import EmbeddedServers
from tests.moving.world import Town, eventually, program

pytestmark = [pytest.mark.servers]

NODES = ("n1", "n2", "n3")
HOPS = 30
SECONDS = 60.0
CONSISTENT = 2
"""As in process.registry."""
MEGABYTES = 5


@pytest_asyncio.fixture
async def three(servers: EmbeddedServers, cluster_name: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town(servers, cluster_name, tmp_path) as built:
        programs = [program("tally", "process", "channel"), program("numbering", "process", "channel", "time")]
        built.entries = [*built.entries, *programs]
        await built.start(*NODES)
        yield built


@dataclass(frozen=True)
class Sender:
    """One that sends numbers; ``pid`` is its own."""

    pid: str
    to: str


async def senders(town: Town, to: str, in_a_row: int, pause: str) -> list[Sender]:
    """One on every node."""
    return [Sender(await town.spawn(node, "app:numbering", to, in_a_row, pause), to) for node in NODES]


async def hop(town: Town, pid: str, hops: int, chance: random.Random) -> None:
    """Move the process so many times, each time to another node."""
    for _ in range(hops):
        target = chance.choice([node for node in NODES if node != town.where(pid)])

        async def moved(target: str = target) -> bool:
            return (await town.move(pid, target)).moved

        await eventually(moved, f"{pid} moves to {target}", within=SECONDS)
        await asyncio.sleep(chance.uniform(0, 0.03))


async def stopped(town: Town, those: Sequence[Sender]) -> dict[str, int]:
    """End the senders; how many numbers each has sent."""
    told = {}
    for sender in those:
        answer = await town.call("n1", sender.pid, "stop")
        assert answer["failed"] == [], f"{sender} was refused"
        told[sender.pid] = answer["sent"]
    return told


async def tally(town: Town, pid: str) -> dict[str, Any]:
    told: dict[str, Any] = await town.call("n2", pid, "tally")
    return {**told, **{key: dict(told[key] or {}) for key in ("last", "sent")}}


async def check(town: Town, pid: str, sent: dict[str, int], hops: int, seed: int) -> None:
    """The process has got exactly what was sent, in order."""

    async def has_all() -> bool:
        last = (await tally(town, pid))["last"]
        return all(last.get(sender) == count for sender, count in sent.items())

    try:
        await eventually(has_all, f"everything arrives (seed {seed})", within=20)
    finally:
        told = await tally(town, pid)
        behind = {sender: (told["last"].get(sender), count) for sender, count in sent.items()}
        assert told["wrong"] == [], f"seed {seed}: {told['wrong'][:5]} of {len(told['wrong'])}; {behind}"
    assert told["moves"] == hops
    assert all(count > 50 for count in sent.values()), f"hardly anything was sent: {sent}"


@pytest.fixture
def chance() -> tuple[random.Random, int]:
    seed = random.randrange(2**32)
    return random.Random(seed), seed


async def test_numbers_by_pid_and_by_name_arrive_in_order(three: Town, chance: tuple[random.Random, int]) -> None:
    random_, seed = chance
    pid = await three.spawn("n1", "app:tally")
    assert (await three.call("n1", pid, "name", {"name": "tally", "scope": CONSISTENT}))["ok"]
    for parts in three.nodes.values():
        await eventually(lambda parts=parts: parts.names.lookup("tally"), "the name is known")
    those = [
        *await senders(three, pid, 1, "1ms"),
        *await senders(three, "tally", 1, "1ms"),
        *await senders(three, pid, 7, "3ms"),
        *await senders(three, "tally", 7, "3ms"),
    ]
    await hop(three, pid, HOPS, random_)
    await check(three, pid, await stopped(three, those), HOPS, seed)


async def test_long_runs_of_messages_in_one_step_arrive_in_order(
    three: Town, chance: tuple[random.Random, int]
) -> None:
    random_, seed = chance
    pid = await three.spawn("n2", "app:tally")
    those = await senders(three, pid, 200, "20ms")
    await hop(three, pid, HOPS, random_)
    await check(three, pid, await stopped(three, those), HOPS, seed)


async def test_a_large_state_is_whole_after_each_hop_and_holds_up_no_mail(
    three: Town, chance: tuple[random.Random, int]
) -> None:
    random_, seed = chance
    pid = await three.spawn("n3", "app:tally")
    assert await three.call("n1", pid, "ballast", MEGABYTES * 2**20) > MEGABYTES * 2**20 - 100
    those = await senders(three, pid, 3, "3ms")
    await hop(three, pid, 8, random_)
    await check(three, pid, await stopped(three, those), 8, seed)


async def test_processes_that_all_move_keep_the_order_among_themselves(
    three: Town, chance: tuple[random.Random, int]
) -> None:
    random_, seed = chance
    pids = [await three.spawn(node, "app:tally") for node in (*NODES, "n1")]
    peers = {pid: [other for other in pids if other != pid] for pid in pids}
    going = True

    async def drive() -> None:
        while going:
            for pid in pids:
                three.cast(random_.choice(NODES), pid, "round", peers[pid])
            await asyncio.sleep(0.003)

    async with asyncio.TaskGroup() as group:
        driving = group.create_task(drive())
        hops = [group.create_task(hop(three, pid, 12, random.Random(f"{seed} {pid}"))) for pid in pids]
        await asyncio.gather(*hops)
        going = False
        await driving

    async def quiet() -> bool:
        first = [(await tally(three, pid))["sent"] for pid in pids]
        await asyncio.sleep(0.1)
        return first == [(await tally(three, pid))["sent"] for pid in pids]

    await eventually(quiet, "all rounds are over")
    tallies = {pid: await tally(three, pid) for pid in pids}
    for pid in pids:
        await check(three, pid, {other: tallies[other]["sent"][pid] for other in peers[pid]}, 12, seed)


async def test_links_that_close_lose_messages_but_double_and_reorder_none(
    three: Town, chance: tuple[random.Random, int]
) -> None:
    random_, seed = chance
    pid = await three.spawn("n1", "app:tally")
    those = await senders(three, pid, 2, "2ms")
    going = True

    async def cut() -> None:
        while going:
            await asyncio.sleep(random_.uniform(0.02, 0.1))
            one, other = random_.sample(NODES, 2)
            three.nodes[one].links.close(other, "as the test wants it")

    async with asyncio.TaskGroup() as group:
        cutting = group.create_task(cut())
        await hop(three, pid, HOPS, random_)
        going = False
        await cutting
    await three.know_each_other()
    sent = {sender.pid: (await three.call("n1", sender.pid, "stop"))["sent"] for sender in those}
    told = await eventually(lambda: tally(three, pid), "it answers", within=20)
    assert told["moves"] >= HOPS
    assert set(told["last"]) == set(sent)
    backwards = [one for one in told["wrong"] if one["got"] < one["expected"]]
    assert backwards == [], f"seed {seed}"
