"""What the dialect takes away: every construct of typed Lua, in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from node.lua.dialect import analyse, transform
from node.lua.dialect.chunk import PROLOGUE
from node.lua.dialect.grammar import POINT

Loads = Callable[[str], str]


def erased(source: str) -> str:
    """The transformed text without what was put in."""
    text = transform(source, "chunk")
    assert text.startswith(PROLOGUE)
    return text.removeprefix(PROLOGUE).replace(POINT, "")


def blanked(source: str, *parts: str) -> str:
    """The source with each of the parts, found one after the other, turned into spaces."""
    at = 0
    for part in parts:
        at = source.index(part, at)
        source = source[:at] + " " * len(part) + source[at + len(part) :]
    return source


def test_text_without_types_stays_as_it_is() -> None:
    source = (
        'local t = { a = 1, ["b"] = 2; 3, f"x", g{ 1 }, h[[y]], o:m"z" } -- note: T\nreturn t.a < t.b and t[1] > 0\n'
    )
    assert erased(source) == source


@pytest.mark.parametrize(
    "typed",
    [
        "number",
        "string?",
        "a.b.Type",
        "any[]",
        "{string}",
        "{[string]: number}",
        "{name: string, age?: integer; end: any}",
        "{readonly name: string, [number]: T}",
        "readonly {a: number}",
        '"a" | "b" | 1 | -1 | true | nil',
        "| A | B",
        "A & B & {c: number}",
        "() -> ()",
        "(number, string) -> boolean",
        "(a: number, b?: string, ...: any) -> (number, string?)",
        "<T, U: Base, V = {a: T}>(x: T) -> U",
        "(A | B)[]?",
        "Map<string, List<Set<number>>>",
        "typeof(require('x').y)",
        "number @min(0) @max(100)",
        'string @pattern("^.+@.+$") @min_len(1)',
        "{number @min(0)}",
        "fun(a: number): string",
        "function",
        "{\n  a: number, -- kept\n  b: string,\n}",
        "[==[\nlong\n]==] | nil",
    ],
)
def test_every_type_is_erased_wherever_one_may_stand(typed: str, loads: Loads) -> None:
    source = (
        f"local a: {typed}, b: {typed} = 1, 2\n"
        f"local function f(x: {typed}, y?: {typed}, ...: {typed}): {typed} return ... end\n"
        f"for i: {typed}, j: {typed} in f do end\n"
        f"local g = function(x: {typed}): ({typed}, {typed}) end\n"
        f"local c = (a :: {typed}) and (b as {typed.lstrip('| ')})\n"
        f"type Alias = {typed}\n"
        f"export type Other<T, U: B> = {typed}\n"
        "return c\n"
    )
    text = transform(source, "chunk")
    assert loads(text) == ""
    assert text.count("\n") == source.count("\n")
    for word in ("Type", "string", "Alias", "export", "->", "@", "long"):
        assert word not in text


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("local x: number = 1", [": number"]),
        ("for i: integer = 1, 2 do end", [": integer"]),
        ("function f(a?: T, ...: U): V return a end", ["?: T", ": U", ": V"]),
        ("local n = (u!).name + v!.b! * w!", ["!", "!", "!", "!"]),
        ("local a <const>: T, b: T <close>, c: M<K, V<T>>= 1", [": T", ": T", ": M<K, V<T>>"]),
        ("local a: T <const> = 1", [": T"]),
        ("function m.f<T: B, U>(x: T): T, U return x end", ["<T: B, U>", ": T", ": T, U"]),
        ("local f = function<T>(x: T) end", ["<T>", ": T"]),
        ("local z = a :: any :: User print(z)", [":: any :: User"]),
        ("return x as {a: number} | nil, y :: T + 1", ["as {a: number} | nil", ":: T"]),
        ("return x :: number < 5", [":: number"]),
        ("x = y :: any :: User\nz = 1", [":: any :: User"]),
        ("x = y\n  :: any\n  :: User", [":: any", ":: User"]),
        ("type A<T> = {T} local x = 1", ["type A<T> = {T}"]),
        ("export type A = B x = 1", ["export type A = B"]),
    ],
)
def test_types_become_white_space_of_the_same_width(source: str, parts: list[str], loads: Loads) -> None:
    assert erased(source) == blanked(source, *parts)
    assert loads(transform(source, "chunk")) == ""


def test_line_numbers_stay_true_and_comments_in_types_stay() -> None:
    source = "local t: {\n  a: number, -- why\n  b: string\n} = {}\nerror('line 5')"
    assert erased(source) == "local t   \n             -- why\n           \n  = {}\nerror('line 5')"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_inside_a_type_is_kept(newline: str) -> None:
    source = newline.join(["local a: {", "x: [[", "]]", "} = 1", "return a"])
    assert transform(source, "chunk").count(newline) == source.count(newline)


class TestCasts:
    def test_what_follows_a_cast_at_a_statement_s_end_is_not_called(self, vm: Any) -> None:
        before, after = "local hit = 0 local function g() hit = hit + 1 end\n", "\n(g or u)()\nreturn u + hit"
        for middle in ("local u = 5 :: User", "local u = 5 as User", "local u = 5\ntype User = {}"):
            assert vm.run(transform(before + middle + after, "chunk")) == 6

    def test_as_stays_a_name(self) -> None:
        source = "local as = 5\nas = 6 print(as) as() t.as.x = as\nlocal b = as\nas(b)"
        assert erased(source) == source

    def test_labels_are_no_casts(self) -> None:
        for source in (
            "for i = 1, 3 do\n  x = y\n  ::continue::\nend",
            "do goto out x = f() ::out:: end",
            "x = y ::again:: z = 1 goto again",
            "x = y\n::unused::\nz = 1",
        ):
            assert erased(source) == source


class TestAliases:
    def test_type_stays_a_function_and_a_name(self) -> None:
        source = 'print(type(x), type"x") local type = type type = 5 x.type = type\ntype()'
        assert erased(source) == source

    @pytest.mark.parametrize(
        "use",
        [
            "local p = Point(data)",
            "local q = Point:is(data)",
            "return Point",
            "t[Point] = f",
            "local function f() local Point = {} end return Point.name",
        ],
    )
    def test_a_name_used_as_a_value_is_told_to_the_vm_on_the_first_line(self, use: str, loads: Loads) -> None:
        source = f"type Point = {{\n x: number }}\n{use}"
        lines = erased(source).split("\n")
        assert lines[0].startswith('__w_type(_ENV,{"Point"});')
        assert len(lines) == 3
        assert loads(transform(source, "chunk")) == ""

    @pytest.mark.parametrize(
        "use",
        [
            "local p: Point = nil",
            "x.Point = y.Point y:Point()",
            "t = { Point = 1 }",
            "goto Point ::Point::",
            "local Point = {}",
            "local function Point() end",
            "function Point() end Point()",
            "Point = {} print(Point)",
        ],
    )
    def test_a_name_that_only_annotates_or_gets_a_value_leaves_nothing(self, use: str, loads: Loads) -> None:
        text = transform(f"type Point = {{x: number}}\n{use}", "chunk")
        assert "__w_type" not in text
        assert loads(text) == ""


class TestRequires:
    def test_literal_requires_are_reported_with_the_line_of_the_first(self) -> None:
        source = (
            'local a = require("json")\nlocal b = require "time"\nlocal c = require[[x.y]]\nrequire("json").encode()\n'
        )
        assert analyse(source, "chunk").requires == {"json": 1, "time": 2, "x.y": 3}

    def test_other_uses_are_not(self) -> None:
        source = 'require(name) require("a" .. b) t.require("c") t:require("d") local require = require -- require("e")'
        assert analyse(source, "chunk").requires == {}
