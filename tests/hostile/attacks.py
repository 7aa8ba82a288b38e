# ruff: noqa: E501 - an attack is easier to judge on one line
"""What hostile programs try, by class: at least four attacks in each, and what becomes of each.

An attack is the body of a process's main function. Its fate is one of

* ``HELD``: it runs to its end and returns "held": every attempt failed, as it found itself;
* ``ENDLESS``: it never ends, costs its share, and is killed when it is told to terminate;
* ``BUDGET``: it is killed for a stretch that can't be interrupted;
* ``MEMORY``: it is killed for the memory it takes;
* any other text: it fails with an error that contains it.
"""

from __future__ import annotations

from collections.abc import Mapping

HELD = "held"
ENDLESS = "endless"
BUDGET = "killed: a stretch that can't be interrupted took too long"
MEMORY = "killed: memory"

SORT = "local t = {} for i = 1, 50 do t[i] = i end table.sort(t, function() %s end)"


def in_comparator(body: str) -> str:
    """In a stretch that can't yield."""
    return SORT % body


def refused(*attempts: str) -> tuple[str, str]:
    """All of these functions' bodies must raise."""
    tries = " ".join(
        f"assert(not pcall(function() {attempt} end), 'reached by attempt {number}')"
        for number, attempt in enumerate(attempts, 1)
    )
    return f"{tries} return 'held'", HELD


ATTACKS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "escape: metatables": {
        "metatables of the runtime are hidden and locked": refused(
            "getmetatable(channel.new()).__index = nil",
            "setmetatable(channel.new(), nil)",
            "setmetatable(process.inbox(), {})",
            "rawset(errors.new('x'), 1, process)",
            "getmetatable(_G).process = 1",
        ),
        "methods on objects of another kind": refused(
            "channel.new().receive(errors.new('x'))",
            "errors.new('x').message(channel.new())",
            "process.inbox().receive({})",
            "local ch = channel.new() ch.send(setmetatable({}, { __index = ch }), 1)",
        ),
        "answers that differ each time": (
            """local n = 0
            local cases = setmetatable({}, { __len = function() return 2 end, __index = function()
                n = n + 1 return n % 2 == 1 and channel.new() or {} end })
            assert(not pcall(channel.select, cases)) return "held" """,
            HELD,
        ),
        "the environment's metatable": (
            """assert(type(getmetatable(_G)) ~= "table")
            assert(not pcall(setmetatable, _G, { __index = function() return "mine" end })) return "held" """,
            HELD,
        ),
        "a frozen table is not thawed": refused(
            "local t = table.freeze({ 1 }) rawset(t, 1, 2)",
            "local t = table.freeze({ 1 }) t[1] = 2",
            "local t = table.freeze({ 1 }) setmetatable(t, nil)",
            "local t = table.freeze({ 1 }) table.insert(t, 2)",
        ),
    },
    "escape: bytecode": {
        "nothing compiles": (
            "return (load or loadstring or loadfile or dofile or string.dump or require == nil) and 'reached' or 'held'",
            HELD,
        ),
        "nothing dumps": refused("string.dump(print)", "('').dump(print)", "(function() end):dump()"),
        "a chunk of bytes is no module": refused("require('\\27Lua')", "require('debug')", "require('package')"),
        "bytecode in a message stays bytes": (
            """process.send(process.pid(), "t", "\\27LuaT\\0\\25\\147")
            local data = process.inbox():receive():payload():data()
            assert(type(data) == "string" and not pcall(function() return data() end)) return "held" """,
            HELD,
        ),
    },
    "escape: the string metatable": {
        "it is locked": refused(
            "getmetatable('').__index = {}",
            "setmetatable('', {})",
            "getmetatable('').__index.upper = print",
            "rawset(getmetatable(''), '__index', {})",
        ),
        "a changed library is one's own": (
            """local real = ("x"):upper() string.upper = function() return "mine" end
            assert(("x"):upper() == real) return "held" """,
            HELD,
        ),
        "methods are the guarded ones": (
            """local ok, problem = pcall(function() return (("a"):rep(100000)):find(("a*"):rep(9) .. "b") end)
            assert(not ok and problem:find("too costly")) return "held" """,
            HELD,
        ),
        "arithmetic and calls on texts": refused(
            "return ('x')()", "return ('x') + 1", "return ('x').y.z", "return #nil"
        ),
    },
    "escape: error objects": {
        "a stack shows no kernel": (
            """local e = errors.new("x") assert(not e:stack():find("kernel/")) return "held" """,
            HELD,
        ),
        "an error that calls": (
            """local bad = setmetatable({}, { __tostring = function() return process end })
            assert(not pcall(tostring, bad)) error(bad) """,
            "error object is a table value",
        ),
        "a changed error object does not cross": (
            """local e = errors.new("x") assert(not pcall(rawset, e, 2, print)) e.details = print
            process.send(process.pid(), "t", e) return "held" """,
            HELD,
        ),
        "the text of a killed process's error": (
            """local ok, problem = pcall(error, setmetatable({}, { __index = function() return debug end }))
            assert(not ok and type(problem) == "table" and problem.x == nil) return "held" """,
            HELD,
        ),
    },
    "escape: coroutines": {
        "the scheduler's own are out of reach": (
            "assert(coroutine.running() == nil and not coroutine.isyieldable()) return 'held'",
            HELD,
        ),
        "what the scheduler is told can't be forged": refused(
            "coroutine.yield()", "coroutine.yield({})", "coroutine.resume(coroutine.running())"
        ),
        "a coroutine of another thread": (
            """local co = coroutine.create(function() coroutine.yield(1) end)
            coroutine.spawn(function() coroutine.resume(co) end)
            channel.select({ channel.new():case_receive(), default = true })
            return coroutine.status(co) ~= "running" and "held" or "reached" """,
            HELD,
        ),
        "resuming oneself": (
            """local co co = coroutine.create(function() return coroutine.resume(co) end)
            local _, ok = coroutine.resume(co) return ok and "reached" or "held" """,
            HELD,
        ),
    },
    "escape: __gc and __close": {
        "no finalizers": refused(
            "setmetatable({}, { __gc = function() end })",
            "setmetatable({}, { __gc = true })",
            "local m = { __gc = print } setmetatable({}, m)",
        ),
        "a finalizer that comes later has no effect": (
            """local ran = false local m = {} setmetatable({}, m) m.__gc = function() ran = true end
            for i = 1, 200000 do local t = { i } end return ran and "reached" or "held" """,
            HELD,
        ),
        "closing after the kill": (
            """local x <close> = setmetatable({}, { __close = function() while true do end end }) while true do end""",
            ENDLESS,
        ),
        "closing that swallows": (
            """while true do pcall(function()
                local x <close> = setmetatable({}, { __close = function() error("swallowed") end })
                while true do end end) end""",
            ENDLESS,
        ),
    },
    "hang: loops": {
        "while": ("while true do end", ENDLESS),
        "repeat": ("repeat until false", ENDLESS),
        "a loop that counts": ("for i = 1, math.huge do end", ENDLESS),
        "an iterator": ("for k in function() return 1 end do end", ENDLESS),
        "a loop over a growing list": (
            "local t = { 1 } for i, v in ipairs(t) do t[i % 100 + 1] = i end while true do end",
            ENDLESS,
        ),
    },
    "hang: goto": {
        "back": ("::again:: goto again", ENDLESS),
        "around": ("::a:: do goto b end ::b:: goto a", ENDLESS),
        "in pcall": ("while true do pcall(function() ::again:: goto again end) end", ENDLESS),
        "in a comparator": (in_comparator("::again:: goto again"), BUDGET),
    },
    "hang: recursion": {
        "without end": ("local function f(n) return 1 + f(n + 1) end while true do pcall(f, 1) end", ENDLESS),
        "tail calls": ("local function f(n) return f(n + 1) end return f(1)", ENDLESS),
        "of two": ("local f, g function f() return g() end function g() return f() end f()", ENDLESS),
        "through metamethods": (
            """local m = {} m.__index = function(t, k) return t[k + 1] end
            while true do pcall(function() return setmetatable({}, m)[1] end) end""",
            ENDLESS,
        ),
    },
    "hang: callbacks": {
        "of gsub": ("(('a'):rep(10)):gsub('.', function() while true do end end)", ENDLESS),
        "of sort": (in_comparator("while true do end"), BUDGET),
        "of sort in pcall": (in_comparator("while true do pcall(function() while true do end end) end"), BUDGET),
        "__tostring": ("tostring(setmetatable({}, { __tostring = function() while true do end end }))", BUDGET),
        "a table that answers gsub": (
            "('a'):gsub('a', setmetatable({}, { __index = function() while true do end end }))",
            ENDLESS,
        ),
    },
    "hang: handlers": {
        "of xpcall": ("local function h() while true do end end while true do xpcall(error, h) end", BUDGET),
        "xpcall of itself": ("local function s() while true do end end xpcall(s, s) while true do end", ENDLESS),
        "in a comparator": (
            "local function s() while true do end end " + in_comparator("xpcall(s, s) while true do xpcall(s, s) end"),
            BUDGET,
        ),
        "__index": ("return setmetatable({}, { __index = function() while true do end end }).x", ENDLESS),
        "__eq and __lt": (
            """local m = { __eq = function() while true do end end, __lt = function() while true do end end }
            return setmetatable({}, m) == setmetatable({}, m)""",
            ENDLESS,
        ),
    },
    "hang: deep pcall": {
        "nested": ("local function f() pcall(f) pcall(f) end while true do f() end", ENDLESS),
        "nested loops": ("local function f() while true do pcall(f) pcall(f) end end f()", ENDLESS),
        "in a comparator": (
            "local function f() while true do pcall(f) pcall(f) end end " + in_comparator("f() return false"),
            BUDGET,
        ),
        "with xpcall": ("local function f() while true do xpcall(f, f) end end f()", ENDLESS),
        "through coroutines": (
            "local function f() while true do pcall(coroutine.wrap(f)) end end f()",
            ENDLESS,
        ),
    },
    "hang: slow instructions": {
        "comparing long texts": (
            r"local a, b = ('\0'):rep(1 << 22), ('\0'):rep(1 << 22) while true do local x = a < b end",
            ENDLESS,
        ),
        "now and then": (
            r"""local a, b, n = ('\0'):rep(1 << 22), ('\0'):rep(1 << 22), 0
            while true do for i = 1, 100000 do n = n + i end for i = 1, 100000 do local x = a < b end end""",
            ENDLESS,
        ),
        "one after the other": (
            r"local a, b, x = ('\0'):rep(1 << 22), ('\0'):rep(1 << 22) " + "x = a < b " * 3000,
            ENDLESS,
        ),
        "in many coroutines": (
            r"""local a, b = ('\0'):rep(1 << 22), ('\0'):rep(1 << 22)
            for i = 1, 1000 do coroutine.spawn(function() while true do
                local x = a < b channel.select({ channel.new():case_receive(), default = true }) end end) end
            while true do end""",
            ENDLESS,
        ),
        "equality of long texts": (
            "local a, b = ('x'):rep(1 << 23), ('x'):rep(1 << 23) while true do local x = a == b end",
            ENDLESS,
        ),
        "long texts as keys": (
            "local a, b = ('x'):rep(1 << 23), ('x'):rep(1 << 23) local t = { [a] = 1 } while true do local x = t[b] end",
            ENDLESS,
        ),
        "emptied slots": (
            """local t = {} for i = 1, 400000 do t[i + 0.5] = true end for k in next, t do t[k] = nil end
            while true do next(t) end""",
            ENDLESS,
        ),
        "the length of a list with holes": (
            "local t = {} for i = 1, 20 do t[1 << i] = i end while true do local n = #t end",
            ENDLESS,
        ),
        "hundreds of thousands of values": (
            "local s = ('x'):rep(900000) while true do local n = select('#', s:byte(1, 900000)) end",
            ENDLESS,
        ),
        "joining": ("local s = ('x'):rep(4 << 20) while true do local t = s .. 'x' end", ENDLESS),
        "in a comparator": (
            r"local a, b = ('\0'):rep(1 << 22), ('\0'):rep(1 << 22) "
            + in_comparator("while true do local x = a < b end"),
            BUDGET,
        ),
    },
    "hang: patterns": {
        "lazy in a row": ("while true do pcall(string.find, ('a'):rep(400), ('.-'):rep(8) .. 'b') end", ENDLESS),
        "refused at once": ("return (('a'):rep(100000)):find(('a*'):rep(20) .. 'b')", "too costly"),
        "a long text": (
            "local s = ('a '):rep(500000) while true do pcall(string.gsub, s, '(.-)(.-)x', '') end",
            ENDLESS,
        ),
        "brackets": ("local s = ('('):rep(500000) while true do pcall(string.find, s, '%b()') end", ENDLESS),
        "in a comparator": (
            in_comparator("while true do pcall(string.find, ('a'):rep(400), ('.-'):rep(8) .. 'b') end"),
            BUDGET,
        ),
    },
    "bomb: tables": {
        "a list": ("local t = {} while true do t[#t + 1] = { #t } end", MEMORY),
        "keys": ("local t, i = {}, 0 while true do i = i + 1 t['key' .. i] = i end", MEMORY),
        "nested": ("local t = {} while true do t = { t } end", MEMORY),
        "in pcall": ("local t = {} while true do pcall(function() while true do t[#t + 1] = {} end end) end", MEMORY),
        "moved": (
            "local t = {} for i = 1, 1000 do t[i] = i end while true do table.move(t, 1, #t, #t + 1) end",
            MEMORY,
        ),
    },
    "bomb: strings": {
        "many": ("local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end", MEMORY),
        "large": ("local t = {} while true do t[#t + 1] = ('x'):rep(1000000) .. #t end", MEMORY),
        "pieces": ("local s, t = ('x'):rep(1000000), {} while true do t[#t + 1] = s:sub(#t % 9 + 2) end", MEMORY),
        "in pcall": (
            "local t = {} while true do pcall(function() t[#t + 1] = ('x'):rep(100000) .. #t end) end",
            MEMORY,
        ),
    },
    "bomb: concatenation": {
        "doubling": ("local s = 'x' while true do s = s .. s end", MEMORY),
        "in pcall": ("local s = 'x' while true do pcall(function() s = s .. s end) end", MEMORY),
        "straight on": ("local s = ('x'):rep(1000000) " + "s = s .. s " * 30, MEMORY),
        "table.concat": (
            "local s, t = ('x'):rep(1000000), {} for i = 1, 1000 do t[i] = s end table.concat(t)",
            "too large",
        ),
    },
    "bomb: rep": {
        "at once": ("('x'):rep(1 << 40)", "too large"),
        "just below": ("local t = {} while true do t[#t + 1] = ('x'):rep(8000000 + #t) end", MEMORY),
        "with a separator": ("('x'):rep(1000, ('y'):rep(1000000))", "too large"),
        "numbers that are none": (
            "assert(not pcall(string.rep, 'x', 0 / 0)) assert(not pcall(string.rep, 'x', 1e308)) "
            "assert(('x'):rep(-1) == '' and ('x'):rep(math.mininteger) == '') return 'held'",
            HELD,
        ),
    },
    "bomb: gsub": {
        "a text": ("(('x'):rep(1000000)):gsub('x', ('y'):rep(1000))", "too large"),
        "references": ("(('x'):rep(100000)):gsub('.*', ('%0'):rep(1000))", "too large"),
        "a function": ("(('x'):rep(1000000)):gsub('x', function() return ('y'):rep(1000) end)", "too large"),
        "again and again": ("local s = ('x'):rep(1000000) while true do s = s:gsub('x+', '%0%0%0%0') end", MEMORY),
        "kept": ("local t = {} while true do t[#t + 1] = ((' x'):rep(100000)):gsub('x', tostring(#t)) end", MEMORY),
    },
    "bomb: format": {
        "many arguments": (
            "local s = ('x'):rep(4000000) return ('%s%s%s%s%s%s'):format(s, s, s, s, s, s)",
            "too large",
        ),
        "a long format": ("return ('%%'):rep(4000000):format()", "the format of 'format' has 8000000 bytes"),
        "quoted": ("local t, s = {}, ('\\0'):rep(1000000) while true do t[#t + 1] = ('%q'):format(s) end", MEMORY),
        "a width": ("return ('%999999999d'):format(1)", "invalid conversion"),
    },
    "bomb: pack": {
        "padding": ("return string.pack('c2000000000', 'x')", "too large"),
        "padding in parts": (
            "return string.pack(('c9000000'):rep(10), '', '', '', '', '', '', '', '', '', '')",
            "too large",
        ),
        "a long format": ("return string.pack(('x'):rep(8000000))", "the format of 'pack' has 8000000 bytes"),
        "kept": ("local t = {} while true do t[#t + 1] = string.pack('c4000000', tostring(#t)) end", MEMORY),
    },
    "bomb: closures": {
        "many": ("local t = {} while true do t[#t + 1] = function() return t end end", MEMORY),
        "each with its own": (
            "local t = {} while true do local a, b = {}, {} t[#t + 1] = function() return a, b end end",
            MEMORY,
        ),
        "a chain": ("local f = print while true do local g = f f = function() return g end end", MEMORY),
        "in pcall": (
            "local t = {} while true do pcall(function() t[#t + 1] = function() return t end end) end",
            MEMORY,
        ),
    },
    "bomb: coroutines": {
        "many": ("local t = {} while true do t[#t + 1] = coroutine.create(function() end) end", MEMORY),
        "suspended": (
            """local t = {} while true do local c = coroutine.wrap(function() coroutine.yield() end) c() t[#t + 1] = c
            end""",
            MEMORY,
        ),
        "wrapped": ("local t = {} while true do t[#t + 1] = coroutine.wrap(function() return t end) end", MEMORY),
        "deep": (
            """local t = {}
            local function deep(n) if n == 0 then coroutine.yield() else deep(n - 1) return 1 end end
            while true do local c = coroutine.create(deep) coroutine.resume(c, 15000) t[#t + 1] = c end""",
            MEMORY,
        ),
        "spawned, and forgotten": (
            "while true do coroutine.spawn(function() channel.new():receive() end) end",
            ENDLESS,
        ),
        "that spawn others": (
            "local function f() while true do coroutine.spawn(f) channel.select({ channel.new():case_receive(), default = true }) end end f()",
            MEMORY,
        ),
    },
    "flood: mailboxes": {
        "one's own": ("while true do process.send(process.pid(), 't', { 1, 2, 3 }) end", ENDLESS),
        "a neighbour's": (
            "while true do process.send(..., 'flood', { 1, 2, 3 }) end",
            ENDLESS,
        ),
        "large messages to oneself": ("while true do process.send(process.pid(), 't', ('x'):rep(500000)) end", MEMORY),
        "the dead": ("while true do process.send('{n1@app:processes|1-zz}', 't', 1) end", ENDLESS),
    },
    "flood: timers": {
        "one after another": ("local time = require('time') while true do time.timer('1h') end", MEMORY),
        "tickers": ("local time = require('time') while true do time.ticker('1h') end", MEMORY),
        "after": ("local time = require('time') while true do time.after('1h') end", MEMORY),
        "started and stopped": (
            "local time = require('time') while true do time.timer('1h'):stop() time.ticker('1h'):stop() end",
            ENDLESS,
        ),
        "sleeping for nothing": ("local time = require('time') while true do time.sleep('0s') end", ENDLESS),
    },
    "flood: spawns": {
        "of sleepers": ("while true do process.spawn('app:sleeper', 'app:processes') end", ENDLESS),
        "of itself": (
            "process.spawn(process.id(), 'app:processes') process.spawn(process.id(), 'app:processes') while true do end",
            ENDLESS,
        ),
        "of what is not there": ("while true do process.spawn('app:nobody', 'app:processes') end", ENDLESS),
        "linked and monitored": (
            "while true do process.spawn_linked_monitored('app:brief', 'app:processes') end",
            ENDLESS,
        ),
    },
    "flood: channels": {
        "many": ("local t = {} while true do t[#t + 1] = channel.new(1) end", MEMORY),
        "one that is full": (
            "local t = {} while true do local c = channel.new(100000) t[#t + 1] = c "
            "for i = 1, 100000 do c:send(i) end end",
            MEMORY,
        ),
        "a size without end": ("local c = channel.new(1 << 40) while true do c:send(1) end", ""),
        "waiters": ("local c = channel.new() while true do coroutine.spawn(function() c:receive() end) end", MEMORY),
    },
    "flood: selects": {
        "without waiting": (
            "local c = channel.new() while true do channel.select({ c:case_receive(), default = true }) end",
            ENDLESS,
        ),
        "of many cases": (
            """local cases = {} for i = 1, 5000 do cases[i] = channel.new():case_receive() end cases.default = true
            while true do channel.select(cases) end""",
            ENDLESS,
        ),
        "waiting": (
            """local c, d = channel.new(), channel.new()
            for i = 1, 2000 do
                coroutine.spawn(function() channel.select({ c:case_receive(), d:case_receive() }) end)
            end
            while true do channel.select({ d:case_receive(), default = true }) end""",
            ENDLESS,
        ),
        "without end": (
            "local c = channel.new() while true do coroutine.spawn(function() channel.select({ c:case_receive() }) end) end",
            MEMORY,
        ),
        "of nothing": ("while true do pcall(channel.select, 1) pcall(channel.select, { 1 }) end", ENDLESS),
    },
    "forged PIDs and topics": {
        "PIDs that are none": (
            """for _, pid in ipairs({ "", "{", "{}", "{@|}", "{n1@app:processes|}", "x", ("{"):rep(10000), "\\0" }) do
                pcall(process.send, pid, "t", 1)
            end return "held" """,
            HELD,
        ),
        "PIDs that are no texts": (
            """local target = ...
            local sly = setmetatable({}, { __tostring = function() return target end })
            for _, pid in ipairs({ 1, {}, print, true, sly }) do
                assert(not pcall(process.send, pid, "t", 1))
            end return "held" """,
            HELD,
        ),
        "topics of the runtime": (
            """for _, topic in ipairs({ "@pid/events", "@pid/inbox", "@", "", "@kernel", ("t"):rep(100000) }) do
                pcall(process.send, ..., topic, { kind = "pid.exit" }) pcall(process.listen, topic)
            end return "held" """,
            HELD,
        ),
        "signals to what is no process": (
            """for _, pid in ipairs({ "", "{", "{}", "{@|}", "{n1@app:processes|}", "x", ("{"):rep(10000), "\\0",
                    "{n1@app:processes|1-1}", "{n9@app:processes|1-zz}" }) do
                for _, name in ipairs({ "monitor", "unmonitor", "link", "unlink", "terminate", "cancel" }) do
                    pcall(process[name], pid, "now")
                end
            end return "held" """,
            HELD,
        ),
        "another's PID as one's own": (
            """process.send(..., "say", { from = "{n1@app:processes|1-1}" })
            local ctx = process.with_context({ pid = ..., from = ... })
            assert(process.pid() ~= ...) return "held" """,
            HELD,
        ),
    },
}
