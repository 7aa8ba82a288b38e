"""What is sent to processes that have moved, and what nodes and VMs say of them."""

from __future__ import annotations

import time

from cluster.envelope import Envelope, Kind
from cluster.migration import MoveCore, Stamps
from cluster.migration.actions import Action
from cluster.migration.items import HERE, Assertion, Flush, Item, Way
from cluster.pid import slot_of, uniq_of
from node.host.boundary import Out
from node.moving import wire
from node.moving.arrivals import Arrivals
from node.moving.cores import Cores
from node.moving.departures import Departures
from node.moving.moved import Moved
from node.moving.settling import Settling


class Traffic:
    """Everything addressed to a process in the table goes through here, and so to its core."""

    def __init__(
        self, cores: Cores, stamps: Stamps, departures: Departures, arrivals: Arrivals, settling: Settling
    ) -> None:
        self._cores = cores
        self._stamps = stamps
        self._departures = departures
        self._arrivals = arrivals
        self._settling = settling

    def take(self, envelope: Envelope) -> None:
        """The router has an envelope of a process of this node for one in the table."""
        moved = self._cores.table[uniq_of(envelope[1])]
        moved.pid = moved.pid or envelope[1]
        number = self._stamps.next()
        self._note_port(moved, envelope)
        message = wire.message_of(envelope, self._cores.node, number)
        if moved.core is not None or moved.node == self._cores.node:
            self._arrived(moved, message, HERE)
        else:
            self._cores.performer.put(moved.node, wire.envelope_of(message, moved.pid, self._cores.node))

    def take_from(self, peer: str, envelope: Envelope) -> None:
        """An envelope came over the link from a node that did not know yet that its process may move."""
        moved = self._cores.table[uniq_of(envelope[1])]
        moved.pid = moved.pid or envelope[1]
        self._arrived(moved, wire.message_of(envelope, peer, 0), Way(peer))

    def _note_port(self, moved: Moved, envelope: Envelope) -> None:
        """Ports of this node that watch: of all others the VMs tell."""
        if envelope[0] in (Kind.MONITOR, Kind.LINK, Kind.UNMONITOR, Kind.UNLINK) and slot_of(envelope[2]) == 0:
            watch = 1 if envelope[0] in (Kind.MONITOR, Kind.UNMONITOR) else 2
            self._watch(moved, envelope[2], watch, envelope[0] in (Kind.MONITOR, Kind.LINK))

    def _arrived(self, moved: Moved, item: Item, way: Way) -> None:
        leaving = moved.leaving
        if leaving is not None and leaving.held is not None and not isinstance(item, Flush):
            leaving.held.append((item, way))  # a flush is answered: what is held goes along, or is delivered here
            return
        self._cores.perform(moved, self._cores.core(moved).arrived(item, way))

    def heard(self, peer: str, envelope: Envelope) -> bool:
        """What another node says about a process that moves; False when it makes no sense."""
        if not wire.is_wellformed(envelope):
            return False
        kind, uniq = envelope[0], uniq_of(envelope[1])
        moved = self._cores.table.get(uniq)
        match kind:
            case Kind.FORWARD | Kind.FLUSH | Kind.WATCH:
                self._for_process(peer, envelope, moved or self._stranger(uniq))
            case Kind.LINK_FLUSH:
                self._settling.link_flush(peer, envelope)
            case Kind.LINK_FLUSHED if self._settling.link_flushed(peer, envelope):
                pass
            case Kind.MOVE_ASK:
                self._arrivals.ask(peer, envelope)
            case Kind.MOVE_STATE:
                self._arrivals.state(peer, envelope, moved)
            case _ if moved is not None and moved.core is not None:
                self._cores.perform(moved, self._said(moved.core, peer, envelope))
        return True

    def _for_process(self, peer: str, envelope: Envelope, moved: Moved) -> None:
        if envelope[1][1:2] != b"|":
            moved.pid = moved.pid or envelope[1]
        self._arrived(moved, *wire.item_of(envelope, peer))

    def _stranger(self, uniq: bytes) -> Moved:
        """A process whose key is not here (any more), though a node speaks of it: soon forgotten again."""
        moved = self._cores.known(uniq, self._cores.node if self._cores.is_born_here(uniq) else "")
        moved.gone_at = time.monotonic()
        return moved

    def _said(self, core: MoveCore, peer: str, envelope: Envelope) -> list[Action]:
        number = envelope[3]
        match envelope[0]:
            case Kind.FLUSHED:
                return core.flushed(peer, Flush(envelope[2].decode("utf-8", "surrogateescape"), number))
            case Kind.LINK_FLUSHED:
                return core.link_flushed(peer, number)
            case Kind.MOVE_RESERVED:
                return core.reserved(peer, number)
            case Kind.MOVE_REFUSED:
                return core.refused(peer, number, envelope[4].decode("utf-8", "replace"))
            case Kind.WATCHED:
                watcher = wire.watcher_of(self._cores.node, envelope[2], envelope[4])
                return core.answer_assertion(Assertion(watcher, number), envelope[5])
            case _:
                return []

    def from_vm(self, item: Envelope) -> None:
        """An item [61] to [65] of a VM."""
        moved = self._cores.table.get(uniq_of(item[2] if item[0] == Out.WATCHES else item[1]))
        if moved is None:
            return  # it has been forgotten meanwhile: the process has ended
        match item[0]:
            case Out.UNMOVABLE:
                self._departures.unmovable(moved, item)
            case Out.LEAVING:
                self._departures.leaving(moved, item)
            case Out.LUGGAGE:
                self._departures.luggage(moved, item)
            case Out.WATCHED:
                self._cores.performer.answered(moved, *item[2:])
                self._cores.tidy(moved)
            case Out.WATCHES:
                moved.pid = moved.pid or item[2]
                self._watch(moved, item[1], item[3], item[4])

    def _watch(self, moved: Moved, watcher: bytes, watch: int, is_on: bool) -> None:
        core = self._cores.core(moved)
        one = wire.watcher_of(self._cores.node, watcher, watch)
        if is_on:
            self._cores.perform(moved, core.watch(one))
        else:
            core.unwatch(one)
            self._cores.tidy(moved)

    def exit_heard(self, envelope: Envelope) -> None:
        """An EXIT of a process in the table is about to be delivered here."""
        moved = self._cores.table[uniq_of(envelope[2])]
        if moved.core is not None and envelope[4] in (1, 2):
            watcher = wire.watcher_of(self._cores.node, envelope[1], envelope[4])
            self._cores.perform(moved, moved.core.exit_heard(watcher))
