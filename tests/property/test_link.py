"""Two link cores over a network that loses, doubles, delays and reorders frames, while epochs change.

Every frame ever sent may arrive at any time, any number of times, or never. Whatever happens: nothing is
delivered twice or out of order, watchers are told once per session, n never goes back within a pair of epochs,
and when the faults stop the two agree again and traffic flows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgpack
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster import frame as wire
from cluster.errors import Unavailable
from cluster.frame import Frame, Reset
from cluster.link import Action, Closed, Deliver, Limits, LinkCore, Publish, State

NAMES = ("a", "b")

Session: TypeAlias = tuple[bytes, int, int, int]
"""Sender, both epochs, n."""


def other(name: str) -> str:
    return "b" if name == "a" else "a"


def numbers(frame: Frame) -> list[int]:
    return [envelope[4] for envelope in frame.envelopes or ()]


@dataclass
class Side:
    """One process: its core, how far it has read the log of registrations, what it was told."""

    name: str
    core: LinkCore
    position: int = 0
    epoch: int = 0
    peer_epoch: int = 0
    closed: list[tuple[int, int, int]] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    sessions: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass
class World:
    """The registrations in order, the sides, and every frame ever sent."""

    log: list[tuple[str, int]] = field(default_factory=list)
    sides: dict[str, Side] = field(default_factory=dict)
    sent: list[tuple[str, str, bytes]] = field(default_factory=list)
    framed: dict[Session, list[int]] = field(default_factory=dict)
    taken: dict[Session, list[int]] = field(default_factory=dict)
    number: int = 0
    now: float = 0.0

    def __post_init__(self) -> None:
        for name in NAMES:
            self.sides[name] = Side(name, LinkCore(name, other(name), Limits(timeout=10.0)))
        for name in NAMES:
            self.register(name)
        for name in NAMES:
            self.read_log(name)

    # -- registrations

    def register(self, name: str) -> None:
        """The node's key appears; the node itself knows at once."""
        side = self.sides[name]
        self.log.append((name, 1))
        side.epoch = len(self.log)
        self.pair(side, "registered anew")

    def expire(self, name: str) -> None:
        """The node's key goes; the node itself knows at once."""
        side = self.sides[name]
        self.log.append((name, 0))
        side.epoch = 0
        self.pair(side, "own registration ended")

    def restart(self, name: str) -> None:
        """A new process takes over the name after the old one's key has gone. It has seen the whole log."""
        self.log.append((name, 0))
        former = self.sides[name]
        side = self.sides[name] = Side(name, LinkCore(name, other(name), Limits(timeout=10.0)))
        side.delivered = former.delivered
        self.register(name)
        self.read_log(name)

    def read_log(self, name: str, count: int | None = None) -> None:
        side = self.sides[name]
        end = len(self.log) if count is None else min(len(self.log), side.position + count)
        for position in range(side.position, end):
            node, present = self.log[position]
            side.position = position + 1
            if node == other(name):
                side.peer_epoch = position + 1 if present else 0
                self.pair(side, "peer changed")

    def pair(self, side: Side, reason: str) -> None:
        self.perform(side, side.core.pair, side.epoch, side.peer_epoch, reason)

    # -- traffic

    def send(self, name: str) -> bool:
        side = self.sides[name]
        self.number += 1
        try:
            side.core.send(msgpack.packb([1, b"to", b"from", 0, self.number], use_bin_type=False))
        except Unavailable:
            return False
        return True

    def flush(self, name: str) -> None:
        side = self.sides[name]
        for payload in side.core.frames(self.now):
            self.sent.append((name, other(name), payload))
            frame = wire.read(payload)
            assert isinstance(frame, Frame)
            known = self.framed.setdefault(frame[:4], [])
            known.extend(number for number in numbers(frame) if not known or number > known[-1])

    def deliver(self, index: int) -> None:
        _, dst, payload = self.sent[index]
        side = self.sides[dst]
        frame = wire.read(payload)
        match frame:
            case Reset():
                self.perform(side, side.core.reset, frame)
            case Frame():
                before = len(side.delivered)
                self.perform(side, side.core.frame, frame, len(payload), self.now, side.position)
                self.taken.setdefault(frame[:4], []).extend(side.delivered[before:])

    def perform(self, side: Side, event: Callable[..., list[Action]], *args: Any) -> None:
        core = side.core
        session = (core.own_epoch, core.peer_epoch, core.n)
        for action in event(*args):
            match action:
                case Publish(payload=payload):
                    self.sent.append((side.name, other(side.name), payload))
                case Deliver(envelopes):
                    side.delivered += [envelope[4] for envelope in envelopes]
                case Closed():
                    side.closed.append(session)
                    # a frame of a later session can open that one and, by a gap, close it too
                    session = (core.own_epoch, core.peer_epoch, core.n - 1)

    # -- after the faults

    def heal(self, late: bool) -> None:
        """etcd, leases and the network settle; with ``late``, every old frame arrives once more."""
        for name in NAMES:
            side = self.sides[name]
            if not side.epoch:
                self.register(name)
        for name in NAMES:
            self.read_log(name)
        for index in range(len(self.sent)) if late else ():
            self.deliver(index)
        self.settle(len(self.sent) if not late else 0)
        marks = {}
        for _ in range(8):
            marks = {name: self.try_to_send(name) for name in NAMES}
            if all(marks[name] in self.sides[other(name)].delivered for name in NAMES):
                break
        self.let_time_pass()
        a, b = (self.sides[name] for name in NAMES)
        for side in (a, b):  # whatever was lost in the session that is open now has come again
            session = (side.name.encode(), side.epoch, side.peer_epoch, side.core.n)
            assert self.taken.get(session, []) == self.framed.get(session, [])
        assert (a.epoch, a.peer_epoch) == (b.peer_epoch, b.epoch)
        assert a.core.state is State.OPEN
        assert b.core.state is State.OPEN
        assert a.core.n == b.core.n
        for name in NAMES:
            assert marks[name] in self.sides[other(name)].delivered

    def try_to_send(self, name: str) -> int:
        begin = len(self.sent)
        self.send(name)
        mark = self.number
        self.flush(name)
        self.settle(begin)
        return mark

    def let_time_pass(self) -> None:
        """Retries go their way until nothing waits."""
        for _ in range(12):
            self.now += 0.3
            begin = len(self.sent)
            for name in NAMES:
                side = self.sides[name]
                self.perform(side, side.core.tick, self.now)
                self.perform(side, side.core.acknowledge)
                self.flush(name)
            self.settle(begin)

    def settle(self, begin: int) -> None:
        """Deliver, in order, everything sent since, and what that causes."""
        index = begin
        while index < len(self.sent):
            self.deliver(index)
            index += 1
            assert index - begin < 500 + len(self.log), "frames never come to rest"


class LinkMachine(RuleBasedStateMachine):
    """Faults and traffic in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(name=st.sampled_from(NAMES), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4))
    def sends_some_frames(self, name: str, sizes: list[int]) -> None:
        for size in sizes:
            for _ in range(size):
                self.world.send(name)
            self.world.flush(name)

    @rule(name=st.sampled_from(NAMES))
    def queues_without_sending(self, name: str) -> None:
        self.world.send(name)

    @precondition(lambda self: self.world.sent)
    @rule(data=st.data())
    def a_frame_arrives(self, data: Any) -> None:
        self.world.deliver(data.draw(st.integers(0, len(self.world.sent) - 1), label="frame"))

    @precondition(lambda self: self.world.sent)
    @rule(count=st.integers(1, 6))
    def the_latest_frames_arrive_in_order(self, count: int) -> None:
        end = len(self.world.sent)
        for index in range(max(0, end - count), end):
            self.world.deliver(index)

    @rule(name=st.sampled_from(NAMES))
    def reconnects(self, name: str) -> None:
        self.world.sides[name].core.reconnected(self.world.now)
        self.world.flush(name)

    @rule(name=st.sampled_from(NAMES))
    def closes(self, name: str) -> None:
        side = self.world.sides[name]
        self.world.perform(side, side.core.close, "asked to")

    @rule(seconds=st.sampled_from([0.02, 0.3, 5.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        for side in self.world.sides.values():
            self.world.perform(side, side.core.tick, self.world.now)
            self.world.perform(side, side.core.acknowledge)
            self.world.flush(side.name)

    @rule(name=st.sampled_from(NAMES))
    def registration_expires_or_returns(self, name: str) -> None:
        if self.world.sides[name].epoch:
            self.world.expire(name)
        else:
            self.world.register(name)

    @precondition(lambda self: any(side.epoch for side in self.world.sides.values()))
    @rule(name=st.sampled_from(NAMES), frames=st.integers(0, 2))
    def a_node_cannot_receive_for_a_while(self, name: str, frames: int) -> None:
        """It is registered all the time, and so the pair of epochs is the same afterwards."""
        side = self.world.sides[name]
        self.world.perform(side, side.core.pair, 0, side.peer_epoch, "can't receive")
        for index in range(max(0, len(self.world.sent) - frames), len(self.world.sent)):
            self.world.deliver(index)
        self.world.pair(side, "receives again")

    @rule(name=st.sampled_from(NAMES))
    def another_process_takes_over_the_name(self, name: str) -> None:
        self.world.restart(name)

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 3))
    def the_watch_shows_some_registrations(self, name: str, count: int) -> None:
        self.world.read_log(name, count)

    @invariant()
    def nothing_twice_and_nothing_out_of_order(self) -> None:
        for side in self.world.sides.values():
            assert all(x < y for x, y in zip(side.delivered, side.delivered[1:], strict=False))

    @invariant()
    def what_arrives_in_a_session_is_the_beginning_of_what_was_sent_in_it(self) -> None:
        for session, taken in self.world.taken.items():
            assert taken == self.world.framed.get(session, [])[: len(taken)]

    @invariant()
    def watchers_are_told_once_per_session(self) -> None:
        for side in self.world.sides.values():
            assert len(set(side.closed)) == len(side.closed)

    @invariant()
    def n_never_goes_back_within_a_pair(self) -> None:
        for side in self.world.sides.values():
            pair = (side.core.own_epoch, side.core.peer_epoch)
            assert side.core.n >= side.sessions.get(pair, 1)
            side.sessions[pair] = side.core.n

    def teardown(self) -> None:
        self.world.heal(late=len(self.world.sent) % 2 == 0)
        self.nothing_twice_and_nothing_out_of_order()
        self.watchers_are_told_once_per_session()


TestLink = LinkMachine.TestCase
TestLink.settings = settings(
    max_examples=250, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
