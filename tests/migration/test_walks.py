"""Whatever is lost, late, closed, crashed or unheard of: one P, its messages in order and once, and everybody told."""

from __future__ import annotations

import pytest

from tests.migration.walks import SCENARIOS, Scenario, Walk

WALKS = 60
"""Of each scenario."""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_move_keeps_its_promises(scenario: Scenario) -> None:
    moved = 0
    for seed in range(WALKS):
        moved += Walk(scenario, seed).run().adopted
    assert moved, "nothing ever moved: the walks show nothing"
