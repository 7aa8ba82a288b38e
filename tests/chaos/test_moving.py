"""Processes that move all the time, under load, while nodes and servers die, stop and come back.

What clients, senders, watchers and receivers saw decides: no process runs twice, none ends but with the node that had
it, nothing is doubled or reordered, and who watches hears once. ``WIPPY_CHAOS=full`` takes longer, with more seeds.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cluster.embedded import EmbeddedServers
from cluster.errors import ClusterError
from cluster.fencing import EXIT_CODE
from tests.chaos.nodes import LEASE_TTL, Cluster, Node, chaos_cluster, eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

IS_FULL = os.environ.get("WIPPY_CHAOS") == "full"
NODES = ("n1", "n2", "n3")
HOST = "app:processes"
MOVERS = 50
HOPPERS = 8
"""Moves under way at a time."""
SEEDS = range(8) if IS_FULL else range(1)


class Moving(Cluster):
    app = Path(__file__).parent / "moving"


@pytest_asyncio.fixture
async def moving(own_servers: EmbeddedServers, cluster_name: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with chaos_cluster(own_servers, cluster_name, tmp_path, Moving) as cluster:
        yield cluster


@dataclass
class Scene:
    """The movers, those who have to do with them by node, and how the moves so far ended."""

    cluster: Cluster
    dice: random.Random
    movers: list[str] = field(default_factory=list)
    collectors: dict[str, str] = field(default_factory=dict)
    senders: dict[str, str] = field(default_factory=dict)
    witnesses: dict[str, str] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    is_over: bool = False
    lost: set[str] = field(default_factory=set)
    """Nodes that died or lost their lease; ``closed``: a link may have closed, and messages are lost with it."""
    closed: bool = False

    async def build(self) -> None:
        client = self.cluster.client
        for node in NODES:
            self.collectors[node] = await client.spawn("app:collector", f"{node}@{HOST}")
        for number in range(MOVERS):
            state = {"collector": self.collectors[NODES[number // 3 % 3]]}
            self.movers.append(await client.spawn("app:mover", f"{NODES[number % 3]}@{HOST}", state))
        for node in NODES:
            self.witnesses[node] = await client.spawn("app:witness", f"{node}@{HOST}", self.movers)
            self.senders[node] = await client.spawn("app:sender", f"{node}@{HOST}", self.movers)
        for node in NODES:
            assert (await self.ask(self.witnesses[node]))["failed"] == []

    async def ask(self, pid: str, timeout: float = 3.0) -> dict[str, Any]:
        return dict((await self.cluster.client.call(pid, "tell", timeout=timeout)).value)

    async def hop(self) -> None:
        """Move one after the other somewhere."""
        while not self.is_over:
            mover, node = self.dice.choice(self.movers), self.dice.choice(NODES)
            try:
                moved = await self.cluster.client.move(mover, node, within=3.0)
                self.verdicts[moved.verdict] += 1
            except (ClusterError, TimeoutError) as error:
                self.verdicts[type(error).__name__] += 1
                await asyncio.sleep(0.05)

    async def while_moving(self, deeds: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(HOPPERS):
                group.create_task(self.hop())
            await self.hops(20)
            await deeds()
            await self.hops(20)
            self.is_over = True

    async def hops(self, number: int) -> None:
        """Until so many more moves have been made."""
        before = self.verdicts["moved"]

        async def made() -> bool:
            return self.verdicts["moved"] >= before + number

        await eventually(made, within=30, what=f"{number} more moves")

    # -- what must hold in the end

    async def check(self) -> None:
        print(dict(self.verdicts))
        rows = await self._settled()
        alive = {pid for pid, count in rows.items() if count}
        assert all(count <= 1 for count in rows.values()), f"more than one copy: {rows}"
        dead = set(self.movers) - alive
        assert self.lost or not dead, f"{len(dead)} processes have ended: {sorted(dead)[:5]}"
        here = [node for node in NODES if node not in self.lost]
        sent = {self.senders[node]: await self.ask(self.senders[node]) for node in here}
        await self._check_order(alive, sent)
        await self._check_watchers(here, dead)
        for node in here:
            told = await self.ask(self.collectors[node])
            backwards = [one for one in told["wrong"] or [] if self.closed is False or one["got"] <= one["expected"]]
            assert backwards == [], f"of what movers told the collector on {node}: {backwards[:5]}"

    async def _settled(self) -> Counter[str]:
        """How often each mover is listed, once that is the same twice and no move is under way."""
        former: Counter[str] = Counter()

        async def steady() -> Counter[str] | None:
            nonlocal former
            answers = await self.cluster.client.ps(entry="app:mover")
            assert not answers.silent, answers.silent
            listed = Counter(row["pid"] for rows in answers.by_node.values() for row in rows)
            before, former = former, listed
            await asyncio.sleep(0.3)
            return listed if listed == before else None

        found = await eventually(steady, within=20, what="all moves are over")
        return Counter({pid: found[pid] for pid in self.movers})

    async def _check_order(self, alive: set[str], sent: dict[str, dict[str, int]]) -> None:
        async def arrived() -> bool:
            for pid in sorted(alive):
                told = await self.ask(pid)
                assert told["pid"] == pid
                for sender, numbers in sent.items():
                    missing = numbers.get(pid, 0) - (told["last"] or {}).get(sender, 0)
                    assert missing == 0 or self.closed, f"{pid} misses {missing} of {sender}"
            return True

        await eventually(arrived, within=15, what="all living movers answer, and have what was sent")
        for pid in sorted(alive):
            wrong = (await self.ask(pid))["wrong"] or []
            backwards = [one for one in wrong if not self.closed or one["got"] <= one["expected"]]
            assert backwards == [], f"{pid}: {backwards[:5]}"

    async def _check_watchers(self, here: list[str], dead: set[str]) -> None:
        async def heard() -> bool:
            for node in here:
                told = (await self.ask(self.witnesses[node]))["heard"] or {}
                silent = [pid for pid in dead if pid not in told]
                assert not silent, f"the witness on {node} was not told of {len(silent)}: {silent[:5]}"
                twice = [pid for pid, times in told.items() if times > 1]
                assert not twice, f"the witness on {node} was told twice of {twice[:5]}"
                early = [pid for pid in told if pid not in dead]
                assert self.closed or not early, f"the witness on {node} was told of {early[:5]}, which live"
            return True

        await eventually(heard, within=15, what="the watchers have heard of the dead")


@pytest_asyncio.fixture(params=SEEDS)
async def scene(moving: Cluster, request: pytest.FixtureRequest) -> Scene:
    seed = request.param if IS_FULL else random.randrange(2**32)
    print(f"seed {seed}")
    await moving.start_all(NODES, "--set", f"cluster.lease_ttl={LEASE_TTL:g}s")
    one = Scene(moving, random.Random(seed))
    await one.build()
    return one


async def test_servers_that_are_away_end_nothing_and_lose_nothing(scene: Scene) -> None:
    servers = scene.cluster.servers

    async def deeds() -> None:
        await servers.etcd.kill()
        await asyncio.sleep(scene.dice.uniform(0.2, 1.0))
        await servers.etcd.start()
        await scene.hops(20)
        await servers.nats.kill()
        await asyncio.sleep(5.0)
        await servers.nats.start()

    await scene.while_moving(deeds)
    await scene.check()
    for node in scene.cluster.nodes.values():
        node.check_log()


async def test_nodes_that_die_take_with_them_what_was_there_and_nothing_else(scene: Scene) -> None:
    async def deeds() -> None:
        victim = scene.dice.choice(NODES)
        scene.lost.add(victim)
        scene.closed = True
        scene.cluster.nodes[victim].signal(signal.SIGKILL)
        again = scene.cluster.start(victim)
        await again.ready()

    await scene.while_moving(deeds)
    await scene.check()
    for node in scene.cluster.nodes.values():
        node.check_log()


async def came_back(cluster: Cluster, node: Node) -> None:
    """It registers again; or it was stopped in the middle of a step, ends itself, and is started again."""

    async def decided() -> bool:
        return "node registered again" in node.err or node.process.poll() is not None

    await eventually(decided, within=15, what="it registers again, or ends")
    if node.process.poll() is not None:
        assert node.process.returncode == EXIT_CODE, node.err
        await cluster.start(node.name).ready()


async def test_a_node_that_stood_still_past_its_lease_comes_back_without_its_guests(scene: Scene) -> None:
    async def deeds() -> None:
        victim = scene.dice.choice(NODES)
        scene.lost.add(victim)
        scene.closed = True
        node = scene.cluster.nodes[victim]
        await node.freeze()
        stopped = time.monotonic()

        async def ended() -> bool:
            return victim not in await scene.cluster.members()

        await eventually(ended, within=LEASE_TTL * 2 + 5, what="its registration ends")
        await asyncio.sleep(max(0.0, LEASE_TTL + 1.5 - (time.monotonic() - stopped)))
        node.signal(signal.SIGCONT)
        await came_back(scene.cluster, node)

    await scene.while_moving(deeds)
    await scene.check()
