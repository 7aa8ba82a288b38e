"""Processes that come: asked about, collected, and handed to the core that commits them."""

from __future__ import annotations

import time

import structlog

from cluster.envelope import Envelope
from cluster.migration.arrival import Stage
from cluster.migration.items import Refused
from cluster.pid import uniq_of
from cluster.tasks import Tasks
from node.moving import wire
from node.moving.cores import Cores
from node.moving.moved import Coming, Moved
from node.moving.taking import Taking

log = structlog.get_logger("wippy.moving")

RESERVED = 30.0
"""Seconds a reservation waits for the state."""


class Arrivals:
    """What other nodes send of processes that are to come here."""

    def __init__(self, cores: Cores, taking: Taking, tasks: Tasks) -> None:
        self._cores = cores
        self._taking = taking
        self._tasks = tasks

    def ask(self, peer: str, envelope: Envelope) -> None:
        """A node asks whether a process may come; it is answered when that is known."""
        self._tasks.start(self._asked(peer, envelope), f"ask {uniq_of(envelope[1]).decode()}")

    async def _asked(self, peer: str, envelope: Envelope) -> None:
        uniq, attempt = uniq_of(envelope[1]), envelope[3]
        try:
            wanted, coming = wire.Wanted.of(envelope[4]), len(self._cores.coming)
            problem = await self._taking.problem(wanted, self._cores.belongings, coming)
        except ValueError as error:
            problem = str(error)
        if problem:
            self._cores.performer.put(
                peer, wire.envelope_of(Refused(attempt, problem), wire.address(uniq), self._cores.node)
            )
            return
        moved = self._cores.table.get(uniq)
        if moved is None:
            moved = self._cores.known(uniq, peer)
            moved.gone_at = time.monotonic()
        core = self._cores.core(moved)
        actions = core.asked(peer, attempt)
        if core.arrival is not None and core.arrival.awaits(peer, attempt):
            moved.coming = Coming(peer, attempt, time.monotonic())
        self._cores.perform(moved, actions)

    def state(self, peer: str, envelope: Envelope, moved: Moved | None) -> None:
        _, _, _, attempt, chunk, of, part = envelope
        coming = moved.coming if moved is not None else None
        if moved is None or coming is None or (coming.source, coming.attempt) != (peer, attempt):
            if chunk in (0, of - 1):
                self._refuse(peer, uniq_of(envelope[1]), attempt, "there is no reservation any more")
            return
        if chunk != len(coming.parts) or not part or coming.size + len(part) > wire.MOST_STATE:
            moved.coming = None
            log.error("the state of a process came in disorder; it is refused", peer=peer, chunk=chunk, of=of)
            self._refuse(peer, moved.uniq, attempt, "its state came in disorder")
            return
        coming.parts.append(part)
        coming.size += len(part)
        coming.at = time.monotonic()
        if len(coming.parts) == of:
            moved.coming = None
            self._complete(moved, coming)

    def _complete(self, moved: Moved, coming: Coming) -> None:
        """All of the state is here."""
        try:
            parcel = wire.parcel_of(b"".join(coming.parts))
        except ValueError as error:
            log.error("the state of a process can't be read", peer=coming.source, problem=str(error))
            self._refuse(coming.source, moved.uniq, coming.attempt, str(error))
            return
        body: wire.Body = parcel.body
        moved.pid = body.pid.encode("utf-8", "surrogateescape")
        try:
            parcel = self._taking.adapted(parcel, self._cores.belongings)
            moved.expected = parcel.holdings
            for part in self._cores.belongings:
                part.expect(body.pid, parcel.holdings)
        except Exception:  # nothing is committed yet: the process stays where it is
            log.exception("what a process brings can't be taken", pid=body.pid, peer=coming.source)
            self._refuse(
                coming.source, moved.uniq, coming.attempt, f"node {self._cores.node} can't take what it brings"
            )
            return
        self._cores.perform(moved, self._cores.core(moved).parcel_arrived(coming.source, parcel))

    def _refuse(self, peer: str, uniq: bytes, attempt: int, reason: str) -> None:
        refused = wire.envelope_of(Refused(attempt, reason), wire.address(uniq), self._cores.node)
        self._cores.performer.put(peer, refused)

    def link_closed(self, moved: Moved, node: str) -> None:
        """What of a state was under way is lost."""
        if moved.coming is not None and moved.coming.source == node:
            moved.coming = None

    def look(self, moved: Moved, now: float) -> None:
        """A state that does not come any more is not waited for."""
        core, coming = moved.core, moved.coming
        if core is None or core.arrival is None or core.arrival.stage is not Stage.RESERVED:
            return
        if coming is None or now - coming.at > RESERVED:
            moved.coming = None
            self._cores.perform(moved, core.expire_reservation())
