"""The exceptions of the cluster: few, one meaning each, carrying data.

Every message says what happened, where, and what to do next. Expected outcomes of
process operations (noproc, noconnection, exit reasons) are values, not exceptions:
see ``cluster.envelope``. An exception here can be pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


class ClusterError(Exception):
    """Root of every error this package raises on purpose."""


class BadPid(ClusterError, ValueError):
    """A text that is not a PID; the message shows the text and the expected form."""


class NotConnected(ClusterError):
    """The bus has no connection to NATS at this moment; nothing was sent."""


class Unavailable(ClusterError):
    """A peer or service can't be reached now; trying again later is reasonable."""


class NodeDown(ClusterError):
    """The node's epoch ended; requests to it have an unknown outcome."""

    def __init__(self, node: str, epoch: int) -> None:
        super().__init__(node, epoch)
        self.node = node
        self.epoch = epoch

    def __str__(self) -> str:
        return f"node {self.node} (epoch {self.epoch}) is gone; its registration ended"


class MessageTooBig(ClusterError, ValueError):
    """One message over the limit (both in bytes)."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"message of {self.size} bytes is over the limit of {self.limit} bytes; send a reference or split it"


class NameTaken(ClusterError):
    """The name is registered to another process."""

    def __init__(self, name: str, by: str) -> None:
        super().__init__(name, by)
        self.name = name
        self.by = by

    def __str__(self) -> str:
        return f"name {self.name!r} is registered to {self.by}"


class LockTaken(ClusterError):
    """The lock is held, by another process or by the same one."""

    def __init__(self, name: str, by: str) -> None:
        super().__init__(name, by)
        self.name = name
        self.by = by

    def __str__(self) -> str:
        return f"lock {self.name!r} is held by {self.by}"


class CallTimeout(ClusterError):
    """No answer within the deadline (seconds); the outcome is unknown."""

    def __init__(self, what: str, after: float) -> None:
        super().__init__(what, after)
        self.what = what
        self.after = after

    def __str__(self) -> str:
        return f"{self.what}: no answer within {self.after:g} s"


@dataclass(frozen=True)
class Meanwhile:
    """A version of the registry that came between reading and writing. ``entries``: the ids it changed, the
    ones in conflict first; ``time`` is ISO 8601 in UTC, ``where`` as in ``cluster.registry.VersionInfo``."""

    version: int
    author: str
    time: str
    where: str
    message: str
    entries: tuple[str, ...]

    def __str__(self) -> str:
        said = f" {self.message!r}" if self.message else ""
        more = f" and {len(self.entries) - 3} more" if len(self.entries) > 3 else ""
        return f"v{self.version} by {self.author} at {self.time}{said} changed {', '.join(self.entries[:3])}{more}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"entries": list(self.entries)}


class RegistryConflict(ClusterError):
    """Another writer changed the same entries first.

    ``head`` is the version that holds now, ``changed`` the ids that were changed meanwhile, ``meanwhile`` the
    versions in between, oldest first: those that changed these ids, or all when there are no such ids.
    """

    def __init__(self, head: int, changed: list[str], meanwhile: Sequence[Meanwhile] = ()) -> None:
        super().__init__(head, changed, meanwhile)
        self.head = head
        self.changed = changed
        self.meanwhile = meanwhile

    def __str__(self) -> str:
        told = "".join(f"; {each}" for each in self.meanwhile[-3:])
        return (
            f"registry moved on to v{self.head} and changed {', '.join(self.changed) or 'nothing you touch'}{told}; "
            "read it again and repeat the change"
        )


class OutcomeUnknown(ClusterError):
    """A write whose answer was lost; it may or may not have been applied."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input, placed: file and line where known, entry and field where they apply."""

    message: str
    entry: str = ""
    field: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        parts = [p for p in (place, self.entry, self.field) if p]
        return f"{': '.join(parts)}: {self.message}" if parts else self.message

    def as_dict(self) -> dict[str, Any]:
        return {
            "message": self.message,
            "entry": self.entry,
            "field": self.field,
            "file": self.file,
            "line": self.line,
        }


class Invalid(ClusterError, ValueError):
    """Bad input, refused as a whole, with every problem found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(p) for p in self.problems)
