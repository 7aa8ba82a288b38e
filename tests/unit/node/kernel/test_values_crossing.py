"""Values on their way between processes, functions and Python: the same on every way."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cluster.envelope import Kind
from tests.luaworld import OUTSIDE, World

# A text that tells apart all that must stay apart, and shows tables as what they are, keys in order.
DESCRIBE = """
local function describe(value)
    local kind = math.type(value) or type(value)
    if kind == "float" then
        return value ~= value and "nan" or ("float %a"):format(value)
    elseif kind == "table" then
        local parts = {}
        for key, item in pairs(value) do parts[#parts + 1] = describe(key) .. "=" .. describe(item) end
        table.sort(parts)
        return "{" .. table.concat(parts, ",") .. "}"
    elseif kind == "string" then
        return (("%q"):format(value):gsub("\\n", "n"))
    end
    return kind .. " " .. tostring(value)
end
"""
VALUES = """{
    0, 1, -1, math.maxinteger, math.mininteger, 2^53 // 1 | 0, 9007199254740993,
    0.0, 1.0, -0.0, 0.1, 1e300, 5e-324, 1 / 0, -1 / 0, 0 / 0, 2.0^63,
    "", "a", "\\0\\255\\128", ("x"):rep(70000), "\\xc3\\xa9", true, false,
    {}, { {} }, { {}, {} }, { 1, 2, 3 }, { 1, nil, 3 }, { nil, 2 }, { n = {} }, { [1] = 1, [3] = 3 }, { [0] = 0 },
    { [1.5] = "f", [-1] = "i", ["1"] = "s" }, { [true] = 1, [false] = 0 }, { 1, x = 2 },
    { a = { b = { c = { d = { 1, { 2 } } } } } }, { "a", { "b" }, c = "d", [10] = 1.0 },
}"""

CHILD = "return { main = function(value) return value end }"
WAYS = {
    "a message": """process.send(process.pid(), "t", value)
        local got = process.inbox():receive():payload():data()""",
    "a message that leaves the VM": """process.send("{n1@app:other|1-2}", "t", value)
        local got = process.inbox():receive():payload():data()""",
    "a topic": """local ch = process.listen("t")
        process.send(process.pid(), "t", value)
        local got = ch:receive()
        process.unlisten(ch)""",
    "an argument and a result": 'local got = process.exec("app:child", "app:processes", value)',
    "an exit event": """process.spawn_monitored("app:child", "app:processes", value)
        local got = process.events():receive().result.value""",
    "a function call": 'local got = funcs.call("app:f", value)',
    "a future": 'local got = funcs.async("app:f", value):response():receive():data()',
    "a startup message": """local builder = process.with_options({}):with_message("t", value)
        local got = builder:exec("app:inbox", "app:processes")""",
    "a context": """local got = process.with_context({ value = value }):exec("app:context", "app:processes")""",
    "details of an error": """local _, err = process.exec("app:fails", "app:processes", value)
        local got = err:details().value""",
    "a payload": "local got = payload.new(value):data()",
}


def entries(world: World) -> None:
    world.entry("app:child", CHILD)
    world.function("app:f", CHILD)
    world.entry("app:inbox", "return { main = function() return process.inbox():receive():payload():data() end }")
    world.entry(
        "app:context",
        "local c = require('ctx') return { main = function() return (c.get('value')) end }",
        modules=["ctx"],
    )
    world.entry(
        "app:fails",
        "return { main = function(v) return nil, errors.new({ message = 'm', details = { value = v } }) end }",
    )


def reflect(world: World) -> None:
    """What leaves for another VM comes back to its sender, as if a process there had sent it."""
    take = world._take

    def turn_round(item: list[object]) -> None:
        if item[0] == Kind.MESSAGE and item[1] == b"{n1@app:other|1-2}":
            world.post([int(Kind.MESSAGE), item[2], item[1], 0, item[4], item[5], b"", 0])
        else:
            take(item)

    world._take = turn_round  # type: ignore[method-assign]


@pytest.mark.parametrize("way", WAYS)
def test_a_value_arrives_as_it_was(world: World, way: str) -> None:
    entries(world)
    reflect(world)
    source = f"""local funcs = require("funcs")
    {DESCRIBE}
    local changed = {{}}
    for i, value in pairs({VALUES}) do
        {WAYS[way]}
        if describe(got) ~= describe(value) then
            changed[#changed + 1] = i .. ": " .. describe(value):sub(1, 99) .. " -> " .. describe(got):sub(1, 99)
        end
    end
    return table.concat(changed, "; ")"""
    assert world.main(source, modules=["funcs"]) == b""


@pytest.mark.parametrize("way", WAYS)
def test_what_arrives_is_a_copy(world: World, way: str) -> None:
    entries(world)
    reflect(world)
    source = f"""local funcs = require("funcs")
    local value = {{ inner = {{ 1 }} }}
    {WAYS[way]}
    got.inner[1] = 2
    return value.inner[1]"""
    assert world.main(source, modules=["funcs"]) == 1


REFUSED = {
    "{ a = { b = function() end } }": "field 'a.b' is a function",
    "{ 1, { channel.new() } }": "field '[2][1]' is a channel",
    "{ co = coroutine.create(print) }": "field 'co' is a thread",
    "{ deep = process.inbox() }": "field 'deep' is a channel",
    "loop": "field 'self' refers to a table it is part of",
    "{ here = { loop } }": "field 'here[1].self' refers to a table it is part of",
    "{ [print] = 1 }": "has a key that is a function",
    "{ x = { [{}] = 1 } }": "field 'x' has a key that is a table",
}
SENDS = {
    "a message": "local ok, err = process.send(process.pid(), 't', value)",
    "a message that leaves the VM": "local ok, err = process.send('{n2@app:x|1-2}', 't', value)",
    "an argument": "local ok, err = process.spawn('app:child', 'app:processes', value)",
    "an argument elsewhere": "local ok, err = process.spawn('app:child', 'n2@app:processes', value)",
    "exec": "local ok, err = process.exec('app:child', 'app:processes', value)",
    "a function call": "local ok, err = require('funcs').call('app:f', value)",
    "a future": "local ok, err = require('funcs').async('app:f', value)",
}


@pytest.mark.parametrize("value", REFUSED)
@pytest.mark.parametrize("way", SENDS)
def test_what_can_not_be_passed_is_refused_with_the_path_to_it(world: World, way: str, value: str) -> None:
    entries(world)
    source = (
        f"local loop = {{}} loop.self = loop local value = {value} {SENDS[way]} return {{ err:kind(), err:message() }}"
    )
    kind, message = world.main(source, modules=["funcs"])
    assert kind == b"Invalid"
    assert REFUSED[value] in message.decode()


RESULTS = {
    "exec": 'local _, err = process.exec("app:bad", "app:processes")',
    "an exit event": """process.spawn_monitored("app:bad", "app:processes")
        local err = process.events():receive().result.error""",
    "a call": 'local _, err = funcs.call("app:bad_function")',
    "a call that does not wait": """local future = funcs.async("app:bad_function")
        future:response():receive()
        local _, err = future:result()""",
}


@pytest.mark.parametrize("value", ["{ a = { b = function() end } }", "{ 1, { channel.new() } }", "print", "loop"])
@pytest.mark.parametrize("way", RESULTS)
def test_a_result_that_can_not_be_passed_is_an_error_with_the_path_to_it(world: World, way: str, value: str) -> None:
    bad = f"return {{ main = function() local loop = {{}} loop.self = loop return {value} end }}"
    world.entry("app:bad", bad)
    world.function("app:bad_function", bad)
    kind, message = world.main(
        f'local funcs = require("funcs") {RESULTS[way]} return {{ err:kind(), err:message() }}', modules=["funcs"]
    )
    assert kind == b"Invalid"
    assert REFUSED.get(value, "is a function" if value == "print" else "is part of") in message.decode()


NOON = b"2024-12-29T12:00:00Z"


@pytest.mark.parametrize("value", ["t", "{ t }", "{ a = { t } }"])
def test_an_instant_that_leaves_the_vm_is_its_text(world: World, value: str) -> None:
    """It has an __eq that raises for anything else, and is written down outside of any process."""
    make = f"local t = require('time').unix(1735473600, 0) local value = {value}"
    exit = world.outcome(f"{make} return value", modules=["time"])
    sent = world.main(f'{make} return process.send("{OUTSIDE.decode()}", "t", value)', modules=["time"])
    expected: dict[str, Any] = {"t": NOON, "{ t }": [NOON], "{ a = { t } }": {b"a": [NOON]}}
    assert exit[5:7] == [expected[value], None]
    assert sent is True
    assert world.messages() == [("t", [expected[value]])]


EQUALS = ["require('time').now()", "setmetatable({}, { __eq = function() error('asked') end })"]


@pytest.mark.parametrize("value", [*EQUALS, "setmetatable({}, { __eq = function() return true end })"])
@pytest.mark.parametrize(
    "end", ["error(value)", "coroutine.spawn(function() error(value) end) process.inbox():receive()"]
)
def test_the_kernel_does_not_compare_what_is_raised(world: World, end: str, value: str) -> None:
    exit = world.outcome(f"local value = {value} {end}", modules=["time"])
    assert exit[6][b"message"] == b"(error object is a table value)"


@pytest.mark.parametrize("value", [*EQUALS, "setmetatable({}, { __eq = function() return true end })"])
def test_what_a_coroutine_yields_is_not_compared(world: World, value: str) -> None:
    body = f"""local value = {value}
        local generate = coroutine.wrap(function() coroutine.yield(value) end)
        return rawequal(generate(), value)"""
    assert world.main(body, modules=["time"]) is True


SPOILED = {
    "a function in its details": "e = errors.new { message = 'm', kind = errors.NOT_FOUND, details = { f = print } }",
    "details without end": "local d = {} d.d = d e = errors.new { message = 'm', kind = 'NotFound', details = d }",
    "a field of its own": "e.callback = print",
    "a long message": "e = errors.new { message = ('m'):rep(3000000), kind = errors.NOT_FOUND }",
    "no fields": "for key in pairs(e) do e[key] = nil end",
    "fields of other types": "for key = 1, 5 do e[key] = { print } end",
    "a long text": "e = ('m'):rep(3000000)",
}
ENDS = ["error(e)", "return nil, e", "coroutine.spawn(function() error(e) end) process.inbox():receive()"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", SPOILED)
def test_whatever_is_in_an_error_object_its_failure_is_one(world: World, name: str, end: str) -> None:
    """For who waits, for monitors, links and the node; and the kernel stands it."""
    bad = f"""return {{ main = function()
        local e = errors.new {{ message = 'm', kind = errors.NOT_FOUND }} {SPOILED[name]} {end}
    end }}"""
    world.entry("app:bad", bad)
    world.function("app:bad_function", bad)
    world.entry(
        "app:linked",
        """return { main = function()
            process.spawn_linked("app:bad", "app:processes")
            process.inbox():receive()
        end }""",
    )
    kinds = world.main(
        """local _, one = process.exec("app:bad", "app:processes")
        local _, two = require("funcs").call("app:bad_function")
        process.spawn_monitored("app:bad", "app:processes")
        local three = process.events():receive().result.error
        local _, four = process.exec("app:linked", "app:processes")
        process.spawn("app:bad", "app:processes") -- nobody sees it: the log is told
        return { one:kind(), two:kind(), three:kind(), four:kind(), #one:message() > 0 }""",
        modules=["funcs"],
    )
    assert kinds[0] == kinds[1] == kinds[2]
    assert kinds[0] == (b"NotFound" if "fields" not in name and "text" not in name else kinds[0])
    assert kinds[3:] == [b"Internal", True]
    assert world.exit_of(world.spawn("app:bad"))[6][b"message"]
    assert world.complaints() == []


def test_a_result_that_can_not_be_passed_is_an_error_to_who_is_elsewhere(world: World) -> None:
    exit = world.outcome("return { f = print }")
    assert exit[5] is None
    assert exit[6][b"kind"] == b"Invalid"
    assert b"field 'f' is a function" in exit[6][b"message"]
    world.function("app:f", "return { main = function() return { f = print } end }")
    value, error = world.call("app:f")
    assert value is None
    assert error[b"kind"] == b"Invalid"


class TestPython:
    def test_numbers_and_texts_reach_python_and_come_back_exactly(self, world: World) -> None:
        values = [2**63 - 1, -(2**63), 2**53 + 1, 1.0, -0.0, 0.1, math.inf, -math.inf, b"\x00\xff", True, None, 0]
        pid = world.spawn_body("local m = process.inbox():receive():payload() return m:data().list")
        world.send(pid, "t", {b"list": dict(enumerate(values, 1))})
        got = world.exit_of(pid)[5]
        assert got == {number: value for number, value in enumerate(values, 1) if value is not None}
        assert [type(got[number]) for number in (1, 4, 5)] == [int, float, float]
        assert math.copysign(1, got[5]) == -1

    def test_a_nan_stays_one(self, world: World) -> None:
        assert math.isnan(world.main("return 0/0"))

    def test_one_rule_says_what_is_a_list_and_what_a_map(self, world: World) -> None:
        assert world.main(
            """return { lists = { {}, { 1 }, { [1] = 1, [2] = 2 }, { { } } },
                maps = { { a = 1 }, { [0] = 1 }, { [2] = 2 }, { 1, nil, 3 }, { 1, a = 2 } } }"""
        ) == {
            b"lists": [[], [1], [1, 2], [[]]],
            b"maps": [{b"a": 1}, {0: 1}, {2: 2}, {1: 1, 3: 3}, {1: 1, b"a": 2}],
        }

    def test_an_empty_map_of_python_is_an_empty_table_and_goes_back_as_a_list(self, world: World) -> None:
        pid = world.spawn_body("local d = process.inbox():receive():payload():data() d.full.x = 1 return d")
        world.send(pid, "t", {b"empty": {}, b"full": {}})
        assert world.exit_of(pid)[5] == {b"empty": [], b"full": {b"x": 1}}

    def test_a_message_of_a_size_beyond_the_limit_is_refused_with_both_sizes(self, world: World) -> None:
        kind, message = world.main(
            f"""local _, err = process.send("{OUTSIDE.decode()}", "t", ("x"):rep(2000000))
            return {{ err:kind(), err:message() }}"""
        )
        assert kind == b"Invalid"
        assert b"message of 2000" in message
        assert b"is over the limit of 921600 bytes" in message
