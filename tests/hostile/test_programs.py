"""Programs that want to hold up, exhaust or break into their VM, beside one that just answers.

Each runs in a kernel with an echo process. While the program does its worst, the echo must
answer; afterwards the program must be gone or killable, and the VM as good as before.
"""

from __future__ import annotations

import time

import pytest

from cluster.envelope import Kind
from node.host.kernel import VmConfig
from tests.luaworld import OUTSIDE, World

ECHO = """return { main = function()
    local inbox = process.inbox()
    while true do
        local m = inbox:receive()
        process.send(m:from(), "echo", m:payload():data())
    end
end }"""

SPINNERS = {
    "a loop": "while true do end",
    "a loop in pcall": "while true do pcall(function() while true do end end) end",
    "a loop in a comparator": "local t = {} for i = 1, 100 do t[i] = i end table.sort(t, function() while true "
    "do end end)",
    "pcall in a comparator": """local t = {} for i = 1, 100 do t[i] = i end
        table.sort(t, function() while true do pcall(function() while true do end end) end end)""",
    "a gsub callback": "(('a'):rep(10)):gsub('.', function() while true do end end)",
    "gsub in pcall for ever": "while true do pcall(string.gsub, ('a'):rep(10), '.', function() while true do "
    "end end) end",
    "__tostring": "tostring(setmetatable({}, { __tostring = function() while true do end end }))",
    "__index": "local t = setmetatable({}, { __index = function() while true do end end }) return t.x",
    "__close": """local function f() local x <close> = setmetatable({}, { __close = function() while true do end
        end }) end
        while true do pcall(f) end""",
    "nested pcalls that loop": "local function f() while true do pcall(f) pcall(f) end end f()",
    "nested pcalls": "local function f() pcall(f) pcall(f) end f() while true do f() end",
    "nested pcalls in a comparator": """local function f() while true do pcall(f) pcall(f) end end
        local t = {} for i = 1, 50 do t[i] = i end table.sort(t, function() f() return false end)""",
    "an xpcall handler": "local function h() while true do end end while true do xpcall(function() error('x') "
    "end, h) end",
    "xpcall of loops": "local function s() while true do end end xpcall(s, s) while true do end",
    "xpcall in a comparator": """local function s() while true do end end
        local t = { 3, 2, 1 } table.sort(t, function() xpcall(s, s) while true do xpcall(s, s) end end)""",
    "goto": "::again:: goto again",
    "repeat": "repeat until false",
    "recursion": "local function f(n) return 1 + f(n + 1) end while true do pcall(f, 1) end",
    "tail calls": "local function f(n) return f(n + 1) end return f(1)",
    "an iterator": "for k in function() return 1 end do end",
    "a loop in a coroutine": "while true do local c = coroutine.wrap(function() while true do end end) pcall(c) end",
    "nested coroutines": """local function nest(d)
            if d == 0 then while true do end end
            local c = coroutine.create(function() nest(d - 1) end)
            while true do coroutine.resume(c) c = coroutine.create(function() nest(d - 1) end) end
        end
        nest(5)""",
    "coroutines without end": "local function f() coroutine.wrap(f)() end while true do pcall(f) end",
    "coroutine in a comparator": """local t = {} for i = 1, 50 do t[i] = i end
        table.sort(t, function() coroutine.wrap(function() while true do end end)() end)""",
    "a thousand coroutines": "for i = 1, 1000 do coroutine.spawn(function() while true do end end) end while "
    "true do end",
    "coroutines that spawn coroutines": """local function f() while true do coroutine.spawn(function()
        channel.new():receive() end) end end f()""",
    "messages to oneself": "while true do process.send(process.pid(), 't', { 1, 2, 3 }) end",
    "select for ever": "local c = channel.new() while true do channel.select({ c:case_receive(), default = true }) end",
    "error objects": "while true do pcall(error, setmetatable({}, { __tostring = function() while true do end "
    "end })) end",
    "a pattern": "while true do (('a'):rep(400)):find((('.-'):rep(8)) .. 'b') end",
    "string methods in a loop": "local s = ('x'):rep(1000000) while true do s:upper() end",
    "table.insert at the front": "local t = {} while true do table.insert(t, 1, 1) end",
    "table.concat": "local t = {} for i = 1, 100000 do t[i] = 'x' end while true do table.concat(t, ',') end",
    "sort for ever": "local t = {} for i = 1, 50000 do t[i] = (i * 7919) % 50000 end while true do table.sort(t) end",
    "logging for ever": "while true do print('x') end",
    "a lying length": """local t = setmetatable({}, { __len = function() return 1 << 50 end })
        while true do pcall(table.insert, t, 1, 1) pcall(table.unpack, t) pcall(table.sort, t) end""",
    "an index that is a C function": "while true do pcall(table.concat, setmetatable({}, { __index = type }), "
    "'', 1, 9999999) end",
    "charges that lie": "while true do pcall(table.insert, { 1 }, -1e308, 1) pcall(string.rep, 'x', -1e308) "
    "pcall(string.rep, 'x', 0 / 0) end",
    "yield points of its own": "local b = 0 while true do b = b - 1 if b < 0 then "
    "coroutine.wrap(coroutine.yield)() end end",
}

GROWERS = {
    "a table": "local t = {} while true do t[#t + 1] = { #t } end",
    "a string that doubles": "local s = 'x' while true do s = s .. s end",
    "string.rep": "local t = {} while true do t[#t + 1] = ('x'):rep(1000000) .. #t end",
    "the same in pcall": "local t = {} while true do pcall(function() while true do t[#t + 1] = "
    "('x'):rep(100000) .. #t end end) end",
    "closures": "local t = {} while true do t[#t + 1] = function() return t end end",
    "coroutines": "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
    "channels": "local t = {} while true do t[#t + 1] = channel.new(1) end",
    "keys": "local t = {} local i = 0 while true do i = i + 1 t['key' .. i] = i end",
    "deep recursion in many coroutines": """local t = {}
        local function deep(n) if n == 0 then coroutine.yield() else deep(n - 1) return 1 end end
        while true do local c = coroutine.create(deep) coroutine.resume(c, 15000) t[#t + 1] = c end""",
}


def answers(world: World, echo: bytes, value: int, seconds: float) -> bool:
    """Whether the echo process answers within ``seconds``."""
    world.post([int(Kind.MESSAGE), echo, OUTSIDE, 0, b"say", [value], b"", 0])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            world.run(seconds=0.02)
        except TimeoutError:
            pass
        if ("echo", [value]) in world.messages():
            return True
    return False


def start(world: World, source: str, seconds: float = 0.3) -> bytes:
    """Start the program and let it run for a little while; returns its PID."""
    world.entry("app:bad", f"local function main(...) {source}\nend return {{ main = main }}")
    reference = world.post_spawn("app:bad")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            world.run(seconds=0.05)
        except TimeoutError:
            pass
        world.out = [item for item in world.out if item[0] != 51]
    pid: bytes = world.reply(reference)[5]
    return pid


@pytest.mark.parametrize("name", SPINNERS)
def test_a_program_that_never_ends_holds_up_nobody(name: str) -> None:
    world = World()
    world.entry("app:echo", ECHO)
    echo = world.spawn("app:echo")
    pid = start(world, SPINNERS[name], 0.1)
    assert answers(world, echo, 1, 2.0), f"the echo does not answer beside {name}"
    world.post([int(Kind.TERMINATE), pid, OUTSIDE, 0])
    assert answers(world, echo, 2, 2.0)
    world.run(seconds=5)
    assert world.has_ended(pid)
    assert answers(world, echo, 3, 1.0)
    assert world.query(b"counters")[b"live"] == 1
    assert world.complaints() == []


@pytest.mark.parametrize("name", GROWERS)
def test_a_program_that_grows_is_killed_and_its_neighbour_lives(name: str) -> None:
    world = World(VmConfig(max_memory=64 * 1024 * 1024))
    world.entry("app:echo", ECHO)
    echo = world.spawn("app:echo")
    pid = start(world, GROWERS[name])
    deadline = time.monotonic() + 20
    while not world.has_ended(pid) and time.monotonic() < deadline:
        assert answers(world, echo, int(time.monotonic() * 1000), 3.0), f"the echo does not answer beside {name}"
    assert world.exit_of(pid)[6][b"message"] == b"killed: memory"
    assert answers(world, echo, 1, 1.0)


def test_a_program_that_starts_itself_again_and_again_meets_the_limit_of_processes() -> None:
    world = World(VmConfig(max_processes=200))
    world.entry("app:echo", ECHO)
    echo = world.spawn("app:echo")
    start(
        world,
        "process.spawn(process.id(), 'app:processes') process.exec(process.id(), 'app:processes') while true do end",
    )
    assert answers(world, echo, 1, 3.0)


def test_the_vm_is_as_good_as_new_after_many_growers() -> None:
    world = World(VmConfig(max_memory=32 * 1024 * 1024))
    world.entry("app:echo", ECHO)
    echoes = [world.spawn("app:echo") for _ in range(20)]
    for source in list(GROWERS.values())[:3] * 2:
        pid = start(world, source)
        assert world.has_ended(pid)
    for value, echo in enumerate(echoes):
        assert answers(world, echo, value, 1.0)
    assert world.kernel.memory < 16 * 1024 * 1024
