"""Settling: every serving node is waited for, whatever becomes of it meanwhile, and never beyond the time given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cluster.errors import CallTimeout, Unavailable
from cluster.members import Member, NodeState
from cluster.settling import Outcome, Settling, settled
from tests.sim.memory_etcd import run_virtually

VERSION = 7


def virtually(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test on a clock that does not take its time."""

    def test() -> None:
        run_virtually(scenario())

    test.__name__ = scenario.__name__
    return test


def answer(applied: int = VERSION, converged: int = VERSION, waiting_for: str = "", **degraded: int) -> dict[str, Any]:
    failing = [{"entry": f"app:{name}", "version": version, "reason": "no room"} for name, version in degraded.items()]
    return {"applied": applied, "converged": converged, "waiting_for": waiting_for, "degraded": failing}


class Cluster:
    """Nodes that answer, or do not."""

    def __init__(self, *nodes: str) -> None:
        self.nodes = {node: self.member(node) for node in nodes}
        self.answers: dict[str, Any] = {node: answer() for node in nodes}
        self.asked: list[str] = []
        self.reads = 0
        self.without_etcd: range = range(0)
        self.hangs = 0.0

    @staticmethod
    def member(node: str, state: NodeState = NodeState.READY) -> Member:
        return Member(node, 1, 1, 1, 1, state, {}, "", {}, "", "")

    async def members(self) -> list[Member]:
        self.reads += 1
        if self.reads in self.without_etcd:
            await asyncio.sleep(self.hangs)
            raise Unavailable("etcd does not answer")
        return list(self.nodes.values())

    async def ask(self, member: Member, seconds: float) -> Any:
        self.asked.append(member.node)
        said = self.answers[member.node]
        if said is None:
            await asyncio.sleep(seconds)
            raise CallTimeout("converged", seconds)
        if isinstance(said, Exception):
            raise said
        if said["waiting_for"]:
            await asyncio.sleep(seconds)
        return said

    async def settled(self, timeout: float = 10.0) -> dict[str, Outcome]:
        return await settled(self.members, self.ask, VERSION, timeout)


async def test_nodes_that_took_it_are_asked_once() -> None:
    cluster = Cluster("a", "b")
    cluster.answers["b"] = answer(applied=9, converged=8)
    outcomes = await cluster.settled()
    assert {node: outcome.settling for node, outcome in outcomes.items()} == {
        "a": Settling.CONVERGED,
        "b": Settling.CONVERGED,
    }
    assert sorted(cluster.asked) == ["a", "b"]


async def test_what_fails_because_of_this_version_is_told_apart_from_what_failed_before() -> None:
    cluster = Cluster("a", "b")
    cluster.answers["a"] = answer(new=VERSION, old=3)
    cluster.answers["b"] = answer(old=3)
    outcomes = await cluster.settled()
    assert outcomes["a"].settling is Settling.DEGRADED
    assert [each.entry for each in outcomes["a"].degraded] == ["app:new"]
    assert [each.entry for each in outcomes["a"].degraded_before] == ["app:old"]
    assert outcomes["b"].settling is Settling.CONVERGED


@virtually
async def test_a_slow_node_is_late_with_what_it_waits_for_and_costs_no_more_than_the_time_given() -> None:
    cluster = Cluster("a", "b")
    cluster.answers["b"] = answer(6, 6, "version 7 of the registry")
    began = asyncio.get_running_loop().time()
    outcomes = await cluster.settled(3.0)
    assert asyncio.get_running_loop().time() - began < 4.5
    late = outcomes["b"]
    assert (late.settling, late.applied, late.reason) == (Settling.LATE, 6, "version 7 of the registry")
    assert outcomes["a"].settling is Settling.CONVERGED


@virtually
async def test_a_node_that_dies_meanwhile_is_gone_and_nobody_waits_longer() -> None:
    cluster = Cluster("a", "b")
    cluster.answers["b"] = None

    async def die() -> None:
        await asyncio.sleep(2)
        del cluster.nodes["b"]

    dying = asyncio.ensure_future(die())
    began = asyncio.get_running_loop().time()
    outcomes = await cluster.settled(60.0)
    assert asyncio.get_running_loop().time() - began < 5
    assert (outcomes["b"].settling, outcomes["b"].reason) == (Settling.GONE, "its registration ended")
    await dying


@virtually
async def test_a_node_that_becomes_ready_meanwhile_is_waited_for_and_a_joining_one_is_not() -> None:
    cluster = Cluster("a", "b", "c")
    cluster.answers["a"] = answer(6, 6, "version 7 of the registry")
    cluster.nodes["b"] = cluster.member("b", NodeState.JOINING)
    cluster.nodes["c"] = cluster.member("c", NodeState.JOINING)

    async def go_on() -> None:
        await asyncio.sleep(1.5)
        cluster.nodes["b"] = cluster.member("b")
        cluster.answers["a"] = answer()

    going = asyncio.ensure_future(go_on())
    outcomes = await cluster.settled()
    assert {node: (each.settling, each.joined) for node, each in outcomes.items()} == {
        "a": (Settling.CONVERGED, False),
        "b": (Settling.CONVERGED, True),
    }
    await going


@virtually
async def test_a_node_that_comes_back_under_its_name_is_asked_anew() -> None:
    cluster = Cluster("a")
    cluster.answers["a"] = Unavailable("no responders")

    async def come_back() -> None:
        await asyncio.sleep(1)
        cluster.answers["a"] = answer()

    coming = asyncio.ensure_future(come_back())
    assert (await cluster.settled())["a"].settling is Settling.CONVERGED
    await coming


@virtually
async def test_etcd_may_be_away_while_nodes_are_waited_for() -> None:
    cluster = Cluster("a", "b")
    cluster.answers["b"] = answer(6, 6, "version 7 of the registry")
    cluster.without_etcd = range(2, 5)

    async def go_on() -> None:
        await asyncio.sleep(2.5)
        cluster.answers["b"] = answer()

    going = asyncio.ensure_future(go_on())
    assert {each.settling for each in (await cluster.settled()).values()} == {Settling.CONVERGED}
    assert cluster.reads > 2
    await going


async def test_without_nodes_there_is_nothing_to_wait_for() -> None:
    assert await Cluster().settled() == {}


async def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout > 0"):
        await Cluster().settled(0.0)


@virtually
async def test_a_node_that_is_through_is_told_at_once_whatever_another_does() -> None:
    cluster = Cluster("a", "b")
    cluster.answers["b"] = None
    now, told = asyncio.get_running_loop().time, {}
    began = now()
    await settled(
        cluster.members, cluster.ask, VERSION, 3.0, lambda outcome: told.update({outcome.node: now() - began})
    )
    assert list(told) == ["a"]
    assert told["a"] < 0.1


@virtually
async def test_etcd_that_hangs_does_not_take_longer_than_the_time_given() -> None:
    cluster = Cluster("a")
    cluster.answers["a"] = answer(6, 6, "version 7 of the registry")
    cluster.without_etcd, cluster.hangs = range(2, 99), 5.0
    began = asyncio.get_running_loop().time()
    assert (await cluster.settled(2.0))["a"].settling is Settling.LATE
    assert asyncio.get_running_loop().time() - began < 3.0
