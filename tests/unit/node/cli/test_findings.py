"""What the doctor finds, from what was seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.client import NatsSeen
from cluster.etcd import LeaseInfo, Status
from cluster.members import Member, NodeState
from node.cli.findings import EtcdSeen, Finding, Level, NodeSeen, Sight, examine, version_tuple

ETCD = EtcdSeen(Status("3.5.21", 20_000_000, 9, 3, 18_000_000), 0.002)
NATS = NatsSeen("2.11.0", 1024 * 1024, 0.001, True)


def member(node: str, state: NodeState = NodeState.READY, version: str = "1.0", **capability: int) -> Member:
    return Member(node, 5, 5, 7, 1, state, {}, version, capability, "", "")


def seen(offset: float = 0.0, version: int = 4, **health: Any) -> NodeSeen:
    told = {"converged_version": version, "degraded": [], "unready": [], "processes": 3}
    return NodeSeen(told | health, offset, 0.002)


HEALTHY = Sight(
    "shop",
    ETCD,
    NATS,
    [member("a"), member("b")],
    4,
    {"a": LeaseInfo(7, 4, 5, []), "b": LeaseInfo(8, 5, 5, [])},
    {"a": seen(), "b": seen(0.01)},
    {},
    "1.0",
    {"a": [{"service": "app:till", "node": "a", "state": "running", "restarts": 0, "last_error": None}]},
)


def troubles(**changes: Any) -> list[Finding]:
    """What is not ok when the healthy sight is changed so."""
    return [each for each in examine(replace(HEALTHY, **changes)) if each.level is not Level.OK]


def one(**changes: Any) -> Finding:
    (found,) = troubles(**changes)
    return found


def test_a_healthy_cluster_has_nothing_but_oks() -> None:
    found = examine(HEALTHY)
    assert {each.level for each in found} == {Level.OK}
    assert {each.check for each in found} == {
        "etcd",
        "etcd room",
        "NATS",
        "nodes",
        "leases",
        "clocks",
        "versions",
        "registry",
        "services",
    }


class TestMissingNodes:
    def test_fewer_than_are_expected_are_a_warning_with_how_many_of_how_many(self) -> None:
        found = one(nodes={"a": seen(expected_nodes=3), "b": seen(expected_nodes=3)})
        assert (found.level, found.check) == (Level.WARN, "nodes")
        assert found.says == "2 of 3 nodes are registered; the others were lost or never started"
        assert "wippy run --node NAME" in found.remedy

    @pytest.mark.parametrize("expected", [1, 2])
    def test_as_many_as_are_expected_or_more_are_fine(self, expected: int) -> None:
        assert not troubles(nodes={"a": seen(expected_nodes=expected), "b": seen()})


def test_of_a_draining_node_it_names_both_ways_back() -> None:
    found = one(members=[member("a"), member("b", NodeState.DRAINING)])
    assert found.says == "b is draining: it gets no new work"
    assert "`wippy uncordon b`" in found.remedy


def test_of_a_cordoned_node_it_names_the_verb_that_ends_that() -> None:
    found = one(members=[member("a"), member("b", NodeState.CORDONED)])
    assert found.says == "b is cordoned: it gets no new work"
    assert "`wippy uncordon b`" in found.remedy


class TestServices:
    @staticmethod
    def told(state: str, error: str | None, node: str = "a") -> dict[str, Any]:
        return {"service": "app:till", "node": node, "state": state, "restarts": 4, "last_error": error}

    def test_one_that_fails_again_and_again_is_a_warning_with_its_error(self) -> None:
        found = one(services={"a": [self.told("starting", "no store\nstack")], "b": []})
        assert (found.level, found.check) == (Level.WARN, "services")
        assert found.says == "app:till on a failed and is started again (restarts: 4): no store"
        assert "wippy registry rollback" in found.remedy

    @pytest.mark.parametrize("state", ["failed", "exited"])
    def test_one_that_was_given_up_has_failed(self, state: str) -> None:
        found = one(services={"a": [self.told(state, "no store")]})
        assert found.level is Level.FAIL
        assert "app:till on a does not run any more: no store" in found.says

    @pytest.mark.parametrize(
        "told", [("running", "an old error"), ("exited", None), ("starting", None), ("failed", "gone", "b")]
    )
    def test_what_runs_or_is_done_and_what_others_know_of_a_node_is_fine(self, told: tuple[Any, ...]) -> None:
        assert troubles(services={"a": [self.told(*told)]}) == []

    def test_what_no_node_has_is_told_once_with_the_reason(self) -> None:
        nowhere = {"service": "app:till", "replica": 1, "node": "", "state": "unplaced", "why": "no such node"}
        bad = {**nowhere, "service": "app:bad", "replica": 0, "state": "quarantined", "why": "it hung"}
        first, second = troubles(services={"a": [nowhere, bad], "b": [nowhere, bad]})
        assert (first.level, first.says) == (Level.FAIL, "app:bad runs nowhere: it hung")
        assert (second.level, second.says) == (Level.WARN, "app:till (replica 1) runs nowhere: no such node")
        taken = {**self.told("running", None, "b"), "replica": 1}
        assert [each.level for each in troubles(services={"a": [nowhere], "b": [taken]})] == []


class TestServers:
    def test_etcd_that_can_not_be_reached_is_told_with_the_reason(self) -> None:
        found = troubles(etcd="no connection to etcd at x", members="no connection", nodes={}, leases={})
        assert [(each.level, each.check) for each in found] == [(Level.FAIL, "etcd"), (Level.FAIL, "nodes")]
        assert found[0].says == "no connection to etcd at x"
        assert "--etcd" in found[0].remedy

    def test_nats_that_can_not_be_reached_explains_the_silent_nodes(self) -> None:
        silent = {"a": "can't connect", "b": "can't connect"}
        found = troubles(nats="can't connect to NATS at x", nodes={}, silent=silent)
        assert [each.check for each in found] == ["NATS", "nodes", "nodes"]
        assert {each.remedy for each in found[1:]} == {"make NATS answer first"}

    @pytest.mark.parametrize(("etcd", "nats"), [(0.3, 0.0), (0.0, 0.3)])
    def test_slow_ones_are_a_warning(self, etcd: float, nats: float) -> None:
        found = one(etcd=replace(ETCD, seconds=etcd), nats=replace(NATS, seconds=nats))
        assert found.level is Level.WARN
        assert "slow" in found.says

    @pytest.mark.parametrize(
        ("version", "members", "level"),
        [
            ("3.3.27", 1, Level.FAIL),
            ("3.5.1", 3, Level.FAIL),
            ("3.5.1", 1, None),
            ("3.5.9", 3, Level.WARN),
            ("3.5.9", 1, None),
            ("3.4.30", 3, None),
            ("3.5.13", 3, None),
            ("3.6.0-rc.1", 3, None),
        ],
    )
    def test_versions_of_etcd_with_known_faults(self, version: str, members: int, level: Level | None) -> None:
        status = replace(ETCD.status, version=version, members=members)
        found = troubles(etcd=replace(ETCD, status=status))
        assert [each.level for each in found] == ([level] if level else [])

    def test_an_alarm_fails_and_little_room_warns(self) -> None:
        trouble = ("etcd is full",)
        full = replace(ETCD, status=replace(ETCD.status, alarms=("NOSPACE",)), troubles=trouble)
        assert one(etcd=full) == Finding(Level.FAIL, "etcd room", "etcd is full")
        assert one(etcd=replace(ETCD, troubles=trouble)).level is Level.WARN

    def test_a_nats_that_takes_small_messages_only_fails(self) -> None:
        assert "max_payload" in one(nats=replace(NATS, max_payload=65536)).remedy

    def test_jetstream_is_said_and_may_be_off(self) -> None:
        for jetstream, says in ((True, "with JetStream"), (False, "without"), (None, "unknown")):
            found = examine(replace(HEALTHY, nats=replace(NATS, jetstream=jetstream)))
            assert [each.level for each in found if says in each.says] == [Level.OK]


class TestNodes:
    def test_none_at_all_fails(self) -> None:
        assert one(members=[], nodes={}, leases={}).says == "cluster 'shop' has no nodes"

    def test_a_silent_one_fails_with_its_reason(self) -> None:
        found = one(nodes={"a": seen()}, silent={"b": "no answer within 3 s"})
        assert (found.level, found.says) == (Level.FAIL, "b is ready but does not answer: no answer within 3 s")
        assert "--node b" in found.remedy

    @pytest.mark.parametrize("state", [NodeState.JOINING, NodeState.CORDONED, NodeState.DRAINING])
    def test_one_that_takes_no_work_is_a_warning(self, state: NodeState) -> None:
        found = one(
            members=[member("a"), member("b", state)],
            nodes={"a": seen(), "b": seen(unready=[f"node is {state.value}"])},
        )
        assert (found.level, state.value in found.says) == (Level.WARN, True)

    def test_one_that_is_not_well_fails_with_what_it_says(self) -> None:
        found = one(nodes={"a": seen(), "b": seen(unready=["VM of app:processes is gone"])})
        assert found.says == "b is ready: VM of app:processes is gone"


class TestLeases:
    def test_one_that_was_not_renewed_for_long_is_a_warning(self) -> None:
        found = one(leases={"a": LeaseInfo(7, 1, 5, []), "b": LeaseInfo(8, 5, 5, [])})
        assert found.says == "a has not renewed its lease of 5 s for 4 s"

    def test_one_that_ended_is_a_warning(self) -> None:
        assert "has ended" in one(leases={"a": LeaseInfo(7, -1, 0, []), "b": LeaseInfo(8, 5, 5, [])}).says

    def test_different_ttls_are_a_warning(self) -> None:
        found = one(leases={"a": LeaseInfo(7, 5, 5, []), "b": LeaseInfo(8, 10, 10, [])})
        assert "5 s, 10 s" in found.says


class TestClocks:
    def test_nodes_that_disagree_are_named(self) -> None:
        found = one(nodes={"a": seen(-1.0), "b": seen(1.5)})
        assert (found.level, found.says) == (Level.WARN, "the clock of b is 2.5 s ahead of that of a")

    def test_what_can_not_be_known_is_no_trouble(self) -> None:
        slow = replace(seen(2.0), error=2.5)
        assert troubles(nodes={"a": seen(), "b": slow}) == []

    def test_this_machine_may_be_the_one_that_is_wrong(self) -> None:
        assert "this machine's differs by 30.0 s" in one(nodes={"a": seen(30.0), "b": seen(30.0)}).says


class TestVersions:
    def test_nodes_of_different_versions_are_grouped(self) -> None:
        found = one(members=[member("a"), member("b", version="1.1")])
        assert "(1.0: a; 1.1: b)" in found.says

    def test_another_version_than_ours_is_a_warning(self) -> None:
        assert one(version="2.0").says == "the nodes run wippy 1.0, this is 2.0"

    def test_kinds_that_not_all_understand_name_the_node_that_is_behind(self) -> None:
        found = one(members=[member("a", **{"queue.driver": 2}), member("b", **{"queue.driver": 1})])
        assert (found.says, found.remedy) == (
            "entries of kind queue.driver are not understood on b as on the other nodes",
            "update b",
        )


class TestRegistry:
    def test_one_that_is_behind_is_a_warning(self) -> None:
        found = one(nodes={"a": seen(), "b": seen(version=2)})
        assert (found.level, found.says) == (Level.WARN, "b is at v2, the registry at v4")

    def test_a_degraded_entry_fails_with_node_entry_version_and_reason(self) -> None:
        broken = {"handler": "stores", "entry": "app:s", "version": 3, "reason": "disk full"}
        found = one(nodes={"a": seen(), "b": seen(degraded=[broken])})
        assert (found.level, found.says) == (Level.FAIL, "b could not apply app:s of v3: disk full")

    def test_an_empty_one_is_a_warning(self) -> None:
        assert "nothing was ever published" in one(head=None).says


@pytest.mark.parametrize(
    ("text", "number"), [("3.5.13", (3, 5, 13)), ("3.6.0-rc.1", (3, 6, 0)), ("x", (0,)), ("", (0,))]
)
def test_versions_are_compared_as_numbers(text: str, number: tuple[int, ...]) -> None:
    assert version_tuple(text) == number
