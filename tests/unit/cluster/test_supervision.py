"""The restart policy, row by row of its table."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.supervision import (
    Action,
    CancelStart,
    ChildExited,
    ChildStarted,
    Event,
    GiveUp,
    KillChild,
    RestartPolicy,
    ServiceState,
    StartChild,
    StartRequested,
    StopChild,
    StopRequested,
    StopTimedOut,
    Supervision,
)


def run(*events: Event, policy: RestartPolicy | None = None) -> tuple[Supervision, list[Action]]:
    """The core after these events, and what the last of them asked for."""
    core = Supervision(policy or RestartPolicy())
    actions: list[Action] = []
    for event in events:
        actions = core.handle(event)
    return core, actions


def test_it_starts_at_once() -> None:
    core, actions = run(StartRequested())
    assert actions == [StartChild(0.0)]
    assert core.state is ServiceState.STARTING


def test_a_normal_return_is_the_end() -> None:
    core, actions = run(StartRequested(), ChildStarted(0), ChildExited(1))
    assert actions == []
    assert core.state is ServiceState.EXITED


def test_a_failure_is_tried_again_after_the_initial_delay() -> None:
    core, actions = run(StartRequested(), ChildStarted(0), ChildExited(1, "boom"))
    assert actions == [StartChild(1.0)]
    assert (core.state, core.last_error, core.restarts) == (ServiceState.STARTING, "boom", 1)


def test_a_final_error_is_not_tried_again() -> None:
    core, actions = run(StartRequested(), ChildStarted(0), ChildExited(1, "bad config", retryable=False))
    assert actions == [GiveUp("its error is final: bad config")]
    assert core.state is ServiceState.EXITED


def test_the_delay_doubles_up_to_the_longest() -> None:
    core = Supervision(RestartPolicy())
    core.handle(StartRequested())
    delays = []
    for second in range(9):
        core.handle(ChildStarted(second))
        (action,) = core.handle(ChildExited(second + 0.5, "boom"))
        assert isinstance(action, StartChild)
        delays.append(action.after)
    assert delays == [1, 2, 4, 8, 16, 32, 64, 90, 90]


def test_a_child_that_could_not_be_started_counts_as_failed() -> None:
    _, actions = run(StartRequested(), ChildExited(0, "no host"), ChildExited(9, "no host"))
    assert actions == [StartChild(2.0)]


def test_a_stable_run_starts_the_count_anew() -> None:
    failed = [ChildStarted(0), ChildExited(1, "boom"), ChildStarted(2), ChildExited(3, "boom")]
    core, actions = run(StartRequested(), *failed, ChildStarted(10), ChildExited(15, "boom"))
    assert actions == [StartChild(1.0)]
    core.handle(ChildStarted(16))
    assert core.handle(ChildExited(17, "boom")) == [StartChild(2.0)]


def test_it_gives_up_after_max_attempts_starts() -> None:
    core, actions = run(
        StartRequested(),
        *[event for n in range(3) for event in (ChildStarted(n), ChildExited(n + 0.1, "boom"))],
        policy=RestartPolicy(max_attempts=3),
    )
    assert actions == [GiveUp("3 starts in a row failed, the last with: boom")]
    assert core.state is ServiceState.FAILED
    assert core.handle(StartRequested()) == [StartChild(0.0)]


def test_stop_asks_and_waits() -> None:
    core, actions = run(StartRequested(), ChildStarted(0), StopRequested("bye"))
    assert actions == [StopChild("bye", 10.0)]
    assert core.state is ServiceState.STOPPING
    assert core.handle(ChildExited(1, "cancelled")) == []
    assert core.state is ServiceState.STOPPED


def test_stop_between_two_starts_cancels_the_planned_one() -> None:
    core, actions = run(StartRequested(), ChildStarted(0), ChildExited(1, "boom"), StopRequested())
    assert actions == [CancelStart()]
    assert core.state is ServiceState.STOPPED


def test_a_start_that_was_under_way_when_the_stop_came_is_stopped() -> None:
    core, actions = run(StartRequested(), StopRequested("bye"), ChildStarted(1))
    assert actions == [StopChild("bye", 10.0)]
    assert core.state is ServiceState.STOPPING


def test_a_child_that_does_not_stop_is_killed_and_the_service_failed() -> None:
    core, actions = run(StartRequested(), ChildStarted(0), StopRequested(), StopTimedOut())
    assert actions == [KillChild()]
    core.handle(ChildExited(11, "killed"))
    assert (core.state, core.last_error) == (ServiceState.FAILED, "stop timeout")


def test_a_late_stop_timeout_does_nothing() -> None:
    _, actions = run(StartRequested(), ChildStarted(0), StopRequested(), ChildExited(1), StopTimedOut())
    assert actions == []


@pytest.mark.parametrize("event", [ChildExited(1, "x"), StopRequested(), StopTimedOut()])
def test_nothing_happens_before_the_start(event: Event) -> None:
    core, actions = run(event)
    assert actions == []
    assert core.state is ServiceState.STOPPED


@pytest.mark.parametrize("bad", [{"backoff_factor": 0.5}, {"jitter": 1.5}, {"max_attempts": -1}])
def test_a_policy_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected backoff_factor"):
        RestartPolicy(**bad)  # type: ignore[arg-type]


@given(failures=st.integers(1, 10**6), jitter=st.floats(-5, 5), factor=st.floats(1, 1000))
def test_a_delay_stays_within_its_bounds(failures: int, jitter: float, factor: float) -> None:
    delay = RestartPolicy(backoff_factor=factor).delay(failures, jitter)
    assert 0.9 <= delay <= 99.1


EVENTS = st.one_of(
    st.just(StartRequested()),
    st.builds(ChildStarted, st.floats(0, 100)),
    st.builds(ChildExited, st.floats(0, 100), st.none() | st.just("boom"), st.none() | st.booleans()),
    st.just(StopRequested()),
    st.just(StopTimedOut()),
)


@given(st.lists(EVENTS, max_size=30))
def test_at_most_one_start_is_planned_whatever_happens(events: list[Event]) -> None:
    core = Supervision(RestartPolicy(initial_delay=timedelta(0)))
    planned = False
    for event in events:
        if isinstance(event, ChildStarted | ChildExited):
            planned = False
        actions = core.handle(event)
        starts = [action for action in actions if isinstance(action, StartChild)]
        assert len(starts) <= 1
        assert not (starts and planned)
        planned = (planned or bool(starts)) and CancelStart() not in actions
        assert not planned or core.state is ServiceState.STARTING
