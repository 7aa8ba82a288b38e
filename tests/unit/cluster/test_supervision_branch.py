"""A supervisor's decisions where Erlang's has none to compare with: waits, places, lost nodes, changes."""

from __future__ import annotations

import pytest

from cluster.supervision import Backoff, Branch, BranchSpec, ChildSpec, Phase, Restart, Strategy
from cluster.supervision.events import (
    Action,
    AddChild,
    Answer,
    Begin,
    Begun,
    Change,
    Due,
    End,
    Exited,
    Failed,
    Finish,
    Kill,
    Outcome,
    Postponed,
    Start,
    Started,
    Stop,
    TerminateChild,
    Wait,
)
from cluster.supervision.specs import Ending

ALL, REST, ONE, DYNAMIC = Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE, Strategy.ONE_FOR_ONE, Strategy.DYNAMIC


def running(spec: BranchSpec, *ids: str, at: float = 0.0) -> Branch:
    """A supervisor whose children run."""
    branch = Branch(spec, [ChildSpec(id, work=1) for id in ids])
    actions = branch.handle(Begin())
    while starts := [action for action in actions if isinstance(action, Start)]:
        actions = [done for start in starts for done in branch.handle(Started(start.child, start.run, at))]
    return branch


def exited(branch: Branch, id: str, at: float = 0.0, ending: Ending = Ending.FAILED, cause: str = "") -> list[Action]:
    return branch.handle(Exited(id, branch.children[id].run, at, ending, "boom", cause=cause))


def started(branch: Branch, id: str, at: float = 0.0) -> list[Action]:
    return branch.handle(Started(id, branch.children[id].run, at))


def starts(actions: list[Action]) -> list[str]:
    return [action.child for action in actions if isinstance(action, Start)]


def stops(actions: list[Action]) -> list[str]:
    return [action.child for action in actions if isinstance(action, Stop)]


def test_children_start_in_order_each_when_the_one_before_runs() -> None:
    branch = Branch(BranchSpec(), [ChildSpec("a"), ChildSpec("b")])
    assert starts(branch.handle(Begin())) == ["a"]
    assert starts(started(branch, "a")) == ["b"]
    assert started(branch, "b") == [Begun()]


def test_waits_between_restarts_grow_until_a_run_was_stable() -> None:
    branch = running(BranchSpec(intensity=10, backoff=Backoff(1.0, 3.0, 2.0, 0.0, stable_threshold=5.0)), "a")
    waits = []
    for at, ran in ((10.0, 1.0), (20.0, 1.0), (30.0, 1.0), (40.0, 9.0)):
        branch.children["a"].since = at - ran
        (wait,) = exited(branch, "a", at)
        assert isinstance(wait, Wait)
        waits.append(wait.seconds)
        assert starts(branch.handle(Due("a", wait.run))) == ["a"]
        started(branch, "a", at)
    assert waits == [1.0, 2.0, 3.0, 1.0]


def test_a_group_stops_before_the_wait_and_starts_after_it() -> None:
    branch = running(BranchSpec(ALL, backoff=Backoff(1.0)), "a", "b", "c")
    assert stops(exited(branch, "b")) == ["c"]
    assert stops(exited(branch, "c", ending=Ending.SHUTDOWN)) == ["a"]
    (wait,) = exited(branch, "a", ending=Ending.SHUTDOWN)
    assert isinstance(wait, Wait)
    assert starts(branch.handle(Due("b", wait.run))) == ["a"]
    assert starts(started(branch, "a")) == ["b"]
    assert starts(started(branch, "b")) == ["c"]


def test_a_member_that_is_taken_out_during_the_wait_does_not_keep_its_group_down() -> None:
    branch = running(BranchSpec(REST, backoff=Backoff(1.0)), "a", "b", "c")
    exited(branch, "b")
    exited(branch, "c", ending=Ending.SHUTDOWN)
    actions = branch.handle(TerminateChild(1, "b"))
    assert actions[0] == Answer(1, Outcome.OK)
    assert starts(actions) == ["c"]


def test_a_child_that_has_ended_twice_during_restarts_of_its_group_is_not_asked_to_end() -> None:
    """The first end is looked at after the second has come, and says nothing of the run that had it."""
    branch = running(BranchSpec(ALL, intensity=9), "a", "b", "c")
    assert stops(exited(branch, "b")) == ["c"]
    for _ in range(2):
        assert starts(exited(branch, "c")) + starts(exited(branch, "a")) == ["a"]
        assert (starts(started(branch, "a")), starts(started(branch, "b"))) == (["b"], ["c"])
        assert exited(branch, "b") + exited(branch, "a") == []
        assert stops(started(branch, "c")) == ["c"]
    actions = exited(branch, "c")
    assert (stops(actions), starts(actions)) == ([], ["a"])


def test_a_slow_restart_of_one_child_keeps_no_other_down() -> None:
    branch = running(BranchSpec(), "a", "b")
    assert starts(exited(branch, "a")) == ["a"]
    assert starts(exited(branch, "b")) == ["b"]


def test_the_children_of_a_lost_node_count_as_one_restart() -> None:
    branch = running(BranchSpec(intensity=1), *"abcdefgh")
    for id in "abcdefgh":
        assert starts(exited(branch, id, cause="node b/7")) == [id]
    for id in "abcdefgh":
        started(branch, id)
    exited(branch, "a", cause="node c/8")
    assert branch.is_ending


def test_a_lost_node_makes_no_child_wait() -> None:
    branch = running(BranchSpec(backoff=Backoff(60.0)), "a")
    assert starts(exited(branch, "a", cause="node b/7")) == ["a"]


def test_a_child_without_a_place_waits_for_one_and_holds_nobody_up() -> None:
    branch = Branch(BranchSpec(intensity=0), [ChildSpec("a"), ChildSpec("b")])
    branch.handle(Begin())
    assert starts(branch.handle(Postponed("a", 1))) == ["b"]
    assert started(branch, "b") == [Begun()]
    assert branch.children["a"].phase is Phase.WAITING
    assert starts(branch.handle(Due("a", 1))) == ["a"]


def test_a_child_that_is_terminated_after_it_ended_unseen_is_not_waited_for() -> None:
    branch = Branch(BranchSpec(), [ChildSpec("a"), ChildSpec("b")])
    branch.handle(Begin())
    started(branch, "a")
    branch.handle(TerminateChild(1, "a"))
    exited(branch, "a")
    assert started(branch, "b") == [Begun(), Answer(1, Outcome.OK)]
    assert branch.children["a"].phase is Phase.DOWN


def test_a_first_start_that_fails_stops_what_was_started() -> None:
    branch = Branch(BranchSpec(), [ChildSpec("a"), ChildSpec("b")])
    branch.handle(Begin())
    started(branch, "a")
    assert stops(branch.handle(Failed("b", 2, 0.0, "no code"))) == ["a"]
    assert exited(branch, "a", ending=Ending.SHUTDOWN) == [
        Finish(Ending.FAILED, "child b could not be started: no code")
    ]


def test_an_end_during_a_start_waits_for_its_answer_and_stops_it() -> None:
    branch = Branch(BranchSpec(), [ChildSpec("a"), ChildSpec("b")])
    branch.handle(Begin())
    assert branch.handle(End()) == []
    assert stops(started(branch, "a")) == ["a"]
    assert exited(branch, "a", ending=Ending.SHUTDOWN) == [Finish(Ending.SHUTDOWN, "")]


def test_a_kill_takes_all_at_once_also_those_that_are_stopping() -> None:
    branch = running(BranchSpec(), "a", "b", "c")
    assert stops(branch.handle(End())) == ["c"]
    assert {action.child for action in branch.handle(End(kill=True)) if isinstance(action, Kill)} == {"a", "b", "c"}


def test_dynamic_children_stop_together() -> None:
    branch = running(BranchSpec(DYNAMIC))
    for ref, id in enumerate("abc", 1):
        branch.handle(AddChild(ref, ChildSpec(id)))
        started(branch, id)
    assert sorted(stops(branch.handle(End()))) == ["a", "b", "c"]


def test_a_dynamic_child_that_ended_for_good_is_forgotten() -> None:
    branch = running(BranchSpec(DYNAMIC))
    branch.handle(AddChild(1, ChildSpec("a", Restart.TRANSIENT)))
    started(branch, "a")
    exited(branch, "a", ending=Ending.NORMAL)
    assert branch.children == {}


def test_commands_to_a_supervisor_that_ends_are_refused() -> None:
    branch = running(BranchSpec(), "a")
    branch.handle(End())
    assert branch.handle(AddChild(7, ChildSpec("b"))) == [Answer(7, Outcome.ENDING)]


def test_nothing_starts_before_the_beginning() -> None:
    branch = Branch(BranchSpec(), [ChildSpec("a", work=1)])
    assert branch.handle(AddChild(7, ChildSpec("x"))) == []
    assert branch.handle(Change(BranchSpec(), [ChildSpec("a", work=2)])) == []
    assert starts(branch.handle(Begin())) == ["a"]
    actions = started(branch, "a")
    assert (starts(actions), stops(actions)) == (["x"], ["a"])


def test_commands_held_before_the_beginning_are_refused_at_the_end() -> None:
    branch = Branch(BranchSpec(), [ChildSpec("a")])
    branch.handle(AddChild(7, ChildSpec("x")))
    assert branch.handle(End())[0] == Answer(7, Outcome.ENDING)


class TestAChange:
    @pytest.mark.parametrize("strategy", [ALL, REST])
    @pytest.mark.parametrize("spec", [None, ChildSpec("a", work=2)])
    def test_of_the_child_a_group_waits_for_starts_the_group(self, strategy: Strategy, spec: ChildSpec | None) -> None:
        branch = running(BranchSpec(strategy, backoff=Backoff(9.0)), "a", "b", "c")
        exited(branch, "a")
        for id in "cb":
            exited(branch, id, ending=Ending.SHUTDOWN)
        rest = [ChildSpec("b", work=1), ChildSpec("c", work=1)]
        actions = branch.handle(Change(branch.spec, [spec, *rest] if spec else rest))
        order = []
        while up := starts(actions):
            order += up
            actions = [action for id in up for action in started(branch, id)]
        assert order == (["a", "b", "c"] if spec else ["b", "c"])

    def test_of_the_strategy_starts_a_group_that_waits(self) -> None:
        branch = running(BranchSpec(ALL, backoff=Backoff(9.0)), "a", "b")
        exited(branch, "b")
        (wait,) = exited(branch, "a", ending=Ending.SHUTDOWN)
        assert isinstance(wait, Wait)
        children = [ChildSpec(id, work=1) for id in "ab"]
        assert starts(branch.handle(Change(BranchSpec(ONE), children))) == ["a"]
        assert starts(started(branch, "a")) == ["b"]
        assert branch.handle(Due("b", wait.run)) == []

    def test_restarts_only_what_is_another_child_now(self) -> None:
        branch = running(BranchSpec(), "a", "b", "c")
        kept = ChildSpec("a", Restart.TRANSIENT, work=1)
        actions = branch.handle(Change(BranchSpec(), [kept, ChildSpec("b", work=2), ChildSpec("d", work=1)]))
        assert stops(actions) == ["c"]
        assert stops(exited(branch, "c", ending=Ending.SHUTDOWN)) == ["b"]
        assert starts(exited(branch, "b", ending=Ending.SHUTDOWN)) == ["b"]
        assert starts(started(branch, "b")) == ["d"]
        started(branch, "d")
        assert list(branch.children) == ["a", "b", "d"]
        assert branch.children["a"].spec == kept

    def test_keeps_what_was_added_at_run_time(self) -> None:
        branch = running(BranchSpec(), "a")
        branch.handle(AddChild(1, ChildSpec("x")))
        started(branch, "x")
        assert branch.handle(Change(BranchSpec(REST), [ChildSpec("a", work=1)])) == []
        assert list(branch.children) == ["a", "x"]
        assert branch.spec.strategy is REST

    def test_waits_for_the_restart_of_a_group(self) -> None:
        branch = running(BranchSpec(ALL), "a", "b")
        exited(branch, "a")
        assert branch.handle(Change(BranchSpec(), [])) == []
        assert starts(exited(branch, "b", ending=Ending.SHUTDOWN)) == ["a"]
        assert starts(started(branch, "a")) == ["b"]
        assert stops(started(branch, "b")) == ["b"]

    def test_from_fixed_to_dynamic_children_stops_the_fixed(self) -> None:
        branch = running(BranchSpec(), "a")
        assert stops(branch.handle(Change(BranchSpec(DYNAMIC), []))) == ["a"]
        exited(branch, "a", ending=Ending.SHUTDOWN)
        assert branch.is_dynamic
        assert branch.children == {}


@pytest.mark.parametrize("make", [lambda: ChildSpec("a", shutdown=-1), lambda: ChildSpec("a", significant=True),
                                  lambda: BranchSpec(intensity=-1), lambda: BranchSpec(period=0),
                                  lambda: Branch(BranchSpec(), [ChildSpec("a"), ChildSpec("a")])])  # fmt: skip
def test_what_makes_no_sense_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"expected|permanent|named"):
        make()  # type: ignore[operator]
