"""Placement: which replicas a node claims, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.claims import Claim
from cluster.members import Member, NodeState
from cluster.placement import (
    DropClaim,
    MakeClaim,
    Mode,
    Placement,
    Plan,
    Service,
    eligible,
    ranking,
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
        assert plans[second] == Plan([], 7.5)
        assert plans[third] == Plan([], 8.0)

    def test_the_next_in_rank_claims_when_the_first_does_not(self) -> None:
        second = ranking("s", 0, NODES)[1]
        placement = Placement(second)
        placement.decide([Service("s")], MEMBERS, [], 10.0)
        assert placement.decide([Service("s")], MEMBERS, [], 10.4).actions == []
        assert placement.decide([Service("s")], MEMBERS, [], 10.5).actions == [MakeClaim("s", 0)]

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

    def test_a_node_that_is_not_eligible_claims_nothing(self) -> None:
        members = [member("a", NodeState.CORDONED), member("b", NodeState.JOINING)]
        assert Placement("a").decide([Service("s")], members, [], 0.0) == Plan([], None)

    def test_services_of_every_node_need_no_claim(self) -> None:
        assert Placement("a").decide([Service("s", mode=Mode.EVERY_NODE)], MEMBERS, [], 0.0) == Plan([], None)


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
    placements = {m.node: Placement(m.node) for m in members}
    held: dict[tuple[str, int], str] = {}
    now = 0.0

    def settle() -> None:
        nonlocal now
        for _ in range(len(placements) + 1):
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
