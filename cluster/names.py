"""Names of processes: this node's own (LOCAL) and the cluster's, with look-ups that never wait.

A cluster name is the key ``names/<name>`` on its node's lease, created only if absent; its value is the PID (and
the scope), its mod_revision the fencing token that messages by name carry. Every node answers from its watched
copy, which is behind etcd by milliseconds. A cluster name hides a local one of the same text.

    CONSISTENT  the registration returns when etcd has it and the own copy shows it
    STRONG      ... and when the copy of every other registered node shows it
    EVENTUAL    returns at once; this node resolves the name from then on, the others once etcd has it. While etcd
                is away or the lease is lost that waits; a name that somebody else got first is revoked

When a lease ends its names are gone; ``on_revoked`` tells the node whose processes lost them for good.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import structlog

from cluster import owned
from cluster.errors import BadPid, CallTimeout, NameTaken, OutcomeUnknown, Unavailable
from cluster.etcd import Batch, Etcd, PrefixWatch
from cluster.handlers import Handlers
from cluster.keys import Keys
from cluster.pid import Pid, is_pid
from cluster.pursuit import Pursuits, Wanted
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.names")

MAX_NAME = 255
"""Bytes."""

MAX_OWN = 20_000
"""Most cluster names of one node: they all end in one revision when its lease does."""

RELEASE_WITHIN = 60.0
"""Seconds in which the names of an ended process are freed, or left to the end of the lease."""
RELEASE_PAUSE = 1.0

FREE_WITHIN = 1.0
"""Seconds the end of an EVENTUAL name waits for etcd; after that it is freed behind the scenes."""


class Scope(IntEnum):
    """How far a name is known, as Lua counts them."""

    LOCAL = 0
    EVENTUAL = 1
    CONSISTENT = 2
    STRONG = 3


@dataclass(frozen=True)
class Registered:
    """Who has a name. ``revision`` is 0 for a LOCAL one, and for an EVENTUAL one that only this node knows yet."""

    pid: str
    revision: int
    scope: Scope
    lease: int = 0


NameChange: TypeAlias = Callable[[str, str | None, int], None]
"""``handler(name, pid, revision)``: what a look-up says from now on; None = nobody."""

Revoked: TypeAlias = Callable[[str, str], None]
"""``handler(name, pid)``: a process of this node has lost a cluster name it did not give back."""


Everywhere: TypeAlias = Callable[[int, float], Awaitable[None]]
"""``everywhere(revision, seconds)`` returns when the copy of every registered node shows the state at ``revision``.
Raises CallTimeout."""


@dataclass(frozen=True)
class NamesStats:
    local: int
    cluster: int
    own: int
    """Cluster names held by processes of this node."""


class Names:
    """The name tables of one node. Make it before the watch starts.

    ``tasks`` runs what goes on behind the scenes, ``lease`` gives the lease of this node now.
    """

    def __init__(
        self,
        etcd: Etcd,
        watch: PrefixWatch,
        keys: Keys,
        node: str,
        tasks: Tasks,
        lease: Callable[[], int],
        everywhere: Everywhere,
    ) -> None:
        self._etcd = etcd
        self._watch = watch
        self._keys = keys
        self._node = node
        self._own_pids = f"{{{node}@"
        self._local: dict[str, Registered] = {}
        self._cluster: dict[str, Registered] = {}
        self._wishes: dict[str, Registered] = {}
        self._by_pid: dict[str, set[str]] = {}
        self._own: set[str] = set()
        self._giving_back: Counter[str] = Counter()
        self._registering: Counter[str] = Counter()
        self._asking: Counter[str] = Counter()
        self._leaving: Counter[tuple[str, int]] = Counter()
        self._granted: dict[str, int] = {}
        self._lease = lease
        self._ended: set[str] = set()
        self._changed: Handlers[str, str | None, int] = Handlers("change of a name")
        self._revoked: Handlers[str, str] = Handlers("revoked name")
        self._tasks = tasks
        self._everywhere = everywhere
        self._pursuits = Pursuits(etcd, watch, tasks, lease, self._is_missing, self._refused)
        watch.subscribe(keys.names, self._apply)

    def on_change(self, handler: NameChange) -> None:
        """Call ``handler`` whenever the answer of ``lookup`` for a name changes, on the loop."""
        self._changed.add(handler)

    def on_revoked(self, handler: Revoked) -> None:
        """Call ``handler`` for each cluster name that a process of this node lost."""
        self._revoked.add(handler)

    def lookup(self, name: str) -> Registered | None:
        """Who has ``name``: the cluster's answer, else this node's."""
        return self._cluster.get(name) or self._wishes.get(name) or self._local.get(name)

    def names_of(self, pid: str) -> list[str]:
        """The names of a process, as this node sees them."""
        return sorted(self._by_pid.get(pid, ()))

    def all(self) -> list[tuple[str, Registered]]:
        """Every name, cluster names first, by name."""
        return [*sorted({**self._wishes, **self._cluster}.items()), *sorted(self._local.items())]

    async def register(self, name: str, pid: str, scope: Scope, lease: int = 0, timeout: float = 5.0) -> Registered:
        """Give ``name`` to ``pid``; giving it again to the same process is no change.

        ``lease`` is the lease of this node, for CONSISTENT and STRONG. Raises NameTaken, ValueError for a text that
        can't be a name, Unavailable (nothing registered, or the process ended meanwhile), LeaseGone when the lease is
        over, OutcomeUnknown, and CallTimeout: CONSISTENT, the name is registered but the own copy does not show it in
        time; STRONG, not every node showed it in time and it was given back.
        """
        _check(name)
        match scope:
            case Scope.LOCAL:
                return self._register_local(name, pid)
            case Scope.EVENTUAL:
                return self._register_eventual(name, pid)
            case Scope.CONSISTENT | Scope.STRONG:
                return await self._register_cluster(name, pid, scope, lease, timeout)

    async def unregister(self, name: str, pid: str, scope: Scope) -> bool:
        """Take ``name`` back from ``pid``; False when the process does not have it. Raises as ``register``."""
        match scope:
            case Scope.LOCAL:
                return self._unregister_local(name, pid)
            case Scope.EVENTUAL:
                return await self._unregister_eventual(name, pid)
            case Scope.CONSISTENT | Scope.STRONG:
                held = self._held(name, pid)
                return held is not None and held.scope is scope and await self._unregister_cluster(name, pid)

    async def release(self, pid: str) -> None:
        """The process ended: free all its names. What etcd does not take within a minute ends with the lease."""
        if self._registering[pid]:
            self._ended.add(pid)
        for name in self.names_of(pid):
            self._unregister_local(name, pid)
            self._drop_wish(name, pid)
            held = self._held(name, pid)
            if held is not None:
                await self._release_cluster(name, held)

    def lease_lost(self, lease: int) -> None:
        """The lease is over for certain: its names are nobody's, before the watch says so."""
        for name, registered in list(self._cluster.items()):
            if registered.lease == lease:
                self._set_cluster(name, None)

    def stats(self) -> NamesStats:
        return NamesStats(local=len(self._local), cluster=len(self._cluster), own=len(self._own))

    # -- local names

    def _register_local(self, name: str, pid: str) -> Registered:
        present = self._local.get(name)
        if present is not None and present.pid != pid:
            raise NameTaken(name, present.pid)
        if present is None:
            self._update(name, self._local, Registered(pid, 0, Scope.LOCAL))
        return self._local[name]

    def _unregister_local(self, name: str, pid: str) -> bool:
        present = self._local.get(name)
        if present is None or present.pid != pid:
            return False
        self._update(name, self._local, None)
        return True

    # -- names of scope EVENTUAL

    def _register_eventual(self, name: str, pid: str) -> Registered:
        present, wish = self._cluster.get(name), self._wishes.get(name)
        for one in (present, wish):
            if one is not None and one.pid != pid:
                raise NameTaken(name, one.pid)
        if wish is None and (present is None or present.scope is Scope.EVENTUAL):
            self._check_room(name)
            wish = Registered(pid, 0, Scope.EVENTUAL)
            self._update(name, self._wishes, wish)
            self._pursue(name, pid)
        return self._cluster.get(name) or wish or Registered(pid, 0, Scope.EVENTUAL)

    async def _unregister_eventual(self, name: str, pid: str) -> bool:
        """From now on the process has it no more; what etcd does not take at once ends behind the scenes."""
        held = self._held(name, pid)
        is_dropped = self._drop_wish(name, pid)
        if held is None or held.scope is not Scope.EVENTUAL:
            return is_dropped
        await asyncio.wait({self._start_release(name, held)}, timeout=FREE_WITHIN)
        return True

    def _drop_wish(self, name: str, pid: str) -> bool:
        wish = self._wishes.get(name)
        if wish is None or wish.pid != pid:
            return False
        self._update(name, self._wishes, None)
        return True

    def _pursue(self, name: str, pid: str) -> None:
        self._pursuits.begin(Wanted(name, self._keys.name(name), _value(pid, Scope.EVENTUAL)))

    def _is_missing(self, wanted: Wanted) -> bool:
        """Whether the wish stands and the cluster does not show it."""
        seen = self._cluster.get(wanted.name)
        return self._is_wanted(wanted) and (seen is None or seen.pid != self._wishes[wanted.name].pid)

    def _is_wanted(self, wanted: Wanted) -> bool:
        wish = self._wishes.get(wanted.name)
        return wish is not None and _value(wish.pid, Scope.EVENTUAL) == wanted.value

    def _refused(self, wanted: Wanted, found: bytes) -> None:
        """Somebody else has the name; or the process itself, in another scope."""
        wish = self._wishes.get(wanted.name)
        if wish is None or not self._is_wanted(wanted) or self._is_left_over(wanted.name, *_read_value(found)):
            return
        self._drop_wish(wanted.name, wish.pid)
        if _read_value(found)[0] != wish.pid:
            self._revoke(wanted.name, wish.pid)

    def _is_left_over(self, name: str, pid: str, scope: Scope) -> bool:
        """Whether a key was made for a process of this node that gave the name back before it was there."""
        wish = self._wishes.get(name)
        return scope is Scope.EVENTUAL and self._is_own(pid) and (wish is None or wish.pid != pid)

    # -- cluster names

    async def _register_cluster(self, name: str, pid: str, scope: Scope, lease: int, timeout: float) -> Registered:
        """Always asks etcd: whoever was told that a name is free must be able to take it."""
        self._check_room(name)
        before = self._held(name, pid)
        self._registering[pid] += 1
        self._asking[name] += 1
        try:
            holding = await owned.create(self._etcd, self._keys.name(name), _value(pid, scope), lease)
            if holding.ours:
                self._granted[name] = holding.token
            registered = await self._confirm(name, pid, lease, holding, timeout)
            if scope is Scope.STRONG:
                await self._acknowledged(name, registered, timeout, give_back=before is None)
            return registered
        finally:
            self._asking[name] -= 1
            if not self._asking[name]:
                del self._asking[name]
            self._release_late(name)
            self._registering[pid] -= 1
            if not self._registering[pid]:
                del self._registering[pid]
                self._ended.discard(pid)

    def _release_late(self, name: str) -> None:
        """Free a name nobody here waits for any more: a try to create its key that was given up has come to etcd after
        all, perhaps when the name had been had and given back."""
        present = self._cluster.get(name)
        if present is None or present.scope is Scope.EVENTUAL or name in self._asking:
            return
        is_of_now = self._is_own(present.pid) and present.lease == self._lease() != 0
        if is_of_now and self._granted.get(name) != present.revision:
            self._start_release(name, present)

    def _check_room(self, name: str) -> None:
        if len(self._own) >= MAX_OWN:
            raise Unavailable(f"this node holds {MAX_OWN} cluster names, its limit; {name!r} was not registered")

    async def _acknowledged(self, name: str, registered: Registered, timeout: float, *, give_back: bool) -> None:
        """Wait for the other nodes; whatever keeps them, a new name is given back when they don't show it in time."""
        shown = False
        try:
            await self._everywhere(registered.revision, timeout)
            shown = True
        finally:
            if give_back and not shown:
                self._start_release(name, registered)

    async def _confirm(self, name: str, pid: str, lease: int, holding: owned.Holding, timeout: float) -> Registered:
        holder, scope = _read_value(holding.kv.value)
        if holder != pid:
            raise NameTaken(name, holder)
        if not holding.ours:
            raise Unavailable(f"name {name!r} is still held under this node's former lease; try again when that ended")
        if (name, holding.token) in self._leaving:
            raise Unavailable(f"name {name!r} is being given back at this moment; try again")
        try:
            await self._watch.reached(holding.token, timeout)
        finally:
            # release() may have come before the own copy showed the name
            if pid in self._ended:
                with self._giving(name):
                    await owned.delete(self._etcd, holding.kv.key, holding.token)
        if pid in self._ended:
            raise Unavailable(f"process {pid} ended while it registered {name!r}")
        return Registered(pid, holding.token, scope, lease)

    async def _unregister_cluster(self, name: str, pid: str) -> bool:
        present = self._held(name, pid)
        return present is not None and await self._delete(name, present.revision)

    async def _delete(self, name: str, revision: int) -> bool:
        with self._giving(name):
            deletion = await owned.delete(self._etcd, self._keys.name(name), revision)
            await self._watch.reached(deletion.revision, owned.WITHIN)
        return deletion.done

    @contextmanager
    def _giving(self, name: str) -> Iterator[None]:
        """While it lasts, the end of ``name`` is our own doing and no revocation."""
        self._giving_back[name] += 1
        try:
            yield
        finally:
            self._giving_back[name] -= 1
            if not self._giving_back[name]:
                del self._giving_back[name]

    def _start_release(self, name: str, registered: Registered) -> asyncio.Task[None]:
        return self._tasks.start(self._release_cluster(name, registered), f"release name {name}")

    async def _release_cluster(self, name: str, registered: Registered) -> None:
        """Free a name that is held under this revision, and no other: the process may have got it once more."""
        deadline = time.monotonic() + RELEASE_WITHIN
        one = (name, registered.revision)
        self._leaving[one] += 1
        try:
            while self._shows(name, registered.revision):
                try:
                    await self._delete(name, registered.revision)
                except (Unavailable, OutcomeUnknown, CallTimeout) as error:
                    if time.monotonic() > deadline:
                        log.error("a name stays until the lease ends", name=name, pid=registered.pid, error=str(error))
                        return
                    await asyncio.sleep(RELEASE_PAUSE)
        finally:
            self._leaving[one] -= 1
            if not self._leaving[one]:
                del self._leaving[one]

    def _shows(self, name: str, revision: int) -> bool:
        present = self._cluster.get(name)
        return present is not None and present.revision == revision

    def _held(self, name: str, pid: str) -> Registered | None:
        present = self._cluster.get(name)
        return present if present is not None and present.pid == pid else None

    # -- the watched copy

    def _apply(self, batch: Batch) -> None:
        for event in batch.events:
            name = event.kv.key.removeprefix(self._keys.names)
            if event.deleted:
                self._set_cluster(name, None)
                continue
            pid, scope = _read_value(event.kv.value)
            registered = Registered(pid, event.kv.mod_revision, scope, event.kv.lease)
            self._set_cluster(name, registered)
            if self._is_left_over(name, pid, scope):
                self._start_release(name, registered)
            else:
                self._release_late(name)

    def _set_cluster(self, name: str, registered: Registered | None) -> None:
        before = self._cluster.get(name)
        if before == registered:
            return
        self._update(name, self._cluster, registered)
        if before is not None and self._granted.get(name) == before.revision:
            del self._granted[name]
        if registered is not None and self._is_own(registered.pid):
            self._own.add(name)
        else:
            self._own.discard(name)
        wish = self._wishes.get(name)
        if wish is not None and registered is None:
            self._pursue(name, wish.pid)
        elif wish is not None and registered is not None and registered.pid != wish.pid:
            if self._is_left_over(name, registered.pid, registered.scope):
                return
            self._drop_wish(name, wish.pid)
            self._revoke(name, wish.pid)
        elif wish is None and before is not None and (registered is None or registered.pid != before.pid):
            self._revoke(name, before.pid)

    def _revoke(self, name: str, pid: str) -> None:
        """Tell that the process lost the name, if it is of this node and did not give it back."""
        if self._is_own(pid) and name not in self._giving_back:
            log.warning("name revoked", name=name, pid=pid)
            self._revoked.tell(name, pid)

    def _update(self, name: str, table: dict[str, Registered], registered: Registered | None) -> None:
        """Change one table and tell what a look-up says now, if that is something else."""
        before = self.lookup(name)
        present = table.pop(name, None)
        if registered is not None:
            table[name] = registered
        for changed in (present, registered):
            if changed is not None:
                self._index(name, changed.pid)
        after = self.lookup(name)
        if before != after:
            self._changed.tell(name, after.pid if after else None, after.revision if after else 0)

    def _index(self, name: str, pid: str) -> None:
        for table in (self._cluster, self._wishes, self._local):
            present = table.get(name)
            if present is not None and present.pid == pid:
                self._by_pid.setdefault(pid, set()).add(name)
                return
        names = self._by_pid.get(pid, set())
        names.discard(name)
        if not names:
            self._by_pid.pop(pid, None)

    def _is_own(self, pid: str) -> bool:
        if not pid.startswith(self._own_pids):  # of thousands that end at once nearly all are another's
            return False
        try:
            return Pid.parse(pid).node == self._node
        except BadPid:
            return False


def _value(pid: str, scope: Scope) -> bytes:
    """What stands in the key of a cluster name: the PID, and the scope when it is not CONSISTENT."""
    text = pid if scope is Scope.CONSISTENT else f"{pid} {scope.name}"
    return text.encode("utf-8", "surrogateescape")


def _read_value(value: bytes) -> tuple[str, Scope]:
    pid, _, scope = value.decode("utf-8", "surrogateescape").partition("} ")
    return (f"{pid}}}", Scope[scope]) if scope in Scope.__members__ else (_whole(value), Scope.CONSISTENT)


def _whole(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _check(name: str) -> None:
    if not name or is_pid(name) or len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
        raise ValueError(
            f"expected a name of 1 to {MAX_NAME} bytes that does not start with a brace, got {name[:80]!r}"
        )
