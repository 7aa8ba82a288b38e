"""Processes move between whole nodes: with their PID, their state, their mail, and everybody who knows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.embedded import EmbeddedServers
from cluster.envelope import Kind
from cluster.migration.actions import Verdict
from tests.moving.world import HOST, Town, eventually, town

pytestmark = [pytest.mark.servers]


@pytest_asyncio.fixture
async def three(servers: EmbeddedServers, cluster_name: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with town(servers, cluster_name, tmp_path) as built:
        yield built


async def test_a_process_keeps_its_pid_its_state_and_its_mail(three: Town) -> None:
    pid = await three.spawn("n1", "app:counter")
    for n in range(5):
        three.cast("n3", pid, "add", n)
    outcome = await three.move(pid, "n2")
    assert outcome.verdict is Verdict.MOVED, outcome
    for n in range(5, 10):
        three.cast("n3", pid, "add", n)
    state = await three.call("n3", pid, "state")
    assert state["seen"] == list(range(10))
    assert state["moves"] == 1
    assert three.where(pid) == "n2"
    assert (await three.call("n1", pid, "state"))["count"] == 10


async def test_it_moves_on_and_comes_home(three: Town) -> None:
    pid = await three.spawn("n1", "app:counter")
    for turn, to in enumerate(["n2", "n3", "n1", "n3", "n2", "n1"], 1):
        assert (await three.move(pid, to)).moved, "at once, though it has just come"
        three.cast("n2", pid, "add", turn)
        state = await three.call("n3", pid, "state")
        assert state["moves"] == turn


async def moved(three: Town, pid: str, to: str) -> bool:
    return (await three.move(pid, to)).moved


async def test_one_that_has_not_opted_in_stays(three: Town) -> None:
    pid = await three.spawn("n1", "app:witness")
    outcome = await three.move(pid, "n2")
    assert outcome.verdict is Verdict.STAYED
    assert "migratable" in outcome.reason
    assert await three.call("n2", pid, "heard") == []


async def test_one_that_does_not_hand_over_stays_after_the_deadline(three: Town) -> None:
    pid = await three.spawn("n1", "app:stubborn")
    outcome = await three.move(pid, "n2", within=0.3)
    assert outcome.verdict is Verdict.STAYED
    assert "0.3 s" in outcome.reason
    assert await three.call("n2", pid, "hello") == "here"
    assert three.where(pid) == "n1"


async def test_watchers_on_every_node_hear_of_the_end_once(three: Town) -> None:
    pid = await three.spawn("n1", "app:counter")
    witnesses = [await three.spawn(node, "app:witness") for node in ("n1", "n2", "n3")]
    late = [await three.spawn(node, "app:witness") for node in ("n1", "n2", "n3")]
    for witness in witnesses:
        assert (await three.call("n1", witness, "monitor", pid))["ok"]
    assert (await three.move(pid, "n2")).moved
    for witness in late:
        assert (await three.call("n1", witness, "monitor", pid))["ok"]
    await eventually(lambda: moved(three, pid, "n3"), "it moves on")
    three.cast("n1", pid, "end")
    for witness in [*witnesses, *late]:

        async def heard(witness: str = witness) -> object:
            return await three.call("n2", witness, "heard")

        assert await eventually(heard, "it hears") == [{"kind": "pid.exit", "from": pid}]


async def test_it_hears_of_those_it_watches_wherever_it_is(three: Town) -> None:
    pid = await three.spawn("n1", "app:counter")
    watched = [await three.spawn(node, "app:counter") for node in ("n1", "n2", "n3")]
    for one in watched:
        assert (await three.call("n1", pid, "monitor", one))["ok"]
    assert (await three.move(pid, "n2")).moved
    for one in watched:
        three.cast("n3", one, "end")

    async def heard() -> bool:
        exits = (await three.call("n3", pid, "state"))["exits"]
        return sorted(one["from"] for one in exits) == sorted(watched)

    await eventually(heard, "it hears of all three")


async def test_a_move_to_a_node_that_takes_nothing_is_refused(three: Town) -> None:
    pid = await three.spawn("n1", "app:counter")
    await three.nodes["n2"].cordon()
    outcome = await three.move(pid, "n2")
    assert outcome.verdict is Verdict.STAYED
    assert "n2" in outcome.reason
    assert (await three.move(pid, "n3")).moved


async def test_a_process_that_is_gone_or_elsewhere_can_not_be_moved_from_here(three: Town) -> None:
    pid = await three.spawn("n1", "app:counter")
    assert (await three.move(pid, "n2")).moved
    assert "node n2" in (await three.nodes["n1"].moving.move(pid, "n3")).reason
    three.cast("n3", pid, "end")

    async def ended() -> bool:
        return "ended" in (await three.nodes["n2"].moving.move(pid, "n3")).reason

    await eventually(ended, "it has ended")


async def test_nothing_of_an_ended_process_is_left_behind(three: Town) -> None:
    pid = await three.spawn("n1", "app:counter")
    assert (await three.move(pid, "n2")).moved
    three.cast("n3", pid, "end")

    async def forgotten() -> bool:
        keys = await three.nodes["n1"].etcd.count(three.nodes["n1"].keys.moved)
        return keys == 0 and not any(parts.router.moves for parts in three.nodes.values())

    await eventually(forgotten, "its key and its rows are gone", within=20)


async def test_a_link_that_closes_in_the_midst_loses_no_process(three: Town) -> None:
    pid = await three.spawn("n1", "app:counter")
    n1 = three.nodes["n1"]
    for to in ["n2", "n3", "n2"]:
        here = three.where(pid)
        if here == to:
            continue
        moving = three.nodes[here].moving.move(pid, to)
        three.nodes[here].links.close(to, "as the test wants it")
        await moving
        assert await eventually(lambda: three.call("n3", pid, "state"), "it answers")
    assert n1.moving.where(pid) == three.where(pid)


async def test_a_name_goes_along_and_finds_it_from_everywhere(three: Town) -> None:
    pid = await three.spawn("n1", "app:counter")
    assert (await three.call("n2", pid, "name", {"name": "till", "scope": 2}))["ok"]
    before = await eventually(lambda: three.nodes["n3"].names.lookup("till"), "n3 knows the name")
    assert (await three.move(pid, "n2")).moved

    def after() -> bool:
        held = three.nodes["n3"].names.lookup("till")
        return held is not None and held.revision > before.revision

    await eventually(after, "n3 knows where the name is")
    key = await three.nodes["n1"].etcd.get(three.nodes["n1"].keys.name("till"))
    assert key is not None
    assert key.lease == three.nodes["n2"].keeper.lease.id
    assert key.value.decode() == pid
    await three.stop("n1")
    assert three.nodes["n3"].names.lookup("till") is not None
    assert (await three.call("n3", pid, "state"))["moves"] == 1
    three.cast("n3", pid, "end")
    await eventually(lambda: three.nodes["n3"].names.lookup("till") is None, "the name is free")


async def test_a_frozen_process_whose_host_is_removed_ends_and_is_mourned(three: Town) -> None:
    pid = await three.spawn("n1", "app:counter")
    witness = await three.spawn("n2", "app:witness")
    assert (await three.call("n2", witness, "monitor", pid))["ok"]
    assert (await three.call("n2", pid, "name", {"name": "till", "scope": 2}))["ok"]
    n1 = three.nodes["n1"]
    drop = n1.links.send

    def lose_the_state(node: str, envelope: list[object]) -> None:
        if envelope[0] != Kind.MOVE_STATE:
            drop(node, envelope)

    n1.links.send = lose_the_state  # type: ignore[method-assign]
    n1.moving._cores.performer._links.send = lose_the_state  # type: ignore[method-assign]
    moving = asyncio.ensure_future(n1.moving.move(pid, "n2", 1.5))

    def is_packed() -> bool:
        return any(moved.leaving is not None and moved.leaving.packed for moved in n1.moving._table.values())

    await eventually(is_packed, "it is frozen")
    await n1.hosts.remove(HOST)
    assert (await moving).verdict in (Verdict.STAYED, Verdict.DIED)

    async def heard() -> object:
        return await three.call("n2", witness, "heard")

    (exit_heard,) = await eventually(heard, "the witness hears")
    assert exit_heard["from"] == pid
    await eventually(lambda: n1.names.lookup("till") is None, "its name is free")


def broken(*args: object) -> None:
    raise KeyError("a part that is broken")


@pytest.mark.parametrize("step", ["pack", "adapt", "expect"])
async def test_a_part_that_fails_before_the_commit_leaves_the_process_where_it_is(
    three: Town, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    pid = await three.spawn("n1", "app:counter")
    with monkeypatch.context() as patched:
        node = "n1" if step == "pack" else "n2"
        patched.setattr(three.nodes[node].locks, step, broken)
        outcome = await three.move(pid, "n2", within=2)
    assert outcome.verdict is Verdict.STAYED
    assert (await three.call("n3", pid, "name", {"name": "till", "scope": 2}))["ok"], "its names are not held back"
    assert (await three.move(pid, "n2")).moved


@pytest.mark.parametrize("step", ["left", "arrived"])
async def test_a_part_that_fails_after_the_commit_ends_no_move(
    three: Town, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    pid = await three.spawn("n1", "app:counter")
    with monkeypatch.context() as patched:
        patched.setattr(three.nodes["n1" if step == "left" else "n2"].names, step, broken)
        assert (await three.move(pid, "n2")).moved
    three.cast("n3", pid, "add", 1)
    assert (await three.call("n3", pid, "state"))["count"] == 1
    assert (await three.move(pid, "n3")).moved
