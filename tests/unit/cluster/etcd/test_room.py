from __future__ import annotations

from cluster.etcd import Status
from cluster.etcd.room import DEFAULT_QUOTA, troubles


def status(size: int = 1000, alarms: tuple[str, ...] = ()) -> Status:
    return Status("3.5.21", size, 7, 3, size // 2, alarms)


def test_an_etcd_with_room_has_no_troubles() -> None:
    assert troubles(status(), DEFAULT_QUOTA, is_uncompacted=False) == {}


def test_a_full_etcd_is_told_once_and_with_the_remedy() -> None:
    found = troubles(status(DEFAULT_QUOTA, ("NOSPACE",)), DEFAULT_QUOTA, is_uncompacted=False)
    assert list(found) == ["NOSPACE"]
    assert "2048 MiB" in found["NOSPACE"]
    assert "etcdctl alarm disarm" in found["NOSPACE"]


def test_one_that_gets_full_is_told_before_it_is() -> None:
    found = troubles(status(DEFAULT_QUOTA * 9 // 10), DEFAULT_QUOTA, is_uncompacted=False)
    assert list(found) == ["nearly full"]
    assert "1843 MiB (922 MiB in use)" in found["nearly full"]
    assert troubles(status(DEFAULT_QUOTA // 2), DEFAULT_QUOTA, is_uncompacted=False) == {}


def test_members_that_disagree_and_history_that_nobody_throws_away_are_told() -> None:
    assert list(troubles(status(alarms=("CORRUPT",)), DEFAULT_QUOTA, is_uncompacted=True)) == ["CORRUPT", "uncompacted"]
