"""Messages to names that go from hand to hand: whoever gets them gets those of one sender in order, and none twice.

What the kernel does with them is done here with its own core (``sendorder.lua``): all a process sends gets a number,
and what comes back goes once more to whoever holds the name by then, if nothing later went there.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from cluster.envelope import Envelope, Kind
from tests.sendorder import SendOrders

if TYPE_CHECKING:
    from tests.sim.machine import Life
    from tests.sim.simulation import Simulation
    from tests.sim.vm import Process

BY_NAME = b"by name"
MESSAGE = int(Kind.MESSAGE)


class Names:
    """What the kernel of one life keeps for messages by name."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._orders = SendOrders()
        self._order: dict[bytes, Any] = {}

    def send(self, process: Process, name: str, *, by_pid: bool = False) -> None:
        """The next message of the process to whoever holds the name, as far as its node knows."""
        held = self._life.names.lookup(name)
        if held is None:
            return
        pid, order = held.pid.encode(), self._order.setdefault(process.pid, self._orders.new())
        number = self._orders.note(order, pid)
        serial = self._life.sim.by_name.next_of(process.pid)
        if by_pid:
            self._life.vm.put([MESSAGE, pid, process.pid, 0, BY_NAME, [serial], b"", 0])
        else:
            envelope = [MESSAGE, pid, process.pid, 0, BY_NAME, [serial], name.encode(), held.revision, number]
            self._life.vm.put(envelope)

    def returned(self, envelope: Envelope) -> None:
        """RETURN: once more, or a dead letter."""
        _, sender, _, _, topic, payloads, name, _, number = envelope
        held, order = self._life.names.lookup(name.decode()), self._order.get(sender)
        if held is None or order is None or not self._orders.follow(order, held.pid.encode(), number):
            self._life.dead_letters.add(envelope, "stale_name")
            return
        self._life.sim.by_name.counts["sent_again"] += 1
        self._life.vm.put([MESSAGE, held.pid.encode(), sender, 0, topic, payloads, name, held.revision])


class ByName:
    """What arrived, in all lives."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.counts = sim.checker.counts
        self._serials: dict[bytes, count[int]] = {}
        self._sent: set[tuple[bytes, int]] = set()
        self._over: set[tuple[bytes, int]] = set()
        self._last: dict[tuple[bytes, bytes], int] = {}

    def next_of(self, sender: bytes) -> int:
        serial = next(self._serials.setdefault(sender, count(1)))
        self._sent.add((sender, serial))
        return serial

    def arrived(self, life: Life, envelope: Envelope) -> None:
        """A process takes a message."""
        to, sender, serial = envelope[1], envelope[2], envelope[5][0]
        self._is_over(sender, serial, f"{life.label} takes message {serial} of {sender!r}")
        last = self._last.get((sender, to), 0)
        if serial < last:
            self._sim.world.violated(f"G1: {life.label} takes message {serial} of {sender!r} to a name after {last}")
        self._last[sender, to] = serial

    def dead(self, envelope: Envelope) -> None:
        """A dead letter. It may stand for one that was refused to its sender."""
        sender = envelope[1] if envelope[0] == Kind.RETURN else envelope[2]
        self.counts["dead"] += 1
        self._is_over(sender, envelope[5][0], f"message {envelope[5][0]} of {sender!r} is a dead letter")

    def _is_over(self, sender: bytes, serial: int, what: str) -> None:
        if (sender, serial) in self._over:
            self._sim.world.violated(f"G1: {what}, and was taken or dead before")
        self._over.add((sender, serial))

    def quiet(self) -> None:
        """Nothing is under way: where no node ended, no link closed and no lease was lost, all is accounted for."""
        lives = [life for machine in self._sim.machines.values() for life in machine.lives]
        if len(lives) == len(self._sim.machines) and not self.counts["closes"] and self._sent - self._over:
            sender, serial = min(self._sent - self._over)
            self._sim.world.violated(f"G1: message {serial} of {sender!r} to a name is nowhere")
