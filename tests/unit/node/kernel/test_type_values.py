"""Types that a program uses as values: refused where they are used, with entry, line and name."""

from __future__ import annotations

import pytest

from tests.luaworld import World

POINT = "type Point = {x: number}\n"


@pytest.mark.parametrize(
    "use",
    [
        "Point(data)",
        "Point:is(data)",
        "Point:kind()",
        "for name in Point:fields() do end",
        "x = Point.x",
        "x = Point[1]",
        "Point.x = 1",
        "x = Point < Point",
        "x = Point <= Point",
        "x = #Point",
        "pcall(Point:name())",
        "assert(Point(data))",
        "return Point(data)",
        "return Point:is(data)",
        "coroutine.wrap(function() x = Point(data) end)()",
    ],
)
def test_a_type_used_as_a_value_is_not_supported_yet_at_that_line(world: World, use: str) -> None:
    message = world.outcome(POINT + use)[6][b"message"].decode()
    assert "types as values are not supported yet: 'Point' is a type" in message
    line = 1 if use == "return Point(data)" else 2  # a tail call leaves but the line where the function began
    assert message.startswith(f"app:main1:{line}: ")


@pytest.mark.parametrize(
    ("use", "name"),
    [
        ("local n = integer(x)", "integer"),
        ("local n = number(x)", "number"),
        ("local b = boolean(x)", "boolean"),
        ("local s = string(x)", "string"),
        ("local ok = string:is(x)", "string"),
        ("local k = Number:kind()", "Number"),
        ("local t = typeof(x)", "typeof"),
    ],
)
def test_so_are_the_types_every_program_has(world: World, use: str, name: str) -> None:
    message = world.outcome("\n" + use)[6][b"message"].decode()
    assert message.startswith(f"app:main1:2: types as values are not supported yet: '{name}' is a type")


def test_a_type_may_be_named_before_its_statement_runs_and_anywhere_in_the_chunk(world: World) -> None:
    source = "local function check(x) return (Point:is(x)) end\nlocal ok, text = pcall(check, 1)\ntype Point = {}\n"
    assert b"'Point' is a type" in world.main(source + "return text")


def test_a_local_of_the_same_name_is_what_it_is(world: World) -> None:
    source = "local function f() local Point = { x = 7 } return Point.x end local g = function() return Point end\n"
    assert world.main(POINT + source + "return { f(), tostring(g()) }") == [7, b"type Point"]


def test_a_class_and_a_type_may_share_a_name(world: World) -> None:
    assert world.main("type Stack = {n: number}\nlocal Stack = {}\nStack.n = 3\nreturn Stack.n") == 3


def test_types_can_be_keys_and_compared(world: World) -> None:
    assert world.main(POINT + "local t = { [Point] = 1 } return { t[Point], Point == Point, Point ~= Number }") == [
        1,
        True,
        True,
    ]


def test_an_exported_type_names_the_line_where_it_is_used(world: World) -> None:
    world.entry("app:shapes", "export type Point = {x: number}\nreturn { Point = Point }", kind="library.lua")
    message = world.outcome("\n\nlocal ok = require('shapes').Point:is({})", imports={"shapes": "app:shapes"})[6]
    assert message[b"message"].startswith(b"app:main1:3: types as values are not supported yet: 'Point'")


def test_a_type_can_not_be_sent(world: World) -> None:
    message = world.main(POINT + "local _, err = process.send(process.pid(), 't', { p = Point }) return err:message()")
    assert b"field 'p' is a type, which belongs to one process" in message


def test_the_string_library_is_as_before(world: World) -> None:
    assert world.main("return { string.upper('a'), string.nothing == nil, getmetatable(string) }") == [
        b"A",
        True,
        False,
    ]
    assert b"attempt to call a nil value (method 'foo')" in world.outcome("('x'):foo()")[6][b"message"]
