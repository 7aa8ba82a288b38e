"""Whatever the order of answers, delays, pauses and new leases: nobody runs under a lease that may be another's."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.fencing import EXIT_BEFORE, KILL_BEFORE, EndProcess, FencingCore, Phase, PhaseChanged, Renew

TTL = 5.0


class Store:
    """What etcd knows: until when each lease lasts. It hears a renewal any time between its sending and its answer."""

    def __init__(self) -> None:
        self.until: dict[int, float] = {}

    def alive(self, lease: int, now: float) -> bool:
        return now < self.until[lease]

    def renew(self, lease: int, now: float) -> float:
        if not self.alive(lease, now):
            return 0.0
        self.until[lease] = now + TTL
        return TTL


class Fencing(RuleBasedStateMachine):
    """One node against a model of etcd. Renewals travel, may be lost, and are answered late."""

    def __init__(self) -> None:
        super().__init__()
        self.core = FencingCore(wedge_limit=1e9, step_limit=1e9)
        self.store = Store()
        self.now = 1000.0
        self.beats = 0
        self.steps: dict[int, float] = {}
        self.sent: list[tuple[int, float]] = []
        self.heard: list[tuple[int, float, float]] = []
        self.leases = 0
        self.ended = False
        self.lost: set[int] = set()
        self.revoked: set[int] = set()
        self.grant()

    def grant(self) -> None:
        self.leases += 1
        self.store.until[self.leases] = self.now + TTL
        self.note(self.core.granted(self.leases, self.now, TTL))

    def note(self, actions: list[Renew | PhaseChanged | EndProcess]) -> None:
        for action in actions:
            match action:
                case Renew(lease):
                    assert lease not in self.lost
                    self.sent.append((lease, self.now))
                case PhaseChanged(Phase.LOST, lease):
                    self.lost.add(lease)
                case PhaseChanged(Phase.HELD, lease):
                    assert lease not in self.lost
                case EndProcess():
                    self.ended = True

    @rule(tenths=st.integers(1, 12), ticks=st.booleans())
    def time_passes(self, tenths: int, ticks: bool) -> None:
        """In ticks, or with the whole process standing still until one tick at the end."""
        if not ticks:
            self.now += tenths / 10
            tenths = 1
        for _ in range(tenths):
            self.now += 0.1 if ticks else 0.0
            self.beats += 1
            self.note(self.core.tick(self.now, self.beats, self.steps))
            self.check_overrun()

    def check_overrun(self) -> None:
        """At a tick: the process has ended if, and only if, a step that may be owned would outlive the lease."""
        deadline = self.core.held.deadline if self.core.held.lease else None
        if deadline is not None:
            owned = [slot for slot, began in self.steps.items() if began < deadline - KILL_BEFORE]
            assert self.ended == bool(owned and self.now >= deadline - EXIT_BEFORE)
        if self.ended:
            assert self.steps
            self.steps.clear()
            self.ended = False

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def etcd_hears_a_renewal(self, data: st.DataObject) -> None:
        lease, sent_at = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
        self.heard.append((lease, sent_at, self.store.renew(lease, self.now)))

    @precondition(lambda self: self.sent)
    @rule()
    def renewal_is_lost(self) -> None:
        self.sent.pop(0)

    @precondition(lambda self: self.heard)
    @rule(data=st.data())
    def answer_arrives(self, data: st.DataObject) -> None:
        lease, sent_at, ttl = self.heard.pop(data.draw(st.integers(0, len(self.heard) - 1)))
        self.note(self.core.answered(lease, sent_at, ttl, self.now))

    @precondition(lambda self: self.sent)
    @rule(tenths=st.integers(1, 45), silence=st.integers(0, 45))
    def an_answer_comes_late_and_then_none(self, tenths: int, silence: int) -> None:
        self.heard.clear()
        lease, sent_at = self.sent.pop()
        ttl = self.store.renew(lease, self.now)
        self.now += tenths / 10
        self.note(self.core.answered(lease, sent_at, ttl, self.now))
        for _ in range(silence):
            self.owner_runs_only_while_etcd_keeps_its_lease()
            self.now += 0.1
        self.sent.clear()

    @rule()
    def operator_revokes_the_lease(self) -> None:
        self.store.until[self.leases] = min(self.store.until[self.leases], self.now)
        self.revoked.add(self.leases)

    @precondition(lambda self: self.core.phase is Phase.LOST and not self.steps)
    @rule()
    def node_registers_again(self) -> None:
        self.grant()

    @rule(slot=st.integers(1, 2))
    def step_begins_or_ends(self, slot: int) -> None:
        if slot in self.steps:
            del self.steps[slot]
        else:
            self.steps[slot] = self.now

    @invariant()
    def owner_runs_only_while_etcd_keeps_its_lease(self) -> None:
        """For KILL_BEFORE longer, even; unless the operator took the lease away, which no clock can foresee."""
        held = self.core.held
        if held.may_run(held.lease, self.now) and held.lease not in self.revoked:
            assert self.store.alive(held.lease, self.now + KILL_BEFORE - 1e-9)

    @invariant()
    def permission_is_only_for_the_lease_held(self) -> None:
        held = self.core.held
        for lease in range(1, self.leases + 1):
            if held.may_run(lease, self.now):
                assert lease == self.leases
                assert lease not in self.lost
            if held.may_start(lease, self.now):
                assert held.may_run(lease, self.now)

    @invariant()
    def phase_agrees_with_what_may_be_done(self) -> None:
        """The phase is told at ticks and answers; it never promises more than the clock allowed at that time."""
        if self.core.phase is Phase.LOST:
            assert self.core.held.lease == 0
        if self.core.held.lease and self.now < self.core.held.deadline - KILL_BEFORE - 1.3:
            assert self.core.phase in (Phase.HELD, Phase.CANCEL)


TestFencing = Fencing.TestCase
TestFencing.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
