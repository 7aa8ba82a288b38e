"""How many processes other nodes have, asked of them over their control subjects. Who does not answer is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgpack

from cluster.bus import Bus
from cluster.envelope import to_text, unpack
from cluster.errors import ClusterError
from cluster.members import Members
from cluster.subjects import Subjects

WITHIN = 1.0
"""Seconds a node has for its answer."""


class Loads:
    """Asks in the name of ``node``."""

    def __init__(self, bus: Bus, subjects: Subjects, members: Members, node: str) -> None:
        self._bus = bus
        self._subjects = subjects
        self._members = members
        self._node = node

    async def __call__(self, nodes: Iterable[str]) -> dict[str, int]:
        """The number of processes of each of these nodes that answers. Never raises."""
        asked = list(nodes)
        told = await asyncio.gather(*(self._ask(node) for node in asked))
        return {node: load for node, load in zip(asked, told, strict=True) if load is not None}

    async def _ask(self, node: str) -> int | None:
        member = self._members.get(node)
        if member is None:
            return None
        subject = self._subjects.control(node, member.epoch, self._node)
        query = msgpack.packb({"op": "health", "timeout": WITHIN})
        try:
            answer = to_text(unpack(await self._bus.control.request(subject, query, WITHIN)))
        except ClusterError:
            return None
        value = answer.get("value") if isinstance(answer, dict) else None
        load = value.get("processes") if isinstance(value, dict) else None
        return load if isinstance(load, int) else None
