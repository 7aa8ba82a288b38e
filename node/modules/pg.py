"""Module ``pg``: process groups. Members are processes of any node; who joined leaves with its end.

Joining, leaving and the look-ups are answered at once from what this node knows. A broadcast waits while too much
waits for a node that has members, so that nothing of it is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from cluster.envelope import to_raw
from cluster.groups import NotMember, Tell
from node.groups import Groups, LimitReached, Scope
from node.modules.contract import Answer, Caller, LuaError, Stream, Values, argument, invalid, text

MAX_NAME = 255
POLL = 0.01


class PgModule:
    """Python half of ``pg``. ``congested`` says whether too much waits for a node."""

    name = "pg"
    deadlines: Mapping[str, timedelta | None] = {}

    def __init__(self, groups: Groups, congested: Callable[[str], bool]) -> None:
        self._groups = groups
        self._congested = congested
        self._functions: dict[str, Callable[[Caller, Scope, Values], Answer]] = {
            "open": lambda caller, scope, args: [True],
            "join": self._join,
            "leave": self._leave,
            "get_members": lambda caller, scope, args: [scope.core.members(_group(args))],
            "get_local_members": lambda caller, scope, args: [scope.core.local_members(_group(args))],
            "which_groups": lambda caller, scope, args: [scope.core.groups()],
            "which_local_groups": lambda caller, scope, args: [scope.core.local_groups()],
            "broadcast": self._broadcast,
            "broadcast_local": self._broadcast_local,
        }

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        if fn in ("monitor", "events"):
            return self._watch(caller, fn, args)
        if fn == "close":
            return self._close(caller, args)
        function = self._functions.get(fn)
        if function is None:
            raise invalid(f"pg has no function {fn!r}")
        return function(caller, self._scope(argument(args, 0)), args[1:])

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"pg.{fn} wants an answer")

    def _scope(self, value: Any) -> Scope:
        id = text(value, "scope id")
        scope = self._groups.find(id)
        if scope is None:
            known = ", ".join(self._groups.ids()) or "none"
            raise LuaError("Internal", f"no pg.scope {id!r} on this node; its scopes are: {known}", retryable=False)
        return scope

    def _join(self, caller: Caller, scope: Scope, args: Values) -> Values:
        try:
            self._groups.join(scope, caller.pid_text, _group_list(args))
        except LimitReached as error:
            raise LuaError("RateLimited", str(error), retryable=True) from None
        return [True]

    def _leave(self, caller: Caller, scope: Scope, args: Values) -> Values:
        try:
            self._groups.leave(scope, caller.pid_text, _group_list(args))
        except NotMember as error:
            raise invalid(str(error)) from None
        return [True]

    def _broadcast(self, caller: Caller, scope: Scope, args: Values) -> Answer:
        group, topic, payloads = _message(args)
        if any(self._congested(node) for node in scope.core.nodes_with(group)):
            return self._broadcast_when_there_is_room(caller, scope, group, topic, payloads)
        self._groups.broadcast(scope, group, caller.pid, topic, payloads)
        return [True]

    async def _broadcast_when_there_is_room(
        self, caller: Caller, scope: Scope, group: str, topic: bytes, payloads: list[Any]
    ) -> Values:
        while True:
            await asyncio.sleep(POLL)
            if not any(self._congested(node) for node in scope.core.nodes_with(group)):
                break
        self._groups.broadcast(scope, group, caller.pid, topic, payloads)
        return [True]

    def _broadcast_local(self, caller: Caller, scope: Scope, args: Values) -> Values:
        group, topic, payloads = _message(args)
        self._groups.broadcast_local(scope, group, caller.pid, topic, payloads)
        return [True]

    def _watch(self, caller: Caller, fn: str, args: Values) -> Values:
        """Subscribe and look, in one go: no change slips in between."""
        number, scope = argument(args, 0), self._scope(argument(args, 1))
        group = _group(args[2:]) if fn == "monitor" else None
        stream = caller.streams.opened(caller, number)
        stream.on_end(self._groups.watch(scope, lambda told: _push(stream, group, told)))
        if group is not None:
            return [scope.core.members(group)]
        return [{name: scope.core.members(name) for name in scope.core.groups()}]

    def _close(self, caller: Caller, args: Values) -> Values:
        stream = caller.streams.find(caller, argument(args, 0))
        if stream is not None:
            stream.end()
        return [True]


def _push(stream: Stream, group: str | None, told: Tell) -> None:
    if group in (None, told.group):
        kind = "member.joined" if told.joined else "member.left"
        data = {"Group": told.group, "PIDs": list(told.pids)}
        stream.push(to_raw({"system": "pg", "kind": kind, "path": told.group, "data": data}))


def _group(args: Values) -> str:
    return _name(argument(args, 0))


def _name(value: Any) -> str:
    name = text(value, "group")
    if len(value) > MAX_NAME:
        raise invalid(f"expected the name of a group to have at most {MAX_NAME} bytes, got {name[:80]!r}...")
    return name


def _group_list(args: Values) -> list[str]:
    """The names of a batch, or the one name."""
    value = argument(args, 0)
    if isinstance(value, list) and value:
        return [_name(one) for one in value]
    if isinstance(value, list | dict):
        raise invalid("group: expected a name or a list of names, got an empty or other table")
    return [_name(value)]


def _message(args: Values) -> tuple[str, bytes, list[Any]]:
    group, topic, payloads = _group(args), text(argument(args, 1), "topic"), list(args[2:])
    if topic.startswith("@"):
        raise invalid(f"topic {topic!r}: expected a name that doesn't begin with '@'")
    return group, topic.encode("utf-8", "surrogateescape"), payloads
