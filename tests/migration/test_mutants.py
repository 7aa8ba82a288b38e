"""Every mutant of the move is caught, by a walk or by a case."""

from __future__ import annotations

import pytest

from tests.migration import test_cases
from tests.migration.mutants import MUTANTS, MoveMutant
from tests.migration.walks import SCENARIOS, Walk
from tests.migration.world import Violation
from tests.sim.mutants import applied

SEEDS = 600
"""So many walks are tried after the one that once caught the mutant."""
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if not mutant.case], ids=str)
def test_a_walk_catches(mutant: MoveMutant) -> None:
    with applied(mutant.mutant):
        for seed in (mutant.seed, *range(SEEDS)):
            try:
                Walk(BY_NAME[mutant.by], seed).run()
            except Violation:
                return
    pytest.fail(f"{mutant} survives {SEEDS} walks of {mutant.by!r}: the checks are too weak")


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.case], ids=str)
def test_a_case_catches(mutant: MoveMutant) -> None:
    case = getattr(test_cases, "test_" + mutant.case.replace(" ", "_"))
    with applied(mutant.mutant), pytest.raises((AssertionError, ValueError)):
        case()
