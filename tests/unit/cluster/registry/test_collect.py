from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cluster.registry.collect import KEEP_FOR, Found, Keep, garbage
from cluster.registry.record import Blob, ChangeRecord, SnapshotRecord

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def log(
    versions: int,
    snapshots: list[int],
    *,
    age: timedelta = 2 * KEEP_FOR,
    extra: frozenset[str] = frozenset(),
    uploads: frozenset[str] = frozenset(),
    size: int = 100,
) -> Found:
    changes = {v: ChangeRecord(Blob(f"c{v}", 1, "", size), "me", NOW - age, "", 1) for v in range(versions)}
    named = {v: SnapshotRecord(Blob(f"s{v}", 1, "", size)) for v in snapshots}
    blobs = frozenset({f"c{v}" for v in changes} | {f"s{v}" for v in named} | extra)
    return Found(changes, named, uploads, blobs)


def test_only_blobs_that_nothing_names_are_garbage() -> None:
    found = garbage(log(3, [1], extra=frozenset({"dead", "living"}), uploads=frozenset({"living"})), NOW, Keep(100))
    assert (found.blobs, found.changes, found.snapshots) == (["dead"], [], [])


def test_history_goes_up_to_the_snapshot_from_which_the_oldest_kept_version_is_rebuilt() -> None:
    found = garbage(log(100, [20, 50, 80]), NOW, Keep(30))
    assert found.changes == list(range(50))
    assert found.snapshots == [20]
    assert found.blobs == []


def test_nothing_goes_without_a_snapshot_nor_before_its_time() -> None:
    assert not garbage(log(100, []), NOW, Keep(10))
    assert not garbage(log(100, [50, 80], age=KEEP_FOR - timedelta(seconds=1)), NOW, Keep(10))


def test_the_newest_snapshot_stays() -> None:
    assert garbage(log(100, [20, 99]), NOW, Keep(1)).snapshots == [20]


def test_an_empty_log_has_no_garbage() -> None:
    assert not garbage(Found({}, {}, frozenset(), frozenset()), NOW, Keep(10))


def test_history_goes_when_it_is_too_many_bytes_snapshots_included() -> None:
    found = garbage(log(100, [20, 50, 80], size=10), NOW, Keep(100, size=250))
    assert (found.changes, found.snapshots) == (list(range(50)), [20])
    assert not garbage(log(100, [20, 50, 80], size=10), NOW, Keep(100, size=1030))
    assert garbage(log(100, [20, 50, 99], size=10), NOW, Keep(100, size=1)).changes == list(range(99))


def test_keeping_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 version"):
        Keep(0)
