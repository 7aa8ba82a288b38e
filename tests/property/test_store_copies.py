"""Copies of ``store.kv.crdt``: the later write wins everywhere, whatever is lost, late, repeated or begun anew."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.stores.cell import Cell, HybridClock, Stamp, later, pack_cell, unpack_cell
from node.stores.copy import Copy, Publication

NUMBERS = st.integers(0, 2**48)
STAMPS = st.builds(Stamp, NUMBERS, st.integers(0, 5), st.integers(1, 4))
CELLS = st.builds(Cell, STAMPS, st.sampled_from([0, 10, 2**41]), st.none() | st.binary(max_size=3))


class TestLater:
    @given(CELLS, CELLS)
    def test_it_does_not_matter_who_asks(self, one: Cell, other: Cell) -> None:
        assert later(one, other) == later(other, one)

    @given(CELLS, CELLS, CELLS)
    def test_it_does_not_matter_in_which_order_writes_are_heard_of(self, one: Cell, two: Cell, three: Cell) -> None:
        results = {later(later(a, b), c) for a, b, c in permutations((one, two, three))}
        results |= {later(a, later(b, c)) for a, b, c in permutations((one, two, three))}
        assert len(results) == 1

    @given(CELLS, CELLS)
    def test_hearing_twice_changes_nothing(self, one: Cell, other: Cell) -> None:
        both = later(one, other)
        assert later(both, one) == later(both, other) == later(both, both) == both

    @given(st.binary(min_size=1, max_size=20), CELLS)
    def test_a_cell_comes_back_as_it_was_kept(self, key: bytes, cell: Cell) -> None:
        assert unpack_cell(pack_cell(key, cell)) == (key, cell)

    @given(st.binary(max_size=40))
    def test_anything_else_is_refused(self, payload: bytes) -> None:
        try:
            unpack_cell(payload)
        except ValueError:
            return
        key, cell = unpack_cell(payload)
        assert unpack_cell(pack_cell(key, cell)) == (key, cell)


@given(st.lists(NUMBERS | STAMPS, max_size=20))
def test_a_clock_gives_only_stamps_later_than_all_it_gave_and_saw(events: list[int | Stamp]) -> None:
    clock, seen = HybridClock(7), [Stamp(0, 0, 0)]
    for event in events:
        if isinstance(event, Stamp):
            clock.observe(event)
            seen.append(event)
        else:
            stamp = clock.tick(event)
            assert stamp[:2] > max(one[:2] for one in seen)
            seen.append(stamp)


@dataclass
class BucketOf:
    """What JetStream keeps: the last value of each key under ascending sequences; may be lost as a whole."""

    era: int = 0
    sequence: int = 0
    values: dict[bytes, tuple[int, Cell]] = field(default_factory=dict)

    def put(self, key: bytes, cell: Cell, replaces: int) -> int | None:
        if self.values.get(key, (0, None))[0] != replaces:
            return None
        self.sequence += 1
        self.values[key] = (self.sequence, cell)
        return self.sequence

    def newer_than(self, sequence: int) -> list[tuple[bytes, int, Cell]]:
        found = [(key, *value) for key, value in self.values.items() if value[0] > sequence]
        return sorted(found, key=lambda one: one[1])

    def lose(self) -> None:
        self.era += 1
        self.sequence = 0
        self.values.clear()


class Node:
    """A copy and how it is kept in step, as ``node.stores.replication`` does it, one step at a time."""

    def __init__(self, number: int, bucket: BucketOf, dice: random.Random) -> None:
        self.copy = Copy("test", number, max_size=1000, max_bytes=10**6)
        self.dice = dice
        self.bucket = bucket
        self.era = -1
        self.feed: list[tuple[bytes, int, Cell]] | None = None
        self.after = 0
        self.is_level = False
        self.flying: list[Publication] = []
        self.answers: list[tuple[Publication, int | None]] = []

    def open(self) -> None:
        anew = self.bucket.era != self.era or self.bucket.sequence < self.copy.reached
        after = self.copy.reached
        if anew or self.copy.is_loading or self.dice.random() < 0.3:
            self.copy.begin(anew=anew, up_to=self.bucket.sequence)
            after = 0
        self.era = self.bucket.era
        self.feed = self.bucket.newer_than(after)
        self.after, self.is_level = self.bucket.sequence, False

    def hear(self) -> None:
        """One record of the feed, or what was written since."""
        if self.feed is None or self.bucket.era != self.era:
            self.open()
        assert self.feed is not None
        if self.feed:
            key, sequence, cell = self.feed.pop(0)
            self.copy.remote(key, cell, sequence)
            self.copy.reached = sequence
            return
        if not self.is_level:
            self.copy.level()
            self.is_level = True
        self.feed, self.after = self.bucket.newer_than(self.after), self.bucket.sequence

    def send(self) -> None:
        if self.feed is not None and self.is_level:
            self.flying += self.copy.take(self.dice.randint(1, 3))

    def arrive(self, fate: float) -> None:
        """A put reaches the bucket, or is lost; so may be the answer, and then the copy does not know."""
        if not self.flying:
            return
        publication = self.flying.pop(self.dice.randrange(len(self.flying)))
        sequence = None if fate < 0.2 else self.bucket.put(publication.key, publication.cell, publication.replaces)
        if sequence is None and fate >= 0.2:
            found = self.bucket.values.get(publication.key)
            if found is None:
                self.copy.absent(publication.key)
            else:
                self.copy.remote(publication.key, found[1], found[0])
        self.answers.append((publication, None if fate < 0.4 else sequence))

    def answer(self) -> None:
        if self.answers:
            self.copy.landed(*self.answers.pop(0))

    def settle(self) -> None:
        """A turn without losses."""
        for _ in range(6):
            self.hear()
        self.send()
        while self.flying:
            self.arrive(1.0)
        while self.answers:
            self.answer()


KEYS = [b"a", b"b"]
STEPS = {"write": 3, "delete": 1, "hear": 6, "send": 3, "arrive": 4, "answer": 4, "cut": 1, "lose": 0.3, "wait": 1}


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32))
def test_after_losses_and_partitions_all_copies_and_the_bucket_hold_the_last_write_of_each_key(seed: int) -> None:
    dice = random.Random(seed)
    bucket = BucketOf()
    nodes = [Node(number + 1, bucket, dice) for number in range(3)]
    skews = [dice.randint(-5000, 5000) for _ in nodes]
    written: dict[bytes, Cell] = {}
    now = 10**12
    for _ in range(120):
        number, key = dice.randrange(3), dice.choice(KEYS)
        node, clock = nodes[number], now + skews[number]
        match dice.choices(list(STEPS), list(STEPS.values()))[0]:
            case "write":
                cell = node.copy.write(key, b"%d" % dice.randrange(100), 0, clock)
                written[key] = later(written.get(key, cell), cell)
            case "delete":
                deleted = node.copy.delete(key, clock)
                if deleted is not None:
                    written[key] = later(written[key], deleted)
            case "hear":
                node.hear()
            case "send":
                node.send()
            case "arrive":
                node.arrive(dice.random())
            case "answer":
                node.answer()
            case "cut":
                node.feed = None
            case "lose":
                bucket.lose()
            case "wait":
                now += dice.choice([1, 1000])
    for node in nodes:
        node.feed = None
        for publication in node.flying:
            node.answers.append((publication, None))
        node.flying.clear()
    for _ in range(12):
        for node in nodes:
            node.settle()
    assert not any(node.copy.is_waiting for node in nodes)
    expected = {key: cell if (cell := written.get(key)) and cell.value is not None else None for key in KEYS}
    newcomer = Node(9, bucket, dice)
    for _ in range(9):
        newcomer.hear()
    for copy in (newcomer.copy, *(node.copy for node in nodes)):
        assert {key: copy.read(key, now + 10**6) for key in KEYS} == expected


@pytest.mark.parametrize("heard", [0, 1, 2])
def test_of_two_writes_made_apart_the_later_one_stays_on_both_sides(heard: int) -> None:
    one, two = Copy("s", 1, max_size=9, max_bytes=9999), Copy("s", 2, max_size=9, max_bytes=9999)
    earlier, last = one.write(b"k", b"1", 0, 1000), two.write(b"k", b"2", 0, 1001)
    for _ in range(heard):
        one.remote(b"k", last, 1)
        two.remote(b"k", earlier, 1)
    assert two.read(b"k", 2000) == last
    assert one.read(b"k", 2000) == (last if heard else earlier)


def test_a_write_is_later_than_what_its_writer_had_seen_however_slow_its_clock() -> None:
    fast, slow = Copy("s", 1, max_size=9, max_bytes=9999), Copy("s", 2, max_size=9, max_bytes=9999)
    fast.write(b"k", b"1", 0, 9_000_000)
    (sent,) = fast.take(1)
    slow.remote(b"k", sent.cell, 1)
    cell = slow.write(b"k", b"2", 0, 1000)
    fast.remote(b"k", cell, 2)
    assert fast.read(b"k", 9_000_000) == cell
