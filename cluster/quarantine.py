"""Services that hang the node they run on, and the end of it: suspicion, quarantine, release.

Who is to blame for a lost node only the node itself can say. One that ends because a VM does not come back
from a step (fencing rule F2) looks, before it exits, whose turn it is there, and writes ``suspects/<service>/<epoch>``
when that is a process of a service, one such a process has started, or a function called by one. The key is on a
lease of its own that lasts ``WINDOW``: it outlives its node, and is forgotten without anybody's clock. A node that
vanishes without such a word - killed, cut off, without power - is held against no service: that most of what ran on
it ran on the next lost node too says nothing, when its services had gone there because of the first loss.

Two suspicions that stand at the same time quarantine the service: any node that sees both puts
``quarantine/<service>``, on no lease. It is started nowhere until an operator releases it, which deletes all
three keys at once; what runs of it goes on. Two keys make it, so a service costs two nodes and never a third.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from cluster.etcd import Batch, Compare, Delete, Etcd, PrefixWatch, Put
from cluster.handlers import Handlers
from cluster.keys import Keys

log = structlog.get_logger("wippy.quarantine")

WINDOW = timedelta(minutes=10)
"""How long a loss counts."""
MOST_LOSSES = 2
"""So many node losses suspected on one service within the window quarantine it."""


@dataclass(frozen=True)
class Loss:
    """A node lost because a process of a service hung in it. ``at`` is Unix time, ``reason`` the node's last words."""

    service: str
    node: str
    epoch: int
    at: float
    reason: str

    def to_json(self) -> bytes:
        return json.dumps(self.as_dict(), sort_keys=True).encode()

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "service"}

    @classmethod
    def from_json(cls, service: str, value: bytes) -> Loss:
        """Raises ValueError when ``value`` is not what ``to_json`` writes."""
        try:
            return cls.from_dict(service, json.loads(value))
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"expected the loss of a node, got {value[:200]!r} ({error!r})") from None

    @classmethod
    def from_dict(cls, service: str, fields: Mapping[str, Any]) -> Loss:
        node, reason = (str(fields[key]) for key in ("node", "reason"))
        return cls(service, node, int(fields["epoch"]), float(fields["at"]), reason)


async def suspect(etcd: Etcd, keys: Keys, loss: Loss) -> None:
    """The last words of a node: this service cost it. Raises Unavailable or OutcomeUnknown."""
    lease = await etcd.grant(math.ceil(WINDOW.total_seconds()))
    await etcd.put(keys.suspect(loss.service, loss.epoch), loss.to_json(), lease.id, repeatable=True)


class Quarantine:
    """The watched copies of suspicions and quarantines. Make it before the watch starts."""

    def __init__(self, etcd: Etcd, watch: PrefixWatch, keys: Keys) -> None:
        self._etcd = etcd
        self._keys = keys
        self._suspects: dict[str, dict[int, Loss]] = {}
        self._held: dict[str, list[Loss]] = {}
        self._handlers: Handlers[[]] = Handlers("change of a quarantine")
        self._begun: Handlers[str, list[Loss]] = Handlers("begin of a quarantine")
        watch.subscribe(keys.suspects, self._apply_suspects)
        watch.subscribe(keys.quarantines, self._apply_quarantines)

    def losses(self, service: str) -> Sequence[Loss]:
        """The node losses held against a service, oldest first."""
        held = {loss.epoch: loss for loss in self._held.get(service, ())}
        return sorted({**held, **self._suspects.get(service, {})}.values(), key=lambda loss: loss.epoch)

    def services(self) -> frozenset[str]:
        """What is to be started nowhere, also when its quarantine is only about to be written."""
        return frozenset(self._held) | frozenset(self.unwritten())

    def unwritten(self) -> list[str]:
        """Services with enough losses whose quarantine is not in view yet."""
        return [
            service
            for service, losses in self._suspects.items()
            if len(losses) >= MOST_LOSSES and service not in self._held
        ]

    def on_change(self, handler: Callable[[], None]) -> None:
        self._handlers.add(handler)

    def on_begun(self, handler: Callable[[str, list[Loss]], None]) -> None:
        """Call ``handler`` for each quarantine that comes into view."""
        self._begun.add(handler)

    async def write(self, service: str) -> None:
        """Put the quarantine down, unless a release has overtaken it. Raises Unavailable or OutcomeUnknown."""
        losses = list(self._suspects.get(service, {}).values())
        if len(losses) < MOST_LOSSES:
            return  # released meanwhile, or the oldest was forgotten
        key = self._keys.quarantine(service)
        # two of them as the watch shows them: a release that came first has deleted them, so nothing comes back
        there = [Compare.present(self._keys.suspect(service, loss.epoch)) for loss in losses[:MOST_LOSSES]]
        value = json.dumps({"losses": [loss.as_dict() for loss in losses]}, sort_keys=True).encode()
        await self._etcd.txn([Compare.absent(key), *there], [Put(key, value)])

    async def release(self, service: str) -> bool:
        """Let the service start again, with nothing held against it; whether anything was.

        Raises Unavailable or OutcomeUnknown; releasing again is harmless.
        """
        suspects = Delete(self._keys.suspect(service, 0).removesuffix("0"), whole_prefix=True)
        result = await self._etcd.txn([], [Delete(self._keys.quarantine(service)), suspects])
        return any(result.responses)

    def _apply_suspects(self, batch: Batch) -> None:
        for event in batch.events:
            service, _, epoch = event.kv.key.removeprefix(self._keys.suspects).rpartition("/")
            losses = self._suspects.setdefault(service, {})
            try:
                if event.deleted:
                    losses.pop(int(epoch), None)
                else:
                    losses[int(epoch)] = Loss.from_json(service, event.kv.value)
            except ValueError as error:
                log.error("a key under suspects/ can't be read; it is ignored", key=event.kv.key, error=str(error))
            if not losses:
                del self._suspects[service]
        self._handlers.tell()

    def _apply_quarantines(self, batch: Batch) -> None:
        for event in batch.events:
            service = event.kv.key.removeprefix(self._keys.quarantines)
            if event.deleted:
                self._held.pop(service, None)
                continue
            self._held[service] = losses = _losses(service, event.kv.value)
            self._begun.tell(service, losses)
        self._handlers.tell()


def _losses(service: str, value: bytes) -> list[Loss]:
    """What a quarantine says; one that can't be read is one all the same."""
    try:
        return [Loss.from_dict(service, fields) for fields in json.loads(value)["losses"]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        log.error("a quarantine can't be read; it holds all the same", service=service, error=repr(error))
        return []
