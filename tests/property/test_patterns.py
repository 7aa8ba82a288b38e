"""The guarded string functions against Lua's own, on generated patterns."""

from __future__ import annotations

import time
from importlib import resources
from typing import Any

import lupa.lua54 as lupa
from hypothesis import assume, given, settings
from hypothesis import strategies as st

LUA = lupa.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
SOURCE = resources.files("node.lua").joinpath("kernel/patterns.lua").read_bytes()
MAKE = LUA.eval(b"function(text) return assert(load(text, '=patterns', 't'))() end")(SOURCE)
COMPARE = LUA.execute(
    b"""
    local make = ...
    local function outcome(ok, ...)
        if not ok then return "error" end
        local values = table.pack(...)
        for i = 1, values.n do values[i] = tostring(values[i]) end
        return table.concat(values, "|")
    end
    local function every(each, subject, pattern)
        local all = {}
        for a, b, c in each(subject, pattern) do all[#all + 1] = outcome(true, a, b, c) end
        return table.concat(all, ";")
    end
    local function results(library, subject, pattern, init)
        return outcome(pcall(library.find, subject, pattern, init)),
            outcome(pcall(library.match, subject, pattern, init)),
            outcome(pcall(library.gsub, subject, pattern, "<%0>")),
            outcome(pcall(every, library.gmatch, subject, pattern))
    end
    local direct, slow = make(string), make(string, { direct = -1, budget = 1e9 })
    return function(subject, pattern, init)
        local names = { "find", "match", "gsub", "gmatch" }
        local own = { results(string, subject, pattern, init) }
        for way, library in pairs({ direct = direct, slow = slow }) do
            for i, value in ipairs({ results(library, subject, pattern, init) }) do
                if value ~= own[i] then
                    return way .. " " .. names[i] .. ": " .. value .. " instead of " .. own[i]
                end
            end
        end
        return "same"
    end
    """,
    MAKE,
)
CALL = LUA.execute(
    b"""
    local guarded = (...)(string)
    return function(subject, pattern)
        for _, name in ipairs({ "find", "match" }) do pcall(guarded[name], subject, pattern) end
        pcall(guarded.gsub, subject, pattern, "")
    end
    """,
    MAKE,
)

CLASSES = st.sampled_from(["a", "b", ".", "%a", "%s", "[ab]", "[^a]", "[^%s]", "%.", "[a-c%d]", "%W", "]", "^", "-"])
REPEATED = st.tuples(CLASSES, st.sampled_from(["", "", "*", "+", "-", "?"])).map("".join)
WHOLE = st.sampled_from(["%b()", "%f[a]", "()", "%bxx", "$", "."])
ITEMS = st.recursive(
    REPEATED | WHOLE,
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "(" + "".join(items) + ")"),
    max_leaves=4,
)
PATTERNS = st.tuples(
    st.sampled_from(["", "^"]), st.lists(ITEMS, max_size=5).map("".join), st.sampled_from(["", "%1", "$", "%1$"])
).map("".join)
SUBJECTS = st.text("ab()x .", max_size=12)


@given(SUBJECTS, PATTERNS, st.integers(-3, 4))
@settings(max_examples=600, deadline=None)
def test_results_are_those_of_lua(subject: str, pattern: str, init: int) -> None:
    # a malformed pattern is refused before Lua would come to the fault
    if "%1" in pattern:
        assume(pattern.startswith(("(", "^(")))
    assert COMPARE(subject.encode(), pattern.encode(), init) == b"same"


LONG = st.tuples(st.text("ab x(", min_size=1, max_size=4), st.sampled_from([100, 3000, 60_000])).map(
    lambda given: given[0] * given[1]
)
NASTY = st.lists(REPEATED | WHOLE | st.sampled_from([".-", "a*", "%a?", "(.*)", "[ab]-"]), min_size=1, max_size=12)


@given(LONG, NASTY.map("".join))
@settings(max_examples=40, deadline=None)
def test_no_call_takes_long(subject: str, pattern: str) -> None:
    began = time.perf_counter()
    CALL(subject.encode(), pattern.encode())
    assert time.perf_counter() - began < 3  # three calls, each at most 0.1 s where nothing else runs


def test_the_referee_sees_a_difference() -> None:
    wrong: Any = LUA.eval(
        b"function() return { find = string.find, match = string.find, gsub = string.gsub, gmatch = string.gmatch } end"
    )
    assert wrong()[b"match"](b"ab", b"b") != b"b"
