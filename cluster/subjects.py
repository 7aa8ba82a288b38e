"""Every NATS subject, named once. Prefix ``wippy.<cluster>.``

Names that come from people (nodes, clusters, event systems and kinds) are encoded to one
token alphabet by ``token``, so that no name can add a level or a wildcard.
"""

from __future__ import annotations

from dataclasses import dataclass

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def token(name: str) -> str:
    """``name`` as one subject token: letters, digits, ``_`` and ``-`` stay, other bytes become ``=XX``."""
    if not name:
        raise ValueError("expected a name of at least one character, got an empty one")
    return "".join(chr(b) if b in _PLAIN else f"={b:02X}" for b in name.encode("utf-8", "surrogateescape"))


def untoken(text: str) -> str:
    """The name in a token. Raises ValueError when the token is not one of ``token``'s."""
    raw = bytearray()
    position = 0
    while position < len(text):
        if text[position] == "=":
            raw.append(int(text[position + 1 : position + 3], 16))
            position += 3
        else:
            raw.append(ord(text[position]))
            position += 1
    return raw.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of one cluster."""

    cluster: str

    @property
    def prefix(self) -> str:
        return f"wippy.{token(self.cluster)}."

    def data(self, dst: str, epoch: int, src: str) -> str:
        """Frames of the link from ``src`` to one registration (epoch) of ``dst``."""
        return f"{self.prefix}node.{token(dst)}.{epoch}.data.{token(src)}"

    def data_of(self, dst: str, epoch: int) -> str:
        """The node's one wildcard subscription for frames."""
        return f"{self.prefix}node.{token(dst)}.{epoch}.data.*"

    def control(self, dst: str, epoch: int, src: str) -> str:
        """Queries with request and reply: inspect, list, health."""
        return f"{self.prefix}node.{token(dst)}.{epoch}.control.{token(src)}"

    def control_of(self, dst: str, epoch: int) -> str:
        return f"{self.prefix}node.{token(dst)}.{epoch}.control.*"

    def pid(self, node: str, incarnation: str, counter: str) -> str:
        """The side door of one process; incarnation and counter in base 36, as in its PID."""
        return f"{self.prefix}pid.{token(node)}.{incarnation}.{counter}"

    def pids_of(self, node: str, incarnation: str) -> str:
        return f"{self.prefix}pid.{token(node)}.{incarnation}.>"

    def event(self, system: str, kind: str) -> str:
        """Application events."""
        return f"{self.prefix}events.{token(system)}.{token(kind)}"

    def events_of(self, system: str | None) -> str:
        """Subscription to the events of one system, or of all (None)."""
        return f"{self.prefix}events.{token(system) if system else '*'}.*"

    @property
    def announcements(self) -> str:
        return f"{self.prefix}all.control"

    def bucket(self, *, durable: bool) -> str:
        """The NATS KV bucket of the cluster's ``store.kv.crdt``: those kept in memory, or those kept in files."""
        plain = token(self.cluster).replace("_", "=5F").replace("=", "_")
        return f"wippy_{plain}_{'file' if durable else 'memory'}"

    def inbox(self, owner: str) -> str:
        """The reply prefix of one node or client: nobody else may subscribe it."""
        return f"{self.prefix}inbox.{token(owner)}"
