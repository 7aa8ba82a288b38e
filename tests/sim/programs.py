"""Requests between real Lua processes: spawn, exec, monitor, link, cancel, terminate, and messages around them.

A driver on each node does what the plan tells it: it starts children on other nodes, watches them, tells them things,
ends them. Every request is answered within its deadline; a spawn makes one child, or none; what a child sent comes
before its end, in order; what is sent before a cancel is there when it is. Who is linked to a process that is gone is
gone as well; and a monitor has fired.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from cluster.envelope import Envelope, Kind
from cluster.pid import Pid, node_of
from tests.sim.kernel_vm import PROGRAMS, KernelVm

if TYPE_CHECKING:
    from tests.sim.machine import Life
    from tests.sim.simulation import Simulation

DRIVER = """
local function main(ear)
    process.set_options({trap_links = true})
    local inbox, events, got = process.inbox(), process.events(), {}

    local function act(c)
        if c.verb == "spawn" then
            return process.spawn("app:child", c.host, c.ear, process.pid(), c.ref, c.ends, c.count)
        elseif c.verb == "spawn_monitored" then
            return process.spawn_monitored("app:child", c.host, c.ear, process.pid(), c.ref, c.ends, c.count)
        elseif c.verb == "spawn_linked" then
            return process.spawn_linked("app:child", c.host, c.ear, process.pid(), c.ref, c.ends, c.count)
        elseif c.verb == "exec" then
            return process.exec("app:child", c.host, c.ear, process.pid(), c.ref, "end", c.count)
        elseif c.verb == "cancel" then
            for i = 1, c.count do
                process.send(c.pid, "told", i)
            end
            process.send(ear, "begins", c.ref)
            return process.cancel(c.pid, "the plan says so")
        end
        return process[c.verb](c.pid)
    end

    local function run(c)
        local value, err = act(c)
        process.send(ear, "done", {ref = c.ref, value = value or false, error = err and tostring(err) or ""})
    end

    local function take(message)
        local data = message:payload():data()
        if message:topic() == "do" then
            coroutine.spawn(function() run(data) end)
        else
            local from = message:from()
            process.send(ear, "heard", {from = from, n = data})
            got[from] = (got[from] or 0) + 1
        end
    end

    process.send(ear, "ready", process.pid())
    while true do
        local result = channel.select({inbox:case_receive(), events:case_receive()})
        if result.channel == inbox then
            take(result.value)
        else
            while true do
                local more = channel.select({inbox:case_receive(), default = true})
                if more.default then break end
                take(more.value)
            end
            local event = result.value
            process.send(ear, "event", {kind = event.kind, from = event.from, got = got[event.from] or 0,
                gone = event.result and event.result.error and tostring(event.result.error) or ""})
        end
    end
end
return {main = main}
"""
CHILD = """
local function main(ear, parent, ref, ends, count)
    process.send(ear, "born", {ref = ref, pid = process.pid()})
    for i = 1, count do
        process.send(parent, "from child", i)
    end
    if ends == "end" then
        return ref
    elseif ends == "fail" then
        error("this child fails")
    end
    local inbox, events, got = process.inbox(), process.events(), 0
    while true do
        local result = channel.select({inbox:case_receive(), events:case_receive()})
        if result.channel == inbox then
            got = got + 1
        elseif result.value.kind == process.event.CANCEL then
            while true do
                local more = channel.select({inbox:case_receive(), default = true})
                if more.default then break end
                got = got + 1
            end
            process.send(ear, "canceled", {pid = process.pid(), got = got})
            return ref
        end
    end
end
return {main = main}
"""
TEXTS = {"app:driver": DRIVER, "app:child": CHILD}
STARTS = ("spawn", "spawn_monitored", "spawn_linked", "exec")
DEADLINES = {"spawn": 10.0, "spawn_monitored": 10.0, "spawn_linked": 10.0, "exec": 16.0}
SIGNAL_DEADLINE = 5.0
SLACK = 1.5


@dataclass
class Request:
    """What a driver was told to do and has not said the outcome of."""

    life: Life
    verb: str
    at: float
    idle: float
    node: str
    count: int
    closes: int


@dataclass
class Child:
    """A process that was born for a request of ``driver``."""

    pid: str
    home: Life
    driver: Life
    verb: str
    ends: str
    count: int
    closes: int
    heard: int = 0
    told: int = -1
    """How many messages were sent to it before it was cancelled, by the only one who did."""
    monitored: bool = False
    gone: bool = False


class Programs:
    """``run`` is the part of the workload."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.counts = sim.checker.counts
        self._references = count(1)
        self._requests: dict[int, Request] = {}
        self._plans: dict[int, tuple[Life, str, str, int, int]] = {}
        self._born: Counter[int] = Counter()
        self._children: dict[str, Child] = {}
        self._drivers: dict[str, bytes] = {}

    async def run(self, life: Life) -> None:
        life.kernel = vm = KernelVm(life, TEXTS)
        life.router.slots[vm.slot] = life.router.hosts[vm.host_id] = vm
        life.router.greet(vm)
        ear = self._ear(life)
        life.router.ports.serve(ear, lambda envelope: self._hears(life, envelope))
        life.router.route(
            [
                int(Kind.SPAWN),
                b"{%s@%s|}" % (life.name.encode(), PROGRAMS.encode()),
                ear,
                64 * 9999,
                b"app:driver",
                [ear],
                {},
            ]
        )
        while not life.leaving:
            await asyncio.sleep(self.sim.world.pick((0.05, 0.2, 0.6)) * (2.0 if self.sim.workload.calm else 1.0))
            self._audit(life)
            if life.label in self._drivers and self.sim.workload.sending:
                self._command(life)

    @staticmethod
    def _ear(life: Life) -> bytes:
        return str(Pid(life.name, "sim:ear", life.incarnation, 0)).encode()

    def _command(self, life: Life) -> None:
        world, reference = self.sim.world, next(self._references)
        others = [name for name, machine in self.sim.machines.items() if machine.life.kernel and name != life.name]
        known = [child for child in self._children.values() if child.home is not life and not child.gone]
        if not others:
            return
        number = world.pick((0, 1, 3, 20))
        if not known or world.random.random() < 0.5:
            verb, ends = world.pick(STARTS), world.pick(("end", "fail", "wait", "wait"))
            node = world.pick(others)
            there = self.sim.machines[node].life
            command = {"verb": verb, "host": f"{node}@{PROGRAMS}", "ear": self._ear(there).decode(), "ends": ends}
            self._plans[reference] = (life, verb, ends, number, life.closes(node))
        else:
            verb, child = world.pick(("cancel", "terminate", "monitor", "link", "cancel")), world.pick(known)
            node = child.home.name
            command = {"verb": verb, "pid": child.pid}
            if verb == "cancel":
                child.told = (
                    number if child.told == -1 and child.driver is life and child.closes == life.closes(node) else -2
                )
        self._requests[reference] = Request(life, verb, world.now, life.idle(), node, number, life.closes(node))
        self._send(life, {**command, "ref": reference, "count": number})

    def _send(self, life: Life, command: dict[str, Any]) -> None:
        raw = {key.encode(): value.encode() if isinstance(value, str) else value for key, value in command.items()}
        life.router.route([int(Kind.MESSAGE), self._drivers[life.label], self._ear(life), 0, b"do", [raw], b"", 0])

    def _audit(self, life: Life) -> None:
        now, idle = self.sim.world.now, life.idle()
        for request in self._requests.values():
            waited = now - request.at - (idle - request.idle)
            if request.life is life and waited > DEADLINES.get(request.verb, SIGNAL_DEADLINE) + SLACK:
                text = f"{life.label} has no answer to its {request.verb} on {request.node} of {request.at:.3f}"
                self._violated(f"G3: {text}")

    # -- what the processes say

    def _hears(self, life: Life, envelope: Envelope) -> bool:
        said = envelope[5][0]
        match envelope[4]:
            case b"ready":
                self._drivers[life.label] = said
            case b"born":
                self._is_born(life, said[b"ref"], said[b"pid"].decode())
            case b"begins":
                self._requests[said].at = self.sim.world.now  # a full link held it back
            case b"done":
                self._done(life, said)
            case b"heard":
                self._heard(life, said[b"from"].decode(), said[b"n"])
            case b"event":
                self._event(life, said)
            case b"canceled":
                self._canceled(life, said[b"pid"].decode(), said[b"got"])
        return True

    def _is_born(self, life: Life, reference: int, pid: str) -> None:
        self._born[reference] += 1
        self.counts["born"] += 1
        if self._born[reference] > 1:
            self._violated(f"L9: spawn {reference} has made {self._born[reference]} children, the last is {pid}")
        driver, verb, ends, number, closes = self._plans[reference]
        self._children[pid] = Child(pid, life, driver, verb, "end" if verb == "exec" else ends, number, closes)

    def _done(self, life: Life, said: dict[bytes, Any]) -> None:
        reference = said[b"ref"]
        request = self._requests.pop(reference, None)
        self.counts["requests"] += 1
        if request is None:
            self._violated(f"G3: {life.label} has two answers to request {reference}")
            return
        if said[b"error"] or request.verb not in STARTS:
            return
        if self._born[reference] != 1:
            self._violated(f"L9: {life.label} was told of a child of {request.verb} {reference}, which was never born")
        if request.verb == "spawn_monitored":
            self._children[said[b"value"].decode()].monitored = True

    def _heard(self, life: Life, pid: str, number: int) -> None:
        child = self._children[pid]
        child.heard += 1
        if child.heard != number and self._is_whole(life, child):
            self._violated(f"G1: {life.label} heard message {number} of {pid} as number {child.heard}")

    def _event(self, life: Life, said: dict[bytes, Any]) -> None:
        child = self._children.get(said[b"from"].decode())
        self.counts["events"] += 1
        if child is None or b"noconnection" in said[b"gone"]:
            return
        child.gone = True
        if child.driver is life and said[b"got"] != child.count and self._is_whole(life, child):
            text = f"{child.count} messages of {child.pid} were to come before its end, but {said[b'got']} did"
            self._violated(f"L9: {text} at {life.label}")

    def _canceled(self, life: Life, pid: str, got: int) -> None:
        child = self._children[pid]
        child.gone = True
        self.counts["canceled"] += 1
        if child.told >= 0 and got != child.told and self._is_whole(child.driver, child):
            self._violated(f"L9: {pid} was cancelled after {got} messages, but {child.told} were sent before")

    def _is_whole(self, driver: Life, child: Child) -> bool:
        """Whether nothing between the two can have been lost."""
        return driver.alive and driver.closes(child.home.name) == child.closes and not child.home.closes(driver.name)

    # -- at the end

    def quiet(self) -> None:
        """Nothing is left undone: linked processes of lost drivers are gone."""
        alive: set[str] = set()
        for machine in self.sim.machines.values():
            if machine.life.kernel is not None:
                alive.update(machine.life.kernel.processes())
        for child in self._children.values():
            if child.verb == "spawn_linked" and not child.driver.alive and child.pid in alive:
                self._violated(f"G3: {child.pid} lives, but {child.driver.label}, to which it is linked, does not")
        drivers = {node_of(pid) for pid in self._drivers.values()}
        self.counts["drivers"] += len(drivers)

    def _violated(self, what: str) -> None:
        self.sim.world.violated(what)
