"""What crosses between Python and the kernel: the items, and how their values are converted.

Items are lists whose first item says what they are. Below 32 they are envelopes, laid out as
in ``cluster.envelope``. Texts are bytes both ways; values are None, bool, int, float, bytes,
list and dict.

Into a VM, besides envelopes (a SPAWN's and CALL's ``options`` may hold monitor, link, name,
messages ``[[topic, payloads], ...]``, context, tracked, timeout in milliseconds):

    [37, node, congested]                   too much waits for the node: senders wait; or there is room again
    [38, slot, n]                           one of n processes started here is for that worker of the host; 0: none
    [39, in_doubt]                          the lease of this node, and with it names held here, may be over, or is sure
    [40, operation, error | None, values]   answer to [50] or [52]; error is an error map
    [41, stream, value]                     feed one value to a stream's channel
    [42, stream]                            the stream ended: its channel closes
    [43, name, pid | b"", revision]         a name changed hands, or is free
    [44, [ids]]                             entries changed: forget their code, and what imports them
    [45, node, reason]                      the node, or the link to it, is gone
    [46, query, what, argument]             b"list" | b"look" | b"inspect" | b"counters" | b"mail" ...; answered by [54]
    [47, [nodes]]                           the nodes of the cluster as this one sees them
    [48, reason, grace_seconds, deadline]   CANCEL to every process, kill what is left after grace; then [55]. deadline
                                            is the end of it for the processes, in ms since 1970
    [49, text]                              an item that had no form; only made here
    [70, [[uniq, node], ...]]               these processes have moved, or are about to, and live on that node now; no
                                            node: they have ended, or are where their PIDs say again
    [71, pid, move, to, deadline]           the process is asked to leave; deadline is a time in ms since 1970
    [72, pid, move]                         after [62]: all that came before is given; answered by [63]
    [73, pid, move, reason]                 the move is given up: the process goes on here
    [74, pid, move]                         it runs elsewhere: forget it, telling nobody
    [75, pid, text, parent]                 run the process that came, from the text of a [63]; parent is who keeps it
    [76, pid, watcher, watch, number]       the watcher is to hear of its end; answered by [64]

Out of a VM, besides envelopes for processes that are not in it:

    [50, operation, pid, entry, module, function, args]   wants an answer
    [51, pid, entry, module, function, args]              wants none
    [52, operation, entry]                                wants the code package of an entry
    [53, pid, entry, error | None]          a process ended that had names or streams, or was spawned tracked; also
                                            one that ended before it had the name that [43] gave it
    [54, query, value]                      answer to [46]
    [55]                                    nothing lives any more, after [48]
    [56, operation]                         nobody waits for that operation any more
    [57, text]                              something is wrong in the kernel or with an item it was given
    [58, pid]                               a process was upgraded: what streamed into it ends, its names stay
    [59, to, from, topic, name, reason]     a message by name that came back reached nobody
    [60, pid, caller]                       a function runs for a process that may own something
    [61, pid, move, reason]                 the process can't leave, and goes on: answers [71]
    [62, pid, move, entry]                  it has handed over its state, nothing of it runs; entry is what it is to run
    [63, pid, move, text, watchers]         what it is, for [75]; watchers are [pid, watch]. Nothing of it comes after
    [64, pid, watcher, watch, number, alive]
    [65, pid, watcher, watch, is_on]        a process here watches one that has moved, or does not any more

A code package is a dict: id, kind, source (already transformed by the dialect), method, modules
(list), imports {alias: id}, version (of the registry), context (optional); keys and texts bytes.

All the items of a step cross as one text of msgpack, strings in the str family: an array of
items out of the VM, an array of texts with an item each into it, so that one without form spoils
no other. The kernel reads and writes it (node/lua/kernel/codec.lua) while Python goes on, and
nothing but plain data has a form in it: no Python object can get in.

Numbers keep their kind: a Lua integer is an int of 64 bits, a float stays a float even when it
is whole. A Lua table whose keys are exactly 1..n is a list, an empty one an empty list, any other
a dict with keys of bytes, int, float or bool (``true`` and 1 are one key in Python). None inside
of a list is a hole in Lua; only the lists of values, payloads and arguments themselves keep theirs.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeAlias

import msgpack

from cluster.envelope import error_map

Item: TypeAlias = list[Any]


class In(IntEnum):
    """Items into a VM, besides envelopes."""

    CONGESTION = 37
    ELSEWHERE = 38
    NAMES_IN_DOUBT = 39
    ANSWER = 40
    FEED = 41
    FEED_END = 42
    NAME = 43
    CODE_CHANGED = 44
    NODE_GONE = 45
    QUERY = 46
    NODES = 47
    STOP = 48
    MALFORMED = 49
    MOVED = 70
    MIGRATE = 71
    FREEZE = 72
    THAW = 73
    DROP = 74
    ADOPT = 75
    WATCH = 76


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
    UPGRADED = 58
    DEAD_LETTER = 59
    RUNS_FOR = 60
    UNMOVABLE = 61
    LEAVING = 62
    LUGGAGE = 63
    WATCHED = 64
    WATCHES = 65


class ItemPacker:
    """Packs items for one kernel. One thread at a time."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(use_bin_type=False, unicode_errors="surrogateescape", autoreset=True)

    def pack(self, item: Item) -> bytes:
        """One item as text for the kernel.

        What has no form becomes [49, what is wrong], an answer an error: it must not end a VM, and nobody
        may wait for an answer that never comes.
        """
        try:
            packed: bytes = self._packer.pack(item)
        except (TypeError, ValueError, OverflowError) as error:
            self._packer.reset()
            packed = self._packer.pack(_instead_of(item, error))
        return packed


def _instead_of(item: Item, error: Exception) -> Item:
    problem = f"item {item[:1]!r} is not plain data: {error}"
    if item[0] == In.ANSWER:
        return [int(In.ANSWER), item[1], error_map("Internal", problem), []]
    return [int(In.MALFORMED), problem]


def pack_batch(texts: list[bytes]) -> bytes:
    """Packed items as the text of a step."""
    packed: bytes = msgpack.packb(texts, use_bin_type=False)
    return packed


def unpack_batch(text: bytes) -> list[Item]:
    """The items a step gave."""
    items: list[Item] = msgpack.unpackb(text, raw=True, strict_map_key=False)
    return items
