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
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import structlog

from cluster import owned
from cluster.errors import NameTaken, Unavailable
from cluster.etcd import Batch, Etcd, KeyValue, PrefixWatch
from cluster.handlers import Handlers
from cluster.keys import Keys
from cluster.migration.belongings import CannotMove
from cluster.migration.items import Holding
from cluster.nametable import MAX_NAME as MAX_NAME
from cluster.nametable import NameChange, NameTable, check_name, name_value, read_value, registered_in
from cluster.nametable import Registered as Registered
from cluster.nametable import Scope as Scope
from cluster.pursuit import Pursuits, Wanted
from cluster.releases import Releases
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.names")

MAX_OWN = 20_000
"""Most cluster names of one node: they all end in one revision when its lease does."""

FREE_WITHIN = 1.0
"""Seconds the end of an EVENTUAL name waits for etcd; after that it is freed behind the scenes."""


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
        tasks: Tasks,
        lease: Callable[[], int],
        everywhere: Everywhere,
    ) -> None:
        self._etcd = etcd
        self._watch = watch
        self._keys = keys
        self._table = NameTable()
        self._cluster, self._wishes, self._local = self._table.cluster, self._table.wishes, self._table.local
        self._own: set[str] = set()
        self._registering: Counter[str] = Counter()
        self._asking: Counter[str] = Counter()
        self._granted: dict[str, int] = {}
        self._unshown: dict[str, str] = {}
        """Names that are granted, and the copy here does not show it yet; with the process."""
        self._lease = lease
        self._leases: set[int] = set()
        """Those this node has had, and has put names on."""
        self._ended: set[str] = set()
        self._leaving: dict[str, list[str]] = {}
        """Processes that are frozen to move; with the names they have lost since."""
        self._ended_frozen: set[str] = set()
        self._coming: dict[str, str] = {}
        """Names of processes that may be about to run here; with the process."""
        self._ahead: dict[str, int] = {}
        """Names of processes that came, where the watch is not that far; with the revision."""
        self._revoked: Handlers[str, str] = Handlers("revoked name")
        self._tasks = tasks
        self._everywhere = everywhere
        self._releases = Releases(etcd, watch, keys, tasks, self._table.shows)
        self._pursuits = Pursuits(etcd, watch, tasks, lease, self._is_missing, self._refused)
        watch.subscribe(keys.names, self._apply)

    def on_change(self, handler: NameChange) -> None:
        """Call ``handler`` whenever the answer of ``lookup`` for a name changes, on the loop."""
        self._table.changed.add(handler)

    def on_revoked(self, handler: Revoked) -> None:
        """Call ``handler`` for each cluster name that a process of this node lost."""
        self._revoked.add(handler)

    def lookup(self, name: str) -> Registered | None:
        """Who has ``name``: the cluster's answer, else this node's."""
        return self._table.lookup(name)

    def names_of(self, pid: str) -> list[str]:
        """The names of a process, as this node sees them."""
        return self._table.names_of(pid)

    def all(self) -> list[tuple[str, Registered]]:
        """Every name, cluster names first, by name."""
        return self._table.all()

    async def register(self, name: str, pid: str, scope: Scope, lease: int = 0, timeout: float = 5.0) -> Registered:
        """Give ``name`` to ``pid``; giving it again to the same process is no change.

        ``lease`` is the lease of this node, for CONSISTENT and STRONG. Raises NameTaken, ValueError for a text that
        can't be a name, Unavailable (nothing registered, or the process ended meanwhile), LeaseGone when the lease is
        over, OutcomeUnknown, and CallTimeout: CONSISTENT, the name is registered but the own copy does not show it in
        time; STRONG, not every node showed it in time and it was given back.
        """
        check_name(name)
        self._check_stays(pid)
        match scope:
            case Scope.LOCAL:
                return self._table.register_local(name, pid)
            case Scope.EVENTUAL:
                return self._register_eventual(name, pid)
            case Scope.CONSISTENT | Scope.STRONG:
                return await self._register_cluster(name, pid, scope, lease, timeout)

    async def unregister(self, name: str, pid: str, scope: Scope) -> bool:
        """Take ``name`` back from ``pid``; False when the process does not have it. Raises as ``register``."""
        self._check_stays(pid)
        match scope:
            case Scope.LOCAL:
                return self._table.unregister_local(name, pid)
            case Scope.EVENTUAL:
                return await self._unregister_eventual(name, pid)
            case Scope.CONSISTENT | Scope.STRONG:
                held = self._table.held(name, pid)
                return held is not None and held.scope is scope and await self._unregister_cluster(name, pid)

    async def release(self, pid: str) -> None:
        """The process ended: free all its names. What etcd does not take within a minute ends with the lease.

        Nothing is freed that its process holds elsewhere, or is on its way with: its VM may end without what it was.
        """
        if pid in self._leaving:
            self._ended_frozen.add(pid)
            return
        if self._registering[pid]:
            self._ended.add(pid)
        for name in self.names_of(pid):
            self._table.unregister_local(name, pid)
            self._table.drop_wish(name, pid)
            held = self._table.held(name, pid)
            if held is not None and self._is_ours(held.lease) and self._coming.get(name) != pid:
                await self._releases.free(name, held)

    def lease_lost(self, lease: int) -> None:
        """The lease is over for certain: its names are nobody's, before the watch says so."""
        for name, registered in list(self._cluster.items()):
            if registered.lease == lease:
                self._set_cluster(name, None)

    def stats(self) -> NamesStats:
        return NamesStats(local=len(self._local), cluster=len(self._cluster), own=len(self._own))

    # -- names of scope EVENTUAL

    def _register_eventual(self, name: str, pid: str) -> Registered:
        present, wish = self._cluster.get(name), self._wishes.get(name)
        for one in (present, wish):
            if one is not None and one.pid != pid:
                raise NameTaken(name, one.pid)
        if wish is None and (present is None or present.scope is Scope.EVENTUAL):
            self._check_room(name)
            wish = Registered(pid, 0, Scope.EVENTUAL)
            self._table.put(self._wishes, name, wish)
            self._pursue(name, pid)
        return self._cluster.get(name) or wish or Registered(pid, 0, Scope.EVENTUAL)

    async def _unregister_eventual(self, name: str, pid: str) -> bool:
        """From now on the process has it no more; what etcd does not take at once ends behind the scenes."""
        held = self._table.held(name, pid)
        is_dropped = self._table.drop_wish(name, pid)
        if held is None or held.scope is not Scope.EVENTUAL:
            return is_dropped
        await asyncio.wait({self._releases.start(name, held)}, timeout=FREE_WITHIN)
        return True

    def _pursue(self, name: str, pid: str) -> None:
        self._pursuits.begin(Wanted(name, self._keys.name(name), name_value(pid, Scope.EVENTUAL)))

    def _is_missing(self, wanted: Wanted) -> bool:
        """Whether the wish stands and the cluster does not show it. Of a process that is frozen to move it is not known
        which node has to see to that."""
        seen = self._cluster.get(wanted.name)
        if not self._is_wanted(wanted):
            return False
        pid = self._wishes[wanted.name].pid
        return pid not in self._leaving and (seen is None or seen.pid != pid)

    def _is_wanted(self, wanted: Wanted) -> bool:
        wish = self._wishes.get(wanted.name)
        return wish is not None and name_value(wish.pid, Scope.EVENTUAL) == wanted.value

    def _refused(self, wanted: Wanted, found: KeyValue) -> None:
        """Somebody else has the name; or the process itself, in another scope."""
        wish = self._wishes.get(wanted.name)
        held = registered_in(found)
        if wish is None or not self._is_wanted(wanted) or self._is_left_over(wanted.name, held):
            return
        self._table.drop_wish(wanted.name, wish.pid)
        if held.pid != wish.pid:
            self._revoke(wanted.name, wish.pid)

    def _is_left_over(self, name: str, held: Registered) -> bool:
        """Whether a key was made for a process of this node that gave the name back before it was there."""
        if held.scope is not Scope.EVENTUAL or not self._is_ours(held.lease) or self._coming.get(name) == held.pid:
            return False
        wish = self._wishes.get(name)
        return wish is None or wish.pid != held.pid

    # -- cluster names

    async def _register_cluster(self, name: str, pid: str, scope: Scope, lease: int, timeout: float) -> Registered:
        """Always asks etcd: whoever was told that a name is free must be able to take it."""
        self._check_room(name)
        before = self._table.held(name, pid)
        self._leases.add(lease)
        self._registering[pid] += 1
        self._asking[name] += 1
        try:
            holding = await owned.create(self._etcd, self._keys.name(name), name_value(pid, scope), lease)
            if holding.ours:
                self._granted[name] = holding.token
                if not self._table.shows(name, holding.token):
                    self._unshown[name] = pid
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
        is_of_now = present.lease == self._lease() != 0 and self._coming.get(name) != present.pid
        if is_of_now and self._granted.get(name) != present.revision:
            self._releases.start(name, present)

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
                self._releases.start(name, registered)

    async def _confirm(self, name: str, pid: str, lease: int, holding: owned.Holding, timeout: float) -> Registered:
        holder, scope = read_value(holding.kv.value)
        if holder != pid:
            raise NameTaken(name, holder)
        if not holding.ours:
            raise Unavailable(f"name {name!r} is still held under this node's former lease; try again when that ended")
        if self._releases.is_under_way(name, holding.token):
            raise Unavailable(f"name {name!r} is being given back at this moment; try again")
        try:
            await self._watch.reached(holding.token, timeout)
        finally:
            # release() may have come before the own copy showed the name
            if pid in self._ended:
                await self._releases.delete_unseen(name, holding.token)
        if pid in self._ended:
            raise Unavailable(f"process {pid} ended while it registered {name!r}")
        return Registered(pid, holding.token, scope, lease)

    async def _unregister_cluster(self, name: str, pid: str) -> bool:
        present = self._table.held(name, pid)
        return present is not None and await self._releases.delete(name, present.revision)

    # -- the watched copy

    def _apply(self, batch: Batch) -> None:
        for event in batch.events:
            name = event.kv.key.removeprefix(self._keys.names)
            if event.kv.mod_revision < self._ahead.get(name, 0):
                continue
            self._ahead.pop(name, None)
            if event.deleted:
                self._set_cluster(name, None)
                continue
            self._set_cluster(name, registered_in(event.kv))
            self._free_unwanted(name)
        if batch.relist:  # which is silent about a key that is gone, and that the watch had never seen
            for name in [name for name, revision in self._ahead.items() if revision <= batch.revision]:
                del self._ahead[name]
                self._set_cluster(name, None)

    def _free_unwanted(self, name: str) -> None:
        """Free a name that stands on the lease of this node, and nobody here wants."""
        present = self._cluster.get(name)
        if present is not None and self._is_left_over(name, present):
            self._releases.start(name, present)
        else:
            self._release_late(name)

    def _set_cluster(self, name: str, registered: Registered | None) -> None:
        before = self._cluster.get(name)
        if before == registered:
            return
        self._table.put(self._cluster, name, registered)
        self._unshown.pop(name, None)
        if before is not None and self._granted.get(name) == before.revision:
            del self._granted[name]
        if registered is not None and self._is_ours(registered.lease):
            self._own.add(name)
        else:
            self._own.discard(name)
        wish = self._wishes.get(name)
        if wish is not None and registered is None:
            self._pursue(name, wish.pid)
        elif wish is not None and registered is not None and registered.pid != wish.pid:
            if self._is_left_over(name, registered):
                return
            self._table.drop_wish(name, wish.pid)
            self._revoke(name, wish.pid)
        elif wish is None and before is not None and (registered is None or registered.pid != before.pid):
            self._lose(name, before)

    def _lose(self, name: str, former: Registered) -> None:
        if self._is_ours(former.lease):
            self._revoke(name, former.pid)

    def _revoke(self, name: str, pid: str) -> None:
        """Tell that a process of this node lost the name, if it did not give it back."""
        if self._releases.is_ending(name) or self._coming.get(name) == pid:
            return
        if pid in self._leaving:
            self._leaving[pid].append(name)
            return
        log.warning("name revoked", name=name, pid=pid)
        self._revoked.tell(name, pid)

    def _is_ours(self, lease: int) -> bool:
        """Whether this is, or was, the lease of this node: its names are those of the processes that live here, which
        no PID says of one that has moved."""
        return lease in self._leases or lease == self._lease() != 0

    # -- processes that move (see cluster.migration.belongings)

    def check(self, pid: str) -> None:
        """A process can move with all the names it has; but LOCAL ones stay behind, and end."""

    def pack(self, pid: str) -> Sequence[Holding]:
        """Its cluster names."""
        if self._registering[pid] or self._is_unshown(pid):
            raise CannotMove("a name is being registered for it; move it again when that is done")
        holdings = [self._holding(name, pid) for name in self.names_of(pid) if self._is_shared(name, pid)]
        self._leaving[pid] = []
        return holdings

    def _is_unshown(self, pid: str) -> bool:
        """Whether etcd has given it a name that the copy here does not show yet."""
        mine = (name for name, holder in self._unshown.items() if holder == pid)
        return any(self._granted.get(name, 0) > self._watch.applied for name in mine)

    def _is_shared(self, name: str, pid: str) -> bool:
        """Whether the process has the name in the cluster, or wishes for it."""
        return any(table[name].pid == pid for table in (self._cluster, self._wishes) if name in table)

    def _holding(self, name: str, pid: str) -> Holding:
        present = self._table.held(name, pid)
        if present is None:
            raise CannotMove(f"its name {name!r} is not in the cluster yet; move it again when etcd answers")
        if present.lease != self._lease():
            raise CannotMove(f"its name {name!r} is of a former lease of this node; move it again when that has ended")
        if self._releases.is_ending(name) or self._releases.is_under_way(name, present.revision):
            raise CannotMove(f"its name {name!r} is being given back; move it again when that is done")
        return Holding(self._keys.name(name), name_value(pid, present.scope), present.revision)

    def _check_stays(self, pid: str) -> None:
        if pid in self._leaving:
            raise Unavailable(f"process {pid} is moving to another node; try again in a moment")

    def stays(self, pid: str) -> None:
        """What it lost meanwhile it is told now, and what is to be got again is pursued."""
        revoked = self._leaving.pop(pid, [])
        if pid in self._ended_frozen:
            self._ended_frozen.remove(pid)
            self._tasks.start(self.release(pid), f"release names of {pid}")
            return
        for name in revoked:
            self._revoke(name, pid)
        for name in self.names_of(pid):
            wish = self._wishes.get(name)
            if wish is not None and wish.pid == pid and self._table.held(name, pid) is None:
                self._pursue(name, pid)

    def left(self, pid: str) -> None:
        """Its LOCAL names end. The others are of the target's lease, also where the watch does not show it yet."""
        self._leaving.pop(pid, None)
        self._ended_frozen.discard(pid)
        for name in self.names_of(pid):
            self._table.unregister_local(name, pid)
            self._table.drop_wish(name, pid)
            held = self._table.held(name, pid)
            if held is not None and self._is_ours(held.lease):
                self._cluster[name] = replace(held, lease=0)
                self._own.discard(name)

    def refusal(self, pid: str, keys: Sequence[str]) -> str:
        more = sum(key.startswith(self._keys.names) for key in keys)
        if more and len(self._own) + len(self._coming) + more > MAX_OWN:
            return f"the node would hold more than {MAX_OWN} cluster names, its limit"
        return ""

    def adapt(self, pid: str, holdings: Sequence[Holding]) -> Sequence[Holding]:
        """A name says whose it is, and a PID does not change."""
        return holdings

    def expect(self, pid: str, holdings: Sequence[Holding]) -> None:
        for name, _ in self._names_in(holdings):
            self._coming[name] = pid

    def arrived(self, pid: str, holdings: Sequence[Holding], revision: int, lease: int) -> None:
        """What the watch does not show yet is shown here from now on. No other node has to acknowledge a STRONG name
        again: each resolves it to the same process, under one revision or the other."""
        self._leases.add(lease)
        for name, scope in self._names_in(holdings):
            self._take(name, Registered(pid, revision, scope, lease))

    def _take(self, name: str, registered: Registered) -> None:
        present = self._cluster.get(name)
        if (present is None or present.revision < registered.revision) and self._watch.applied < registered.revision:
            self._ahead[name] = registered.revision
            self._set_cluster(name, registered)
            present = registered
        self._coming.pop(name, None)
        is_held = present is not None and present.revision == registered.revision
        if registered.scope is not Scope.EVENTUAL:
            if is_held:
                self._granted[name] = registered.revision
            else:
                self._revoke(name, registered.pid)
            return
        if present is not None and not is_held:
            self._revoke(name, registered.pid)
            return
        self._table.put(self._wishes, name, Registered(registered.pid, 0, Scope.EVENTUAL))
        if not is_held:
            self._pursue(name, registered.pid)

    def lost(self, pid: str, holdings: Sequence[Holding]) -> None:
        for name, _ in self._names_in(holdings):
            if self._coming.get(name) == pid:
                del self._coming[name]
                self._free_unwanted(name)

    def _names_in(self, holdings: Sequence[Holding]) -> list[tuple[str, Scope]]:
        return [
            (held.key.removeprefix(self._keys.names), read_value(held.value)[1])
            for held in holdings
            if held.key.startswith(self._keys.names)
        ]
