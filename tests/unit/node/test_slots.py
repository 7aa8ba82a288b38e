"""Slots: one VM at a time each, counters that never go back."""

from __future__ import annotations

import pytest

from node.slots import NoSlot, Slots


def test_there_are_63_at_a_time() -> None:
    slots = Slots()
    taken = [slots.take()[0] for _ in range(63)]
    assert sorted(taken) == list(range(1, 64))
    with pytest.raises(NoSlot, match="63"):
        slots.take()
    slots.give_back(5, 5 + 64 * 9)
    assert slots.take() == (5, 5 + 64 * 9)


def test_a_counter_never_goes_back() -> None:
    slots = Slots()
    slot, _ = slots.take()
    slots.give_back(slot, slot + 640)
    for _ in range(62):
        slots.take()
    assert slots.take() == (slot, slot + 640)
    slots.give_back(slot, slot)
    assert slots.take() == (slot, slot + 640)


def test_a_slot_that_is_free_or_a_counter_of_another_is_refused() -> None:
    slots = Slots()
    with pytest.raises(ValueError, match="taken"):
        slots.give_back(3, 3)
    slot, _ = slots.take()
    with pytest.raises(ValueError, match="counter"):
        slots.give_back(slot, slot + 1)
