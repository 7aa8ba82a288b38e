"""The heir's side of ``handover: start-first``: a replica that is started here while another node still runs it.

Its process runs under a token of its own. The names the former process holds it gets with the claim, in one
transaction: it asks for them as ever (``process.registry.register``), and that waits. When it has asked for all of
them it is ready. One that asks for some is ready when it has asked for no more for a while; one that asks for none
after its ``start_timeout``: what it did not ask for is free when the former process has ended.

A former owner that is gone leaves no wish and no claim: then the process here gets the claim as any other would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from cluster.claims import Claim, Claims
from cluster.errors import ClusterError
from cluster.heirs import Heir, Heirs, Inherited
from cluster.keys import Keys
from cluster.migration.items import Holding
from cluster.nametable import Registered, Scope, name_value
from node.claiming import RETRY, Key
from node.replicas import Lease, Replicas, Run
from node.wanted import Wanted

log = structlog.get_logger("wippy.supervisor")

POLL = 0.02
QUIET = 1.0
"""Seconds without another name, after which one that asked for some asks for no more."""
LINGER = 60.0
"""Most seconds the former process may take to end, and free the names it still has."""


class Names(Protocol):
    """What is needed of ``cluster.names.Names``."""

    def names_of(self, pid: str) -> list[str]: ...

    def lookup(self, name: str) -> Registered | None: ...

    def expect(self, pid: str, holdings: Sequence[Holding]) -> None: ...

    def arrived(self, pid: str, holdings: Sequence[Holding], revision: int, lease: int) -> None: ...

    def lost(self, pid: str, holdings: Sequence[Holding]) -> None: ...

    async def release(self, pid: str) -> None: ...


def is_ready(held: Collection[str], asked: Mapping[str, float], since: float, now: float, patience: float) -> bool:
    """Whether a process that runs ``since`` then takes over, with the names it asked for and when; ``held`` are those
    of the former one."""
    if all(name in asked for name in held):
        return True
    times = [at for name, at in asked.items() if name in held]
    return now - max(times) >= QUIET if times else now - since >= patience


@dataclass
class Succession:
    """A replica on its way to this node. ``former``: the claim as it was, and with it the former process."""

    heir: Heir
    former: Claim
    run: Run
    begun: int
    asked: dict[str, tuple[float, Scope]] = field(default_factory=dict)
    outcome: asyncio.Future[frozenset[str] | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """The names it has got; None: it was given up."""

    @property
    def former_pid(self) -> str:
        return self.former.state.pid if self.former.state is not None else ""


class Inheriting:
    """``refusal`` says why this node can't take a replica; ``announce`` tells that one starts."""

    def __init__(
        self,
        node: str,
        heirs: Heirs,
        claims: Claims,
        keys: Keys,
        lease: Lease,
        names: Names,
        replicas: Replicas,
        wanted: Callable[[], Mapping[str, Wanted]],
        refusal: Callable[[Key], str],
        announce: Callable[[str, str], None],
    ) -> None:
        self._node = node
        self._heirs = heirs
        self._claims = claims
        self._keys = keys
        self._lease = lease
        self._names = names
        self._replicas = replicas
        self._wanted = wanted
        self._refusal = refusal
        self._announce = announce
        self._tried: dict[Key, int] = {}
        self._successions: dict[Key, Succession] = {}
        heirs.on_change(self._look)

    def has(self, key: Key) -> bool:
        """Whether the replica is on its way here, and runs without the claim yet."""
        succession = self._successions.get(key)
        return succession is not None and not succession.outcome.done()

    async def inherit(self, pid: str, name: str, scope: Scope, by: str) -> Inherited:
        """A process asks for a name that ``by`` has: wait, if that is the one it takes over from."""
        found = self._replicas.find(pid.encode())
        succession = None if found is None else self._successions.get(found[0])
        if succession is None or succession.former_pid != by:
            return Inherited.NO
        if not succession.outcome.done():
            succession.asked.setdefault(name, (_now(), scope))
        got = await asyncio.shield(succession.outcome)
        if got is None:
            return Inherited.NO
        if name in got:
            return Inherited.MINE
        return await self._freed(name, by)

    async def _freed(self, name: str, by: str) -> Inherited:
        """Wait until the former process has ended, or lost the name otherwise."""
        try:
            async with asyncio.timeout(LINGER):
                while True:
                    held = self._names.lookup(name)
                    if held is None or held.pid != by:
                        return Inherited.AGAIN
                    await asyncio.sleep(POLL)
        except TimeoutError:
            return Inherited.NO

    # -- one replica

    def _look(self) -> None:
        for heir in self._heirs.all():
            key = (heir.service, heir.replica)
            if heir.node == self._node and self._tried.get(key) != heir.token and key not in self._successions:
                self._tried[key] = heir.token
                self._replicas.beside(self._inherit(key, heir), f"inherit {key}")

    async def _inherit(self, key: Key, heir: Heir) -> None:
        claim, lease = self._claims.get(*key), self._lease.current()
        refusal = self._refusal(key)
        if refusal or claim is None or claim.state is None or not self._lease.may_start_owned(lease):
            log.warning("a service is not taken over", service=key[0], replica=key[1], reason=refusal or "no claim")
            return
        try:
            begun = await self._heirs.begin(*key, lease)
        except ClusterError as error:
            log.warning("a service is not taken over", service=key[0], replica=key[1], reason=str(error))
            return
        try:
            if not self._refusal(key):
                await self._succeed(key, heir, claim, begun, lease)
        finally:
            self._successions.pop(key, None)
            self._replicas.beside(self._end(key, begun), f"end of {key}")

    async def _succeed(self, key: Key, heir: Heir, former: Claim, begun: int, lease: int) -> None:
        wanted = self._wanted()[key[0]]
        run = self._replicas.make(key, wanted, Claim(*key, self._node, begun, lease))
        assert run.held is not None
        run.held.fence = (self._keys.heir_begun(*key), begun)
        self._successions[key] = succession = Succession(heir, former, run, begun)
        self._announce("service.start", key[0])
        run.replica.start()
        got: frozenset[str] | None = None
        try:
            got = await self._take(key, succession, lease)
        finally:
            succession.outcome.set_result(got)
            if got is None and self._replicas.running.get(key) is run:
                self._replicas.retire(key, "the hand-over is given up", release=False)
        if got is not None:
            log.info("service taken over", service=key[0], replica=key[1], former=former.node, names=sorted(got))
            await self._former_ended(key, heir)

    async def _take(self, key: Key, succession: Succession, lease: int) -> frozenset[str] | None:
        """Wait until it is ready and take the claim; the names that came with it, None when it is given up."""
        run, since = succession.run, _now()
        while self._lives(key, run):
            held = self._claims.get(*key)
            if held is None or (held.node == self._node and held.lease == lease):
                return await self._claim(key, run, lease)
            if not self._stands(key, succession):
                return None
            since = since if run.replica.started.is_set() else _now()
            if run.replica.runs and self._is_ready(succession, since):
                got = await self._take_now(key, succession, lease)
                if got is not None:
                    return got
            await asyncio.sleep(POLL)
        return None

    def _lives(self, key: Key, run: Run) -> bool:
        wanted = self._wanted().get(key[0])
        ends = key in self._replicas.stopping or run.replica.finished.is_set() or run.replica.has_failed
        is_other = wanted is None or wanted.is_other_than(run.wanted)
        return self._replicas.running.get(key) is run and not ends and not is_other

    def _stands(self, key: Key, succession: Succession) -> bool:
        claim = self._claims.get(*key)
        return self._heirs.get(*key) == succession.heir and claim is not None and claim.token == succession.former.token

    def _is_ready(self, succession: Succession, since: float) -> bool:
        asked = {name: at for name, (at, _) in succession.asked.items()}
        patience = succession.run.wanted.spec.lifecycle.start_timeout.total_seconds()
        return is_ready(self._names.names_of(succession.former_pid), asked, since, _now(), patience)

    async def _take_now(self, key: Key, succession: Succession, lease: int) -> frozenset[str] | None:
        raw = succession.run.replica.pid
        assert raw is not None
        pid = raw.decode()
        names = self._inheritance(succession, pid)
        self._names.expect(pid, list(names.values()))
        token: int | None = None
        try:
            former = succession.former
            token = await self._heirs.take(succession.heir, former, succession.begun, lease, list(names.values()))
        except ClusterError as error:
            log.warning("a service is not taken over", service=key[0], replica=key[1], reason=str(error))
        finally:
            if token is None:
                self._names.lost(pid, list(names.values()))
        if token is None:
            return None
        self._bind(key, succession.run, token, lease)
        self._names.arrived(pid, list(names.values()), token, lease)
        if succession.run.replica.pid != raw:
            await self._names.release(pid)
        return frozenset(names)

    def _inheritance(self, succession: Succession, pid: str) -> dict[str, Holding]:
        """The names that change hands, as the transaction puts them."""
        found: dict[str, Holding] = {}
        for name, (_, scope) in succession.asked.items():
            held = self._names.lookup(name)
            if held is not None and held.pid == succession.former_pid and held.revision:
                found[name] = Holding(self._keys.name(name), name_value(pid, scope), held.revision)
        return found

    async def _claim(self, key: Key, run: Run, lease: int) -> frozenset[str] | None:
        """The former owner is gone, and its names with it; this node may have claimed it already, as any other does."""
        try:
            token = await self._claims.claim(*key, lease)
        except ClusterError as error:
            log.warning("a service is not taken over", service=key[0], replica=key[1], reason=str(error))
            return None
        if token is None:
            return None
        self._bind(key, run, token, lease)
        return frozenset()

    def _bind(self, key: Key, run: Run, token: int, lease: int) -> None:
        assert run.held is not None
        run.held.fence = None
        self._replicas.rebind(key, run, Claim(*key, self._node, token, lease))

    async def _former_ended(self, key: Key, heir: Heir) -> None:
        """Until the former owner has taken its wish back: then its process has ended."""
        try:
            async with asyncio.timeout(LINGER):
                while True:
                    if self._heirs.get(*key) != heir:
                        return
                    await asyncio.sleep(POLL)
        except TimeoutError:
            log.warning("the former process of a service does not end", service=key[0], node=heir.node)

    async def _end(self, key: Key, begun: int) -> None:
        """Delete the key of this node; it ends with the lease at the latest."""
        while True:
            try:
                await self._heirs.end(*key, begun)
            except ClusterError as error:
                log.debug("the key of an heir is left", service=key[0], error=str(error))
                await asyncio.sleep(RETRY)
            else:
                return


def _now() -> float:
    return asyncio.get_running_loop().time()
