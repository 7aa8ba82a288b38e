"""Whether all that was under way to a node, or through it, has arrived.

A node is asked by LINK_FLUSH and answers when all that came over that link before has arrived. What waits here for a
process that moves has not, as long as etcd has not decided where that is. What this node had to forward for processes
that left it is under way again: it asks those it forwarded to, and answers when they have. So what a process sends from
its new place can't overtake what it sent before, also when the receiver is one that moves. In the same way a process
does not leave before what it sent has left this node (``when_clear``).

All that is waited for is decided by etcd or a link, never by another process that waits in this way: what is held for
one that is about to be sent goes with it, and counts as arrived; what begins on this node has not come over a link.

A node that is about to end asks all others: every one must have seen where the processes are that left here, what was
on its way must have come, and what is forwarded must have arrived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.envelope import Envelope, Kind
from cluster.errors import CallTimeout, ClusterError
from cluster.migration import Place
from node.moving.moved import Moved
from node.moving.wire import address

POLL = 0.01
ANYBODY = address(b"")


class Links(Protocol):
    """What is needed of the links."""

    def send(self, node: str, envelope: Envelope) -> None: ...

    def open_nodes(self) -> frozenset[str]: ...


@dataclass
class _Asked:
    """A question, and who has not answered it."""

    peers: set[str]
    then: Callable[[], None]


class Settling:
    """The questions of this node, and its answers to those of others."""

    def __init__(
        self,
        node: str,
        table: Mapping[bytes, Moved],
        links: Links,
        everywhere: Callable[[int, float], Awaitable[None]],
    ) -> None:
        self._own = node.encode()
        self._table = table
        self._links = links
        self._everywhere = everywhere
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self._forwarded: dict[str, int] = {}
        self._holding: set[bytes] = set()
        self._waiting: list[tuple[set[bytes], Callable[[], None]]] = []

    def note(self, moved: Moved) -> None:
        """Something has happened to a process: what waited for it may be on its way."""
        core = moved.core
        if core is not None and core.holds:
            self._holding.add(moved.uniq)
        elif moved.uniq in self._holding:
            self._holding.discard(moved.uniq)
            self._let_go(moved.uniq)

    def _let_go(self, uniq: bytes) -> None:
        clear: list[Callable[[], None]] = []
        for waiting, then in self._waiting:
            waiting.discard(uniq)
            if not waiting:
                clear.append(then)
        self._waiting = [one for one in self._waiting if one[0]]
        for then in clear:
            then()

    def when_clear(self, then: Callable[[], None]) -> None:
        """Call back once all that waits here now has gone on, at once if nothing does."""
        self._when_let_go(set(self._holding), then)

    def _when_let_go(self, waiting: set[bytes], then: Callable[[], None]) -> None:
        if waiting:
            self._waiting.append((waiting, then))
        else:
            then()

    def forwarded(self, node: str) -> None:
        """Something that came here was passed on to ``node``."""
        self._forwarded[node] = self._forwarded.get(node, 0) + 1

    def link_flush(self, peer: str, envelope: Envelope) -> None:
        """``peer`` asks."""
        held = {uniq for uniq in self._holding if _holds_from_links(self._table.get(uniq))}
        self._when_let_go(held, lambda: self._ask_onward(peer, envelope))

    def _ask_onward(self, peer: str, envelope: Envelope) -> None:
        """Nobody is asked twice on one way."""
        _, to, _, number, passed = envelope
        onward = {node: count for node, count in self._forwarded.items() if node.encode() not in passed}

        def answer() -> None:
            for node, count in onward.items():
                if self._forwarded.get(node) == count:  # nothing has been passed on to it since
                    del self._forwarded[node]
            self._send(peer, [int(Kind.LINK_FLUSHED), to, b"", number])

        self._ask(onward, [*passed, self._own], answer)

    def link_flushed(self, peer: str, envelope: Envelope) -> bool:
        """``peer`` answers; False when it was asked by the core of a process."""
        if envelope[1] != ANYBODY:
            return False
        self._answered(envelope[3], peer)
        return True

    def link_closed(self, node: str) -> None:
        """What was on the link is gone, or has arrived."""
        self._forwarded.pop(node, None)
        for number in list(self._asked):
            self._answered(number, node)

    async def settled(self, within: float) -> bool:
        """Whether nothing comes through here any more for processes that left, now or within so many seconds."""
        deadline = time.monotonic() + within
        left = [moved for moved in self._table.values() if _is_left(moved)]
        if not left:
            return True
        try:
            await self._everywhere(max(moved.revision for moved in left), within)
        except CallTimeout:
            return False
        answered = asyncio.Event()
        self._ask(self._links.open_nodes(), [self._own], answered.set)
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                await answered.wait()
                while any(_relays(moved) for moved in self._table.values()):  # noqa: ASYNC110 - of many, and short
                    await asyncio.sleep(POLL)
        except TimeoutError:
            return False
        return True

    async def flushed(self, within: float) -> bool:
        """Whether all that the other nodes have sent this one has arrived, within so many seconds."""
        answered = asyncio.Event()
        self._ask(self._links.open_nodes(), [self._own], answered.set)
        try:
            async with asyncio.timeout(within):
                await answered.wait()
        except TimeoutError:
            return False
        return True

    def _ask(self, peers: Iterable[str], passed: Sequence[bytes], then: Callable[[], None]) -> None:
        self._number += 1
        number = self._number
        waiting = set(peers)
        self._asked[number] = _Asked(waiting, then)
        for peer in sorted(waiting):
            if not self._send(peer, [int(Kind.LINK_FLUSH), ANYBODY, b"", number, list(passed)]):
                waiting.discard(peer)
        self._look(number)

    def _answered(self, number: int, peer: str) -> None:
        asked = self._asked.get(number)
        if asked is not None:
            asked.peers.discard(peer)
            self._look(number)

    def _look(self, number: int) -> None:
        if not self._asked[number].peers:
            self._asked.pop(number).then()

    def _send(self, peer: str, envelope: Envelope) -> bool:
        try:
            self._links.send(peer, envelope)
        except ClusterError:
            return False  # with the link all that was on it is gone
        return True


def _holds_from_links(moved: Moved | None) -> bool:
    return moved is not None and moved.core is not None and moved.core.holds_from_links


def _is_left(moved: Moved) -> bool:
    return moved.core is not None and moved.core.place is Place.TOMBSTONE


def _relays(moved: Moved) -> bool:
    return moved.core is not None and (moved.core.relaying > 0 or moved.core.redirect.pending is not None)
