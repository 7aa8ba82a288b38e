"""The slots of a node's VMs: 1 to 63, each taken by one VM at a time.

A PID's counter says by ``counter % 64`` in which slot its process lives. A slot is taken again
when its VM has ended, and the counters go on where that one stopped: a PID is never handed out
twice, and one of the former VM is unknown to the next.
"""

from __future__ import annotations

from cluster.pid import VM_SLOTS


class NoSlot(RuntimeError):
    """All slots are taken."""


class Slots:
    """Hands out slots. The one that was free longest comes first."""

    def __init__(self) -> None:
        self._free = list(range(1, VM_SLOTS))
        self._counters: dict[int, int] = {}

    def take(self) -> tuple[int, int]:
        """A slot and the last counter used in it. Raises NoSlot."""
        if not self._free:
            raise NoSlot(f"a node can run {VM_SLOTS - 1} workers of hosts at a time; remove a host or its workers")
        slot = self._free.pop(0)
        return slot, self._counters.get(slot, slot)

    def give_back(self, slot: int, counter: int) -> None:
        """The VM of ``slot`` has ended; the last counter it used was ``counter``."""
        if slot in self._free or counter % VM_SLOTS != slot:
            raise ValueError(f"expected a taken slot and a counter of it, got {slot} and {counter}")
        self._counters[slot] = max(counter, self._counters.get(slot, slot))
        self._free.append(slot)
