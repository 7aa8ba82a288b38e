"""Every attack of the table, beside neighbours that do honest work in the same VM.

Each test says what became of the attacker, and then that the neighbours finished correctly, that the VM serves on,
and that nothing of another process, of the kernel or of Python was reached.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, partial

import pytest

from cluster.envelope import Kind
from node.host.boundary import In, Item, Out
from node.host.kernel import Stepped, VmConfig
from tests.hostile.attacks import ATTACKS, BUDGET, ENDLESS, HELD, MEMORY
from tests.luaworld import OUTSIDE, World

ECHO = """return { main = function()
    local inbox = process.inbox()
    secret, real = "kept", string.upper
    while true do
        local m = inbox:receive()
        if m:topic() == "say" then
            local intact = secret == "kept" and string.upper == real and ("x"):upper() == "X" and #"four" == 4
            process.send(m:from(), "echo", m:payload():data(), intact)
        end
    end
end }"""
ADDER = """return { main = function(n)
    local sum = 0 for i = 1, n do sum = sum + i % 7 end return sum
end }"""
NUMBERS = 200_000
SUM = sum(i % 7 for i in range(1, NUMBERS + 1))
LOGS, CODE = 51, 50
PATIENCE = 20.0
SLOW, LONGEST = "hang: slow instructions", 2.0
CASES = [(kind, name) for kind, attacks in ATTACKS.items() for name in attacks]


class Arena:
    """A VM with an echo, shared by the attacks of a class."""

    def __init__(self, megabytes: int) -> None:
        self.world = World(VmConfig(max_memory=megabytes * 1024 * 1024, max_processes=500))
        self.world.entry("app:echo", ECHO)
        self.world.entry("app:adder", ADDER)
        self.world.entry("app:sleeper", "return { main = function() process.inbox():receive() end }")
        self.world.entry("app:two", "return { main = function() return 1 + 1 end }")
        self.world.entry("app:brief", "return { main = function() end }")
        self.echo = self.world.spawn("app:echo")
        self._value, self._queries = 0, 1 << 40
        self._step, self.world.kernel.step = self.world.kernel.step, self._timed  # type: ignore[method-assign]
        self.longest = 0.0
        """Seconds of CPU time of the longest step."""

    def _timed(self, items: list[Item]) -> Stepped:
        began = time.thread_time()
        try:
            return self._step(items)
        finally:
            self.longest = max(self.longest, time.thread_time() - began)

    def go_on(self, until: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                return False
            try:
                self.world.run(seconds=0.02, until=until)
            except TimeoutError:
                pass
            self.world.clock.passed += 0.02  # time goes on while nothing runs
            self.world.out = [item for item in self.world.out if item[0] != LOGS]
        return True

    def answers(self) -> bool:
        """Whether the echo answers, and finds its own things as they were."""
        self._value += 1
        said = ("echo", [self._value, True])
        self.world.post([int(Kind.MESSAGE), self.echo, OUTSIDE, 0, b"say", [self._value], b"", 0])
        return self.go_on(lambda: said in self.world.messages())

    def start(self, id: str, *arguments: object) -> bytes:
        """Start a process; a VM that is short of memory or full of processes just now gets some time."""
        deadline = time.monotonic() + PATIENCE
        while True:
            reference = self.world.post_spawn(id, *arguments)
            assert self.go_on(partial(self._has_reply, reference))
            reply = self.world.reply(reference)
            if reply[4] == 0:
                pid: bytes = reply[5]
                return pid
            assert reply[5][b"kind"] == b"RateLimited", reply
            assert time.monotonic() < deadline, reply
            self.clear()

    def _has_reply(self, reference: int) -> bool:
        return any(item[0] == Kind.REPLY and item[3] == reference for item in self.world.out)

    def value_of(self, id: str) -> object:
        """What a process returns."""
        pid = self.start(id)
        assert self.go_on(lambda: self.world.has_ended(pid))
        return self.world.exit_of(pid)[5]

    def end(self, pid: bytes) -> None:
        self.world.post([int(Kind.TERMINATE), pid, OUTSIDE, 0])
        assert self.go_on(lambda: self.world.has_ended(pid)), "it can't be killed"

    def clear(self) -> None:
        """End what an attacker has started."""
        self._queries += 64
        number = self._queries
        self.world.post([int(In.QUERY), number, b"list", None])
        assert self.go_on(lambda: any(item[:2] == [Out.QUERY_ANSWER, number] for item in self.world.out))
        answer = next(item[2] for item in self.world.out if item[:2] == [Out.QUERY_ANSWER, number])
        for process in answer:
            if process[b"pid"] != self.echo:
                self.world.post([int(Kind.TERMINATE), process[b"pid"], OUTSIDE, 0])
        self.go_on(lambda: False, 0.02)


@cache
def arena_of(kind: str) -> Arena:
    return Arena(128 if kind == "hang: recursion" else 48)  # a stack at its end takes 40 MB


def python() -> tuple[object, ...]:
    """What a program that reached Python could change first."""
    settings = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return settings, os.getcwd(), sys.argv[:], threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.fixture
def untouched_python(kind: str) -> Iterator[None]:
    arena_of(kind)  # the first VM starts a thread that stays
    before = python()
    yield
    assert python() == before


def fate_of(arena: Arena, pid: bytes, expected: str) -> str:
    """How the attacker ended."""
    if expected == ENDLESS:
        assert arena.answers(), "the neighbour does not answer meanwhile"
        arena.go_on(lambda: False, 0.05)
        assert not arena.world.has_ended(pid), arena.world.exit_of(pid)
        arena.end(pid)
        return ENDLESS
    deadline = time.monotonic() + PATIENCE
    while not arena.go_on(lambda: arena.world.has_ended(pid), 0.5):
        assert arena.answers(), "the neighbour does not answer meanwhile"
        assert time.monotonic() < deadline, "it goes on and on"
    exit = arena.world.exit_of(pid)
    return exit[6][b"message"].decode("utf-8", "replace") if exit[6] else str(exit[5].decode())


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.usefixtures("untouched_python")
def test_an_attack_harms_nobody_else(kind: str, name: str) -> None:
    source, expected = ATTACKS[kind][name]
    arena = arena_of(kind)
    world = arena.world
    id = f"app:bad{CASES.index((kind, name))}"
    world.entry(id, f"local function main(...) {source}\nend return {{ main = main }}", modules=["time"])
    adder = arena.start("app:adder", NUMBERS)
    pid = arena.start(id, arena.echo)
    fate = fate_of(arena, pid, expected)
    if expected in (HELD, MEMORY, BUDGET, ENDLESS):
        assert fate == expected
    else:
        assert expected in fate
        assert "kernel/" not in fate
    assert arena.go_on(lambda: world.has_ended(adder))
    assert world.exit_of(adder)[5] == SUM
    arena.clear()
    assert arena.answers()
    assert arena.value_of("app:two") == 2
    assert world.complaints() == []
    if kind == SLOW:
        assert arena.longest < LONGEST, "others had to wait for many slow instructions"


def test_every_class_has_at_least_four_attacks() -> None:
    assert len(ATTACKS) == 29
    assert {kind: len(attacks) for kind, attacks in ATTACKS.items() if len(attacks) < 4} == {}
