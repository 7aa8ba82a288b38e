"""The registry as a node and its programs use it: one state, changed by versions.

``state`` is what holds on this node now. ``commit`` makes the next version for the whole cluster:
whole or not at all, in the same order everywhere, and it returns when this node has it. Two
writers of different entries both succeed; of two writers of the same entry one wins and the
other gets RegistryConflict. Any version in the history can be restored. Nothing here decides
what an entry means: a validator says whether a would-be state is acceptable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import structlog

from cluster.errors import CallTimeout, Invalid, Problem, RegistryConflict, Unavailable
from cluster.etcd import Compare, Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.registry.changeset import Changeset, Fold, Mark, Operation, as_changeset
from cluster.registry.commit import At, Committed, Draft, Outcome, Validator, Writer
from cluster.registry.entry import Entry
from cluster.registry.history import Change, History, Step, changes_between
from cluster.registry.offloop import computed
from cluster.registry.origins import at_run_time, restoring
from cluster.registry.overlay import refusal
from cluster.registry.publish import Mode, PublishResult, Take, as_files, differences, plan_push
from cluster.registry.record import VersionInfo
from cluster.registry.replica import OnChange, Replica
from cluster.registry.snapshot import SNAPSHOT_EVERY, Snapshots
from cluster.registry.state import ABSENT, EMPTY, RegistryState

log = structlog.get_logger("wippy.registry")

_MANY = 200
"""More entries than an event loop compares without being missed."""


@dataclass(frozen=True, slots=True)
class Restored:
    """``version`` now has the entries of ``restored``; ``overlays`` are the entries that keep what the
    operator laid over them. ``changed`` is 0 when there was nothing to change and no version was made."""

    version: int
    restored: int
    changed: int
    overlays: tuple[str, ...]


class Registry:
    """Build it before ``watch`` is started, enter it after; it is at the head once entered.

    ``capability`` is what this node knows: schema numbers by kind; None leaves the floor alone. ``where`` stands
    in the history for what writes here (``VersionInfo.where``).
    """

    def __init__(
        self,
        etcd: Etcd,
        watch: PrefixWatch,
        keys: Keys,
        node: str,
        validator: Validator | None = None,
        *,
        capability: Mapping[str, int] | None = None,
        where: str = "",
        snapshot_every: int = SNAPSHOT_EVERY,
        patience: timedelta = timedelta(seconds=30),
    ) -> None:
        self._node = node
        self._patience = patience
        self._replica = Replica(etcd, watch, keys, patience=patience)
        self._writer = Writer(
            etcd,
            keys,
            self._replica.at_head,
            where=where or f"node {node}",
            validator=validator,
            capability=dict(capability) if capability is not None else None,
            patience=patience,
        )
        self._history = History(self._replica, patience)
        self._snapshots = Snapshots(etcd, keys, self._replica, snapshot_every, patience * 2)
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._replica.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._snapshots.__aexit__()
        await self._replica.__aexit__()

    async def finish(self) -> None:
        """Bring to an end what commits left to be done, for a program that is about to leave."""
        await self._snapshots.finish()

    @property
    def state(self) -> RegistryState:
        return self._replica.state

    @property
    def lag(self) -> int:
        """Versions this node still has to apply."""
        return max(self._replica.head.version - self.state.version, 0)

    def on_change(self, callback: OnChange) -> Callable[[], None]:
        """Call ``callback(before, after, changed_ids)`` for every version, in order, on the event loop.

        Returns the undo.
        """
        return self._replica.on_change(callback)

    @contextmanager
    def follow(self) -> Iterator[AsyncIterator[Step]]:
        """Every version from now on, in order: ``with registry.follow() as steps: async for step in steps``. The
        newest come as one step when ``history.BEHIND`` of them wait."""
        with self._history.follow() as steps:
            yield steps

    async def reached(self, version: int, timeout: timedelta | None = None) -> RegistryState:
        """The state once it is at ``version`` or later. Raises CallTimeout."""
        return await self._replica.reached(version, timeout)

    async def at_head(self) -> At:
        """The state at the head as it stands in etcd at this moment."""
        return await self._replica.at_head()

    async def commit(
        self,
        operations: Changeset | Sequence[Operation],
        author: str = "",
        message: str = "",
        base_version: int | None = None,
        rebase: bool = True,
    ) -> VersionInfo:
        """Apply ``operations``, a change made at run time, as the next version.

        They were made against ``base_version`` (None: the state of this node now). When other versions
        came since and touched none of the same entries, they are put on top, unless ``rebase`` is false.
        Raises Invalid, RegistryConflict with the versions that came in between, VersionNotFound, Unavailable
        (nothing was applied), OutcomeUnknown.
        """
        changes = as_changeset(operations)
        if inner := [each.id for each in changes.operations if isinstance(each, Fold | Mark)]:
            raise Invalid([Problem("expected entry.create, entry.update or entry.delete", entry=id) for id in inner])
        base = self.state if base_version is None else await self.state_at(base_version)

        def draft(state: RegistryState) -> Changeset:
            changed = state.base_differs_from(base, changes.touched)
            if changed or (not rebase and state.version != base.version):
                raise RegistryConflict(state.version, changed)
            return at_run_time(state, changes)

        if not changes:
            raise Invalid(changes.problems(base.base))
        try:
            committed = await self._commit(draft, author, message)
        except RegistryConflict as lost:
            meanwhile = await self._history.meanwhile(base.version, lost.head, lost.changed)
            raise RegistryConflict(lost.head, lost.changed, meanwhile) from None
        assert committed is not None  # this draft always has something to do
        return committed.info

    async def _commit(self, draft: Draft, author: str, message: str, *, is_heavy: bool = False) -> Committed | None:
        async with self._turn():
            committed = await self._writer.commit(draft, author or self._node, message, is_heavy=is_heavy)
        if committed is not None:
            await self._after(committed)
        return committed

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The writers of one node queue up instead of racing each other."""
        seconds = self._patience.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                await self._writing.acquire()
        except TimeoutError:
            raise Unavailable(f"other changes of this node are stuck for {seconds:g} s; nothing was applied") from None
        try:
            yield
        finally:
            self._writing.release()

    async def fold(self, change: Fold, guard: Compare) -> Committed | Outcome:
        """One attempt to fold what the operator laid over an entry; ``guard`` compares its key."""

        def draft(state: RegistryState) -> Changeset | None:
            held = state.overlays.get(change.id)
            if (held.mod if held else 0) == change.mod:
                return None
            # the entry may have become another kind since it was judged
            if change.mod and (why := refusal(state.base.get(change.id))):
                raise Invalid([Problem(why, entry=change.id)])
            return Changeset((change,))

        message = f"overlay of {change.id}" if change.mod else f"overlay of {change.id} removed"
        async with self._turn():
            outcome = await self._writer.attempt(draft, self._node, message, [guard])
        if isinstance(outcome, Committed):
            await self._after(outcome)
        return outcome

    async def _after(self, committed: Committed) -> None:
        """Own writes are seen here when the writer goes on; a snapshot follows now and then."""
        version = committed.info.version
        try:
            await self._replica.reached(version)
        except CallTimeout as late:
            log.warning("a version was committed but is not here yet", version=version, error=str(late))
        self._snapshots.consider(committed.state)

    async def versions(self) -> list[VersionInfo]:
        """The history this node knows, oldest first."""
        return self._history.versions()

    async def state_at(self, version: int) -> RegistryState:
        """The state as it was at ``version``. Raises VersionNotFound, CallTimeout."""
        return await self._history.state_at(version)

    async def changeset(self, version: int) -> Changeset:
        """The operations that made ``version``. Raises VersionNotFound, CallTimeout."""
        return await self._history.changeset(version)

    async def changes_between(self, before: int, after: int) -> list[Change]:
        """The entries that differ between two versions. Raises VersionNotFound, CallTimeout."""
        states = await self.state_at(before), await self.state_at(after)
        return await computed(max(map(len, states)) > _MANY, changes_between, *states)

    async def rollback(
        self, version: int, author: str = "", message: str = "", permit: Callable[[Changeset], None] | None = None
    ) -> Restored:
        """Make a new version with the base entries of ``version``; overlays stay on top.

        Origins come back too: the next push of the files makes the registry say what they say.
        ``permit`` may raise when it sees what is about to be changed; it sees each attempt.
        Raises what ``commit`` raises, but no conflict.
        """
        target = await self.state_at(version)

        def draft(state: RegistryState) -> Changeset | None:
            changes = restoring(state, target)
            if changes and permit is not None:
                permit(changes)
            return changes or None

        heavy = len(target) > _MANY
        committed = await self._commit(draft, author, message or f"back to version {version}", is_heavy=heavy)
        after = committed.state if committed else self.state
        changed = committed.info.changed if committed else 0
        return Restored(after.version, version, changed, tuple(sorted(after.overlays)))

    async def apply_version(
        self, version: int, author: str = "", permit: Callable[[Changeset], None] | None = None
    ) -> Restored:
        """``rollback``, forward as well as back."""
        return await self.rollback(version, author, f"version {version} applied", permit)

    async def publish(
        self,
        entries: Iterable[Entry],
        mode: Mode | str,
        *,
        author: str = "",
        message: str = "",
        take: Take | None = None,
        prune: bool = False,
    ) -> PublishResult:
        """The entries of the project's files into the registry (R6).

        An empty registry gets them as version 0 unless ``mode`` is never; when several nodes try at once, one
        does and the others load it. With ``always`` an existing registry gets what differs. Raises PushConflict
        and what ``commit`` raises.
        """
        files, mode = as_files(entries), Mode(mode)
        before = EMPTY

        def draft(state: RegistryState) -> Changeset | None:
            nonlocal before
            before = state
            if mode is Mode.NEVER or (mode is Mode.IF_EMPTY and state.version != ABSENT):
                return None
            return plan_push(state, files, take, prune=prune) or None

        heavy = len(files) > _MANY
        committed = await self._commit(draft, author, message or "files published", is_heavy=heavy)
        after = committed.state if committed else before
        changed = committed.info.changed if committed else 0
        left = await computed(heavy, differences, after, files)
        if left:
            log.warning("files and registry differ", version=after.version, entries=[str(each) for each in left[:20]])
        created = committed is not None and before.version == ABSENT
        return PublishResult(after.version, created, changed, left, before, after)
