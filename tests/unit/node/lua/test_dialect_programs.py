"""Whole programs in typed Lua, as people write them: each is accepted, keeps its lines and gives its result."""

from __future__ import annotations

from typing import Any

import pytest

from node.lua.dialect import transform

PROGRAMS: dict[str, tuple[str, object]] = {
    "primitives, any and unknown": (
        """local n: number, i: integer = 3.5, 42
        local s: string = "x"
        local b: boolean? = nil
        local a: any, u: unknown = { deep = { er = 1 } }, 7
        local nothing: nil = nil
        return n + i + a.deep.er + (u :: number) + #s + (b and 1 or 0)""",
        54.5,
    ),
    "optional values and assertions": (
        """type User = { name: string, boss: User? }
        local function find(id: integer): User?
            if id > 1 then return nil end
            return { name = "u" .. id, boss = { name = "boss" } }
        end
        local user = find(1)
        if user == nil then return "none" end
        local name = (user!).name
        return name .. user!.boss!.name .. tostring(find(2))""",
        b"u1bossnil",
    ),
    "unions, literals and tagged records": (
        """type Level = "low" | "high" | 3 | -1 | true | nil
        type Loaded =
            | { status: "loading" }
            | { status: "done", data: { [string]: number } }
            | { status: "failed", message: string }
        local function show(state: Loaded): string
            if state.status == "loading" then return "..." end
            if state.status == "done" then return "n=" .. state.data.n end
            return state.message
        end
        local level: Level = -1
        return show({ status = "done", data = { n = 2 } }) .. show({ status = "loading" }) .. level""",
        b"n=2...-1",
    ),
    "intersections and extended records": (
        """type Named = { name: string }
        type Aged = { age: number @min(0) @max(150) }
        type Person = Named & Aged & { readonly id: integer, tags?: {string} }
        local p: Person = { name = "Ann", age = 30, id = 1 }
        return p.name .. p.age .. p.id .. #(p.tags or {})""",
        b"Ann3010",
    ),
    "generics with and without bounds": (
        """type Pair<A, B = A> = { first: A, second: B }
        type Tree<T> = { value: T, children: {Tree<T>}, index: {[T]: Tree<Pair<T, T>>} }
        local function swap<A, B>(p: Pair<A, B>): Pair<B, A>
            return { first = p.second, second = p.first }
        end
        local function longest<T: { len: number }>(list: {T}, ...: T): T?
            local best: T? = nil
            for _, one: T in ipairs(list) do
                if best == nil or one.len > (best :: T).len then best = one end
            end
            return best
        end
        local map = function<K, V>(t: {[K]: V}, f: (K, V) -> V): {[K]: V}
            local out: {[K]: V} = {}
            for k: K, v: V in pairs(t) do out[k] = f(k, v) end
            return out
        end
        local q = swap({ first = 1, second = "two" })
        local more = map({ a = 1 }, function(_, v) return v + 1 end)
        return q.first .. q.second .. longest({ { len = 1 }, { len = 9 } }).len .. more.a""",
        b"two192",
    ),
    "function types and several results": (
        """local function divide(a: number, b: number): (number?, string?)
            if b == 0 then return nil, "by zero" end
            return a // b, nil
        end
        local twice: (f: (number) -> number, number) -> number = function(f, x) return f(f(x)) end
        local thunk: () -> (() -> number) = function(): () -> number return function() return 4 end end
        local log: (level: string, ...any) -> () = function(level: string, ...: any) end
        log("x", 1, 2)
        local value, err = divide(1, 0)
        local nine = twice(function(x: number): number return x * 3 end, 1)
        return tostring(value) .. err .. nine .. thunk()() .. divide(7, 2)""",
        b"nilby zero943",
    ),
    "varargs with a type": (
        """local function sum(...: number): number
            local total: number = 0
            for _, v in ipairs({...}) do total = total + v end
            return total + select("#", ...)
        end
        return sum(1, 2, 3)""",
        9,
    ),
    "casts wherever an expression may stand": (
        """local data: any = { list = { 1, 2, 3 }, f = function(x) return x end }
        local x = data :: { list: {number} }
        local y = data.list[1] :: number + (data.list[2] as number) * 2
        local z = data.f(5 :: any) :: number
        local t = { a = data :: any, [1 :: any] = 2 as number, 3 :: number }
        local ok = (data.list :: {number})[3] == 3 :: boolean
        if data as any then z = z + 1 end
        while false :: boolean do end
        repeat local done = true :: boolean until done as boolean
        for i = 1 :: integer, 2 as integer, 1 :: integer do z = z + i :: integer end
        return (x.list :: any)[1] + y + z + #t + (ok and 100 or 0)""",
        116,
    ),
    "casts before a statement in parentheses": (
        """local hits = 0
        local function hit() hits = hits + 1 end
        local a = hits :: any
        (hit)()
        local b = a as { x: number }?
        (hit or b)()
        type Nothing = nil
        (hit)()
        return hits""",
        3,
    ),
    "labels and goto among types": (
        """local n: integer, sum: integer = 0, 0
        ::again::
        n = n + 1
        for i: integer = 1, 3 do
            if i == 2 then goto continue end
            sum = sum + i :: integer
            ::continue::
        end
        if n < 3 then goto again end
        do
            goto out
            sum = 1000
        end
        ::out::
        return sum""",
        12,
    ),
    "attributes before and behind a type": (
        """local closed: {string} = {}
        do
            local limit <const>: integer = 3
            local again: integer <const> = limit
            local handle <close>: any = setmetatable({}, { __close = function() closed[#closed + 1] = "h" end })
            closed[1] = tostring(again)
        end
        return table.concat(closed)""",
        b"3h",
    ),
    "methods, fields and self": (
        """type Account = { balance: number, add: (self: Account, number) -> Account }
        local Account = {}
        Account.__index = Account
        function Account.new(balance: number?): Account
            return setmetatable({ balance = balance or 0 }, Account) :: any
        end
        function Account:add(amount: number): Account
            self.balance = self.balance + amount
            return self
        end
        return Account.new():add(5):add(2 :: number).balance""",
        7,
    ),
    "words that are types elsewhere": (
        """local type, as, export, readonly, typeof, fun = type, 1, 2, 3, 4, 5
        local t = { type = "a", as = "b", is = 3 }
        t.type = t.type .. t.as
        as = as + 1
        export = type(export)
        local function number(string: string): any return string end
        return t.type .. as .. export .. number("s") .. readonly .. typeof .. fun""",
        b"ab2numbers345",
    ),
    "types in blocks and functions, shadowing each other": (
        """type Id = string
        local function f(): number
            type Id = number
            local id: Id = 5
            do
                type Id = { Id }
                local ids: Id = { 1 }
                return id + ids[1]
            end
        end
        return f()""",
        6,
    ),
    "comments and long strings that look like types": (
        """local s = [[ local x: number = 1 :: any ]] --[[ type A = ]]
        local t: --[==[ why ]] ]==] {
            a: string, -- first: number
            b: number, --[[ second ]]
        } = { a = ": T", b = #[==[ ]]::]==] }
        return #s + #t.a + t.b""",
        28 + 3 + 5,
    ),
    "typeof and module types": (
        """local config = { port = 80 }
        local other: typeof(config) = { port = 81 }
        local m: lib.sub.Type<string, {number}>, k: typeof(require("x").y(1))? = nil, nil
        return other.port""",
        81,
    ),
    "integer division, shifts and comparisons beside type brackets": (
        """local a: integer, b: integer = 17, 5
        local less = (a :: number) < b and (a as number) > b
        local l: {{integer}} = {{a // b, a % b}, {a >> 1, a << 1}}
        return tostring(less) .. l[1][1] .. l[1][2] .. l[2][1] .. l[2][2] .. (a < b and 1 or 2)""",
        b"false328342",
    ),
}


DECLARE = "__w_type = function() end "


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_its_result(vm: Any, name: str) -> None:
    source, expected = PROGRAMS[name]
    text = transform(source, "app:program")
    assert text.count("\n") == source.count("\n")
    assert vm.run(DECLARE + text) == expected


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_line_of_a_program_is_told_by_its_own_number(vm: Any, name: str) -> None:
    source = PROGRAMS[name][0]
    lines = source.split("\n")
    lines.insert(len(lines) - 1, "do local nothing: any = nil local _ = nothing.field end")
    assert f":{len(lines) - 1}: attempt to index a nil value" in vm.error(
        DECLARE + transform("\n".join(lines), "app:program")
    )
