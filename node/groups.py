"""The process groups of this node: one ``GroupsCore`` per ``pg.scope``, and what it takes to perform its actions.

Nodes talk over the link, as everything a process can observe does: each has one address for groups, known to all,
and what is sent to it are messages. Those whose topic begins with ``@pg/`` carry membership, and no program can send
them. All others are broadcasts: one envelope per node that has members, with the group in the place of the name,
spread by the receiving node among the members it has then. So a broadcast keeps its place among the other messages
of its sender to that node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

import structlog

from cluster.envelope import MAX_MESSAGE, Envelope, Kind, pack, to_text
from cluster.groups import Action, Announce, Ask, Change, GroupsCore, SendState, Tell, View, generation
from cluster.members import Member
from cluster.pid import Pid, node_of
from cluster.registry import Entry
from cluster.tasks import Tasks
from node.kinds import decode
from node.kinds.groups import GroupScope

log = structlog.get_logger("wippy.groups")

ADDRESS = "node:groups"
PAGE = 2_000
"""Memberships in one message of a state."""
HANDED_WITHIN, HANDED_POLL = 10.0, 0.1
"""Seconds in which another node is to announce a member that moved there."""
HANDED_AFTER = 1.0
"""Seconds until the others have heard what this node has heard."""
CHANGES, STATE, DIGEST, ASK = b"@pg/changes", b"@pg/state", b"@pg/digest", b"@pg/ask"

Watcher: TypeAlias = Callable[[Tell], None]


class LimitReached(ValueError):
    """A scope holds as many groups or members as its entry allows."""


@dataclass
class Scope:
    """A scope as it is here."""

    id: str
    model: GroupScope
    core: GroupsCore
    watchers: list[Watcher] = field(default_factory=list)
    pages: dict[str, tuple[int, int, list[Any]]] = field(default_factory=dict)
    """Per node the pages of a state that is coming in: (generation, number, memberships so far)."""


def address(node: str, incarnation: int) -> bytes:
    """Where a node is told of groups."""
    return str(Pid(node, ADDRESS, incarnation, 0)).encode()


class Groups:
    """Handler of ``pg.scope``. ``route`` sends envelopes on their way, ``members`` gives the registered nodes."""

    name = "groups"

    def __init__(
        self,
        node: str,
        incarnation: int,
        route: Callable[[Envelope], None],
        members: Callable[[], Sequence[Member]],
        env: Callable[[str], str | None],
        tasks: Tasks,
        *,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self._node = node
        self._incarnation = incarnation
        self._route = route
        self._members = members
        self._env = env
        self._tasks = tasks
        self._max_message = max_message
        self._lives = count(1)
        self._scopes: dict[str, Scope] = {}
        self._comparing: dict[str, asyncio.Task[None]] = {}
        self._handing: dict[str, asyncio.Task[None]] = {}
        self.address = address(node, incarnation)

    # -- the scopes there are

    def handles(self, kind: str) -> bool:
        return kind == "pg.scope"

    async def put(self, entry: Entry) -> None:
        """Open the scope, or give it its limits; who is a member stays. Raises Invalid."""
        model = decode(entry, self._env)
        assert isinstance(model, GroupScope)
        scope = self._scopes.get(entry.id)
        if scope is None:
            core = GroupsCore(self._node, generation(self._incarnation, next(self._lives)))
            scope = self._scopes[entry.id] = Scope(entry.id, model, core)
            for member in self._peers():
                self._perform(scope, [*core.peer_came(member.node, member.incarnation), SendState(member.node)])
        scope.model = model
        self._compare_from_now_on(scope)

    async def remove(self, id: str) -> None:
        scope = self._scopes.pop(id, None)
        if scope is not None:
            self._comparing.pop(id).cancel()

    def find(self, id: str) -> Scope | None:
        return self._scopes.get(id)

    def ids(self) -> list[str]:
        return sorted(self._scopes)

    # -- what happens on this node

    def join(self, scope: Scope, pid: str, groups: Sequence[str]) -> None:
        """Raises LimitReached; then the process has joined none of the groups."""
        self._check_room(scope, groups)
        self._perform(scope, scope.core.join(pid, groups))

    def leave(self, scope: Scope, pid: str, groups: Sequence[str]) -> None:
        """Raises NotMember."""
        self._perform(scope, scope.core.leave(pid, groups))

    def process_ended(self, pid: bytes) -> None:
        text = pid.decode("utf-8", "surrogateescape")
        for scope in self._scopes.values():
            self._perform(scope, scope.core.process_ended(text))

    def broadcast(self, scope: Scope, group: str, sender: bytes, topic: bytes, payloads: list[Any]) -> None:
        """Send a message to every member on every node. Raises MessageTooBig, and sends nothing then."""
        place, core = _place(scope.id, group), scope.core
        pack([int(Kind.MESSAGE), self.address, sender, 0, topic, payloads, place, 0], self._max_message)
        incarnations = {member.node: member.incarnation for member in self._peers()}
        for node, heard in core.spreading(group):
            if node in incarnations:
                to = address(node, incarnations[node])
                self._route([int(Kind.MESSAGE), to, sender, 0, topic, payloads, place, heard])
        self._send_each([*core.together(group), *core.apart(group)], sender, topic, payloads)

    def broadcast_local(self, scope: Scope, group: str, sender: bytes, topic: bytes, payloads: list[Any]) -> None:
        """Send a message to every member that lives on this node."""
        self._send_each(scope.core.local_members(group), sender, topic, payloads)

    def _send_each(self, pids: Sequence[str], sender: bytes, topic: bytes, payloads: list[Any]) -> None:
        for pid in pids:
            to = pid.encode("utf-8", "surrogateescape")
            self._route([int(Kind.MESSAGE), to, sender, 0, topic, payloads, b"", 0])

    def watch(self, scope: Scope, watcher: Watcher) -> Callable[[], None]:
        """Tell ``watcher`` of every change from now on; returns the undo."""
        scope.watchers.append(watcher)
        return lambda: scope.watchers.remove(watcher) if watcher in scope.watchers else None

    def _check_room(self, scope: Scope, groups: Sequence[str]) -> None:
        model, core = scope.model, scope.core
        new = set(groups) - set(core.groups()) if model.max_groups else ()
        if new and len(core.groups()) + len(new) > model.max_groups:
            raise LimitReached(f"scope {scope.id} has {model.max_groups} groups, its max_groups; none was joined")
        for group in set(groups):
            if 0 < model.max_members_per_group < core.size(group) + groups.count(group):
                limit = f"{model.max_members_per_group} members, its max_members_per_group"
                raise LimitReached(f"group {group!r} of scope {scope.id} has {limit}; none was joined")

    # -- processes that move

    def memberships(self, pid: str) -> list[Any]:
        """The process is frozen: its groups, by scope. From now on whoever broadcasts sends to it by its PID."""
        kept = []
        for scope in self._scopes.values():
            counts = scope.core.memberships(pid)
            if counts:
                self._perform(scope, scope.core.set_apart(pid))
                kept.append([scope.id, counts])
        return kept

    def rejoin(self, pid: str, memberships: Any) -> None:
        """The process lives here now, with what ``memberships`` gave where it comes from. Limits don't keep it out."""
        former = self._handing.pop(pid, None)
        if former is not None:
            former.cancel()
        kept = dict(to_text(memberships))
        for scope in self._scopes.values():
            if scope.id in kept or scope.core.memberships(pid):
                self._perform(scope, scope.core.arrived(pid, kept.get(scope.id, {})))

    def left(self, pid: str) -> None:
        """The process lives elsewhere. It is announced here for a moment yet, lest a node hear that it is no member
        here before it hears of it from there."""
        departed = [scope for scope in self._scopes.values() if scope.core.departed(pid)]
        if departed and pid not in self._handing:
            self._handing[pid] = self._tasks.start(self._hand_over(pid), f"hand over {pid}")

    async def _hand_over(self, pid: str) -> None:
        try:
            async with asyncio.timeout(HANDED_WITHIN):
                while True:
                    await asyncio.sleep(HANDED_POLL)
                    if all(scope.core.is_handed_over(pid) for scope in self._scopes.values()):
                        break
                await asyncio.sleep(HANDED_AFTER)
        except TimeoutError:
            log.warning("a member that moved is announced by no other node; it is left", pid=pid)
        del self._handing[pid]
        for scope in list(self._scopes.values()):
            self._perform(scope, scope.core.forget(pid))

    # -- what happens to other nodes

    def member_changed(self, before: Member | None, after: Member | None) -> None:
        """A node registered, or its registration ended."""
        member = after or before
        if member is None or member.node == self._node:
            return
        if before is None:
            self._meet_soon(member.node)
        elif after is None:
            for scope in list(self._scopes.values()):
                scope.pages.pop(member.node, None)
                self._perform(scope, scope.core.peer_left(member.node))

    def link_closed(self, node: str, reason: str) -> None:
        """What was under way from the node may be lost: ask it for everything when it is still there."""
        self._meet_soon(node)

    def _meet_soon(self, node: str) -> None:
        # the links may hear of the node after this one
        asyncio.get_running_loop().call_soon(self._meet, node)

    def _meet(self, node: str) -> None:
        for member in self._peers():
            if member.node == node:
                for scope in list(self._scopes.values()):
                    self._perform(scope, scope.core.peer_came(node, member.incarnation))

    # -- what other nodes say

    def accept(self, envelope: Envelope) -> bool:
        """A message to this node's address; False when there is no such thing as it is for."""
        topic, payloads, place = envelope[4], envelope[5], envelope[6]
        if topic.startswith(b"@"):
            return self._heard(node_of(envelope[2]).decode("utf-8", "surrogateescape"), topic, payloads)
        id, _, group = place.decode("utf-8", "surrogateescape").partition(" ")
        scope = self._scopes.get(id)
        if scope is None or not group:
            return False
        self._send_each(scope.core.receivers(group, envelope[7]), envelope[2], topic, payloads)
        return True

    def _heard(self, node: str, topic: bytes, payloads: list[Any]) -> bool:
        try:
            scope = self._scopes.get(_text(payloads[0]))
            if scope is None:  # it is not open here yet; then it asks when it is
                return True
            match topic:
                case b"@pg/changes":
                    _, life, seq, changes = payloads
                    told = [_change(*row) for row in changes]
                    self._perform(scope, scope.core.changed(node, int(life), int(seq), told))
                case b"@pg/state":
                    self._heard_state(scope, node, *payloads[1:])
                case b"@pg/digest":
                    self._perform(scope, scope.core.digest(node, int(payloads[1]), int(payloads[2])))
                case b"@pg/ask":
                    self._perform(scope, scope.core.asked(node))
                case _:
                    return False
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            log.error("what a node says of groups can't be read", peer=node, topic=repr(topic), error=repr(error))
            return False
        return True

    def _heard_state(
        self, scope: Scope, node: str, life: int, seq: int, page: int, pages: int, some: list[Any]
    ) -> None:
        former = scope.pages.pop(node, None)
        known = former[2] if former is not None and former[:2] == (life, seq) and page > 1 else []
        known = [*known, *some]
        if page < pages:
            scope.pages[node] = (life, seq, known)
            return
        heard = View(life, seq)
        for row in known:
            heard.put(_change(*row))
        self._perform(scope, scope.core.state(node, life, seq, heard.counts, heard.apart))

    # -- performing

    def _perform(self, scope: Scope, actions: Sequence[Action]) -> None:
        own = scope.core.own
        for action in actions:
            match action:
                case Announce(seq, changes):
                    told = [_row(change.group, change.pid, change.count, change.apart) for change in changes]
                    for member in self._peers():
                        self._say(member.node, CHANGES, scope, own.generation, seq, told)
                case SendState(node):
                    self._send_state(scope, node)
                case Ask(node):
                    self._say(node, ASK, scope)
                case Tell():
                    for watcher in list(scope.watchers):
                        watcher(action)

    def _send_state(self, scope: Scope, node: str) -> None:
        own = scope.core.own
        every = [
            _row(group, pid, times, pid in own.apart.get(group, ()))
            for group, some in own.counts.items()
            for pid, times in some.items()
        ]
        pages = [every[at : at + PAGE] for at in range(0, len(every), PAGE)] or [[]]
        for number, page in enumerate(pages, 1):
            self._say(node, STATE, scope, own.generation, own.seq, number, len(pages), page)

    def _say(self, node: str, topic: bytes, scope: Scope, *rest: Any) -> None:
        for member in self._peers():
            if member.node == node:
                to = address(node, member.incarnation)
                payloads = [_raw(one) for one in (scope.id, *rest)]
                self._route([int(Kind.MESSAGE), to, self.address, 0, topic, payloads, b"", 0])

    def _compare_from_now_on(self, scope: Scope) -> None:
        former = self._comparing.pop(scope.id, None)
        if former is not None:
            former.cancel()
        self._comparing[scope.id] = self._tasks.start(self._compare(scope), f"compare {scope.id}")

    async def _compare(self, scope: Scope) -> None:
        """Tell the others, now and then, how far this node is: who has missed something asks for it."""
        interval = scope.model.anti_entropy_interval.total_seconds()
        while interval > 0:
            await asyncio.sleep(interval)
            own = scope.core.own
            for member in self._peers():
                self._say(member.node, DIGEST, scope, own.generation, own.seq)

    def _peers(self) -> list[Member]:
        return [member for member in self._members() if member.node != self._node]


def _place(scope: str, group: str) -> bytes:
    """A group as it stands in a broadcast, in the place of a name; no scope has a blank in it."""
    return f"{scope} {group}".encode("utf-8", "surrogateescape")


def _row(group: str, pid: str, times: int, apart: bool) -> list[Any]:
    """A membership as nodes tell of it; the last item only where it is true."""
    return [group, pid, times, True] if apart else [group, pid, times]


def _change(group: bytes, pid: bytes, times: int, apart: bool = False) -> Change:
    return Change(_text(group), _text(pid), int(times), bool(apart))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _raw(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "surrogateescape")
        case list():
            return [_raw(one) for one in value]
        case _:
            return value
