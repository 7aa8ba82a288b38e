"""Two bare VMs of two nodes, and as much of the nodes as it takes to move processes between them.

What leaves a VM is carried to wherever the process is that it is for, in order, one VM at a time;
what comes for a process that is leaving is held. A test says when a process is to leave and where
it goes on.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from cluster.envelope import Kind
from node.host.boundary import In, Item, Out
from tests.luaworld import OUTSIDE, World

ENVELOPES = frozenset(range(Kind.MESSAGE, Kind.MESSAGES + 1))
DEADLINE = 1_735_474_000_000
"""When processes are to have left, in ms since 1970."""


def uniq_of(pid: bytes) -> bytes:
    return pid[pid.index(b"|") + 1 : -1]


class TwoNodes:
    """The worlds of two nodes and the way between them."""

    def __init__(self) -> None:
        self.worlds = {b"n1": World(), b"n2": World(node="n2", incarnation=2)}
        self.worlds[b"n2"].entries = self.worlds[b"n1"].entries
        self.told: list[Item] = []
        """What came for the test, or for nobody, in order."""
        self.watches: set[tuple[bytes, bytes, int]] = set()
        """(watcher, watched, watch) of those who watch a process that has moved."""
        self._moves = 0
        self._moved: dict[bytes, bytes] = {}
        self._luggage: dict[bytes, Item] = {}
        self._leaving: dict[bytes, int] = {}
        self._held: dict[bytes, list[Item]] = defaultdict(list)

    def place_of(self, pid: bytes) -> bytes:
        return self._moved.get(uniq_of(pid), pid[1 : pid.index(b"@")])

    def world_of(self, pid: bytes) -> World:
        return self.worlds[self.place_of(pid)]

    def put(self, item: Item) -> None:
        """An envelope, to wherever the process is."""
        pid = item[1]
        if pid in self._luggage or pid in self._leaving:
            self._held[pid].append(item)
        elif b"@node:" in pid or self.place_of(pid) not in self.worlds:
            self.told.append(item)
        else:
            self.world_of(pid).post(item)

    def send(self, pid: bytes, topic: str, *payloads: Any, sender: bytes = OUTSIDE) -> None:
        self.put([int(Kind.MESSAGE), pid, sender, 0, topic.encode(), list(payloads), b"", 0])

    def run(self) -> list[Item]:
        """Carry all there is until nothing is left to carry. Returns what came for the test."""
        mark = len(self.told)
        is_busy = True
        while is_busy:
            is_busy = False
            for world in self.worlds.values():
                out = world.run()
                is_busy = is_busy or bool(out)
                for item in out:
                    self._carry(world, item)
        return self.told[mark:]

    def _carry(self, world: World, item: Item) -> None:
        match item[0]:
            case kind if kind in ENVELOPES:
                self.put(item)
            case Out.LEAVING:
                self._leaving[item[1]] = item[2]
                world.post([In.FREEZE, item[1], item[2]])
            case Out.UNMOVABLE:
                self._release(item[1])
                self.told.append(item)
            case Out.LUGGAGE:
                self._leaving.pop(item[1])
                self._luggage[item[1]] = item
            case Out.WATCHES:
                (self.watches.add if item[4] else self.watches.discard)((item[1], item[2], item[3]))
            case _:
                self.told.append(item)

    def _release(self, pid: bytes) -> None:
        self._luggage.pop(pid, None)
        self._leaving.pop(pid, None)
        for item in self._held.pop(pid, []):
            self.put(item)

    def _tell(self, pid: bytes, node: bytes) -> None:
        self._moved[uniq_of(pid)] = node
        for world in self.worlds.values():
            world.post([In.MOVED, [[uniq_of(pid), node]]])

    def other(self, pid: bytes) -> bytes:
        return b"n2" if self.place_of(pid) == b"n1" else b"n1"

    def ask(self, pid: bytes) -> int:
        """Ask a process to leave, without running anything. Returns the number of the move."""
        self._moves += 1
        self._tell(pid, self.place_of(pid))
        self.world_of(pid).post([In.MIGRATE, pid, self._moves, self.other(pid), DEADLINE])
        return self._moves

    def is_frozen(self, pid: bytes) -> bool:
        return pid in self._luggage

    def settle(self, pid: bytes, *, stays: bool = False) -> None:
        """A process that is frozen goes on: elsewhere, or where it is. Nothing runs yet."""
        source, luggage = self.world_of(pid), self._luggage[pid]
        if stays:
            source.post([In.THAW, pid, luggage[2], b"the target went away"])
        else:
            self._tell(pid, self.other(pid))
            source.post([In.DROP, pid, luggage[2]])
            self.world_of(pid).post([In.ADOPT, pid, luggage[3], b""])
        self._release(pid)

    def move(self, pid: bytes) -> None:
        """Move a process that hands its state over when asked to."""
        self.ask(pid)
        self.run()
        assert self.is_frozen(pid), self.told[-3:]
        self.settle(pid)
        self.run()

    def spawn(self, id: str, *args: Any, node: bytes = b"n1") -> bytes:
        world = self.worlds[node]
        reference = world.post_spawn(id, *args)
        reply = next(item for item in self.run() if item[0] == Kind.REPLY and item[3] == reference)
        assert reply[4] == 0, reply
        pid: bytes = reply[5]
        return pid

    def messages(self, topic: str) -> list[Any]:
        """The first payload of what came for the test on a topic, in order."""
        wanted = topic.encode()
        return [
            item[5][0] for item in self.told if item[0] == Kind.MESSAGE and item[1] == OUTSIDE and item[4] == wanted
        ]

    def exits(self, pid: bytes) -> list[Item]:
        return [item for item in self.told if item[0] == Kind.EXIT and item[2] == pid]
