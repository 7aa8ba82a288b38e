"""What became of an operator's overlay: the value of ``config-status/<ns>:<name>``.

It answers one revision of the ``config/`` key (``mod``; 0 is its deletion) and says at which
revision that key was read. Reports are ordered by the latter and compared when put, so a
status never goes back, whoever writes late.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from cluster.etcd import Compare, Etcd, KeyValue, Put
from cluster.keys import Keys
from cluster.registry.retry import until_answered
from cluster.registry.value import canonical, parse


class Verdict(StrEnum):
    APPLIED = "applied"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class OverlayStatus:
    """``version`` is the registry version that has the overlay or refused it; ``reason`` is for people."""

    status: Verdict
    mod: int
    revision: int
    version: int
    reason: str = ""

    def encode(self) -> bytes:
        return canonical(asdict(self))

    @classmethod
    def decode(cls, raw: bytes) -> OverlayStatus | None:
        """The status in a value; None when it is none, which any other replaces."""
        try:
            value = parse(raw)
            return cls(
                Verdict(value["status"]),
                int(value["mod"]),
                int(value["revision"]),
                int(value["version"]),
                str(value["reason"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError):
            return None

    def says_the_same(self, other: OverlayStatus | None) -> bool:
        """Whether ``other`` already is this answer, though perhaps read at another revision."""
        return other is not None and (self.status, self.mod, self.reason) == (other.status, other.mod, other.reason)


def status_of(kv: KeyValue | None) -> OverlayStatus | None:
    return OverlayStatus.decode(kv.value) if kv else None


async def report(etcd: Etcd, keys: Keys, entry: str, status: OverlayStatus) -> bool:
    """Put ``status`` unless one that was read later stands there; whether it was put. The caller sets the deadline."""
    key = keys.overlay_status(entry)
    while True:
        kv = await until_answered(lambda: etcd.get(key))
        standing = status_of(kv)
        if standing is not None and standing.revision >= status.revision:
            return standing == status
        compare = Compare.mod(key, "=", kv.mod_revision if kv else 0)
        result = await until_answered(lambda compare=compare: etcd.txn([compare], [Put(key, status.encode())]))  # type: ignore[misc]
        if result.succeeded:
            return True
