"""Services leave a node: with their process, or handed over to another, before or after the former one has stopped."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cluster.embedded import EmbeddedServers
from cluster.envelope import Kind
from cluster.errors import ClusterError
from cluster.members import NodeState
from cluster.registry import Entry
from tests.moving.world import HOST, Town, eventually, program

pytestmark = [pytest.mark.servers]

NODES = ("n1", "n2", "n3")
SERVICE = "app:service"
KEY = (SERVICE, 0)


def service(handover: str = "stop-first", id: str = SERVICE, **options: Any) -> Entry:
    """Its first name is its own; ``options`` are those of the program."""
    lifecycle = {"auto_start": True, "handover": handover, "restart": {"initial_delay": "50ms"}}
    given = {"names": ["keeper"], **options}
    return Entry(
        id, "process.service", {}, {"process": "app:keeper", "host": HOST, "input": [given], "lifecycle": lifecycle}
    )


@pytest_asyncio.fixture
async def three(servers: EmbeddedServers, cluster_name: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town(servers, cluster_name, tmp_path) as built:
        for name in ("keeper", "collector", "numbering"):
            built.entries = [*built.entries, program(name, "process", "channel", "time", "store")]
        built.entries = [*built.entries, Entry("app:last", "store.kv.raft", {}, {"namespace": "last"})]
        yield built


async def begin(town: Town, entry: Entry) -> str:
    """Start the nodes with the service; the one that has it."""
    town.entries = [*town.entries, entry]
    await town.start(*NODES)
    await eventually(lambda: owner(town) and holder(town), "the service runs, and has its name")
    return owner(town)


def owner(town: Town) -> str:
    """The node whose claim all nodes see."""
    claims = [parts.claims.get(*KEY) for parts in town.nodes.values()]
    found = {claim.node if claim is not None else "" for claim in claims}
    return found.pop() if len(found) == 1 else ""


def holder(town: Town, name: str = "keeper") -> str:
    """The process every node finds under the name."""
    found = {held.pid if held else "" for held in (parts.names.lookup(name) for parts in town.nodes.values())}
    return found.pop() if len(found) == 1 else ""


async def who(town: Town, node: str, timeout: float = 5.0) -> dict[str, Any]:
    """Who answers to the name, asked from ``node``."""
    held = town.nodes[node].names.lookup("keeper")
    if held is None:
        raise ClusterError("nobody has the name")
    return dict(await town.call(node, held.pid, "who", timeout=timeout))


async def drained(town: Town, node: str, within: float = 20.0) -> str:
    """The node takes nothing new and gives the service away."""
    await town.nodes[node].set_state(NodeState.DRAINING)
    return await town.nodes[node].supervisor.hand_over(*KEY, within)


def rows(town: Town, node: str) -> list[dict[str, Any]]:
    return [row for row in town.nodes[node].supervisor.stats() if row["service"] == SERVICE]


async def move(town: Town, pid: str, to: str) -> None:
    async def moved() -> bool:
        return (await town.move(pid, to)).moved

    await eventually(moved, f"it moves to {to}")


async def test_a_service_moves_with_its_process_its_claim_and_its_name(three: Town) -> None:
    first = await begin(three, service(migratable=True))
    pid, before = holder(three), await who(three, "n1")
    second, third = [node for node in NODES if node != first]
    await move(three, pid, second)
    await eventually(lambda: owner(three) == second, "the claim is seen to have moved")
    assert holder(three) == pid
    for node in NODES:
        answer = await who(three, node)
        assert (answer["pid"], answer["moves"]) == (pid, 1)
        assert answer["fence"] > before["fence"]
    claim = three.nodes[third].claims.get(*KEY)
    assert claim is not None
    assert claim.state is not None
    assert (answer["fence"], claim.state.pid, claim.state.node) == (claim.token, pid, second)
    assert [(row["node"], row["state"], row["pid"]) for row in rows(three, second)] == [(second, "running", pid)]
    assert [(row["node"], row["state"]) for row in rows(three, first)] == [(second, "claimed")]
    await move(three, pid, third)
    await move(three, pid, first)
    await eventually(lambda: owner(three) == first, "it came home")
    assert (await who(three, second))["moves"] == 3


async def test_one_that_moved_is_restarted_where_it_went_and_stops_there(three: Town) -> None:
    first = await begin(three, service(migratable=True))
    pid = holder(three)
    second = next(node for node in NODES if node != first)
    await move(three, pid, second)
    three.cast("n1", pid, "fail")
    other = await eventually(lambda: holder(three) not in ("", pid) and holder(three), "it is started again")
    assert other.startswith("{" + second)
    assert owner(three) == second
    assert rows(three, second)[0]["restarts"] == 1


class Load:
    """Numbers sent by name from every node, and questions to it; ``async with`` sends and asks."""

    def __init__(self, town: Town, *nodes: str) -> None:
        self._town = town
        self._nodes = nodes or NODES
        self.longest = 0.0
        """Seconds without an answer."""

    async def __aenter__(self) -> Load:
        self.collector = await self._town.spawn(self._nodes[-1], "app:collector")
        await eventually(lambda: holder(self._town, "collector"), "the collector has its name")
        self.senders = [await self._town.spawn(node, "app:numbering", "keeper", 5, "5ms") for node in self._nodes]
        self._asking = asyncio.ensure_future(self._ask())
        return self

    async def _ask(self) -> None:
        last = time.monotonic()
        while True:
            try:
                await who(self._town, self._nodes[-1], timeout=0.5)
            except (ClusterError, TimeoutError):
                pass
            else:
                self.longest, last = max(self.longest, time.monotonic() - last), time.monotonic()
            await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        self._asking.cancel()

    def _dead_letters(self) -> dict[str, Any]:
        return {node: parts.router.dead_letters.counts() for node, parts in self._town.nodes.items()}

    async def all_arrived(self) -> dict[str, list[dict[str, Any]]]:
        """End the senders; what was got of each, in the order it came to the collector."""
        sent = {}
        for pid in self.senders:
            told = await self._town.call(self._nodes[-1], pid, "stop")
            assert told["failed"] == [], "a send by name was refused"
            sent[pid] = told["sent"]
        total = sum(sent.values())

        async def got() -> list[dict[str, Any]] | None:
            rows = await self._town.call(self._nodes[-1], self.collector, "all", timeout=20)
            return rows if len(rows) >= total else None

        by_sender = defaultdict(list)
        for row in await eventually(got, f"all {total} have arrived; dead letters: {self._dead_letters()}", within=45):
            by_sender[row["from"]].append(row)
        for pid, count in sent.items():
            assert sorted(row["number"] for row in by_sender[pid]) == list(range(1, count + 1))
        return dict(by_sender)


def numbers(rows: list[dict[str, Any]], by: str) -> list[int]:
    return [row["number"] for row in rows if row["by"] == by]


async def test_start_first_loses_doubles_and_reorders_no_message_by_name_and_always_answers(three: Town) -> None:
    first = await begin(three, service("start-first", init="100ms", last_words="200ms", store="app:last"))
    former = holder(three)
    async with Load(three) as load:
        await asyncio.sleep(0.2)
        assert await drained(three, first) == ""
        await asyncio.sleep(0.2)
        got = await load.all_arrived()
    now = holder(three)
    assert now != former
    assert owner(three) not in ("", first)
    assert rows(three, owner(three))[0]["restarts"] == 0, "neither was kept from writing"
    for rows_of_one in got.values():
        before, after = numbers(rows_of_one, former), numbers(rows_of_one, now)
        assert before
        assert after
        assert before + after == list(range(1, len(before) + len(after) + 1)), "each in order, the former one first"
    assert load.longest < 2.0, "it was never unanswered for longer"
    assert not any(parts.names.names_of(former) for parts in three.nodes.values())


async def test_stop_first_is_unanswered_for_a_moment_only(three: Town) -> None:
    first = await begin(three, service(names=["keeper", "keeper.two"]))
    former = holder(three)
    async with Load(three) as load:
        await asyncio.sleep(0.2)
        assert await drained(three, first) == ""
        await eventually(lambda: holder(three) not in ("", former), "another node runs it")
        await eventually(lambda: who(three, "n3"), "it answers")
        await asyncio.sleep(0.1)
    assert owner(three) != first
    assert rows(three, owner(three))[0]["restarts"] == 0, "its names were free when it started"
    assert load.longest < 2.0


async def test_a_node_that_stops_hands_over_before_it_ends(three: Town) -> None:
    first = await begin(three, service("start-first", init="100ms"))
    former = holder(three)
    async with Load(three, *(node for node in NODES if node != first)) as load:
        await asyncio.sleep(0.2)
        await three.stop(first)
        await asyncio.sleep(0.2)
        got = await load.all_arrived()
    assert holder(three) not in ("", former)
    assert all({row["by"] for row in rows_of_one} == {former, holder(three)} for rows_of_one in got.values())
    assert load.longest < 2.0


async def test_every_process_writes_under_a_token_of_its_own(three: Town) -> None:
    first = await begin(three, service("start-first", init="300ms", last_words="300ms"))
    former, before = holder(three), (await who(three, "n1"))["fence"]
    giving = asyncio.ensure_future(drained(three, first))
    seen: dict[int, set[str]] = defaultdict(set)
    while not giving.done():
        for parts in three.nodes.values():
            for row in parts.supervisor.stats():
                fence = parts.supervisor.fence_of(row["pid"].encode()) if row["node"] == parts.name else None
                if row["service"] == SERVICE and fence is not None:
                    seen[fence[1]].add(row["pid"])
        await asyncio.sleep(0.005)
    assert await giving == ""
    now = holder(three)
    assert all(len(pids) == 1 for pids in seen.values()), seen
    assert len(seen) == 4, "the claim's, the wish's, the heir's, the claim's new one"
    assert set().union(*seen.values()) == {former, now}
    assert max(seen) == (await who(three, "n1"))["fence"] > before
    await eventually(lambda: nothing_left(three), "no key of the hand-over is left")


async def nothing_left(town: Town) -> bool:
    parts = next(iter(town.nodes.values()))
    return not (await parts.etcd.range(parts.keys.heirs)).kvs


def successor(town: Town, former: str) -> str:
    """The process another node than the former one has started."""
    for node, parts in town.nodes.items():
        for row in parts.supervisor.stats() if node != former else ():
            if row["service"] == SERVICE and row["node"] == node and row["pid"]:
                return str(row["pid"])
    return ""


async def test_a_successor_that_fails_takes_nothing_from_the_former_one(three: Town) -> None:
    first = await begin(three, service("start-first", init="1s"))
    former, home = holder(three), three.nodes[first]
    run, deadline = home.supervisor._running[KEY], asyncio.get_running_loop().time() + 15
    starting = asyncio.ensure_future(home.supervisor._handover._start_first(KEY, run, deadline))
    pid = await eventually(lambda: successor(three, first), "the heir starts it")
    home.router.route([int(Kind.TERMINATE), pid.encode(), b"", 0])
    assert "could not start it" in await starting
    assert holder(three) == former
    assert (await who(three, "n3"))["pid"] == former
    claim = home.claims.get(*KEY)
    assert claim is not None
    assert home.supervisor.fence_of(former.encode()) == (home.keys.service(*KEY), claim.token)
    await eventually(lambda: nothing_left(three), "no key of the hand-over is left")


async def test_the_former_node_is_lost_while_the_heir_starts(three: Town) -> None:
    """The heir goes on with the process it has started, as soon as the lease of the former owner has ended."""
    first = await begin(three, service("start-first", init="1s"))
    other = next(parts for node, parts in three.nodes.items() if node != first)
    giving = asyncio.ensure_future(drained(three, first))
    pid = await eventually(lambda: successor(three, first), "the heir starts it")
    await other.etcd.revoke(three.nodes[first].keeper.lease.id)
    await eventually(lambda: owner(three) not in ("", first), "the heir has the claim")
    await eventually(lambda: holder(three) == pid, "and its process has the name")
    giving.cancel()
