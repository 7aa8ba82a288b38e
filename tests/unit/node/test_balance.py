"""Which worker gets the next process."""

from __future__ import annotations

import pytest

from node.balance import STAY, Elsewhere, Load, effective_workers, elsewhere, least_loaded


@pytest.mark.parametrize(("asked", "cores", "given"), [(1, 8, 1), (4, 2, 2), (4, 8, 4), (100, 64, 16), (3, 1, 1)])
def test_workers_are_bounded_by_cores_and_by_sixteen(asked: int, cores: int, given: int) -> None:
    assert effective_workers(asked, cores) == given


@pytest.mark.parametrize(
    ("loads", "slot"),
    [
        ([Load(1, 0.9, 1), Load(2, 0.1, 50)], 2),
        ([Load(1, 0.05, 5), Load(2, 0.01, 3)], 2),
        ([Load(1, 0.01, 3), Load(2, 0.02, 3)], 1),
        ([Load(1, 0.0, 0, retiring=True), Load(2, 1.0, 90)], 2),
        ([Load(1, 1.0, 4), Load(2, 1.0, 3)], 2),
    ],
)
def test_what_comes_from_outside_goes_to_the_least_loaded(loads: list[Load], slot: int) -> None:
    assert least_loaded(loads).slot == slot


def test_without_workers_there_is_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="at least one"):
        least_loaded([])


@pytest.mark.parametrize(
    ("own", "others", "where"),
    [
        (Load(1, 1.0), [], STAY),
        (Load(1, 0.7), [Load(2, 0.0)], STAY),
        (Load(1, 0.9), [Load(2, 0.7)], STAY),
        (Load(1, 0.9), [Load(2, 0.5)], Elsewhere(2, 2)),
        (Load(1, 1.0), [Load(2, 0.6), Load(3, 0.1)], Elsewhere(3, 2)),
        (Load(1, 1.0, run_queue=40), [Load(2, 1.0, run_queue=2)], Elsewhere(2, 2)),
        (Load(1, 1.0, run_queue=40), [Load(2, 1.0, run_queue=20)], STAY),
        (Load(1, 1.0, run_queue=4), [Load(2, 1.0)], STAY),
        (Load(1, 1.0), [Load(2, 0.0, retiring=True)], STAY),
        (Load(1, 0.0, retiring=True), [Load(2, 1.0)], Elsewhere(2, 1)),
        (Load(1, 0.0, retiring=True), [Load(2, 1.0, retiring=True)], STAY),
    ],
)
def test_children_leave_a_worker_that_is_clearly_busier_or_is_to_end(
    own: Load, others: list[Load], where: Elsewhere
) -> None:
    assert elsewhere(own, others) == where
