"""Every mutant of the product is caught: by the simulation within so many seeds, or else by the property tests, or
by the few steps of a regression test where chance would need too many seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from cluster.errors import ClusterError
from tests.property.test_fencing import Fencing
from tests.property.test_link import LinkMachine
from tests.sim import test_regressions
from tests.sim.mutants import MUTANTS, Change, Mutant, applied
from tests.sim.owned_mutants import OWNED_MUTANTS
from tests.sim.simulation import run
from tests.sim.world import Violation

SEEDS = 250
"""In so many runs of its theme a mutant must be caught; nearly all are in the first ten, the rarest in 1 of 30."""
EVERY = (*MUTANTS, *OWNED_MUTANTS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", [mutant for mutant in EVERY if not mutant.machine], ids=str)
def test_the_simulation_catches(mutant: Mutant) -> None:
    with applied(mutant):
        for tried, seed in enumerate((*mutant.first, *range(1, SEEDS + 1)), 1):
            try:
                run(seed, mutant.theme)
            except Violation as violation:
                print(f"{mutant} ({mutant.rule}): caught with {tried} seeds: {str(violation).splitlines()[0]}")
                return
    pytest.fail(f"the mutant {mutant.name!r} of rule {mutant.rule} survives {SEEDS} seeds: the checker is too weak")


CASES: dict[str, Callable[[], None]] = {
    "opening": test_regressions.test_what_a_node_takes_while_it_opens_its_links_it_can_answer,
    "late": test_regressions.test_a_name_whose_key_comes_to_the_store_too_late_is_freed,
    "acks": test_regressions.test_an_ack_of_a_former_session_says_nothing_about_this_one,
}
MACHINES: dict[str, type[RuleBasedStateMachine]] = {"link": LinkMachine, "fencing": Fencing}
QUICK = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.generate],
    derandomize=True,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", [mutant for mutant in EVERY if mutant.machine in MACHINES], ids=str)
def test_the_property_tests_catch(mutant: Mutant) -> None:
    with applied(mutant), pytest.raises(AssertionError):
        run_state_machine_as_test(MACHINES[mutant.machine], settings=QUICK)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("mutant", [mutant for mutant in EVERY if mutant.machine in CASES], ids=str)
def test_a_regression_test_catches(mutant: Mutant) -> None:
    with applied(mutant), pytest.raises((AssertionError, ClusterError)):
        CASES[mutant.machine]()


def test_a_mutant_whose_code_has_changed_is_an_error() -> None:
    stale = Mutant("stale", "", (Change(Mutant, "__str__", "no such text", ""),))
    with pytest.raises(ValueError, match="expected once"), applied(stale):
        pass
