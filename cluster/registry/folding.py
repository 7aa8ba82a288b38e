"""Folding the operator's overlays into the registry, on every ready node.

Watches ``config/`` and the registry. Whatever differs between the two is judged: a good value
becomes the next version, a bad one is refused with the reason in ``config-status/`` and changes
nothing, a deleted key gives the base entry back. Any node may do it; each waits its rank
times half a second, so that normally only the first does, and the transaction compares the
key, so that nothing is folded twice or out of date. A node that dies in between leaves the
work to the next. Errors of etcd are tried again for ever, in its own time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import structlog

from cluster.errors import ClusterError, Invalid
from cluster.etcd import Batch, Compare, Etcd, KeyValue, PrefixWatch
from cluster.keys import Keys
from cluster.registry.changeset import Fold
from cluster.registry.commit import Committed, Outcome
from cluster.registry.overlay import Malformed, parse_overlay, refusal
from cluster.registry.registry import Registry
from cluster.registry.retry import pause
from cluster.registry.state import RegistryState
from cluster.registry.status import OverlayStatus, Verdict, report, status_of
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.registry.overlay")

RANK_DELAY = timedelta(milliseconds=500)
_PATIENCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Settled:
    """The state holds exactly what the key says."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The key's value can't be laid over the entry."""

    reason: str


Judgement = Settled | Refused | Fold


def judge(state: RegistryState, id: str, value: bytes | None, mod: int) -> Judgement:
    """What to do about ``config/<id>`` with ``value`` at ``mod`` (None and 0: there is no such key). Pure.

    A refused value leaves what an earlier one laid over the entry: the running state stays as it was.
    """
    held = state.overlays.get(id)
    if (held.mod if held else 0) == mod:
        return Settled()
    if value is None:
        return Fold(id, None, 0)
    if why := refusal(state.base.get(id)):
        return Refused(why)
    try:
        return Fold(id, parse_overlay(value), mod)
    except Malformed as malformed:
        return Refused(str(malformed))


class Folding:
    """Build it before ``watch`` is started, enter it when the node is ready; ``rank`` is asked each time."""

    def __init__(self, etcd: Etcd, watch: PrefixWatch, keys: Keys, registry: Registry, rank: Callable[[], int]) -> None:
        self._etcd = etcd
        self._watch = watch
        self._keys = keys
        self._registry = registry
        self._rank = rank
        self._config: dict[str, KeyValue] = {}
        self._status: dict[str, KeyValue] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._tasks = Tasks("registry overlays")
        watch.subscribe(keys.config, self._on_config)
        watch.subscribe(keys.config_status, self._on_status)
        registry.on_change(self._on_version)

    async def __aenter__(self) -> Self:
        self._mark([*self._config, *self._status, *self._registry.state.overlays])
        self._tasks.start(self._run(), "fold")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    def _mark(self, ids: list[str]) -> None:
        self._dirty.update(ids)
        if self._dirty:
            self._wake.set()

    def _on_config(self, batch: Batch) -> None:
        self._mark(_note(self._config, batch, self._keys.config))

    def _on_status(self, batch: Batch) -> None:
        # An answer that arrives after its question has changed must not be the last word.
        self._mark([id for id in _note(self._status, batch, self._keys.config_status) if self._is_outdated(id)])

    def _is_outdated(self, id: str) -> bool:
        status, config = status_of(self._status.get(id)), self._config.get(id)
        return status is None or status.mod != (config.mod_revision if config else 0)

    def _on_version(self, before: RegistryState, after: RegistryState, changed: frozenset[str]) -> None:
        dropped = before.overlays.keys() - after.overlays.keys()
        refused = self._config.keys() - after.overlays.keys()  # perhaps because of an entry that is another one now
        stale = [id for id, held in after.overlays.items() if id in self._config and self._is_unfolded(id, held.mod)]
        self._mark([*(id for id in changed | dropped if id in self._config), *refused, *stale])

    def _is_unfolded(self, id: str, mod: int) -> bool:
        return self._config[id].mod_revision != mod

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._rank() * RANK_DELAY.total_seconds())
            ids, self._dirty = sorted(self._dirty), set()
            self._wake.clear()
            again = [id for id in ids if not await self._settle(id)]
            failures = failures + 1 if again else 0
            if again:
                await asyncio.sleep(pause(failures))
                self._mark(again)

    async def _settle(self, id: str) -> bool:
        """Whether ``id`` needs no further look for now."""
        try:
            async with asyncio.timeout(_PATIENCE.total_seconds()):
                return await self._answer(id)
        except (TimeoutError, ClusterError) as error:
            log.warning("an overlay could not be looked at; it is tried again", entry=id, error=str(error))
            return False

    async def _answer(self, id: str) -> bool:
        kv, revision = self._config.get(id), self._watch.applied
        mod = kv.mod_revision if kv else 0
        # What was committed up to that revision must be known before anything is called unknown or refused.
        state = self._registry.state if self._is_answered(id, mod) else (await self._registry.at_head()).state
        match judge(state, id, kv.value if kv else None, mod):
            case Settled():
                return await self._report(id, OverlayStatus(Verdict.APPLIED, mod, revision, state.version))
            case Refused(reason):
                return await self._refuse(id, mod, revision, state.version, reason)
            case Fold() as fold:
                return await self._fold(fold, mod, revision, state.version)

    def _is_answered(self, id: str, mod: int) -> bool:
        """A status for exactly this revision of the key, and the state agrees: nothing to do, the usual case."""
        held = self._registry.state.overlays.get(id)
        status = status_of(self._status.get(id))
        return status is not None and status.mod == mod == (held.mod if held else 0)

    async def _fold(self, fold: Fold, mod: int, revision: int, version: int) -> bool:
        guard = Compare.mod(self._keys.overlay(fold.id), "=", mod)
        try:
            outcome = await self._registry.fold(fold, guard)
        except Invalid as invalid:
            return await self._refuse(fold.id, mod, revision, version, str(invalid))
        except (ClusterError, TimeoutError):
            raise
        except Exception as error:
            # A validator that fails on one operator's value must not end the folding of all others.
            log.exception("an overlay could not be checked", entry=fold.id)
            return await self._refuse(fold.id, mod, revision, version, f"it could not be checked: {error!r}")
        match outcome:
            case Committed(info):
                log.info("overlay folded", entry=fold.id, mod=mod, version=info.version)
                return await self._report(fold.id, OverlayStatus(Verdict.APPLIED, mod, revision, info.version))
            case Outcome():
                return False  # another was first, or the key changed: look again

    async def _refuse(self, id: str, mod: int, revision: int, version: int, reason: str) -> bool:
        status = OverlayStatus(Verdict.ERROR, mod, revision, version, reason)
        if not status.says_the_same(status_of(self._status.get(id))):  # each version is a reason to look again
            log.warning("overlay refused", entry=id, mod=mod, reason=reason)
        return await self._report(id, status)

    async def _report(self, id: str, status: OverlayStatus) -> bool:
        if status.mod == 0 and id not in self._status:
            return True  # never laid over anything, nobody asked
        if not status.says_the_same(status_of(self._status.get(id))):
            await report(self._etcd, self._keys, id, status)
        return True


def _note(known: dict[str, KeyValue], batch: Batch, prefix: str) -> list[str]:
    """Keep ``known`` what stands under ``prefix``; the ids that changed."""
    ids = []
    for event in batch.events:
        id = event.kv.key.removeprefix(prefix)
        ids.append(id)
        if event.deleted:
            known.pop(id, None)
        else:
            known[id] = event.kv
    return ids
