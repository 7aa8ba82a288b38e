"""Members, names and claims over batches of the watch: re-lists, changes of owner, failing observers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.claims import Claim, Claims
from cluster.etcd import Batch, KeyEvent, KeyValue
from cluster.heirs import Heir, Heirs
from cluster.keys import Keys
from cluster.members import Description, Member, Members, NodeState
from cluster.migration.items import Holding
from cluster.names import Names
from cluster.tasks import Tasks

KEYS = Keys("unit")
A1, B1 = "{a@h|1-1}", "{b@h|2-1}"


class Watch:
    """A watch whose batches the test makes."""

    def __init__(self) -> None:
        self.handler: Callable[[Batch], None] = lambda batch: None
        self.applied = 0

    def subscribe(self, prefix: str, handler: Callable[[Batch], None]) -> None:
        self.handler = handler

    def show(self, *events: KeyEvent, relist: bool = False) -> None:
        self.applied = max([self.applied, *(event.kv.mod_revision for event in events)])
        self.handler(Batch(self.applied, list(events), relist))


async def at_once(revision: int, seconds: float) -> None:
    """Every node shows everything."""


def put(key: str, value: bytes, create: int, mod: int | None = None, lease: int = 9) -> KeyEvent:
    return KeyEvent(False, KeyValue(key, value, create, mod or create, 1, lease))


def gone(key: str, revision: int) -> KeyEvent:
    return KeyEvent(True, KeyValue(key, b"", 0, revision, 0, 0))


def no_etcd() -> Any:
    """Watched copies need no etcd."""
    return None


def watched(kind: Callable[[Any], Any]) -> tuple[Watch, Any]:
    watch = Watch()
    return watch, kind(watch)


def test_a_new_epoch_in_a_re_list_is_told_as_gone_and_joined() -> None:
    watch, members = watched(lambda w: Members(w, KEYS))
    told: list[tuple[int, int]] = []

    def tell(before: Member | None, after: Member | None) -> None:
        told.append((before.epoch if before else 0, after.epoch if after else 0))

    members.on_change(tell)
    value = Description(1, NodeState.READY).to_json()
    watch.show(put(KEYS.node("n"), value, 5))
    watch.show(put(KEYS.node("n"), value, 8), relist=True)
    watch.show(put(KEYS.node("n"), value, 8, mod=8), relist=True)
    assert told == [(0, 5), (5, 0), (0, 8)]


def test_a_failing_observer_does_not_keep_the_copy_or_the_others_behind() -> None:
    watch, members = watched(lambda w: Members(w, KEYS))
    told: list[str] = []

    def fail(before: Member | None, after: Member | None) -> None:
        raise RuntimeError("this observer is broken")

    members.on_change(fail)
    members.on_change(lambda before, after: told.append(after.node))
    watch.show(*(put(KEYS.node(name), Description(1).to_json(), 5) for name in ("x", "y")))
    assert told == ["x", "y"]
    assert [member.node for member in members.all()] == ["x", "y"]


def test_a_name_that_changed_hands_in_a_re_list_is_revoked_from_its_owner() -> None:
    watch, names = watched(lambda w: Names(no_etcd(), w, KEYS, Tasks("test"), lambda: 9, at_once))
    changes: list[tuple[str, str | None, int]] = []
    revoked: list[tuple[str, str]] = []
    names.on_change(lambda *change: changes.append(change))
    names.on_revoked(lambda *lost: revoked.append(lost))
    names.arrived(A1, [Holding(KEYS.name("x"), A1.encode(), 3)], 5, lease=9)
    watch.show(put(KEYS.name("x"), A1.encode(), 5))
    watch.show(put(KEYS.name("x"), B1.encode(), 9, lease=8), relist=True)
    watch.show(gone(KEYS.name("x"), 11))
    assert changes == [("x", A1, 5), ("x", B1, 9), ("x", None, 0)]
    assert revoked == [("x", A1)]
    assert names.names_of(A1) == names.names_of(B1) == []


def test_a_claim_that_changed_hands_in_a_re_list_is_two_changes() -> None:
    watch, claims = watched(lambda w: Claims(no_etcd(), w, KEYS, "a"))
    changes: list[tuple[int, int]] = []

    def tell(before: Claim | None, after: Claim | None) -> None:
        changes.append((before.token if before else 0, after.token if after else 0))

    claims.on_change(tell)
    watch.show(put(KEYS.service("app:x", 0), b"a", 5))
    watch.show(put(KEYS.service("app:x", 0), b"b", 9), relist=True)
    assert changes == [(0, 5), (5, 0), (0, 9)]
    assert [claim.node for claim in claims.all()] == ["b"]


def test_heirs_come_and_go_and_a_key_nobody_can_read_keeps_none_from_being_seen() -> None:
    watch, heirs = watched(lambda w: Heirs(no_etcd(), w, KEYS, "a"))
    told: list[int] = []
    heirs.on_change(lambda: told.append(len(heirs.all())))
    watch.show(put(f"{KEYS.heirs}nonsense", b"b", 4), put(KEYS.heir("app:x", 0), b"b", 5))
    watch.show(put(KEYS.heir_begun("app:x", 0), b"b", 6))
    assert heirs.all() == [Heir("app:x", 0, "b", 5)]
    assert heirs.has_begun("app:x", 0)
    watch.show(gone(KEYS.heir_begun("app:x", 0), 7), gone(KEYS.heir("app:x", 0), 7))
    assert heirs.all() == []
    assert not heirs.has_begun("app:x", 0)
    assert told == [1, 1, 0]
