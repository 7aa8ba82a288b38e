"""The services of a node: which replicas run here, and that they keep running.

``placement: every_node`` runs on each node without a claim. In the mode ``cluster`` the pure
placement core says which replicas this node should claim now; a replica starts only after its
claim is confirmed, and the claim is given back only after its process has ended (fencing rule
F5). While the node can't renew its lease, owned replicas are cancelled and then killed (F3);
when the same lease answers again, those whose claim is unchanged start in place. A replica
whose claim is gone or another's is killed at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from cluster.claims import Claim, Claims, ClaimState
from cluster.errors import ClusterError, Invalid
from cluster.keys import Keys
from cluster.members import Members
from cluster.placement import DropClaim, MakeClaim, Mode, Placement, Service
from cluster.registry import Entry, RegistryState
from cluster.supervision import ServiceState
from cluster.tasks import Tasks
from node.kinds import decode
from node.kinds.service import ProcessService
from node.ports import Ports
from node.replica import KILL_DEADLINE, Replica

log = structlog.get_logger("wippy.supervisor")

POLL = 0.1
RETRY = 1.0
"""Seconds until something etcd did not take is asked for again."""
RELEASE_DEADLINE = 3.0
SAY_WAITING = 5.0
FORMER_FENCES = 1000
"""Ended processes whose fence is kept: what they asked for last may be handled after their end."""
Key = tuple[str, int]


class Lease(Protocol):
    """What the supervisor needs of the lease keeper. Each claim names the lease it was made under."""

    def current(self) -> int: ...

    def may_start_owned(self, lease: int) -> bool: ...

    def may_run_owned(self, lease: int) -> bool: ...


@dataclass(frozen=True)
class _Wanted:
    """A service as its entry says, decoded."""

    entry: Entry
    spec: ProcessService

    @property
    def mode(self) -> Mode:
        return Mode(self.spec.placement.mode)

    @property
    def keeps(self) -> bool:
        """Whether it goes on while the node has no lease."""
        return self.mode is Mode.EVERY_NODE or self.spec.placement.on_lease_loss == "keep"

    def has(self, replica: int) -> bool:
        return replica < self.spec.placement.replicas


@dataclass(frozen=True)
class _Fence:
    """The claim a process runs under. ``binding``: it must not act when that claim's lease is over."""

    key: str
    token: int
    lease: int
    binding: bool


@dataclass
class _Run:
    """A replica here, and under what it was started."""

    replica: Replica
    wanted: _Wanted
    claim: Claim | None
    untold: ClaimState | None = None
    telling: bool = False


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
        lease: Lease,
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
        self._running: dict[Key, _Run] = {}
        self._stopping: dict[Key, asyncio.Task[None]] = {}
        self._fences: dict[bytes, _Fence] = {}
        self._former: deque[bytes] = deque()
        self._asked: set[Key] = set()
        self._refused: set[Key] = set()
        self._released: set[int] = set()
        self._changed = asyncio.Event()
        self._progress = asyncio.Event()
        self._open = False
        self._closed = False
        self._in_doubt = False
        self._tasks = Tasks("supervisor", self._broke)
        claims.on_change(self._claim_changed)
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
        """Wait until every replica that is this node's to run was started or could not be, at most ``timeout``."""

        def tried(key: Key) -> bool:
            return key in self._running and self._running[key].replica.tried.is_set()

        try:
            async with asyncio.timeout(timeout):
                while not all(tried(key) for key in self._due()):
                    await self._progress.wait()
        except TimeoutError:
            log.warning("services did not all start", after=timeout)

    async def stop(self, reason: str) -> None:
        """Stop all replicas, dependents first, and give back their claims; at most until all must be dead."""
        self._open = False
        for level in reversed(self._levels()):
            await self._all_ended(level, reason)
        await self._all_ended(list(self._running), reason)
        self._closed = True
        await self._tasks.close()

    def fence_of(self, pid: bytes) -> tuple[str, int] | None:
        """The claim (key, token) under which the process runs or ran; None for one without."""
        fence = self._fences.get(pid)
        return None if fence is None else (fence.key, fence.token)

    @property
    def guarded(self) -> Collection[bytes]:
        """Processes that run under a claim: ``may_act`` is to be asked before what they do leaves the VM."""
        return self._fences.keys()

    def may_act(self, pid: bytes) -> bool:
        """Whether the lease of the process's claim holds. A process it does not hold for is killed."""
        fence = self._fences.get(pid)
        if fence is None or not fence.binding or self._lease.may_run_owned(fence.lease):
            return True
        for key, run in self._running.items():
            if run.replica.pid == pid:
                self._retire(key, "the lease is over", release=False, kill=True)
                break
        return False

    def name_revoked(self, pid: bytes, name: str) -> None:
        """A process lost a name. A service that ends because of that has not done its work."""
        for run in self._running.values():
            if run.replica.pid == pid:
                run.replica.name_revoked(name)

    def in_doubt(self) -> None:
        """The lease may end soon: start nothing owned, CANCEL what is owned."""
        self._in_doubt = True
        for key in self._owned():
            self._retire(key, "the node may lose its lease", release=False)

    def kill_owned(self) -> None:
        """The lease is about to end: nothing owned may run on."""
        for key in self._owned():
            self._retire(key, "the lease is over", release=False, kill=True)

    def owns(self) -> bool:
        """Whether something that was claimed lives here or is being started."""
        return any(not self._running[key].replica.finished.is_set() for key in self._owned())

    def sure(self) -> None:
        """The lease answers again, or a new one was granted: go on."""
        self._in_doubt = False
        self._wake()

    def stats(self) -> list[dict[str, Any]]:
        """The replicas here, and of the other nodes what their claims say."""
        rows = [{"node": self._node, **asdict(run.replica.stats())} for run in self._running.values()]
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
        return [key for key, run in self._running.items() if not run.wanted.keeps]

    def _due(self) -> list[Key]:
        """Replicas that are this node's to run by what it knows now."""
        single = len(self._members.ready()) <= 1
        due: list[Key] = []
        for service, wanted in self._wanted.items():
            for replica in range(wanted.spec.placement.replicas):
                claim = self._claims.get(service, replica)
                mine = wanted.mode is Mode.EVERY_NODE or (single if claim is None else claim.node == self._node)
                if mine and self._eligible(wanted):
                    due.append((service, replica))
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
        for key, run in list(self._running.items()):
            self._check(key, run)
        for service, wanted in self._wanted.items():
            if wanted.mode is Mode.EVERY_NODE and self._eligible(wanted):
                self._start((service, 0), wanted, None)
        lease = self._lease.current()
        if not self._lease.may_start_owned(lease):
            return time.monotonic() + POLL  # who is told of the lease's phase may be told a moment later
        for claim in self._claims.own():
            claimed = self._wanted.get(claim.service)
            if claimed is not None and self._may_use(claim, claimed, lease):
                self._start((claim.service, claim.replica), claimed, claim)
        return self._place()

    def _check(self, key: Key, run: _Run) -> None:
        """Stop a replica that is not to run here, or not like this."""
        wanted = self._wanted.get(key[0])
        if wanted is None:
            self._retire(key, "service removed")
        elif wanted.mode is not run.wanted.mode or not wanted.has(key[1]):
            self._retire(key, "service changed")
        elif run.claim is not None and not self._holds(key, run, run.claim):
            return
        elif wanted.spec != run.wanted.spec:
            # the claim stays where the service may stay
            self._retire(key, "service changed", release=not self._eligible(wanted))

    def _holds(self, key: Key, run: _Run, claim: Claim) -> bool:
        """Whether a replica's claim is still its own; what to do when not."""
        held = self._claims.get(*key)
        if held is not None and held.token == claim.token and claim.lease == self._lease.current():
            return True
        if not run.wanted.keeps:
            self._retire(key, "its claim is lost", release=False, kill=True)
        elif held is not None and held.node != self._node:
            self._retire(key, f"node {held.node} runs it now", release=False)
        elif held is not None and held.lease == self._lease.current():
            self._adopt(key, run, held)
            return True
        return False

    def _adopt(self, key: Key, run: _Run, claim: Claim) -> None:
        """A replica that went on without a lease runs under this claim from now on."""
        run.claim = claim
        if run.replica.pid is not None:
            self._fence(run.replica.pid, key, run)
            self._has_pid(key, run, run.replica.pid)

    def _may_use(self, claim: Claim, wanted: _Wanted, lease: int) -> bool:
        return (
            wanted.mode is Mode.CLUSTER
            and wanted.has(claim.replica)
            and claim.lease == lease
            and claim.token not in self._released
        )

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
                    if (service, replica) not in self._running and token not in self._released:
                        self._tasks.start(self._release((service, replica), token), f"release {service}/{replica}")
                        self._released.add(token)
        return plan.wake_at

    def _eligible(self, wanted: _Wanted) -> bool:
        member = self._members.get(self._node)
        labels = wanted.spec.placement.labels
        return member is not None and all(member.labels.get(name) == value for name, value in labels.items())

    async def _claim(self, key: Key) -> None:
        try:
            token = await self._claims.claim(*key, self._lease.current())
            self._refused.discard(key)
            if token is None:
                await asyncio.sleep(POLL)  # another has it; the watch is about to say so
        except ClusterError as error:
            if key not in self._refused:
                log.warning("claim failed; tried again", service=key[0], replica=key[1], error=str(error))
            self._refused.add(key)
            await asyncio.sleep(RETRY)
        finally:
            self._asked.discard(key)
            self._wake()

    def _start(self, key: Key, wanted: _Wanted, claim: Claim | None) -> None:
        if key in self._running:
            return
        replica = Replica(
            key[0],
            key[1],
            wanted.spec,
            self._ports,
            self._node,
            may_start=lambda: self._may_start(run),
            ready=lambda: self._requirements(wanted),
            fence=lambda pid: self._fence(pid, key, run),
            on_pid=lambda pid: self._has_pid(key, run, pid),
            on_rest=lambda state: self._has_rested(key, state),
        )
        run = self._running[key] = _Run(replica, wanted, claim)
        self._announce("service.start", key[0])
        replica.start()

    def _may_start(self, run: _Run) -> bool:
        return run.claim is None or self._lease.may_start_owned(run.claim.lease)

    async def _requirements(self, wanted: _Wanted) -> None:
        """Wait for the services this one requires to run somewhere."""
        missing = list(wanted.spec.lifecycle.required)
        while missing := [one for one in missing if one in self._wanted and not self._runs(one)]:
            await self._progress.wait()

    def _runs(self, service: str) -> bool:
        here = any(key[0] == service and run.replica.started.is_set() for key, run in self._running.items())
        return here or any(claim.service == service and claim.state is not None for claim in self._claims.all())

    def _fence(self, pid: bytes, key: Key, run: _Run) -> None:
        """Tie the process to its claim, for good: an ended one may have left something to write."""
        if run.claim is None:
            return
        if pid not in self._fences:
            self._former.append(pid)
        self._fences[pid] = _Fence(self._keys.service(*key), run.claim.token, run.claim.lease, not run.wanted.keeps)
        alive = {one.replica.pid for one in self._running.values()}
        while len(self._former) > FORMER_FENCES + len(alive):
            oldest = self._former.popleft()
            if oldest in alive:
                self._former.append(oldest)
            else:
                del self._fences[oldest]

    def _has_pid(self, key: Key, run: _Run, pid: bytes | None) -> None:
        self._wake()
        if pid is None or run.claim is None or self._closed:
            return
        since = datetime.now(UTC).isoformat(timespec="milliseconds")
        run.untold = ClaimState(self._node, pid.decode(), since, self._incarnation)
        if not run.telling:
            run.telling = True
            self._tasks.start(self._tell(key, run), f"state of {key}")

    async def _tell(self, key: Key, run: _Run) -> None:
        """Write where the replica runs beside its claim, the newest last, until etcd has it or the claim is gone."""
        said = False
        try:
            while run.untold is not None and run.claim is not None and self._running.get(key) is run:
                state, claim, run.untold = run.untold, run.claim, None
                try:
                    await self._claims.write_state(*key, claim.token, claim.lease, state)
                except ClusterError as error:
                    if not said:
                        log.warning("state of a service is not written yet", service=key[0], error=str(error))
                    said = True
                    run.untold = run.untold or state
                    await asyncio.sleep(RETRY)
        finally:
            run.telling = False

    def _has_rested(self, key: Key, state: ServiceState) -> None:
        """The replica came to rest by itself or because it was told to."""
        self._wake()
        if key not in self._stopping:
            self._announce("service.stop", key[0])
            log.info("service ended", service=key[0], replica=key[1], state=state.value)

    def _retire(self, key: Key, reason: str, *, release: bool = True, kill: bool = False) -> None:
        """Stop a replica, if it is not stopping already, and give its claim back when it has ended."""
        run = self._running[key]
        if key not in self._stopping and not self._closed:
            self._stopping[key] = self._tasks.start(self._end(key, run, reason, release), f"stop {key}")
        if kill:
            run.replica.kill(reason)

    async def _end(self, key: Key, run: _Run, reason: str, release: bool) -> None:
        try:
            await run.replica.stop(reason)
            del self._running[key]
            self._announce("service.stop", key[0])
            held = self._claims.get(*key)
            if not release or run.claim is None or not self._lease.may_run_owned(run.claim.lease):
                return  # it is kept, or ends with a lease that is not renewed any more
            if held is not None and held.token == run.claim.token:
                self._released.add(run.claim.token)
                await self._release(key, run.claim.token)
        finally:
            self._stopping.pop(key, None)
            self._wake()

    async def _release(self, key: Key, token: int) -> None:
        """Give a claim back. ``_released`` keeps it from being used while the watch still shows it."""
        try:
            async with asyncio.timeout(RELEASE_DEADLINE):
                await self._claims.release(*key, token)
        except (ClusterError, TimeoutError) as error:
            log.warning("claim is not released yet", service=key[0], replica=key[1], error=str(error) or "timeout")
            await asyncio.sleep(RETRY)
            held = self._claims.get(*key)
            if held is not None and held.token == token:
                self._released.discard(token)
            self._wake()

    async def _all_ended(self, keys: Iterable[Key], reason: str) -> None:
        """Stop these and wait, saying for whom."""
        keys = [key for key in keys if key in self._running]
        for key in keys:
            self._retire(key, reason)
        tasks = {self._stopping[key]: key for key in keys}
        timeouts = [self._running[key].wanted.spec.lifecycle.stop_timeout.total_seconds() for key in keys]
        deadline = time.monotonic() + max(timeouts, default=0.0) + KILL_DEADLINE + RELEASE_DEADLINE
        while tasks and (left := deadline - time.monotonic()) > 0:
            done, _ = await asyncio.wait(tasks, timeout=min(left, SAY_WAITING))
            tasks = {task: key for task, key in tasks.items() if task not in done}
            if tasks and not done:
                waiting = sorted({key[0] for key in tasks.values()})
                log.info("waiting for services to end; a second signal ends the node at once", services=waiting)
        if tasks:
            log.error("services did not end", services=sorted({key[0] for key in tasks.values()}))

    def _claim_changed(self, before: Claim | None, after: Claim | None) -> None:
        if before is not None and after is None:
            self._released.discard(before.token)
        self._wake()

    def _wake(self) -> None:
        """Something changed: decide anew, and let those look who wait for others to run."""
        self._changed.set()
        self._progress.set()
        self._progress = asyncio.Event()

    def _broke(self, task: str, error: BaseException) -> None:
        log.error("supervisor task failed", task=task, exc_info=error)
        self._wake()
