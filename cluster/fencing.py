"""Stop before the lease ends: keeps the node's lease and says what may still be done under it.

Everything a node owns (services, locks, names, workflows) hangs on one lease of etcd. When
it ends, another node may own them, so this one must have stopped before. ``LeaseKeeper``
renews on a thread of its own, from the outside of the main loop, and so that a node that
hangs loses its lease: it renews only while the main loop ticks and no VM step is stuck, and
ends the process otherwise. ``FencingCore`` holds all decisions and is pure.

    deadline         = when the last answered renewal was SENT + TTL
    deadline - 2.5 s   CANCEL  start nothing owned, cancel what is owned
    deadline - 1 s     KILL    kill what is owned, run no owned step
    deadline - 0.3 s           a step begun before KILL still runs: end the process
    deadline           DOUBT   etcd may or may not have the lease; the same lease may answer again
    answer "TTL 0"     LOST    it is over, for good; only a new lease goes on

Between a check and the effect of what it allowed, a pause of any length remains: what
leaves the process must carry the fencing token and be compared where it lands.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from types import TracebackType
from typing import Any, Self

import structlog

from cluster.errors import ClusterError
from cluster.etcd import Etcd, Lease, Tls
from cluster.tasks import Tasks
from cluster.types import BootClock, Clock

log = structlog.get_logger("wippy.fencing")

CANCEL_BEFORE = 2.5
KILL_BEFORE = 1.0
EXIT_BEFORE = 0.3
RENEW_EVERY = 1.0
SHORTEST_TTL = 4
EXIT_CODE = 70
_TICK_SECONDS = 0.1
_RENEWAL_TIMEOUT = timedelta(seconds=2)
_LAST_LINE_SECONDS = 0.5
_LAST_WORDS_SECONDS = 1.0
# A tick that comes later than this was held up with the whole process (suspended, stopped): the main
# loop had no chance to tick either, and is not blamed for the time.
_BLAMED_PER_TICK = 1.0


class Phase(Enum):
    """What may be done under the lease. Ordered: each is a step further from owning."""

    HELD = "held"
    CANCEL = "cancel"
    KILL = "kill"
    DOUBT = "doubt"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Renew:
    """Send a renewal of this lease now."""

    lease: int


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """Tell the node."""

    phase: Phase
    lease: int


@dataclass(frozen=True, slots=True)
class EndProcess:
    """End the process at once, without revoking anything. ``hung``: the VM whose step does not come back."""

    reason: str
    hung: int | None = None


Action = Renew | PhaseChanged | EndProcess


@dataclass(frozen=True, slots=True)
class Held:
    """A lease and its deadline on the clock. Immutable, so that any thread may read it."""

    lease: int
    deadline: float

    def may_start(self, lease: int, now: float) -> bool:
        return lease == self.lease and now < self.deadline - CANCEL_BEFORE

    def may_run(self, lease: int, now: float) -> bool:
        return lease == self.lease and now < self.deadline - KILL_BEFORE


_NOTHING = Held(0, -math.inf)


class _Stuck:
    """For how long something has not moved, counting only time in which it could have."""

    def __init__(self) -> None:
        self._last: object = None
        self.seconds = 0.0

    def look(self, value: object, passed: float) -> float:
        self.seconds = self.seconds + passed if value == self._last else 0.0
        self._last = value
        return self.seconds


class FencingCore:
    """The decisions. Told of time, answers, beats and steps, it answers with what to do."""

    def __init__(self, *, wedge_limit: float, step_limit: float) -> None:
        self._wedge_limit = wedge_limit
        self._step_limit = step_limit
        self.held = _NOTHING
        self.phase = Phase.LOST
        self._kill_at = -math.inf
        self._exit_at = math.inf
        self._renewed_at = -math.inf
        self._ticked_at: float | None = None
        self._beat = _Stuck()
        self._steps: dict[int, _Stuck] = {}

    def check_may_grant(self) -> None:
        """Raises ValueError while there is a lease that is not lost."""
        if self.phase is not Phase.LOST:
            raise ValueError(f"lease {self.held.lease:x} is {self.phase.value}, not lost: it may answer again")

    def granted(self, lease: int, sent_at: float, ttl: float) -> list[Action]:
        """A new lease was asked for at ``sent_at``. Only after the former is lost: it extends nothing of it."""
        self.check_may_grant()
        self._hold(lease, sent_at + ttl)
        self._renewed_at = sent_at
        return self._enter(Phase.HELD, lease)

    def answered(self, lease: int, sent_at: float, ttl: float, now: float) -> list[Action]:
        """A renewal sent at ``sent_at`` was answered with ``ttl``; 0 says that the lease is gone."""
        if lease != self.held.lease or self.phase is Phase.LOST:
            return []
        if ttl <= 0:
            return self.over(now)
        self._hold(lease, max(self.held.deadline, sent_at + ttl))
        return self._enter(self._phase_at(now), lease)

    def over(self, now: float) -> list[Action]:
        """The lease ended. What runs under it has until EXIT_BEFORE after KILL would have left it."""
        if self.phase is Phase.LOST:
            return []
        lease = self.held.lease
        self.held = _NOTHING
        self._kill_at, self._exit_at = now, now + KILL_BEFORE - EXIT_BEFORE
        return self._enter(Phase.LOST, lease)

    def released(self) -> int:
        """The lease is given back in good order, after all owned work ended; which one it was, 0 for none."""
        lease, self.held, self.phase = self.held.lease, _NOTHING, Phase.LOST
        self._exit_at = math.inf
        return lease

    def tick(self, now: float, beats: int, steps: Mapping[int, float]) -> list[Action]:
        """Time passed. ``beats`` grows with each tick of the main loop; ``steps``: VM slot -> when its step began."""
        passed = 0.0 if self._ticked_at is None else min(now - self._ticked_at, _BLAMED_PER_TICK)
        self._ticked_at = now
        end = self._wedged(passed, beats, steps) or self._overrun(now, steps)
        if end is not None:
            return [end]
        if self.phase is Phase.LOST:
            return []
        actions = self._enter(self._phase_at(now), self.held.lease)
        if now - self._renewed_at >= RENEW_EVERY:
            self._renewed_at = now
            actions.append(Renew(self.held.lease))
        return actions

    def _wedged(self, passed: float, beats: int, steps: Mapping[int, float]) -> EndProcess | None:
        silent = self._beat.look(beats, passed)
        if silent > self._wedge_limit:
            reason = f"the main loop has not ticked for {silent:.1f} s (limit {self._wedge_limit:g} s)"
            return EndProcess(reason, self._hung(steps))
        for slot in self._steps.keys() - steps.keys():
            del self._steps[slot]
        for slot, began in steps.items():
            ran = self._steps.setdefault(slot, _Stuck()).look(began, passed)
            if ran > self._step_limit:
                return EndProcess(f"a step of VM {slot} has run for {ran:.1f} s (limit {self._step_limit:g} s)", slot)
        return None

    def _hung(self, steps: Mapping[int, float]) -> int | None:
        """The VM whose step keeps the main loop from ticking: short steps are done on it."""
        stuck = {slot: step.seconds for slot, step in self._steps.items() if slot in steps}
        longest = max(stuck, key=lambda slot: stuck[slot], default=None)
        return longest if longest is not None and stuck[longest] > self._wedge_limit / 2 else None

    def _overrun(self, now: float, steps: Mapping[int, float]) -> EndProcess | None:
        if now < self._exit_at:
            return None
        for slot, began in steps.items():
            if began < self._kill_at:
                return EndProcess(f"a step of VM {slot} runs for {now - began:.1f} s and would outlive the lease")
        return None

    def _phase_at(self, now: float) -> Phase:
        left = self.held.deadline - now
        if left > CANCEL_BEFORE:
            return Phase.HELD
        if left > KILL_BEFORE:
            return Phase.CANCEL
        return Phase.KILL if left > 0 else Phase.DOUBT

    def _hold(self, lease: int, deadline: float) -> None:
        self.held = Held(lease, deadline)
        self._kill_at, self._exit_at = deadline - KILL_BEFORE, deadline - EXIT_BEFORE

    def _enter(self, phase: Phase, lease: int) -> list[Action]:
        if phase is self.phase:
            return []
        self.phase = phase
        return [PhaseChanged(phase, lease)]


class LeaseKeeper:
    """Holds a lease from ``async with`` on. Bound to the event loop it is opened on (the main loop).

    ``on_phase(phase, lease id)`` and ``on_lost(lease id)`` are called on the main loop.
    ``exit_process`` ends the process when the node is wedged; it must not return. Before, when a step of a VM hangs
    and the lease leaves the time, ``last_words(etcd, slot, reason)`` may write down whose step it is, on the
    keeper's thread.
    Leaving the scope stops renewing; only ``revoke`` ends the lease at once.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        user: str | None = None,
        password: str | None = None,
        tls: Tls | None = None,
        ttl: timedelta = timedelta(seconds=5),
        wedge_limit: timedelta = timedelta(seconds=10),
        step_limit: timedelta = timedelta(seconds=10),
        clock: Clock | None = None,
        on_phase: Callable[[Phase, int], None] = lambda phase, lease: None,
        on_lost: Callable[[int], None] = lambda lease: None,
        last_words: Callable[[Etcd, int, str], Awaitable[None]] | None = None,
        exit_process: Callable[[int], Any] = os._exit,
    ) -> None:
        if ttl.total_seconds() < SHORTEST_TTL:
            raise ValueError(f"expected a lease TTL of at least {SHORTEST_TTL} s, got {ttl.total_seconds():g} s")
        self._etcd = Etcd(endpoints, user=user, password=password, tls=tls, timeout=_RENEWAL_TIMEOUT)
        self._ttl = math.ceil(ttl.total_seconds())
        self._clock = clock or BootClock()
        self._on_phase = on_phase
        self._on_lost = on_lost
        self._last_words = last_words
        self._exit_process = exit_process
        self._core = FencingCore(wedge_limit=wedge_limit.total_seconds(), step_limit=step_limit.total_seconds())
        self._beats = 0
        self._probe_answered = True
        self._steps: dict[int, float] = {}
        self._lease = Lease(0, 0)
        self._failures = 0
        self._stop = threading.Event()
        self.lost = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Start the thread and get a lease. Raises Unavailable."""
        self._main_loop = asyncio.get_running_loop()
        opened: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._run_thread, args=(opened,), name="lease-keeper", daemon=True)
        self._thread.start()
        self._loop = await asyncio.wrap_future(opened)
        try:
            await self.new_lease()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def lease(self) -> Lease:
        """The lease granted last; it may be lost meanwhile."""
        return self._lease

    @property
    def phase(self) -> Phase:
        return self._core.phase

    def remaining(self) -> float:
        """Seconds until the deadline of the current lease; negative when it passed or none is held. Any thread."""
        return self._core.held.deadline - self._clock.now()

    def may_start_owned(self, lease: int) -> bool:
        """Whether something claimed under ``lease`` may be started now. Any thread."""
        return self._core.held.may_start(lease, self._clock.now())

    def may_run_owned(self, lease: int) -> bool:
        """Whether a step of something claimed under ``lease`` may run, or its output leave, now. Any thread."""
        return self._core.held.may_run(lease, self._clock.now())

    def beat(self) -> None:
        """The main loop lives. The keeper has the loop call this; more calls do no harm."""
        self._beats += 1
        self._probe_answered = True

    def step_began(self, slot: int) -> None:
        """The VM of ``slot`` begins a step. Called on the VM's thread."""
        self._steps[slot] = self._clock.now()

    def step_ended(self, slot: int) -> None:
        self._steps.pop(slot, None)

    async def new_lease(self) -> Lease:
        """Get a new lease after the former was lost and all owned work of it has ended. Raises Unavailable.

        Raises ValueError while the former lease may still answer.
        """
        self._lease = await self._on_keeper(self._grant)
        self.lost.clear()
        return self._lease

    async def revoke(self) -> None:
        """Stop renewing and end the lease now: the last act of an orderly stop, after all owned work ended."""
        await self._on_keeper(self._revoke)

    async def _on_keeper(self, work: Callable[[], Any]) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))

    async def _close(self) -> None:
        self._stop.set()
        # the thread never waits for the main loop, so this ends within a tick
        await asyncio.to_thread(self._thread.join)

    # From here on: the keeper's thread.

    def _run_thread(self, opened: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            asyncio.run(self._keep(opened))
        except BaseException as error:
            if not opened.done():
                opened.set_exception(error)
                return
            # nobody renews any more, and nobody would watch the deadline either
            self._end_process(f"the lease keeper failed: {error!r}")
            raise

    async def _keep(self, opened: Future[asyncio.AbstractEventLoop]) -> None:
        async with self._etcd, Tasks("lease keeper") as tasks:
            opened.set_result(asyncio.get_running_loop())
            while not self._stop.is_set():
                self._probe_main_loop()
                for action in self._core.tick(self._clock.now(), self._beats, dict(self._steps)):
                    await self._perform(action, tasks)
                await asyncio.sleep(_TICK_SECONDS)

    def _probe_main_loop(self) -> None:
        if self._probe_answered:
            self._probe_answered = False
            self._post(self.beat)

    async def _perform(self, action: Action, tasks: Tasks) -> None:
        match action:
            case Renew(lease):
                tasks.start(self._renew(lease), "renew")
            case PhaseChanged(phase, lease):
                self._tell(phase, lease)
            case EndProcess(reason, hung):
                self._end_process(reason if hung is None else await self._accused(reason, hung))

    async def _accused(self, reason: str, hung: int) -> str:
        """Write down whose step hangs, if there is time before owned work would have to be killed; the reason then."""
        if self._last_words is None or self.remaining() < KILL_BEFORE + _LAST_WORDS_SECONDS:
            return reason
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._last_words(self._etcd, hung, reason)
        except (ClusterError, TimeoutError) as error:
            return f"{reason}; whose it is could not be written: {str(error) or 'etcd did not answer'}"
        return reason

    async def _renew(self, lease: int) -> None:
        sent_at = self._clock.now()

        def sending() -> None:
            nonlocal sent_at
            sent_at = self._clock.now()

        try:
            ttl = await self._etcd.keep_alive(lease, _RENEWAL_TIMEOUT, on_send=sending)
        except ClusterError as error:
            self._failures += 1
            if self._failures == 1:
                log.warning("lease not renewed, trying again", lease=f"{lease:x}", error=str(error))
            return
        if self._failures:
            log.info("lease answers again", lease=f"{lease:x}", after_failures=self._failures)
            self._failures = 0
        for action in self._core.answered(lease, sent_at, ttl, self._clock.now()):
            if isinstance(action, PhaseChanged):
                self._tell(action.phase, action.lease)

    async def _grant(self) -> Lease:
        self._core.check_may_grant()
        sent_at = self._clock.now()
        lease = await self._etcd.grant(self._ttl)
        for action in self._core.granted(lease.id, sent_at, lease.ttl):
            if isinstance(action, PhaseChanged):
                self._tell(action.phase, action.lease)
        return lease

    async def _revoke(self) -> None:
        lease = self._core.released()
        if lease:
            await self._etcd.revoke(lease)

    def _tell(self, phase: Phase, lease: int) -> None:
        if phase in (Phase.HELD, Phase.LOST):
            log.info("lease", phase=phase.value, lease=f"{lease:x}")
        else:
            log.warning("lease", phase=phase.value, lease=f"{lease:x}")
        self._post(self._tell_main, phase, lease)

    def _tell_main(self, phase: Phase, lease: int) -> None:
        """On the main loop."""
        self._on_phase(phase, lease)
        if phase is Phase.LOST:
            self.lost.set()
            self._on_lost(lease)

    def _post(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._main_loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # the main loop is closed: it will not beat again, and the wedge limit ends the process
            log.error("the main loop is closed while its lease is kept")

    def _end_process(self, reason: str) -> None:
        """Exit without revoking: a step may still be at work, so nobody may own its things before the TTL is over."""
        # said from another thread, because whoever is stuck may hold the log's lock
        last_line = threading.Thread(
            target=log.critical,
            args=("process ends to protect what it owned",),
            kwargs={"reason": reason, "exit_code": EXIT_CODE},
            daemon=True,
        )
        last_line.start()
        last_line.join(_LAST_LINE_SECONDS)
        self._exit_process(EXIT_CODE)
