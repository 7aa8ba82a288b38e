"""What crosses between Python and the kernel: the items, and how their values are converted.

Items are lists whose first item says what they are. Below 32 they are envelopes, laid out as
in ``cluster.envelope``. Texts are bytes both ways; values are None, bool, int, float, bytes,
list and dict.

Into a VM, besides envelopes (a SPAWN's and CALL's ``options`` may hold monitor, link, name,
messages ``[[topic, payloads], ...]``, context, tracked, timeout in milliseconds):

    [40, operation, error | None, values]   answer to [50] or [52]; error is an error map
    [41, stream, value]                     feed one value to a stream's channel
    [42, stream]                            the stream ended: its channel closes
    [43, name, pid | b"", revision]         a name changed hands, or is free
    [44, [ids]]                             entries changed: forget their code, and what imports them
    [45, node, reason]                      the node, or the link to it, is gone
    [46, query, what, argument]             b"list" | b"inspect" | b"counters" | b"mail"; answered by [54]
    [48, reason, grace_seconds]             CANCEL to every process, kill what is left after grace; then [55]

Out of a VM, besides envelopes for processes that are not in it:

    [50, operation, pid, entry, module, function, args]   wants an answer
    [51, pid, entry, module, function, args]              wants none
    [52, operation, entry]                                wants the code package of an entry
    [53, pid, entry, error | None]          a process ended that had names or streams, or was spawned tracked
    [54, query, value]                      answer to [46]
    [55]                                    nothing lives any more, after [48]
    [56, operation]                         nobody waits for that operation any more
    [57, text]                              something is wrong in the kernel or with an item it was given

A code package is a dict: id, kind, source (already transformed by the dialect), method, modules
(list), imports {alias: id}, version (of the registry), context (optional); keys and texts bytes.

Numbers keep their kind: a Lua integer is an int of 64 bits, a float stays a float even when it
is whole. A Python int beyond 64 bits becomes a float. A Lua table whose keys are exactly 1..n is
a list, an empty one an empty list, any other a dict with keys of bytes, int, float or bool
(``true`` and 1 are one key in Python). None inside of a list is a hole in Lua; only the lists of
values, payloads and arguments themselves keep theirs, because their length travels along.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeAlias

import lupa.lua54 as lupa

from cluster.envelope import Kind, to_raw

Item: TypeAlias = list[Any]


class In(IntEnum):
    """Items into a VM, besides envelopes."""

    ANSWER = 40
    FEED = 41
    FEED_END = 42
    NAME = 43
    CODE_CHANGED = 44
    NODE_GONE = 45
    QUERY = 46
    STOP = 48


class Out(IntEnum):
    """Items out of a VM, besides envelopes."""

    CALL = 50
    CAST = 51
    CODE = 52
    ENDED = 53
    QUERY_ANSWER = 54
    STOPPED = 55
    TAKEN_BACK = 56
    COMPLAINT = 57


_table_type: type = type(lupa.LuaRuntime(register_eval=False, register_builtins=False).table())


def prepare(item: Item) -> Item:
    """An item as the kernel wants it: lists that may have holes are followed by their length."""
    match item[0]:
        case Kind.MESSAGE:
            return [*item[:8], len(item[5])]
        case Kind.SPAWN | Kind.CALL:
            return [*item[:7], len(item[5])]
        case In.ANSWER:
            values = item[3] or []
            return [*item[:2], to_raw(item[2]), to_raw(values), len(values)]
        case In.FEED:
            return [*item[:2], to_raw(item[2])]
        case _:
            return item


def into_lua(table_from: Callable[..., Any], items: list[Item]) -> Any:
    """A Lua table of prepared items, in one call."""
    return table_from([prepare(item) for item in items], recursive=True)


def from_lua(value: Any) -> Any:
    """A Lua value in Python. Tables are copied whole; the kernel sends no cycles."""
    if type(value) is not _table_type:
        return value
    table: Any = value
    pairs = list(table.items())
    if not pairs:
        return []
    first, last = pairs[0][0], pairs[-1][0]
    if first == 1 and last == len(pairs) and first is not True and _are_in_order(pairs):
        return [from_lua(item) if type(item) is _table_type else item for _, item in pairs]
    if _are_positions(pairs):
        pairs.sort(key=lambda pair: pair[0])
        return [from_lua(item) for _, item in pairs]
    return {key: from_lua(item) if type(item) is _table_type else item for key, item in pairs}


def items_from_lua(table: Any) -> list[Item]:
    """The items a step gave: the table of them and each item are arrays without holes."""
    return [
        [from_lua(part) if type(part) is _table_type else part for part in item.values()] for item in table.values()
    ]


def _are_in_order(pairs: list[tuple[Any, Any]]) -> bool:
    return all(type(key) is int and key == position for position, (key, _) in enumerate(pairs, 1))


def _are_positions(pairs: list[tuple[Any, Any]]) -> bool:
    return {key for key, _ in pairs if type(key) is int} == set(range(1, len(pairs) + 1))
