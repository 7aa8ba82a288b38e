"""Waiting until nothing is under way here any more that was sent before a change in etcd.

Three steps, each of which comes behind what it waits for: every node shows the change; every VM there has done what it
was given until then, so that what its processes sent is on the links; all that is on the links has arrived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from cluster.errors import CallTimeout


class Everywhere(Protocol):
    """What is needed of ``cluster.everywhere.Everywhere``."""

    async def __call__(self, revision: int, timeout: float, *, processes: bool = False) -> None: ...


class Stragglers:
    """``barrier`` waits for the VMs of this node, ``flushed`` for all that the others have sent it."""

    def __init__(
        self,
        everywhere: Everywhere,
        barrier: Callable[[], Awaitable[None]],
        flushed: Callable[[float], Awaitable[bool]],
    ) -> None:
        self._everywhere = everywhere
        self._barrier = barrier
        self._flushed = flushed

    async def arrived(self, revision: int, within: float) -> bool:
        """Whether all that was sent before ``revision`` was seen has arrived, within so many seconds."""
        deadline = time.monotonic() + within
        try:
            async with asyncio.timeout(within):
                await self._everywhere(revision, within, processes=True)
                await self._barrier()
        except (CallTimeout, TimeoutError):
            return False
        return await self._flushed(max(deadline - time.monotonic(), 0.0))
