"""Steps on the event loop: what is done there, what is left to the thread, and how it is handed over."""

from __future__ import annotations

import asyncio
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.envelope import Kind
from node.host import Vm, VmConfig, inline
from node.host.inline import Allowance, Inline
from node.host.kernel import Kernel, Stepped
from tests.luaworld import OUTSIDE, one_by_one
from tests.unit.node.host.test_vm import Seat, spawn

ECHO = """return { main = function()
    local inbox = process.inbox()
    while true do
        local message = inbox:receive()
        process.send(message:from(), "back", message:payload():data())
    end
end }"""
SLEEPY = """local time = require("time")
return { main = function()
    process.inbox():receive()
    time.sleep("30ms")
    return "woken"
end }"""
SPIN = "return { main = function() process.inbox():receive() while true do end end }"
SLOW = r"""return { main = function()
    local a, b = ("\0"):rep(1 << 21), ("\0"):rep(1 << 21)
    process.inbox():receive()
    process.inbox():receive()
    for i = 1, 3 do local x = a < b end
    process.inbox():receive()
end }"""
"""About 20 ms for each comparison."""


class Steps:
    """Notes in which thread the steps are done."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.under_way = 0

    def step_began(self, slot: int) -> None:
        self.threads.append(threading.get_ident())
        self.under_way += 1

    def step_ended(self, slot: int) -> None:
        self.under_way -= 1

    @property
    def on_the_loop(self) -> int:
        return self.threads.count(threading.get_ident())

    @property
    def in_the_thread(self) -> int:
        return len(self.threads) - self.on_the_loop


async def asleep(vm: Vm) -> None:
    async with asyncio.timeout(5):
        while not vm._sleeping:
            await asyncio.sleep(0.001)


async def started(seat: Seat, vm: Vm, name: str) -> bytes:
    """A process that waits for its first message, in a VM that sleeps."""
    vm.post(spawn(name))
    reply = await seat.until(lambda: seat.first(Kind.REPLY))
    await asleep(vm)
    pid: bytes = reply[5]
    return pid


def message(pid: bytes, value: object = b"x") -> list[object]:
    return [int(Kind.MESSAGE), pid, OUTSIDE, 0, b"t", [value], b"", 0]


async def test_a_message_to_a_vm_that_sleeps_is_taken_on_the_loop() -> None:
    seat, steps = Seat(echo=ECHO), Steps()
    async with seat.vm(on_step=steps) as vm:
        pid = await started(seat, vm, "echo")
        steps.threads.clear()
        vm.post(message(pid))
        assert not steps.threads, "not while whoever posts goes on"
        await seat.until(lambda: seat.first(Kind.MESSAGE))
        assert steps.threads[0] == threading.get_ident()
        await asleep(vm)


async def test_what_is_posted_in_one_turn_of_the_loop_is_taken_in_one_step() -> None:
    seat, steps = Seat(echo=ECHO), Steps()
    async with seat.vm(on_step=steps) as vm:
        pid = await started(seat, vm, "echo")
        vm.post(message(pid))  # the first turn of a process is a long one
        await seat.until(lambda: seat.first(Kind.MESSAGE))
        await asleep(vm)
        steps.threads.clear()
        for number in range(5):
            vm.post(message(pid, number))
        await seat.until(lambda: seat.first(Kind.MESSAGES))
        assert steps.threads[0] == threading.get_ident()


async def test_more_than_a_few_items_are_for_the_thread() -> None:
    seat, steps = Seat(echo=ECHO), Steps()
    async with seat.vm(on_step=steps) as vm:
        pid = await started(seat, vm, "echo")
        steps.threads.clear()
        for number in range(inline.ITEMS + 1):
            vm.post(message(pid, number))
        await seat.until(lambda: seat.first(Kind.MESSAGES))
        assert not steps.on_the_loop


Given = list[tuple[int, int, float]]


@pytest.fixture
def given_steps(monkeypatch: pytest.MonkeyPatch) -> Given:
    """The thread, the items and the seconds of each step of any VM."""
    noted: Given = []
    step = Kernel.step_packed

    def noting(kernel: Kernel, texts: list[bytes], most: float = math.inf) -> Stepped:
        noted.append((threading.get_ident(), len(texts), most))
        return step(kernel, texts, most)

    monkeypatch.setattr(Kernel, "step_packed", noting)
    return noted


async def test_a_step_on_the_loop_has_less_time_than_one_in_the_thread(given_steps: Given) -> None:
    seat = Seat(echo=ECHO)
    async with seat.vm() as vm:
        vm.post(message(await started(seat, vm, "echo")))
        await seat.until(lambda: seat.first(Kind.MESSAGE))
    own = threading.get_ident()
    assert {most for thread, _, most in given_steps if thread == own} == {inline.SECONDS}
    assert {most for thread, _, most in given_steps if thread != own} <= {math.inf}


async def test_messages_that_came_as_one_item_are_counted_one_by_one(given_steps: Given) -> None:
    seat, steps = Seat(echo=ECHO), Steps()
    packed = b"\xa1t\x91\x01" * inline.ITEMS
    async with seat.vm(on_step=steps) as vm:
        pid = await started(seat, vm, "echo")
        steps.threads.clear()
        given_steps.clear()
        for _ in range(3):
            vm.post([int(Kind.MESSAGES), pid, OUTSIDE, 0, inline.ITEMS, packed])
        await seat.until(lambda: len(one_by_one(seat.out)) == 1 + 3 * inline.ITEMS)
        assert given_steps[0][:2] == (threading.get_ident(), 1)
        assert steps.in_the_thread, "the loop takes one of them, the thread what is left"


async def test_large_items_are_for_the_thread_and_not_lost() -> None:
    seat, steps = Seat(echo=ECHO), Steps()
    async with seat.vm(on_step=steps) as vm:
        pid = await started(seat, vm, "echo")
        steps.threads.clear()
        vm.post(message(pid, b"x" * inline.BYTES))
        await seat.until(lambda: seat.first(Kind.MESSAGE))
        assert not steps.on_the_loop


async def test_the_thread_takes_over_from_a_step_that_did_not_get_everything_done() -> None:
    seat, steps = Seat(spin=SPIN), Steps()
    async with seat.vm(on_step=steps) as vm:
        pid = await started(seat, vm, "spin")
        steps.threads.clear()
        vm.post(message(pid))
        async with asyncio.timeout(5):
            while steps.in_the_thread < 3:
                await asyncio.sleep(0.001)
        assert steps.on_the_loop == 1


async def test_a_timer_set_on_the_loop_wakes_the_thread() -> None:
    seat, steps = Seat(sleepy=SLEEPY), Steps()
    async with seat.vm(on_step=steps) as vm:
        pid = await started(seat, vm, "sleepy")
        steps.threads.clear()
        vm.post(message(pid))
        exit = await seat.until(lambda: seat.first(Kind.EXIT))
        assert exit[5] == b"woken"
        assert steps.on_the_loop == 1
        assert steps.in_the_thread >= 1


async def test_a_vm_whose_step_was_long_keeps_to_its_thread_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "AT_ONCE", 0.002)
    monkeypatch.setattr(inline, "SHARE", 0.0001)
    seat, steps = Seat(slow=SLOW), Steps()
    async with seat.vm(on_step=steps) as vm:
        pid = await started(seat, vm, "slow")
        vm.post(message(pid))  # the first turn of a process is a long one
        await asyncio.sleep(0.01)
        await asleep(vm)
        vm._allowance = Allowance()
        steps.threads.clear()
        vm.post(message(pid))
        while not steps.threads or steps.under_way:
            await asyncio.sleep(0.001)
        assert steps.on_the_loop == 1
        assert not vm._allowance.permits(time.monotonic())
        await asleep(vm)
        steps.threads.clear()
        vm.post(message(pid))
        await seat.until(lambda: seat.first(Kind.EXIT))
        assert not steps.on_the_loop


async def test_a_vm_with_a_large_heap_keeps_to_its_thread() -> None:
    seat, steps = Seat(echo=ECHO), Steps()
    async with seat.vm(on_step=steps) as vm:
        pid = await started(seat, vm, "echo")
        steps.threads.clear()
        vm._memory = inline.HEAP + 1
        vm.post(message(pid))
        await seat.until(lambda: seat.first(Kind.MESSAGE))
        assert not steps.on_the_loop


async def test_limits_are_changed_in_a_vm_that_sleeps() -> None:
    seat = Seat(echo=ECHO)
    async with seat.vm() as vm:
        await started(seat, vm, "echo")
        before = vm.stats().steps
        vm.change(VmConfig(mailbox_limit=7))
        async with asyncio.timeout(5):
            while vm.stats().steps == before:
                await asyncio.sleep(0.001)


class Sleeper:
    """A VM for the core: its step takes a while."""

    def __init__(self, told: list[str], name: str, seconds: float = 0.0) -> None:
        self._told, self._name, self._seconds = told, name, seconds

    def step_here(self) -> None:
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            pass
        self._told.append(f"{self._name} steps")

    def wake(self) -> None:
        self._told.append(f"{self._name} wakes")


async def test_a_turn_of_the_loop_has_its_share_and_the_others_their_threads() -> None:
    told: list[str] = []
    desk = Inline()
    for name, seconds in (("a", inline.TURN), ("b", 0.0), ("c", 0.0)):
        desk.call(Sleeper(told, name, seconds))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told == ["a steps", "b wakes", "c wakes"]
    desk.call(Sleeper(told, "b"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told[3:] == ["b steps"]


@given(st.lists(st.tuples(st.floats(0.0, 0.2), st.floats(0.0, 2.0)), max_size=60))
def test_long_steps_take_no_more_of_the_loop_than_their_share(steps: list[tuple[float, float]]) -> None:
    allowance, now, lost, longest = Allowance(), 100.0, 0.0, 0.0
    began = now
    for seconds, pause in steps:
        if allowance.permits(now):
            now += seconds
            allowance.took(seconds, now)
            if seconds > inline.SHORT:
                lost += seconds
                longest = max(longest, seconds)
        now += pause
        assert lost <= inline.AT_ONCE + (now - began) * inline.SHARE + longest + 1e-9


def test_short_steps_are_never_limited() -> None:
    allowance = Allowance()
    for _ in range(10_000):
        assert allowance.permits(5.0)
        allowance.took(inline.SHORT, 5.0)


@pytest.mark.parametrize("seconds", [0.025, 0.25])
def test_a_long_step_is_paid_off_in_time(seconds: float) -> None:
    allowance = Allowance()
    allowance.took(seconds, 10.0)
    owed = (seconds - inline.AT_ONCE) / inline.SHARE
    assert not allowance.permits(10.0 + owed * 0.9)
    assert allowance.permits(10.0 + owed * 1.1)
