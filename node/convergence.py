"""Brings the node's resources to what the registry says: hosts, stores, variables, services.

Versions advance unconditionally and in order (registry rule R4); the handlers follow
afterwards, always towards the newest version. A handler that fails for an entry keeps the
former resource, is tried again with a growing delay, and the node says so: it is degraded
(entry, version, reason) until the handler succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from cluster.registry import RegistryState

log = structlog.get_logger("wippy.convergence")

FIRST_RETRY, LAST_RETRY = 0.5, 30.0
HANDLER_DEADLINE = 60.0
"""Seconds one handler may take for one pass; longer counts as failed, so that the others have their turn."""


class Handler(Protocol):
    """Makes one family of resources what ``state`` says. Idempotent."""

    name: str

    async def converge(self, state: RegistryState) -> dict[str, str]:
        """Returns what could not be done: entry id -> reason."""
        ...


@dataclass(frozen=True, slots=True)
class Degraded:
    """One entry whose resource is not what the registry says."""

    handler: str
    entry: str
    version: int
    reason: str


class Convergence:
    """Runs the handlers in their order for every change. Start ``run`` as a task."""

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self._handlers = handlers
        self._target: RegistryState | None = None
        self._changed = asyncio.Event()
        self._settled = asyncio.Condition()
        self._version = -1
        self._degraded: dict[str, tuple[Degraded, ...]] = {}

    def aim(self, state: RegistryState) -> None:
        """The registry is at ``state`` now."""
        self._target = state
        self._changed.set()

    @property
    def version(self) -> int:
        """The version the handlers went through last, -1 before the first."""
        return self._version

    def degraded(self) -> list[Degraded]:
        return [one for some in self._degraded.values() for one in some]

    async def reached(self, version: int, timeout: float) -> None:
        """Wait until the handlers went through ``version``. Raises TimeoutError."""
        async with asyncio.timeout(timeout), self._settled:
            await self._settled.wait_for(lambda: self._version >= version)

    async def run(self) -> None:
        delay = FIRST_RETRY
        while True:
            try:
                async with asyncio.timeout(delay if self._degraded else None):
                    await self._changed.wait()
                delay = FIRST_RETRY
            except TimeoutError:
                delay = min(delay * 2, LAST_RETRY)
            self._changed.clear()
            if self._target is not None:
                await self.converge(self._target)

    async def converge(self, state: RegistryState) -> None:
        """One pass of all handlers over ``state``."""
        for handler in self._handlers:
            try:
                async with asyncio.timeout(HANDLER_DEADLINE):
                    failed = await handler.converge(state)
            except TimeoutError:
                failed = {"": f"not done within {HANDLER_DEADLINE:g} s"}
            except Exception as error:
                log.exception("handler failed", handler=handler.name)
                failed = {"": f"{type(error).__name__}: {error}"}
            self._note(handler.name, state.version, failed)
        async with self._settled:
            self._version = state.version
            self._settled.notify_all()

    def _note(self, handler: str, version: int, failed: dict[str, str]) -> None:
        known = {one.entry: one.reason for one in self._degraded.get(handler, ())}
        for entry, reason in failed.items():
            if known.get(entry) != reason:
                log.error("degraded", handler=handler, entry=entry, version=version, reason=reason)
        for entry in known.keys() - failed.keys():
            log.info("recovered", handler=handler, entry=entry, version=version)
        if failed:
            self._degraded[handler] = tuple(Degraded(handler, e, version, r) for e, r in failed.items())
        else:
            self._degraded.pop(handler, None)
