"""From inside a process: nothing of the kernel, of another process or of Python can be reached."""

from __future__ import annotations

from typing import Any

import pytest

from tests.luaworld import World

MODULES = ["json", "time", "funcs", "logger", "ctx"]

# Walks everything that can be reached by looking and by calling what gives objects.
WALK = """
local seen, kinds = {}, {}
local function walk(value, path)
    local kind = type(value)
    if kind == "userdata" then error("userdata at " .. path) end
    if kind ~= "table" or seen[value] then return end
    seen[value] = path
    for key, item in next, value do
        walk(key, path .. ".<key>")
        walk(item, path .. "." .. tostring(key))
    end
    local meta = getmetatable(value)
    if type(meta) == "table" then walk(meta, path .. ".<meta>") end
end
local time, funcs = require("time"), require("funcs")
process.send(process.pid(), "t", { 1 }, errors.new("x"))
local inbox, events = process.inbox(), process.events()
local m = inbox:receive()
local ch = channel.new(1)
local objects = { _G, m, m:payload(), inbox, events, ch, ch:case_send(1), ch:case_receive(), errors.new("x"),
    time.now(),
    time.timer("1h"), time.ticker("1h"), time.utc, funcs.new(), process.with_context({ a = 1 }), payload.new(1),
    require("logger"), require("json"), require("ctx"), process.get_options(), errors.call_stack(errors.new("x")),
    channel.select({ ch:case_send(1) }), coroutine.create(print), string, table, math, os, coroutine,
        table.freeze({ 1 }) }
for i, object in ipairs(objects) do walk(object, "object" .. i) end
for _, library in ipairs({ string, table, math, os, coroutine, channel, process, errors, payload }) do
    for name, f in pairs(library) do
        if type(f) == "function" and name ~= "upgrade" and name ~= "terminate" and name ~= "yield" and name ~=
            "select" and name ~= "fence" and name ~= "move" then -- the last two ask the node, and here is none
            for _, argument in ipairs({ 0, "", {}, ch, m, print }) do
                local results = { pcall(f, argument) }
                for _, result in pairs(results) do walk(result, tostring(name)) end
            end
        end
    end
end
local suspects = { "by_pid", "holds", "co", "process", "thread", "receiver", "waiter", "state", "settings",
    "handlers", "watchers" }
for object, path in pairs(seen) do
    for _, name in ipairs(suspects) do
        local found = rawget(object, name)
        if found ~= nil and type(found) ~= "string" and object ~= _G then
            error("kernel table at " .. path .. " with " .. name)
        end
    end
end
local count = 0
for _ in next, seen do count = count + 1 end
return count
"""


def test_nothing_that_can_be_reached_belongs_to_the_kernel(world: World) -> None:
    assert world.main(WALK, modules=MODULES) > 30


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    "attack",
    [
        # metamethods that answer differently each time they are asked
        """local n = 0
        local cases = setmetatable({}, { __index = function(_, i) n = n + 1 return n % 2 == 1 and channel.new() or
            {} end,
            __len = function() return 2 end })
        channel.select(cases)""",
        """local evil = setmetatable({}, { __index = function(_, k) return k end, __eq = function() return true end })
        channel.select({ setmetatable({}, evil) })""",
        """local ch = channel.new() ch.send(setmetatable({}, { __index = ch }), 1)""",
        """channel.new().receive(errors.new("x"))""",
        """errors.new("x").message(channel.new())""",
        """process.inbox().receive({})""",
        """process.with_context({}).spawn({}, "app:x", "app:processes")""",
        """local e = errors.new("x") e.details = process rawset(e, 1, print) process.send(process.pid(), "t", e)
        error("reached")""",
        """getmetatable(channel.new()).__index = nil""",
        """setmetatable(channel.new(), nil)""",
        """coroutine.resume(coroutine.running())""",
        """string.format("%s", setmetatable({}, { __tostring = function() return {} end }))""",
        """process.send(process.pid(), "t", setmetatable({}, { __index = function() error("asked") end, __pairs =
            error }))
        error("reached")""",
    ],
)
def test_tricks_with_metatables_end_in_an_ordinary_error(world: World, attack: str) -> None:
    exit = world.outcome(attack)
    assert exit[6] is not None
    assert b"kernel/" not in exit[6][b"message"].replace(b"kernel/guards", b"")
    assert world.main("return 1") == 1
    assert world.complaints() == []


@pytest.mark.parametrize(
    "source",
    [
        "__w_b = 1e18 while true do end",
        "local __w_y = print",
        "function f(__w_b) end",
        "goto __w_b ::__w_b::",
        "local t = { __w_b = 1 }",
    ],
)
def test_the_names_of_yield_points_are_not_for_programs(world: World, source: str) -> None:
    with pytest.raises(Exception, match="__w_"):
        world.outcome(source)


def test_odd_values_from_outside_reach_nobody(world: World) -> None:
    pid = world.spawn_body("return process.inbox():receive():payload():data()")

    class Thing:
        secret = "open"

    for value in (Thing(), {b"deep": [Thing()]}, Thing, len):
        world.send(pid, "t", value)
    assert not world.has_ended(pid)
    assert len(world.complaints()) == 4
    world.send(pid, "t", 1)
    assert world.exit_of(pid)[5] == 1


@pytest.mark.parametrize(
    "item",
    [
        [1, None, None, None, None, None, None, None],
        [1, b"x", b"y", 0, {}, [1], b"", 0],
        [2, b"{n1@app:processes|}", b"{x@y|1-1}", 6400, 7, [1], {}],
        [2, b"{n1@app:processes|}", b"{x@y|1-1}", 6400, b"app:x", [1], [1]],
        [3, 1, 2, b"ref", {}, []],
        [4, {}, [], 1],
        [8, b"x", b"y", 0, 3, {}, 5],
        [9, b"x"],
        [11, b"{n1@app:processes|}", b"{x@y|1-1}", 6400, b"app:x", [1], {b"timeout": b"soon"}],
        [40, b"no number", {b"kind": 5}, [1]],
        [41, [], []],
        [43, 5, 6, 7],
        [44, [1, 2]],
        [45, 5, 5],
        [46, 1, {}, []],
    ],
)
def test_malformed_items_are_dropped_and_the_vm_goes_on(world: World, item: list[Any]) -> None:
    world.run(item)
    assert world.main("return 1") == 1


def test_straight_code_on_huge_strings_is_ended_by_the_sentry(world: World) -> None:
    """One statement: no yield point can be in it."""
    body = "local s = ('x'):rep(8 << 20) local n = " + " + ".join(f"#(s .. {number})" for number in range(5000))
    exit = world.outcome(f"pcall(function() {body} end) return 'went on'")
    assert b"killed" in exit[6][b"message"]
    assert world.main("return 1") == 1
