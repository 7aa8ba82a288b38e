"""The count of a VM's yield points can be overwritten from outside, while its Lua runs."""

from __future__ import annotations

import threading
import time

import lupa.lua54 as lupa
import pytest

from cluster.envelope import Kind
from cluster.pid import Pid
from node.host import kernel, prodding
from tests.luaworld import HOST, World

SLOW = r"""local a, b = ("\0"):rep(1 << 21), ("\0"):rep(1 << 21)
for i = 1, 100000 do local x = i end
for i = 1, 60 do local x = a < b end"""
"""About 20 ms for each comparison, after so much quick work that its quantum has grown."""


def longest_step(world: World) -> float:
    """CPU time of the longest step while the slow one runs."""
    world.entry("app:slow", f"return {{ main = function() {SLOW} end }}")
    world.post_spawn("app:slow")
    step, longest = world.kernel.step, 0.0

    def timed(items: list[list[object]]) -> kernel.Stepped:
        nonlocal longest
        began = time.thread_time()
        stepped = step(items)
        longest = max(longest, time.thread_time() - began)
        return stepped

    world.kernel.step = timed  # type: ignore[method-assign]
    world.run(seconds=60)
    return longest


def test_a_turn_of_slow_instructions_ends_early() -> None:
    assert longest_step(World()) < 0.5


def test_without_it_the_turn_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel.Kernel, "prod", lambda self: None)
    assert longest_step(World()) > 0.5


def test_a_step_that_is_no_trouble_is_not_prodded(monkeypatch: pytest.MonkeyPatch) -> None:
    prods: list[kernel.Kernel] = []
    monkeypatch.setattr(kernel.Kernel, "prod", prods.append)
    world = World()
    world.main("return 1")
    assert world.kernel not in prods


def test_a_prod_between_steps_changes_nothing() -> None:
    world = World()
    world.entry("app:echo", "return { main = function() return process.inbox():receive():payload():data() end }")
    pid = world.spawn("app:echo")
    world.kernel.prod()
    world.send(pid, "t", 1)
    assert world.exit_of(pid)[5] == 1
    assert not [item for item in world.out if item[0] == Kind.MESSAGE]


def test_whose_turn_it_is_can_be_seen_while_a_step_hangs() -> None:
    world = World()
    seen: list[int] = []
    world.entry("app:long", f"return {{ main = function() {SLOW.replace('60', '10')} end }}")
    idle = world.spawn_body("process.inbox():receive()")
    assert world.kernel.whose_turn() == 0, "between steps"
    looking = threading.Event()

    def look() -> None:
        while not looking.wait(0.001):
            seen.append(world.kernel.whose_turn())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        slow = world.spawn("app:long")
    finally:
        looking.set()
        thread.join()
    counter = Pid.parse(slow.decode()).counter
    assert counter in seen
    assert set(seen) <= {0, counter, Pid.parse(idle.decode()).counter}
    assert world.kernel.whose_turn() == 0


def test_work_of_what_the_node_keeps_is_known_by_the_port_that_keeps_it() -> None:
    world = World()
    port = str(Pid("n1", "node:supervisor", 1, 64 * 77)).encode()
    slow = SLOW.replace("60", "5")
    world.entry("app:slow_function", f"return {{ main = function() {slow} end }}")
    world.entry("app:child", f"return {{ main = function() {slow} end }}")
    world.entry(
        "app:service",
        "local funcs = require('funcs') local function main() process.spawn('app:child', 'app:processes') "
        f"funcs.call('app:slow_function') {slow} end return {{ main = main }}",
        modules=["funcs"],
    )
    seen = set()
    looking = threading.Event()

    def look() -> None:
        while not looking.wait(0.001):
            seen.add(world.kernel.whose_turn())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        world.run([int(Kind.SPAWN), HOST, port, 64, b"app:service", [], {}], seconds=60)
    finally:
        looking.set()
        thread.join()
    assert seen <= {0, 64 * 77}
    assert 64 * 77 in seen


def test_whose_turn_it_is_is_not_told_where_lua_keeps_it_elsewhere() -> None:
    assert prodding.as_integer(None) is None


def test_nothing_is_written_where_the_mark_is_not_found() -> None:
    lua = lupa.LuaRuntime(encoding=None)
    elsewhere = lua.execute(b"local t = {} return string.format('%p', function() return t end)")
    marks: list[float] = []

    def mark(value: float) -> float:
        marks.append(value)
        return 5.0

    assert prodding.find_number(int(elsewhere, 16), mark) is None
    assert marks == [prodding.MARKS[0], prodding.MARKS[1], 5.0]
