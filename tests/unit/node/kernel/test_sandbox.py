"""What a process finds in its globals, and that nothing it does there reaches another."""

from __future__ import annotations

import pytest

from tests.luaworld import World

ABSENT = (  # noqa: SIM905
    "load loadstring loadfile dofile collectgarbage rawlen debug package io utf8 python newproxy string.dump "
    "os.execute os.exit os.remove os.rename os.tmpname os.getenv os.setlocale coroutine.close __w_yield "
    "__w_type"
).split()
PRESENT = (  # noqa: SIM905
    "assert error ipairs next pairs pcall xpcall rawequal rawget rawset select tonumber tostring type unpack "
    "setmetatable getmetatable print require process channel payload errors _VERSION _G table.insert "
    "table.remove table.concat table.sort table.unpack table.pack table.move table.create table.freeze "
    "string.byte string.char string.find string.format string.gmatch string.gsub string.len string.lower "
    "string.match string.rep string.reverse string.sub string.upper string.pack string.unpack string.packsize "
    "math.pi math.huge math.mininteger math.maxinteger math.abs math.floor math.fmod math.pow math.log10 "
    "math.atan2 math.sinh math.cosh math.tanh math.tointeger math.type math.ult math.random math.randomseed "
    "coroutine.create coroutine.resume coroutine.yield coroutine.status coroutine.running coroutine.wrap "
    "coroutine.spawn os.time os.date os.clock os.difftime os.platform"
).split()


def test_what_the_surface_names_is_there(world: World) -> None:
    for name in PRESENT:
        assert world.main(f"return {name} ~= nil") is True, name


def test_what_could_reach_out_is_not_there(world: World) -> None:
    for name in ABSENT:
        root, _, field = name.partition(".")
        source = (
            f"return {root}.{field} == nil" if field else f"return rawget(_G, '{name}') == nil and _G['{name}'] == nil"
        )
        assert world.main(source) is True, name


@pytest.mark.parametrize(
    "attack",
    [
        "string.format = nil string.upper = function() return 'pwned' end",
        "getmetatable('').__index.upper = function() return 'pwned' end",
        "getmetatable('').__index = nil",
        "rawset(getmetatable('') or {}, '__index', {})",
        "table.insert = nil table.concat = nil",
        "math.floor = function() return 0 end math.randomseed(1)",
        "process.send = nil process.event.EXIT = 'x' process.registry.lookup = nil",
        "errors.INVALID = 'x' errors.new = nil",
        "channel.new = nil payload.format.JSON = 'x'",
        "coroutine.wrap = nil pcall = nil error = nil _G = nil",
        "require('json').encode = nil",
        "require('time').now = nil require('time').RFC3339 = 'x'",
        "rawset(require('time').utc, 'x', 1)",
        "local e = errors.new('x') e.__index = 1 rawset(e, 'kind', 1)",
        "for k in pairs(_G) do _G[k] = nil end",
        "getmetatable(_G).__index = nil",
        "setmetatable(_G, { __index = function() return 'pwned' end })",
        "unpack, select, type = nil, nil, nil",
    ],
)
def test_nothing_a_process_changes_is_seen_by_another(world: World, attack: str) -> None:
    world.outcome(attack, modules=["json", "time"])
    seen = world.main(
        """local json, time = require("json"), require("time")
        local e = errors.new({ message = "m", kind = errors.INVALID })
        return { ("x"):upper(), string.format("%d", 1), table.concat({ 1, 2 }, ","), math.floor(1.5),
            type(process.send),
            process.event.EXIT, e:kind(), type(channel.new), payload.format.JSON, type(coroutine.wrap),
                json.encode({ 1 }),
            time.RFC3339 == "2006-01-02T15:04:05Z07:00", rawget(time.utc, "x") == nil, unknown == nil, select("#",
                1) }""",
        modules=["json", "time"],
    )
    assert seen == [
        b"X", b"1", b"1,2", 1, b"function", b"pid.exit", b"Invalid", b"function", b"json/plain", b"function", b"[1]",
        True, True, True, 1,
    ]  # fmt: skip


def test_a_process_can_change_its_own_libraries(world: World) -> None:
    assert world.main(
        """string.shout = function(s) return s:upper() .. "!" end
        process = { pid = function() return "mocked" end }
        return { string.shout("a"), process.pid() }"""
    ) == [b"A!", b"mocked"]


def test_a_library_shows_all_its_names_to_who_walks_it(world: World) -> None:
    counts = world.main(
        """local time, counts = require("time"), {}
        for i, library in ipairs({ string, table, math, process, process.registry, process.event, errors, time }) do
            counts[i] = 0
            for name, value in pairs(library) do
                assert(library[name] == value, name)
                counts[i] = counts[i] + 1
            end
        end
        return counts""",
        modules=["time"],
    )
    assert all(count >= least for count, least in zip(counts, (16, 9, 33, 25, 7, 4, 15, 53), strict=True)), counts


def test_a_part_of_a_library_is_the_same_each_time_and_of_this_process_alone(world: World) -> None:
    source = """local first = process.event
    process.event.EXIT = "mine"
    return { first == process.event, process.event.EXIT, require("process").event == first }"""
    assert world.main(source) == [True, b"mine", True]
    assert world.main("return process.event.EXIT") == b"pid.exit"


def test_a_library_can_not_be_sent_nor_taken_apart(world: World) -> None:
    kind, message, *rest = world.main(
        """local _, err = process.send(process.pid(), "t", { lib = string })
        return { err:kind(), err:message(), getmetatable(process), (pcall(setmetatable, math, {})) }"""
    )
    assert (kind, rest) == (b"Invalid", [False, False])
    assert b"field 'lib' is a library" in message


def test_globals_of_one_process_are_not_seen_by_another_of_the_same_entry(world: World) -> None:
    world.entry("app:counter", "return { main = function() count = (count or 0) + 1 return count end }")
    assert [world.exit_of(world.spawn("app:counter"))[5] for _ in range(2)] == [1, 1]


def test_upvalues_of_the_chunk_are_not_shared_either(world: World) -> None:
    world.entry("app:counter", "local count = 0 return { main = function() count = count + 1 return count end }")
    assert [world.exit_of(world.spawn("app:counter"))[5] for _ in range(2)] == [1, 1]


def test_a_metatable_with_gc_is_refused(world: World) -> None:
    assert b"__gc" in world.outcome("setmetatable({}, { __gc = function() end })")[6][b"message"]


def test_a_seed_makes_own_numbers_repeat_and_leaves_others_alone(world: World) -> None:
    draw = "local t = {} for i = 1, 5 do t[i] = math.random(1000) end return t"
    first = world.main(f"math.randomseed(42) {draw}")
    assert world.main(f"math.randomseed(42) {draw}") == first
    assert world.main(draw) != first
    low, high, real = world.main("math.randomseed(7) return { math.random(1), math.random(5, 5), math.random() }")
    assert (low, high) == (1, 5)
    assert 0 <= real < 1


def test_a_frozen_table_reads_as_before_and_refuses_changes(world: World) -> None:
    seen = world.main(
        """local t = table.freeze({ 1, 2, a = "x" })
        local sum, keys = 0, 0
        for _, v in ipairs(t) do sum = sum + v end
        for _ in pairs(t) do keys = keys + 1 end
        process.send(process.pid(), "t", t)
        local copy = process.inbox():receive():payload():data()
        return { sum, keys, #t, t.a, pcall(function() t.b = 1 end), pcall(rawset, t, "b", 1), copy.a, t.b == nil }"""
    )
    assert (
        seen
        == [3, 3, 2, b"x", False, False, b"app:main1:5: attempt to change a frozen table", b"x", True][:4] + seen[4:]
    )
    assert seen[4] is False
    assert seen[-2:] == [b"x", True]


def test_sorting_many_values_is_stable_in_order_and_may_be_preempted(world: World) -> None:
    assert (
        world.main(
            """local t, n = {}, 20000
        for i = 1, n do t[i] = (i * 7919) % n end
        table.sort(t, function(a, b) return a > b end)
        for i = 2, n do if t[i - 1] < t[i] then return i end end
        local small = { 3, 1, 2 }
        table.sort(small)
        return table.concat(small, ",")"""
        )
        == b"1,2,3"
    )


def test_ranges_without_end_are_refused(world: World) -> None:
    for call in (
        "table.move({}, 1, 2 ^ 40 // 1, 2)",
        "table.concat({}, '', 1, 2 ^ 40 // 1)",
        "table.unpack({}, 1, 1e9 // 1)",
    ):
        assert world.outcome(f"return {call}")[6] is not None


def test_lengths_that_lie_are_refused(world: World) -> None:
    for call in ("insert(t, 1, 1)", "remove(t, 1)", "sort(t)", "concat(t)", "unpack(t)"):
        error = world.outcome(
            f"local t = setmetatable({{}}, {{ __len = function() return 1 << 40 end }}) table.{call}"
        )[6]
        assert error is not None
        assert b"__len" in error[b"message"]


def test_print_goes_to_the_logger_with_its_place(world: World) -> None:
    world.main("\nprint('a', 1, nil, true)")
    item = next(item for item in world.out if item[0] == 51)
    assert item[3:] == [b"logger", b"print", [b"a\t1\tnil\ttrue", b"app:main1:2"]]


def test_the_logger_says_level_fields_name_and_place(world: World) -> None:
    world.main(
        """local logger = require("logger")
        logger:info("hello", { a = 1 })
        logger:named("auth"):with({ user = "u" }):warn("careful", { b = 2 })
        logger:error("odd", { f = print })""",
        modules=["logger"],
    )
    logged = [item[4:] for item in world.out if item[0] == 51]
    assert logged[0] == [b"info", [b"hello", {b"a": 1}, None, b"app:main1:2"]]
    assert logged[1] == [b"warn", [b"careful", {b"user": b"u", b"b": 2}, b"auth", b"app:main1:3"]]
    assert logged[2][0] == b"error"
    assert b"is a function" in logged[2][1][1][b"fields_left_out"]


def test_payloads_know_their_format_and_transcode_json(world: World) -> None:
    assert world.main(
        """local p = payload.new({ a = 1 })
        local j = p:transcode(payload.format.JSON)
        local back = j:transcode(payload.format.LUA)
        local _, err = p:transcode(payload.format.YAML)
        return { p:get_format(), j:get_format(), j:data(), j:unmarshal().a, back:data().a, err:kind(),
            payload.new(errors.new("x")):get_format(), p.a == nil }"""
    ) == [b"lua/any", b"json/plain", b'{"a":1}', 1, 1, b"Internal", b"golang/error", True]


@pytest.mark.parametrize(
    "call",
    [
        "table.concat({ {} })",
        "table.insert({}, 5, 1)",
        "table.insert(nil, 1)",
        "table.insert({})",
        "table.remove({}, 7)",
        "table.sort({ 1, 'x' })",
        "table.unpack({}, 1, 9000000)",
        "unpack(nil)",
        "math.random(0, -1)",
        "math.floor('x')",
        "setmetatable(1, {})",
        "setmetatable(channel.new(), {})",
        "string.find('x', '[')",
        "string.rep()",
        "('x'):bad()",
        "string.format('%d', 1.5)",
        "coroutine.resume(1)",
        "coroutine.wrap(1)",
        "select(0)",
        "error('mine')",
        "assert(false, 'app:main1:2: mine')",
        "require('nothing')",
        "rawset(errors.new('x'), 1, 2)",
        "os.date('%Ez')",
        "tostring()",
    ],
)
def test_errors_name_the_line_of_the_user(world: World, call: str) -> None:
    message = world.outcome(f"\n{call}\n")[6][b"message"]
    assert message.startswith(b"app:main1:2: "), message


def test_an_error_inside_a_comparator_keeps_its_own_place(world: World) -> None:
    message = world.outcome("\ntable.sort({ 3, 2, 1 }, function()\nerror('mine') end)")[6][b"message"]
    assert message == b"app:main1:3: mine"
