"""The decisions of ``cluster.supervision`` are those of Erlang/OTP: its own supervisor said so, and is asked again."""

from __future__ import annotations

import pytest

from tests.otp.record import has_erlang, record
from tests.otp.replay import Replay
from tests.otp.scenarios import COUNT, Scenario, Told, make, recorded

SAMPLE = 40


def test_there_are_as_many_recordings_as_scenarios() -> None:
    assert [scenario for scenario, _ in recorded()] == [make(number) for number in range(COUNT)]


@pytest.mark.parametrize(("scenario", "told"), recorded())
def test_a_scenario_ends_as_on_erlang(scenario: Scenario, told: list[Told]) -> None:
    assert Replay(scenario).run() == told


@pytest.mark.skipif(not has_erlang(), reason="needs erl and erlc")
def test_erlang_still_says_what_was_recorded() -> None:
    sample = recorded()[:: COUNT // SAMPLE]
    assert record([scenario for scenario, _ in sample]) == [told for _, told in sample]
