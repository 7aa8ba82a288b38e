"""Messages by name that come back: whatever moves when, no process sees those of another out of order, or one twice."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.sendorder import SendOrders

HOLDERS = ("n0", "n1", "n2")
"""One process on each node; the sender is on n0. The name belongs to one of them, or to nobody."""
SENDER = b"{n0@app:processes|1-9}"


@dataclass
class Letter:
    """What is under way. ``revision`` is 0 for one to a PID, ``number`` None for one that is not taken back."""

    serial: int
    to: str
    revision: int = 0
    number: int | None = None


@dataclass
class Cluster:
    """The name's history, how much of it each node has seen, and FIFO links from the sender's node and back."""

    orders: SendOrders = field(default_factory=SendOrders)
    history: list[str | None] = field(default_factory=lambda: ["n1"])
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(HOLDERS, 1))
    out: dict[str, deque[Letter]] = field(default_factory=lambda: {node: deque() for node in HOLDERS})
    back: dict[str, deque[tuple[Letter, int]]] = field(default_factory=lambda: {node: deque() for node in HOLDERS})
    taken: dict[str, list[int]] = field(default_factory=lambda: {node: [] for node in HOLDERS})
    dead: list[int] = field(default_factory=list)
    serial: int = 0

    def __post_init__(self) -> None:
        self.order = self.orders.new()
        self.exact: dict[str, int] = {}
        self.by_number: dict[int, int] = {}

    def holder(self, node: str) -> str | None:
        return self.history[self.seen[node] - 1]

    def move(self, to: str | None) -> None:
        self.history.append(to)

    def watch(self, node: str) -> None:
        self.seen[node] = min(self.seen[node] + 1, len(self.history))

    def send(self, to: str) -> None:
        self._sent(Letter(self._next(), to))

    def send_by_name(self) -> None:
        to = self.holder("n0")
        if to is not None:
            self._sent(Letter(self._next(), to, self.seen["n0"], 0))

    def _next(self) -> int:
        self.serial += 1
        return self.serial

    def _sent(self, letter: Letter) -> None:
        number = self.orders.note(self.order, letter.to.encode())
        if letter.number is not None:
            letter.number = number
        self.exact[letter.to] = number
        self.out[letter.to].append(letter)

    def arrive(self, node: str) -> None:
        if self.out[node]:
            letter = self.out[node].popleft()
            if not letter.revision or letter.revision > self.seen[node] or self._holds(node, letter.revision):
                self.taken[node].append(letter.serial)
            elif letter.number is None:
                self.dead.append(letter.serial)
            else:
                self.back[node].append((letter, self.seen[node]))

    def _holds(self, node: str, revision: int) -> bool:
        """Whether the process has the name since that revision, as far as its node knows."""
        return self.history[revision - 1 : self.seen[node]] == [node] + [node] * (self.seen[node] - revision)

    def come_back(self, node: str) -> None:
        """The sender's node looks at what a node refused, if it knows as much as that one did."""
        if self.back[node] and self.seen["n0"] >= self.back[node][0][1]:
            letter, _ = self.back[node].popleft()
            to, number = self.holder("n0"), letter.number
            assert number is not None
            if to is not None and self.orders.follow(self.order, to.encode(), number):
                event("sent again")
                assert self.exact.get(to, 0) <= number, "behind a later one"
                self.exact[to] = number
                self.out[to].append(Letter(letter.serial, to, self.seen["n0"]))
            else:
                event("dead letter")
                assert to is None or self.exact.get(to, 0) > number, "nothing later was sent there"
                self.dead.append(letter.serial)

    def settle(self) -> None:
        for node in HOLDERS:
            self.seen[node] = len(self.history)
        while any(self.out.values()) or any(self.back.values()):
            for node in HOLDERS:
                self.arrive(node)
                self.come_back(node)


NODES = st.sampled_from(HOLDERS)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send_by_name")),
        st.tuples(st.just("send_by_name")),
        st.tuples(st.just("move"), st.sampled_from((*HOLDERS, None))),
        st.tuples(st.sampled_from(["send", "watch", "arrive", "come_back"]), NODES),
        st.tuples(st.sampled_from(["watch", "arrive", "come_back"]), NODES),
    ),
    max_size=80,
)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_messages_of_one_sender_arrive_in_order_at_every_holder_and_never_twice(steps: list[tuple[str, ...]]) -> None:
    cluster = Cluster()
    for verb, *arguments in steps:
        getattr(cluster, verb)(*arguments)
    cluster.settle()
    for node, taken in cluster.taken.items():
        assert taken == sorted(taken), f"{node} got {taken}"
    arrived = [serial for taken in cluster.taken.values() for serial in taken]
    assert sorted([*arrived, *cluster.dead]) == list(range(1, cluster.serial + 1))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_with_any_number_of_destinations_only_a_sure_one_is_sent_again(seed: int) -> None:
    """What is kept is bounded: of a destination not heard of for long, nothing is sent again."""
    random = Random(seed)
    orders = SendOrders()
    order = orders.new()
    last: dict[int, int] = {}
    for _ in range(1500):
        to, target = random.randrange(400), random.randrange(400)
        number = last[to] = orders.note(order, b"%d" % to)
        again = number - random.choice((1, 10, 100, 300, 600))
        if again > 0 and orders.follow(order, b"%d" % target, again):
            assert last.get(target, 0) <= again
            last[target] = again
    assert len(list(order[b"recent"])) + len(list(order[b"former"])) <= 256


def test_a_destination_among_the_latest_hundred_is_known_exactly() -> None:
    orders = SendOrders()
    order = orders.new()
    for number in range(100):
        orders.note(order, b"%d" % number)
    assert orders.follow(order, b"new", 50)
    assert orders.follow(order, b"7", 8)
    assert not orders.follow(order, b"90", 50)


def test_after_something_went_to_nobody_knows_whom_nothing_earlier_is_sent_again() -> None:
    orders = SendOrders()
    order = orders.new()
    number = orders.note(order, b"a")
    orders.note_all(order)
    assert not orders.follow(order, b"b", number)
    assert orders.follow(order, b"b", orders.note(order, b"a"))


def test_what_ended_processes_leave_is_bounded() -> None:
    orders = SendOrders()
    for number in range(20_000):
        order = orders.new()
        orders.note(order, b"x")
        orders.retire(b"%d" % number, order)
    kept = [number for number in range(20_000) if orders.of_ended(b"%d" % number)]
    assert 1000 <= len(kept) <= 5000
    assert kept[-1] == 19_999
