"""The agenda: what may be worked on, after what, and when something that failed is tried again."""

from __future__ import annotations

from itertools import chain
from typing import Any

from cluster.registry import Entry, RegistryState
from node.agenda import NEVER, Agenda, Item


def host(name: str = "host", **data: Any) -> Entry:
    return Entry(f"app:{name}", "process.host", {}, data)


def service(name: str = "s", host: str = "app:host", **data: Any) -> Entry:
    return Entry(f"app:{name}", "process.service", {}, {"process": "app:p", "host": host, **data})


def variable(default: str) -> Entry:
    return Entry("app:level", "env.variable", {}, {"variable": "LEVEL", "default": default})


CODE = Entry("app:p", "process.lua", {}, {"source": "return 1"})


class World:
    """An agenda and whoever works on it."""

    def __init__(self) -> None:
        self.agenda = Agenda(lambda kind: kind != "process.lua")
        self.version = -1
        self.now = 0.0

    def says(self, *entries: Entry) -> None:
        self.version += 1
        self.agenda.aim(RegistryState.of(entries, self.version))

    def begin(self) -> list[Item]:
        items = self.agenda.due(self.now)
        for item in items:
            self.agenda.begin(item)
        return items

    def work(self, **reasons: str) -> list[list[str]]:
        """Work until nothing is due; what was worked on together, ``-`` before what was removed."""
        rounds = []
        while items := self.begin():
            rounds.append([("-" if item.wanted is None else "") + item.id.partition(":")[2] for item in items])
            for item in items:
                self.agenda.finish(item, item.wanted, reasons.get(item.id.partition(":")[2], ""), self.now)
        return rounds


def test_what_is_named_comes_first_and_goes_last() -> None:
    world = World()
    world.says(host(), service(), service("other"), CODE)
    assert world.work() == [["host"], ["other", "s"]]
    world.says(CODE)
    assert world.work() == [["-other", "-s"], ["-host"]]


def test_a_service_that_moves_lets_its_former_host_go_only_then() -> None:
    world = World()
    world.says(host("old"), service(host="app:old"))
    world.work()
    world.says(host("new"), service(host="app:new"))
    assert world.work() == [["new"], ["s"], ["-old"]]


def test_only_what_changed_is_touched() -> None:
    world = World()
    world.says(host(), host("second"), service())
    world.work()
    world.says(host(), host("second"), service(input=[1]))
    assert world.work() == [["s"]]
    world.says(host(), host("second"), service(input=[1]))
    assert world.work() == []
    assert world.agenda.version() == 2


def test_a_failing_entry_is_tried_again_later_and_later_while_nobody_else_is_touched() -> None:
    world = World()
    world.says(host(), host("bad"), service(), service("needs", host="app:bad"))
    assert world.work(bad="no room") == [["bad", "host"], ["needs", "s"]], "its users go on"
    assert world.agenda.version() == 0
    (failing,) = world.agenda.failing()
    assert (failing.id, failing.version, failing.reason) == ("app:bad", 0, "no room")
    waits = []
    for _ in range(9):
        due = world.agenda.next_due()
        assert due is not None
        waits.append(due - world.now)
        world.now = due - 0.01
        assert world.work() == []
        world.now = due
        assert world.work(bad="no room") == [["bad"]]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    world.now += 30
    assert world.work() == [["bad"]]
    assert world.agenda.failing() == []
    assert world.agenda.next_due() is None


def test_its_own_change_and_one_of_what_it_names_bring_it_back_at_once() -> None:
    world = World()
    world.says(host(), service())
    world.work(s="no such variable")
    world.says(host(), service(input=[1]))
    assert world.work(s="no such variable") == [["s"]]
    world.says(host(limits=1), service(input=[1]))
    assert world.work() == [["host"], ["s"]]
    assert world.agenda.failing() == []


def test_a_later_version_leaves_the_version_of_a_failure_as_it_is() -> None:
    world = World()
    world.says(host())
    world.work(host="no room")
    world.says(host(), host("second"))
    assert world.work() == [["second"]]
    assert [(item.id, item.version) for item in world.agenda.failing()] == [("app:host", 0)]
    assert world.agenda.version() == 1


def test_what_changes_while_it_is_worked_on_is_done_again() -> None:
    world = World()
    world.says(host())
    (item,) = world.begin()
    started_with = item.wanted
    world.says(host(limits=1))
    assert world.begin() == [], "one at a time"
    assert world.agenda.version() == NEVER + 1
    world.agenda.finish(item, started_with, "", world.now)
    assert world.agenda.version() == 0
    assert world.work() == [["host"]]
    assert world.agenda.version() == 1
    assert world.agenda.done["app:host"].data == {"limits": 1}


def test_an_entry_that_was_never_there_and_goes_is_forgotten_with_its_failure() -> None:
    world = World()
    world.says(host())
    world.work(host="no room")
    world.says()
    assert world.work() == [["-host"]]
    assert world.agenda.items == {}


def test_variables_that_change_bring_back_what_has_a_placeholder() -> None:
    world = World()
    plain, used = service(), service("used", input=["${env:LEVEL}"])
    world.says(host(), plain, used, variable("info"))
    world.work()
    world.says(host(), plain, used, variable("debug"))
    assert world.work() == [["level"], ["used"]]


def test_a_circle_that_was_let_in_is_cut() -> None:
    world = World()
    world.says(service("a", host="app:b"), service("b", host="app:a"))
    assert sorted(chain(*world.work())) == ["a", "b"]
    world.says()
    assert sorted(chain(*world.work())) == ["-a", "-b"]
    assert world.agenda.items == {}
