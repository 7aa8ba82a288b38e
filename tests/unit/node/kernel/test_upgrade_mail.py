"""An upgrade keeps every message: what waits, and what was handed to a coroutine that has not run since.

Each test puts a process into a state in which something that arrived is neither in the mailbox nor
known to the program, and has it start over there.
"""

from __future__ import annotations

import pytest

from cluster.envelope import Kind
from node.host.boundary import In, Item
from tests.luaworld import OUTSIDE, World

READ = """
    local function read_all()
        local inbox, found = process.inbox(), {}
        while true do
            local picked = channel.select({ inbox:case_receive(), default = true })
            if picked.default then return found end
            local message = picked.value
            found[#found + 1] = message:topic() .. tostring(message:payload():data())
        end
    end
"""


def upgraded(world: World, before: str) -> bytes:
    """A process that runs ``before`` until it calls ``again()``; then it returns what is in its mailbox."""
    return world.spawn_body(
        READ
        + f"""
        if ... then return read_all() end
        local function again() process.upgrade(nil, true) end
        {before}""",
        modules=("coroutine",),
    )


def message(pid: bytes, topic: str, *payloads: object, sender: bytes = OUTSIDE) -> Item:
    return [int(Kind.MESSAGE), pid, sender, 0, topic.encode(), list(payloads), b"", 0]


def cancel(pid: bytes, reason: str) -> Item:
    return [int(Kind.CANCEL), pid, OUTSIDE, 0, reason.encode()]


RECEIVERS = {
    "the inbox": "local ch = process.inbox() coroutine.spawn(function() ch:receive() end)",
    "a select on the inbox": (
        "local ch, no = process.inbox(), channel.new() coroutine.spawn(function()"
        " channel.select({ no:case_receive(), ch:case_receive() }) end)"
    ),
    "a topic": "local ch = process.listen('m') coroutine.spawn(function() ch:receive() end)",
    "a topic with messages": (
        "local ch = process.listen('m', { message = true }) coroutine.spawn(function() ch:receive() end)"
    ),
    "a select on a topic": (
        "local ch = process.listen('m') coroutine.spawn(function() channel.select({ ch:case_receive() }) end)"
    ),
    "a channel of its own": (
        "local ch = channel.new() subscribe('m', ch) coroutine.spawn(function() ch:receive() end)"
    ),
    "a coroutine of a coroutine": (
        "local ch = process.inbox() coroutine.spawn(function() coroutine.wrap(function() ch:receive() end)() end)"
    ),
    "two coroutines": (
        "local ch = process.listen('m') for _ = 1, 2 do coroutine.spawn(function() ch:receive() end) end"
    ),
    "two coroutines of which one received before": (
        "local ch = process.listen('m') coroutine.spawn(function() ch:receive() ch:receive() end)"
        " coroutine.spawn(function() ch:receive() ch:receive() end)"
    ),
}


@pytest.mark.parametrize("receiver", RECEIVERS, ids=str)
def test_what_a_coroutine_was_handed_and_never_saw_is_there_again(world: World, receiver: str) -> None:
    pid = upgraded(world, f"local events = process.events() {RECEIVERS[receiver]} events:receive() again()")
    if "before" in receiver:
        world.run(message(pid, "m", -1), message(pid, "m", 0))
    world.run(cancel(pid, "go"), *(message(pid, "m", number) for number in range(1, 5)))
    assert world.exit_of(pid)[5] == [b"m1", b"m2", b"m3", b"m4"]


def test_it_is_there_in_order_of_arrival_among_all_topics(world: World) -> None:
    pid = upgraded(
        world,
        """local a, b, inbox, events = process.listen("a"), process.listen("b"), process.inbox(), process.events()
        for _, ch in ipairs({ a, b }) do coroutine.spawn(function() ch:receive() end) end
        events:receive() again()""",
    )
    topics = "cabcabab"
    world.run(cancel(pid, "go"), *(message(pid, topic, number) for number, topic in enumerate(topics)))
    assert world.exit_of(pid)[5] == [f"{topic}{number}".encode() for number, topic in enumerate(topics)]


def test_several_payloads_none_and_nothing_come_back_as_they_were(world: World) -> None:
    pid = world.spawn_body(
        """local function shown(message)
            local payload = message:payload()
            if payload == nil then return "nothing" end
            if not payload.data then
                return { #payload, payload[1]:data(), payload[2]:data() == nil, payload[3]:data() }
            end
            return { message:from(), message:topic(), payload:data() }
        end
        if ... then
            local inbox = process.inbox()
            return { shown(inbox:receive()), shown(inbox:receive()), shown(inbox:receive()), shown(inbox:receive()) }
        end
        local m, events = process.listen("m"), process.events()
        for _ = 1, 3 do coroutine.spawn(function() m:receive() end) end
        events:receive() process.upgrade(nil, true)""",
        modules=("coroutine",),
    )
    bodies: list[list[object]] = [[1, None, 3], [], [False], [{b"a": 1}]]
    world.run(cancel(pid, "go"), *(message(pid, "m", *payloads) for payloads in bodies))
    shown = world.exit_of(pid)[5]
    assert shown[0] == [3, 1, True, 3]
    assert shown[1] == b"nothing"
    assert shown[2:] == [[OUTSIDE, b"m", False], [OUTSIDE, b"m", {b"a": 1}]]


def test_what_a_full_channel_of_its_own_did_not_take_is_there_again(world: World) -> None:
    pid = upgraded(
        world, "local ch, events = channel.new(1), process.events() subscribe('m', ch) events:receive() again()"
    )
    world.run(*(message(pid, "m", number) for number in range(4)))
    world.run(cancel(pid, "go"))
    assert world.exit_of(pid)[5] == [b"m1", b"m2", b"m3"]  # the channel had taken the first: its size is the buffer


def test_what_a_coroutine_has_looked_at_is_not_there_again(world: World) -> None:
    pid = upgraded(
        world,
        """local inbox, passed, events = process.inbox(), channel.new(), process.events()
        coroutine.spawn(function() while true do passed:receive() end end)
        coroutine.spawn(function() while true do passed:send(inbox:receive()) end end)
        events:receive() again()""",
    )
    world.run(message(pid, "m", 1), message(pid, "m", 2))
    world.run(cancel(pid, "go"))
    assert world.exit_of(pid)[5] in ([], None)


def test_a_message_that_one_coroutine_passes_to_another_is_the_programs(world: World) -> None:
    pid = upgraded(
        world,
        """local inbox, passed = process.inbox(), channel.new()
        coroutine.spawn(function() passed:receive() end)
        passed:send(inbox:receive()) again()""",
    )
    world.run(message(pid, "m", 1), message(pid, "m", 2))
    assert world.exit_of(pid)[5] == [b"m2"]


def test_events_that_a_coroutine_was_handed_and_never_saw_are_there_again(world: World) -> None:
    pid = world.spawn_body(
        """local events = process.events()
        if ... then
            local first, second, third = events:receive(), events:receive(), events:receive()
            return { first.reason, second.reason, third.reason }
        end
        local inbox = process.inbox()
        coroutine.spawn(function() events:receive() end)
        coroutine.spawn(function() channel.select({ events:case_receive() }) end)
        inbox:receive() process.upgrade(nil, true)""",
        modules=("coroutine",),
    )
    world.run(message(pid, "m", 1), *(cancel(pid, str(number)) for number in range(3)))
    assert world.exit_of(pid)[5] == [b"0", b"1", b"2"]


def test_a_channel_shows_what_it_showed_before(world: World) -> None:
    """What wakes a receiver says where it came from; the program sees true all the same."""
    pid = world.spawn_body(
        """local inbox, topic, events = process.inbox(), process.listen("t"), process.events()
        local found = {}
        local function note(_, ok, ...) found[#found + 1] = { ok, select("#", ...) } end
        note(inbox:receive()) note(topic:receive()) note(events:receive())
        for _, ch in ipairs({ inbox, topic, events }) do
            local picked = channel.select({ ch:case_receive() })
            found[#found + 1] = { picked.ok, picked.channel == ch }
        end
        coroutine.spawn(function() topic:close() end)
        note(topic:receive())
        return found""",
        modules=("coroutine",),
    )
    for _ in range(2):
        world.run(message(pid, "m", 1))
        world.run(message(pid, "t", 1))
        world.run(cancel(pid, "x"))
    assert world.exit_of(pid)[5] == [[True, 0]] * 3 + [[True, True]] * 3 + [[False, 0]]


def test_a_call_elsewhere_that_nobody_waits_for_any_more_is_given_up(world: World) -> None:
    world.entry("app:child", "return { main = function() process.inbox():receive() return 5 end }")
    pid = world.spawn_body(
        """if ... then local e = process.events():receive() return e.kind end
        coroutine.spawn(function() process.exec("app:child", "app:processes") end)
        process.inbox():receive() process.upgrade(nil, true)""",
        modules=("coroutine",),
    )
    (child,) = [row[b"pid"] for row in world.query(b"list") if row[b"entry"] == b"app:child"]
    world.run(message(pid, "go"))
    assert world.query(b"inspect", child)[b"watchers"] == []
    world.run(message(child, "end"))
    assert not world.has_ended(pid)
    world.run(cancel(pid, "x"))
    assert world.exit_of(pid)[5] == b"pid.cancel"


@pytest.mark.parametrize("coroutines", [1, 7])
def test_under_load_nothing_is_lost_doubled_or_reordered(world: World, coroutines: int) -> None:
    """Messages by four ways into a process that starts over again and again; several coroutines keep no order."""
    world.entry(
        "app:loaded",
        """local function main(log, coroutines, rounds)
            local inbox, raw, own = process.inbox(), process.listen("raw"), channel.new()
            local whole = process.listen("whole", { message = true })
            subscribe("own", own)
            local function take(ch, name, data)
                for _ = 1, coroutines do
                    coroutine.spawn(function()
                        while true do local v = ch:receive() log[name][#log[name] + 1] = data(v) end
                    end)
                end
            end
            local function same(v) return v end
            local function of_message(m) return m:payload():data() end
            take(raw, "raw", same) take(own, "own", same) take(whole, "whole", of_message)
            for _ = 1, rounds % 5 do
                local m = inbox:receive()
                if m:topic() == "end" then return log end
                log.inbox[#log.inbox + 1] = of_message(m)
            end
            process.upgrade(nil, log, coroutines, rounds + 1)
        end
        return { main = main }""",
        modules=("coroutine",),
    )
    names = [b"inbox", b"raw", b"whole", b"own"]
    pid = world.spawn("app:loaded", {name: [] for name in names}, coroutines, 1)
    for batch in range(40):
        world.run(*(message(pid, names[n % 4].decode(), batch * 40 + n) for n in range(40)))
    for _ in range(4):
        world.run(message(pid, "end"))
    log = world.exit_of(pid)[5]
    for number, name in enumerate(names):
        found = log[name] if coroutines == 1 else sorted(log[name])
        assert found == list(range(number, 1600, 4)), name


def test_queries_do_not_see_a_stranger(world: World) -> None:
    pid = world.spawn_body("process.inbox():receive()")
    (row,) = world.query(b"list")
    assert (row[b"migratable"], row[b"supervised"], row.get(b"moving")) == (False, False, None)
    assert world.run([In.MOVED, [[b"9-9", b"n3"]]]) == []
    world.send(pid, "go")


def test_a_large_state_is_kept(world: World) -> None:
    """What a process hands over to itself is no message: it may be much more than one."""
    pid = world.spawn_body(
        """local given = ...
        if given then
            local sum = 0
            for _, pair in ipairs(given) do sum = sum + pair[1] end
            return { #given, sum, given[7].shared == given[8].shared }
        end
        local list, shared = {}, {}
        for i = 1, 100000 do list[i] = { i, "a text of some length", shared = shared } end
        process.upgrade(nil, list)"""
    )
    assert world.exit_of(pid)[5] == [100_000, 5_000_050_000, True]


def test_a_state_without_end_is_refused(world: World) -> None:
    pid = world.spawn_body(
        """local list = {}
        for i = 1, 20000 do list[i] = { ("x"):rep(10000) } end
        local ok, err = pcall(process.upgrade, nil, list)
        return { ok, tostring(err) }"""
    )
    ok, problem = world.exit_of(pid)[5]
    assert ok is False
    assert b"over the limit of 67108864 bytes" in problem
