"""Who is registered, as a node tells it over NATS: what clients go by while etcd does not answer.

Every node answers the subject ``all.control`` from its watched copy of the registrations; the first answer is taken.
While etcd is away that copy says who was there when it went: whoever has ended since stays silent when asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import msgpack

from cluster.envelope import to_text, unpack
from cluster.errors import Unavailable
from cluster.members import Member, NodeState
from cluster.subjects import Subjects

OP = "members"


class Asks(Protocol):
    """What is needed of a connection."""

    async def request(self, subject: str, payload: bytes, timeout: float) -> bytes: ...


@dataclass(frozen=True)
class Roll:
    """The registered nodes as ``node`` knows them."""

    node: str
    members: Sequence[Member]


def told(node: str, members: Sequence[Member]) -> dict[str, Any]:
    """What a node answers, as ``call`` reads it."""
    return {"node": node, "members": [{**asdict(member), "state": member.state.value} for member in members]}


async def call(connection: Asks, subjects: Subjects, timeout: float) -> Roll:
    """The answer of the first node. Raises Unavailable, NotConnected, CallTimeout."""
    answer = await connection.request(subjects.announcements, msgpack.packb({"op": OP}), timeout)
    try:
        value = to_text(unpack(answer))["value"]
        members = [Member(**{**one, "state": NodeState(one["state"])}) for one in value["members"]]
        return Roll(str(value["node"]), members)
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable(
            f"the answer on {subjects.announcements} is none of a node of this version: {error!r}"
        ) from None
