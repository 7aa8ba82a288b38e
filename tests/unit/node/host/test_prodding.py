"""The count of a VM's yield points can be overwritten from outside, while its Lua runs."""

from __future__ import annotations

import time

import lupa.lua54 as lupa
import pytest

from cluster.envelope import Kind
from node.host import kernel, prodding
from tests.luaworld import World

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


def test_nothing_is_written_where_the_mark_is_not_found() -> None:
    lua = lupa.LuaRuntime(encoding=None)
    elsewhere = lua.execute(b"local t = {} return string.format('%p', function() return t end)")
    marks: list[float] = []

    def mark(value: float) -> float:
        marks.append(value)
        return 5.0

    assert prodding.find_count(int(elsewhere, 16), mark) is None
    assert marks == [prodding.MARKS[0], prodding.MARKS[1], 5.0]
