"""Brings the node's resources to what the registry says, entry by entry: hosts, stores, variables, services.

Versions advance unconditionally and in order (registry rule R4); the handlers follow
afterwards, always towards the newest version. Entries that do not depend on each other are worked
on at the same time. One that fails keeps the former resource, is tried again with a growing
delay, and the node says so: it is degraded (entry, version, reason) until that entry is done. The
order and the retries are the agenda's; here is what runs and waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from cluster.errors import ClusterError
from cluster.registry import Entry, RegistryState
from cluster.tasks import Tasks
from node.agenda import Agenda, Item

log = structlog.get_logger("wippy.convergence")

HANDLER_DEADLINE = 60.0
"""Seconds one entry may take; longer counts as failed, and is tried again."""


class Handler(Protocol):
    """Makes the resources of one family of kinds. What it raises leaves the former resource as it was."""

    name: str

    def handles(self, kind: str) -> bool:
        """Whether entries of this kind are its own."""
        ...

    async def put(self, entry: Entry) -> None:
        """Make the resource what ``entry`` says, or let it be when it is that already."""
        ...

    async def remove(self, id: str) -> None:
        """The entry is gone; end its resource in order."""
        ...


@dataclass(frozen=True, slots=True)
class Degraded:
    """One entry whose resource is not what the registry says since ``version``."""

    handler: str
    entry: str
    version: int
    reason: str
    attempts: int


class Convergence:
    """Runs the handlers for every change. Start ``run`` as a task."""

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self._handlers = handlers
        self._agenda = Agenda(lambda kind: self._handler(kind) is not None)
        self._changed = asyncio.Event()
        self._progress = asyncio.Event()

    def aim(self, state: RegistryState, changed: Iterable[str] | None = None) -> None:
        """The registry is at ``state`` now; ``changed`` since it was told last, when that is known."""
        self._agenda.aim(state, changed)
        self._changed.set()

    @property
    def version(self) -> int:
        """The version up to which every entry was tried, -1 before the first."""
        return self._agenda.version()

    def degraded(self) -> list[Degraded]:
        return [self._degraded(item) for item in self._agenda.failing()]

    async def reached(self, version: int, timeout: float) -> None:
        """Wait until every entry up to ``version`` was tried. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while self.version < version:
                progress = self._progress
                await progress.wait()

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        async with Tasks("convergence") as tasks:
            while True:
                self._changed.clear()
                self._tell_progress()
                for item in self._agenda.due(time.monotonic()):
                    former = self._agenda.begin(item)
                    tasks.start(self._bring_about(item, item.wanted, former), item.id)
                again = self._agenda.next_due()
                wait = None if again is None else max(again - time.monotonic(), 0.01)
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def _bring_about(self, item: Item, wanted: Entry | None, former: Entry | None) -> None:
        version, before = item.version, item.reason
        reason = await self._tried(wanted, former)
        self._agenda.finish(item, wanted, reason, time.monotonic())
        if reason and reason != before:
            log.error("degraded", entry=item.id, version=version, reason=reason)
        elif before and not reason:
            log.info("recovered", entry=item.id, version=version)
        self._changed.set()

    async def _tried(self, wanted: Entry | None, former: Entry | None) -> str:
        """Why the entry could not be brought about; empty when it was."""
        try:
            async with asyncio.timeout(HANDLER_DEADLINE):
                await self._hand_over(wanted, former)
        except TimeoutError:
            return f"not done within {HANDLER_DEADLINE:g} s"
        except (ClusterError, OSError, ValueError, RuntimeError) as error:
            return str(error) or type(error).__name__
        except Exception as error:
            entry = wanted or former
            log.exception("handler failed", entry=entry.id if entry else "")
            return f"{type(error).__name__}: {error}"
        return ""

    async def _hand_over(self, wanted: Entry | None, former: Entry | None) -> None:
        own = self._handler(wanted.kind) if wanted else None
        previous = self._handler(former.kind) if former else None
        if previous is not None and previous is not own and former is not None:
            await previous.remove(former.id)
        if own is not None and wanted is not None:
            await own.put(wanted)

    def _handler(self, kind: str) -> Handler | None:
        return next((handler for handler in self._handlers if handler.handles(kind)), None)

    def _degraded(self, item: Item) -> Degraded:
        entry = item.wanted or self._agenda.done.get(item.id)
        handler = self._handler(entry.kind) if entry else None
        return Degraded(handler.name if handler else "", item.id, item.version, item.reason, item.attempts)

    def _tell_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()
