"""A function called by a process that may own something: the node is told so before anything of it leaves the VM."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.envelope import Kind
from node.host.boundary import Out
from tests.luaworld import REMOTE, World

FAR = REMOTE.decode()
ACTS = {
    "a message": f"process.send({FAR!r}, 'topic', 1)",
    "a cancel": f"coroutine.spawn(function() process.cancel({FAR!r}) end)",
    "an operation": "coroutine.spawn(function() process.registry.register('name') end)",
}
CALLER = "local funcs = require('funcs') local function main() {} end return {{ main = main }}"


def run(world: World, body: str, **options: Any) -> list[list[Any]]:
    """Start a process; what leaves the VM then."""
    world.entry("app:caller", CALLER.format(body), modules=["funcs"])
    mark = len(world.out)
    world.spawn("app:caller", options={name.encode(): value for name, value in options.items()})
    return world.out[mark:]


def line(items: list[list[Any]]) -> list[Any]:
    """Who was said to run for whom."""
    return [(item[1], item[2]) for item in items if item[0] == Out.RUNS_FOR]


@pytest.mark.parametrize("act", sorted(ACTS))
def test_it_is_said_before_the_first_act_and_its_end_too(world: World, act: str) -> None:
    world.function("app:f", f"return {{ main = function() {ACTS[act]} {ACTS['a message']} end }}")
    out = run(world, "funcs.call('app:f')", tracked=True)
    ((function, caller),) = line(out)
    assert function.startswith(b"{n1@app:f|")
    assert caller.startswith(b"{n1@app:processes|")
    of_it = [item for item in out if function in item[1:4]]
    assert of_it[0][0] == Out.RUNS_FOR
    assert of_it[-1][0] == Out.ENDED


def test_of_functions_that_call_functions_the_whole_line_is_said(world: World) -> None:
    world.function("app:inner", f"return {{ main = function() {ACTS['a message']} end }}")
    world.function(
        "app:outer",
        "return { main = function() return require('funcs').call('app:inner') end }",
        modules=["funcs"],
    )
    out = run(world, "funcs.call('app:outer')", tracked=True)
    (outer, caller), (inner, between) = line(out)
    assert (outer, between) == (between, outer)
    assert inner.startswith(b"{n1@app:inner|")
    assert caller.startswith(b"{n1@app:processes|")


def test_nothing_is_said_of_one_that_acts_on_nobody_outside(world: World) -> None:
    world.function("app:f", "return { main = function() return 1 end }")
    out = run(world, "funcs.call('app:f')", tracked=True)
    assert line(out) == []
    assert [item[1][:10] for item in out if item[0] == Out.ENDED] == [b"{n1@app:pr"]


def test_nothing_is_said_of_functions_called_by_others(world: World) -> None:
    world.function("app:f", f"return {{ main = function() {ACTS['a message']} end }}")
    out = run(world, "funcs.call('app:f')")
    assert line(out) == []
    assert [item[0] for item in out if item[0] in (Kind.MESSAGE, Out.ENDED)] == [Kind.MESSAGE]
