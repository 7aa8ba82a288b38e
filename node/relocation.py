"""Moving a process for a program on this node, wherever in the cluster the process is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from cluster.errors import ClusterError
from node.query import Query

DECIDED_WITHIN = 6.0
"""Seconds beyond its own until it is known what became of a move."""
CHASES = 5
"""Nodes that are asked one after the other for a process that is elsewhere by then."""


class Ask(Protocol):
    async def __call__(self, node: str, op: str, timeout: float, **query: Any) -> Any: ...


class Unreachable(ClusterError):
    """The process is never where it is looked for."""

    def __str__(self) -> str:
        return f"process {self.args[0]} moves from node to node faster than it can be asked; try again"


class Relocation:
    """``move`` is the query of this node, as clients ask it; ``ask`` the way to the others."""

    def __init__(self, move: Callable[[Query], Awaitable[Any]], ask: Ask) -> None:
        self._move = move
        self._ask = ask

    async def __call__(self, pid: str, to: str, within: float) -> dict[str, Any]:
        """What became of it: ``verdict``, ``reason``, ``node`` and ``seconds`` (see ``node.operating``).

        Raises ClusterError: NotFound, BadQuery, or what another node says or fails to say.
        """
        query = {"process": pid, "to": to, "within": within}
        told: dict[str, Any] = await self._move({"op": "move", **query})
        for _ in range(CHASES):
            if "elsewhere" not in told:
                return told
            told = await self._ask(told["elsewhere"], "move", within + DECIDED_WITHIN, **query)
        raise Unreachable(pid)
