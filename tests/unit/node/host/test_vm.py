"""The thread around a kernel: posting, batches, stopping, failing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cluster.envelope import Kind
from node.host import Vm, VmConfig, Watchdog, inline
from node.host import vm as vm_module
from node.host.boundary import In, Item, Out
from node.host.kernel import Kernel, Stepped
from node.lua.dialect import transform
from tests.luaworld import HOST, OUTSIDE


class Seat:
    """Where a VM's output goes: it answers for code, collects the rest."""

    def __init__(self, **entries: str) -> None:
        self.entries = entries
        self.out: list[Item] = []
        self.failures: list[BaseException] = []
        self._changed = asyncio.Event()

    def take(self, vm: Vm, items: list[Item]) -> None:
        for item in items:
            if item[0] == Out.CODE:
                name = item[2].decode().removeprefix("app:")
                package = {b"id": item[2], b"kind": b"process.lua", b"method": b"main", b"modules": [b"time"]}
                package[b"source"] = transform(self.entries[name], item[2].decode()).encode()
                vm.post([int(In.ANSWER), item[1], None, [package]])
            else:
                self.out.append(item)
        self._changed.set()

    def fail(self, vm: Vm, error: BaseException) -> None:
        self.failures.append(error)
        self._changed.set()

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Wait until ``holds`` gives something true; returns that."""
        async with asyncio.timeout(5):
            while not (result := holds()):
                self._changed.clear()
                await self._changed.wait()
        return result

    def first(self, kind: int) -> Item | None:
        return next((item for item in self.out if item[0] == kind), None)

    def vm(self, config: VmConfig | None = None, **more: Any) -> Vm:
        return Vm(1, "n1", 1, "app:processes", config or VmConfig(), {}, self.take, on_failure=self.fail, **more)


def spawn(name: str, *args: Any) -> Item:
    return [int(Kind.SPAWN), HOST, OUTSIDE, 64, f"app:{name}".encode(), list(args), {b"monitor": True}]


async def test_a_process_runs_and_its_exit_comes_out() -> None:
    seat = Seat(add="return { main = function(a, b) return a + b end }")
    async with seat.vm() as vm:
        vm.post(spawn("add", 1, 2))
        exit = await seat.until(lambda: seat.first(Kind.EXIT))
    assert exit[5] == 3


async def test_an_idle_vm_is_woken_by_its_timers_and_by_posts() -> None:
    seat = Seat(
        sleepy="""local time = require("time")
        return { main = function() time.sleep("30ms") return process.inbox():receive():payload():data() end }"""
    )
    async with seat.vm() as vm:
        vm.post(spawn("sleepy"))
        reply = await seat.until(lambda: seat.first(Kind.REPLY))
        await asyncio.sleep(0.05)
        vm.post([int(Kind.MESSAGE), reply[5], OUTSIDE, 0, b"t", [b"woken"], b"", 0])
        exit = await seat.until(lambda: seat.first(Kind.EXIT))
        assert exit[5] == b"woken"
        steps = vm.stats().steps
        await asyncio.sleep(0.05)
        assert vm.stats().steps == steps, "an idle VM must not step"


async def test_the_loop_stays_free_while_lua_computes() -> None:
    seat = Seat(spin="return { main = function() while true do end end }")
    async with seat.vm() as vm:
        vm.post(spawn("spin"))
        await seat.until(lambda: seat.first(Kind.REPLY))
        longest = 0.0
        for _ in range(20):
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(0.005)
            longest = max(longest, asyncio.get_running_loop().time() - began)
        assert longest < 0.25


async def test_queries_are_answered_to_who_asked() -> None:
    seat = Seat(wait="return { main = function() process.inbox():receive() end }")
    async with seat.vm() as vm:
        vm.post(spawn("wait"))
        await seat.until(lambda: seat.first(Kind.REPLY))
        shown, counters = await asyncio.gather(vm.query(b"list"), vm.query(b"counters"))
        assert shown[0][b"entry"] == b"app:wait"
        assert counters[b"live"] == 1
        assert await vm.query(b"inspect", b"{n1@app:processes|1-1}") is None
        assert vm.stats().processes == 1
    assert seat.first(Out.QUERY_ANSWER) is None


async def test_stopping_ends_all_processes_in_order() -> None:
    seat = Seat(wait="return { main = function() return process.events():receive().reason end }")
    async with seat.vm() as vm:
        vm.post(spawn("wait"))
        await seat.until(lambda: seat.first(Kind.REPLY))
        assert await vm.stop("enough", timedelta(seconds=2))
        assert (await seat.until(lambda: seat.first(Kind.EXIT)))[5] == b"enough"
    assert threading.active_count() >= 1


async def test_a_failure_of_the_kernel_ends_the_vm_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Kernel, texts: list[bytes], most: float) -> Stepped:
        raise RuntimeError("kernel is broken")

    seat = Seat()
    async with seat.vm() as vm:
        monkeypatch.setattr(Kernel, "step_packed", broken)
        vm.post([46, 1, b"list", None])
        await seat.until(lambda: seat.failures)
        assert vm.stats().failed
    assert str(seat.failures[0]) == "kernel is broken"


async def test_a_module_that_does_not_translate_fails_the_start() -> None:
    vm = Vm(1, "n1", 1, "app:processes", VmConfig(), {"bad": "return function( end"}, lambda vm, items: None)
    with pytest.raises(Exception, match="bad"):
        async with vm:
            pass


async def test_output_nobody_takes_stops_the_vm_and_not_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm_module, "LARGEST_BACKLOG", 500)
    seat = Seat(talk="return { main = function() while true do print('x') end end }")
    taken = asyncio.Event()

    def take(vm: Vm, items: list[Item]) -> None:
        if not taken.is_set() and any(item[0] == Out.CAST for item in items):
            taken.set()
        seat.take(vm, items)

    async with Vm(1, "n1", 1, "app:processes", VmConfig(), {}, take) as vm:
        vm.post(spawn("talk"))
        await taken.wait()
        loop_held = threading.Event()
        loop_held.wait(0.3)  # the loop is held up on purpose: nobody takes output
        waiting = vm.stats().waiting_out
        loop_held.wait(0.1)
        assert vm.stats().waiting_out == waiting, "the VM must wait for its output to be taken"
        assert 0 < waiting < 50_000


async def test_steps_are_told_in_pairs() -> None:
    told: list[str] = []

    class Observer:
        def step_began(self, slot: int) -> None:
            told.append("began")

        def step_ended(self, slot: int) -> None:
            told.append("ended")

    seat = Seat(add="return { main = function(a, b) return a + b end }")
    async with seat.vm(on_step=Observer()) as vm:
        vm.post(spawn("add", 1, 2))
        await seat.until(lambda: seat.first(Kind.EXIT))
    assert told[::2] == ["began"] * (len(told) // 2)
    assert told[1::2] == ["ended"] * (len(told) // 2)


async def test_complaints_of_the_kernel_are_kept_from_the_node() -> None:
    seat = Seat()
    async with seat.vm() as vm:
        vm.post([99])
        await vm.query(b"list")
    assert seat.out == []


async def test_memory_of_one_process_does_not_end_the_vm() -> None:
    seat = Seat(
        grow="return { main = function() local t = {} while true do t[#t + 1] = { #t } end end }",
        add="return { main = function(a, b) return a + b end }",
    )
    async with seat.vm(VmConfig(max_memory=16 * 1024 * 1024)) as vm:
        vm.post(spawn("grow"))
        exit = await seat.until(lambda: seat.first(Kind.EXIT))
        assert exit[6][b"message"] == b"killed: memory"
        seat.out.clear()
        vm.post(spawn("add", 1, 2))
        assert (await seat.until(lambda: seat.first(Kind.EXIT)))[5] == 3


async def test_the_watchdog_tells_of_a_vm_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    original = Kernel.step_packed

    def stuck(self: Kernel, texts: list[bytes], most: float) -> Stepped:
        release.wait(5)
        return original(self, texts)

    seat = Seat()
    async with seat.vm() as vm:
        monkeypatch.setattr(Kernel, "step_packed", stuck)
        for _ in range(inline.ITEMS + 1):  # too many for the event loop
            vm.post([46, 1, b"list", None])
        short = timedelta(milliseconds=10)
        async with Watchdog(lambda: [vm], limit=short, interval=short) as watchdog:
            async with asyncio.timeout(3):
                while not watchdog.wedged:
                    await asyncio.sleep(0.01)
            assert watchdog.wedged == {1}
            release.set()
            async with asyncio.timeout(3):
                while watchdog.wedged:
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize("field", ["mailbox_limit", "quantum", "max_processes"])
def test_limits_of_nothing_are_refused(field: str) -> None:
    limits: Any = {field: 0}
    with pytest.raises(ValueError, match=f"expected {field} >= 1, got 0"):
        replace(VmConfig(), **limits)


def test_a_slot_outside_of_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="slot of 1 to 63"):
        Kernel(0, "n1", 1, "app:processes", VmConfig(), {})
