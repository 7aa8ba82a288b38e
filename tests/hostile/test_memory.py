"""Who fills the VM dies of it, and nobody else.

Growers of every sort among a hundred processes that work and hold little; jumps past the limit in one call;
and many small processes of which none is at fault.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from cluster.envelope import Kind
from node.host.boundary import Item
from node.host.kernel import VmConfig
from tests.luaworld import OUTSIDE, World

MIB = 1024 * 1024
INNOCENTS, BUSY, RUNS = 100, 5, 10
INNOCENT = """return { main = function(busy)
    local kept, count, inbox = {}, 0, process.inbox()
    local function work()
        for i = 1, 100 do
            count = count + 1
            kept[count % 40] = { number = count, text = ("innocent "):rep(3) .. count }
        end
    end
    repeat
        work()
        local cases = { inbox:case_receive(), default = busy }
    until not channel.select(cases).default
    work()
    for i = 0, 39 do
        local one = kept[i]
        assert(one.number % 40 == i and one.text == ("innocent "):rep(3) .. one.number)
    end
    return "finished"
end }"""
GROWERS = {
    "table": "local t = {} while true do t[#t + 1] = { #t, name = 'n' .. #t } end",
    "string": "local t = {} while true do t[#t + 1] = ('x'):rep(20000) .. #t end",
    "closure": "local t = {} while true do local x = #t t[x + 1] = function() return t, x end end",
    "coroutine": "local t = {} while true do local co = coroutine.create(coroutine.yield) coroutine.resume(co) "
    "t[#t + 1] = co end",
    "mailbox": "local text = ('x'):rep(3000) local n = 0 while true do n = n + 1 "
    "process.send(process.pid(), 't', { text .. n, n }) end",
}
KILLED = b"killed: memory"


def run(world: World, seconds: float, until: Any = None) -> None:
    """Let it run for a while, however busy it is."""
    try:
        world.run(seconds=seconds, until=until)
    except TimeoutError:
        pass


def exits(world: World) -> dict[bytes, Item]:
    return {item[2]: item for item in world.out if item[0] == Kind.EXIT}


def start(world: World, source: str) -> int:
    world.entry("app:bad", f"local function main(...) {source}\nend return {{ main = main }}")
    return world.post_spawn("app:bad")


def start_innocents(world: World, count: int, busy: int = 0) -> list[int]:
    """Some that work without end beside many that have worked and wait; all hold something."""
    world.entry("app:innocent", INNOCENT)
    return [world.post_spawn("app:innocent", number < busy) for number in range(count)]


def finish(world: World, asked: list[int]) -> list[Item]:
    """Tell the innocents to end; how they did."""
    return end_all(world, [world.reply(reference)[5] for reference in asked])


def end_all(world: World, pids: list[bytes]) -> list[Item]:
    """Send each one message more; how they ended."""
    for pid in pids:
        world.post([int(Kind.MESSAGE), pid, OUTSIDE, 0, b"end", [], b"", 0])
    run(world, 20, lambda: all(world.has_ended(pid) for pid in pids))
    return [world.exit_of(pid) for pid in pids]


@pytest.mark.parametrize("name", GROWERS)
def test_in_ten_runs_each_grower_dies_and_no_innocent_does(name: str) -> None:
    for number in range(RUNS):
        world = World(VmConfig(max_memory=16 * MIB))
        before = start_innocents(world, INNOCENTS // 2, BUSY)
        bad = start(world, GROWERS[name])
        after = start_innocents(world, INNOCENTS // 2)
        run(world, 20, lambda world=world: exits(world))
        ended = exits(world)
        assert list(ended) == [world.reply(bad)[5]], f"run {number}: {ended}"
        assert ended[world.reply(bad)[5]][6][b"message"] == KILLED, f"run {number}: {ended}"
        for exit in finish(world, before + after):
            assert exit[5:] == [b"finished", None], f"run {number}: an innocent ended with {exit}"
        assert world.complaints() == []


JUMPS = {
    "string.rep": "local s = ('x'):rep(50000000)",
    "string.rep of a list": "local s = ('ab'):rep(20000000, ', ')",
    "table.concat": "local t, s = {}, ('x'):rep(100000) for i = 1, 500 do t[i] = s end local all = table.concat(t)",
    "table.create": "local t = table.create(10000000) for i = 1, 10000000 do t[i] = i end",
    "a concatenation": "local s = ('x'):rep(6000000) s = s .. s .. s .. s",
    "gsub": "local s = ('x'):rep(4000000):gsub('x', 'yyyyyyyy')",
    "string.format": "local s = ('x'):rep(3000000) s = string.format('%s%s%s%s%s%s%s%s', s, s, s, s, s, s, s, s)",
    "table.unpack": "local t = {} for i = 1, 900000 do t[i] = i end local u = { table.unpack(t) }",
}


@pytest.mark.parametrize("name", JUMPS)
def test_one_jump_past_the_limit_fails_only_the_step_that_made_it(name: str) -> None:
    world = World(VmConfig(max_memory=16 * MIB))
    before = start_innocents(world, 10, BUSY)
    bad = start(world, f"{JUMPS[name]} return 'went on'")
    after = start_innocents(world, 10)
    run(world, 20, lambda: exits(world))
    ((pid, exit),) = exits(world).items()
    assert pid == world.reply(bad)[5]
    assert exit[6] is not None, f"it ended with {exit[5]!r}"
    assert exit[6][b"message"] == KILLED or b"too " in exit[6][b"message"] or b"limit" in exit[6][b"message"], exit
    assert [one[5] for one in finish(world, before + after)] == [b"finished"] * 20
    assert world.main("return 1") == 1
    assert world.complaints() == []


def test_a_process_that_catches_the_error_of_its_jump_dies_all_the_same() -> None:
    world = World(VmConfig(max_memory=16 * MIB))
    exit = world.outcome("local ok, problem = pcall(string.rep, 'x', 50000000) return ok")
    assert exit[6] is None or exit[6][b"message"] == KILLED
    assert world.main("return 1") == 1


SLEEPER = """return { main = function(size)
    local held = {}
    for i = 1, size do held[i] = { i } end
    local inbox = process.inbox()
    while true do
        local message = inbox:receive()
        if message:topic() == "end" then return #held end
    end
end }"""


def test_many_small_processes_are_not_killed_but_nothing_more_starts_until_some_end() -> None:
    world = World(VmConfig(max_memory=16 * MIB))
    world.entry("app:sleeper", SLEEPER)
    started: list[bytes] = []
    refused: list[Any] = []
    deadline = time.monotonic() + 20
    while not refused and time.monotonic() < deadline:
        asked = [world.post_spawn("app:sleeper", 200) for _ in range(50)]
        run(world, 5)
        replies = [world.reply(reference) for reference in asked]
        started += [reply[5] for reply in replies if reply[4] == 0]
        refused += [reply[5] for reply in replies if reply[4] != 0]
    assert refused[0][b"kind"] == b"RateLimited"
    assert b"short of memory" in refused[0][b"message"]
    assert exits(world) == {}
    assert len(started) > 200

    first = started[0]
    for number in range(40):  # mailboxes take some, not all: what waits there fills the VM too
        world.post([int(Kind.MESSAGE), first, OUTSIDE, 0, b"hold", [number], b"", 0])
    run(world, 5)
    assert not world.has_ended(first)

    for pid in started[: len(started) // 2]:
        world.post([int(Kind.MESSAGE), pid, OUTSIDE, 0, b"end", [], b"", 0])
    run(world, 5)
    assert {exit[5] for exit in exits(world).values()} == {200}
    for _ in range(5):  # it looks again by itself
        wait = world.kernel.step([]).wait
        if not world.kernel.short:
            break
        assert wait is not None, "nobody looks again"
        world.clock.passed += wait + 0.001
    assert not world.kernel.short
    reference = world.post_spawn("app:sleeper", 1)
    run(world, 5)
    assert world.reply(reference)[4] == 0


def test_one_that_fills_the_vm_with_processes_is_refused_more_and_the_others_are_served() -> None:
    world = World(VmConfig(max_memory=16 * MIB))
    world.entry("app:sleeper", SLEEPER)
    innocents = start_innocents(world, 10)
    bad = start(
        world,
        """local started = 0
        while true do
            local pid, err = process.spawn('app:sleeper', 'app:processes', 100)
            if not pid then return { started, err:kind() } end
            started = started + 1
        end""",
    )
    run(world, 20, lambda: exits(world))
    started, kind = exits(world)[world.reply(bad)[5]][5]
    assert started > 100
    assert kind == b"RateLimited"
    assert [one[5] for one in finish(world, innocents)] == [b"finished"] * 10


def test_what_there_was_no_time_to_measure_is_not_charged_to_the_one_that_works_most() -> None:
    """A hundred processes hold about a megabyte each, in more pieces than are looked at in one go."""
    world = World(VmConfig(max_memory=128 * MIB))
    world.entry(
        "app:holder",
        """return { main = function(filler)
            local text, held = ("x"):rep(60), {}
            for i = 1, 40000 do held[i] = text end
            process.send(filler, "filled")
            process.inbox():receive()
            return #held
        end }""",
    )
    (busy,) = start_innocents(world, 1, busy=1)
    filler = start(
        world,
        """local inbox = process.inbox()
        while true do
            local pid, err = process.spawn("app:holder", "app:processes", process.pid())
            if not pid then return err:kind() end
            inbox:receive()
        end""",
    )
    run(world, 30, lambda: exits(world))
    assert [exit[5:] for exit in exits(world).values()] == [[b"RateLimited", None]]
    assert world.has_ended(world.reply(filler)[5])
    assert finish(world, [busy])[0][5:] == [b"finished", None]


def test_long_strings_that_many_share_are_nobodys_fault() -> None:
    """Every holder reaches 30 MB of them; the one that has less, but of its own, is the one that fills the VM."""
    world = World(VmConfig(max_memory=64 * MIB, max_message=32 * MIB))
    world.entry(
        "app:holder",
        """return { main = function()
            local inbox, held = process.inbox(), {}
            for i = 1, 2 do held[i] = inbox:receive():payload():data() end
            inbox:receive()
            return #held[1] + #held[2]
        end }""",
    )
    world.entry(
        "app:giver",
        """return { main = function(pids)
            local first = ("x"):rep(15000000)
            local second = ("y"):rep(15000000)
            for _, pid in ipairs(pids) do
                assert(process.send(pid, "t", first))
                assert(process.send(pid, "t", second))
            end
            process.inbox():receive()
        end }""",
    )
    holders = [world.spawn("app:holder") for _ in range(20)]
    world.spawn("app:giver", holders)
    reference = start(world, GROWERS["table"])
    run(world, 10, lambda: exits(world))
    ended = exits(world)
    assert list(ended) == [world.reply(reference)[5]]
    assert ended[world.reply(reference)[5]][6][b"message"] == KILLED
    assert [one[5] for one in end_all(world, holders)] == [30_000_000] * 20
