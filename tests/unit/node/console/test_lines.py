"""What was typed becomes a chunk: what it returns, what is kept, what is still to come, what is refused."""

from __future__ import annotations

import pytest

from node.console.lines import LONGEST, Incomplete, LineTooLong, prepare
from node.lua.dialect import LuaSyntaxError

PROLOGUE = "local __w_b,__w_y=0,__w_yield;"


def lua(text: str) -> str:
    return " ".join(prepare(text).removeprefix(PROLOGUE).split())


@pytest.mark.parametrize(
    ("typed", "chunk"),
    [
        ("1 + 1", "return 1 + 1"),
        ("= 1 + 1", "return 1 + 1"),
        ("f(), g", "return f(), g"),
        ("x :: number", "return x"),
        ("x = 1", "x = 1"),
        ("return 7", "return 7"),
        ("", "return"),
        ("-- nothing", "return -- nothing"),
    ],
)
def test_an_expression_gives_its_values_and_a_statement_runs(typed: str, chunk: str) -> None:
    assert lua(typed) == chunk


@pytest.mark.parametrize(
    ("typed", "chunk"),
    [
        ("local x = 1", "; x = 1"),
        ("local x", "; x = nil"),
        ("local a, b: number, c = f()", "; a, b , c = f()"),
        ("local x <const> = 5", "; x = 5"),
        ("local x <const>, y", "; x , y = nil"),
        ("f()\nlocal g = (h)", "f() ; g = (h)"),
        ("local x: {n: number} = {n = 1} local y = x", "; x = {n = 1} ; y = x"),
        ("if a then local b = 1 end local c = b", "if a then local b = 1 end ; c = b"),
        ("do local b = 1 end", "do local b = 1 end"),
        ("local x <close> = f()", "local x <close> = f()"),
    ],
)
def test_a_local_at_the_top_outlives_its_line(typed: str, chunk: str) -> None:
    assert lua(typed) == chunk


def test_a_local_function_outlives_its_line_and_keeps_its_yield_points() -> None:
    chunk = lua("local function f() local z = 1 return z end")
    assert chunk.startswith("function f() __w_b=")
    assert "local z = 1" in chunk


@pytest.mark.parametrize(
    "typed",
    [
        "f(",
        "x =",
        "1 +",
        "function f()",
        "if x then",
        "for i = 1, 2 do",
        "t = {\n",
        "[[a",
        "--[[ a",
        "local x =",
        "x"[:0] + "a.",
    ],
)
def test_what_goes_on_in_the_next_line_is_incomplete(typed: str) -> None:
    with pytest.raises(Incomplete):
        prepare(typed)


@pytest.mark.parametrize("typed", ["x = = 1", ")", "'abc", "for end", "a b", "1 1"])
def test_what_can_not_become_lua_is_refused_with_its_line(typed: str) -> None:
    with pytest.raises(LuaSyntaxError, match=r"^prompt:1: ") as refused:
        prepare(typed)
    assert not isinstance(refused.value, Incomplete)


def test_an_input_has_a_largest_size() -> None:
    assert prepare("x = '" + "a" * (LONGEST - 6) + "'")
    with pytest.raises(LineTooLong, match="1000008 bytes; a prompt takes 65536"):
        prepare("x = '" + "a" * 1_000_002 + "'")
