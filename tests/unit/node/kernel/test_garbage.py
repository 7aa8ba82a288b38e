"""Which collector a VM uses: by how much is in use."""

from __future__ import annotations

from importlib import resources
from typing import Any

import lupa.lua54 as lupa
import pytest

HARNESS = b"""
local source = ...
local K = { config = { max_memory = 1024 * 1024 * 1024 }, turns = { now = 0 } }
load(source, "=kernel/garbage", "t")(K)
local ballast = {}
return {
    step = function(seconds)
        K.turns.now = K.turns.now + seconds * 1000000000
        K.garbage.choose()
        local mode = collectgarbage("incremental")
        collectgarbage(mode)
        return mode
    end,
    hold = function(mib)
        ballast = {}
        collectgarbage()
        for i = 1, mib do
            ballast[i] = ("x"):rep(1024 * 1024 + i)
        end
    end,
    pause = function()
        local before = collectgarbage("setpause", 200)
        collectgarbage("setpause", before)
        return before
    end,
    limit = function(mib)
        K.config.max_memory = mib * 1024 * 1024
    end,
}
"""


@pytest.fixture
def vm() -> Any:
    lua = lupa.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
    source = resources.files("node.lua.kernel").joinpath("garbage.lua").read_bytes()
    return lua.execute(HARNESS, source)


def test_a_small_vm_collects_by_generations(vm: Any) -> None:
    assert vm[b"step"](0) == b"generational"


def test_a_large_vm_collects_in_steps(vm: Any) -> None:
    vm[b"step"](0)
    vm[b"hold"](32)
    assert vm[b"step"](0) == b"incremental"


def test_a_vm_that_becomes_small_changes_back_but_not_at_once(vm: Any) -> None:
    vm[b"step"](0)
    vm[b"hold"](32)
    vm[b"step"](0)
    vm[b"hold"](0)
    assert vm[b"step"](0.5) == b"incremental"
    assert vm[b"step"](0.6) == b"generational"


def test_a_vm_between_small_and_large_stays_as_it_is(vm: Any) -> None:
    vm[b"step"](0)
    vm[b"hold"](12)
    assert vm[b"step"](9) == b"generational"
    vm[b"hold"](32)
    vm[b"step"](9)
    vm[b"hold"](12)
    assert vm[b"step"](9) == b"incremental"


def test_cycles_begin_late_only_while_there_is_plenty_of_room(vm: Any) -> None:
    vm[b"hold"](32)
    vm[b"step"](0)
    assert vm[b"pause"]() == 400
    vm[b"limit"](256)
    vm[b"step"](0)
    assert vm[b"pause"]() == 200
