"""The dialect against generated programs and against Lua's own parser."""

from __future__ import annotations

import re
from typing import Any

import lupa.lua54 as lupa
from hypothesis import given, settings
from hypothesis import strategies as st

from node.lua.dialect import LuaSyntaxError, transform
from node.lua.dialect.chunk import PROLOGUE
from node.lua.dialect.grammar import POINT
from node.lua.dialect.tokens import KEYWORDS

LUA = lupa.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
LOAD = LUA.eval(b"function(text) local f, e = load(text, '=chunk', 't') return e or '' end")
RUN = LUA.eval(
    b"""function(text, quantum)
        local env = {
            tostring = tostring, select = select, ipairs = ipairs, pcall = pcall, error = error,
            setmetatable = setmetatable, math = math, string = string, table = table,
            __w_yield = function() coroutine.yield() return quantum end,
        }
        local thread = coroutine.create(assert(load(text, "=chunk", "t", env)))
        for turn = 1, 100000 do
            local ok, value = coroutine.resume(thread)
            if not ok or coroutine.status(thread) == "dead" then return ok, tostring(value), turn end
        end
        error("a generated program does not end")
    end"""
)
# What only the second half of Lua's compiler refuses: the dialect leaves it to ``load``.
COMPILER_ONLY = re.compile(
    "break outside|no visible label|already defined|attempt to assign to const|jumps into the scope|outside a vararg|"
    "multiple to-be-closed|too many|overflow|needs more than"
)

NAMES = ("a", "b", "c", "tbl", "as", "type")
TYPE_NAMES = ("number", "string", "any", "User", "m.Type", "integer", "boolean")


class Writer:
    """Writes one program twice: with types, and with white space where the types were."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.typed: list[str] = []
        self.plain: list[str] = []
        self.labels = 0
        self.varargs = True
        self.seen: set[str] = set()
        """What the program has of each kind of piece."""

    def pick(self, *options: Any) -> Any:
        return options[self.draw(st.integers(0, len(options) - 1))]

    def put(self, text: str) -> None:
        self.typed.append(text)
        self.plain.append(text)

    def name(self, stem: str) -> str:
        """A name nothing else has."""
        self.labels += 1
        return f"{stem}{self.labels}"

    def note(self, text: str) -> None:
        """Put a piece of type syntax."""
        self.typed.append(text)
        self.plain.append(re.sub(r"[^\n]", " ", text))

    def maybe_note(self, *before: str) -> None:
        if self.pick(True, False):
            self.note(before[0] + self.type(2))

    def type(self, depth: int) -> str:
        if depth == 0:
            return str(self.pick(*TYPE_NAMES, '"lit"', "nil", "-1", "true", "'it\\'s'"))

        def inner() -> str:
            text = self.type(depth - 1)
            return f"({text})" if text.startswith("|") else text

        match self.pick(*range(15)):
            case 0:
                return f"{{{inner()}}}"
            case 1:
                return f"{{[ {inner()} ]: {inner()}}}"
            case 2:
                return f"{{\n x: {inner()},\n y?: {inner()}; readonly z: {inner()}}}"
            case 3:
                return f"({inner()} | {inner()})?"
            case 4:
                return f"(x: {inner()}, y?: {inner()}, ...: any) -> ({inner()}, {inner()})"
            case 5:
                return f"Map<{inner()}, List<{inner()}>>"
            case 6:
                return f"{inner()}[] & {inner()}"
            case 7:
                return f"number @min(0) @max({self.pick(1, 2)})"
            case 8:
                return f"<T, U: {inner()}>(T) -> U"
            case 9:
                return f"{inner()}?[]?"
            case 10:
                return f"[==[ {self.pick('x', ']]', ': T')} ]==] | {inner()}"
            case 11:
                return f"() -> ({inner()}, ...{inner()})"
            case 12:
                return f"| {inner()}\n | {inner()}"
            case 13:
                return f"{{'a b': {inner()}, [number]: {inner()}; end: nil, ...}}"
            case _:
                return "typeof(f(1).x)"

    def program(self) -> None:
        self.put("local a, b, c, as, closed = 1, 2, 3, 0, 0\n")
        self.put("local tbl = {n = 1; list = {1, 2, [3] = 3}, inner = {n = 5,},}\n")
        self.put("local function id(...) return ... end\n")
        self.put("function tbl:get(first, ...) return first or self.n, ... end\n")
        self.put("local closer = setmetatable({}, {__close = function() closed = closed + 1 end})\n")
        self.block(3, self.pick(1, 2, 3, 4))
        self.put("\nreturn tostring(a)..'|'..tostring(b)..'|'..tostring(c)..'|'..tostring(tbl.n)..'|'..tostring(as)")
        self.put("..'|'..tostring(closed)..'|'..#tbl.list..'|'..tostring(tbl.inner.n)")

    def block(self, depth: int, size: int) -> None:
        for _ in range(size):
            self.statement(depth)
            self.put(self.pick("\n", " ", ";\n", " -- note: T\n", " --[[ x :: T\n type A = B ]] ", " --[==[ ]] ]==] "))

    def statement(self, depth: int) -> None:
        kinds = SIMPLE + (NESTED if depth > 0 else ())
        kind = self.pick(*kinds)
        self.seen.add(kind)
        getattr(self, "write_" + kind)(depth)

    def expression(self, depth: int = 2) -> None:
        match self.pick(*range(15)) if depth else self.pick(0, 1):
            case 0:
                self.put(str(self.pick(1, 2, 7, "0x1F", "3 // 2", "5 % 3", "1 << 2", "~1")))
            case 1:
                self.put(self.pick("a", "b", "c", "as"))
            case 2 | 3:
                self.expression(depth - 1)
                self.put(self.pick(" + ", " - ", " * ", " & ", " ~ "))
                self.expression(depth - 1)
            case 4:
                self.put("(")
                self.expression(depth - 1)
                self.note(self.pick(" :: ", " as ") + self.type(1))
                self.put(")")
            case 5:
                self.put("(id(")
                self.expression(depth - 1)
                self.put("))")
            case 6:
                self.put("tbl")
                self.note(self.pick("!", ""))
                self.put(".n")
            case 7:
                self.seen.add("integer division")
                self.expression(depth - 1)
                self.put(self.pick(" // 3", "//2", " % 7", " >> 1", " << 2"))
            case 8:
                self.seen.add("method call")
                self.put("tbl:get(")
                self.expression(depth - 1)
                self.note(self.pick("!", "", " :: " + self.type(1)))
                self.put(", 'as T')")
            case 9:
                self.seen.add("long string")
                self.put("#" + self.pick("[[ : T\n -- ]]", "[==[ ]] :: ]==]", "'\\z\n  x'", '"a\\n: T"'))
            case 10:
                self.seen.add("varargs")
                self.put(f"select('#', {'...' if self.varargs else 'id()'})")
            case 11:
                self.seen.add("inline function")
                self.put("(function(p")
                self.maybe_note(": ")
                self.put(")")
                self.maybe_note(": ")
                self.put(" return ")
                self.put(self.pick("p", "p + a", "tbl.n"))
                self.put(" end)(")
                self.expression(depth - 1)
                self.put(")")
            case 12:
                self.put("tbl.list[")
                self.expression(depth - 1)
                self.put(" % 3 + 1]")
            case 13:
                self.put("(")
                self.condition()
                self.put(self.pick(" and ", " or "))
                self.put("nil or ")
                self.expression(depth - 1)
                self.put(") and ")
                self.put(self.pick("1", "tbl.inner.n"))
            case _:
                self.put("- ")
                self.expression(depth - 1)

    def condition(self) -> None:
        self.expression(1)
        self.put(self.pick(" < ", " <= ", " ~= ", " == "))
        self.expression(1)

    def write_assign(self, depth: int) -> None:
        self.put(self.pick("a", "b", "c", "as") + " = ")
        self.expression()
        if self.pick(True, False, False):
            self.note(" :: " + self.type(2))

    def write_field(self, depth: int) -> None:
        self.put("tbl.n = ")
        self.expression()

    def write_local(self, depth: int) -> None:
        self.put("local x")
        self.put(self.pick("", "", " <const>"))
        self.maybe_note(": ")
        self.put(" = ")
        self.expression()

    def write_two(self, depth: int) -> None:
        self.put("a, tbl.inner.n = ")
        self.expression(1)
        self.put(", ")
        self.expression(1)

    def write_close(self, depth: int) -> None:
        self.put("do local c <close>")
        self.maybe_note(": ")
        self.put(" = closer a = a + closed end")

    def write_attribute_behind_the_type(self, depth: int) -> None:
        self.put("local k")
        self.maybe_note(": ")
        self.put(self.pick(" <const>", " <close>"))
        self.put(" = nil")

    def write_method(self, depth: int) -> None:
        self.put("tbl:get(")
        self.expression(1)
        self.put(")")

    def write_protected(self, depth: int) -> None:
        self.put("b = select('#', pcall(function(...")
        self.maybe_note(": ")
        self.put(") ")
        self.put(self.pick("error(...)", "return ..., 1", "return id(...)", "local x = nil .. a"))
        self.put(" end, 7))")

    def write_alias(self, depth: int) -> None:
        self.note(f"{self.pick('', 'export ')}type Alias{self.pick('', '<T>', '<K, V: T>')} = {self.type(2)}")
        self.put(" ")

    def write_call(self, depth: int) -> None:
        self.put("id(")
        self.expression()
        self.put(", 'x::y', [[: T]])")

    def write_if(self, depth: int) -> None:
        self.put("if ")
        self.condition()
        self.put(" then\n")
        self.block(depth - 1, 1)
        if self.pick(True, False):
            self.put(" elseif ")
            self.condition()
            self.put(" then ")
            self.block(depth - 1, 1)
        if self.pick(True, False):
            self.put(" else ")
            self.block(depth - 1, 1)
        self.put(" end")

    def write_for(self, depth: int) -> None:
        self.put("for i")
        self.maybe_note(": ")
        self.put(self.pick(" = 1, 3 do ", " = 3, 1, -1 do ", " = 1.0, 2, 0.5 do "))
        self.block(depth - 1, 1)
        self.put(" end")

    def write_in(self, depth: int) -> None:
        self.put("for k")
        self.maybe_note(": ")
        self.put(", v")
        self.maybe_note(": ")
        self.put(" in function(_, k) if not k then return 1, 2 end end do ")
        self.block(depth - 1, 1)
        self.put(" end")

    def write_while(self, depth: int) -> None:
        self.put("do local w = 0 while w < 2 do w = w + 1\n")
        self.block(depth - 1, 1)
        self.put(" end end")

    def write_repeat(self, depth: int) -> None:
        self.put("do local w = 0 repeat w = w + 1 ")
        self.block(depth - 1, 1)
        self.put(self.pick(" until w >= 2 end", " local e <const> = w until e >= 2 end"))

    def write_function(self, depth: int) -> None:
        name = self.name("f")
        self.put(self.pick(f"local function {name}", f"local {name} {name} = function", f"function tbl.inner:{name}"))
        called = name if "tbl" not in self.plain[-1] else f"tbl.inner:{name}"
        self.note(self.pick("", "<T>", "<T: User, U>"))
        self.put("(p")
        self.note(self.pick("", "?"))
        self.maybe_note(": ")
        self.put(", ...")
        self.maybe_note(": ")
        self.put(")")
        self.maybe_note(": ")
        self.put(" ")
        outer, self.varargs = self.varargs, True
        self.block(depth - 1, 1)
        self.varargs = outer
        self.put(self.pick(" ", " do return p, ... end ", " if p == 1 then return end "))
        self.put(f" end {called}(")
        self.expression(1)
        self.put(self.pick(")", ", 2, nil)", ", id(1, 2))"))

    def write_fixed(self, depth: int) -> None:
        """A function without varargs, and one that closes over a loop's variable."""
        name = self.name("g")
        self.put(f"local {name} for i = 1, 2 do local function h(")
        self.put(self.pick("", "p, q"))
        self.put(")")
        self.maybe_note(": ")
        outer, self.varargs = self.varargs, False
        self.put(" a = a + i ")
        self.block(depth - 1, 1)
        self.varargs = outer
        self.put(f" end {name} = h end {name}(1)")

    def write_recursion(self, depth: int) -> None:
        name = self.name("r")
        self.put(f"local function {name}(n")
        self.maybe_note(": ")
        outer, self.varargs = self.varargs, False
        self.put(") if n > 0 then ")
        self.block(0, 1)
        self.varargs = outer
        self.put(self.pick(f" return {name}(n - 1)", f" {name}(n - 1)"))
        self.put(f" end end {name}(3)")

    def write_out(self, depth: int) -> None:
        """A goto, or a break, that leaves nested loops."""
        label = self.name("out")
        self.put("for i = 1, 2 do while true do ")
        self.block(depth - 1, 1)
        self.put(self.pick(f" goto {label}", " do break end"))
        self.put(f" end end ::{label}::")

    def write_do(self, depth: int) -> None:
        self.put("do ")
        self.block(depth - 1, 2)
        self.put("end")

    def write_goto(self, depth: int) -> None:
        self.put("for i = 1, 2 do if i == 1 then goto continue end do ")
        self.block(depth - 1, 1)
        self.put(" end ::continue:: end")

    def write_back(self, depth: int) -> None:
        self.labels += 1
        label = f"again{self.labels}"
        self.put(f"do local w = 0 ::{label}:: w = w + 1 do ")
        self.block(depth - 1, 1)
        self.put(f" end if w < 3 then goto {label} end end")


SIMPLE = (
    "assign", "local", "alias", "call", "field", "two", "close", "attribute_behind_the_type", "method", "protected"
)  # fmt: skip
NESTED = (
    "if", "for", "in", "while", "repeat", "function", "fixed", "recursion", "out", "do", "goto", "back"
)  # fmt: skip


@st.composite
def programs(draw: Any) -> tuple[str, str]:
    """A program with types and the same one with white space in their place."""
    writer = Writer(draw)
    writer.program()
    return "".join(writer.typed), "".join(writer.plain)


def without_points(text: str) -> str:
    return text.removeprefix(PROLOGUE).replace(POINT, "")


@given(programs())
@settings(max_examples=150, deadline=None)
def test_nothing_but_types_is_erased_and_no_line_moves(program: tuple[str, str]) -> None:
    typed, plain = program
    text = transform(typed, "chunk")
    assert text.count("\n") == typed.count("\n")
    # an erased cast or alias before a parenthesis leaves a semicolon
    assert without_points(text).replace(";", " ") == plain.replace(";", " ")
    assert LOAD(text.encode()) == b""


def test_the_programs_have_every_kind_of_piece() -> None:
    seen: set[str] = set()

    @given(st.data())
    @settings(max_examples=150, deadline=None, database=None)
    def collect(data: st.DataObject) -> None:
        writer = Writer(data.draw)
        writer.program()
        seen.update(writer.seen)

    collect()
    assert seen >= {*SIMPLE, *NESTED, "integer division", "method call", "long string", "varargs", "inline function"}


@given(programs(), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_yield_points_change_no_result(program: tuple[str, str], quantum: int) -> None:
    typed, plain = program
    expected = RUN(plain.encode(), 0)
    text = transform(typed, "chunk").encode()
    assert RUN(text, quantum)[:2] == expected[:2]
    assert RUN(text, 10**9)[2] <= 2


OPERATORS = [*"+-*/%^#&~|<>=(){}[];,.:", "//", "<<", ">>", "==", "~=", "<=", ">=", "..", "...", "::"]
TOKENS = [*sorted(KEYWORDS), *OPERATORS, "a", "b", "c", "1", "0x1F", "1.5", "'x'", "[[y]]"]
DIALECT_ONLY = re.compile(r"\btype\b|\bas\b|::|:|[?!@]|->|[<>]")


@st.composite
def texts(draw: Any) -> str:
    """A program with a few of its tokens dropped, doubled, swapped or replaced."""
    writer = Writer(draw)
    writer.program()
    tokens = re.findall(r"\w+|'[^']*'|\[\[.*?\]\]|--[^\n]*\n|\.\.\.|[<>=~]=|<<|>>|//|::|\.\.|\S", "".join(writer.plain))
    for _ in range(writer.pick(0, 1, 1, 2, 3)):
        at = draw(st.integers(0, len(tokens) - 1))
        match writer.pick("drop", "double", "swap", "replace"):
            case "drop":
                del tokens[at]
            case "double":
                tokens.insert(at, tokens[at])
            case "swap":
                tokens[at], tokens[at - 1] = tokens[at - 1], tokens[at]
            case _:
                tokens[at] = writer.pick(*TOKENS)
    return " ".join(tokens)


@given(st.one_of(texts(), st.lists(st.sampled_from(TOKENS), max_size=12).map(" ".join)).map(lambda text: " " + text))
@settings(max_examples=400, deadline=None)
def test_the_dialect_agrees_with_lua_on_plain_lua(source: str) -> None:
    refused_by_lua = LOAD(source.encode()).decode()
    try:
        text = transform(source, "chunk")
    except LuaSyntaxError:
        assert refused_by_lua or "::" in source, source  # on one line a label no goto names looks like two casts
        return
    if DIALECT_ONLY.search(source) is None and refused_by_lua:
        assert COMPILER_ONLY.search(refused_by_lua), (source, refused_by_lua)
    if not refused_by_lua:
        assert LOAD(text.encode()) == b""


@given(st.text(alphabet="abt:<>(){}[]=,.;?!@|&-\"'\\ \n0x9_#~éz", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_transformed_or_refused_with_a_line_of_its_own(source: str) -> None:
    try:
        text = transform(source, "chunk")
    except LuaSyntaxError as refusal:
        line = refusal.line
    else:
        line = text.count("\n") + 1
        assert line == source.count("\n") + 1
    assert 1 <= line <= len(re.findall(r"\r\n|\n\r|\n|\r", source)) + 1
