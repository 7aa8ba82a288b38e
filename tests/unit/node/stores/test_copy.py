"""What a copy remembers, forgets and refuses; that copies converge is in tests/property/test_store_copies.py."""

from __future__ import annotations

import pytest

from cluster.errors import Unavailable
from node.stores.cell import Cell, Stamp
from node.stores.contract import StoreFull
from node.stores.copy import FORGET_AFTER, OVERHEAD, Copy

NOW = 1_000_000_000


@pytest.fixture
def copy() -> Copy:
    return Copy("app:s", 1, max_size=10, max_bytes=10_000)


def publish(copy: Copy, sequence: int = 1) -> None:
    """The bucket takes all there is."""
    for number, publication in enumerate(copy.take(1000)):
        copy.landed(publication, sequence + number)


class TestRoom:
    def test_a_full_copy_refuses_new_keys_and_still_changes_known_ones(self, copy: Copy) -> None:
        for number in range(10):
            copy.write(b"%d" % number, b"v", 0, NOW)
        with pytest.raises(StoreFull, match="app:s is full: 10 keys; delete some keys or raise max_size"):
            copy.write(b"more", b"v", 0, NOW)
        copy.write(b"0", b"w", 0, NOW)
        copy.delete(b"1", NOW)
        copy.write(b"more", b"v", 0, NOW)

    def test_bytes_are_bounded_and_given_back(self, copy: Copy) -> None:
        copy.write(b"a", b"x" * 9000, 0, NOW)
        with pytest.raises(StoreFull, match="10000 bytes; delete some keys or raise max_bytes"):
            copy.write(b"b", b"x" * 2000, 0, NOW)
        copy.write(b"a", b"x" * 100, 0, NOW)
        copy.write(b"b", b"x" * 2000, 0, NOW)
        assert copy.stats().size == 2 * (1 + OVERHEAD) + 2100

    def test_expired_keys_make_room(self, copy: Copy) -> None:
        for number in range(10):
            copy.write(b"%d" % number, b"v", NOW + 1000, NOW)
        publish(copy)
        copy.write(b"more", b"v", 0, NOW + 2000)
        assert copy.stats().keys == 1

    def test_what_others_wrote_is_taken_whatever_the_limit_is(self, copy: Copy) -> None:
        for number in range(15):
            copy.remote(b"%02d" % number, Cell(Stamp(NOW, number, 2), 0, b"v"), number + 1)
        assert copy.stats().keys == 15

    def test_deleted_keys_the_bucket_does_not_know_of_are_bounded_too(self, copy: Copy) -> None:
        for number in range(20):
            copy.write(b"%d" % number, b"v", 0, NOW)
            copy.delete(b"%d" % number, NOW)
        with pytest.raises(Unavailable, match="NATS has yet to hear of 20 writes and deletions"):
            copy.write(b"more", b"v", 0, NOW)
        publish(copy)
        copy.write(b"0", b"v", 0, NOW)

    def test_the_oldest_deletions_are_forgotten_when_there_are_too_many(self, copy: Copy) -> None:
        for number in range(30):
            copy.write(b"%02d" % number, b"v", 0, NOW + number)
            copy.delete(b"%02d" % number, NOW + number)
            publish(copy, 10 * number)
        assert copy.stats().remembered <= 11
        assert copy.all_keys()[-1] == b"29"

    def test_a_key_that_comes_back_is_not_forgotten_with_the_oldest_deletions(self, copy: Copy) -> None:
        copy.write(b"back", b"v", 0, NOW)
        copy.delete(b"back", NOW)
        copy.write(b"back", b"w", 0, NOW)
        publish(copy)
        for number in range(30):
            copy.remote(b"%02d" % number, Cell(Stamp(NOW, number, 2), 0, None), 10 + number)
        assert copy.read(b"back", NOW) is not None
        assert copy.stats().keys == 1
        assert copy.all_keys() == [b"%02d" % number for number in range(20, 30)] + [b"back"]


class TestTime:
    def test_an_expired_key_is_gone_for_readers_at_once_and_its_value_with_the_next_sweep(self, copy: Copy) -> None:
        copy.write(b"a", b"x" * 100, NOW + 1000, NOW)
        publish(copy)
        assert copy.read(b"a", NOW + 999) is not None
        assert copy.read(b"a", NOW + 1000) is None
        assert copy.delete(b"a", NOW + 1000) is None
        copy.sweep(copy.all_keys(), NOW + 1000)
        assert (copy.stats().keys, copy.stats().size) == (0, 1 + OVERHEAD)

    def test_deleted_and_expired_keys_are_forgotten_after_their_time(self, copy: Copy) -> None:
        copy.write(b"a", b"v", NOW + 1000, NOW)
        copy.write(b"b", b"v", 0, NOW)
        copy.delete(b"b", NOW)
        publish(copy)
        copy.sweep(copy.all_keys(), NOW + FORGET_AFTER - 1)
        assert copy.all_keys() == [b"a", b"b"]
        copy.sweep(copy.all_keys(), NOW + FORGET_AFTER + 1000)
        assert (copy.all_keys(), copy.stats().size) == ([], 0)

    def test_what_the_bucket_does_not_know_yet_is_never_forgotten(self, copy: Copy) -> None:
        copy.write(b"a", b"v", 0, NOW)
        publish(copy)
        copy.delete(b"a", NOW)
        copy.sweep(copy.all_keys(), NOW + 10 * FORGET_AFTER)
        (publication,) = copy.take(10)
        assert publication.cell.value is None

    def test_a_late_older_write_does_not_bring_a_deleted_key_back(self, copy: Copy) -> None:
        copy.write(b"a", b"v", 0, NOW)
        copy.delete(b"a", NOW + 5)
        publish(copy)
        copy.remote(b"a", Cell(Stamp(NOW + 4, 0, 2), 0, b"late"), 7)
        assert copy.read(b"a", NOW + 10) is None
        (again,) = copy.take(10)
        assert (again.cell.value, again.replaces) == (None, 7)


class TestLevel:
    def test_a_key_that_is_gone_from_the_same_bucket_goes_from_the_copy(self, copy: Copy) -> None:
        copy.write(b"gone", b"v", 0, NOW)
        copy.write(b"there", b"v", 0, NOW)
        publish(copy)
        copy.write(b"new", b"v", 0, NOW)
        copy.begin(anew=False, up_to=2)
        (new,) = copy.take(10)
        copy.landed(new, 3)
        copy.remote(b"there", copy.read(b"there", NOW) or pytest.fail("gone"), 2)
        copy.level()
        assert copy.all_keys() == [b"new", b"there"]

    def test_all_goes_into_a_bucket_that_was_lost(self, copy: Copy) -> None:
        copy.write(b"a", b"v", 0, NOW)
        copy.write(b"b", b"v", 0, NOW)
        publish(copy, 7)
        copy.begin(anew=True, up_to=1)
        copy.level()
        assert [(one.key, one.replaces) for one in copy.take(10)] == [(b"a", 0), (b"b", 0)]

    def test_all_goes_into_another_bucket_also_what_was_on_its_way_to_the_former_one(self, copy: Copy) -> None:
        copy.write(b"a", b"v", 0, NOW)
        publish(copy, 7)
        copy.write(b"b", b"v", 0, NOW)
        (lost,) = copy.take(10)
        copy.unpublish()
        assert [(one.key, one.replaces) for one in copy.take(10)] == [(b"a", 0), (b"b", 0)]
        copy.landed(lost, 8)
        assert copy.stats().waiting == 2

    def test_a_put_over_what_is_gone_is_made_again_over_nothing(self, copy: Copy) -> None:
        copy.write(b"a", b"v", 0, NOW)
        publish(copy, 7)
        copy.write(b"a", b"w", 0, NOW)
        (put,) = copy.take(1)
        assert put.replaces == 7
        copy.absent(b"a")
        copy.landed(put, None)
        assert copy.take(1)[0].replaces == 0

    def test_what_somebody_else_wrote_under_a_key_is_undone(self, copy: Copy) -> None:
        copy.write(b"a", b"v", 0, NOW)
        publish(copy)
        copy.foreign(b"a", 9)
        copy.foreign(b"unknown", 10)
        (put,) = copy.take(10)
        assert (put.key, put.cell.value, put.replaces) == (b"a", b"v", 9)

    def test_a_key_is_under_way_once_at_a_time(self, copy: Copy) -> None:
        copy.write(b"a", b"v", 0, NOW)
        (put,) = copy.take(10)
        copy.write(b"a", b"w", 0, NOW)
        assert copy.take(10) == []
        copy.landed(put, 1)
        (again,) = copy.take(10)
        assert (again.cell.value, again.replaces) == (b"w", 1)


def test_what_nats_refuses_does_not_hold_up_the_rest(copy: Copy) -> None:
    for number in range(4):
        copy.write(b"%d" % number, b"v", 0, NOW)
    for publication in copy.take(2):
        copy.landed(publication, None)
    assert [publication.key for publication in copy.take(2)] == [b"2", b"3"]
