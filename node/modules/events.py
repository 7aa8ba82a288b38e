"""Module ``events``: publish and subscribe, best effort, for watching what goes on.

Application events reach the subscribers of all nodes once each; the runtime's own
(``node.system_events``) are raised by each node for its own subscribers. A subscription is
a stream: it ends with ``close`` and with its process. Events are never retried: a node that
is away misses them, and while NATS is away ``send`` is Unavailable.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol

from cluster.envelope import to_raw
from cluster.events import Event, Listener
from node.modules.contract import Answer, Caller, Values, argument, invalid, text


class Listening(Protocol):
    async def close(self) -> None: ...


class Bus(Protocol):
    """What the module needs of ``cluster.events.EventBus``."""

    def send(self, system: str, kind: str, path: str, data: Any = None) -> None: ...

    async def subscribe(self, system: str, kind: str | None, listener: Listener) -> Listening: ...


class EventsModule:
    """Python half of ``events``."""

    name = "events"
    deadlines: Mapping[str, timedelta | None] = {}

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        match fn:
            case "send":
                return self._send(args)
            case "subscribe":
                return self._subscribe(caller, args)
            case "unsubscribe":
                return self._unsubscribe(caller, args)
            case _:
                raise invalid(f"events has no function {fn!r}")

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"events.{fn} wants an answer")

    def _send(self, args: Values) -> Values:
        system, kind, path = (text(argument(args, at), what) for at, what in enumerate(("system", "kind", "path")))
        try:
            self._bus.send(system, kind, path, argument(args, 3))
        except ValueError as error:
            raise invalid(str(error)) from None
        return [True]

    async def _subscribe(self, caller: Caller, args: Values) -> Values:
        number, system, kind = argument(args, 0), text(argument(args, 1), "system"), argument(args, 2)
        stream = caller.streams.opened(caller, number)
        try:
            listening = await self._bus.subscribe(
                system, text(kind, "kind") if kind else None, lambda event: stream.push(_as_table(event))
            )
        except ValueError as error:
            stream.closed()
            raise invalid(str(error)) from None
        except BaseException:
            stream.closed()
            raise
        stream.on_end(lambda: caller.streams.run(listening.close(), "unsubscribe"))
        return [number]

    def _unsubscribe(self, caller: Caller, args: Values) -> Values:
        stream = caller.streams.find(caller, argument(args, 0))
        if stream is not None:
            stream.end()
        return [True]


def _as_table(event: Event) -> dict[bytes, Any]:
    """An event as Lua sees it; data that is nil is no field."""
    table = {
        b"system": to_raw(event.system),
        b"kind": to_raw(event.kind),
        b"path": to_raw(event.path),
    }
    if event.data is not None:
        table[b"data"] = event.data
    return table
