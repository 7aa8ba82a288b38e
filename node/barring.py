"""What keeps services from nodes, as this node has a part in it: what it avoids itself, and quarantines.

It writes down the quarantine its view amounts to, and forgets what it avoids when that is over, when the service is
another one or gone, or when an operator releases it: no key stays that means nothing any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import structlog

from cluster.avoids import Avoids
from cluster.errors import ClusterError
from cluster.placement import Barred
from cluster.quarantine import Quarantine
from node.claiming import RETRY

log = structlog.get_logger("wippy.supervisor")


class Barring:
    """``once`` does something beside everything else, unless it is being done; ``known``: whether the registry has
    the service."""

    def __init__(
        self,
        avoids: Avoids,
        quarantine: Quarantine,
        known: Callable[[str], bool],
        once: Callable[[str, Coroutine[Any, Any, None]], None],
    ) -> None:
        self._avoids = avoids
        self._quarantine = quarantine
        self._known = known
        self._once = once

    def now(self, now: float) -> Barred:
        """What counts at the moment, on the clock of ``now``."""
        ends = {pair: now + left for pair, left in self._avoids.left().items()}
        return Barred(ends, self._quarantine.services())

    def quarantined(self) -> Collection[str]:
        return self._quarantine.services()

    def tend(self) -> None:
        """Write down what the suspicions amount to - any node may, and one of them does -, forget what is over."""
        for service in self._quarantine.unwritten():
            self._once(f"quarantine {service}", self._write(service))
        for service in self._avoids.own_ended():
            self.take_again(service)
        for service in self._avoids.own():
            if not self._known(service):
                self.take_again(service)

    def take_again(self, service: str) -> None:
        """What kept this node from taking the service counts no more."""
        if self._avoids.has(service):
            self._once(f"take {service} again", self._forget(service))

    async def release(self, service: str) -> bool:
        """Let the service start again everywhere, with nothing held against it; whether anything was.

        Raises Unavailable or OutcomeUnknown; doing it again is harmless.
        """
        avoided = await self._avoids.forget_all(service)
        return await self._quarantine.release(service) or avoided > 0

    async def _forget(self, service: str) -> None:
        try:
            await self._avoids.forget(service)
        except ClusterError as error:
            log.warning("this node avoids a changed service for a while yet", service=service, error=str(error))
            await asyncio.sleep(RETRY)

    async def _write(self, service: str) -> None:
        while service in self._quarantine.unwritten():
            try:
                await self._quarantine.write(service)
                return
            except ClusterError as error:
                log.warning("a quarantine is not written yet; it holds here", service=service, error=str(error))
                await asyncio.sleep(RETRY)
