"""Queries of one node to another, over its control subject: those a client may ask as well."""

from __future__ import annotations

from typing import Any

import msgpack

from cluster.bus import Bus
from cluster.envelope import to_raw, to_text, unpack
from cluster.errors import ClusterError, NodeDown
from cluster.members import Members
from cluster.subjects import Subjects

SLACK = 0.5
"""Seconds a node gets beyond the deadline it was given, to say itself that it passed."""


class Declined(ClusterError):
    """The node answered with an error. ``kind`` and ``code`` as ``node.admin`` says them."""

    def __init__(self, kind: str, message: str, code: str) -> None:
        super().__init__(kind, message, code)
        self.kind = kind
        self.message = message
        self.code = code

    def __str__(self) -> str:
        return self.message


class Asking:
    """Asks in the name of ``node``."""

    def __init__(self, bus: Bus, subjects: Subjects, members: Members, node: str) -> None:
        self._bus = bus
        self._subjects = subjects
        self._members = members
        self._node = node

    async def __call__(self, node: str, op: str, timeout: float, **query: Any) -> Any:
        """The answer of ``node``. Raises Declined, and NodeDown, Unavailable or CallTimeout when there is none."""
        member = self._members.get(node)
        if member is None:
            raise NodeDown(node, 0)
        subject = self._subjects.control(node, member.epoch, self._node)
        packed = msgpack.packb(
            to_raw({"op": op, "timeout": timeout, **query}), use_bin_type=False, unicode_errors="surrogateescape"
        )
        answer = to_text(unpack(await self._bus.control.request(subject, packed, timeout + SLACK)))
        match answer:
            case {"ok": True, "value": value}:
                return value
            case {"ok": False, "error": {"kind": kind, "message": message, **more}}:
                raise Declined(str(kind), str(message), str(more.get("code", "")))
            case _:
                raise Declined("Internal", f"node {node} answered {answer!r}", "internal")
