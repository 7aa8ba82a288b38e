"""Guarded string functions: the results of Lua's own, and no call that takes long."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.barepatterns import load_patterns
from tests.unit.node.lua.conftest import Vm


def guarded(limits: str = "{}") -> Vm:
    vm = Vm()
    vm.lua.globals()[b"make"] = load_patterns(vm.lua)
    vm.run(f"G = make({limits})")
    return vm


@pytest.fixture(scope="module")
def module() -> Vm:
    return guarded()


@pytest.fixture(scope="module")
def slow() -> Vm:
    """With every call on the matcher in Lua."""
    return guarded("{ direct = -1, free = -1, budget = 1e9 }")


CALLS = [
    'find("hello world", "o w")',
    'find("hello", "l", -2)',
    'find("hello", "", 10)',
    'find("hello", "")',
    'find("a.b", ".", 1, true)',
    'find("hello", "(l)(l)()")',
    "find(12345, 34)",
    'match("  trim me  ", "^%s*(.-)%s*$")',
    'match("key = value", "^(%w+)%s*=%s*(%w+)$")',
    'match("2024-12-29", "(%d+)-(%d+)-(%d+)")',
    'match("[[x]]", "^%[(%b[])%]$")',
    'match("THE (quick) fox", "%f[%a]%a+%f[%A]", 5)',
    'match("abab", "^(a)(b)%1%2$")',
    'match("x^y", "x^y") ',
    'match("a]b", "[]]b")',
    'match("a-b", "[a%-z]+")',
    'match("end$", "d$$")',
    'match("hello", ".-(l+)(.*)")',
    'match("aaa", "a-b")',
    'match("", "^$")',
    'match("x", "()")',
    'match("hello", "xyz")',
    'match("abc", "((a)(b))")',
    'match("*x*", "*x*")',
    'match("^", "^^")',
    'gsub("hello world", "o", "0")',
    'gsub("hello world", "(%w+)", "<%1>")',
    'gsub("hello", "", "-")',
    'gsub("abc", "%w", "%0%0", 2)',
    'gsub("abc", "%w", "%%")',
    'gsub("$name is $age", "%$(%w+)", { name = "Lua", age = 5 })',
    'gsub("abc", "b", function(c) return c:upper() end)',
    'gsub("abc", "b", function() return nil end)',
    'gsub("  x  ", "^%s+", "")',
    'gsub("a,b,,c", ",*", ";")',
    'gsub("abc", "b", 5)',
    'gsub("abc", "^a", "x")',
]


@pytest.mark.parametrize("call", CALLS)
def test_results_are_those_of_lua(module: Vm, slow: Vm, call: str) -> None:
    expected = module.run(f"return string.{call}")
    assert module.run(f"return G.{call}") == expected
    assert slow.run(f"return G.{call}") == expected


@pytest.mark.parametrize(
    ("subject", "pattern"),
    [
        ("one two  three", "%a+"),
        ("k=v, w=x", "(%w+)=(%w+)"),
        ("abc", ""),
        ("abc", "b*"),
        ("a^b", "^a"),
        ("a,b", "()(,?)"),
        ("line\nline\n", "(.-)\n"),
    ],
)
def test_gmatch_gives_what_lua_gives(module: Vm, slow: Vm, subject: str, pattern: str) -> None:
    collect = """
        local each, subject, pattern = ...
        local all = {}
        for a, b in each(subject, pattern) do all[#all + 1] = tostring(a) .. "," .. tostring(b) end
        return table.concat(all, ";")
    """
    for vm in (module, slow):
        vm.lua.globals()[b"collect"] = vm.lua.eval(b"function(...) " + collect.encode() + b" end")
        vm.lua.globals()[b"s"], vm.lua.globals()[b"p"] = subject.encode(), pattern.encode()
        assert vm.run("return collect(G.gmatch, s, p)") == vm.run("return collect(string.gmatch, s, p)")


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ('find("a", "[a")', "malformed pattern (missing ']')"),
            ('find("a", "%")', "malformed pattern (ends with '%')"),
            ('find("a", "(a")', "malformed pattern (unfinished capture)"),
            ('find("a", "a)")', "malformed pattern (')' without '(')"),
            ('find("a", "%b")', "missing arguments to '%b'"),
            ('find("a", "%fa")', "missing '[' after '%f'"),
            ('find("a", "%1")', "invalid capture index %1"),
            ('find("a", ("(a)"):rep(33))', "too many captures"),
            ('find("a", ("a"):rep(70000) .. ".")', "a pattern of 70001 bytes is over the limit of 2048"),
            ('find("a", ("[ab]"):rep(512) .. "c")', "a pattern of 2049 bytes is over the limit of 2048"),
            ('find("a", ("a?"):rep(191))', "pattern too complex (191 repetitions and captures, the limit is 190)"),
        ],
    )
    def test_a_malformed_pattern_is_refused_at_the_callers_line(self, module: Vm, call: str, message: str) -> None:
        error = module.error(f"\n\nlocal x = G.{call}")
        assert message in error
        assert ":3: " in error.split("\n")[0]

    @pytest.mark.parametrize(
        "call",
        [
            "find(nil, 'a')",
            "find('a', {})",
            "match({}, 'a')",
            "gsub('a', 'b')",
            "gsub('a', 'b', true)",
            "gmatch('a')",
            "find('a', 'a', {})",
            "gsub('a', 'a', 'b', {})",
        ],
    )
    def test_wrong_arguments_are_refused_as_lua_does(self, module: Vm, call: str) -> None:
        assert "bad argument" in module.error(f"return G.{call}")

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ('gsub("abc", "b", "%2")', "invalid capture index %2"),
            ('gsub("abc", "b", "%x")', "invalid use of '%' in replacement string"),
            ('gsub("abc", "b", "x%")', "invalid use of '%' in replacement string"),
            ('gsub("abc", "b", function() return {} end)', "invalid replacement value (a table)"),
        ],
    )
    def test_a_wrong_replacement_is_refused_on_both_ways(self, module: Vm, slow: Vm, call: str, message: str) -> None:
        for vm in (module, slow):
            assert message in vm.error(f"return G.{call}")


class TestCost:
    @pytest.mark.parametrize(
        "call",
        [
            'find(("a"):rep(400), (".-"):rep(8) .. "b")',
            'find(("a"):rep(400), ("a*"):rep(20) .. "b")',
            'find(("a"):rep(40), ("a?"):rep(40) .. ("a"):rep(41))',
            'find(("("):rep(900000), "%b()")',
            'match("x" .. (" "):rep(900000) .. "x", "^%s*(.-)%s*$")',
            'find(("a"):rep(100000), "(a+)%1b")',
            'find(("ab"):rep(200000), "(.*)(.*)%1%2c")',
            'gsub(("a"):rep(900000), "(.-)(.-)x", "")',
            'find(("a"):rep(900000), ("a"):rep(450000) .. "b", 1, true)',
            'find(("a"):rep(900000), ("a"):rep(60000) .. "b")',
            'match(("a"):rep(900000), ("[ab]-"):rep(100) .. "c")',
        ],
    )
    def test_a_costly_call_is_refused_soon_and_says_why(self, module: Vm, call: str) -> None:
        began = time.perf_counter()
        error = module.error(f"return G.{call}")
        assert time.perf_counter() - began < 2  # it takes up to 0.1 s where nothing else runs
        assert "too costly" in error
        assert "split the text" in error

    @pytest.mark.parametrize(
        ("call", "expected"),
        [
            ('select(2, G.gsub(("hello world "):rep(80000), "%s+", " "))', 160_000),
            ('#G.match(("hello world "):rep(40000), "^%s*(.-)%s*$")', 479_999),
            ('#G.gsub(("hello world "):rep(40000), "%s+$", "")', 479_999),
            ('G.find(("hello world "):rep(80000) .. "needle", "needle")', (960_001, 960_006)),
            ('select(2, G.gsub(("key=value "):rep(20000), "(%w+)=(%w+)", "%2=%1"))', 20_000),
            ('#G.match((" "):rep(900000) .. "x", "^%s*(.-)%s*$")', 1),
            (
                'G.find(("a"):rep(500000) .. "b" .. ("a"):rep(500000), "b" .. ("a"):rep(500000), 1, true)',
                (500001, 1000001),
            ),
            ('G.find((" "):rep(900000) .. "x", "%s+$")', None),
            ('#G.match(("directory/"):rep(20000) .. "end", "([^/]*)$")', 3),
            ('select(2, G.gsub(("key=value "):rep(100000), "(%w+)=(%w+)", "%2=%1"))', 100_000),
            ('select(2, G.gsub(("a"):rep(1000000), ".", function(c) return "b" end))', 1_000_000),
            ('G.find(("a"):rep(20000000), "[xyz]")', None),
        ],
    )
    def test_everyday_patterns_pass_on_long_texts(self, module: Vm, call: str, expected: Any) -> None:
        assert module.run(f"return {call}") == expected

    def test_the_result_of_a_gsub_is_bounded(self, module: Vm) -> None:
        assert "too large" in module.error('return G.gsub(("x"):rep(100000), "x", ("y"):rep(1000))')
        assert "too large" in module.error(
            'return G.gsub(("x"):rep(100000), "x", function() return ("y"):rep(1000) end)'
        )

    def test_lines_of_a_long_text_can_be_iterated(self, module: Vm) -> None:
        count = "local n = 0 for line in G.gmatch(('hello world\\n'):rep(20000), '(.-)\\n') do n = n + 1 end return n"
        assert module.run(count) == 20_000

    def test_a_thousand_patterns_in_turn_keep_the_cache_small(self, module: Vm) -> None:
        count = (
            "local n = 0 for i = 1, 2000 do n = n + #G.match('key' .. i .. '=v', 'key' .. i .. '=(.*)') end return n"
        )
        assert module.run(count) == 2000
