"""A node that has come gets its share of what was there before, once, and nothing ever goes back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.drain import Care, Process
from cluster.rebalancing import AT_ONCE, LACKING, LEAST, PATIENCE, Give, Rebalancing

SETTLE = 30.0


def processes(number: int, started: float = 0.0) -> list[Process]:
    return [Process(f"p{n}", migratable=True, started=started) for n in range(number)]


def with_newcomer(at: float = 100.0) -> Rebalancing:
    """``n1``, to which ``n3`` has come when ``n2`` was there already."""
    core = Rebalancing("n1", SETTLE)
    core.ready_are(["n2"], 0.0)
    core.ready_are(["n1", "n2"], 1.0)
    core.ready_are(["n1", "n2", "n3"], at)
    return core


def test_only_who_became_ready_later_is_a_newcomer_and_only_after_a_while() -> None:
    core = with_newcomer()
    assert list(core.due(129.9)) == []
    assert list(core.due(130.0)) == ["n3"]
    assert core.decide({"n1": 60, "n2": 60, "n3": 0}, processes(60), 129.9) == []


def test_one_that_goes_away_meanwhile_begins_anew() -> None:
    core = with_newcomer()
    core.ready_are(["n1", "n2"], 110.0)
    core.ready_are(["n1", "n2", "n3"], 120.0)
    assert list(core.due(140.0)) == []
    assert list(core.due(150.0)) == ["n3"]


def test_a_node_that_is_not_ready_itself_gives_nothing_and_is_then_the_newcomer() -> None:
    core = with_newcomer()
    core.ready_are(["n2", "n3"], 140.0)
    core.ready_are(["n1", "n2", "n3"], 141.0)
    assert list(core.due(300.0)) == []


def test_it_gives_what_it_has_beyond_the_average_some_at_a_time() -> None:
    core = with_newcomer()
    gives = core.decide({"n1": 60, "n2": 60, "n3": 0}, processes(60), 130.0)
    assert gives == [Give(f"p{n}", "n3") for n in range(AT_ONCE)]
    assert len(core.decide({"n1": 42, "n2": 42, "n3": 36}, processes(42), 131.0)) == 2
    assert core.decide({"n1": 40, "n2": 42, "n3": 38}, processes(40), 132.0) == []
    assert list(core.due(132.0)) == [], "it is done"


@pytest.mark.parametrize(
    ("loads", "gives"),
    [
        ({"n1": 60, "n2": 60, "n3": 60}, False),
        ({"n1": 14, "n2": 14, "n3": 0}, False),
        ({"n1": 16, "n2": 16, "n3": 0}, True),
        ({"n1": 110, "n2": 110, "n3": 81}, False),
        ({"n1": 110, "n2": 110, "n3": 75}, True),
        ({"n1": 30, "n2": 200, "n3": 10}, False),
    ],
)
def test_the_newcomer_must_lack_enough_and_the_giver_have_more_than_its_share(
    loads: dict[str, int], gives: bool
) -> None:
    core = with_newcomer()
    assert bool(core.decide(loads, processes(loads["n1"]), 130.0)) is gives


@pytest.mark.parametrize(
    "process",
    [
        Process("p", migratable=True, started=100.5),
        Process("p"),
        Process("p", migratable=True, is_busy=True),
        Process("p", migratable=True, care=Care.ELSEWHERE),
        Process("p", migratable=True, care=Care.SERVICE, able=frozenset({"n2"})),
    ],
)
def test_what_started_later_or_can_not_go_there_stays(process: Process) -> None:
    core = with_newcomer()
    assert core.decide({"n1": 60, "n2": 60, "n3": 0}, [process], 130.0) == []


def test_the_process_of_a_service_goes_where_the_service_may() -> None:
    core = with_newcomer()
    service = Process("p", migratable=True, care=Care.SERVICE, able=frozenset({"n3"}))
    assert core.decide({"n1": 60, "n2": 60, "n3": 0}, [service], 130.0) == [Give("p", "n3")]


def test_one_that_was_refused_is_not_offered_again() -> None:
    core = with_newcomer()
    for give in core.decide({"n1": 60, "n2": 60, "n3": 0}, processes(5), 130.0):
        core.refused(give)
    assert core.decide({"n1": 60, "n2": 60, "n3": 0}, processes(5), 131.0) == [Give("p4", "n3")]
    core.refused(Give("p4", "nobody"))


def test_a_newcomer_whose_load_is_not_known_waits_and_not_for_ever() -> None:
    core = with_newcomer()
    assert core.decide({"n1": 60, "n2": 60}, processes(60), 130.0) == []
    assert list(core.due(131.0)) == ["n3"]
    assert list(core.due(100.0 + SETTLE + PATIENCE + 1)) == []


@dataclass
class Node:
    core: Rebalancing
    has: dict[str, Process] = field(default_factory=dict)


@settings(max_examples=150, deadline=None)
@given(
    counts=st.lists(st.integers(0, 120), min_size=1, max_size=5),
    came=st.lists(st.floats(0, 120), min_size=1, max_size=4),
    immovable=st.integers(0, 30),
    late=st.integers(0, 20),
    stale=st.booleans(),
)
def test_it_settles_whatever_there_was(
    counts: list[int], came: list[float], immovable: int, late: int, stale: bool
) -> None:
    """Nodes decide at the same time, by loads of the round before when ``stale``; newcomers come at any time."""
    nodes: dict[str, Node] = {}
    ready: list[str] = []
    ready_at: dict[str, float] = {}

    def join(name: str, now: float) -> None:
        ready_at[name] = now
        nodes[name] = Node(Rebalancing(name, SETTLE))
        ready.append(name)
        for one, node in nodes.items():
            if one == name:
                node.core.ready_are(ready[:-1], now)
            node.core.ready_are(ready, now)

    for number, count in enumerate(counts):
        join(f"old{number}", 0.0)
        for n in range(count):
            pid = f"old{number}/{n}"
            nodes[f"old{number}"].has[pid] = Process(pid, migratable=n >= immovable, started=-1.0)
    been: dict[str, list[str]] = {}
    arrivals = sorted(enumerate(came), key=lambda each: each[1])
    last, quiet = 0.0, 0
    loads_before: dict[str, int] = {}
    for second in range(2000):
        now = float(second)
        while arrivals and arrivals[0][1] <= now:
            number, _ = arrivals.pop(0)
            join(f"new{number}", now)
            last = now
            for n in range(late):
                pid = f"new{number}/late{n}"
                nodes["old0"].has[pid] = Process(pid, migratable=True, started=now + 0.5)
        loads = {name: len(node.has) for name, node in nodes.items()}
        seen = {**loads, **loads_before} if stale else loads
        loads_before = loads
        gives = {
            name: node.core.decide({**seen, name: loads[name]}, list(node.has.values()), now)
            for name, node in nodes.items()
        }
        assert all(len(given) <= AT_ONCE for given in gives.values())
        for name, given_away in gives.items():
            for give in given_away:
                process = nodes[name].has.pop(give.pid)
                been.setdefault(give.pid, [name]).append(give.to)
                nodes[give.to].has[give.pid] = replace(process)
        quiet = 0 if any(gives.values()) else quiet + 1
        if not arrivals and now > last + SETTLE + 1 and quiet > 2:
            break
    else:
        raise AssertionError("it never ends")
    for pid, places in been.items():
        assert len(set(places)) == len(places), f"{pid} went back: {places}"
        assert [ready.index(place) for place in places] == sorted(ready.index(place) for place in places)
        started = nodes[places[-1]].has[pid].started
        assert all(started < ready_at[place] for place in places[1:]), f"{pid} had a choice when it started"
    mean = sum(len(node.has) for node in nodes.values()) / len(nodes)
    if not immovable and not late and not stale and len(came) == 1:
        newcomer = nodes["new0"]
        assert mean - len(newcomer.has) <= max(LEAST, LACKING * mean) + len(nodes)
