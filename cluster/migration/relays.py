"""Flushes passed on by a node that forwards: their answers go back the way they came."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.migration.items import Flush


@dataclass(frozen=True, slots=True)
class Relay:
    """``flush`` came over the link from ``back`` and went on to ``onward``."""

    back: str
    onward: str
    flush: Flush


class Relays:
    """What is under way through this node."""

    def __init__(self) -> None:
        self._relays: list[Relay] = []

    def __len__(self) -> int:
        return len(self._relays)

    def pass_on(self, relay: Relay) -> None:
        self._relays.append(relay)

    def answered(self, onward: str, flush: Flush) -> Relay | None:
        """The relay this answer belongs to; None when it is none's.

        A flush that came by twice is answered from the inside out: the last relay first.
        """
        for index in reversed(range(len(self._relays))):
            if self._relays[index].onward == onward and self._relays[index].flush == flush:
                return self._relays.pop(index)
        return None

    def closed(self, peer: str) -> list[Relay]:
        """A link closed: those that came over it are forgotten, those that went on over it are answered from here."""
        cut = [relay for relay in self._relays if relay.onward == peer and relay.back != peer]
        self._relays = [relay for relay in self._relays if peer not in (relay.back, relay.onward)]
        return cut
