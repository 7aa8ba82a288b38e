"""What a ``process.supervisor`` entry may say, and what it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import Invalid
from cluster.registry import Entry
from cluster.supervision import AutoShutdown, Restart, Strategy
from node.kinds import decode
from node.kinds.check import check_state
from node.trees import Definitions

PROCESS = Entry("app:p", "process.lua", {}, {"source": "return { main = function() end }", "method": "main"})
HOST = Entry("app:h", "process.host", {}, {"host": {}})
CHILD = {"id": "a", "process": "p", "host": "h"}
TEMPLATE = {"process": "p", "host": "h"}


def entry(data: dict[str, Any], id: str = "app:s") -> Entry:
    return Entry(id, "process.supervisor", {}, data)


def no_env(name: str) -> None:
    return None


def problems(data: dict[str, Any], *others: Entry) -> list[str]:
    return [f"{one.field}: {one.message}" for one in check_state([entry(data), PROCESS, HOST, *others])]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"strategy": "dynamic"}, "strategy dynamic needs a template"),
        ({"strategy": "dynamic", "template": TEMPLATE, "children": [CHILD]}, "strategy dynamic needs a template"),
        ({"template": TEMPLATE}, "template needs strategy: dynamic, got one_for_one"),
        ({"lifecycle": {"handover": "start-first"}}, "start-first is for process.service"),
        ({"children": [CHILD, CHILD]}, "two children are named 'a'"),
        ({"children": [CHILD | {"shutdown": "soon"}]}, "expected kill, infinity or a duration such as 5s, got 'soon'"),
        ({"children": [CHILD | {"shutdown": "0s"}]}, "expected a time above 0, or kill"),
        ({"children": [CHILD | {"significant": True}]}, "a permanent child never ends for good"),
        (
            {"children": [CHILD | {"significant": True, "restart": "temporary"}]},
            "significant children need auto_shutdown",
        ),
        ({"children": [CHILD | {"node": "n1", "labels": {"a": "b"}}]}, "expected labels or the name of a node"),
        ({"children": [CHILD | {"node": "local", "labels": {"a": "b"}}]}, "leave out node, or labels"),
        ({"children": [CHILD | {"restart": "sometimes"}]}, "'permanent', 'transient' or 'temporary'"),
        ({"intensity": -1}, "expected at least 0"),
        ({"backoff": {"initial_delay": "5s", "max_delay": "1s"}}, "expected max_delay to be at least initial_delay"),
    ],
)
def test_what_makes_no_sense_is_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        decode(entry(data), no_env)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"children": [CHILD | {"process": "q"}]}, "children.0.process: there is no entry app:q"),
        ({"children": [CHILD | {"process": "h"}]}, "children.0.process: app:h is of kind process.host"),
        ({"children": [CHILD | {"host": "p"}]}, "children.0.host: app:p is of kind process.lua"),
        ({"children": [{"id": "a", "process": "p"}]}, "children.0.host: is required and missing"),
        ({"children": [CHILD | {"process": "t"}]}, "children.0.host: a supervisor runs on no host"),
        ({"children": [{"id": "a", "process": "s"}]}, "in a circle: app:s"),
        ({"strategy": "dynamic", "template": {"process": "q"}}, "template.process: there is no entry app:q"),
    ],
)
def test_what_leads_nowhere_is_refused(data: dict[str, Any], said: str) -> None:
    found = problems(data, entry({}, "app:t"))
    assert any(said in problem for problem in found), found


def test_a_sound_tree_has_no_problems() -> None:
    assert problems({"children": [CHILD, {"id": "t", "process": "t"}]}, entry({}, "app:t")) == []


def test_an_entry_becomes_what_the_core_takes() -> None:
    data = {
        "strategy": "rest_for_one",
        "intensity": 7,
        "period": "1m",
        "auto_shutdown": "any_significant",
        "backoff": {"initial_delay": "1s"},
        "children": [
            CHILD | {"restart": "transient", "significant": True, "labels": {"zone": "x"}, "input": [1]},
            CHILD | {"id": "b", "shutdown": "kill"},
            {"id": "c", "process": "s"},
        ],
    }
    entries = {one.id: one for one in (entry(data), PROCESS, HOST)}
    made = Definitions(entries.get, no_env).of("app:s")
    assert (made.spec.strategy, made.spec.intensity, made.spec.period) == (Strategy.REST_FOR_ONE, 7, 60.0)
    assert (made.spec.auto_shutdown, made.spec.backoff.initial_delay) == (AutoShutdown.ANY_SIGNIFICANT, 1.0)
    a, b, c = made.children
    assert (a.restart, a.significant, a.shutdown) == (Restart.TRANSIENT, True, 5.0)
    assert (a.work.process, a.work.host, a.work.labels, a.work.input) == ("app:p", "app:h", (("zone", "x"),), [1])
    assert (b.shutdown, c.shutdown, c.is_supervisor, c.work.host) == (0.0, None, True, "")
    assert made.is_spread
    assert not made.allows_duplicates


@pytest.mark.parametrize("id", ["app:nothing", "app:p"])
def test_only_supervisors_supervise(id: str) -> None:
    with pytest.raises(Invalid, match=r"no such entry|process\.lua"):
        Definitions({"app:p": PROCESS}.get, no_env).of(id)
