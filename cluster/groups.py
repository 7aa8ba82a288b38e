"""Process groups: who is a member of what, in one scope, as one node sees it. Pure decisions.

Every node is the only one to speak of its own members; the others keep what it told them, by node. A change is
announced to all peers under the next number of its node. Whoever misses one asks for the whole state; so does
whoever hears in a digest that a node is further than what it knows. A node that leaves takes its members with it.
Views of all nodes agree once every node has heard the last word of every other: eventually, not at every moment.

    local  join, leave, process ended     -> Announce to all peers, Tell
    peer   came                           -> Ask it: both do, so both know all
           left                           -> its members are gone, Tell
    heard  the next change                -> applied, Tell
           an old or repeated one         -> nothing
           one with a gap before it       -> Ask, until the state comes
           a state that is newer          -> replaces what was known of that node, Tell the differences
           a digest that is further on    -> Ask
           a question                     -> SendState

A *generation* orders the lives of a scope on one node: it begins with the node's incarnation, which a node that
registers anew under another lease keeps, as its processes live on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

GENERATION_BITS = 20
"""A generation is the incarnation of its node, followed by so many bits that tell lives of the scope apart."""

Counts: TypeAlias = dict[str, dict[str, int]]
"""By group and PID, how often the process has joined."""


def generation(incarnation: int, life: int) -> int:
    return (incarnation << GENERATION_BITS) + life


@dataclass(frozen=True, slots=True)
class Change:
    """From now on the process is a member ``count`` times; 0 = no more."""

    group: str
    pid: str
    count: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell every peer."""

    seq: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class SendState:
    """Tell one peer everything this node has."""

    node: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask one peer for everything it has."""

    node: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell who watches: ``pids`` joined the group, or left it; once for each time."""

    joined: bool
    group: str
    pids: tuple[str, ...]


Action: TypeAlias = Announce | SendState | Ask | Tell


@dataclass(slots=True)
class View:
    """What a node has told of its own members."""

    generation: int
    seq: int = 0
    counts: Counts = field(default_factory=dict)


class NotMember(ValueError):
    """The process is in none of the groups it is to leave."""


class GroupsCore:
    """The groups of one scope on ``node``, whose life of the scope is ``generation``."""

    def __init__(self, node: str, generation: int) -> None:
        self._node = node
        self._own = View(generation)
        self._by_pid: dict[str, dict[str, int]] = {}
        self._peers: dict[str, int] = {}
        self._views: dict[str, View] = {}
        self._asked: set[str] = set()

    @property
    def own(self) -> View:
        return self._own

    # -- asked by programs

    def members(self, group: str) -> list[str]:
        """The PIDs in the group, on all nodes, each once."""
        return sorted(pid for view in self._all() for pid in view.counts.get(group, ()))

    def local_members(self, group: str) -> list[str]:
        return sorted(self._own.counts.get(group, ()))

    def groups(self) -> list[str]:
        """The groups that have a member somewhere."""
        return sorted({group for view in self._all() for group in view.counts})

    def local_groups(self) -> list[str]:
        return sorted(self._own.counts)

    def nodes_with(self, group: str) -> list[str]:
        """The other nodes on which the group has members."""
        return sorted(node for node, view in self._views.items() if group in view.counts)

    def size(self, group: str) -> int:
        """Memberships of the group, each time a process joined."""
        return sum(sum(view.counts.get(group, {}).values()) for view in self._all())

    # -- what processes of this node do

    def join(self, pid: str, groups: Iterable[str]) -> list[Action]:
        """The process joins each of the groups, one more time where it is a member."""
        counts = dict(self._by_pid.get(pid, {}))
        for group in groups:
            counts[group] = counts.get(group, 0) + 1
        return self._set_local(pid, counts)

    def leave(self, pid: str, groups: Iterable[str]) -> list[Action]:
        """The process leaves those of the groups it is in, once each. Raises NotMember when it is in none."""
        counts = dict(self._by_pid.get(pid, {}))
        left = False
        for group in groups:
            if counts.get(group, 0) > 0:
                counts[group] -= 1
                left = True
        if not left:
            raise NotMember(f"{pid} is a member of none of these groups")
        return self._set_local(pid, counts)

    def process_ended(self, pid: str) -> list[Action]:
        return self._set_local(pid, dict.fromkeys(self._by_pid.get(pid, ()), 0))

    # -- what happens to peers, and what they say

    def peer_came(self, node: str, incarnation: int) -> list[Action]:
        """A node is there, or is there again."""
        actions = self.peer_left(node) if self._peers.get(node, incarnation) != incarnation else []
        self._peers[node] = incarnation
        self._asked.discard(node)
        return [*actions, *self._ask(node)]

    def peer_left(self, node: str) -> list[Action]:
        self._peers.pop(node, None)
        self._asked.discard(node)
        view = self._views.pop(node, None)
        return _differences(view.counts, {}) if view is not None else []

    def changed(self, node: str, generation: int, seq: int, changes: Iterable[Change]) -> list[Action]:
        """A peer announced changes under its number ``seq``."""
        if not self._is_of(node, generation):
            return []
        view = self._views.get(node)
        if view is None or view.generation < generation:
            if seq != 1:
                return self._ask(node)
            view = View(generation)
            _apply(view.counts, changes)
            return self.state(node, generation, 1, view.counts)
        if view.generation > generation or seq <= view.seq:
            return []
        if seq != view.seq + 1:
            return self._ask(node)
        view.seq = seq
        return _apply(view.counts, changes)

    def state(self, node: str, generation: int, seq: int, counts: Mapping[str, Mapping[str, int]]) -> list[Action]:
        """A peer told everything it has at its number ``seq``."""
        if not self._is_of(node, generation):
            return []
        self._asked.discard(node)
        view = self._views.get(node)
        if view is not None and (view.generation, view.seq) >= (generation, seq):
            return []
        copied = {group: dict(members) for group, members in counts.items() if members}
        return self._replace(node, View(generation, seq, copied))

    def digest(self, node: str, generation: int, seq: int) -> list[Action]:
        """A peer told how far it is. Asked for at each digest anew: the answer to an earlier question may be lost."""
        view = self._views.get(node)
        known = (view.generation, view.seq) if view is not None else (-1, 0)
        self._asked.discard(node)
        return self._ask(node) if self._is_of(node, generation) and known < (generation, seq) else []

    def asked(self, node: str) -> list[Action]:
        return [SendState(node)] if node in self._peers else []

    # -- how it is done

    def _all(self) -> list[View]:
        return [self._own, *self._views.values()]

    def _set_local(self, pid: str, counts: Mapping[str, int]) -> list[Action]:
        before = self._by_pid.get(pid, {})
        changes = tuple(Change(group, pid, now) for group, now in counts.items() if before.get(group, 0) != now)
        if not changes:
            return []
        kept = {group: times for group, times in counts.items() if times}
        if kept:
            self._by_pid[pid] = kept
        else:
            self._by_pid.pop(pid, None)
        self._own.seq += 1
        return [Announce(self._own.seq, changes), *_apply(self._own.counts, changes)]

    def _replace(self, node: str, view: View) -> list[Action]:
        before = self._views.get(node)
        self._views[node] = view
        return _differences(before.counts if before is not None else {}, view.counts)

    def _is_of(self, node: str, generation: int) -> bool:
        """Whether this is of the life of the node that is registered now."""
        return self._peers.get(node) == generation >> GENERATION_BITS

    def _ask(self, node: str) -> list[Action]:
        if node in self._asked:
            return []
        self._asked.add(node)
        return [Ask(node)]


def _apply(counts: Counts, changes: Iterable[Change]) -> list[Action]:
    """Make the changes; what to tell of them. Its time does not grow with the members there are."""
    told: list[Action] = []
    for change in changes:
        members = counts.setdefault(change.group, {})
        more = change.count - members.get(change.pid, 0)
        if change.count > 0:
            members[change.pid] = change.count
        else:
            members.pop(change.pid, None)
            if not members:
                del counts[change.group]
        if more:
            told.append(Tell(more > 0, change.group, (change.pid,) * abs(more)))
    return told


def _differences(before: Counts, after: Counts) -> list[Action]:
    """What to tell, group by group: first who left."""
    told: list[Action] = []
    for group in sorted({*before, *after}):
        was, now = before.get(group, {}), after.get(group, {})
        for joined, more, fewer in ((False, was, now), (True, now, was)):
            pids = [pid for pid in sorted(more) for _ in range(more[pid] - fewer.get(pid, 0))]
            if pids:
                told.append(Tell(joined, group, tuple(pids)))
    return told
