"""The event bus: application events to subscribers on all nodes, once each; best effort, for observation.

``send`` gives an event to the subscribers of this node directly and to other nodes through NATS, which carries
it only to nodes that subscribe. A subscription to one system listens on that system's subject, one with a
pattern on all of them; each feeds only its own subscribers, so nobody hears an event twice. ``send_local`` is
for events every node raises by itself.

Core NATS delivers at most once: while NATS is away ``send`` raises NotConnected and nobody has the event.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgpack
import structlog

from cluster.connection import Connection, Subscription
from cluster.envelope import MAX_MESSAGE, unpack
from cluster.errors import MessageTooBig
from cluster.patterns import Pattern
from cluster.subjects import Subjects

log = structlog.get_logger("wippy.events")

MAX_NAME = 255
"""Bytes of a system, kind or path. (NATS bounds the whole subject.)"""


@dataclass(frozen=True)
class Event:
    """One event. ``data`` is a plain value with texts as bytes."""

    system: str
    kind: str
    path: str
    data: Any = None


Listener: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True)
class EventStats:
    """Counters since the start. ``malformed``: came from outside and was no event."""

    subscribers: int
    sent: int
    received: int
    delivered: int
    malformed: int
    listener_errors: int


@dataclass(eq=False)
class Listening:
    """One subscriber. ``close`` ends it."""

    system: Pattern
    kind: Pattern | None
    listener: Listener
    _bus: EventBus = field(repr=False)

    async def close(self) -> None:
        await self._bus.unsubscribe(self)

    def wants(self, event: Event) -> bool:
        return self.system.matches(event.system) and (self.kind is None or self.kind.matches(event.kind))


@dataclass(eq=False)
class _Group:
    """The subscribers that share one NATS subscription."""

    members: list[Listening] = field(default_factory=list)
    subscription: Subscription | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class EventBus:
    """The event bus of one node. ``incarnation`` tells it from a former process of the same name."""

    def __init__(
        self,
        connection: Connection,
        subjects: Subjects,
        node: str,
        incarnation: int,
        *,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self._connection = connection
        self._subjects = subjects
        self._source = [node.encode("utf-8", "surrogateescape"), incarnation]
        self._max_message = max_message
        self._groups: dict[str | None, _Group] = {}
        self._counts: Counter[str] = Counter()

    async def subscribe(self, system: str, kind: str | None, listener: Listener) -> Listening:
        """Call ``listener`` for each event whose system and kind match; any kind when None.

        Events sent after this returns, on any node, are heard. Raises ValueError for a bad pattern, NotConnected
        or Unavailable when the subscription can't be made.
        """
        listening = Listening(Pattern(system), Pattern(kind) if kind else None, listener, self)
        while not await self._join(listening):
            pass  # the group dissolved while we waited for it; the next one is ours
        return listening

    async def unsubscribe(self, listening: Listening) -> None:
        """End one subscriber; harmless when it has ended."""
        group = self._groups.get(listening.system.literal)
        if group is None or listening not in group.members:
            return
        group.members.remove(listening)
        async with group.lock:
            await self._maybe_dissolve(listening.system.literal, group)

    def send(self, system: str, kind: str, path: str, data: Any = None) -> None:
        """Send an application event to subscribers on all nodes.

        Raises ValueError for an empty or overlong system, kind or path, MessageTooBig, NotConnected.
        """
        event = _checked(Event(system, kind, path, data))
        payload = msgpack.packb([*self._source, *map(_raw, (system, kind, path)), data], use_bin_type=False)
        if len(payload) > self._max_message:
            raise MessageTooBig(len(payload), self._max_message)
        self._connection.publish(self._subjects.event(system, kind), payload)
        self._counts["sent"] += 1
        self._deliver_everywhere(event)

    def send_local(self, system: str, kind: str, path: str, data: Any = None) -> None:
        """Tell this node's subscribers only."""
        self._deliver_everywhere(_checked(Event(system, kind, path, data)))

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody on this node listens to anything."""
        return bool(self._groups)

    def stats(self) -> EventStats:
        return EventStats(
            subscribers=sum(len(group.members) for group in self._groups.values()),
            sent=self._counts["sent"],
            received=self._counts["received"],
            delivered=self._counts["delivered"],
            malformed=self._counts["malformed"],
            listener_errors=self._counts["listener errors"],
        )

    async def _join(self, listening: Listening) -> bool:
        key = listening.system.literal
        group = self._groups.setdefault(key, _Group())
        async with group.lock:
            if self._groups.get(key) is not group:
                return False
            try:
                if group.subscription is None:
                    await self._listen(group, key)
                group.members.append(listening)
            finally:
                await self._maybe_dissolve(key, group)
        return True

    async def _maybe_dissolve(self, key: str | None, group: _Group) -> None:
        """Forget a group without members, and end its NATS subscription."""
        if group.members or self._groups.get(key) is not group:
            return
        del self._groups[key]
        if group.subscription is not None:
            await group.subscription.close()

    async def _listen(self, group: _Group, system: str | None) -> None:
        def on_message(subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
            self._on_message(group, subject, payload)

        group.subscription = await self._connection.subscribe(self._subjects.events_of(system), on_message)

    def _on_message(self, group: _Group, subject: str, payload: bytes) -> None:
        try:
            source, event = _read(payload)
            if self._subjects.event(event.system, event.kind) != subject:
                raise ValueError(f"the event says {event.system}/{event.kind}")
        except ValueError as error:
            self._counts["malformed"] += 1
            count = self._counts["malformed"]
            if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
                log.warning("malformed event dropped", subject=subject, error=str(error), count=count)
            return
        if source != self._source:
            self._counts["received"] += 1
            self._deliver(group, event)

    def _deliver_everywhere(self, event: Event) -> None:
        for system in (event.system, None):
            group = self._groups.get(system)
            if group is not None:
                self._deliver(group, event)

    def _deliver(self, group: _Group, event: Event) -> None:
        for listening in list(group.members):
            if listening.wants(event):
                self._counts["delivered"] += 1
                self._call(listening, event)

    def _call(self, listening: Listening, event: Event) -> None:
        """One subscriber's failure is its own: it is logged and the others get their event."""
        try:
            listening.listener(event)
        except Exception as error:
            self._counts["listener errors"] += 1
            log.error("a listener of events failed", system=event.system, kind=event.kind, exc_info=error)


def _checked(event: Event) -> Event:
    for what, text in (("system", event.system), ("kind", event.kind), ("path", event.path)):
        if not text or len(_raw(text)) > MAX_NAME:
            raise ValueError(f"expected the {what} of an event as 1 to {MAX_NAME} bytes, got {text[:80]!r}")
    return event


def _read(payload: bytes) -> tuple[list[Any], Event]:
    """Who sent it, and the event. Raises ValueError."""
    match unpack(payload):
        case [bytes() as node, int() as incarnation, bytes() as system, bytes() as kind, bytes() as path, data]:
            return [node, incarnation], _checked(Event(_text(system), _text(kind), _text(path), data))
        case _:
            raise ValueError("expected [node, incarnation, system, kind, path, data]")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
