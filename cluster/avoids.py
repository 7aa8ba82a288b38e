"""Which nodes a service avoids: those that could not start it, for a while.

An owner whose starts keep failing gives its replica away. With the claim it deletes it puts
``avoid/<service>/<node>``, on its own lease: the key goes with the node, and a node that was started
anew may try again. ``until`` is Unix time on the clock of the node that wrote it; as that node is the
one that has to heed it, clocks need not agree: the others only rank and show by it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from cluster.etcd import Batch, Etcd, PrefixWatch
from cluster.handlers import Handlers
from cluster.keys import Keys

log = structlog.get_logger("wippy.avoids")


@dataclass(frozen=True)
class Avoid:
    """``node`` takes no replica of ``service`` before ``until`` (Unix time). ``lease`` is the node's."""

    service: str
    node: str
    until: float
    reason: str
    lease: int = 0

    def to_json(self) -> bytes:
        return json.dumps({"until": self.until, "reason": self.reason}, sort_keys=True).encode()

    @classmethod
    def from_json(cls, service: str, node: str, value: bytes, lease: int) -> Avoid:
        """Raises ValueError when ``value`` is not what ``to_json`` writes."""
        try:
            fields = json.loads(value)
            return cls(service, node, float(fields["until"]), str(fields["reason"]), lease)
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"expected what a service avoids, got {value[:200]!r} ({error!r})") from None


class Avoids:
    """The watched copy. Make it before the watch starts."""

    def __init__(
        self, etcd: Etcd, watch: PrefixWatch, keys: Keys, node: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._node = node
        self._clock = clock
        self._avoids: dict[tuple[str, str], Avoid] = {}
        self._handlers: Handlers[[]] = Handlers("change of what services avoid")
        watch.subscribe(keys.avoids, self._apply)

    def all(self) -> list[Avoid]:
        """Those whose time is not over, by service and node."""
        now = self._clock()
        return [self._avoids[key] for key in sorted(self._avoids) if self._avoids[key].until > now]

    def left(self) -> Mapping[tuple[str, str], float]:
        """Seconds each still has to go, by (service, node)."""
        now = self._clock()
        return {(one.service, one.node): one.until - now for one in self._avoids.values() if one.until > now}

    def on_change(self, handler: Callable[[], None]) -> None:
        self._handlers.add(handler)

    def has(self, service: str) -> bool:
        """Whether this node avoids the service, as far as the watch has come."""
        return (service, self._node) in self._avoids

    def own(self) -> list[str]:
        """What this node has a key for, also when its time is over."""
        return [service for service, node in self._avoids if node == self._node]

    def own_ended(self) -> list[str]:
        """Those of them whose time is over."""
        now = self._clock()
        return [service for service in self.own() if self._avoids[service, self._node].until <= now]

    async def forget(self, service: str) -> None:
        """Let this node take the service again. Raises Unavailable or OutcomeUnknown."""
        await self._etcd.delete(self._keys.avoid(service, self._node), repeatable=True)

    async def forget_all(self, service: str) -> int:
        """Let every node take it again; how many avoided it. Raises as ``forget``."""
        return await self._etcd.delete_prefix(self._keys.avoid(service, ""), repeatable=True)

    def _apply(self, batch: Batch) -> None:
        for event in batch.events:
            service, _, node = event.kv.key.removeprefix(self._keys.avoids).rpartition("/")
            if event.deleted:
                self._avoids.pop((service, node), None)
                continue
            try:
                self._avoids[service, node] = Avoid.from_json(service, node, event.kv.value, event.kv.lease)
            except ValueError as error:
                log.error("a key under avoid/ can't be read; it is ignored", key=event.kv.key, error=str(error))
        self._handlers.tell()
