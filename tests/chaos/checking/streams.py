"""Streams of messages (G1, G2).

``check_order``   a message arrives once, after those sent before it; none that was refused or never sent
``check_losses``  what was accepted and is lost was lost to a close of the link its sender was told of; and a link
                  closes only with a registration, a lease in doubt, or after trouble as long as ``link_timeout``
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.chaos.checking.history import SECOND, History, Operation, Record, node_of, shown
from tests.chaos.checking.run import RECOVERED, Run
from tests.chaos.checking.troubles import Troubles, What

DOUBT = 2.5
"""A lease may be in doubt after trouble so many seconds shorter than its TTL: the last renewal was before the trouble,
and the way back takes a moment."""
LATE = 3.5
"""In the same way a link may close after trouble that many seconds shorter than its timeout."""
UNDER_WAY = 5.0
"""Seconds a message may take between nodes that nothing keeps from each other."""
TOLD = 3.0
"""Seconds after the first message of the next session of a link in which its sender has been told of the close."""


@dataclass
class Stream:
    """What one process sent to another, and what arrived."""

    sender: str
    receiver: str
    bursts: list[Operation] = field(default_factory=list)
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    """First, last and when, in the order they were taken."""

    def shown(self) -> str:
        return f"{self.sender} to {self.receiver}"

    def arrived(self) -> set[int]:
        return {n for first, last, _ in self.runs for n in range(first, last + 1)}

    def accepted(self) -> Iterator[tuple[int, Operation]]:
        """Each number that was accepted, for certain, and the burst it was in."""
        for burst in self.bursts:
            if burst.end is not None:
                refused = set(burst.answer["refused"])
                for n in range(burst.asked["first"], burst.answer["last"] + 1):
                    if n not in refused:
                        yield n, burst

    def refused(self) -> set[int]:
        return {n for burst in self.bursts if burst.end is not None for n in burst.answer["refused"]}

    def offered(self) -> set[int]:
        """What was sent, accepted or not, or may have been."""
        return {n for burst in self.bursts for n in range(burst.asked["first"], self._last(burst) + 1)}

    @staticmethod
    def _last(burst: Operation) -> int:
        return int(burst.answer["last"] if burst.end is not None else burst.asked["last"])


def streams_of(history: History) -> dict[tuple[str, str], Stream]:
    """All streams, by sender and receiver."""
    found: dict[tuple[str, str], Stream] = {}

    def stream(sender: str, receiver: str) -> Stream:
        return found.setdefault((sender, receiver), Stream(sender, receiver))

    for burst in history.operations("send"):
        stream(burst.pid, burst.asked["to"]).bursts.append(burst)
    by_place = [record for records in history.by_vm().values() for record in records]
    for record in by_place:
        if record.fields.get("f") == "took":
            run = (record.fields["first"], record.fields["last"], record.at)
            stream(record.fields["from"], record.pid).runs.append(run)
    return found


def check_order(run: Run) -> list[str]:
    """G1."""
    problems = []
    for stream in streams_of(run.history).values():
        highest = 0
        for first, last, at in stream.runs:
            if first <= highest:
                problems.append(f"G1: {stream.shown()}: {first} arrived after {highest} at {shown(at)}")
            highest = max(highest, last)
        arrived = stream.arrived()
        for n in sorted(arrived & stream.refused())[:3]:
            problems.append(f"G1: {stream.shown()}: {n} arrived, which was refused to its sender")
        for n in sorted(arrived - stream.offered())[:3]:
            problems.append(f"G1: {stream.shown()}: {n} arrived, which was never sent")
    return problems


def check_losses(run: Run) -> list[str]:
    """G2: both parts, losses that nobody was told of and closes without a reason."""
    told: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in run.history.of("down", "exit", "link_down"):
        told[record.pid, record.fields["from"]].append(record)
    problems = [
        f"G2: {record.pid} was told at {shown(record.at)} that the link to {pid} closed, for no reason"
        for (_, pid), records in told.items()
        for record in records
        if is_disconnection(record) and not _may_close(run, record, pid)
    ]
    for (sender, receiver), stream in streams_of(run.history).items():
        downs = [record.at for record in told[sender, receiver]]
        problems += _losses(run, stream, downs)
    return problems


def _losses(run: Run, stream: Stream, downs: list[int]) -> list[str]:
    arrived, problems = stream.arrived(), []
    highest = max(arrived, default=0)
    ends = [at for at in (run.ended(stream.sender), run.ended(stream.receiver)) if at is not None]
    for n, burst in stream.accepted():
        if n in arrived:
            continue
        if (
            n > highest
            and ends
            and run.well_seconds(stream.sender, stream.receiver, burst.begin, min(ends)) < UNDER_WAY
        ):
            continue  # on its way when one of the two ended
        until = min((at for first, _, at in stream.runs if first > n), default=run.until) + TOLD * SECOND
        if not any(burst.begin <= at <= until for at in downs):
            problems.append(f"G2: {stream.shown()}: {n} is lost, accepted in a burst begun at {shown(burst.begin)}")
    return problems[:3]


def is_disconnection(record: Record) -> bool:
    """Whether a monitor or link says that the link between the nodes closed."""
    return "noconnection" in str(record.fields.get("error") or "")


def _may_close(run: Run, record: Record, pid: str) -> bool:
    """Whether the link between the nodes may have closed shortly before ``record``, or while nobody could say so."""
    a, b, at = record.node, node_of(pid), record.at
    recent = [
        one
        for node in {a, b}
        for one in run.troubles.of(node, What.NATS, What.ETCD, What.STOPPED)
        if one.begin <= at <= one.end + RECOVERED * SECOND
    ]
    since = min([at - RECOVERED * SECOND, *(one.begin - SECOND for one in recent)])
    for epoch in run.truth.epochs():
        if epoch.node in (a, b) and since <= epoch.gone and epoch.until <= at:
            return True
    trouble = Troubles(recent)
    in_doubt = max(trouble.longest(node, What.ETCD, What.STOPPED) for node in (a, b))
    cut_off = Troubles([one for one in recent if one.what is not What.ETCD]).longest()
    return in_doubt >= run.ttl - DOUBT or cut_off >= run.timeout - LATE
