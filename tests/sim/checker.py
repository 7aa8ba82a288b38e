"""What must hold whatever happens (G1 to G4 of the guarantees), checked while it happens and at the end.

G1  a stream arrives in order, nothing twice.
G2  what was accepted and is lost was lost to a close of the link that both sides were told of; and a link closes only
    for a reason: an epoch that ended, or a peer that could not be reached for the whole timeout.
G3  every request is answered and every monitor fires within a bound; EXIT is the last that comes of a process.
G4  who acts as an owner is the owner in the store at that moment; fenced writes take effect in the order of tokens.

Times in which a process was stopped do not count against it.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.envelope import Envelope, Status
from cluster.fencing import Phase
from tests.sim.keeper import STEP_LIMIT, TTL

if TYPE_CHECKING:
    from tests.sim.machine import Life
    from tests.sim.simulation import Simulation
    from tests.sim.vm import Asked

AUDIT = 0.5
LEFT_FOR = 3.0
MARGIN = 2.0
HEALTHY = 3.2
"""A link whose nodes reached each other for so many seconds on end must have made progress: a retry comes every 2 s."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was accepted: when, after how many closes of the link, and in which pair of epochs."""

    number: int
    at: float
    closes: int
    pair: tuple[int, int]


@dataclass
class Stream:
    """Messages of one process to another, and which were accepted and have not arrived."""

    sender: Life
    receiver: Life
    sent: int = 0
    arrived: int = 0
    arrived_at: float = 0.0
    under_way: deque[Sent] = field(default_factory=deque)


@dataclass
class Watching:
    """A monitor that was confirmed and has not fired."""

    life: Life
    watched: bytes
    node: str
    since_end: tuple[float, float] | None = None
    """When the watched process ended, and for how long the watcher had been stopped by then."""


class Checker:
    """Told by the processes of the workload what they see; raises Violation."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.streams: dict[tuple[bytes, bytes], Stream] = {}
        self.watching: dict[tuple[bytes, bytes], Watching] = {}
        self.ended: dict[bytes, float] = {}
        self.exited: dict[tuple[str, bytes], bool] = {}
        self.homes: dict[bytes, Life] = {}
        self.counts: Counter[str] = Counter()
        self.answered_at: dict[tuple[str, str], float] = {}
        self._congested: dict[tuple[str, bytes], tuple[float, Life]] = {}
        sim.world.after(AUDIT, self._audit)

    @property
    def bound(self) -> float:
        """Seconds within which every question is answered."""
        times = self.sim.times
        until_wedged = STEP_LIMIT + TTL if self.sim.workload.serves else 0.0
        return times.timeout + times.probe_every + MARGIN + until_wedged

    # -- streams (G1, G2)

    def stream(self, sender: Life, sender_pid: bytes, receiver: Life, receiver_pid: bytes) -> Stream:
        key = (sender_pid, receiver_pid)
        found = self.streams.get(key)
        if found is None:
            found = self.streams[key] = Stream(sender, receiver)
        return found

    def sent(self, stream: Stream, number: int) -> None:
        self.counts["accepted"] += 1
        sender, node = stream.sender, stream.receiver.name
        stream.under_way.append(Sent(number, self.sim.world.now, sender.closes(node), sender.pair(node)))

    def arrived(self, life: Life, envelope: Envelope) -> None:
        number: int = envelope[5][0]
        stream = self.streams[envelope[2], envelope[1]]
        self.counts["messages"] += 1
        if life is not stream.receiver:
            self._violated(f"G1: message {number} of {envelope[2]!r} reached {life.label}, not its receiver")
        if number <= stream.arrived:
            self._violated(f"G1: {life.label} got message {number} of {envelope[2]!r} after {stream.arrived}")
        if (life.label, envelope[2]) in self.exited:
            self._violated(f"L9: {life.label} got message {number} of {envelope[2]!r} after its EXIT")
        missing: list[Sent] = []
        while stream.under_way and stream.under_way[0].number < number:
            missing.append(stream.under_way.popleft())
        if not stream.under_way or stream.under_way[0].number != number:
            self._violated(f"G1: {life.label} got message {number} of {envelope[2]!r}, which was refused to its sender")
        taken = stream.under_way.popleft()
        for lost in missing:
            self._lose(stream, lost, taken.closes)
        stream.arrived, stream.arrived_at = number, self.sim.world.now

    def _lose(self, stream: Stream, lost: Sent, until: int) -> None:
        """A message is lost for good: its link must have closed, ``until`` so many closes, and both sides must know."""
        sender, receiver = stream.sender, stream.receiver
        if receiver.ended_at is not None and lost.at >= receiver.ended_at:
            return  # it reached nobody
        self.counts["lost"] += 1
        what = f"message {lost.number} from {sender.label} to {receiver.label}, accepted at {lost.at:.3f}, is lost"
        if sender.alive and until <= lost.closes:
            self._violated(f"G2: {what} though the link of its sender did not close after it")
        same_pair = receiver.alive and receiver.pair(sender.name) == lost.pair[::-1]
        told = receiver.downs.get(sender.name, [])
        if sender.alive and same_pair and not any(when >= stream.arrived_at for when, _ in told):
            self._violated(f"G2: {what} though its receiver was not told of any close")

    # -- closes

    def link_closed(self, life: Life, node: str, reason: str) -> None:
        self.counts["closes"] += 1
        if "protocol error" in reason:
            self._violated(f"L6: {life.label} closed its link to {node}: {reason}")
        core = life.links._peers[node].core
        # who can't read the store may go on talking to a registration that has ended
        are_current = self._is_current(life.name, core.own_epoch) and self._is_current(node, core.peer_epoch)
        if "no acknowledgement" in reason and are_current and self._reachable_for(life.name, node) >= HEALTHY:
            self._violated(f"G2: {life.label} closed its link to {node}, which it could reach: {reason}")
        if "lease of this node is lost" in reason and life.keeper.phase is not Phase.LOST:
            self._violated(f"L6: {life.label} closed its link to {node}, whose lease may answer again")
        if "does not know" in reason and are_current:
            self._violated(f"L4: {life.label} was rejected by {node} though both registrations are current")
        if "closed the link" in reason and not self._closed_there(life, node):
            self._violated(f"L5: {life.label} heard that {node} closed the link, which it did not")

    def _is_current(self, node: str, epoch: int) -> bool:
        held = self.sim.store.kvs.get(f"/wippy/sim/nodes/{node}")
        return held is not None and held.create_revision == epoch

    def _closed_there(self, life: Life, node: str) -> bool:
        peer = self.sim.machines[node]
        return any(one.closes(life.name) for one in peer.lives)

    def _reachable_for(self, a: str, b: str) -> float:
        """The longest time on end, within the timeout, in which the two nodes could reach each other."""
        now = self.sim.world.now
        begin = now - self.sim.times.timeout
        longest, free_since = 0.0, begin
        for start, end in sorted(self.sim.trouble.of(a, b, begin, now)):
            longest = max(longest, start - free_since)
            free_since = max(free_since, end)
        return max(longest, now - free_since)

    def doubted(self, life: Life) -> None:
        """The lease of a node is in doubt: only while it could not renew it."""
        now = self.sim.world.now
        if not self.sim.trouble.of(life.name, "store", now - 5.0, now):
            self._violated(f"F1: the lease of {life.label} is in doubt though the store could be reached")

    # -- requests and monitors (G3)

    def answered(self, life: Life, asked: Asked, status: int) -> None:
        self.counts["answers"] += 1
        lives = asked.to in self.homes and self.homes[asked.to].alive and asked.to not in self.ended
        if status == Status.NOPROC and lives:
            self._violated(f"L10: {life.label} was told that {asked.to!r} is no process, but it is")
        if status == Status.OK:
            self.answered_at[life.name, asked.node.decode()] = self.sim.world.now

    def process_ended(self, life: Life, pid: bytes) -> None:
        self.ended[pid] = self.sim.world.now

    def watches(self, life: Life, watcher: bytes, watched: bytes) -> None:
        home = self.homes[watched]
        self.watching[watcher, watched] = Watching(life, watched, home.name)

    def watch_fired(self, life: Life, watcher: bytes, watched: bytes, why: str) -> None:
        self.counts["fired"] += 1
        if self.watching.pop((watcher, watched), None) is None:
            self._violated(f"G3: the monitor of {watcher!r} for {watched!r} fired twice")
        if why == "exit" and watched not in self.ended:
            self._violated(f"G3: {life.label} was told of the exit of {watched!r}, which lives")

    def exit_arrived(self, life: Life, pid: bytes) -> None:
        self.exited[life.label, pid] = True

    def congestion(self, life: Life, node: bytes, congested: bool) -> None:
        if congested:
            self._congested[life.label, node] = (self.sim.world.now, life)
        else:
            self._congested.pop((life.label, node), None)

    def _audit(self) -> None:
        for machine in self.sim.machines.values():
            life = machine.life
            if life.ready and life.stopped_at is None:
                self._audit_requests(life)
        for watching in list(self.watching.values()):
            self._audit_watch(watching)
        self.sim.world.after(AUDIT, self._audit)

    def _audit_requests(self, life: Life) -> None:
        now, idle = self.sim.world.now, life.idle()
        for asked in life.vm.asked.values():
            if now - asked.at - (idle - asked.idle) > self.bound:
                self._violated(f"G3: {life.label} has waited since {asked.at:.3f} for an answer to {asked.what}")

    def _audit_watch(self, watching: Watching) -> None:
        life, pid = watching.life, watching.watched
        home = self.homes[pid]
        ended = self.ended.get(pid, home.ended_at)
        if not life.alive or ended is None:
            return
        if watching.since_end is None:
            watching.since_end = (self.sim.world.now, life.idle())
        since, idle = watching.since_end
        if self.sim.world.now - since - (life.idle() - idle) > self.bound:
            self._violated(f"G3: {life.label} was not told that {pid!r} ended at {ended:.3f}")

    # -- names (G4)

    def delivered_by_name(self, life: Life, envelope: Envelope) -> None:
        """A message by name is about to be taken by a process."""
        self.counts["by_name"] += 1
        name = envelope[6].decode()
        held = self.sim.store.kvs.get(f"/wippy/sim/names/{name}")
        if held is not None and held.value.startswith(envelope[1]) and envelope[7] in (held.mod_revision, 0):
            return
        if envelope[7] == 0:
            return  # of this node alone, until etcd has it
        if (envelope[1], name) in self.sim.workload.giving_back or envelope[1] in self.ended:
            return
        self._violated(f"F4: {life.label} takes a message to {name!r} for {envelope[1]!r}, who does not hold it now")

    # -- at the end

    def quiet(self) -> None:
        """Nothing is under way any more: what has not arrived is lost."""
        for stream in self.streams.values():
            while stream.under_way:
                self._lose(stream, stream.under_way.popleft(), stream.sender.closes(stream.receiver.name))
        for label, node in self._congested:
            since, life = self._congested[label, node]
            if life.alive:
                self._violated(f"L8: {label} still holds back its senders to {node!r}, since {since:.3f}")

    def alive_again(self, since: float) -> None:
        """The faults are over: everybody answers everybody, and every lock finds an owner."""
        for machine in self.sim.machines.values():
            if not machine.life.ready:
                self._violated(f"liveness: {machine.life.label} is not ready {self.sim.world.now - since:.0f} s later")
        for a in self.sim.machines:
            for b in self.sim.machines:
                if a != b and self.sim.workload.asks and self.answered_at.get((a, b), 0.0) < since:
                    self._violated(f"liveness: {b} does not answer {a} though all faults are over")
        self._nothing_left()
        for lock in self.sim.workload.locks if self.sim.workload.owns else ():
            if self.sim.owned.acted_at.get(f"/wippy/sim/locks/{lock}", 0.0) < since:
                self._violated(f"liveness: nobody gets the lock {lock} though all faults are over")

    def _nothing_left(self) -> None:
        """What an ended process had is not kept from the others while its node lives."""
        now = self.sim.world.now
        for key, kv in self.sim.store.kvs.items():
            if "/names/" not in key and "/locks/" not in key:
                continue
            for pid, ended in self.ended.items():
                if pid in kv.value and self.homes[pid].alive and now - ended > LEFT_FOR:
                    self._violated(f"F5: {key} is kept for {pid!r}, which ended at {ended:.3f}")

    def _violated(self, what: str) -> None:
        self.sim.world.violated(what)
