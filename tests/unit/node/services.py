"""A node's surroundings in memory, for tests of what runs services: a host, claims, members, a lease.

Nothing happens by itself: a test lets the host answer, the claims change, the lease end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from cluster.avoids import Avoid
from cluster.claims import Claim, ClaimState
from cluster.envelope import Kind, Status, error_map
from cluster.errors import Unavailable
from cluster.heirs import Heir
from cluster.keys import Keys
from cluster.members import Member, NodeState
from cluster.migration.items import Holding
from cluster.nametable import Registered, Scope
from cluster.quarantine import Loss
from cluster.registry import Entry
from node.ports import Ports
from node.supervisor import Supervisor

NODE = "n1"
LEASE = 77


async def turns(number: int = 20) -> None:
    """Let everything that can go on go on."""
    for _ in range(number):
        await asyncio.sleep(0)


class Host:
    """Where processes live: keeps what it is asked, and answers when the test says."""

    def __init__(self) -> None:
        self.ports = Ports(NODE, 1, self.route)
        self.asked: list[list[Any]] = []
        self.cancelled: list[tuple[bytes, bytes]] = []
        self.terminated: list[bytes] = []
        self.watchers: dict[bytes, bytes] = {}
        self.came: set[bytes] = set()
        """Processes that moved here."""
        self.left: list[bytes] = []
        """Those that are watched no more."""
        self.obeys = True
        """Whether a cancelled or terminated process ends."""
        self._count = 0

    @property
    def alive(self) -> list[bytes]:
        return list(self.watchers)

    def route(self, envelope: list[Any]) -> None:
        match envelope[0]:
            case Kind.SPAWN:
                self.asked.append(envelope)
            case Kind.CANCEL:
                self.cancelled.append((envelope[1], envelope[4]))
                if self.obeys:
                    self.exit(envelope[1])
            case Kind.TERMINATE:
                self.terminated.append(envelope[1])
                if self.obeys:
                    self.exit(envelope[1], "terminated")
            case Kind.MONITOR:
                self._watch(envelope)
            case Kind.UNMONITOR:
                self.watchers.pop(envelope[1], None)
                self.left.append(envelope[1])
            case _:
                self.ports.deliver(envelope)

    def _watch(self, envelope: list[Any]) -> None:
        known = envelope[1] in self.came
        if known:
            self.watchers[envelope[1]] = envelope[2]
        status = Status.OK if known else Status.NOPROC
        self.ports.deliver([int(Kind.REPLY), envelope[2], envelope[1], envelope[3], int(status), None])

    def start(self) -> bytes:
        """Answer the oldest spawn that waits; the new process."""
        asked = self.asked.pop(0)
        self._count += 1
        pid = f"{{{NODE}@app:processes|1-{self._count}1}}".encode()
        self.watchers[pid] = asked[2]
        self.route([int(Kind.REPLY), asked[2], asked[1], asked[3], int(Status.OK), pid])
        return pid

    def refuse(self, message: str) -> None:
        asked = self.asked.pop(0)
        error = error_map("Invalid", message)
        self.route([int(Kind.REPLY), asked[2], asked[1], asked[3], int(Status.ERROR), error])

    def exit(self, pid: bytes, error: str | None = None) -> None:
        watcher = self.watchers.pop(pid, None)
        if watcher is not None:
            problem = None if error is None else error_map("Internal", error)
            self.ports.deliver([int(Kind.EXIT), watcher, pid, 0, 1, None, problem])


class Claims:
    """The claims as the watch would show them at once."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, int], Claim] = {}
        self.states: list[ClaimState] = []
        self.released: list[int] = []
        self.stale_view = False
        """Whether released claims stay in view, as they do until the watch has caught up."""
        self.error: Exception | None = None
        self.revision = 100
        self.avoided: list[Avoid] = []
        self.on_avoid: Callable[[Avoid], None] = lambda avoid: None
        self._handlers: list[Callable[[Claim | None, Claim | None], None]] = []

    @property
    def applied(self) -> int:
        return self.revision

    def get(self, service: str, replica: int) -> Claim | None:
        return self.held.get((service, replica))

    def all(self) -> list[Claim]:
        return list(self.held.values())

    def own(self) -> list[Claim]:
        return [claim for claim in self.held.values() if claim.node == NODE]

    def on_change(self, handler: Callable[[Claim | None, Claim | None], None]) -> None:
        self._handlers.append(handler)

    def holdings(self, service: str, replica: int) -> tuple[Holding, ...]:
        claim, keys = self.held[service, replica], Keys("c")
        assert claim.state is not None
        return (
            Holding(keys.service(service, replica), claim.node.encode(), claim.token),
            Holding(keys.service_state(service, replica), claim.state.to_json(), self.revision),
        )

    def move(self, service: str, replica: int, node: str, token: int, state: ClaimState | None = None) -> None:
        """The watch shows that the claim moved to ``node`` at revision ``token``."""
        before = self.held.pop((service, replica))
        self._tell(before, None)
        self.revision = max(self.revision, token)
        after = self.held[service, replica] = Claim(service, replica, node, token, LEASE, state or before.state)
        self._tell(None, after)

    def show(self, service: str, replica: int, node: str | None, lease: int = LEASE) -> Claim | None:
        """The watch shows that the claim is ``node``'s now, or nobody's."""
        key = (service, replica)
        before, after = self.held.pop(key, None), None
        if before is not None:
            self._tell(before, None)
        if node is not None:
            self.revision += 1
            after = self.held[key] = Claim(service, replica, node, self.revision, lease)
            self._tell(None, after)
        return after

    async def claim(self, service: str, replica: int, lease: int, timeout: float = 5.0) -> int | None:
        if self.error is not None:
            raise self.error
        claim = self.show(service, replica, NODE, lease)
        assert claim is not None
        return claim.token

    async def reached(self, revision: int) -> None:
        """The watch is never behind."""

    async def write_state(self, service: str, replica: int, token: int, lease: int, state: ClaimState) -> bool:
        if self.error is not None:
            raise self.error
        held = self.held.get((service, replica))
        if held is None or held.token != token:
            return False
        self.states.append(state)
        after = self.held[(service, replica)] = replace(held, state=state)
        self._tell(held, after)
        return True

    async def release(self, service: str, replica: int, token: int, avoid: Avoid | None = None) -> bool:
        if self.error is not None:
            raise self.error
        self.released.append(token)
        if avoid is not None:
            self.avoided.append(avoid)
            self.on_avoid(avoid)
        if not self.stale_view:
            self.show(service, replica, None)
        return True

    def _tell(self, before: Claim | None, after: Claim | None) -> None:
        for handler in self._handlers:
            handler(before, after)


class Heirs:
    """The wishes for heirs, as the watch would show them at once."""

    def __init__(self, claims: Claims, lease: Lease) -> None:
        self.named: dict[tuple[str, int], Heir] = {}
        self.begun: dict[tuple[str, int], int] = {}
        self.taken: list[tuple[Heir, Sequence[Holding]]] = []
        self.error: Exception | None = None
        self._claims = claims
        self._handlers: list[Callable[[], None]] = []

    def get(self, service: str, replica: int) -> Heir | None:
        return self.named.get((service, replica))

    def has_begun(self, service: str, replica: int) -> bool:
        return (service, replica) in self.begun

    def all(self) -> list[Heir]:
        return list(self.named.values())

    def on_change(self, handler: Callable[[], None]) -> None:
        self._handlers.append(handler)

    async def name(self, service: str, replica: int, node: str, lease: int) -> int:
        self._check()
        self._claims.revision += 1
        self.named[service, replica] = Heir(service, replica, node, self._claims.revision)
        self.tell()
        return self._claims.revision

    async def withdraw(self, service: str, replica: int, token: int) -> int:
        self._check()
        if self.named[service, replica].token == token:
            del self.named[service, replica]
            self.tell()
        return self._claims.revision

    async def begin(self, service: str, replica: int, lease: int) -> int:
        self._check()
        self._claims.revision += 1
        self.begun[service, replica] = self._claims.revision
        self.tell()
        return self._claims.revision

    async def end(self, service: str, replica: int, token: int) -> None:
        self._check()
        self.begun.pop((service, replica), None)
        self.tell()

    async def take(self, heir: Heir, claim: Claim, begun: int, lease: int, names: Sequence[Holding] = ()) -> int | None:
        self._check()
        if self.named.get((heir.service, heir.replica)) != heir:
            return None
        self.taken.append((heir, names))
        self._claims.move(heir.service, heir.replica, NODE, self._claims.revision + 1)
        return self._claims.revision

    def tell(self) -> None:
        for handler in self._handlers:
            handler()

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


class Names:
    """The names of processes, as the test says."""

    def __init__(self) -> None:
        self.held: dict[str, Registered] = {}

    def names_of(self, pid: str) -> list[str]:
        return [name for name, held in self.held.items() if held.pid == pid]

    def lookup(self, name: str) -> Registered | None:
        return self.held.get(name)

    def expect(self, pid: str, holdings: Sequence[Holding]) -> None:
        """Nothing changes."""

    def arrived(self, pid: str, holdings: Sequence[Holding], revision: int, lease: int) -> None:
        for holding in holdings:
            self.held[holding.key.removeprefix(Keys("c").names)] = Registered(pid, revision, Scope.CONSISTENT, lease)

    def lost(self, pid: str, holdings: Sequence[Holding]) -> None:
        """Nothing changes."""

    async def release(self, pid: str) -> None:
        self.held = {name: held for name, held in self.held.items() if held.pid != pid}


class Avoids:
    """What services avoid; seconds left by (service, node)."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], float] = {}
        self._handlers: list[Callable[[], None]] = []

    def show(self, service: str, node: str, seconds: float | None) -> None:
        """The watch shows that ``node`` avoids the service for so long, or (None) does not."""
        self.kept.pop((service, node), None)
        if seconds is not None:
            self.kept[service, node] = seconds
        for handler in self._handlers:
            handler()

    def all(self) -> list[Avoid]:
        return [Avoid(service, node, seconds, "") for (service, node), seconds in sorted(self.kept.items())]

    def left(self) -> dict[tuple[str, str], float]:
        return dict(self.kept)

    def has(self, service: str) -> bool:
        return (service, NODE) in self.kept

    def own(self) -> list[str]:
        return [service for service, node in self.kept if node == NODE]

    def own_ended(self) -> list[str]:
        return [service for service in self.own() if self.kept[service, NODE] <= 0]

    def on_change(self, handler: Callable[[], None]) -> None:
        self._handlers.append(handler)

    async def forget(self, service: str) -> None:
        self.show(service, NODE, None)

    async def forget_all(self, service: str) -> int:
        gone = [node for one, node in self.kept if one == service]
        for node in gone:
            self.show(service, node, None)
        return len(gone)


class Quarantine:
    """What is quarantined, and with ``losses`` what is about to be."""

    def __init__(self) -> None:
        self.held: dict[str, list[Loss]] = {}
        self.suspected: list[str] = []
        self.written: list[str] = []
        self.error: Exception | None = None
        self._handlers: list[Callable[[], None]] = []

    def show(self, **held: list[Loss]) -> None:
        """The watch shows that these are quarantined, ``app_s`` for ``app:s``, and nothing else."""
        self.held = {name.replace("_", ":"): losses for name, losses in held.items()}
        for handler in self._handlers:
            handler()

    def services(self) -> frozenset[str]:
        return frozenset(self.held) | frozenset(self.suspected)

    def losses(self, service: str) -> list[Loss]:
        return self.held.get(service, [])

    def unwritten(self) -> list[str]:
        return [service for service in self.suspected if service not in self.held]

    def on_change(self, handler: Callable[[], None]) -> None:
        self._handlers.append(handler)

    async def write(self, service: str) -> None:
        if self.error is not None:
            raise self.error
        self.written.append(service)
        self.show(**{service.replace(":", "_"): []})

    async def release(self, service: str) -> bool:
        was = service in self.services()
        self.suspected = [one for one in self.suspected if one != service]
        self.held.pop(service, None)
        for handler in self._handlers:
            handler()
        return was


class Members:
    """The registered nodes."""

    def __init__(self, *names: str, labels: dict[str, str] | None = None) -> None:
        self.members = {name: member(name, labels or {}) for name in names}
        self._handlers: list[Callable[[Member | None, Member | None], None]] = []

    def get(self, node: str) -> Member | None:
        return self.members.get(node)

    def all(self) -> list[Member]:
        return list(self.members.values())

    def ready(self) -> list[Member]:
        return [one for one in self.members.values() if one.state is NodeState.READY]

    def show(self, *changed: Member) -> None:
        """The watch shows these nodes as they are now."""
        for after in changed:
            before = self.members.get(after.node)
            self.members[after.node] = after
            for handler in self._handlers:
                handler(before, after)

    def on_change(self, handler: Callable[[Member | None, Member | None], None]) -> None:
        self._handlers.append(handler)


class Lease:
    """The lease, as long as the test says."""

    def __init__(self) -> None:
        self.id = LEASE
        self.may_start = True
        self.may_run = True

    def current(self) -> int:
        return self.id

    def may_start_owned(self, lease: int) -> bool:
        return self.may_start and lease == self.id

    def may_run_owned(self, lease: int) -> bool:
        return self.may_run and lease == self.id


def member(name: str, labels: dict[str, str]) -> Member:
    return Member(name, 1, 1, LEASE, 1, NodeState.READY, labels, "", {}, "", "")


def service(
    id: str = "app:s",
    *,
    lifecycle: dict[str, Any] | None = None,
    input: list[Any] | None = None,
    host: str = "app:processes",
    comment: str = "",
    **placement: Any,
) -> Entry:
    life = {"auto_start": True, **(lifecycle or {})}
    data = {"process": "app:p", "host": host, "input": input or [], "lifecycle": life, "placement": placement}
    return Entry(id, "process.service", {"comment": comment} if comment else {}, data)


UNAVAILABLE = Unavailable("etcd is away")


class Services:
    """A supervisor in such surroundings. ``async with`` runs it."""

    def __init__(self, *others: str) -> None:
        self.host, self.claims, self.members, self.lease = Host(), Claims(), Members(NODE, *others), Lease()
        self.announced: list[tuple[str, str]] = []
        self.avoids, self.quarantine = Avoids(), Quarantine()
        self.claims.on_avoid = lambda avoid: self.avoids.show(avoid.service, avoid.node, 600.0)
        barring = (self.avoids, self.quarantine)
        surroundings: Any = (self.host.ports, self.claims, *barring, self.members, Keys("c"), self.lease)
        self.heirs, self.names = Heirs(self.claims, self.lease), Names()
        self.straggling: list[int] = []
        self.all_arrived = asyncio.Event()
        """Whether nothing is on its way any more by names that changed hands."""
        self.all_arrived.set()
        more: Any = (self.heirs, self.names, self._stragglers)
        self.supervisor = Supervisor(NODE, 1, *surroundings, lambda name: None, self._announce, *more)
        self.had: dict[str, Entry] = {}
        self._changes: list[asyncio.Future[None]] = []
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.supervisor.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._running is not None
        problem = self._running.exception() if self._running.done() else None
        self._running.cancel()
        self.claims.error, self.host.obeys = None, True
        for pid in self.host.alive:
            self.host.exit(pid)
        stopping = asyncio.ensure_future(self.supervisor.stop("test over"))
        await turns()
        while self.host.asked:
            self.host.refuse("test over")
            await turns()
        await stopping
        await asyncio.wait_for(asyncio.gather(*self._changes), 5)
        if problem is not None:
            raise problem

    async def _stragglers(self, revision: int, within: float) -> bool:
        self.straggling.append(revision)
        await self.all_arrived.wait()
        return True

    def _announce(self, kind: str, service: str) -> None:
        self.announced.append((kind, service))

    async def have(self, *entries: Entry) -> None:
        """The registry has these services; what has to stop for that may still be stopping."""
        gone = self.had.keys() - {entry.id for entry in entries}
        self.had = {entry.id: entry for entry in entries}
        for id in gone:
            self._changes.append(asyncio.ensure_future(self.supervisor.remove(id)))
        self._changes += [asyncio.ensure_future(self.supervisor.put(entry)) for entry in entries]
        if self._running is None:  # a node knows its services before it runs any
            self._running = asyncio.ensure_future(self.supervisor.run())
        await turns()

    async def started(self) -> bytes:
        """The process that is being asked for, started."""
        await turns()
        pid = self.host.start()
        await turns()
        return pid
