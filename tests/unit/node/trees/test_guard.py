"""Children of an owned supervisor act under its claim, and only while it holds."""

from __future__ import annotations

import pytest

from node import lasting as module
from node.trees.guard import Guard

TOP, CHILD, OTHER = b"{n1@node:supervisor|1-1s}", b"{n1@app:processes|1-1t}", b"{n1@app:processes|1-3l}"


class Services:
    def __init__(self) -> None:
        self.guarded: set[bytes] = {TOP}
        self.holds = True

    def may_act(self, pid: bytes) -> bool:
        return self.holds or pid not in self.guarded

    def in_doubt(self) -> None: ...

    def kill_owned(self) -> None: ...

    def sure(self) -> None: ...

    def owns(self) -> bool:
        return True


def test_a_child_may_act_while_the_claim_of_its_tree_holds() -> None:
    services = Services()
    guard = Guard(services)
    guard.born(CHILD, TOP)
    assert CHILD in guard.guarded
    assert TOP in guard.guarded
    assert guard.may_act(CHILD)
    services.holds = False
    assert not guard.may_act(CHILD)
    assert guard.may_act(OTHER)
    assert (guard.top_of(CHILD), guard.top_of(OTHER)) == (TOP, OTHER)


def test_children_of_a_tree_that_nobody_owns_are_not_asked_about() -> None:
    guard = Guard(Services())
    guard.born(CHILD, OTHER)
    assert CHILD not in guard.guarded


def test_what_an_ended_child_left_is_held_back_too_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMER", 2)
    services = Services()
    guard = Guard(services)
    pids = [b"%d" % number for number in range(4)]
    for pid in pids:
        guard.born(pid, TOP)
        guard.gone(pid)
    assert [pid in guard.guarded for pid in pids] == [False, False, True, True]
    guard.gone(b"never seen")


def test_with_the_owned_work_ends_what_belongs_to_supervisors_of_other_nodes() -> None:
    ended: list[str] = []
    guard = Guard(Services())
    guard.end_foreign = lambda: ended.append("all")
    guard.kill_owned()
    assert ended == ["all"]
