"""The replicas that live on this node: their processes, the claims they run under, their orderly end.

What runs where is the supervisor's to decide; here it is done. A replica starts only under a
claim that holds, is tied to it by a fence before anything it does leaves the VM, and its claim
is given back only after its process has ended (fencing rules F4 and F5).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from cluster.avoids import Avoid
from cluster.claims import Claim, Claims, ClaimState
from cluster.keys import Keys
from cluster.supervision import ServiceState
from cluster.tasks import Tasks
from node.claiming import RELEASE_DEADLINE, Claiming, Held, Key
from node.fences import Fence, Fences
from node.kept import Kept, Make
from node.ports import Ports
from node.replica import KILL_DEADLINE
from node.wanted import Wanted

log = structlog.get_logger("wippy.supervisor")

SAY_WAITING = 5.0
NAMES_POLL = 0.005
THAW_DEADLINE = 5.0
"""Seconds in which the move of a process must have ended when its node stops."""
FEW = 100
"""Ended processes that need not be forgotten at once."""
NO_LEASE = 0
"""The lease of what may do nothing."""
MAX_REASON = 300


class Lease(Protocol):
    """What services need of the lease keeper. Each claim names the lease it was made under."""

    def current(self) -> int: ...

    def may_start_owned(self, lease: int) -> bool: ...

    def may_run_owned(self, lease: int) -> bool: ...


@dataclass
class Run:
    """A replica here, and under what it was started."""

    replica: Kept
    wanted: Wanted
    held: Held | None
    said: bytes | None = None
    """The process etcd knows of already."""

    @property
    def claim(self) -> Claim | None:
        return None if self.held is None else self.held.claim


class Replicas:
    """``kinds`` says how a replica is made; ``requirements`` waits for what a service requires; ``on_start`` has each
    service of which something started or ended; ``wake`` is called whenever something happened; ``names_of`` has the
    names of a process."""

    def __init__(
        self,
        node: str,
        incarnation: int,
        kinds: Mapping[str, Make],
        ports: Ports,
        claims: Claims,
        keys: Keys,
        lease: Lease,
        announce: Callable[[str, str], None],
        requirements: Callable[[Wanted], Awaitable[None]],
        on_start: Callable[[str], None],
        wake: Callable[[], None],
        names_of: Callable[[str], Collection[str]],
    ) -> None:
        self._node = node
        self._incarnation = incarnation
        self._kinds = kinds
        self._ports = ports
        self._claims = claims
        self._keys = keys
        self._lease = lease
        self._announce = announce
        self._requirements = requirements
        self._on_start = on_start
        self._wake = wake
        self._names_of = names_of
        self.running: dict[Key, Run] = {}
        self.stopping: dict[Key, asyncio.Task[None]] = {}
        self.frozen: dict[Key, asyncio.Event] = {}
        """Those whose process is on its way to another node: nothing is done to them until it is known who won. Set
        then."""
        self._by_pid: dict[bytes, Key] = {}
        self._fences = Fences(lambda: {pid for run in self.running.values() for pid in run.replica.pids})
        self._closed = False
        self._doing: set[str] = set()
        self._tasks = Tasks("supervisor", self._broke)
        self.claiming = Claiming(claims, self._tasks, wake)

    async def close(self) -> None:
        """Nothing is begun any more."""
        self._closed = True
        await self._tasks.close()

    def once(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do this beside everything else, unless it is being done."""
        if name in self._doing or self._closed:
            work.close()
            return
        self._doing.add(name)
        self._tasks.start(work, name).add_done_callback(lambda task: self._doing.discard(name))

    def beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do this beside everything else."""
        if self._closed:
            work.close()
        else:
            self._tasks.start(work, name)

    def of(self, service: str) -> list[tuple[Key, Run]]:
        return [(key, run) for key, run in self.running.items() if key[0] == service]

    def revise(self, key: Key, run: Run, wanted: Wanted) -> None:
        """The replica goes on, kept in another way."""
        run.wanted = wanted
        run.replica.revise(wanted.spec)
        for pid in run.replica.pids:
            self._fence(pid, key, run)

    def start(self, key: Key, wanted: Wanted, claim: Claim | None) -> None:
        if key not in self.running:
            run = self.make(key, wanted, claim)
            self._announce("service.start", key[0])
            run.replica.start()

    def make(self, key: Key, wanted: Wanted, claim: Claim | None) -> Run:
        """A replica that is kept here from now on; it is to be started, or to be given its process."""
        make = self._kinds[wanted.entry.kind]
        replica = make(
            key[0],
            key[1],
            wanted.spec,
            self._ports,
            self._node,
            may_start=lambda: self._may_start(run),
            ready=lambda: self._requirements(run.wanted),
            fence=lambda pid: self._fence(pid, key, run),
            on_pid=lambda pid: self._has_pid(key, run, pid),
            on_rest=lambda state: self._has_rested(key, state),
        )
        run = self.running[key] = Run(replica, wanted, None if claim is None else Held(claim))
        return run

    def _may_start(self, run: Run) -> bool:
        return run.claim is None or self._lease.may_start_owned(run.claim.lease)

    def runs(self, wanted: Wanted) -> bool:
        """Whether a replica of the service has run, here or by what its claim says elsewhere."""
        return any(self._ran((wanted.entry.id, replica)) for replica in range(wanted.spec.placement.replicas))

    def _ran(self, key: Key) -> bool:
        run, claim = self.running.get(key), self._claims.get(*key)
        return (run is not None and run.replica.started.is_set()) or (claim is not None and claim.state is not None)

    def _fence(self, pid: bytes, key: Key, run: Run) -> None:
        """Tie the process to its claim, for good: an ended one may have left something to write. One whose start was
        given up is here too late to do anything: the claim may be another's by now."""
        if run.claim is not None:
            is_late = pid not in run.replica.pids
            lease, binding = (NO_LEASE, True) if is_late else (run.claim.lease, not run.wanted.keeps)
            fence = run.held.fence if run.held is not None else None
            self._fences.put(pid, Fence(*(fence or (self._keys.service(*key), run.claim.token)), lease, binding))

    def refence(self, key: Key, run: Run, fence: tuple[str, int] | None) -> None:
        """What its processes write is compared with this from now on, with the claim for None."""
        if run.held is not None:
            run.held.fence = fence
            for pid in run.replica.pids:
                self._fence(pid, key, run)

    def _has_pid(self, key: Key, run: Run, pid: bytes | None) -> None:
        self._wake()
        self._on_start(key[0])
        if pid is None:
            return
        self._index(key, pid)
        if run.held is not None and pid != run.said and not self._closed:
            since = datetime.now(UTC).isoformat(timespec="milliseconds")
            self.claiming.tell(key, run.held, ClaimState(self._node, pid.decode(), since, self._incarnation))

    def _index(self, key: Key, pid: bytes) -> None:
        if len(self._by_pid) > 2 * len(self.running) + FEW:
            lives = {run.replica.pid for run in self.running.values()}
            self._by_pid = {one: its for one, its in self._by_pid.items() if one in lives}
        self._by_pid[pid] = key

    def find(self, pid: bytes) -> tuple[Key, Run] | None:
        """The replica whose process this is."""
        key = self._by_pid.get(pid)
        run = None if key is None else self.running.get(key)
        return (key, run) if key is not None and run is not None and run.replica.pid == pid else None

    def state_shown(self, claim: Claim) -> None:
        """What etcd says of a replica. A former process may have had the last word there: then it is said again."""
        run = self.running.get((claim.service, claim.replica))
        if run is None or run.claim is None or run.claim.token != claim.token or claim.state is None:
            return
        if run.replica.pid is not None and run.replica.pid.decode() != claim.state.pid:
            self._has_pid((claim.service, claim.replica), run, run.replica.pid)

    def _has_rested(self, key: Key, state: ServiceState) -> None:
        """The replica came to rest by itself or because it was told to."""
        self._wake()
        if key not in self.stopping:
            self._announce("service.stop", key[0])
            log.info("service ended", service=key[0], replica=key[1], state=state.value)

    def retire(self, key: Key, reason: str, *, release: bool = True, kill: bool = False, avoid: float = 0.0) -> None:
        """Stop a replica, if it is not stopping already, and give its claim back when it has ended.

        ``avoid``: this node is not to take the service again for so many seconds.
        """
        run = self.running[key]
        if key in self.frozen:
            return  # whoever thaws it looks at it again
        if key not in self.stopping and not self._closed:
            was_told = run.replica.finished.is_set()
            ending = self._end(key, run, reason, release, avoid, was_told)
            self.stopping[key] = self._tasks.start(ending, f"stop {key}")
        if kill:
            run.replica.kill(reason)

    async def _end(self, key: Key, run: Run, reason: str, release: bool, avoid: float, was_told: bool) -> None:
        avoided = None
        try:
            if avoid and run.claim is not None:
                why = run.replica.stats().last_error
                avoided = Avoid(key[0], self._node, time.time() + avoid, why[:MAX_REASON], run.claim.lease)
            pids = run.replica.pids
            await run.replica.stop(reason)
            del self.running[key]
            if run.held is not None:
                run.held.over = True
            if not was_told:
                self._announce("service.stop", key[0])
            held = self._claims.get(*key)
            if not release or run.claim is None or not self._lease.may_run_owned(run.claim.lease):
                return  # it is kept, or ends with a lease that is not renewed any more
            if held is not None and held.token == run.claim.token:
                await self._nameless(pids)
                await self.claiming.release(key, run.claim.token, avoided)
        finally:
            self.stopping.pop(key, None)
            self._wake()

    async def _nameless(self, pids: Collection[bytes]) -> None:
        """Wait until what ended has no names any more: whoever is started elsewhere asks for them at once."""
        try:
            async with asyncio.timeout(RELEASE_DEADLINE):
                while True:
                    if not any(self._names_of(pid.decode("utf-8", "surrogateescape")) for pid in pids):
                        return
                    await asyncio.sleep(NAMES_POLL)
        except TimeoutError:
            log.warning("names of a service that ended are not free yet", pids=[pid.decode() for pid in pids])

    async def all_ended(self, keys: Iterable[Key], reason: str) -> None:
        """Stop these and wait, saying for whom."""
        keys = [key for key in keys if key in self.running and key not in self.frozen]
        for key in keys:
            self.retire(key, reason)
        tasks = {self.stopping[key]: key for key in keys}
        timeouts = [self.running[key].wanted.spec.lifecycle.stop_timeout.total_seconds() for key in keys]
        clock = asyncio.get_running_loop().time
        deadline = clock() + max(timeouts, default=0.0) + KILL_DEADLINE + RELEASE_DEADLINE
        while tasks and (left := deadline - clock()) > 0:
            done, _ = await asyncio.wait(tasks, timeout=min(left, SAY_WAITING))
            tasks = {task: key for task, key in tasks.items() if task not in done}
            if tasks and not done:
                waiting = sorted({key[0] for key in tasks.values()})
                log.info("waiting for services to end; a second signal ends the node at once", services=waiting)
        if tasks:
            log.error("services did not end", services=sorted({key[0] for key in tasks.values()}))

    async def thawed(self) -> None:
        """Wait until what is on its way has left or stays, for a while."""
        try:
            async with asyncio.timeout(THAW_DEADLINE):
                for event in list(self.frozen.values()):
                    await event.wait()
        except TimeoutError:
            log.error(
                "services on their way to other nodes are left behind", services=sorted(k[0] for k in self.frozen)
            )

    def fence_of(self, pid: bytes) -> tuple[str, int] | None:
        """The claim (key, token) under which the process runs or ran; None for one without."""
        fence = self._fences.get(pid)
        return None if fence is None else (fence.key, fence.token)

    @property
    def guarded(self) -> Collection[bytes]:
        """Processes that run under a claim: ``may_act`` is to be asked before what they do leaves the VM."""
        return self._fences.pids()

    def may_act(self, pid: bytes) -> bool:
        """Whether the lease of the process's claim holds. A process it does not hold for is killed."""
        fence = self._fences.get(pid)
        if fence is None or not fence.binding or self._lease.may_run_owned(fence.lease):
            return True
        for key, run in self.running.items():
            if pid in run.replica.pids:
                self.retire(key, "the lease is over", release=False, kill=True)
                break
        return False

    def disown(self, pid: bytes, key: Key, token: int) -> None:
        """The process may do nothing, though the claim it came with is this node's."""
        self._fences.put(pid, Fence(self._keys.service(*key), token, NO_LEASE, True))

    def name_revoked(self, pid: bytes, name: str) -> None:
        """A process lost a name. A service that ends because of that has not done its work."""
        for run in self.running.values():
            run.replica.name_revoked(pid, name)

    def owns(self) -> bool:
        """Whether something that was claimed lives here or is being started."""
        return any(not self.running[key].replica.finished.is_set() for key in self.owned())

    def stats(self) -> list[dict[str, Any]]:
        """The replicas here, and of the others, those of this node that it does not run among them, their claims.

        ``claim`` is the fencing token."""
        rows = [
            {"node": self._node, **asdict(run.replica.stats()), "claim": run.held.claim.token if run.held else None}
            for run in self.running.values()
        ]
        for claim in self._claims.all():
            run = self.running.get((claim.service, claim.replica))
            held = run.held if run is not None else None
            if held is not None and held.fence is None and held.claim.token > claim.token:
                continue  # it has come here, and the view is not as far yet
            if claim.node != self._node or run is None:
                pid = claim.state.pid if claim.state and claim.node != self._node else ""
                rows.append(
                    {
                        "node": claim.node,
                        "service": claim.service,
                        "replica": claim.replica,
                        "state": "claimed",
                        "pid": pid,
                        "claim": claim.token,
                    }
                )
        return rows

    def owned(self) -> list[Key]:
        """What may not run without the lease. What is frozen does not run."""
        return [key for key, run in self.running.items() if not run.wanted.keeps and key not in self.frozen]

    def rebind(self, key: Key, run: Run, claim: Claim) -> None:
        """A replica that went on without a lease runs under this claim from now on."""
        assert run.held is not None
        run.held.claim = claim
        for pid in run.replica.pids:
            self._fence(pid, key, run)
        if run.replica.pid is not None:
            self._has_pid(key, run, run.replica.pid)

    def _broke(self, task: str, error: BaseException) -> None:
        log.error("supervisor task failed", task=task, exc_info=error)
        self._wake()
