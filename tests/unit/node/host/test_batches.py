"""What a step costs in crossings between Python and Lua, however much passes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import lupa.lua54 as lupa

from cluster.envelope import Kind
from tests.luaworld import OUTSIDE, World, one_by_one

MESSAGES = 300

FORWARDER = """return { main = function(to)
    local inbox = process.inbox()
    while true do
        process.send(to, "seen", inbox:receive():payload():data())
    end
end }"""


def count_calls(world: World) -> Counter[str]:
    """From here on: how often Python called each function of the VM."""
    calls: Counter[str] = Counter()

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            calls[name] += 1
            return function(*args)

        return call

    kernel = world.kernel
    functions = {name: value for name, value in vars(kernel).items() if lupa.lua_type(value) == "function"}
    assert "_step" in functions
    for name, function in functions.items():
        setattr(kernel, name, counted(name, function))
    return calls


def test_a_batch_crosses_once_in_each_direction() -> None:
    world = World()
    world.entry("app:forwarder", FORWARDER)
    pid = world.spawn("app:forwarder", OUTSIDE)
    calls = count_calls(world)
    stepped = world.kernel.step(
        [[int(Kind.MESSAGE), pid, OUTSIDE, 0, b"ping", [number], b"", 0] for number in range(MESSAGES)]
    )
    assert [item[5] for item in one_by_one(stepped.out) if item[0] == Kind.MESSAGE] == [
        [number] for number in range(MESSAGES)
    ]
    assert calls["_feed"] == calls["_step"] == calls["_collect"] == 1
    assert calls.total() == 3


def test_a_step_without_items_crosses_only_to_run() -> None:
    world = World()
    calls = count_calls(world)
    assert world.kernel.step([]).out == []
    assert calls == Counter({"_step": 1})
