"""Is what a run recorded what the guarantees promise? Pure: a ``Run`` in, a list of what is wrong out.

    streams    G1, G2
    watches    G3
    owners     G4: locks, and what is written under them
    registers  G4: names and locks, by a search of ``linearizability``
    looks      look-ups of names

Times in which a node was stopped don't count against it.
"""

from __future__ import annotations

from tests.chaos.checking.looks import check_looks
from tests.chaos.checking.owners import check_acts, check_writes
from tests.chaos.checking.registers import check_registers
from tests.chaos.checking.run import Run
from tests.chaos.checking.streams import check_losses, check_order
from tests.chaos.checking.watches import check_answers, check_watches

CHECKS = (
    check_order,
    check_losses,
    check_answers,
    check_watches,
    check_writes,
    check_acts,
    check_registers,
    check_looks,
)


def check_all(run: Run) -> list[str]:
    """Everything that is wrong."""
    return [problem for check in CHECKS for problem in check(run)]
