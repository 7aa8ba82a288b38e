"""Locks: a name that one process of the cluster holds at a time, with a token for what it guards.

A lock is the key ``locks/<name>`` on the lease of its holder's node, created only if absent and never changed; its
mod_revision is the fencing token. Acquiring always asks etcd, so its answer is never older than the question; it
fails at once when somebody holds the lock. A lock ends when its holder releases it, when the holder ends, and with
the lease.

Several processes of a node share its lease, so the value names the holder and the attempt that made the key
(fencing rule F5): a key whose answer was lost is recognised, and one that nobody here waits for any more, because
its process ended or gave up meanwhile, is deleted as soon as the watch shows it. A lock of a process that moves
keeps its attempt, and changes its lease and its token.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import structlog

from cluster import owned
from cluster.errors import LockTaken, OutcomeUnknown, Unavailable
from cluster.etcd import Batch, Etcd, KeyValue, PrefixWatch
from cluster.handlers import Handlers
from cluster.keys import Keys
from cluster.migration.belongings import CannotMove
from cluster.migration.items import Holding
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.locks")

MAX_NAME = 255
"""Bytes."""
MAX_OWN = 5_000
"""Most locks held by the processes of one node: they all end in one revision when its lease does."""
MAX_PER_PROCESS = 64
"""Most locks of one process: each is compared in every write it fences, and etcd takes so many comparisons."""
RELEASE_WITHIN = 60.0
"""Seconds in which a lock that nobody holds any more is given back, or left to the end of the lease."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held. ``token`` grows with every change of the holder."""

    name: str
    pid: str
    token: int
    lease: int
    attempt: str


Lost: TypeAlias = Callable[[Lock], None]
"""A process of this node has lost a lock it did not give back."""


class Locks:
    """The locks of the cluster as this node sees them, and those its processes hold.

    Make it before the watch starts. ``tasks`` runs what is given back behind the scenes.
    """

    def __init__(self, etcd: Etcd, watch: PrefixWatch, keys: Keys, tasks: Tasks) -> None:
        self._etcd = etcd
        self._watch = watch
        self._keys = keys
        self._tasks = tasks
        self._seen: dict[str, Lock] = {}
        self._own: dict[str, Lock] = {}
        self._by_pid: dict[bytes, dict[str, Lock]] = {}
        self._attempts: dict[str, bytes] = {}
        self._leases: set[int] = set()
        self._returning: set[tuple[str, int]] = set()
        """By name and token: locks that moved with one process have one token."""
        self._leaving: dict[bytes, dict[str, Lock]] = {}
        """What processes hold that are frozen to move: nobody here acts under it or loses it."""
        self._ended_frozen: set[bytes] = set()
        self._coming: set[str] = set()
        """Attempts of the locks of processes that may be about to run here."""
        self._lost: Handlers[Lock] = Handlers("lost lock")
        watch.subscribe(keys.locks, self._apply)

    def on_lost(self, handler: Lost) -> None:
        """Call ``handler`` for each lock a process of this node lost, on the loop."""
        self._lost.add(handler)

    def holder(self, name: str) -> Lock | None:
        """Who holds the lock, as far as the watch has told."""
        return self._seen.get(name)

    def all(self) -> list[Lock]:
        """Every held lock of the cluster, by name."""
        return [self._seen[name] for name in sorted(self._seen)]

    @property
    def holders(self) -> Collection[bytes]:
        """The processes of this node that hold locks, or held one that was lost."""
        return self._by_pid.keys()

    def of(self, pid: bytes) -> list[Lock]:
        """What the process acquired and did not release, the oldest first; also what it has lost meanwhile."""
        return list(self._by_pid.get(pid, {}).values())

    def token(self, name: str, pid: bytes) -> int | None:
        """The fencing token under which the process acquired the lock; None when it did not, or released it."""
        lock = self._by_pid.get(pid, {}).get(name)
        return None if lock is None else lock.token

    async def acquire(self, name: str, pid: bytes, lease: int) -> Lock:
        """Give the lock to ``pid`` unless somebody has it, be it the same process.

        Raises LockTaken with the holder, ValueError for a text that can't be a name, Unavailable and LeaseGone when
        nothing was acquired, OutcomeUnknown when etcd did not say: then it is given back should it turn up.
        """
        _check(name)
        self._check_stays(pid)
        self._check_room(name, pid)
        attempt, holder = secrets.token_hex(8), _text(pid)
        self._attempts[attempt] = pid
        self._leases.add(lease)
        try:
            value = _value(holder, attempt)
            holding = await owned.create(self._etcd, self._keys.lock(name), value, lease)
            if holding.kv.value != value:
                raise LockTaken(name, _read(name, holding.kv).pid)
            if attempt not in self._attempts:
                raise Unavailable(f"process {holder} ended while it acquired {name!r}")
            lock = Lock(name, holder, holding.token, lease, attempt)
            self._hold(pid, lock)
            return lock
        finally:
            self._attempts.pop(attempt, None)
            self._sweep(self._seen.get(name))

    async def release(self, name: str, pid: bytes) -> bool:
        """Take the lock back from ``pid``; False when the process does not have it, or has lost it.

        From the call on the process holds it no more. Raises Unavailable or OutcomeUnknown when etcd did not take
        it yet: it is given back as soon as etcd does.
        """
        self._check_stays(pid)
        lock = self._let_go(name, pid)
        if lock is None:
            return False
        self._returning.add((lock.name, lock.token))
        answered = False
        try:
            deletion = await owned.delete(self._etcd, self._keys.lock(name), lock.token)
            answered = True
            return deletion.done
        finally:
            self._returning.discard((lock.name, lock.token))
            if not answered:
                self._give_back(lock)

    def process_ended(self, pid: bytes) -> None:
        """The process is gone: what it holds, and what it was about to hold, is given back. What is frozen to move may
        go on elsewhere: its locks are given back when it stays."""
        if pid in self._leaving:
            self._ended_frozen.add(pid)
            return
        for attempt in [attempt for attempt, by in self._attempts.items() if by == pid]:
            del self._attempts[attempt]
        for lock in self.of(pid):
            held = self._let_go(lock.name, pid)
            if held is not None:
                self._give_back(held)

    def lease_lost(self, lease: int) -> None:
        """The lease is over for certain: its locks are nobody's, before the watch says so."""
        self._leases.discard(lease)
        for name in [name for name, lock in self._seen.items() if lock.lease == lease]:
            del self._seen[name]
        for lock in [lock for lock in self._own.values() if lock.lease == lease]:
            self._lose(lock)

    def owns(self) -> bool:
        """Whether a process of this node lives that holds a lock, or had one that it lost."""
        return bool(self._by_pid)

    # -- what the processes of this node hold

    def _check_room(self, name: str, pid: bytes) -> None:
        if len(self._own) >= MAX_OWN:
            raise Unavailable(f"processes of this node hold {MAX_OWN} locks, its limit; {name!r} was not acquired")
        if len(self._by_pid.get(pid, ())) >= MAX_PER_PROCESS:
            raise Unavailable(f"this process holds {MAX_PER_PROCESS} locks, its limit; {name!r} was not acquired")

    def _hold(self, pid: bytes, lock: Lock) -> None:
        self._own[lock.name] = lock
        self._by_pid.setdefault(pid, {})[lock.name] = lock

    def _let_go(self, name: str, pid: bytes) -> Lock | None:
        """Forget that the process has the lock; what is to be given back, None when it has lost or never had it."""
        held = self._by_pid.get(pid, {})
        lock = held.pop(name, None)
        if not held:
            self._by_pid.pop(pid, None)
        if lock is None or self._own.get(name) != lock:
            return None
        del self._own[name]
        return lock

    def _lose(self, lock: Lock) -> None:
        """The key is gone, and not by us. The process stays fenced by the token it had."""
        del self._own[lock.name]
        log.warning("lock lost", name=lock.name, pid=lock.pid, token=lock.token)
        self._lost.tell(lock)

    def _give_back(self, lock: Lock) -> None:
        if (lock.name, lock.token) not in self._returning and lock.lease in self._leases:
            self._returning.add((lock.name, lock.token))
            self._tasks.start(self._return(lock), f"give back lock {lock.name}")

    async def _return(self, lock: Lock) -> None:
        deadline = time.monotonic() + RELEASE_WITHIN
        try:
            while lock.lease in self._leases:
                try:
                    await owned.delete(self._etcd, self._keys.lock(lock.name), lock.token)
                    return
                except (Unavailable, OutcomeUnknown) as error:
                    if time.monotonic() > deadline:
                        log.error("a lock stays until the lease ends", name=lock.name, pid=lock.pid, error=str(error))
                        return
                    await asyncio.sleep(1.0)
        finally:
            self._returning.discard((lock.name, lock.token))

    # -- the watched copy

    def _apply(self, batch: Batch) -> None:
        touched = set(self._own) if batch.relist else set()
        for event in batch.events:
            name = event.kv.key.removeprefix(self._keys.locks)
            touched.add(name)
            if event.deleted:
                self._seen.pop(name, None)
                continue
            self._seen[name] = _read(name, event.kv)
            self._sweep(self._seen[name])
        for name in touched:
            self._check_own(name, batch.revision)

    def _check_own(self, name: str, revision: int) -> None:
        """Whether what a process here holds is still there, at a revision that must show it."""
        own, seen = self._own.get(name), self._seen.get(name)
        if own is not None and own.token <= revision and (seen is None or seen.token != own.token):
            self._lose(own)

    def _sweep(self, lock: Lock | None) -> None:
        """Give back a key that this node made and nobody here holds or waits for."""
        if lock is None or lock.lease not in self._leases:
            return
        if lock.attempt in self._attempts or lock.attempt in self._coming or self._is_leaving(lock):
            return
        own = self._own.get(lock.name)
        if own is None or own.token < lock.token:
            self._give_back(lock)

    # -- processes that move (see cluster.migration.belongings)

    def check(self, pid: str) -> None:
        """Raises CannotMove when it has lost a lock: it is about to be ended for that."""
        self._check_sound(_raw(pid))

    def pack(self, pid: str) -> Sequence[Holding]:
        """Its locks. While it is frozen the node guards it no more: it does nothing, and is not to be ended for a lease
        its locks may not be on by now."""
        raw = _raw(pid)
        self._check_sound(raw)
        if raw in self._attempts.values():
            raise CannotMove("it is acquiring a lock; move it again when that is done")
        locks = self._by_pid.pop(raw, {})
        self._leaving[raw] = locks
        for lock in locks.values():
            del self._own[lock.name]
        return [Holding(self._keys.lock(lock.name), _value(pid, lock.attempt), lock.token) for lock in locks.values()]

    def _check_sound(self, pid: bytes) -> None:
        for lock in self.of(pid):
            if self._own.get(lock.name) != lock:
                raise CannotMove(f"it has lost lock {lock.name!r} and is being ended for that")

    def _check_stays(self, pid: bytes) -> None:
        if pid in self._leaving:
            raise Unavailable(f"process {_text(pid)} is moving to another node; try again in a moment")

    def _is_leaving(self, lock: Lock) -> bool:
        return lock.name in self._leaving.get(_raw(lock.pid), ())

    def stays(self, pid: str) -> None:
        """What it has lost meanwhile it loses now."""
        raw = _raw(pid)
        for lock in self._leaving.pop(raw, {}).values():
            self._settle(raw, lock)
        if raw in self._ended_frozen:
            self._ended_frozen.remove(raw)
            self.process_ended(raw)

    def left(self, pid: str) -> None:
        """Its keys are on the target's lease, also where the watch does not show it yet."""
        self._leaving.pop(_raw(pid), None)
        self._ended_frozen.discard(_raw(pid))

    def refusal(self, pid: str, keys: Sequence[str]) -> str:
        more = sum(key.startswith(self._keys.locks) for key in keys)
        if more and len(self._own) + len(self._coming) + more > MAX_OWN:
            return f"its processes would hold more than {MAX_OWN} locks, its limit"
        return ""

    def adapt(self, pid: str, holdings: Sequence[Holding]) -> Sequence[Holding]:
        """The attempt that made a key stays the one that recognises it."""
        return holdings

    def expect(self, pid: str, holdings: Sequence[Holding]) -> None:
        self._coming.update(lock.attempt for lock in self._locks_in(holdings))

    def arrived(self, pid: str, holdings: Sequence[Holding], revision: int, lease: int) -> None:
        """From now on it holds its locks here, under a new token: the revision of the commit."""
        self._leases.add(lease)
        for lock in self._locks_in(holdings):
            self._coming.discard(lock.attempt)
            self._settle(_raw(pid), replace(lock, token=revision, lease=lease))

    def lost(self, pid: str, holdings: Sequence[Holding]) -> None:
        for lock in self._locks_in(holdings):
            self._coming.discard(lock.attempt)
            self._sweep(self._seen.get(lock.name))

    def _settle(self, pid: bytes, lock: Lock) -> None:
        """The process holds the lock, unless it is known to be lost."""
        self._hold(pid, lock)
        self._check_own(lock.name, self._watch.applied)

    def _locks_in(self, holdings: Sequence[Holding]) -> list[Lock]:
        """The locks among the keys, as they were where the process comes from."""
        own = [held for held in holdings if held.key.startswith(self._keys.locks)]
        return [_read_lock(held.key.removeprefix(self._keys.locks), held.value, held.revision, 0) for held in own]


def _raw(pid: str) -> bytes:
    return pid.encode("utf-8", "surrogateescape")


def _text(pid: bytes) -> str:
    return pid.decode("utf-8", "surrogateescape")


def _value(pid: str, attempt: str) -> bytes:
    return json.dumps({"pid": pid, "attempt": attempt}).encode()


def _read(name: str, kv: KeyValue) -> Lock:
    return _read_lock(name, kv.value, kv.mod_revision, kv.lease)


def _read_lock(name: str, value: bytes, token: int, lease: int) -> Lock:
    """The lock in a key. One that says nothing of the kind is held all the same: by what stands there."""
    try:
        fields = json.loads(value)
        pid, attempt = str(fields["pid"]), str(fields["attempt"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pid, attempt = value.decode("utf-8", "backslashreplace")[:200], ""
    return Lock(name, pid, token, lease, attempt)


def _check(name: str) -> None:
    if not name or len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
        raise ValueError(f"expected the name of a lock to have 1 to {MAX_NAME} bytes, got {name[:80]!r}")
