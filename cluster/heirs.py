"""Replicas that are started on another node before they end on their own (``handover: start-first``).

The owner of a claim names an heir: the key ``heirs/<service>/<replica>`` on the owner's lease, whose value is the
node that is to run the replica next. From then on the owner's process is fenced by that key in the place of the claim.
The heir starts its process, fenced by a key beside it on its own lease (``.begun``), and takes the claim and the
names over in one transaction, which compares all three. So:

    taking back    the owner deletes its wish: from then on the claim can't be taken over
    giving up      the heir deletes its own key; the owner sees that
    either ends    its keys go with its lease

Every token belongs to one process: the claim's, the wish's, that of ``.begun``, then the claim's new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import structlog

from cluster import owned
from cluster.claims import Claim, parse
from cluster.errors import OutcomeUnknown, Unavailable
from cluster.etcd import Batch, Compare, Etcd, Get, KeyEvent, KeyValue, PrefixWatch, Put
from cluster.handlers import Handlers
from cluster.keys import Keys
from cluster.migration.items import Holding

log = structlog.get_logger("wippy.claims")

PAUSE = 0.2
"""Seconds until etcd is asked again what became of something."""
Replica = tuple[str, int]


@dataclass(frozen=True)
class Heir:
    """``node`` is to run the replica next; ``token`` is the mod_revision of the wish."""

    service: str
    replica: int
    node: str
    token: int


class Inherited(Enum):
    """What became of a wish for a name that somebody has."""

    NO = "no"
    """It is no name to be inherited."""
    MINE = "mine"
    AGAIN = "again"
    """It may be free now."""


class Heirs:
    """The watched copy, and the changes both sides make. Make it before the watch starts."""

    def __init__(self, etcd: Etcd, watch: PrefixWatch, keys: Keys, node: str) -> None:
        self._etcd = etcd
        self._keys = keys
        self._node = node.encode("utf-8", "surrogateescape")
        self._heirs: dict[Replica, Heir] = {}
        self._begun: dict[Replica, int] = {}
        self._handlers: Handlers[[]] = Handlers("change of an heir")
        watch.subscribe(keys.heirs, self._apply)

    def get(self, service: str, replica: int) -> Heir | None:
        return self._heirs.get((service, replica))

    def has_begun(self, service: str, replica: int) -> bool:
        """Whether the heir has begun to start its process, and has not given up."""
        return (service, replica) in self._begun

    def all(self) -> list[Heir]:
        return list(self._heirs.values())

    def on_change(self, handler: Callable[[], None]) -> None:
        self._handlers.add(handler)

    # -- the owner

    async def name(self, service: str, replica: int, node: str, lease: int) -> int:
        """Wish that ``node`` takes the replica over; the token. Raises Unavailable or OutcomeUnknown."""
        value = node.encode("utf-8", "surrogateescape")
        former = self._heirs.get((service, replica))
        key = self._keys.heir(service, replica)
        return await self._create(key, value, lease, None if former is None else former.token)

    async def withdraw(self, service: str, replica: int, token: int) -> int:
        """Take the wish back: no heir takes the claim after the revision that is returned. Raises as ``name``; doing it
        again is harmless."""
        return (await owned.delete(self._etcd, self._keys.heir(service, replica), token)).revision

    # -- the heir

    async def begin(self, service: str, replica: int, lease: int) -> int:
        """Say that this node begins; the token of its process until it has the claim. Raises as ``name``."""
        former = self._begun.get((service, replica))
        return await self._create(self._keys.heir_begun(service, replica), self._node, lease, former)

    async def end(self, service: str, replica: int, token: int) -> None:
        """Delete what ``begin`` has made. Raises as ``name``; doing it again is harmless."""
        await owned.delete(self._etcd, self._keys.heir_begun(service, replica), token)

    async def take(self, heir: Heir, claim: Claim, begun: int, lease: int, names: Sequence[Holding] = ()) -> int | None:
        """Take over the claim, and names with the values they are to have; the new token, or None when the wish was
        taken back or the claim or a name is not what it was. Asks until etcd has said; raises LeaseGone."""
        key = self._keys.service(heir.service, heir.replica)
        compares = [
            Compare.mod(key, "=", claim.token),
            Compare.mod(self._keys.heir(heir.service, heir.replica), "=", heir.token),
            Compare.mod(self._keys.heir_begun(heir.service, heir.replica), "=", begun),
            *(Compare.mod(name.key, "=", name.revision) for name in names),
        ]
        puts = [Put(key, self._node, lease), *(Put(name.key, name.value, lease) for name in names)]
        while True:
            try:
                result = await self._etcd.txn(compares, puts, [Get(key)])
            except (OutcomeUnknown, Unavailable):
                await asyncio.sleep(PAUSE)
                continue
            if result.succeeded:
                return result.revision
            match result.responses:
                case [[KeyValue() as kv, *_]] if kv.lease == lease and kv.value == self._node:
                    return kv.mod_revision  # by a try whose answer was lost
            return None

    async def _create(self, key: str, value: bytes, lease: int, former: int | None) -> int:
        """Create the key in the place of what is left over, so that no token is had twice."""
        if former is not None:
            await owned.delete(self._etcd, key, former)
        holding = await owned.create(self._etcd, key, value, lease)
        if not holding.ours:
            raise Unavailable(f"{key} is held by another node")
        return holding.token

    def _apply(self, batch: Batch) -> None:
        for event in batch.events:
            try:
                service, replica, is_begun = parse(event.kv.key.removeprefix(self._keys.heirs), ".begun")
            except ValueError as error:
                log.error("a key under heirs/ can't be read; it is ignored", key=event.kv.key, error=str(error))
                continue
            if is_begun:
                self._apply_begun((service, replica), event)
            else:
                self._apply_heir((service, replica), event)
        self._handlers.tell()

    def _apply_begun(self, key: Replica, event: KeyEvent) -> None:
        self._begun.pop(key, None)
        if not event.deleted:
            self._begun[key] = event.kv.mod_revision

    def _apply_heir(self, key: Replica, event: KeyEvent) -> None:
        self._heirs.pop(key, None)
        if not event.deleted:
            self._heirs[key] = Heir(*key, event.kv.value.decode("utf-8", "surrogateescape"), event.kv.mod_revision)
