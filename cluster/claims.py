"""Claims: which node runs which replica of a service.

A claim is the key ``services/<service>/<replica>`` on its node's lease, created only if absent; its mod_revision is
the fencing token of the replica. What the owner says about it (PID, since when) stands in the sibling ``.state`` key
on the same lease, written only while the claim is held. A claim is released only by its owner, after the process has
ended; with the lease it goes by itself. It changes its node, and its token with it, without having been absent in two
ways only: its process moves there, in the transaction that moves the process (see ``cluster.migration``), or the heir
its owner has named takes it over (see ``cluster.heirs``).

The view is the watched copy: milliseconds behind etcd, in etcd's order.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import structlog

from cluster import owned
from cluster.avoids import Avoid
from cluster.errors import OutcomeUnknown
from cluster.etcd import Batch, Compare, Etcd, KeyEvent, PrefixWatch, Put
from cluster.handlers import Handlers
from cluster.keys import Keys
from cluster.migration.items import Holding

log = structlog.get_logger("wippy.claims")

_STATE = ".state"


@dataclass(frozen=True)
class ClaimState:
    """What the owner says about its replica. ``since`` is ISO 8601 in UTC."""

    node: str
    pid: str
    since: str
    incarnation: int

    def to_json(self) -> bytes:
        return json.dumps(vars(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, value: bytes) -> ClaimState:
        """Raises ValueError when ``value`` is not what ``to_json`` writes."""
        try:
            fields = json.loads(value)
            return cls(str(fields["node"]), str(fields["pid"]), str(fields["since"]), int(fields["incarnation"]))
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"expected the state of a replica, got {value[:200]!r} ({error!r})") from None


@dataclass(frozen=True)
class Claim:
    """One held replica. ``token`` is the fencing token; ``state`` None until the owner wrote it."""

    service: str
    replica: int
    node: str
    token: int
    lease: int
    state: ClaimState | None = None


ClaimChange: TypeAlias = Callable[[Claim | None, Claim | None], None]
"""``handler(before, after)``. A replica that changed its owner is two changes: (old, None), (None, new)."""


class Claims:
    """The claims of the cluster, and how this node makes its own. Make it before the watch starts."""

    def __init__(self, etcd: Etcd, watch: PrefixWatch, keys: Keys, node: str) -> None:
        self._etcd = etcd
        self._watch = watch
        self._keys = keys
        self._node = node
        self._claims: dict[tuple[str, int], Claim] = {}
        self._ordered: list[Claim] | None = None
        self._states: dict[tuple[str, int], ClaimState] = {}
        self._state_revisions: dict[tuple[str, int], int] = {}
        self._handlers: Handlers[Claim | None, Claim | None] = Handlers("change of a claim")
        watch.subscribe(keys.services, self._apply)

    def get(self, service: str, replica: int) -> Claim | None:
        return self._claims.get((service, replica))

    def all(self) -> list[Claim]:
        """Every claim, by service and replica."""
        if self._ordered is None:
            self._ordered = [self._claims[key] for key in sorted(self._claims)]
        return list(self._ordered)

    def own(self) -> list[Claim]:
        return [claim for claim in self.all() if claim.node == self._node]

    @property
    def applied(self) -> int:
        """The view is etcd's state at this revision, or a later one."""
        return self._watch.applied

    async def reached(self, revision: int) -> None:
        """Return when the view is at this revision. Raises CallTimeout."""
        await self._watch.reached(revision)

    def holdings(self, service: str, replica: int) -> tuple[Holding, ...]:
        """The keys of a claim whose owner has said where it runs, as they stand in etcd; of any other, none."""
        key = (service, replica)
        claim = self._claims.get(key)
        if claim is None or claim.state is None:
            return ()
        return (
            Holding(self._keys.service(*key), claim.node.encode("utf-8", "surrogateescape"), claim.token),
            Holding(self._keys.service_state(*key), claim.state.to_json(), self._state_revisions[key]),
        )

    def on_change(self, handler: ClaimChange) -> None:
        """Call ``handler`` for each change from now on, on the loop, in etcd's order."""
        self._handlers.add(handler)

    async def claim(self, service: str, replica: int, lease: int, timeout: float = 5.0) -> int | None:
        """Claim a replica for this node; the fencing token, or None when another has it.

        Returns when the own view shows it. Raises Unavailable when nothing was claimed, OutcomeUnknown.
        """
        key = self._keys.service(service, replica)
        holding = await owned.create(self._etcd, key, self._node.encode(), lease)
        if not holding.ours:
            return None
        await self._watch.reached(holding.token, timeout)
        return holding.token

    async def write_state(self, service: str, replica: int, token: int, lease: int, state: ClaimState) -> bool:
        """Say where the replica runs; False when the claim is not held under ``token`` any more.

        Raises Unavailable or OutcomeUnknown; writing it again is harmless.
        """
        held = Compare.mod(self._keys.service(service, replica), "=", token)
        put = Put(self._keys.service_state(service, replica), state.to_json(), lease)
        for attempt in range(3):
            try:
                return (await self._etcd.txn([held], [put])).succeeded
            except OutcomeUnknown:
                if attempt == 2:
                    raise
                await asyncio.sleep(owned.PAUSE)
        raise AssertionError("unreachable")

    async def release(self, service: str, replica: int, token: int, avoid: Avoid | None = None) -> bool:
        """Give the claim back, after the process has ended; False when it was not held under ``token`` any more.

        ``avoid`` is written in the same transaction, so that no node sees the replica free without it.
        """
        state = self._keys.service_state(service, replica)
        puts = [] if avoid is None else [Put(self._keys.avoid(service, self._node), avoid.to_json(), avoid.lease)]
        deletion = await owned.delete(self._etcd, self._keys.service(service, replica), token, state, puts=puts)
        return deletion.done

    def _apply(self, batch: Batch) -> None:
        for event in batch.events:
            try:
                service, replica, is_state = parse(event.kv.key.removeprefix(self._keys.services))
                if is_state:
                    self._apply_state((service, replica), event)
                else:
                    self._apply_claim((service, replica), event)
            except ValueError as error:
                log.error("a key under services/ can't be read; it is ignored", key=event.kv.key, error=str(error))

    def _apply_claim(self, key: tuple[str, int], event: KeyEvent) -> None:
        if event.deleted:
            self._change(key, None)
            return
        kv = event.kv
        node = kv.value.decode("utf-8", "surrogateescape")
        self._change(key, Claim(*key, node, kv.mod_revision, kv.lease, self._states.get(key)))

    def _apply_state(self, key: tuple[str, int], event: KeyEvent) -> None:
        state = None if event.deleted else ClaimState.from_json(event.kv.value)
        if state is None:
            self._states.pop(key, None)
            self._state_revisions.pop(key, None)
        else:
            self._states[key] = state
            self._state_revisions[key] = event.kv.mod_revision
        claim = self._claims.get(key)
        if claim is not None:
            self._change(key, replace(claim, state=state))

    def _change(self, key: tuple[str, int], after: Claim | None) -> None:
        before = self._claims.get(key)
        if before is not None and after is not None and before.token != after.token:
            self._change(key, None)
            before = None
        if before == after:
            return
        self._ordered = None
        if after is None:
            del self._claims[key]
        else:
            self._claims[key] = after
        self._handlers.tell(before, after)


def parse(path: str, suffix: str = _STATE) -> tuple[str, int, bool]:
    """Service, replica and whether it is the key beside that one, from what follows ``services/`` or the prefix of a
    key that is named the same way. Raises ValueError."""
    service, slash, last = path.rpartition("/")
    if not slash or not service:
        raise ValueError(f"expected <service>/<replica>, got {path!r}")
    number = last.removesuffix(suffix)
    return service, int(number), number != last
