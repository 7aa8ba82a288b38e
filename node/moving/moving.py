"""Processes that move: the shell around one core (``cluster.migration``) per process that this node has to do with.

The router asks here about every envelope whose process is in the table; the links, the watch of ``moved/``, the VMs and
the lease tell what happens. The way of a process out of its VM::

    move -> [71] MIGRATE -> the program: process.upgrade -> [62] LEAVING: from here on what arrives is held
         -> [72] FREEZE: the last before that is in its mailbox -> [63] LUGGAGE -> the state goes to the target
         -> moved/P names the target: [74] DROP, and what was held is forwarded; or [73] THAW

Where it goes: MOVE_ASK is answered when this node could run it, MOVE_STATE is collected, committed, and [75] ADOPT.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from cluster.envelope import Envelope
from cluster.etcd import Batch, Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.members import Member
from cluster.migration import Place, Stamps
from cluster.migration.belongings import Belongings
from cluster.migration.transactions import Found
from cluster.pid import slot_of, uniq_of
from cluster.tasks import Tasks
from node.host.boundary import In
from node.moving.arrivals import Arrivals
from node.moving.cores import Cores
from node.moving.departures import WITHIN, Departures, Memberships, Shown
from node.moving.moved import Moved, Outcome
from node.moving.performing import Groups, Performer, Places
from node.moving.settling import Settling
from node.moving.taking import Taking
from node.moving.traffic import Traffic
from node.router import Home, Router

LOOK = 1.0
"""Seconds between two looks at what waits."""
FORGOTTEN = 5.0
"""Seconds a process whose key is gone stays in the table: its end may still be on its way."""


class Links(Protocol):
    """What is needed of the links."""

    def send(self, node: str, envelope: Envelope) -> None: ...

    def is_open(self, node: str) -> bool: ...

    def open_nodes(self) -> frozenset[str]: ...


class Hosts(Places, Shown, Protocol):
    """What is needed of the hosts."""

    def post_to_all(self, item: Envelope) -> None: ...


class AllGroups(Groups, Memberships, Protocol):
    """What is needed of the process groups."""


@dataclass(frozen=True)
class Around:
    """The rest of the node, as far as moves ask it. ``version`` is the registry's, ``everywhere`` waits until all nodes
    have seen a revision."""

    members: Callable[[], list[Member]]
    version: Callable[[], int]
    keeper_of: Callable[[str], bytes]
    everywhere: Callable[[int, float], Awaitable[None]]


class Moving:
    """The moves of one node. ``async with`` runs it; ``registered`` makes it able to move anything."""

    def __init__(
        self,
        node: str,
        incarnation: int,
        etcd: Etcd,
        watch: PrefixWatch,
        keys: Keys,
        links: Links,
        router: Router,
        hosts: Hosts,
        belongings: Sequence[Belongings],
        groups: AllGroups,
        taking: Taking,
        around: Around,
    ) -> None:
        self._node = node
        self._prefix = keys.moved
        self._hosts = hosts
        self._begun = False
        self._news: list[list[bytes]] = []
        self._tasks = Tasks("moving")
        performer = Performer(
            node,
            etcd,
            links,
            router,
            hosts,
            belongings,
            groups,
            around.keeper_of,
            lambda: self._cores.lease,
            self._tasks,
        )
        self._cores = Cores(node, incarnation, keys, router, links.is_open, around.members, belongings, performer)
        self._table = self._cores.table
        self._settling = Settling(node, self._table, links, around.everywhere)
        performer.on_forwarded, self._cores.on_change = self._settling.forwarded, self._settling.note
        self._departures = Departures(
            self._cores, hosts, groups, links.open_nodes, around.version, self._settling.when_clear
        )
        self._arrivals = Arrivals(self._cores, taking, self._tasks)
        self._traffic = Traffic(self._cores, Stamps(incarnation), self._departures, self._arrivals, self._settling)
        self.guests = self._cores.guests
        self.verdicts = self._departures.verdicts
        self.settled, self.flushed = self._settling.settled, self._settling.flushed
        self.from_vm = self._traffic.from_vm
        self.registered, self.lease_lost = self._cores.registered, self._cores.lease_lost
        watch.subscribe(keys.moved, self._apply)
        self._wire(router)

    def _wire(self, router: Router) -> None:
        router.moves = self._table
        router.on_moved = self._traffic.take
        router.on_moved_from = self._traffic.take_from
        router.on_about_moved = self._traffic.heard
        router.on_exit_of_moved = self._traffic.exit_heard
        router.find_moved = self._cores.inbox_of
        router.ports.where = lambda pid: self._cores.where(pid).encode()

    async def __aenter__(self) -> Self:
        self._tasks.start(self._keep_house(), "housekeeping")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()

    # -- what others ask

    def where(self, pid: str) -> str:
        """The node a process is on, as far as is known here."""
        return self._cores.where(_raw(pid))

    def slot(self, pid: bytes) -> int:
        """The slot of the VM a process of this node lives in."""
        inbox = self._cores.inbox_of(pid)
        return slot_of(pid) if inbox is None else inbox.slot

    def is_moving(self, pid: str) -> bool:
        """Whether a process of this node is about to leave it."""
        moved = self._table.get(uniq_of(_raw(pid)))
        return moved is not None and moved.leaving is not None

    async def move(self, pid: str, to: str, within: float = WITHIN) -> Outcome:
        """Move a process that runs here to node ``to``. It has ``within`` seconds to hand over its state."""
        return await self._departures.move(pid, to, within)

    # -- what the node tells

    def process_ended(self, pid: bytes) -> None:
        """A process of this node has ended, and has told its watchers."""
        moved = self._table.get(uniq_of(pid))
        if moved is not None and moved.core is not None and moved.core.place is Place.RUNS:
            moved.inbox = None
            self._cores.perform(moved, moved.core.exited())

    def vm_gone(self, vm: Home) -> None:
        """A VM has ended, and with it what lived there. What is frozen has not been told: should it stay, it ends."""
        for moved in self._table.values():
            if moved.inbox is vm:
                moved.inbox = None

    def link_closed(self, node: str, reason: str) -> None:
        for moved in self._cores.with_cores():
            assert moved.core is not None
            self._arrivals.link_closed(moved, node)
            self._cores.perform(moved, moved.core.link_closed(node))
        self._settling.link_closed(node)

    def member_changed(self, before: Member | None, after: Member | None) -> None:
        """Told when the links know of it as well."""
        member = after or before
        if member is None:
            return
        if member.node == self._node:
            if after is None:
                self._cores.unregistered(member.epoch)
            return
        for moved in self._cores.with_cores():
            assert moved.core is not None
            if after is None:
                self._cores.perform(moved, moved.core.epoch_ended(member.node))
            elif before is None:
                self._cores.perform(moved, moved.core.link_opened(member.node))

    def greet(self, inbox: Home) -> None:
        """Tell a VM that begins who has moved."""
        news = [[moved.uniq, moved.node.encode()] for moved in self._table.values() if moved.revision]
        if news:
            inbox.post([int(In.MOVED), news])

    # -- what the watch says

    def _apply(self, batch: Batch) -> None:
        for event in batch.events:
            uniq = event.kv.key.removeprefix(self._prefix).encode()
            if event.deleted:
                self._key_gone(uniq)
            else:
                self._key_seen(uniq, event.kv.value.decode("utf-8", "surrogateescape"), event.kv.mod_revision)
        if self._news:
            news, self._news = self._news, []
            self._hosts.post_to_all([int(In.MOVED), news])
        if batch.relist and self._begun:
            for moved in self._cores.with_cores():
                assert moved.core is not None
                self._cores.perform(moved, moved.core.relisted())
        self._begun = self._begun or batch.relist

    def _key_seen(self, uniq: bytes, node: str, revision: int) -> None:
        moved = self._table.get(uniq)
        if moved is None:
            # a node that begins has sent nothing yet: there is no old way
            moved = self._cores.known(uniq, (self._cores.birth(uniq) if self._begun else "") or node)
        before, moved.gone_at, moved.revision = moved.node, None, revision
        if moved.core is not None or before != node or node == self._node:
            core = self._cores.core(moved)
            self._cores.perform(moved, core.moved_seen(Found(node, revision)))
            moved.node = node
            self._cores.tidy(moved)
        if moved.told != node:
            moved.told = node
            self._news.append([uniq, node.encode()])

    def _key_gone(self, uniq: bytes) -> None:
        moved = self._table.get(uniq)
        if moved is not None:
            moved.revision = 0
            moved.gone_at = time.monotonic()

    # -- time

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """What is to be done because time has passed."""
        for moved in self._cores.with_cores():
            core = moved.core
            assert core is not None
            if core.watches.unanswered:
                self._cores.perform(moved, core.assert_again())
            self._arrivals.look(moved, now)
        gone = [moved for moved in self._table.values() if _is_over(moved, now)]
        for moved in gone:
            del self._table[moved.uniq]
        if gone:
            self._hosts.post_to_all([int(In.MOVED), [[moved.uniq, b""] for moved in gone]])


def _is_over(moved: Moved, now: float) -> bool:
    """Whether nothing is to be known of a process any more: it has ended, or is where it was born, unmarked."""
    if moved.gone_at is None or now - moved.gone_at < FORGOTTEN or moved.leaving is not None:
        return False
    core = moved.core
    if core is None:
        return True
    if core.arrival is not None or core.redirect.pending is not None or core.is_deleting or core.watches.any:
        return False
    return core.relaying == 0 and not (core.place is Place.RUNS and core.is_guest)


def _raw(pid: str) -> bytes:
    return pid.encode("utf-8", "surrogateescape")
