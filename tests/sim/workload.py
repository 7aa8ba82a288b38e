"""What the processes of every node do meanwhile: streams, questions, monitors, locks with fenced writes, names.

Each of them runs for ever in its process's loop and tells the checker what it sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import count
from typing import TYPE_CHECKING, Any

from cluster.envelope import Status
from cluster.errors import CallTimeout, ClusterError
from cluster.etcd import Compare, Put
from cluster.locks import Lock
from cluster.names import Scope
from tests.sim.machine import KEYS, Life
from tests.sim.vm import MESSAGE, MONITOR, STREAM, Process

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

QUESTION = b"question"


class Workload:
    """Starts the processes of each life, and knows where they are: PIDs are found without asking anybody."""

    locks = ("one", "two")
    names = ("x", "y")

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.pick = sim.world.pick
        self.random = sim.world.random
        self.parts = self._some_parts()
        """What is done in this run: faults show best where nothing else covers them."""
        self.calm = False
        """Less is done than before; enough to see that it can be."""
        self.receivers: dict[str, tuple[Life, bytes]] = {}
        self.victims: dict[str, bytes] = {}
        self.giving_back: set[tuple[bytes, str]] = set()
        self.sending = True
        if self.serves:
            sim.services.define_some()

    def begin(self, life: Life) -> None:
        receiver = self._spawn(life)
        self.receivers[life.name] = (life, receiver.pid)
        for part in self.parts:
            if part in (self._stream, self._ask, self._watch):
                for node in self.sim.machines:
                    if node != life.name:
                        self._start(life, part(life, node))
            else:
                self._start(life, part(life))

    def _some_parts(self) -> list[Callable[..., Coroutine[Any, Any, None]]]:
        every: list[Callable[..., Coroutine[Any, Any, None]]] = [
            self._stream,
            self._ask,
            self._watch,
            self._live_and_die,
            self._own,
            self._hold_name,
            self._send_by_name,
        ]
        if self.sim.theme in ("services", "lease", "hangs"):
            more = self.random.choice(([], [], every[2:4], every[4:5]))
            return [self.sim.services.begin, *more]
        if self.sim.theme == "names":
            more = self.random.choice(([], [], every[2:4], every[5:]))
            return [self.random.choice((self.sim.holders.keep, self.sim.pack.run)), *more]
        if self.sim.theme == "programs":
            return [self.sim.programs.run, *self.random.choice(([], [], every[2:4], every[0:1]))]
        alone = {"streams": every[:1], "watches": every[2:4], "locks": every[4:5], "by name": every[5:]}
        if self.sim.theme in alone:
            return alone[self.sim.theme]
        if self.sim.long and self.random.random() < 0.5:
            return [self._watch, self._live_and_die]
        if self.random.random() < 0.4:
            return every
        chosen = self.random.choice(((0,), (1,), (2, 3), (2, 3), (4,), (5, 6), (0, 2, 3), (1, 4, 5, 6)))
        return [every[index] for index in chosen]

    @property
    def asks(self) -> bool:
        return self._ask in self.parts

    @property
    def serves(self) -> bool:
        return self.sim.services.begin in self.parts

    @property
    def owns(self) -> bool:
        return self._own in self.parts

    def _start(self, life: Life, work: Coroutine[Any, Any, None]) -> None:
        life.tasks.start(work, "workload")

    def _spawn(self, life: Life) -> Process:
        process = life.vm.spawn()
        self.sim.checker.homes[process.pid] = life
        return process

    async def _pause(self, *choices: float) -> None:
        await asyncio.sleep(self.pick(choices) * (2.0 if self.calm else 1.0))

    # -- streams

    async def _stream(self, life: Life, node: str) -> None:
        process = self._spawn(life)
        while process.alive:
            await self._pause(0.05, 0.2, 0.6, 1.5)
            if node in self.receivers and self.sending:
                for _ in range(self.pick((1, 1, 2, 5, 20))):
                    await life.vm.relieved(node)
                    if not process.alive:
                        return
                    self._send(life, process, node)

    def _send(self, life: Life, process: Process, node: str) -> None:
        receiver, pid = self.receivers[node]
        stream = self.sim.checker.stream(life, process.pid, receiver, pid)
        stream.sent += 1
        text = b"x" * self.pick((0, 0, 10, 200))
        if life.vm.put([MESSAGE, pid, process.pid, 0, STREAM, [stream.sent, text], b"", 0]):
            self.sim.checker.sent(stream, stream.sent)

    # -- questions

    async def _ask(self, life: Life, node: str) -> None:
        process = self._spawn(life)
        while process.alive:
            await self._pause(0.1, 0.5, 1.0)
            if node in self.receivers and process.alive:
                _, pid = self.receivers[node]
                what = f"a question to {pid.decode()}"
                life.vm.ask(MESSAGE, pid, process, what, lambda status: None, QUESTION, [], b"", 0)

    # -- processes that end, and those who watch them

    async def _live_and_die(self, life: Life) -> None:
        while not life.leaving:
            process = self._spawn(life)
            self.victims[life.name] = process.pid
            await self._pause(0.5, 1.0, 3.0, 6.0, 12.0)
            if process.alive:
                for node in self.sim.machines:
                    if node != life.name and node in self.receivers and self.sending:
                        self._send(life, process, node)
                life.vm.end(process)

    async def _watch(self, life: Life, node: str) -> None:
        process = self._spawn(life)
        while process.alive:
            await self._pause(0.02, 0.1, 1.0)
            pid = self.victims.get(node)
            if pid is None or pid in process.watching or not process.alive:
                continue
            over = asyncio.Event()
            life.vm.ask(MONITOR, pid, process, f"a monitor of {pid.decode()}", self._watched(life, process, pid, over))
            await over.wait()

    def _watched(self, life: Life, process: Process, pid: bytes, over: asyncio.Event) -> Callable[[int], None]:
        def fired(why: str) -> None:
            self.sim.checker.watch_fired(life, process.pid, pid, why)
            over.set()

        def answered(status: int) -> None:
            if status == Status.OK and process.alive:
                process.watching[pid] = fired
                self.sim.checker.watches(life, process.pid, pid)
            else:
                over.set()

        return answered

    # -- locks, and what is written under them

    async def _own(self, life: Life) -> None:
        for turn in count():
            if life.leaving:
                return
            await self._pause(0.05, 0.2, 0.4)
            name = self.locks[turn % 2] if self.calm else self.pick(self.locks)
            process = self._spawn(life)
            try:
                lock = await life.locks.acquire(name, process.pid, life.keeper.lease.id)
            except ClusterError:
                life.vm.end(process)
                continue
            await self._act(life, process, lock)
            if process.alive and self.random.random() < 0.5:
                self.sim.owned.gives_up(KEYS.lock(name))
                try:
                    await life.locks.release(name, process.pid)
                except ClusterError:
                    pass  # it is given back behind the scenes
            life.vm.end(process)

    async def _act(self, life: Life, process: Process, lock: Lock) -> None:
        """As long as it pleases, or is let: a killed process ends its step, and what it sends then must be allowed."""
        until = life.loop.time() + self.pick((0.1, 0.2) if self.calm else (0.2, 1.0, 4.0, 9.0))
        while process.alive and life.loop.time() < until:
            if life.owners.may_act(process.pid):
                self.sim.owned.acts(life, process, KEYS.lock(lock.name), lock.token)
                self._start(life, self._write(life, lock))
            await self._pause(0.05, 0.2, 0.3)

    async def _write(self, life: Life, lock: Lock) -> None:
        store, owned = self.sim.store, self.sim.owned
        held = [Compare.mod(KEYS.lock(lock.name), "=", lock.token)]
        put = [Put(f"/wippy/sim/kv/{lock.name}", str(lock.token).encode())]

        def write() -> None:
            if store.transact(held, put, ()).succeeded:
                owned.written_by(KEYS.lock(lock.name), lock.token)

        life.client.request(write, lambda result, error: None, life.loop)

    # -- names

    async def _hold_name(self, life: Life) -> None:
        while not life.leaving:
            await self._pause(0.1, 0.5, 2.0)
            name = self.pick(self.names)
            process, scope = self._spawn(life), self.pick((Scope.CONSISTENT, Scope.CONSISTENT, Scope.EVENTUAL))
            try:
                await life.names.register(name, process.pid.decode(), scope, life.keeper.lease.id)
                await self._pause(0.5, 2.0, 6.0)
                if process.alive and self.random.random() < 0.5:
                    self.giving_back.add((process.pid, name))
                    await life.names.unregister(name, process.pid.decode(), scope)
            except (ClusterError, CallTimeout):
                pass
            life.vm.end(process)

    async def _send_by_name(self, life: Life) -> None:
        process, asking = self._spawn(life), self._spawn(life)
        while process.alive:
            await self._pause(0.05, 0.3, 1.0)
            name = self.pick(self.names)
            for _ in range(self.pick((1, 1, 3, 8))):
                if process.alive and self.sending:
                    life.vm.names.send(process, name, by_pid=self.random.random() < 0.1)
                await asyncio.sleep(self.pick((0.0, 0.0, 0.001, 0.01)))
            held = life.names.lookup(name)
            if held is not None and asking.alive:
                to, what = held.pid.encode(), f"a message to {name}"
                rest = (QUESTION, [], name.encode(), held.revision)
                life.vm.ask(MESSAGE, to, asking, what, lambda status: None, *rest)
