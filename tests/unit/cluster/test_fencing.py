"""The decisions of the lease keeper, row by row."""

from datetime import timedelta

import pytest

from cluster.fencing import EndProcess, FencingCore, Held, LeaseKeeper, Phase, PhaseChanged, Renew

TTL = 5.0
LEASE = 0xA


class Node:
    """A core with a clock; time passes in ticks of 0.1 s in which the main loop beats, unless told otherwise."""

    def __init__(self, wedge_limit: float = 10.0, step_limit: float = 10.0) -> None:
        self.core = FencingCore(wedge_limit=wedge_limit, step_limit=step_limit)
        self.now = 100.0
        self.beats = 0
        self.steps: dict[int, float] = {}
        self.hung: int | None = None
        self.told: list[tuple[Phase, int]] = []
        self.renewals: list[float] = []
        self.ended: str | None = None

    def grant(self, lease: int = LEASE) -> None:
        self.note(self.core.granted(lease, self.now, TTL))

    def answer(self, ttl: float = TTL, *, sent_at: float | None = None, lease: int = LEASE) -> None:
        self.note(self.core.answered(lease, self.now if sent_at is None else sent_at, ttl, self.now))

    def tick(self, beat: bool = True) -> None:
        self.beats += beat
        self.note(self.core.tick(self.now, self.beats, self.steps))

    def wait(self, seconds: float, *, beat: bool = True) -> None:
        for _ in range(round(seconds * 10)):
            self.now = round(self.now + 0.1, 3)
            self.tick(beat)

    def pause(self, seconds: float) -> None:
        """The whole process stands still."""
        self.now += seconds

    def note(self, actions: list[Renew | PhaseChanged | EndProcess]) -> None:
        for action in actions:
            match action:
                case Renew():
                    self.renewals.append(self.now)
                case PhaseChanged(phase, lease):
                    self.told.append((phase, lease))
                case EndProcess(reason, hung):
                    self.ended = self.ended or reason
                    self.hung = hung

    @property
    def phases(self) -> list[Phase]:
        return [phase for phase, _ in self.told]


@pytest.fixture
def node() -> Node:
    node = Node()
    node.grant()
    return node


class TestDeadline:
    def test_counts_from_the_sending_of_the_answered_renewal(self, node: Node) -> None:
        node.wait(2)
        node.answer(sent_at=node.now - 1.5)
        assert node.core.held.deadline == node.now - 1.5 + TTL

    def test_an_older_answer_does_not_take_time_away(self, node: Node) -> None:
        node.wait(2)
        node.answer()
        deadline = node.core.held.deadline
        node.answer(sent_at=node.now - 1)
        assert node.core.held.deadline == deadline

    def test_answer_for_another_lease_extends_nothing(self, node: Node) -> None:
        deadline = node.core.held.deadline
        node.wait(2)
        node.answer(lease=0xB)
        assert node.core.held.deadline == deadline

    def test_longer_ttl_than_asked_for_is_used(self) -> None:
        core = FencingCore(wedge_limit=10, step_limit=10)
        core.granted(LEASE, 100.0, 30)
        assert core.held.deadline == 130.0


class TestRenewal:
    def test_is_sent_each_second(self, node: Node) -> None:
        node.wait(3.0)
        assert node.renewals == [101.0, 102.0, 103.0]

    def test_goes_on_while_in_doubt(self, node: Node) -> None:
        node.wait(8)
        assert node.core.phase is Phase.DOUBT
        assert len(node.renewals) == 8

    def test_stops_when_lost(self, node: Node) -> None:
        node.answer(ttl=0)
        node.wait(3)
        assert node.renewals == []

    def test_stops_when_given_back(self, node: Node) -> None:
        assert node.core.released() == LEASE
        node.wait(30)
        assert node.renewals == []
        assert node.told == [(Phase.HELD, LEASE)]


class TestPhases:
    def test_come_in_order_when_nobody_answers(self, node: Node) -> None:
        node.wait(2.4)
        assert node.phases == [Phase.HELD]
        node.wait(0.1)
        assert node.phases[-1] is Phase.CANCEL
        node.wait(1.4)
        assert node.phases[-1] is Phase.CANCEL
        node.wait(0.1)
        assert node.phases[-1] is Phase.KILL
        node.wait(1.0)
        assert node.phases == [Phase.HELD, Phase.CANCEL, Phase.KILL, Phase.DOUBT]
        assert node.ended is None

    @pytest.mark.parametrize("seconds", [3.0, 4.5, 7.0])
    def test_same_lease_answering_again_is_held_again(self, node: Node, seconds: float) -> None:
        node.wait(seconds)
        assert node.core.phase is not Phase.HELD
        node.answer()
        assert node.phases[-1] is Phase.HELD
        assert all(lease == LEASE for _, lease in node.told)

    def test_answer_that_took_too_long_does_not_end_the_doubt(self, node: Node) -> None:
        node.wait(9)
        node.answer(sent_at=node.now - 6)
        assert node.core.phase is Phase.DOUBT

    def test_ttl_zero_is_lost_at_once(self, node: Node) -> None:
        node.wait(1)
        node.answer(ttl=0)
        assert node.told[-1] == (Phase.LOST, LEASE)

    def test_a_lost_lease_never_comes_back(self, node: Node) -> None:
        node.answer(ttl=0)
        node.answer()
        node.wait(1)
        assert node.core.phase is Phase.LOST


class TestPermission:
    def test_to_start_ends_before_permission_to_run(self) -> None:
        held = Held(LEASE, deadline=105.0)
        assert (held.may_start(LEASE, 102.4), held.may_run(LEASE, 102.4)) == (True, True)
        assert (held.may_start(LEASE, 102.5), held.may_run(LEASE, 102.5)) == (False, True)
        assert (held.may_start(LEASE, 104.0), held.may_run(LEASE, 104.0)) == (False, False)

    def test_needs_the_lease_it_was_claimed_under(self) -> None:
        held = Held(LEASE, deadline=105.0)
        assert not held.may_run(0xB, 100.0)

    def test_is_gone_with_the_lease(self, node: Node) -> None:
        node.answer(ttl=0)
        assert not node.core.held.may_run(LEASE, node.now)
        assert not node.core.held.may_run(0, node.now)

    def test_of_the_old_lease_does_not_return_with_a_new_one(self, node: Node) -> None:
        node.answer(ttl=0)
        node.grant(0xB)
        assert not node.core.held.may_run(LEASE, node.now)
        assert node.core.held.may_run(0xB, node.now)

    def test_new_lease_is_refused_while_the_old_one_may_answer(self, node: Node) -> None:
        node.wait(8)
        with pytest.raises(ValueError, match="doubt, not lost"):
            node.grant(0xB)


class TestWedge:
    def test_silent_main_loop_ends_the_process(self) -> None:
        node = Node(wedge_limit=3)
        node.grant()
        node.wait(3.0, beat=False)
        assert node.ended is None
        node.wait(0.2, beat=False)
        assert node.ended is not None
        assert "main loop has not ticked for 3.1 s (limit 3 s)" in node.ended
        assert node.hung is None

    def test_a_step_that_hangs_on_the_main_loop_is_told_with_it(self) -> None:
        node = Node(wedge_limit=3, step_limit=3)
        node.grant()
        node.steps = {1: node.now, 7: node.now}
        node.wait(2.0)
        del node.steps[1]
        node.wait(0.2)
        node.steps[1] = node.now
        node.wait(3.2, beat=False)
        assert node.ended is not None
        assert node.hung == 7

    def test_a_step_that_began_while_the_main_loop_stood_still_is_not_blamed(self) -> None:
        node = Node(wedge_limit=3, step_limit=3)
        node.grant()
        node.wait(2.0, beat=False)
        node.steps[1] = node.now
        node.wait(1.2, beat=False)
        assert node.ended is not None
        assert node.hung is None

    def test_stuck_step_ends_the_process_and_names_the_vm(self) -> None:
        node = Node(step_limit=2)
        node.grant()
        node.steps[7] = node.now
        node.wait(2.3)
        assert node.ended is not None
        assert "VM 7 has run for" in node.ended
        assert node.hung == 7

    def test_steps_that_end_in_time_are_no_stuck_step(self) -> None:
        node = Node(step_limit=2)
        node.grant()
        for _ in range(5):
            node.steps[7] = node.now
            node.wait(1.5)
            node.answer()
            del node.steps[7]
        assert node.ended is None

    def test_wedged_node_is_ended_also_when_its_lease_is_lost(self) -> None:
        node = Node(wedge_limit=3)
        node.grant()
        node.answer(ttl=0)
        node.wait(3.5, beat=False)
        assert node.ended is not None

    def test_pause_of_the_whole_process_is_not_blamed_on_the_main_loop(self, node: Node) -> None:
        node.wait(1)
        node.pause(3600)
        node.tick(beat=False)
        assert node.ended is None
        assert node.core.phase is Phase.DOUBT


class TestOverrun:
    def test_step_begun_before_the_kill_ends_the_process_before_the_deadline(self, node: Node) -> None:
        node.wait(3.9)
        node.steps[1] = node.now
        node.wait(0.7)
        assert node.ended is None
        node.wait(0.1)
        assert node.now < node.core.held.deadline
        assert node.ended is not None
        assert "VM 1" in node.ended

    def test_step_begun_after_the_kill_runs_nothing_owned_and_goes_on(self, node: Node) -> None:
        node.wait(4.2)
        node.steps[1] = node.now
        node.wait(2)
        assert node.ended is None

    def test_pause_in_the_middle_of_a_step_ends_the_process(self, node: Node) -> None:
        node.wait(1)
        node.steps[1] = node.now
        node.pause(20)
        node.tick()
        assert node.ended is not None

    def test_step_running_when_the_lease_is_lost_gets_as_long_as_after_a_kill(self, node: Node) -> None:
        node.wait(1)
        node.steps[1] = node.now
        node.wait(0.1)
        node.answer(ttl=0)
        node.wait(0.6)
        assert node.ended is None
        node.wait(0.2)
        assert node.ended is not None

    def test_answer_in_time_saves_the_step(self, node: Node) -> None:
        node.steps[1] = node.now
        node.wait(4.5)
        node.answer()
        node.wait(1)
        assert node.ended is None


def test_ttl_too_short_for_the_phases_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 s, got 3 s"):
        LeaseKeeper(["http://127.0.0.1:1"], ttl=timedelta(seconds=3))
