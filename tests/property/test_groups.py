"""Process groups of two or three nodes through lost, doubled and reordered words, crashes and returns: views agree.

The nodes' own members are the truth. Anything may be lost or come late; then every node meets every other once more,
digests are exchanged until nobody has anything to say, and each view must be the truth, told event by event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.groups import (
    Action,
    Announce,
    Ask,
    Change,
    GroupsCore,
    NotMember,
    SendState,
    Tell,
    generation,
)

NODES = ("a", "b", "c")
GROUPS = ("x", "y")


class Node:
    """A core, and what its watchers were told, added up."""

    def __init__(self, name: str, life: int) -> None:
        self.name = name
        self.incarnation = life
        self.core = GroupsCore(name, generation(life, 1))
        self.told: Counter[tuple[str, str]] = Counter()

    def pid(self, number: int) -> str:
        return f"{{{self.name}@app:h|{self.incarnation}-{number}}}"


class World:
    """Nodes, and the words on their way between them."""

    def __init__(self) -> None:
        self.lives = 1
        self.nodes = {name: Node(name, 1) for name in NODES}
        self.under_way: list[tuple[str, str, tuple[Any, ...]]] = []
        for one in NODES:
            for other in NODES:
                if one != other:
                    self.perform(one, self.nodes[one].core.peer_came(other, 1))
        self.settle()

    def perform(self, name: str, actions: Sequence[Action]) -> None:
        node = self.nodes[name]
        own = node.core.own
        for action in actions:
            match action:
                case Announce(seq, changes):
                    for other in NODES:
                        if other != name and other in self.nodes:
                            self.say(name, other, "changes", own.generation, seq, changes)
                case SendState(to):
                    counts = {group: dict(members) for group, members in own.counts.items()}
                    apart = {group: set(pids) for group, pids in own.apart.items()}
                    self.say(name, to, "state", own.generation, own.seq, counts, apart)
                case Ask(to):
                    self.say(name, to, "ask")
                case Tell(joined, group, pids):
                    for pid in pids:
                        node.told[group, pid] += 1 if joined else -1

    def say(self, name: str, to: str, *word: Any) -> None:
        self.under_way.append((name, to, word))

    def hear(self, at: int, *, keep: bool = False) -> None:
        """Deliver a word, whichever; ``keep``: it will come again."""
        name, to, word = self.under_way[at]
        if not keep:
            del self.under_way[at]
        if to not in self.nodes:
            return
        core = self.nodes[to].core
        match word:
            case ("changes", life, seq, changes):
                self.perform(to, core.changed(name, life, seq, changes))
            case ("state", life, seq, counts, apart):
                self.perform(to, core.state(name, life, seq, counts, apart))
            case ("digest", life, seq):
                self.perform(to, core.digest(name, life, seq))
            case ("ask",):
                self.perform(to, core.asked(name))

    def crash(self, name: str) -> None:
        """The node is gone; the others see its registration end."""
        if self.nodes.pop(name, None) is not None:
            for other in self.nodes:
                self.perform(other, self.nodes[other].core.peer_left(name))

    def start(self, name: str) -> None:
        if name in self.nodes:
            return
        self.lives += 1
        node = self.nodes[name] = Node(name, self.lives)
        for other in self.nodes:
            if other != name:
                self.perform(other, self.nodes[other].core.peer_came(name, node.incarnation))
                self.perform(name, node.core.peer_came(other, self.nodes[other].incarnation))

    def rejoin(self, name: str) -> None:
        """It loses its lease and registers anew under the same incarnation; its members live on."""
        for other in self.nodes:
            if other != name and name in self.nodes:
                self.perform(other, self.nodes[other].core.peer_left(name))
                self.perform(other, self.nodes[other].core.peer_came(name, self.nodes[name].incarnation))

    def settle(self) -> None:
        """Nothing is lost any more, digests go round until nobody has anything to say."""
        for _ in range(4):
            for name, node in self.nodes.items():
                for other in self.nodes:
                    if other != name:
                        self.say(name, other, "digest", node.core.own.generation, node.core.own.seq)
            for _ in range(10_000):
                if not self.under_way:
                    break
                self.hear(0)
            assert not self.under_way, "they never come to rest"

    def truth(self) -> Counter[tuple[str, str]]:
        """Who is a member how often; of one that moves two nodes may speak."""
        truth: Counter[tuple[str, str]] = Counter()
        for node in self.nodes.values():
            for group, members in node.core.own.counts.items():
                for pid, times in members.items():
                    truth[group, pid] = max(times, truth[group, pid])
        return truth

    def apart(self) -> set[tuple[str, str]]:
        owns = [node.core.own for node in self.nodes.values()]
        apart = {(group, pid) for own in owns for group, pids in own.apart.items() for pid in pids}
        return {(group, pid) for group, pid in apart if not any(own.spreads_to(group, pid) for own in owns)}

    def move(self, pid: str, source: str, target: str) -> None:
        """Freeze the process and take it to another node, if that is up."""
        counts = self.nodes[source].core.memberships(pid)
        self.perform(source, self.nodes[source].core.set_apart(pid))
        if target != source and target in self.nodes and counts:
            self.perform(target, self.nodes[target].core.arrived(pid, counts))
            self.nodes[source].core.departed(pid)


MEMBERSHIP = ("join", "join", "leave", "end", "move", "move", "forget")
WORDS = ("hear", "hear", "lose", "double")
NODE_LIFE = ("crash", "start", "rejoin")

deeds = st.lists(
    st.tuples(
        st.sampled_from((*MEMBERSHIP, *WORDS, *NODE_LIFE)),
        st.sampled_from(NODES),
        st.integers(0, 1000),
        st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3),
    ),
    max_size=60,
)


def act(world: World, deed: str, name: str, number: int, groups: list[str]) -> None:
    at = number % len(world.under_way) if world.under_way else None
    node = world.nodes.get(name)
    match deed:
        case "hear" | "double" if at is not None:
            world.hear(at, keep=deed == "double")
        case "lose" if at is not None:
            del world.under_way[at]
        case "crash":
            world.crash(name)
        case "start":
            world.start(name)
        case "rejoin":
            world.rejoin(name)
        case "join" if node is not None:
            world.perform(name, node.core.join(node.pid(number % 3), groups))
        case "end" if node is not None:
            world.perform(name, node.core.process_ended(node.pid(number % 3)))
        case "move" if node is not None:
            world.move(node.pid(number % 3), name, NODES[number % 3])
        case "forget" if node is not None:
            world.perform(name, node.core.forget(node.pid(number % 3)))
        case "leave" if node is not None:
            try:
                world.perform(name, node.core.leave(node.pid(number % 3), groups))
            except NotMember:
                return


@settings(max_examples=300, deadline=None)
@given(deeds)
def test_views_become_the_truth_and_events_add_up_to_them(history: list[tuple[str, str, int, list[str]]]) -> None:
    world = World()
    for deed in history:
        act(world, *deed)
    world.settle()
    truth = world.truth()
    for node in world.nodes.values():
        for group in GROUPS:
            assert node.core.members(group) == sorted(pid for one, pid in truth if one == group)
            assert node.core.size(group) == sum(times for (one, _), times in truth.items() if one == group)
        assert +node.told == truth
        assert not -node.told
        assert node.core.groups() == sorted({group for group, _ in truth})
        assert {(group, pid) for group in GROUPS for pid in node.core.apart(group)} == world.apart()


def core_with_peer(incarnation: int = 1) -> GroupsCore:
    core = GroupsCore("a", generation(1, 1))
    core.peer_came("b", incarnation)
    return core


B = "{b@app:h|1-1}"


class TestOneNode:
    def test_a_process_leaves_as_often_as_it_joined(self) -> None:
        core = GroupsCore("a", generation(1, 1))
        core.join("p", ["x", "x"])
        assert core.leave("p", ["x"])[1:] == [Tell(False, "x", ("p",))]
        assert core.members("x") == ["p"]
        core.leave("p", ["x", "unknown"])
        assert core.members("x") == []
        with pytest.raises(NotMember):
            core.leave("p", ["x"])

    def test_its_end_tells_every_membership(self) -> None:
        core = GroupsCore("a", generation(1, 1))
        core.join("p", ["x", "x", "y"])
        announced, *told = core.process_ended("p")
        assert isinstance(announced, Announce)
        assert announced.changes == (Change("x", "p", 0), Change("y", "p", 0))
        assert told == [Tell(False, "x", ("p", "p")), Tell(False, "y", ("p",))]
        assert core.process_ended("p") == []


class TestWords:
    def test_a_gap_is_asked_for_once(self) -> None:
        core = core_with_peer()
        core.state("b", generation(1, 1), 1, {})
        assert core.changed("b", generation(1, 1), 3, [Change("x", B, 1)]) == [Ask("b")]
        assert core.changed("b", generation(1, 1), 4, [Change("x", B, 2)]) == []
        assert core.state("b", generation(1, 1), 4, {"x": {B: 2}}) == [Tell(True, "x", (B, B))]

    def test_what_is_old_or_repeated_changes_nothing(self) -> None:
        core = core_with_peer()
        core.state("b", generation(1, 1), 5, {"x": {B: 1}})
        assert core.changed("b", generation(1, 1), 5, [Change("x", B, 7)]) == []
        assert core.changed("b", generation(1, 1), 4, [Change("x", B, 0)]) == []
        assert core.state("b", generation(1, 1), 4, {}) == []
        assert core.members("x") == [B]

    def test_a_former_life_is_not_heard(self) -> None:
        core = core_with_peer(incarnation=2)
        assert core.state("b", generation(1, 9), 9, {"x": {B: 1}}) == []
        assert core.state("b", generation(2, 2), 1, {"x": {B: 1}}) == [Tell(True, "x", (B,))]
        assert core.changed("b", generation(2, 1), 2, [Change("x", B, 0)]) == []

    def test_a_node_nobody_knows_is_not_heard(self) -> None:
        core = core_with_peer()
        assert core.state("c", generation(1, 1), 1, {"x": {B: 1}}) == []
        assert core.asked("c") == []
        assert core.digest("c", generation(1, 1), 1) == []

    def test_a_node_takes_its_members_with_it(self) -> None:
        core = core_with_peer()
        core.state("b", generation(1, 1), 1, {"x": {B: 1}})
        assert core.nodes_with("x") == ["b"]
        assert core.peer_left("b") == [Tell(False, "x", (B,))]
        assert core.peer_left("b") == []
        assert core.nodes_with("x") == []
