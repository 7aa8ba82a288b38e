"""The small values of the log: what stands under ``changes/<v>``, ``snapshots/<v>`` and ``head``.

A record points to its blob by upload and sha256 and says who, when and why. Records are JSON,
so that any etcd client can read them. ``VersionInfo`` is the same for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cluster.errors import ClusterError
from cluster.registry.value import canonical, parse


class BadRecord(ClusterError, ValueError):
    """A value in the log that is no record; the text shows it."""


class VersionNotFound(ClusterError, LookupError):
    """The version is not in the history: never committed, or older than what is kept."""

    def __init__(self, version: int, oldest: int, newest: int) -> None:
        super().__init__(version, oldest, newest)
        self.version = version
        self.oldest = oldest
        self.newest = newest

    def __str__(self) -> str:
        if self.newest < 0:
            return f"version {self.version} does not exist; nothing was ever published"
        return f"version {self.version} is not in the history; it holds v{self.oldest} to v{self.newest}"


@dataclass(frozen=True, slots=True)
class Blob:
    """Where a payload lies: ``blobs/<upload>/<chunk>``, ``chunks`` of them, sha256 over all, ``size`` in bytes."""

    upload: str
    chunks: int
    sha: str
    size: int

    def as_dict(self) -> dict[str, Any]:
        return {"u": self.upload, "chunks": self.chunks, "sha": self.sha, "size": self.size}

    @classmethod
    def read(cls, value: dict[str, Any]) -> Blob:
        return cls(str(value["u"]), int(value["chunks"]), str(value["sha"]), int(value.get("size", 0)))


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version for people: ``changed`` is the number of entries, ``entries`` the first of their ids, ``overlay``
    the entry when the operator's overlay made it. ``where`` is what wrote it and on which machine: ``node <name>``,
    ``cli <host>``, ``client <host>``, or ``overlay <node>``."""

    version: int
    author: str
    time: datetime
    message: str
    changed: int
    overlay: str = ""
    where: str = ""
    entries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """``changes/<v>``. ``overlay`` is the mod_revision of the ``config/`` key that was folded
    (0 = its deletion), None for any other change."""

    blob: Blob
    author: str
    time: datetime
    message: str
    changed: int
    overlay: int | None = None
    entry: str = ""
    where: str = ""
    entries: tuple[str, ...] = ()

    def encode(self) -> bytes:
        value = self.blob.as_dict() | {
            "author": self.author,
            "time": self.time.astimezone(UTC).isoformat(timespec="milliseconds"),
            "message": self.message,
            "changed": self.changed,
            "where": self.where,
            "entries": list(self.entries),
        }
        if self.overlay is not None:
            value |= {"overlay": self.overlay, "entry": self.entry}
        return canonical(value)

    @classmethod
    def decode(cls, raw: bytes) -> ChangeRecord:
        """Raises BadRecord."""
        try:
            value = parse(raw)
            return cls(
                Blob.read(value),
                str(value["author"]),
                datetime.fromisoformat(value["time"]),
                str(value["message"]),
                int(value["changed"]),
                value.get("overlay"),
                value.get("entry", ""),
                str(value.get("where", "")),
                tuple(map(str, value.get("entries", ()))),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadRecord(f"not a change of the registry: {raw[:100]!r} ({error!r})") from error

    def info(self, version: int) -> VersionInfo:
        return VersionInfo(
            version, self.author, self.time, self.message, self.changed, self.entry, self.where, self.entries
        )


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """``snapshots/<v>``."""

    blob: Blob

    def encode(self) -> bytes:
        return canonical(self.blob.as_dict())

    @classmethod
    def decode(cls, raw: bytes) -> SnapshotRecord:
        """Raises BadRecord."""
        try:
            return cls(Blob.read(parse(raw)))
        except (ValueError, KeyError, TypeError) as error:
            raise BadRecord(f"not a snapshot of the registry: {raw[:100]!r} ({error!r})") from error


def encode_head(version: int) -> bytes:
    return str(version).encode()


def decode_head(raw: bytes) -> int:
    """The version in the value of ``head``. Raises BadRecord."""
    if not raw.isdigit():
        raise BadRecord(f"expected the head of the registry to be a version number, got {raw[:40]!r}")
    return int(raw)
