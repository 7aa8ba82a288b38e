"""Schedules are drawn within their measures, each from its seed; whatever was done is undone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.checking.history import SECOND
from tests.chaos.checking.troubles import Trouble, Troubles, What
from tests.chaos.nemesis import SERVERS, Fault, Kind, Measures, Nemesis, draw
from tests.chaos.proxy import Proxy

NODES = ("n1", "n2", "n3")


@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=100, deadline=None)
def test_a_schedule_keeps_to_its_measures_and_is_that_of_its_seed(
    seed: int, turns: int, two: float, long: float
) -> None:
    measures = Measures(share_two=two, share_long=long)
    schedule = draw(seed, NODES, turns, measures)
    assert schedule == draw(seed, NODES, turns, measures)
    assert len(schedule) == turns
    for turn in schedule:
        targets = [(fault.node, fault.kind in SERVERS) for fault in turn]
        assert 1 <= len(turn) <= 2
        assert len(set(targets)) == len(targets), "two faults of one target at once undo each other"
    for fault in (fault for turn in schedule for fault in turn):
        assert (fault.node == "") == (fault.kind in SERVERS)
        assert fault.node in (*NODES, "")
        assert 0 < fault.seconds <= measures.long[1]
        assert measures.pause[0] <= fault.pause <= measures.pause[1]


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_one_of_each_kind_comes_before_any_comes_again(seed: int) -> None:
    drawn = Counter(fault.kind for turn in draw(seed, NODES, len(Kind), Measures()) for fault in turn)
    assert drawn == Counter(Kind)


def test_the_longest_trouble_is_that_of_troubles_that_touch() -> None:
    spans = [("n1", What.NATS, 1, 4), ("n1", What.STOPPED, 3, 6), ("n2", What.NATS, 6, 8), ("n1", What.NATS, 9, 10)]
    troubles = Troubles([Trouble(node, what, a * SECOND, b * SECOND) for node, what, a, b in spans])
    assert troubles.longest() == 7
    assert troubles.longest("n1", What.NATS) == 3
    assert troubles.longest("n1", What.NATS, What.STOPPED) == 5
    assert troubles.longest("n3", What.NATS) == 0
    assert troubles.of_between("n1", 7 * SECOND, 20 * SECOND, What.NATS, What.STOPPED) == [troubles.every[3]]


class Puppets:
    """A cluster that only says what is done to it."""

    nodes = NODES

    def __init__(self) -> None:
        self.done: list[str] = []
        self.troubles = Troubles()
        self.nats_ways = {node: Way(f"NATS {node}", self.done) for node in NODES}
        self.etcd_ways = {node: Way(f"etcd {node}", self.done) for node in NODES}

    async def kill(self, node: str) -> None:
        self.done.append(f"kill {node}")

    async def start(self, node: str) -> None:
        self.done.append(f"start {node}")

    def stop(self, node: str) -> None:
        self.done.append(f"stop {node}")

    def go_on(self, node: str) -> None:
        self.done.append(f"go on {node}")

    async def kill_server(self, kind: Kind) -> None:
        self.done.append(f"kill {kind.name}")

    async def start_server(self, kind: Kind) -> None:
        self.done.append(f"start {kind.name}")


class Way(Proxy):
    """A proxy that says what is done to it."""

    def __init__(self, name: str, done: list[str]) -> None:
        super().__init__(0)
        self._name, self._done = name, done

    async def mend(self) -> None:
        self._done.append(f"mend {self._name}")

    async def cut(self) -> None:
        self._done.append(f"cut {self._name}")

    def hold(self, *ways: object) -> None:
        self._done.append(f"hold {self._name}")

    def slow(self, *how: object) -> None:
        self._done.append(f"slow {self._name}")


@pytest.mark.parametrize(
    ("kind", "done", "whats"),
    [
        (Kind.KILL, ["kill n1", "start n1"], {What.DEAD}),
        (Kind.PAUSE, ["stop n1", "go on n1"], {What.STOPPED}),
        (Kind.CUT_NATS, ["cut NATS n1", "mend NATS n1"], {What.NATS}),
        (Kind.DEAF, ["hold NATS n1", "mend NATS n1"], {What.NATS}),
        (Kind.HOLD_ETCD, ["hold etcd n1", "mend etcd n1"], {What.ETCD}),
        (Kind.CUT_BOTH, ["cut NATS n1", "cut etcd n1", "mend etcd n1", "mend NATS n1"], {What.NATS, What.ETCD}),
        (Kind.SLOW, ["slow NATS n1", "slow etcd n1", "mend etcd n1", "mend NATS n1"], {What.SLOW}),
    ],
)
async def test_a_fault_is_done_and_undone_and_is_trouble_for_its_node(
    kind: Kind, done: list[str], whats: set[What]
) -> None:
    puppets = Puppets()
    await Nemesis(puppets, 1).perform([(Fault(kind, "n1", 0.01, 0.01),)])
    assert puppets.done == done
    assert {(one.node, one.what) for one in puppets.troubles.every} == {("n1", what) for what in whats}
    assert all(one.end - one.begin >= 0.01 * SECOND for one in puppets.troubles.every)


async def test_a_server_that_restarts_is_trouble_for_all() -> None:
    puppets = Puppets()
    await Nemesis(puppets, 1).perform([(Fault(Kind.RESTART_NATS, "", 0.01, 0.01),)])
    assert puppets.done == ["kill RESTART_NATS", "start RESTART_NATS"]
    assert {(one.node, one.what) for one in puppets.troubles.every} == {(node, What.NATS) for node in NODES}


async def test_a_fault_that_fails_half_way_is_undone() -> None:
    puppets = Puppets()

    async def fails() -> None:
        raise OSError("no way")

    puppets.etcd_ways["n1"].cut = fails  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup):
        await Nemesis(puppets, 1).perform([(Fault(Kind.CUT_BOTH, "n1", 0.01, 0.01),)])
    assert puppets.done == ["cut NATS n1", "mend etcd n1", "mend NATS n1"]
