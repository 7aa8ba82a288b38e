"""How many processes other nodes have, asked of them. Who does not answer is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cluster.asking import Asking
from cluster.errors import ClusterError

WITHIN = 1.0
"""Seconds a node has for its answer."""


class Loads:
    def __init__(self, ask: Asking) -> None:
        self._ask = ask

    async def __call__(self, nodes: Iterable[str]) -> dict[str, int]:
        """The number of processes of each of these nodes that answers. Never raises."""
        asked = list(nodes)
        told = await asyncio.gather(*(self._load(node) for node in asked))
        return {node: load for node, load in zip(asked, told, strict=True) if load is not None}

    async def _load(self, node: str) -> int | None:
        try:
            told = await self._ask(node, "health", WITHIN)
        except ClusterError:
            return None
        load = told.get("processes") if isinstance(told, dict) else None
        return load if isinstance(load, int) else None
