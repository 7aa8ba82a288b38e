"""What a process of the node itself has asked of others and was not answered yet.

Answers come to a callback, at once as they arrive: nothing else of the process asked is looked
at before. A request to a node that goes away is answered NOCONNECTION: the outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from cluster.envelope import Envelope, Kind, Status
from cluster.pid import node_of

LONGEST = 2000
STATUSES = {int(status): status for status in Status}

OnReply: TypeAlias = Callable[[Status, Any], None]


class Requests:
    """The open requests of the process ``pid``."""

    def __init__(self, pid: bytes, next_ref: Callable[[], int], route: Callable[[Envelope], None]) -> None:
        self._pid = pid
        self._next_ref = next_ref
        self._route = route
        self._open: dict[int, tuple[Kind, bytes, OnReply]] = {}

    def ask(self, kind: Kind, to: bytes, *rest: Any, then: OnReply) -> None:
        """Send a request; ``then`` has its status and value, perhaps before this returns."""
        ref = self._next_ref()
        self._open[ref] = (kind, node_of(to), then)
        self._route([int(kind), to, self._pid, ref, *rest])

    def replied(self, envelope: Envelope) -> None:
        asked = self._open.pop(envelope[3], None)
        if asked is not None:
            asked[2](STATUSES.get(envelope[4], Status.ERROR), envelope[5])

    def abandon(self, abandon: Callable[[int, Callable[[bytes], bool]], None]) -> None:
        """Nobody is there for the answers any more: what is spawned all the same is not wanted."""
        for ref, (kind, _, _) in self._open.items():
            if kind is Kind.SPAWN:
                abandon(ref, lambda pid: False)
        self._open.clear()

    def node_down(self, node: bytes) -> None:
        for ref in [ref for ref, (_, asked, _) in self._open.items() if asked == node]:
            self._open.pop(ref)[2](Status.NOCONNECTION, None)


def reason_of(value: Any) -> str:
    """The message of an error map in its raw form, cut where it is very long: it is kept, logged and shown."""
    message = value.get(b"message") if isinstance(value, dict) else None
    return (
        message[:LONGEST].decode("utf-8", "replace") if isinstance(message, bytes) and message else "it said no reason"
    )
