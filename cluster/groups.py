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

A member that moves to another node is a member *apart*: as soon as it is frozen, and for the rest of its time in this
scope. Whoever broadcasts sends it the message itself, by its PID, on the way all messages for it take. Until a node
has heard that, the member's node spreads to it as before: each broadcast says what its sender had heard, so that it is
one or the other. So it matters little who announces the member. The node it came to does so at once; the one it left
goes on for a moment, lest a third hear of the end first. A member that several nodes announce is one.

A *generation* orders the lives of a scope on one node: it begins with the node's incarnation, which a node that
registers anew under another lease keeps, as its processes live on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

GENERATION_BITS = 20
"""A generation is the incarnation of its node, followed by so many bits that tell lives of the scope apart."""

Counts: TypeAlias = dict[str, dict[str, int]]
"""By group and PID, how often the process has joined."""


NOBODY: Mapping[str, Collection[str]] = MappingProxyType({})


def generation(incarnation: int, life: int) -> int:
    return (incarnation << GENERATION_BITS) + life


@dataclass(frozen=True, slots=True)
class Change:
    """From now on the process is a member ``count`` times; 0 = no more."""

    group: str
    pid: str
    count: int
    apart: bool = False
    """Whoever broadcasts sends it the message itself."""


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
    apart: dict[str, set[str]] = field(default_factory=dict)
    """By group, the members to which broadcasts are sent apart."""

    def put(self, change: Change) -> None:
        group, pid = change.group, change.pid
        members, apart = self.counts.setdefault(group, {}), self.apart.setdefault(group, set())
        apart.discard(pid)
        if change.count > 0:
            members[pid] = change.count
            if change.apart:
                apart.add(pid)
        else:
            members.pop(pid, None)
        if not members:
            del self.counts[group]
        if not apart:
            del self.apart[group]

    def count(self, group: str, pid: str) -> int:
        return self.counts.get(group, {}).get(pid, 0)

    def spreads_to(self, group: str, pid: str) -> bool:
        """Whether the node passes on to this member what is sent to it for all."""
        return pid in self.counts.get(group, ()) and pid not in self.apart.get(group, ())

    def spreads(self, group: str) -> bool:
        return len(self.counts.get(group, ())) > len(self.apart.get(group, ()))


class NotMember(ValueError):
    """The process is in none of the groups it is to leave."""


class GroupsCore:
    """The groups of one scope on ``node``, whose life of the scope is ``generation``."""

    def __init__(self, node: str, generation: int) -> None:
        self._node = node
        self._own = View(generation)
        self._by_pid: dict[str, dict[str, int]] = {}
        self._since: dict[str, int] = {}
        """Own members that are apart, and the number of the change that said so; 0: they were from the start."""
        self._former: set[str] = set()
        """Own members that live elsewhere by now."""
        self._peers: dict[str, int] = {}
        self._views: dict[str, View] = {}
        self._asked: set[str] = set()

    @property
    def own(self) -> View:
        return self._own

    # -- asked by programs

    def members(self, group: str) -> list[str]:
        """The PIDs in the group, on all nodes, each once."""
        return sorted({pid for view in self._all() for pid in view.counts.get(group, ())})

    def local_members(self, group: str) -> list[str]:
        return sorted(pid for pid in self._own.counts.get(group, ()) if pid not in self._former)

    def groups(self) -> list[str]:
        """The groups that have a member somewhere."""
        return sorted({group for view in self._all() for group in view.counts})

    def local_groups(self) -> list[str]:
        return sorted(group for group, pids in self._own.counts.items() if not self._former.issuperset(pids))

    def nodes_with(self, group: str) -> list[str]:
        """The other nodes on which the group has members."""
        return sorted(node for node, view in self._views.items() if group in view.counts)

    def size(self, group: str) -> int:
        """Memberships of the group, each time a process joined."""
        largest: dict[str, int] = {}
        for view in self._all():
            for pid, times in view.counts.get(group, {}).items():
                largest[pid] = max(times, largest.get(pid, 0))
        return sum(largest.values())

    # -- whom a broadcast reaches

    def spreading(self, group: str) -> list[tuple[str, int]]:
        """The other nodes that spread a broadcast among their members, and how far this node has heard them."""
        return sorted((node, view.seq) for node, view in self._views.items() if view.spreads(group))

    def together(self, group: str) -> list[str]:
        """The members of this node that get what its own processes send to all."""
        own = self._own
        return sorted(pid for pid in own.counts.get(group, ()) if own.spreads_to(group, pid))

    def apart(self, group: str) -> list[str]:
        """The members, of any node, that no node spreads to."""
        views = self._all()
        pids = {pid for view in views for pid in view.apart.get(group, ())}
        return sorted(pid for pid in pids if not any(view.spreads_to(group, pid) for view in views))

    def receivers(self, group: str, heard: int) -> list[str]:
        """The members of this node that get a broadcast from a node that has heard this one so far."""
        own = self._own.counts.get(group, ())
        return sorted(pid for pid in own if pid not in self._since or heard < self._since[pid])

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
        actions = self._set_local(pid, dict.fromkeys(self._by_pid.get(pid, ()), 0))
        self._since.pop(pid, None)
        self._former.discard(pid)
        return actions

    # -- processes that move

    def memberships(self, pid: str) -> dict[str, int]:
        """By group, how often the process has joined."""
        return dict(self._by_pid.get(pid, {}))

    def set_apart(self, pid: str) -> list[Action]:
        """The process is frozen, and may live elsewhere from now on."""
        counts = self._by_pid.get(pid, {})
        if not counts or pid in self._since:
            return []
        self._since[pid] = self._own.seq + 1
        return self._change([Change(group, pid, times, apart=True) for group, times in counts.items()])

    def arrived(self, pid: str, counts: Mapping[str, int]) -> list[Action]:
        """The process lives here now, with these memberships. Of one that comes back something may be left."""
        self._former.discard(pid)
        self._since.setdefault(pid, 0)
        return self._set_local(pid, {**dict.fromkeys(self._by_pid.get(pid, ()), 0), **counts})

    def departed(self, pid: str) -> bool:
        """The process lives elsewhere; whether it is announced here, until ``forget``."""
        if pid not in self._by_pid:
            self._since.pop(pid, None)
            return False
        self._former.add(pid)
        return True

    def is_handed_over(self, pid: str) -> bool:
        """Whether another node announces one that departed from here, as far as this node has heard."""
        groups = self._by_pid.get(pid, ())
        return pid not in self._former or any(view.count(g, pid) for view in self._views.values() for g in groups)

    def forget(self, pid: str) -> list[Action]:
        """Announce a process no more that departed."""
        return self.process_ended(pid) if pid in self._former else []

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
        return self._differences(view, View(0)) if view is not None else []

    def changed(self, node: str, generation: int, seq: int, changes: Iterable[Change]) -> list[Action]:
        """A peer announced changes under its number ``seq``."""
        if not self._is_of(node, generation):
            return []
        view = self._views.get(node)
        if view is None or view.generation < generation:
            if seq != 1:
                return self._ask(node)
            fresh = View(generation)
            for change in changes:
                fresh.put(change)
            return self.state(node, generation, 1, fresh.counts, fresh.apart)
        if view.generation > generation or seq <= view.seq:
            return []
        if seq != view.seq + 1:
            return self._ask(node)
        view.seq = seq
        return self._apply(view, changes)

    def state(
        self,
        node: str,
        generation: int,
        seq: int,
        counts: Mapping[str, Mapping[str, int]],
        apart: Mapping[str, Collection[str]] = NOBODY,
    ) -> list[Action]:
        """A peer told everything it has at its number ``seq``."""
        if not self._is_of(node, generation):
            return []
        self._asked.discard(node)
        view = self._views.get(node)
        if view is not None and (view.generation, view.seq) >= (generation, seq):
            return []
        copied = {group: dict(members) for group, members in counts.items() if members}
        return self._replace(node, View(generation, seq, copied, {group: set(pids) for group, pids in apart.items()}))

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
        changed = {group: now for group, now in counts.items() if before.get(group, 0) != now}
        if not changed:
            return []
        kept = {group: times for group, times in counts.items() if times}
        if kept:
            self._by_pid[pid] = kept
        else:
            self._by_pid.pop(pid, None)
        return self._change([Change(group, pid, now, pid in self._since) for group, now in changed.items()])

    def _change(self, changes: list[Change]) -> list[Action]:
        self._own.seq += 1
        return [Announce(self._own.seq, tuple(changes)), *self._apply(self._own, changes)]

    def _replace(self, node: str, view: View) -> list[Action]:
        before = self._views.get(node, View(0))
        self._views[node] = view
        return self._differences(before, view)

    def _is_of(self, node: str, generation: int) -> bool:
        """Whether this is of the life of the node that is registered now."""
        return self._peers.get(node) == generation >> GENERATION_BITS

    def _ask(self, node: str) -> list[Action]:
        if node in self._asked:
            return []
        self._asked.add(node)
        return [Ask(node)]

    # -- what is told: the most any one node announces, so that a member two nodes announce is one

    def _apply(self, view: View, changes: Iterable[Change]) -> list[Action]:
        """Make the changes; what to tell of them. Its time does not grow with the members there are."""
        told: list[Action] = []
        for change in changes:
            group, pid = change.group, change.pid
            elsewhere = _most(self._others(group, view), group, pid)
            more = max(elsewhere, change.count) - max(elsewhere, view.count(group, pid))
            view.put(change)
            if more:
                told.append(Tell(more > 0, group, (pid,) * abs(more)))
        return told

    def _differences(self, before: View, after: View) -> list[Action]:
        """What to tell, group by group: first who left."""
        told: list[Action] = []
        for group in sorted({*before.counts, *after.counts}):
            others = self._others(group, after)
            if not any(group in view.apart for view in (before, after, *others)):
                others = []  # nobody is announced twice: that is tens of thousands of questions less
            for joined, more, fewer in ((False, before, after), (True, after, before)):
                pids = [
                    pid
                    for pid in sorted(more.counts.get(group, ()))
                    for _ in range(_gap(others, group, pid, more, fewer))
                ]
                if pids:
                    told.append(Tell(joined, group, tuple(pids)))
        return told

    def _others(self, group: str, but: View) -> list[View]:
        return [view for view in self._all() if view is not but and group in view.counts]


def _gap(others: list[View], group: str, pid: str, more: View, fewer: View) -> int:
    elsewhere = _most(others, group, pid)
    return max(elsewhere, more.count(group, pid)) - max(elsewhere, fewer.count(group, pid))


def _most(views: list[View], group: str, pid: str) -> int:
    """How often the process is a member as these have it."""
    return max((view.count(group, pid) for view in views), default=0)
