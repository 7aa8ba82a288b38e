"""Code that changes under processes: who is told, of what, and what an upgrade keeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from node.host.boundary import In, Out
from tests.luaworld import OUTSIDE, World

WATCHER = """
    process.set_options({upgradable = true})
    local events, inbox = process.events(), process.inbox()
    process.send(..., "ready", word)
    while true do
        local picked = channel.select({ events:case_receive(), inbox:case_receive() })
        local value = picked.value
        if picked.channel == inbox then
            if value:topic() == "upgrade" then process.upgrade(nil, ...) end
            process.send(..., "answer", word, #process.get_options())
        else
            process.send(..., "event", value)
        end
    end
"""


@pytest.fixture
def world() -> World:
    world = World()
    library(world, "one")
    world.entry("app:text", 'return { word = require("low").word }', kind="library.lua", imports={"low": "app:low"})
    world.entry("app:other", "return {}", kind="library.lua")
    process(world, "app:watcher", {"text": "app:text", "other": "app:other"})
    return world


def library(world: World, word: str) -> None:
    world.entry("app:low", f'return {{ word = "{word}" }}', kind="library.lua")


def process(world: World, id: str, imports: dict[str, str]) -> None:
    source = f'local word = require("text").word return {{ main = function(...) {WATCHER} end }}'
    world.entry(id, source, imports=imports)


def changed(world: World, *ids: str) -> None:
    world.run([In.CODE_CHANGED, [id.encode() for id in ids]])


def events(world: World) -> list[list[str]]:
    """The sources of the events told, in order."""
    told: list[dict[bytes, Any]] = [payloads[0] for topic, payloads in world.messages() if topic == "event"]
    assert {event[b"kind"] for event in told} <= {b"pid.outdated"}
    return [[source.decode() for source in event[b"sources"]] for event in told]


def test_a_change_of_a_library_of_a_library_is_told_with_all_it_reaches(world: World) -> None:
    world.spawn("app:watcher", OUTSIDE)
    library(world, "two")
    changed(world, "app:low", "app:elsewhere")
    assert events(world) == [["app:low", "app:text", "app:watcher"]]


def test_what_a_process_does_not_use_is_not_told_to_it(world: World) -> None:
    pid = world.spawn("app:watcher", OUTSIDE)
    changed(world, "app:elsewhere")
    assert events(world) == []
    changed(world, "app:other")
    assert events(world) == [["app:other", "app:watcher"]]
    assert world.query(b"inspect", pid)[b"outdated"] is True


def test_code_that_was_not_read_anew_meanwhile_is_told_of_again(world: World) -> None:
    world.spawn("app:watcher", OUTSIDE)
    for _ in range(3):
        changed(world, "app:low")
    assert events(world) == [["app:low", "app:text", "app:watcher"]] * 3


def test_what_was_not_taken_yet_is_joined_each_source_once(world: World) -> None:
    world.entry("app:late", """
        local time = require("time")
        return { main = function(to)
            process.set_options({upgradable = true})
            process.inbox():receive()
            local events = process.events()
            process.send(to, "event", (events:receive()))
            local picked = channel.select({ events:case_receive(), time.after("1ms"):case_receive() })
            process.send(to, "more", picked.channel == events)
        end }
    """, modules=["time"], imports={"text": "app:text", "other": "app:other"})  # fmt: skip
    pid = world.spawn("app:late", OUTSIDE)
    changed(world, "app:low")
    changed(world, "app:other", "app:low")
    world.send(pid, "go")
    assert [sorted(each) for each in events(world)] == [["app:late", "app:low", "app:other", "app:text"]]
    assert ("more", [False]) in world.messages()


def test_a_process_that_did_not_opt_in_hears_nothing_and_keeps_its_code(world: World) -> None:
    world.entry("app:plain", """
        local word = require("text").word
        return { main = function(to)
            local picked = channel.select({ process.events():case_receive(), process.inbox():case_receive() })
            process.send(to, "answer", word, picked.value.kind)
        end }
    """, imports={"text": "app:text"})  # fmt: skip
    pid = world.spawn("app:plain", OUTSIDE)
    library(world, "two")
    changed(world, "app:low")
    (listed,) = world.query(b"list")
    assert (listed[b"pid"], listed[b"version"], listed[b"outdated"]) == (pid, 1, True)
    world.send(pid, "question")
    assert world.messages() == [("answer", [b"one", None])]
    fresh = world.spawn("app:plain", OUTSIDE)
    (listed,) = world.query(b"list")
    assert (listed[b"pid"], listed[b"outdated"]) == (fresh, False)
    world.send(fresh, "question")
    assert world.messages()[-1] == ("answer", [b"two", None])


def test_an_upgrade_runs_the_new_libraries_and_what_it_missed_of_older_code_is_void(world: World) -> None:
    pid = world.spawn("app:watcher", OUTSIDE)
    library(world, "two")
    world.run(
        [1, pid, OUTSIDE, 0, b"upgrade", [], b"", 0],
        [In.CODE_CHANGED, [b"app:low"]],
    )
    assert [payloads for topic, payloads in world.messages() if topic == "ready"] == [[b"one"], [b"two"]]
    assert events(world) == []
    (listed,) = world.query(b"list")
    assert (listed[b"pid"], listed[b"outdated"]) == (pid, False)


def test_an_upgrade_ends_what_streamed_in_and_gives_up_no_name(world: World) -> None:
    half = 'return function(env) return { open = function() return env.stream("feed", "open") end } end'
    world = World(modules={"feed": half})
    world.handlers[(b"feed", b"open")] = lambda *_: [True]
    world.entry("app:old", 'return { main = function() require("feed").open() process.upgrade("app:new") end }',
                modules=["feed"])  # fmt: skip
    world.entry("app:new", "return { main = function() process.inbox():receive() end }")
    pid = world.spawn("app:old", options={b"tracked": True, b"monitor": True})
    assert [item for item in world.out if item[0] == Out.UPGRADED] == [[Out.UPGRADED, pid]]
    assert [item for item in world.out if item[0] == Out.ENDED] == []
    world.send(pid, "end")
    assert [item[1] for item in world.out if item[0] == Out.ENDED] == [pid]


def test_code_whose_import_changed_while_it_was_read_is_read_again_as_a_whole(world: World) -> None:
    """Else a process would run its entry as it was before a changeset with a library as it is after it."""
    world.entry("app:pair", 'return { main = function(to) process.send(to, "pair", "old", require("text").word) end }',
                imports={"text": "app:text", "low": "app:low"})  # fmt: skip
    world.entry("app:text", 'return { word = "old" }', kind="library.lua")
    swapped = False

    original = world._take

    def take(item: list[Any]) -> None:
        nonlocal swapped
        original(item)
        if item[0] == Out.CODE and item[2] == b"app:text" and not swapped:
            swapped = True
            world.entry("app:pair",
                        'return { main = function(to) process.send(to, "pair", "new", require("text").word) end }',
                        imports={"text": "app:text", "low": "app:low"})  # fmt: skip
            world.entry("app:text", 'return { word = "new" }', kind="library.lua")
            world.post([In.CODE_CHANGED, [b"app:pair", b"app:text"]])

    world._take = take  # type: ignore[method-assign]
    world.spawn("app:pair", OUTSIDE)
    assert swapped
    ((_, words),) = world.messages()
    assert words[0] == words[1] == b"new"


def test_the_documented_process_takes_new_code_with_what_it_counted(world: World) -> None:
    page = (Path(__file__).parents[4] / "docs" / "live-change.md").read_text()
    (source,) = re.findall(r"```lua\n(.*?)```", page, re.DOTALL)
    world.entry("app:documented", source)
    pid = world.spawn("app:documented")
    world.send(pid, "job")
    changed(world, "app:documented")
    (listed,) = world.query(b"list")
    assert (listed[b"pid"], listed[b"outdated"]) == (pid, False)
    world.send(pid, "job")
    world.run([9, pid, OUTSIDE, 0, b"enough"])
    assert world.exit_of(pid)[5] == 2
