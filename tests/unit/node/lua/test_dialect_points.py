"""What the dialect puts in: yield points, on their lines, changing no result."""

from __future__ import annotations

from typing import Any

import pytest

from node.lua.dialect import transform
from node.lua.dialect.chunk import PROLOGUE
from node.lua.dialect.grammar import POINT

RUN = """
    local text, quantum, most = ...
    local turns, env = 0, setmetatable({}, { __index = _G })
    env.__w_yield = function() coroutine.yield() return quantum end
    env.__w_type = function(name) error("types as values: " .. name) end
    local thread = coroutine.create(assert(load(text, "=chunk", "t", env)))
    repeat
        local ok, value = coroutine.resume(thread)
        if not ok then error(value, 0) end
        turns = turns + 1
        if coroutine.status(thread) == "dead" then return value, turns end
    until turns > most
    return "endless", turns
"""


def points(source: str) -> str:
    """The transformed text with each point shown as §."""
    return transform(source, "chunk").removeprefix(PROLOGUE).replace(POINT, "§")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("while x do y() end", "while x do§ y() end"),
        ("for i = 1, 2 do end", "for i = 1, 2 do§ end"),
        ("for k, v in p do end", "for k, v in p do§ end"),
        ("repeat until x", "repeat§ until x"),
        ("do x() end", "do x() end"),
        ("function f(a, b) end", "function f(a, b)§ end"),
        ("local function f() return 1 end", "local function f()§ return 1 end"),
        ("x = function(...) end", "x = function(...)§ end"),
        ("function f(): T (g or h)() end", "function f()§    (g or h)() end"),
        ("::a:: x() goto a", "::a:: x() §goto a"),
        ("for i = 1, 2 do goto next ::next:: end", "for i = 1, 2 do§ goto next ::next:: end"),
    ],
)
def test_points_stand_at_loops_function_bodies_and_gotos_that_go_back(source: str, expected: str) -> None:
    assert points(source) == expected


def test_long_straight_code_has_points_between_its_statements() -> None:
    count = points("x = a < b\n" * 300).count("§")
    assert 10 < count < 40
    assert points("local x = a < b\n" * 30).count("§") > 0
    assert "§" not in points("x = { " + "f(a), " * 300 + "}")


def test_a_point_in_straight_code_spares_what_follows_a_label_and_was_erased() -> None:
    source = "do goto done local x = 1 " + "x = x " * 40 + " ::done:: type T = number end return 1"
    assert "§" not in points(source).split("::done::")[1]


def test_the_counter_is_declared_on_the_first_line() -> None:
    assert transform("return 1", "chunk") == PROLOGUE + "return 1"
    assert transform("#!/usr/bin/env lua\nreturn 1", "chunk") == PROLOGUE + "\nreturn 1"
    assert transform("\ufeff#!lua", "chunk") == PROLOGUE
    assert transform("", "chunk") == PROLOGUE


@pytest.mark.parametrize(
    "source",
    [
        "while true do end",
        "repeat until false",
        "for i = 1, math.huge do end",
        "for k in function() return 1 end do end",
        "::a:: goto a",
        "do ::a:: if true then goto a end end",
        "local function f() return f() end return f()",
        "local f f = function() f() return f() end f()",
        "local t = setmetatable({}, { __index = function(t, k) return t end }) while true do t = t.x end",
    ],
)
def test_no_endless_program_keeps_its_turn(vm: Any, source: str) -> None:
    value, turns = vm.run(RUN, transform(source, "chunk").encode(), 10, 50)
    assert (value, turns) == (b"endless", 51)


def test_a_program_gives_the_same_result_in_many_turns(vm: Any) -> None:
    source = """
        local function fib(n: integer): integer
            if n < 2 then return n end
            return fib(n - 1) + fib(n - 2)
        end
        local sum = 0
        for i = 1, 10 do
            if i % 2 == 0 then goto continue end
            sum = sum + fib(i)
            ::continue::
        end
        local n = 0
        repeat local m <const> = n + 1 n = m until m >= 5
        ::again:: n = n + 1 if n < 9 then goto again end
        return sum .. "/" .. n
    """
    value, turns = vm.run(RUN, transform(source, "chunk").encode(), 5, 10_000)
    assert value == vm.run(source.replace(": integer", ""))
    assert turns > 20


class TestLocals:
    def test_a_chunk_may_use_all_200_locals_of_lua(self, vm: Any) -> None:
        source = "\n".join(f"local v{n} = {n}" for n in range(200)) + "\nreturn v0 + v199 + select('#', ...)"
        text = transform(source, "chunk")
        assert text.count("\n") == source.count("\n")
        assert vm.run(text) == 199

    def test_a_chunk_that_ends_in_a_comment_can_be_wrapped(self, vm: Any) -> None:
        source = "\n".join(f"local v{n} = {n}" for n in range(195)) + "\nreturn v5 -- the end"
        assert vm.run(transform(source, "chunk")) == 5

    def test_locals_of_functions_do_not_add_up(self) -> None:
        source = "\n".join(f"local function f{n}() local a, b, c, d end" for n in range(100))
        assert transform(source, "chunk").startswith(PROLOGUE + "local")

    def test_a_type_can_be_a_value_where_there_is_no_room_for_another_local(self, vm: Any) -> None:
        source = "type P = {}\n" + "\n".join(f"local v{n} = {n}" for n in range(200)) + "\nreturn P"
        assert vm.run(DECLARE + transform(source, "chunk")) == b"type P"


DECLARE = "__w_type = function(env, names) for _, name in ipairs(names) do env[name] = 'type ' .. name end end "


def test_types_read_as_variables_are_told_to_the_vm_before_the_chunk_runs(vm: Any) -> None:
    source = "local function f() return Point end\nlocal seen = f()\ntype Point = {x: number}\nreturn seen"
    assert vm.run(DECLARE + transform(source, "chunk")) == b"type Point"


def test_what_is_put_in_front_is_no_function_to_call(vm: Any) -> None:
    for before in ("", "type P = {} "):
        source = before + "(function() x = 5 end)() return P, x"
        assert vm.run(DECLARE + transform(source, "chunk"))[1] == 5
