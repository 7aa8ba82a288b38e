"""Texts that are not typed Lua: each is refused with its line and with what was expected."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from node.lua.dialect import LuaSyntaxError, transform


def refusal(source: str) -> LuaSyntaxError:
    with pytest.raises(LuaSyntaxError) as caught:
        transform(source, "app:main")
    return caught.value


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("for i = 1, 3 do\n print(i\nend", 3, "expected ')' to close the '(' of line 2, found 'end'"),
        ("function f()\n if x then\n", 3, "expected 'end' to close the 'if' of line 2, found the end of the chunk"),
        ("repeat\n x()\n", 3, "expected 'until' to close the 'repeat' of line 1"),
        ("while x\n y() end", 2, "expected 'do' of the 'while' loop, found 'y'"),
        ("if x\n y() end", 2, "expected 'then' after the condition, found 'y'"),
        ("end", 1, "unexpected 'end': no open block it could belong to"),
        ("return 1\nx = 2", 2, "expected the block to end after 'return', found 'x'"),
        ("x = ", 1, "expected an expression, found the end of the chunk"),
        ("x = {1 2}", 1, "expected '}', found '2'"),
        ("x = {[1] 2}", 1, "expected '=' after the key, found '2'"),
        ("f() = 1", 1, "can't assign to a call"),
        ("(a) = 1", 1, "can't assign to a call or to an expression in parentheses"),
        ("a, f() = 1", 1, "can't assign to a call"),
        ("a, 5 = 1", 1, "expected a variable, found '5'"),
        ("a.b", 1, "expected '=' or a call, an expression alone is no statement"),
        ("(a)", 1, "expected '=' or a call, an expression alone is no statement"),
        ("a.5 = 1", 1, "expected '=' or a call, an expression alone is no statement; found '.5'"),
        ("+ 1", 1, "expected a statement, found '+'"),
        ("a.end = 1", 1, "expected a name after '.', found 'end'"),
        ("a:b = 1", 1, "expected the arguments of a method call"),
        ("x: number = 5", 1, "a type annotation belongs to 'local'"),
        ("local 5", 1, "expected a name after 'local', found '5'"),
        ("local x <const>= 1", 1, "expected '>', found '>='"),
        ("local x <foo> = 1", 1, "unknown attribute 'foo'; expected <const> or <close>"),
        ("local function 5() end", 1, "expected the name of the function, found '5'"),
        ("x = function(a, ) end", 1, "expected a parameter after ',', found ')'"),
        ("x = function(..., a) end", 1, "expected ')' after '...', found ','"),
        ("x = function(5) end", 1, "expected the name of a parameter, found '5'"),
        ("for 5 = 1, 2 do end", 1, "expected a name after 'for', found '5'"),
        ("for i = 1 do end", 1, "expected ',' and the limit of the loop, found 'do'"),
        ("for i do end", 1, "expected '=' or 'in' after the names of the loop, found 'do'"),
        ("goto 5", 1, "expected the name of a label after 'goto', found '5'"),
        ("::a", 1, "expected '::' after the name of the label"),
        ("local x: = 1", 1, "expected a type, found '='"),
        ("local x: {a: number = 1", 1, "expected '}' or ',' in a table type, found '='"),
        ("local x: Map<string = 1", 1, "expected '>' or ',' in a list of type parameters, found '='"),
        ("local x: number @5 = 1", 1, "expected the name of a validator after '@', found '5'"),
        ("type X {a: number}\ntype Y = 1", 1, "expected '=' and a type, found '{'"),
        ("type X =\n\n= 1", 3, "expected a type, found '='"),
        ("if x != 1 then end", 1, "found '!=' (Lua writes ~=)"),
        ("if x && y then end", 1, "found '&&' (Lua writes and)"),
        ("if x || y then end", 1, "found '||' (Lua writes or)"),
        ("x += 1", 1, "found '+=' (Lua writes x = x + y)"),
        ("x++", 1, "found '++' (Lua writes x = x + 1)"),
        ("\n\nx = 'abc\ny = 1", 3, "this string is not closed on its line: 'abc"),
        ('x = "a\\"', 1, "this string is not closed on its line"),
        ("x = 'a\\q'", 1, "unknown escape sequence '\\\\q' in a string"),
        ("x = '\\300'", 1, "unknown escape sequence '\\\\300' in a string"),
        ("x = '\\u{80000000}'", 1, "unknown escape sequence"),
        ("x = [==[ a ]=]", 1, "this long string is never closed"),
        ("x = 1\n--[[ a ]=]", 2, "this long comment is never closed"),
        ("x = 3x", 1, "malformed number '3x'"),
        ("x = 0x", 1, "malformed number '0x'"),
        ("x = 1..2", 1, "malformed number '1..2'"),
        ("x = 1e", 1, "malformed number '1e'"),
        ("local é = 1", 1, "unexpected character 'é'"),
        ("x = $", 1, "unexpected character '$'"),
        ("x = 1 \\ 2", 1, "unexpected character"),
        ("x = 1\nx = { " + "a < b, " * 65 + "}", 2, "more than 64 comparisons in one statement; write several"),
        ("\nlocal __w_b = 1", 2, "the name '__w_b' is reserved"),
        ("x.__w_yield()", 1, "the name '__w_yield' is reserved"),
    ],
)
def test_a_refusal_says_where_and_what(source: str, line: int, message: str) -> None:
    error = refusal(source)
    assert (error.chunk, error.line) == ("app:main", line)
    assert message in error.message
    assert str(error) == f"app:main:{line}: {error.message}"


def test_lines_are_counted_as_lua_counts_them() -> None:
    for newline in ("\n", "\r\n", "\r", "\n\r"):
        assert refusal(newline.join(["-- a", "x = [[", "]] --[[", "]]", "y = ="])).line == 5


def test_a_refusal_can_be_pickled() -> None:
    error = refusal("x = ")
    again = pickle.loads(pickle.dumps(error))
    assert (again.chunk, again.line, again.message) == (error.chunk, error.line, error.message)


class TestNesting:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("do ", " end"),
            ("if x then ", " end"),
            ("while x do ", " end"),
            ("function f() ", " end"),
            ("repeat ", "until x "),
        ],
    )
    def test_a_thousand_blocks_are_refused_not_a_recursion_error(self, before: str, after: str) -> None:
        assert "nested too deeply, the limit is 190 levels" in refusal(before * 1000 + after * 1000).message

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("(", ")"),
            ("{", "}"),
            ("f(", ")"),
            ("a[", "]"),
            ("function() return ", " end"),
            ("-(", ")"),
            ("f{x = ", "}"),
        ],
    )
    def test_so_are_a_thousand_levels_of_an_expression(self, before: str, after: str) -> None:
        assert "nested too deeply, the limit is 190 levels" in refusal(f"x = {before * 1000}1{after * 1000}").message

    @pytest.mark.parametrize(
        ("before", "after"), [("{", "}"), ("(", ")"), ("A<", ">"), ("<T>(a: ", ") -> b"), ("{[K]: ", "}")]
    )
    def test_so_are_a_thousand_levels_of_types(self, before: str, after: str) -> None:
        assert "nested too deeply" in refusal(f"local x: {before * 1000}a{after * 1000}").message

    def test_a_reasonable_depth_is_accepted_and_loads(self, loads: Any) -> None:
        for before, after in (("(", ")"), ("{", "}"), ("f(", ")")):
            assert loads(transform(f"x = {before * 150}1{after * 150}", "chunk")) == ""
        assert loads(transform("do " * 150 + " end" * 150, "chunk")) == ""
        assert loads(transform(f"local x: {'{' * 80}T{'}' * 80} = 1", "chunk")) == ""

    def test_long_chunks_and_chains_are_not_nested(self, loads: Any) -> None:
        chain = "if a then b() " + "elseif a then b() " * 5000 + "end"
        assert loads(transform(chain, "chunk")) == ""
        assert loads(transform("x = f" + ".a" * 5000 + "(1)" * 5000 + " + 1" * 5000, "chunk")) == ""


def test_hostile_texts_take_linear_time() -> None:
    # each would take minutes were the scanner to try again
    for source in (
        "[[" * 200_000,
        "--[[" * 100_000,
        "'\\z " * 100_000,
        '"\\\n' * 100_000,
        "::a" * 50_000,
        "x = 1 ::a:: b " * 20_000,
    ):
        try:
            transform(source, "chunk")
        except LuaSyntaxError:
            continue
