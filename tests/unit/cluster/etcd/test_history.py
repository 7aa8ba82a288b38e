"""Grouping by revision, the ranges to load, and the difference to a state read anew."""

import pytest

from cluster.etcd import Batch, KeyEvent, KeyValue
from cluster.etcd import rpc_pb2 as rpc
from cluster.etcd.history import Known, batches_of, ranges_without, under


def put_message(key: str, revision: int) -> rpc.Event:
    return rpc.Event(type=rpc.Event.PUT, kv=rpc.KeyValue(key=key.encode(), value=b"v", mod_revision=revision))


def delete_message(key: str, revision: int) -> rpc.Event:
    return rpc.Event(type=rpc.Event.DELETE, kv=rpc.KeyValue(key=key.encode(), mod_revision=revision))


def kv(key: str, revision: int) -> KeyValue:
    return KeyValue(key, b"v", revision, revision, 1, 0)


def put(key: str, revision: int) -> KeyEvent:
    return KeyEvent(False, kv(key, revision))


def delete(key: str, revision: int) -> KeyEvent:
    return KeyEvent(True, KeyValue(key, b"", 0, revision, 0, 0))


class TestBatches:
    def test_events_of_one_revision_are_one_batch(self) -> None:
        events = [put_message("/a", 5), delete_message("/b", 5), put_message("/a", 6)]
        batches = batches_of(events, after=4)
        assert [(batch.revision, len(batch.events)) for batch in batches] == [(5, 2), (6, 1)]
        assert [event.deleted for event in batches[0].events] == [False, True]

    def test_events_seen_before_are_left_out(self) -> None:
        events = [put_message("/a", 4), put_message("/a", 5), put_message("/a", 6)]
        assert [batch.revision for batch in batches_of(events, after=5)] == [6]

    def test_part_under_a_prefix_keeps_revision_and_relist(self) -> None:
        batch = Batch(7, [put("/a/1", 7), put("/b/1", 7)], relist=True)
        assert under(batch, "/b/") == Batch(7, [put("/b/1", 7)], relist=True)


class TestRanges:
    @pytest.mark.parametrize(
        ("holes", "ranges"),
        [
            ([], [("/c/", "/c0")]),
            (["/c/kv/"], [("/c/", "/c/kv/"), ("/c/kv0", "/c0")]),
            (["/c/kv/", "/c/blobs/"], [("/c/", "/c/blobs/"), ("/c/blobs0", "/c/kv/"), ("/c/kv0", "/c0")]),
            (["/c/kv/", "/c/kv/x/"], [("/c/", "/c/kv/"), ("/c/kv0", "/c0")]),
            (["/c/"], []),
        ],
    )
    def test_holes_are_cut_out(self, holes: list[str], ranges: list[tuple[str, str]]) -> None:
        assert ranges_without("/c/", holes) == ranges

    def test_empty_prefix_is_everything(self) -> None:
        assert ranges_without("", []) == [("", "\0")]


class TestKnown:
    def test_first_state_is_all_puts(self) -> None:
        batch = Known().replace([kv("/a", 2), kv("/b", 3)], 5)
        assert batch == Batch(5, [put("/a", 2), put("/b", 3)], relist=True)

    def test_new_state_gives_only_the_differences(self) -> None:
        known = Known()
        known.replace([kv("/same", 2), kv("/changed", 3), kv("/gone", 4)], 5)
        batch = known.replace([kv("/same", 2), kv("/changed", 7), kv("/new", 8)], 9)
        assert batch.events == [delete("/gone", 9), put("/changed", 7), put("/new", 8)]

    def test_what_the_watch_told_counts_as_known(self) -> None:
        known = Known()
        known.note(Batch(2, [put("/a", 2), put("/b", 2)]))
        known.note(Batch(3, [delete("/b", 3)]))
        assert known.replace([kv("/a", 2)], 4).events == []

    def test_keys_in_holes_are_not_known(self) -> None:
        known = Known(holes=("/kv/",))
        known.note(Batch(2, [put("/kv/a", 2)]))
        assert known.mods == {}

    def test_after_going_back_in_time_every_key_counts_as_changed(self) -> None:
        known = Known()
        known.replace([kv("/a", 2), kv("/b", 3)], 5)
        known.forget_revisions()
        assert known.replace([kv("/a", 2)], 2).events == [delete("/b", 2), put("/a", 2)]

    @pytest.mark.parametrize(
        ("count", "newest", "current"),
        [(2, 3, True), (2, 2, True), (1, 3, False), (3, 3, False), (2, 6, False)],
    )
    def test_equal_count_and_no_newer_key_prove_it_current(self, count: int, newest: int, current: bool) -> None:
        known = Known()
        known.replace([kv("/a", 2), kv("/b", 3)], 5)
        assert known.is_current(count, newest, applied=5) is current
