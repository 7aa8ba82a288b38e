"""The services of a node: which replicas run here, and that they keep running.

``placement: every_node`` runs on each node without a claim. In the mode ``cluster`` the pure
placement core says which replicas this node should claim now; a replica starts only after its
claim is confirmed, and the claim is given back only after its process has ended (fencing rule
F5). While the node can't renew its lease, owned replicas are cancelled and then killed (F3);
when the same lease answers again, those whose claim is unchanged start in place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from cluster.claims import Claim, Claims, ClaimState
from cluster.errors import ClusterError, Invalid, OutcomeUnknown, Unavailable
from cluster.keys import Keys
from cluster.members import Members
from cluster.placement import DropClaim, MakeClaim, Mode, Placement, Service
from cluster.registry import Entry, RegistryState
from cluster.supervision import ServiceState
from cluster.tasks import Tasks
from node.kinds import decode
from node.kinds.service import ProcessService
from node.ports import Ports
from node.replica import Replica

log = structlog.get_logger("wippy.supervisor")

POLL = 0.1
Key = tuple[str, int]


@dataclass(frozen=True)
class _Wanted:
    """A service as its entry says, decoded."""

    entry: Entry
    spec: ProcessService

    @property
    def mode(self) -> Mode:
        return Mode(self.spec.placement.mode)


class Supervisor:
    """Handler of ``process.service``. ``run`` is its task; ``stop`` ends all replicas in order."""

    name = "services"

    def __init__(
        self,
        node: str,
        incarnation: int,
        ports: Ports,
        claims: Claims,
        members: Members,
        keys: Keys,
        lease: Callable[[], int],
        env: Callable[[str], str | None],
        announce: Callable[[str, str], None],
    ) -> None:
        self._node = node
        self._incarnation = incarnation
        self._ports = ports
        self._claims = claims
        self._members = members
        self._keys = keys
        self._lease = lease
        self._env = env
        self._announce = announce
        self._placement = Placement(node)
        self._wanted: dict[str, _Wanted] = {}
        self._running: dict[Key, Replica] = {}
        self._rested: set[Key] = set()
        self._fences: dict[bytes, tuple[str, int]] = {}
        self._asked: set[Key] = set()
        self._stopping: set[Key] = set()
        self._changed = asyncio.Event()
        self._progress = asyncio.Event()
        self._open = False
        self._in_doubt = False
        self._tasks = Tasks("supervisor", self._broke)
        claims.on_change(lambda before, after: self._claim_changed(before, after))
        members.on_change(lambda before, after: self._wake())

    async def converge(self, state: RegistryState) -> dict[str, str]:
        """Take the services of ``state``; replicas of removed or changed ones are stopped, and started anew."""
        failed: dict[str, str] = {}
        wanted: dict[str, _Wanted] = {}
        for entry in state.entries():
            if entry.kind != "process.service":
                continue
            former = self._wanted.get(entry.id)
            if former is not None and former.entry.same_content(entry):
                wanted[entry.id] = former
                continue
            try:
                spec = decode(entry, self._env)
            except Invalid as error:
                failed[entry.id] = str(error)
                if former is not None:
                    wanted[entry.id] = former
                continue
            assert isinstance(spec, ProcessService)
            if spec.lifecycle.auto_start:
                wanted[entry.id] = _Wanted(entry, spec)
        self._wanted = wanted
        self._wake()
        return failed

    def open(self) -> None:
        """The node is ready: replicas may be claimed and started."""
        self._open = True
        self._wake()

    async def run(self) -> None:
        """Follow the registry, the members and the claims until cancelled."""
        while True:
            self._changed.clear()
            wake_at = self._reconcile() if self._open and not self._in_doubt else None
            wait = None if wake_at is None else max(wake_at - time.monotonic(), 0.01)
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def settled(self, timeout: float) -> None:
        """Wait until every replica that is this node's to run was started once, or ``timeout`` passed."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            due = [key for key in self._due() if key not in self._rested]
            if all(key in self._running and self._running[key].started.is_set() for key in due):
                return
            await asyncio.sleep(0.01)
        log.warning("services did not all start", after=timeout)

    async def stop(self, reason: str) -> None:
        """Stop all replicas, dependents first, and give back their claims."""
        self._open = False
        for level in reversed(self._levels()):
            await asyncio.gather(*(self._retire(key, reason) for key in level if key in self._running))
        await asyncio.gather(*(self._retire(key, reason) for key in list(self._running)))
        await self._tasks.close()

    def fence_of(self, pid: bytes) -> tuple[str, int] | None:
        """The claim (key, token) under which the process runs; None for one without."""
        return self._fences.get(pid)

    def in_doubt(self) -> None:
        """The lease may end soon: start nothing owned, CANCEL what is owned."""
        self._in_doubt = True
        for key in self._owned():
            self._tasks.start(self._retire(key, "the node may lose its lease", release=False), f"cancel {key}")

    def kill_owned(self) -> None:
        """The lease is about to end: nothing owned may run on."""
        for key in self._owned():
            self._running[key].kill()

    def owns(self) -> bool:
        """Whether something still runs here that was claimed."""
        return bool(self._owned())

    def sure(self) -> None:
        """The lease answers again, or a new one was granted: go on."""
        self._in_doubt = False
        self._wake()

    def stats(self) -> list[dict[str, Any]]:
        """The replicas here, and of the other nodes what their claims say."""
        rows = [{"node": self._node, **asdict(replica.stats())} for replica in self._running.values()]
        for claim in self._claims.all():
            if claim.node != self._node:
                pid = claim.state.pid if claim.state else ""
                rows.append(
                    {
                        "node": claim.node,
                        "service": claim.service,
                        "replica": claim.replica,
                        "state": "claimed",
                        "pid": pid,
                    }
                )
        return rows

    def _owned(self) -> list[Key]:
        def keeps(wanted: _Wanted | None) -> bool:
            return wanted is not None and (
                wanted.mode is Mode.EVERY_NODE or wanted.spec.placement.on_lease_loss == "keep"
            )

        return [key for key in self._running if not keeps(self._wanted.get(key[0]))]

    def _due(self) -> list[Key]:
        """Replicas that are this node's to run by what it knows now."""
        due: list[Key] = []
        single = len(self._members.ready()) <= 1
        for service, wanted in self._wanted.items():
            if wanted.mode is Mode.EVERY_NODE or single:
                due += [(service, replica) for replica in range(wanted.spec.placement.replicas)]
        return due

    def _levels(self) -> list[list[Key]]:
        """Replicas by dependency: what others require comes first."""
        levels: list[list[Key]] = []
        placed: set[str] = set()
        left = set(self._wanted)
        while left:
            level = {
                s for s in left if all(r in placed or r not in left for r in self._wanted[s].spec.lifecycle.required)
            }
            level = level or left
            levels.append([key for key in self._running if key[0] in level])
            placed |= level
            left -= level
        return levels

    def _reconcile(self) -> float | None:
        """Start what should run and does not, stop what should not; when to look again."""
        for key, replica in list(self._running.items()):
            wanted = self._wanted.get(key[0])
            if wanted is None or wanted.spec != replica.spec or not self._still_mine(key, wanted):
                self._tasks.start(
                    self._retire(key, "service removed" if wanted is None else "service changed"), str(key)
                )
        for service, wanted in self._wanted.items():
            if wanted.mode is Mode.EVERY_NODE and self._eligible(wanted):
                self._start((service, 0), wanted, None)
        for claim in self._claims.own():
            claimed = self._wanted.get(claim.service)
            if claimed is not None and claimed.mode is Mode.CLUSTER and claim.lease == self._lease():
                self._start((claim.service, claim.replica), claimed, claim)
        return self._place()

    def _place(self) -> float | None:
        services = [
            Service(
                id=service,
                replicas=wanted.spec.placement.replicas,
                mode=wanted.mode,
                labels=wanted.spec.placement.labels,
            )
            for service, wanted in self._wanted.items()
        ]
        now = time.monotonic()
        plan = self._placement.decide(services, self._members.ready(), self._claims.all(), now, frozenset(self._asked))
        for action in plan.actions:
            match action:
                case MakeClaim(service, replica):
                    self._asked.add((service, replica))
                    self._tasks.start(self._claim((service, replica)), f"claim {service}/{replica}")
                case DropClaim(service, replica, token):
                    if (service, replica) not in self._running:
                        self._tasks.start(self._release((service, replica), token), f"release {service}/{replica}")
        return plan.wake_at

    def _eligible(self, wanted: _Wanted) -> bool:
        member = self._members.get(self._node)
        labels = wanted.spec.placement.labels
        return member is not None and all(member.labels.get(name) == value for name, value in labels.items())

    def _still_mine(self, key: Key, wanted: _Wanted) -> bool:
        if wanted.mode is Mode.EVERY_NODE:
            return True
        claim = self._claims.get(*key)
        return claim is not None and claim.node == self._node

    async def _claim(self, key: Key) -> None:
        try:
            await self._claims.claim(*key, self._lease())
        except (Unavailable, OutcomeUnknown, TimeoutError, ClusterError) as error:
            log.warning("claim failed; tried again", service=key[0], replica=key[1], error=str(error))
            await asyncio.sleep(POLL)
        finally:
            self._asked.discard(key)
            self._wake()

    def _start(self, key: Key, wanted: _Wanted, claim: Claim | None) -> None:
        if key in self._running or key in self._rested or key in self._stopping:
            return
        replica = Replica(
            key[0],
            key[1],
            wanted.spec,
            self._ports,
            self._node,
            ready=lambda: self._requirements(wanted),
            on_pid=lambda pid: self._has_pid(key, claim, pid),
            on_rest=lambda state: self._has_rested(key, state),
        )
        self._running[key] = replica
        self._announce("service.start", key[0])
        replica.start()

    async def _requirements(self, wanted: _Wanted) -> None:
        """Wait for the services this one requires to run somewhere."""
        missing = list(wanted.spec.lifecycle.required)
        while missing := [one for one in missing if one in self._wanted and not self._runs(one)]:
            await self._progress.wait()

    def _runs(self, service: str) -> bool:
        here = any(key[0] == service and replica.started.is_set() for key, replica in self._running.items())
        return here or any(claim.service == service and claim.state is not None for claim in self._claims.all())

    def _has_pid(self, key: Key, claim: Claim | None, pid: bytes | None) -> None:
        self._wake()
        for known in [p for p, fence in self._fences.items() if claim and fence == self._fence(key, claim)]:
            del self._fences[known]
        if pid is None or claim is None:
            return
        self._fences[pid] = self._fence(key, claim)
        self._tasks.start(self._tell(key, claim, pid), f"state of {key}")

    def _fence(self, key: Key, claim: Claim) -> tuple[str, int]:
        return self._keys.service(*key), claim.token

    async def _tell(self, key: Key, claim: Claim, pid: bytes) -> None:
        since = datetime.now(UTC).isoformat(timespec="milliseconds")
        state = ClaimState(self._node, pid.decode(), since, self._incarnation)
        try:
            await self._claims.write_state(*key, claim.token, claim.lease, state)
        except ClusterError as error:
            log.warning("state of a service was not written", service=key[0], error=str(error))

    def _has_rested(self, key: Key, state: ServiceState) -> None:
        """The replica came to rest by itself or because it was told to."""
        if key not in self._stopping:
            self._rested.add(key)
            self._announce("service.stop", key[0])
            log.info("service ended", service=key[0], replica=key[1], state=state.value)

    async def _retire(self, key: Key, reason: str, *, release: bool = True) -> None:
        """Stop a replica and give its claim back."""
        if key in self._stopping:
            return
        self._stopping.add(key)
        try:
            replica = self._running[key]
            claim = self._claims.get(*key)
            if replica.finished.is_set():
                await replica.close()
            else:
                await replica.stop(reason)
            del self._running[key]
            self._rested.discard(key)
            self._announce("service.stop", key[0])
            if release and claim is not None and claim.node == self._node:
                await self._release(key, claim.token)
        finally:
            self._stopping.discard(key)
            self._wake()

    async def _release(self, key: Key, token: int) -> None:
        try:
            await self._claims.release(*key, token)
        except ClusterError as error:
            log.warning("claim was not released; it ends with the lease", service=key[0], error=str(error))

    def _claim_changed(self, before: Claim | None, after: Claim | None) -> None:
        if before is not None and after is None:
            self._rested.discard((before.service, before.replica))
        self._wake()

    def _wake(self) -> None:
        """Something changed: decide anew, and let those look who wait for others to run."""
        self._changed.set()
        self._progress.set()
        self._progress = asyncio.Event()

    def _broke(self, task: str, error: BaseException) -> None:
        log.error("supervisor task failed", task=task, exc_info=error)
        self._wake()
