from __future__ import annotations

from cluster.registry import Entry, OverlayStatus, RegistryState, Verdict
from cluster.registry.changeset import Fold
from cluster.registry.folding import Refused, Settled, judge
from cluster.registry.overlay import Overlay

STATE = RegistryState.of(
    [Entry("a:x", "registry.entry", {}, {"n": 1}), Entry("a:code", "process.lua")], 4, {"a:x": Overlay({"n": 2}, 70)}
)


def test_what_the_state_holds_is_settled() -> None:
    assert judge(STATE, "a:x", b'{"n": 2}', 70) == Settled()
    assert judge(STATE, "a:none", None, 0) == Settled()


def test_a_new_value_is_folded() -> None:
    assert judge(STATE, "a:x", b'{"n": 3}', 71) == Fold("a:x", {"n": 3}, 71)


def test_the_same_value_put_again_is_folded_once_more_under_its_revision() -> None:
    assert judge(STATE, "a:x", b'{"n": 2}', 71) == Fold("a:x", {"n": 2}, 71)


def test_a_deleted_key_gives_the_base_back() -> None:
    assert judge(STATE, "a:x", None, 0) == Fold("a:x", None, 0)


def test_a_bad_value_or_entry_is_refused() -> None:
    assert isinstance(judge(STATE, "a:x", b"[", 71), Refused)
    assert isinstance(judge(STATE, "a:code", b"{}", 71), Refused)
    assert isinstance(judge(STATE, "a:none", b"{}", 71), Refused)


def test_a_status_survives_its_stored_form_and_rubbish_is_none() -> None:
    status = OverlayStatus(Verdict.ERROR, 71, 75, 4, "why")
    assert OverlayStatus.decode(status.encode()) == status
    endless = b'{"status":"error","mod":1e999,"revision":1,"version":1,"reason":""}'
    for raw in (b"", b"[]", b"{}", b'{"status":"fine"}', b"[" * 99_999, endless):
        assert OverlayStatus.decode(raw) is None


def test_a_status_says_the_same_whenever_it_was_read() -> None:
    status = OverlayStatus(Verdict.ERROR, 71, 75, 4, "why")
    assert status.says_the_same(OverlayStatus(Verdict.ERROR, 71, 99, 5, "why"))
    assert not status.says_the_same(OverlayStatus(Verdict.APPLIED, 71, 75, 4))
    assert not status.says_the_same(None)
