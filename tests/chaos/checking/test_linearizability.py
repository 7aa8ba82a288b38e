"""The search finds an order where there is one, and refutes where there is none: beside one that tries every order."""

from __future__ import annotations

from itertools import permutations
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.chaos.checking.linearizability import Step, TooMuch, check

NOBODY = ""


def take(begin: float, end: float, who: str) -> Step[str]:
    return Step(begin, end, lambda held: who if held == NOBODY else None, f"{who} takes")


def give(begin: float, end: float, who: str) -> Step[str]:
    return Step(begin, end, lambda held: NOBODY if held == who else None, f"{who} gives")


def see(begin: float, end: float, who: str) -> Step[str]:
    return Step(begin, end, lambda held: held if held == who else None, f"sees {who or 'nobody'}")


def by_every_order(steps: list[Step[str]]) -> bool:
    """Whether some order of some of the operations, those with an end among them, is a history of one register."""
    required = {i for i, step in enumerate(steps) if step.end != inf}
    return any(
        required <= set(order) and _is_history([steps[i] for i in order])
        for size in range(len(required), len(steps) + 1)
        for order in permutations(range(len(steps)), size)
    )


def _is_history(order: list[Step[str]]) -> bool:
    held = NOBODY
    for place, step in enumerate(order):
        after = step.apply(held)
        if after is None or any(later.end < step.begin for later in order[place + 1 :]):
            return False
        held = after
    return True


def test_operations_one_after_the_other_have_the_order_of_their_times() -> None:
    steps = [take(0, 1, "a"), see(2, 3, "a"), give(4, 5, "a"), take(6, 7, "b")]
    verdict = check(steps, NOBODY)
    assert verdict.linearizable
    assert verdict.order == steps


def test_two_that_hold_at_once_are_refuted_with_the_place_where_it_ends() -> None:
    verdict = check([take(0, 1, "a"), take(2, 3, "b"), give(4, 5, "a")], NOBODY)
    assert not verdict.linearizable
    assert verdict.state == "a"
    assert [step.shown for step in verdict.stuck] == ["b takes"]
    assert "b takes" in str(verdict)


def test_a_value_seen_after_it_was_given_back_is_refuted() -> None:
    assert not check([take(0, 1, "a"), give(2, 3, "a"), see(4, 5, "a")], NOBODY).linearizable
    assert check([take(0, 1, "a"), give(2, 5, "a"), see(4, 5, "a")], NOBODY).linearizable


def test_an_unknown_outcome_may_take_effect_late_or_never() -> None:
    assert check([take(0, inf, "a"), see(5, 6, NOBODY)], NOBODY).linearizable
    assert check([take(0, inf, "a"), see(5, 6, NOBODY), see(7, 8, "a")], NOBODY).linearizable
    assert not check([see(0, 1, "a"), take(2, inf, "a")], NOBODY).linearizable
    assert not check([take(0, inf, "a"), see(3, 4, "a"), see(5, 6, NOBODY)], NOBODY).linearizable


def test_a_long_history_is_searched_in_no_time() -> None:
    steps = []
    for turn in range(300):
        who = f"p{turn}"
        steps += [take(10 * turn, 10 * turn + 4, who), see(10 * turn + 1, 10 * turn + 6, who)]
        steps += [give(10 * turn + 5, 10 * turn + 8, who), take(10 * turn, inf, "nobody ever saw")]
    verdict = check(steps, NOBODY, most_steps=20_000)
    assert verdict.linearizable


def test_a_search_that_is_too_long_says_so() -> None:
    steps = [take(0, 100, f"p{n}") for n in range(30)] + [see(0, 100, "none of them")]
    steps += [give(0, 100, f"p{n}") for n in range(30)]
    with pytest.raises(TooMuch, match="no verdict on 61 operations"):
        check(steps, NOBODY, most_steps=1000)


@st.composite
def histories(draw: st.DrawFn) -> list[Step[str]]:
    make = st.sampled_from([take, give, see])
    steps = []
    for _ in range(draw(st.integers(1, 6))):
        begin = draw(st.integers(0, 8))
        end = draw(st.one_of(st.just(inf), st.integers(begin, begin + 4)))
        steps.append(draw(make)(begin, end, draw(st.sampled_from(["a", "b"]))))
    return steps


@given(histories())
@settings(max_examples=400, deadline=None)
@example([take(0, 1, "a"), give(1, 2, "a"), take(1, 1, "b")])
def test_it_agrees_with_trying_every_order(steps: list[Step[str]]) -> None:
    verdict = check(steps, NOBODY)
    assert verdict.linearizable == by_every_order(steps)
    if verdict.linearizable:
        assert _is_history(verdict.order)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0.0, 1.0)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_what_a_real_register_shows_is_always_linearizable(turns: list[tuple[str, float]]) -> None:
    """Operations that take effect at their turn, and begin and end at any time around it."""
    held, steps = NOBODY, []
    for turn, (who, spread) in enumerate(turns):
        begin, end = turn - 3 * spread, turn + 2 * spread
        if held == NOBODY:
            steps.append(take(begin, end, who))
            held = who
        elif held == who:
            steps.append(give(begin, end if spread < 0.8 else inf, who))
            held = NOBODY
        else:
            steps.append(see(begin, end, held))
    assert check(steps, NOBODY).linearizable
