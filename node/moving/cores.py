"""The cores of a node: one for each process that moves, for as long as more is to be decided than where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.keys import Keys
from cluster.members import Member
from cluster.migration import MoveCore, Place
from cluster.migration.actions import Action
from cluster.migration.belongings import Belongings
from cluster.migration.transactions import Found, Registration
from cluster.pid import node_of, slot_of, uniq_of
from node.moving import wire
from node.moving.guests import Guests
from node.moving.moved import Moved
from node.moving.performing import Performer
from node.router import Home, Router

FIRST_STEP = 1_000_000
"""Between the first numbers of two cores."""
NOBODY = Registration(0, 0)


class Cores:
    """The table of processes that have moved or are about to, and whoever decides about them."""

    def __init__(
        self,
        node: str,
        incarnation: int,
        keys: Keys,
        router: Router,
        is_open: Callable[[str], bool],
        members: Callable[[], list[Member]],
        belongings: Sequence[Belongings],
        performer: Performer,
    ) -> None:
        self.node = node
        self.belongings = belongings
        self.performer = performer
        self.table: dict[bytes, Moved] = {}
        self.guests = Guests(self.table, performer.kill)
        self._incarnation = incarnation
        self._keys = keys
        self._router = router
        self._links_open = is_open
        self._members = members
        self._own: Registration | None = None
        self._first = 0
        self.coming: set[bytes] = set()
        """Those that are to come here, or may."""
        self.on_change: Callable[[Moved], None] = lambda moved: None
        """Something has happened to a process."""
        performer.feed = self.perform

    @property
    def lease(self) -> int:
        """Of this node, 0 while it is not registered."""
        return self._own.lease if self._own else 0

    def where(self, pid: bytes) -> str:
        moved = self.table.get(uniq_of(pid))
        if moved is None:
            return node_of(pid).decode("utf-8", "surrogateescape")
        core = moved.core
        if core is None or core.place not in (Place.RUNS, Place.TOMBSTONE):
            return moved.node
        # this node knew before the watch
        return self.node if core.place is Place.RUNS else core.redirect.route

    def inbox_of(self, pid: bytes) -> Home | None:
        moved = self.table.get(uniq_of(pid))
        return moved.inbox if moved is not None else None

    def known(self, uniq: bytes, node: str) -> Moved:
        moved = self.table.get(uniq)
        if moved is None:
            moved = self.table[uniq] = Moved(uniq, node)
        return moved

    def core(self, moved: Moved) -> MoveCore:
        if moved.core is not None:
            return moved.core
        is_own = self.is_born_here(moved.uniq)
        core = moved.core = MoveCore(
            self.node,
            self.node if is_own else "",
            moved.uniq.decode(),
            self._keys,
            self._own or NOBODY,
            self._is_open,
            first=self._first,
        )
        self._first += FIRST_STEP
        if is_own:
            moved.inbox = self._router.slots.get(slot_of(wire.address(moved.uniq)))
        else:
            core.listed(Found(moved.node, moved.revision))
        if self._own is None:
            self.performer.perform(moved, core.lease_lost())
        return core

    def _is_open(self, node: str) -> bool:
        return node == self.node or self._links_open(node)

    def is_born_here(self, uniq: bytes) -> bool:
        return _incarnation(uniq) == self._incarnation

    def birth(self, uniq: bytes) -> str:
        """The node a process was born on, if that still runs."""
        if self.is_born_here(uniq):
            return self.node
        incarnation = _incarnation(uniq)
        return next((member.node for member in self._members() if member.incarnation == incarnation), "")

    def perform(self, moved: Moved, actions: list[Action]) -> None:
        self.performer.perform(moved, actions)
        self.tidy(moved)

    def tidy(self, moved: Moved) -> None:
        core = moved.core
        if moved.expected is not None and (core is None or core.arrival is None):
            holdings, moved.expected = moved.expected, None
            for part in self.belongings:
                part.lost(moved.pid.decode("utf-8", "surrogateescape"), holdings)
        self.guests.note(moved)
        self.on_change(moved)
        if core is not None and core.arrival is not None:
            self.coming.add(moved.uniq)
        else:
            self.coming.discard(moved.uniq)
        if core is not None and moved.is_idle:
            moved.core = None

    def with_cores(self) -> list[Moved]:
        return [moved for moved in self.table.values() if moved.core is not None]

    def registered(self, own: Registration) -> None:
        """This node is registered, for the first time or again, perhaps under the same lease."""
        self._own = own
        for moved in self.with_cores():
            assert moved.core is not None
            self.perform(moved, moved.core.registered(own))

    def unregistered(self, epoch: int) -> None:
        """That registration of this node has ended: for all others its guests have, whatever becomes of the lease."""
        if self._own is not None and self._own.epoch == epoch:
            self.lease_lost()

    def lease_lost(self) -> None:
        """The lease is over for certain."""
        self._own = None
        for moved in self.with_cores():
            assert moved.core is not None
            self.perform(moved, moved.core.lease_lost())


def _incarnation(uniq: bytes) -> int:
    try:
        return int(uniq.partition(b"-")[0], 36)
    except ValueError:
        return 0
