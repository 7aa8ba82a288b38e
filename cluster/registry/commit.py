"""Writing a version: PROTOCOLS of the registry, R1 to R3.

One attempt: read the head, draft the change against exactly that state, upload it under a
fresh name, and commit with one transaction that holds only while head, upload and floor are as
they were. A lost race starts over on the new head; the draft decides whether it still may.
An answer that was lost is settled by deleting the own upload key: deleted means the commit
can never land any more. When even that stays unanswered past the deadline the outcome is
``OutcomeUnknown``, and nobody retries. A writer that dies at any point leaves garbage only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum

import structlog

from cluster.errors import CallTimeout, Invalid, OutcomeUnknown, Problem, Unavailable
from cluster.etcd import Compare, Delete, Etcd, LeaseGone, NoSpace, Put
from cluster.keys import Keys
from cluster.registry.changeset import Changeset, Fold
from cluster.registry.floor import Floor, needed_kinds, raise_floor
from cluster.registry.offloop import computed
from cluster.registry.record import Blob, ChangeRecord, VersionInfo, encode_head
from cluster.registry.retry import pause, until_answered
from cluster.registry.state import RegistryState
from cluster.registry.store import Store
from cluster.registry.upload import CHUNK, Payload, Upload, Uploads

log = structlog.get_logger("wippy.registry")

ATTEMPTS = 50
NAMED = 32
"""Ids of changed entries that a record names; the rest is in the changeset itself."""

Draft = Callable[[RegistryState], Changeset | None]
"""The change to make to a state; None when there is nothing to do. Raises Invalid or RegistryConflict."""

Validator = Callable[[RegistryState], list[Problem]]
"""Everything wrong with a would-be state. A big change is validated in a thread."""


@dataclass(frozen=True, slots=True)
class At:
    """A state, the mod_revision of the head that named it, and the floor at that moment."""

    state: RegistryState
    head_mod: int
    floor: Floor


@dataclass(frozen=True, slots=True)
class Committed:
    """A version that is in the log, with the state it makes."""

    info: VersionInfo
    state: RegistryState


class Outcome(Enum):
    """What came of one attempt that did not commit."""

    NOTHING_TO_DO = "the draft found nothing to do"
    LOST = "head, upload or floor changed meanwhile; nothing was applied"


def deadline_for(size: int, base: timedelta) -> timedelta:
    """How long a writer of ``size`` bytes may take: ``base`` and a second per chunk."""
    return base + timedelta(seconds=size // CHUNK)


class Writer:
    """Commits drafts. ``at_head`` gives the state at the head as it stands in etcd now."""

    def __init__(
        self,
        etcd: Etcd,
        keys: Keys,
        at_head: Callable[[], Awaitable[At]],
        *,
        where: str,
        validator: Validator | None,
        capability: dict[str, int] | None,
        patience: timedelta,
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._store = Store(etcd, keys)
        self._uploads = Uploads(etcd, keys)
        self._at_head = at_head
        self._where = where
        self._validator = validator
        self._capability = capability or {}
        self._patience = patience

    async def commit(self, draft: Draft, author: str, message: str, *, is_heavy: bool = False) -> Committed | None:
        """Attempt until ``draft`` is a version; None when it found nothing to do. A draft that ``is_heavy`` is
        made in a thread.

        Raises what the draft raises, Invalid, Unavailable (nothing was applied) or OutcomeUnknown.
        """
        for attempt in range(ATTEMPTS):
            outcome = await self.attempt(draft, author, message, is_heavy=is_heavy)
            if isinstance(outcome, Committed):
                return outcome
            if outcome is Outcome.NOTHING_TO_DO:
                return None
            await asyncio.sleep(pause(attempt, longest=0.25))
        raise Unavailable(
            f"other writers of the registry were first {ATTEMPTS} times; nothing was applied, repeat the change"
        )

    async def attempt(
        self,
        draft: Draft,
        author: str,
        message: str,
        guard: Sequence[Compare] = (),
        *,
        is_heavy: bool = False,
    ) -> Committed | Outcome:
        """R1 to R3 once; ``guard`` are further conditions of the transaction."""
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                at = await self._at_head()
                changes = await computed(is_heavy, draft, at.state)
        except (TimeoutError, CallTimeout) as error:
            raise Unavailable(f"the registry could not be read in time; nothing was applied ({error})") from None
        if changes is None:
            return Outcome.NOTHING_TO_DO
        after, payload = await computed(changes.is_heavy, self._prepare, at.state, changes)
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                floor = await self._floor(at.floor, after, changes)
        except (TimeoutError, CallTimeout) as error:
            raise Unavailable(f"the kinds in use could not be raised; nothing was applied ({error})") from None
        record = _record(changes, author, message, self._where)
        return await self._write(at, payload, record, after, floor, guard)

    def _prepare(self, state: RegistryState, changes: Changeset) -> tuple[RegistryState, Payload]:
        """What needs no network. Raises Invalid."""
        return self.check(state, changes), Payload.of(changes.payload())

    def check(self, state: RegistryState, changes: Changeset) -> RegistryState:
        """The would-be state. Raises Invalid with everything that keeps it from being."""
        if problems := changes.problems(state.base):
            raise Invalid(problems)
        after = state.advance(changes, state.version + 1)
        if self._validator is not None and (problems := self._validator(after)):
            raise Invalid(problems)
        return after

    async def _floor(self, floor: Floor, after: RegistryState, changes: Changeset) -> Floor:
        kinds = {entry.kind for id in changes.touched if (entry := after.base.get(id))}
        needed = needed_kinds(kinds, self._capability)
        for _ in range(ATTEMPTS):
            if floor.covers(needed):
                return floor
            floor = await raise_floor(self._etcd, self._keys, floor, needed)
        raise Unavailable("nodes come and go faster than the kinds in use can be raised; nothing was applied")

    async def _write(
        self,
        at: At,
        payload: Payload,
        record: ChangeRecord,
        after: RegistryState,
        floor: Floor,
        guard: Sequence[Compare],
    ) -> Committed | Outcome:
        patience = deadline_for(len(payload.raw), self._patience)
        sent = False
        try:
            async with asyncio.timeout(patience.total_seconds()):
                done = await self._uploads.upload(payload, patience)
                record = replace(record, blob=done.blob)
                sent = True
                applied = await self._send(at, floor, done, record, after.version, guard)
        except LeaseGone:
            return Outcome.LOST  # etcd stood still for longer than the lease: start over with a fresh one
        except TimeoutError:
            if not sent:
                raise Unavailable("no answer from etcd while uploading; nothing was applied") from None
            raise OutcomeUnknown(
                f"no answer from etcd to the commit of version {after.version} within {patience.total_seconds():g} s;"
                " look at the registry's history before repeating it"
            ) from None
        if not applied:
            await self._uploads.abandon(done)
            return Outcome.LOST
        return Committed(record.info(after.version), after)

    async def _send(
        self, at: At, floor: Floor, done: Upload, record: ChangeRecord, version: int, guard: Sequence[Compare]
    ) -> bool:
        """R3: whether version ``version`` is ours."""
        compares = [
            Compare.mod(self._keys.head, "=", at.head_mod),
            done.unchanged,
            floor.unchanged(self._keys),
            *guard,
        ]
        changes: list[Put | Delete] = [
            Put(self._keys.head, encode_head(version)),
            Put(self._keys.change(version), record.encode()),
            Delete(done.key),
        ]
        try:
            result = await self._etcd.txn(compares, changes)
        except NoSpace:
            raise
        except Unavailable:
            return False  # it never left this machine
        except OutcomeUnknown as lost:
            log.info("the answer to a commit was lost", version=version, error=str(lost))
            return await self._settle(done, version)
        return result.succeeded or await self._is_mine(done, version)

    async def _settle(self, done: Upload, version: int) -> bool:
        """Unknown: without its upload key a commit can't land any more, and a commit that landed deleted it."""
        try:
            gone = await until_answered(lambda: self._etcd.txn([done.unchanged], [Delete(done.key)]))
            if gone.succeeded:
                return False
        except NoSpace:
            # a full etcd refuses transactions, not deletions; whose it was the record says
            await until_answered(lambda: self._etcd.delete(done.key, repeatable=True))
        return await self._is_mine(done, version)

    async def _is_mine(self, done: Upload, version: int) -> bool:
        record = await self._store.change(version)
        return record is not None and record.blob.upload == done.blob.upload


def _record(changes: Changeset, author: str, message: str, where: str) -> ChangeRecord:
    """Its blob is known once it was uploaded."""
    folded = next((each for each in changes.operations if isinstance(each, Fold)), None)
    ids = sorted(changes.touched)
    return ChangeRecord(
        Blob("", 0, "", 0),
        author,
        datetime.now(UTC),
        message,
        len(ids),
        folded.mod if folded else None,
        folded.id if folded else "",
        f"overlay {where.removeprefix('node ')}" if folded else where,
        tuple(ids[:NAMED]),
    )
