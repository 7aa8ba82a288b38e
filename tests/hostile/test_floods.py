"""A process that puts out without end costs its share: the node's event loop stays alive."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from cluster.envelope import Kind
from node.host import Vm, VmConfig
from node.host.boundary import In, Item, Out
from node.lua.dialect import transform
from tests.luaworld import HOST, OUTSIDE

FLOOD = """
local logger = require("logger")
return { main = function() while true do logger:info("x") end end }
"""
SECONDS = 1.5
COST = 30e-6
"""Seconds the loop needs for one item."""


async def worst_lag(seconds: float) -> float:
    """The longest the loop kept a sleeper waiting beyond its time."""
    worst, end = 0.0, time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        await asyncio.sleep(0.005)
        worst = max(worst, time.monotonic() - began - 0.005)
    return worst


async def test_a_process_that_logs_without_end_does_not_stop_the_event_loop() -> None:
    taken = 0

    def take(vm: Vm, items: list[Item]) -> None:
        nonlocal taken
        for item in items:
            if item[0] == Out.CODE:
                package: dict[bytes, Any] = {b"id": item[2], b"kind": b"process.lua", b"method": b"main"}
                package |= {b"modules": [b"logger"], b"source": transform(FLOOD, "app:flood").encode()}
                vm.post([int(In.ANSWER), item[1], None, [package]])
                continue
            until = time.perf_counter() + COST
            while time.perf_counter() < until:
                pass
            taken += 1

    async with Vm(1, "n1", 1, "app:processes", VmConfig(), {}, take) as vm:
        vm.post([int(Kind.SPAWN), HOST, OUTSIDE, 64, b"app:flood", [], {}])
        lag = await worst_lag(SECONDS)
    assert taken > 1000, "the flood never came"
    assert lag < 0.5
