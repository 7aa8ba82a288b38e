"""What a VM shows of one process: what it waits for, what it holds."""

from __future__ import annotations

from typing import Any

import pytest

from node.host.kernel import VmConfig
from tests.luaworld import World


def shown(world: World, body: str, *args: Any, **more: Any) -> dict[bytes, Any]:
    """What is shown of a process with this body, once it can't go on."""
    pid = world.spawn_body(body, *args, **more)
    found: dict[bytes, Any] = world.query(b"inspect", pid)
    return found


@pytest.mark.parametrize(
    ("body", "waits"),
    [
        ("process.inbox():receive()", [b"a message"]),
        ("process.listen('jobs'):receive()", [b'a message on topic "jobs"']),
        ("process.events():receive()", [b"an event"]),
        ("time.sleep('1h')", [b"a sleep to end"]),
        ("time.after('1h'):receive()", [b"a timer"]),
        (
            "channel.select({ process.inbox():case_receive(), process.events():case_receive() })",
            [b"a message", b"an event"],
        ),
        ("process.exec('app:other', 'n2@app:processes')", [b"an answer of node n2"]),
        (
            "coroutine.spawn(function() process.inbox():receive() end) time.sleep('1h')",
            [b"a message", b"a sleep to end"],
        ),
        (
            "local c = channel.new() coroutine.spawn(function() time.sleep('1h') c:send(1) end) c:receive()",
            [b"a sleep to end"],
        ),
    ],
)
def test_says_what_its_threads_wait_for(world: World, body: str, waits: list[bytes]) -> None:
    assert shown(world, f"local time = require('time') {body}", modules=["time"])[b"waits"] == waits


def test_says_which_child_it_waits_for(world: World) -> None:
    world.entry("app:child", "return { main = function() process.inbox():receive() end }")
    (wait,) = shown(world, "process.exec('app:child', 'app:processes')")[b"waits"]
    assert wait.startswith(b"the end of {n1@app:processes|")


def test_counts_threads_messages_and_timers_and_knows_the_options(world: World) -> None:
    pid = world.spawn_body(
        """local time = require('time')
        process.set_options({ trap_links = true })
        for i = 1, 3 do coroutine.spawn(function() time.sleep('1h') end) end
        coroutine.spawn(function() end)
        for i = 1, 5 do process.send(process.pid(), 'later', i) end
        process.inbox():receive()
        channel.new():receive()""",
        modules=["time"],
    )
    world.send(pid, "t", 1)
    found = world.query(b"inspect", pid)
    assert found[b"threads"] == 4
    assert found[b"timers"] == 3
    assert (found[b"sent"], found[b"received"]) == (5, 6)
    assert (found[b"mailbox"], found[b"mailbox_limit"]) == (5, VmConfig().mailbox_limit)
    assert found[b"trap_links"] is True
    assert found[b"upgradable"] is False


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("a local", "local t = {} for i = 1, 20000 do t[i] = { i, i } end process.inbox():receive() return t"),
        ("a global", "held = {} for i = 1, 20000 do held[i] = { i, i } end process.inbox():receive()"),
        (
            "an upvalue",
            "local t = {} for i = 1, 20000 do t[i] = { i, i } end local function f() return t end "
            "process.inbox():receive() return f",
        ),
        (
            "a key",
            "local t, u = {}, {} for i = 1, 20000 do u[i] = { i, i } end t[u] = true u = nil "
            "process.inbox():receive() return t",
        ),
        (
            "a metatable",
            "local t, u = {}, {} for i = 1, 20000 do u[i] = { i, i } end setmetatable(t, { held = u }) u = nil "
            "process.inbox():receive() return t",
        ),
        (
            "a coroutine",
            "local co = coroutine.create(function() local t = {} for i = 1, 20000 do t[i] = { i, i } end "
            "coroutine.yield() return t end) coroutine.resume(co) process.inbox():receive() return co",
        ),
        (
            "a vararg",
            "local function f(...) process.inbox():receive() return ... end local t = {} "
            "for i = 1, 20000 do t[i] = { i, i } end return f((function() local u = t t = nil return u end)())",
        ),
        (
            "a thread that sleeps",
            "coroutine.spawn(function() local t = {} for i = 1, 20000 do t[i] = { i, i } end "
            "require('time').sleep('1h') return t end) process.inbox():receive()",
        ),
        (
            "a channel",
            "local c = channel.new(20000) for i = 1, 20000 do c:send({ i, i }) end process.inbox():receive() return c",
        ),
        (
            "the mailbox",
            "for i = 1, 5000 do process.send(process.pid(), 't', { { i }, { i }, { i }, { i } }) end "
            "require('time').sleep('1h')",
        ),
        (
            "deep recursion",
            "local function f(n) local t = { n, n } if n == 0 then process.inbox():receive() else f(n - 1) "
            "end return t end f(15000)",
        ),
        ("a string", "local s = ('x'):rep(2 * 1000 * 1000) process.inbox():receive() return s"),
    ],
)
def test_what_it_holds_is_estimated_wherever_it_is(world: World, what: str, body: str) -> None:
    small = shown(world, "require('time') process.inbox():receive()", modules=["time"])
    world.kernel._lua.gccollect()
    before = world.kernel.memory
    held = shown(world, body, modules=["time"])
    world.kernel._lua.gccollect()
    real = world.kernel.memory - before
    assert small[b"memory"] < 16384
    assert held[b"memory_complete"] is True
    assert real > MIB, "the program holds too little to judge by"
    assert 0.5 < held[b"memory"] / real < 1.6, f"{what}: {held[b'memory']} estimated, {real} used"


def test_what_others_hold_is_not_charged(world: World) -> None:
    """Neither what a child was given, nor the kernel, nor the parent."""
    world.entry("app:child", "return { main = function(t) process.inbox():receive() return t end }")
    parent = world.spawn_body(
        """local t = {} for i = 1, 20000 do t[i] = { i, i } end
        local child = process.spawn('app:child', 'app:processes')
        process.link(child) process.monitor(child)
        process.send(process.pid(), 'child', child)
        process.inbox():receive() process.exec('app:child', 'app:processes') return t"""
    )
    children = [one[b"pid"] for one in world.query(b"list") if one[b"entry"] == b"app:child"]
    assert len(children) == 2
    for child in children:
        assert world.query(b"inspect", child)[b"memory"] < 8192
    assert world.query(b"inspect", parent)[b"memory"] > MIB


def test_no_metamethod_is_asked(world: World) -> None:
    found = shown(
        world,
        """local asked = 0
        local function ask() asked = asked + 1 return 1 end
        local trap = { __index = ask, __newindex = ask, __pairs = ask, __len = ask, __eq = ask, __call = ask,
            __tostring = ask, __name = ask }
        local held = { setmetatable({}, trap), setmetatable({ 1, 2, 3 }, trap) }
        process.inbox():receive()
        assert(asked == 0) return held""",
    )
    assert found[b"memory"] > 0
    world.send(found[b"pid"], "t")
    assert world.exit_of(found[b"pid"])[6] is None


def test_a_huge_process_is_estimated_in_part(world: World) -> None:
    found = shown(world, "local t = {} for i = 1, 300000 do t[i] = { i } end process.inbox():receive() return t")
    assert found[b"memory_complete"] is False
    assert found[b"memory"] > 10 * MIB
