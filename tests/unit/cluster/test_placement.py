"""Placement: which replicas a node claims, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.claims import Claim
from cluster.members import Member, NodeState
from cluster.placement import (
    Barred,
    DropClaim,
    MakeClaim,
    Mode,
    Placement,
    Plan,
    Service,
    eligible,
    others,
    ranking,
    successors,
    weight,
)


def member(node: str, state: NodeState = NodeState.READY, **labels: str) -> Member:
    return Member(node, 1, 1, 1, 1, state, labels, "", {}, "", "")


def claim(service: str, replica: int, node: str) -> Claim:
    return Claim(service, replica, node, token=100 + replica, lease=1)


NODES = ["a", "b", "c"]
MEMBERS = [member(node) for node in NODES]


class TestRanking:
    def test_the_weight_is_the_same_in_every_version(self) -> None:
        assert weight("app:counter", 0, "node-1") == 10992134897128430268
        assert ranking("app:counter", 0, NODES) == ranking("app:counter", 0, reversed(NODES))

    @given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=8), st.integers(0, 9))
    def test_a_node_that_leaves_does_not_change_the_order_of_the_others(self, nodes: set[str], replica: int) -> None:
        whole = ranking("s", replica, nodes)
        for gone in nodes:
            assert ranking("s", replica, nodes - {gone}) == [node for node in whole if node != gone]

    def test_services_spread_over_the_nodes(self) -> None:
        firsts = [ranking(f"app:service-{n}", 0, NODES)[0] for n in range(300)]
        assert all(70 <= firsts.count(node) <= 130 for node in NODES)


class TestEligible:
    def test_only_ready_nodes_take_new_work(self) -> None:
        service = Service("s")
        assert [state for state in NodeState if eligible(service, member("a", state))] == [NodeState.READY]

    def test_all_labels_must_match(self) -> None:
        service = Service("s", labels={"zone": "x", "disk": "ssd"})
        assert eligible(service, member("a", zone="x", disk="ssd", more="1"))
        assert not eligible(service, member("a", zone="x"))
        assert not eligible(service, member("a", zone="y", disk="ssd"))


class TestDecide:
    def plans(self, service: Service, now: float = 0.0) -> dict[str, Plan]:
        return {node: Placement(node).decide([service], MEMBERS, [], now) for node in NODES}

    def test_the_first_in_rank_claims_at_once_and_the_others_wait_their_turn(self) -> None:
        plans = self.plans(Service("s"), now=7.0)
        first, second, third = ranking("s", 0, NODES)
        assert plans[first] == Plan([MakeClaim("s", 0)], None)
        assert plans[second] == Plan([], 9.0)
        assert plans[third] == Plan([], 11.0)

    def test_the_next_in_rank_claims_when_the_first_does_not(self) -> None:
        for held, step in (([], 2.0), ([claim("s", 0, "gone")], 0.5)):
            second = ranking("s", 0, NODES)[1]
            placement = Placement(second)
            placement.decide([Service("s")], MEMBERS, held, 9.0)
            placement.decide([Service("s")], MEMBERS, [], began := 10.0 if held else 9.0)
            assert placement.decide([Service("s")], MEMBERS, [], began + step - 0.1).actions == []
            assert placement.decide([Service("s")], MEMBERS, [], began + step).actions == [MakeClaim("s", 0)]

    def test_a_live_claim_is_never_overridden(self) -> None:
        for node in NODES:
            placement = Placement(node)
            assert placement.decide([Service("s")], MEMBERS, [claim("s", 0, "gone")], 0.0) == Plan([], None)
            assert placement.decide([Service("s")], MEMBERS, [claim("s", 0, "gone")], 99.0) == Plan([], None)

    def test_the_waiting_begins_when_the_claim_goes(self) -> None:
        second = ranking("s", 0, NODES)[1]
        placement = Placement(second)
        placement.decide([Service("s")], MEMBERS, [claim("s", 0, "x")], 0.0)
        assert placement.decide([Service("s")], MEMBERS, [], 50.0) == Plan([], 50.5)

    def test_replicas_are_spread_over_nodes(self) -> None:
        firsts = {node: plan.actions for node, plan in self.plans(Service("s", replicas=3)).items()}
        assert sorted(len(actions) for actions in firsts.values()) == [1, 1, 1]

    def test_a_replica_avoids_the_node_that_has_another(self) -> None:
        service = Service("s", replicas=2)
        holder = ranking("s", 1, NODES)[0]
        plans = {n: Placement(n).decide([service], MEMBERS, [claim("s", 0, holder)], 0.0) for n in NODES}
        assert plans[holder].actions == []
        assert sum(len(plan.actions) for plan in plans.values()) == 1

    def test_more_replicas_than_nodes_all_run(self) -> None:
        plans = self.plans(Service("s", replicas=7))
        assert sum(len(plan.actions) for plan in plans.values()) == 7

    def test_what_was_asked_for_is_not_asked_again(self) -> None:
        first = ranking("s", 0, NODES)[0]
        assert Placement(first).decide([Service("s")], MEMBERS, [], 0.0, frozenset({("s", 0)})).actions == []

    def test_at_most_64_claims_are_in_flight(self) -> None:
        services = [Service(f"s{n}") for n in range(100)]
        placement = Placement("a")
        asked = frozenset(("s99", n) for n in range(10))
        assert len(placement.decide(services, [member("a")], [], 0.0).actions) == 64
        assert len(placement.decide(services, [member("a")], [], 0.0, asked).actions) == 54

    def test_a_claim_nobody_wants_is_dropped_by_its_owner_alone(self) -> None:
        claims = [claim("s", 1, "a"), claim("old", 0, "b")]
        assert Placement("a").decide([Service("s")], MEMBERS, claims, 0.0).actions[0] == DropClaim("s", 1, 101)
        assert DropClaim("old", 0, 100) in Placement("b").decide([], MEMBERS, claims, 0.0).actions
        assert Placement("c").decide([], MEMBERS, claims, 0.0) == Plan([], None)

    def test_a_claim_is_dropped_where_the_node_has_not_the_labels_and_not_while_it_is_not_registered(self) -> None:
        service, claims = Service("s", labels={"zone": "x"}), [claim("s", 0, "a")]
        lacking, having = [member("a"), member("b", zone="x")], [member("a", zone="x"), member("b")]
        assert Placement("a").decide([service], lacking, claims, 0.0).actions == [DropClaim("s", 0, 100)]
        for members in (having, having[1:]):
            assert Placement("a").decide([service], members, claims, 0.0).actions == []
        assert Placement("b").decide([service], lacking, claims, 0.0).actions == [], "another's is another's"

    def test_a_node_that_is_not_eligible_claims_nothing(self) -> None:
        members = [member("a", NodeState.CORDONED), member("b", NodeState.JOINING)]
        assert Placement("a").decide([Service("s")], members, [], 0.0) == Plan([], None)

    def test_services_of_every_node_need_no_claim(self) -> None:
        assert Placement("a").decide([Service("s", mode=Mode.EVERY_NODE)], MEMBERS, [], 0.0) == Plan([], None)


class TestBarred:
    def test_a_node_that_is_avoided_claims_when_that_is_over(self) -> None:
        placement = Placement("a")
        barred = Barred({("s", "a"): 60.0})
        assert placement.decide([Service("s")], [member("a")], [], 0.0, barred=barred) == Plan([], 60.0)
        assert placement.decide([Service("s")], [member("a")], [], 60.0).actions == [MakeClaim("s", 0)]

    def test_the_others_do_not_wait_for_a_node_that_is_avoided(self) -> None:
        first, second, _ = ranking("s", 0, NODES)
        plan = Placement(second).decide([Service("s")], MEMBERS, [], 0.0, barred=Barred({("s", first): 60.0}))
        assert plan.actions == [MakeClaim("s", 0)]

    def test_avoiding_one_service_is_not_avoiding_another(self) -> None:
        barred = Barred({("other", "a"): 60.0})
        plan = Placement("a").decide([Service("s")], [member("a")], [], 0.0, barred=barred)
        assert plan.actions == [MakeClaim("s", 0)]

    def test_what_is_quarantined_is_claimed_by_nobody_and_given_back_when_it_does_not_run(self) -> None:
        barred = Barred(quarantined={"s"})
        assert Placement("a").decide([Service("s")], [member("a")], [], 0.0, barred=barred).actions == []
        held = [claim("s", 0, "a")]
        plan = Placement("a").decide([Service("s")], [member("a")], held, 0.0, barred=barred)
        assert plan.actions == [DropClaim("s", 0, 100)]

    def test_others_are_those_that_may_take_it_now(self) -> None:
        members = [member("a"), member("b", zone="x"), member("c", NodeState.CORDONED, zone="x"), member("d", zone="x")]
        service = Service("s", labels={"zone": "x"})
        assert others(service, members, Barred({("s", "d"): 1.0}), "a") == ["b"]
        assert others(service, members, Barred({("s", "d"): 1.0}), "b") == []


class TestBalance:
    def placed(self, services: list[Service], members: list[Member], held: list[Claim]) -> dict[str, int]:
        """How many replicas each node has once every node claimed what it is first for."""
        for _ in range(len(services) // 32 + 2):
            for one in members:
                plan = Placement(one.node).decide(services, members, held, 0.0)
                held = [
                    *held,
                    *(claim(a.service, a.replica, one.node) for a in plan.actions if isinstance(a, MakeClaim)),
                ]
        assert len(held) == sum(service.replicas for service in services)
        return {one.node: sum(each.node == one.node for each in held) for one in members}

    def test_a_thousand_services_lie_evenly_on_five_nodes(self) -> None:
        counts = self.placed([Service(f"s{n}") for n in range(1000)], [member(node) for node in "abcde"], [])
        assert set(counts.values()) == {200}

    def test_three_services_on_three_nodes_are_one_on_each(self) -> None:
        for name in "xyz":
            assert set(self.placed([Service(f"{name}{n}") for n in range(3)], MEMBERS, []).values()) == {1}

    def test_the_survivors_of_a_node_take_equal_parts_of_what_it_had(self) -> None:
        services = [Service(f"s{n}") for n in range(100)]
        held = [claim(f"s{n}", 0, "abcd"[n % 4]) for n in range(100) if n % 5]
        counts = self.placed(services, [member(node) for node in "abcd"], held)
        assert set(counts.values()) == {25}

    def test_a_node_that_came_later_gets_what_is_new(self) -> None:
        services = [Service(f"s{n}") for n in range(30)]
        held = [claim(f"s{n}", 0, "ab"[n % 2]) for n in range(20)]
        assert self.placed(services, MEMBERS, held) == {"a": 10, "b": 10, "c": 10}

    @given(st.integers(1, 60), st.integers(1, 6), st.data())
    def test_no_node_gets_more_than_its_share_while_another_has_less(
        self, n: int, nodes: int, data: st.DataObject
    ) -> None:
        members = [member(f"n{i}") for i in range(nodes)]
        services = [Service(f"s{i}") for i in range(n)]
        owners = data.draw(st.lists(st.none() | st.sampled_from(members), min_size=n, max_size=n))
        held = [claim(f"s{i}", 0, owner.node) for i, owner in enumerate(owners) if owner]
        before = {one.node: sum(each.node == one.node for each in held) for one in members}
        share = -(-n // nodes)
        for node, count in self.placed(services, members, held).items():
            assert count <= max(share, before[node])

    def test_with_spread_replicas_lie_in_different_zones_where_they_can(self) -> None:
        members = [member("a", zone="x"), member("b", zone="x"), member("c", zone="y"), member("d", zone="y")]
        for name in "pqrs":
            held: list[Claim] = []
            service = Service(name, replicas=2, spread="zone")
            for one in members:
                plan = Placement(one.node).decide([service], members, held, 0.0)
                held += [claim(a.service, a.replica, one.node) for a in plan.actions if isinstance(a, MakeClaim)]
            zones = {next(m.labels["zone"] for m in members if m.node == each.node) for each in held}
            assert zones == {"x", "y"}


class TestStart:
    """A cluster that starts: the nodes come one after the other."""

    def test_what_never_ran_waits_for_a_joining_node_that_is_first_but_not_for_ever(self) -> None:
        first, second, _ = ranking("s", 0, NODES)
        members = [member(first, NodeState.JOINING), member(second)]
        placement = Placement(second, grace=10.0)
        assert placement.decide([Service("s")], members, [], 5.0) == Plan([], 15.0)
        assert placement.decide([Service("s")], members, [], 14.9).actions == []
        assert placement.decide([Service("s")], members, [], 15.0).actions == [MakeClaim("s", 0)]

    def test_a_joining_node_that_is_ready_takes_it_and_has_its_time_for_that(self) -> None:
        first, second, _ = ranking("s", 0, NODES)
        placement = Placement(second)
        placement.decide([Service("s")], [member(first, NodeState.JOINING), member(second)], [], 5.0)
        ready = [member(first), member(second)]
        assert Placement(first).decide([Service("s")], ready, [], 9.0).actions
        assert placement.decide([Service("s")], ready, [], 9.0) == Plan([], 11.0)
        assert placement.decide([Service("s")], ready, [], 11.0).actions == [MakeClaim("s", 0)]

    def test_failover_does_not_wait_for_a_joining_node(self) -> None:
        first, second, _ = ranking("s", 0, NODES)
        members = [member(first, NodeState.JOINING), member(second)]
        placement = Placement(second)
        placement.decide([Service("s")], members, [claim("s", 0, "x")], 0.0)
        assert placement.decide([Service("s")], members, [], 50.0).actions == [MakeClaim("s", 0)]

    def test_what_never_ran_waits_for_the_expected_nodes_but_not_for_ever(self) -> None:
        placement = Placement("a", expected=3, patience=30.0)
        assert placement.decide([Service("s")], [member("a")], [], 5.0) == Plan([], 35.0)
        assert placement.decide([Service("s")], [member("a")], [], 35.0).actions == [MakeClaim("s", 0)]

    def test_the_expected_nodes_need_to_be_there_once_only(self) -> None:
        placement = Placement("a", expected=3)
        placement.decide([Service("s")], MEMBERS, [], 5.0)
        assert placement.decide([Service("t")], [member("a")], [], 6.0).actions == [MakeClaim("t", 0)]

    def test_a_cluster_that_has_claims_has_started(self) -> None:
        placement = Placement("a", expected=3)
        services = [Service("s"), Service("t")]
        assert placement.decide(services, [member("a")], [claim("t", 0, "a")], 5.0).actions == [MakeClaim("s", 0)]


@given(
    services=st.lists(
        st.builds(Service, st.sampled_from("xyz"), st.integers(1, 4)), max_size=3, unique_by=lambda s: s.id
    ),
    states=st.lists(st.sampled_from(NodeState), min_size=1, max_size=4),
    crashes=st.lists(st.integers(0, 3), max_size=6),
)
def test_every_replica_is_claimed_once_and_survivors_keep_theirs(
    services: list[Service], states: list[NodeState], crashes: list[int]
) -> None:
    """Each node decides alone, on the view of that moment; the store lets the first claim win."""
    members = [member(f"n{i}", state) for i, state in enumerate(states)]
    placements = {m.node: Placement(m.node, grace=1.0, start_step=0.5) for m in members}
    held: dict[tuple[str, int], str] = {}
    now = 0.0

    def settle() -> None:
        nonlocal now
        for _ in range(len(placements) + 3):
            view = [claim(*replica, node) for replica, node in held.items()]
            for node, placement in placements.items():
                for action in placement.decide(services, members, view, now).actions:
                    assert isinstance(action, MakeClaim)
                    held.setdefault((action.service, action.replica), node)
            now += 0.5

    settle()
    for crash in crashes:
        gone = f"n{crash}"
        placements.pop(gone, None)
        members = [m for m in members if m.node != gone]
        kept = {replica: node for replica, node in held.items() if node != gone}
        held = dict(kept)
        settle()
        assert {replica: held[replica] for replica in kept} == kept
        ready = any(m.state is NodeState.READY for m in members)
        wanted = {(s.id, replica) for s in services for replica in range(s.replicas)}
        assert set(held) == (wanted if ready else set(kept))


class TestSuccessors:
    SERVICES = (Service("s", 2), Service("t"))

    def test_are_the_other_ready_nodes_that_may_take_it(self) -> None:
        members = [member("a", NodeState.DRAINING), member("b"), member("c", NodeState.CORDONED), member("d")]
        held = [claim("t", 0, "a")]
        assert sorted(successors(("t", 0), self.SERVICES, members, held, Barred())) == ["b", "d"]
        assert successors(("t", 0), self.SERVICES, members, held, Barred({("t", "b"): 99.0})) == ["d"]
        assert successors(("t", 0), self.SERVICES, members, held, Barred(quarantined=["t"])) == []

    def test_there_are_none_of_what_nobody_has_or_wants(self) -> None:
        assert successors(("t", 0), self.SERVICES, MEMBERS, [], Barred()) == []
        assert successors(("t", 0), [], MEMBERS, [claim("t", 0, "a")], Barred()) == []

    def test_those_without_another_replica_come_first(self) -> None:
        held = [claim("s", 0, "a"), claim("s", 1, "b")]
        assert successors(("s", 0), self.SERVICES, MEMBERS, held, Barred()) == ["c", "b"]


@given(owners=st.lists(st.sampled_from(NODES), min_size=1, max_size=6))
def test_the_heir_is_who_would_claim_it_at_once_if_it_were_given_back(owners: list[str]) -> None:
    services = [Service(f"s{i}") for i in range(len(owners))]
    held = [claim(f"s{i}", 0, owner) for i, owner in enumerate(owners)]
    members = [member(node, NodeState.DRAINING if node == owners[0] else NodeState.READY) for node in NODES]
    heirs = successors(("s0", 0), services, members, held, Barred())
    assert sorted([*heirs, owners[0]]) == NODES
    for node in NODES:
        placement = Placement(node)
        placement.decide(services, members, held, 0.0)
        plan = placement.decide(services, members, held[1:], 1.0)
        assert plan.first == {("s0", 0): heirs[0]}
        assert plan.actions == ([MakeClaim("s0", 0)] if node == heirs[0] else [])


def test_a_claim_that_changes_its_node_is_claimed_by_nobody() -> None:
    for node in NODES:
        placement = Placement(node)
        for turn, owner in enumerate(["a", "b", "c", "a"]):
            assert placement.decide([Service("s")], MEMBERS, [claim("s", 0, owner)], 10.0 * turn).actions == []
