"""Members of groups that move while others broadcast: each broadcast reaches each member exactly once.

Three nodes whose links keep their order and lose nothing, words and broadcasts alike; every step may come at any time
the rules allow. A member is a member all along: nobody joins or leaves. What is sent to it by its PID arrives.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.groups import Action, Announce, Ask, GroupsCore, SendState, Tell, View, generation

NODES = ("a", "b", "c")
GROUP = "g"
MEMBERS = {"p": "a", "q": "a", "r": "b"}
"""Where each begins."""


class World:
    """The cores, the links between them, and what the members got."""

    def __init__(self) -> None:
        self.cores = {node: GroupsCore(node, generation(1, 1)) for node in NODES}
        self.links: dict[tuple[str, str], deque[tuple[Any, ...]]] = {
            (one, other): deque() for one in NODES for other in NODES if one != other
        }
        self.at = dict(MEMBERS)
        self.frozen: dict[str, dict[str, int]] = {}
        self.left_behind: list[tuple[str, str]] = []
        self.got: Counter[tuple[int, str]] = Counter()
        self.told: Counter[tuple[str, str]] = Counter()
        self.sent = 0
        for one, other in self.links:
            self.perform(one, self.cores[one].peer_came(other, 1))
        for pid, node in MEMBERS.items():
            self.perform(node, self.cores[node].join(pid, [GROUP]))
        self.deliver_all()

    def perform(self, node: str, actions: Sequence[Action]) -> None:
        own = self.cores[node].own
        for action in actions:
            match action:
                case Announce(seq, changes):
                    for other in NODES:
                        if other != node:
                            self.links[node, other].append(("changed", own.generation, seq, changes))
                case SendState(to):
                    counts = {group: dict(members) for group, members in own.counts.items()}
                    apart = {group: set(members) for group, members in own.apart.items()}
                    self.links[node, to].append(("state", own.generation, own.seq, counts, apart))
                case Ask(to):
                    self.links[node, to].append(("asked",))
                case Tell(joined, _, pids):
                    for pid in pids:
                        self.told[node, pid] += 1 if joined else -1
                        assert self.told[node, pid] in (0, 1)

    def deliver(self, link: tuple[str, str]) -> None:
        if not self.links[link]:
            return
        node, to = link
        core, word = self.cores[to], self.links[link].popleft()
        match word:
            case ("cast", number, heard):
                self.send_each(number, core.receivers(GROUP, heard))
            case (name, *rest):
                self.perform(to, getattr(core, name)(node, *rest))

    def deliver_all(self) -> None:
        while any(self.links.values()):
            for link in self.links:
                self.deliver(link)

    def broadcast(self, node: str) -> None:
        self.sent += 1
        core = self.cores[node]
        for other, heard in core.spreading(GROUP):
            self.links[node, other].append(("cast", self.sent, heard))
        self.send_each(self.sent, [*core.together(GROUP), *core.apart(GROUP)])

    def send_each(self, number: int, pids: Sequence[str]) -> None:
        self.got.update((number, pid) for pid in pids)

    # -- the steps of a move

    def freeze(self, pid: str) -> None:
        if pid not in self.frozen:
            core = self.cores[self.at[pid]]
            self.frozen[pid] = core.memberships(pid)
            self.perform(self.at[pid], core.set_apart(pid))

    def thaw(self, pid: str) -> None:
        self.frozen.pop(pid, None)

    def arrive(self, pid: str, to: str, *, first: str) -> None:
        counts = self.frozen.pop(pid, None)
        if counts is None or to == self.at[pid]:
            return
        source, self.at[pid] = self.at[pid], to
        if first == "left":
            self.leave(source, pid)
        self.left_behind = [one for one in self.left_behind if one != (to, pid)]
        self.perform(to, self.cores[to].arrived(pid, counts))
        if first == "arrived":
            self.leave(source, pid)

    def leave(self, node: str, pid: str) -> None:
        assert self.cores[node].departed(pid)
        self.left_behind.append((node, pid))

    def forget(self) -> None:
        """What a moment is for: everybody has heard that it is apart and that another node announces it, and what they
        sent before that has arrived."""
        for node, pid in list(self.left_behind):
            others = [core for name, core in self.cores.items() if name != node]
            elsewhere = all(any(v.count(GROUP, pid) for v in views(core, node)) for core in others)
            is_quiet = not any(words for link, words in self.links.items() if node in link)
            if elsewhere and is_quiet and self.cores[node].is_handed_over(pid):
                self.left_behind.remove((node, pid))
                self.perform(node, self.cores[node].forget(pid))


def views(core: GroupsCore, but: str) -> list[View]:
    return [core.own, *(view for node, view in core._views.items() if node != but)]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.sampled_from([(o, t) for o in NODES for t in NODES if o != t])),
        st.tuples(st.just("deliver"), st.sampled_from([(o, t) for o in NODES for t in NODES if o != t])),
        st.tuples(st.just("broadcast"), st.sampled_from(NODES)),
        st.tuples(st.just("freeze"), st.sampled_from(sorted(MEMBERS))),
        st.tuples(st.just("thaw"), st.sampled_from(sorted(MEMBERS))),
        st.tuples(
            st.just("arrive"),
            st.sampled_from(sorted(MEMBERS)),
            st.sampled_from(NODES),
            st.sampled_from(["left", "arrived"]),
        ),
        st.tuples(st.just("forget")),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(steps)
def test_each_broadcast_reaches_each_member_once(taken: list[tuple[Any, ...]]) -> None:
    world = World()
    for step in taken:
        match step:
            case ("deliver", link):
                world.deliver(link)
            case ("broadcast", node):
                world.broadcast(node)
            case ("freeze", pid):
                world.freeze(pid)
            case ("thaw", pid):
                world.thaw(pid)
            case ("arrive", pid, to, first):
                world.arrive(pid, to, first=first)
            case ("forget",):
                world.forget()
    world.deliver_all()
    assert world.got == {(number, pid): 1 for number in range(1, world.sent + 1) for pid in MEMBERS}
    for node, core in world.cores.items():
        assert core.members(GROUP) == sorted(MEMBERS)
        assert core.local_members(GROUP) == sorted(pid for pid, at in world.at.items() if at == node)
        assert core.size(GROUP) == len(MEMBERS)
        assert {pid: world.told[node, pid] for pid in MEMBERS} == dict.fromkeys(MEMBERS, 1)
