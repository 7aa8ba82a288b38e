from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cluster.registry.collect import KEEP_FOR, Found, garbage
from cluster.registry.record import Blob, ChangeRecord, SnapshotRecord

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def log(
    versions: int,
    snapshots: list[int],
    *,
    age: timedelta = 2 * KEEP_FOR,
    extra: frozenset[str] = frozenset(),
    uploads: frozenset[str] = frozenset(),
) -> Found:
    changes = {v: ChangeRecord(Blob(f"c{v}", 1, ""), "me", NOW - age, "", 1) for v in range(versions)}
    named = {v: SnapshotRecord(Blob(f"s{v}", 1, "")) for v in snapshots}
    blobs = frozenset({f"c{v}" for v in changes} | {f"s{v}" for v in named} | extra)
    return Found(changes, named, uploads, blobs)


def test_only_blobs_that_nothing_names_are_garbage() -> None:
    found = garbage(log(3, [1], extra=frozenset({"dead", "living"}), uploads=frozenset({"living"})), NOW, 100, KEEP_FOR)
    assert (found.blobs, found.changes, found.snapshots) == (["dead"], [], [])


def test_history_goes_up_to_the_snapshot_from_which_the_oldest_kept_version_is_rebuilt() -> None:
    found = garbage(log(100, [20, 50, 80]), NOW, 30, KEEP_FOR)
    assert found.changes == list(range(50))
    assert found.snapshots == [20]
    assert found.blobs == []


def test_nothing_goes_without_a_snapshot_nor_before_its_time() -> None:
    assert not garbage(log(100, []), NOW, 10, KEEP_FOR)
    assert not garbage(log(100, [50, 80], age=KEEP_FOR - timedelta(seconds=1)), NOW, 10, KEEP_FOR)


def test_the_newest_snapshot_stays() -> None:
    assert garbage(log(100, [20, 99]), NOW, 1, KEEP_FOR).snapshots == [20]


def test_an_empty_log_has_no_garbage() -> None:
    assert not garbage(Found({}, {}, frozenset(), frozenset()), NOW, 10, KEEP_FOR)
