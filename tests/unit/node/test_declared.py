"""The services the registry declares: which are to run, and who waits for which."""

from __future__ import annotations

import asyncio

from node.declared import Declared
from node.wanted import Wanted
from tests.unit.node.services import service, turns


async def test_who_waits_looks_only_when_what_it_waits_for_may_run() -> None:
    looks: list[str] = []
    running: set[str] = set()

    def runs(wanted: Wanted) -> bool:
        looks.append(wanted.entry.id)
        return wanted.entry.id in running

    declared = Declared(lambda name: None, runs)
    _, first = declared.put(service("app:a", lifecycle={"requires": ["app:db", "app:no-service"]}))
    declared.put(service("app:db"))
    waiting = asyncio.ensure_future(declared.requirements(first))
    await turns()
    assert looks == ["app:db"]
    for number in range(100):
        declared.look_again(f"app:{number}")
        await turns(2)
    assert looks == ["app:db"]
    declared.look_again("app:db")
    await turns()
    assert len(looks) == 2
    assert not waiting.done()
    running.add("app:db")
    declared.look_again("app:db")
    await asyncio.wait_for(waiting, 5)


async def test_who_waits_for_what_is_removed_waits_no_longer() -> None:
    declared = Declared(lambda name: None, lambda wanted: False)
    _, first = declared.put(service("app:a", lifecycle={"requires": ["app:db"]}))
    declared.put(service("app:db"))
    waiting = asyncio.ensure_future(declared.requirements(first))
    await turns()
    assert not waiting.done()
    assert declared.remove("app:db")
    assert not declared.remove("app:db")
    await asyncio.wait_for(waiting, 5)


def test_a_change_of_one_service_is_seen_and_touches_no_other() -> None:
    declared = Declared(lambda name: None, lambda wanted: False)
    declared.put(service("app:a", lifecycle={"requires": ["app:db"]}))
    declared.put(service("app:db", lifecycle={"auto_start": False}))
    assert list(declared.to_run) == ["app:a", "app:db"]
    _, changed = declared.put(service("app:a", input=["other"], lifecycle={"requires": ["app:db"]}))
    assert declared.to_run["app:a"] is changed
    declared.put(service("app:off", lifecycle={"auto_start": False}))
    declared.put(service("app:off", input=["other"], lifecycle={"auto_start": False}))
    assert declared.off == ["app:off"]
    declared.put(service("app:a"))
    assert declared.off == ["app:db", "app:off"]


def test_a_change_that_means_nothing_is_none() -> None:
    declared = Declared(lambda name: None, lambda wanted: False)
    former, first = declared.put(service())
    assert former is None
    assert declared.put(service(comment="said better")) == (first, first)
