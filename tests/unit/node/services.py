"""A node's surroundings in memory, for tests of what runs services: a host, claims, members, a lease.

Nothing happens by itself: a test lets the host answer, the claims change, the lease end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from cluster.claims import Claim, ClaimState
from cluster.envelope import Kind, Status, error_map
from cluster.errors import Unavailable
from cluster.keys import Keys
from cluster.members import Member, NodeState
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
            case _:
                self.ports.deliver(envelope)

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
        self._handlers: list[Callable[[Claim | None, Claim | None], None]] = []

    def get(self, service: str, replica: int) -> Claim | None:
        return self.held.get((service, replica))

    def all(self) -> list[Claim]:
        return list(self.held.values())

    def own(self) -> list[Claim]:
        return [claim for claim in self.held.values() if claim.node == NODE]

    def on_change(self, handler: Callable[[Claim | None, Claim | None], None]) -> None:
        self._handlers.append(handler)

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

    async def release(self, service: str, replica: int, token: int) -> bool:
        if self.error is not None:
            raise self.error
        self.released.append(token)
        if not self.stale_view:
            self.show(service, replica, None)
        return True

    def _tell(self, before: Claim | None, after: Claim | None) -> None:
        for handler in self._handlers:
            handler(before, after)


class Members:
    """The registered nodes."""

    def __init__(self, *names: str, labels: dict[str, str] | None = None) -> None:
        self.members = {name: member(name, labels or {}) for name in names}
        self._handlers: list[Callable[[Member | None, Member | None], None]] = []

    def get(self, node: str) -> Member | None:
        return self.members.get(node)

    def ready(self) -> list[Member]:
        return list(self.members.values())

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
        surroundings: Any = (self.host.ports, self.claims, self.members, Keys("c"), self.lease)
        self.supervisor = Supervisor(NODE, 1, *surroundings, lambda name: None, self._announce)
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
