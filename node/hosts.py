"""The hosts of a node: the workers of each ``process.host`` and ``terminal.host``, and one VM for the node itself.

Each worker is a Lua VM with a slot (1..63) for its life. What VMs put out is sorted here:
envelopes to the router, operations to the module dispatcher, requests for code to the
registry. A host whose entry changes goes on: its limits change in place, workers are added,
or retired until they are empty.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, Self

import structlog

from cluster.envelope import Kind, error_map, to_text
from cluster.registry import Entry
from cluster.tasks import Tasks
from node.balance import effective_workers
from node.host import Vm, VmConfig, VmGone
from node.host.boundary import Item, Out
from node.host.inline import Inline
from node.host.vm import StepObserver
from node.limits import Sizing
from node.modules import Dispatcher
from node.router import Router
from node.slots import Slots
from node.workers import Counters, Host, HostStats, Worker

log = structlog.get_logger("wippy.hosts")

SYSTEM_HOST = "node:system"
HOST_KINDS = frozenset({"process.host", "terminal.host"})
STOP_GRACE = timedelta(seconds=2)
LOOK = 1.0
"""Seconds between two looks at how busy the workers are."""
ROUTED = 32
"""Items below are envelopes."""
ACTS = frozenset({Kind.MESSAGE, Kind.MESSAGES, Kind.SPAWN, Kind.CALL, Kind.CANCEL, Kind.TERMINATE, Out.CALL, Out.CAST})
"""Items by which a process acts on others. Answers and exits are none: whoever waits for them must not wait in vain."""


class Guard(Protocol):
    """Who knows the processes that own something, and whether they still may act (fencing rule F4)."""

    @property
    def guarded(self) -> Collection[bytes]: ...

    def may_act(self, pid: bytes) -> bool: ...

    def runs_for(self, pid: bytes, caller: bytes) -> None: ...


class Hosts:
    """Handler of the host kinds. ``async with`` starts the node's own VM and stops all at the end."""

    name = "hosts"

    def __init__(
        self,
        node: str,
        incarnation: int,
        router: Router,
        dispatcher: Dispatcher,
        halves: dict[str, str],
        config: VmConfig,
        code: Callable[[str], dict[bytes, Any]],
        tune: Callable[[Entry, VmConfig], Sizing],
        names: Callable[[], dict[str, tuple[str, int]]],
        on_step: StepObserver,
        on_failure: Callable[[str, BaseException], None],
        terminals: set[int],
        guard: Guard,
    ) -> None:
        self._node = node
        self._incarnation = incarnation
        self._router = router
        self._dispatcher = dispatcher
        self._halves = halves
        self._config = config
        self._code = code
        self._tune = tune
        self._names = names
        self._on_step = on_step
        self._inline = Inline()
        self._on_failure = on_failure
        self._terminals = terminals
        self._guard = guard
        self._slots = Slots()
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._running: dict[str, Host] = {}
        self._tasks = Tasks("hosts")
        self._on_ended: list[Callable[[bytes, dict[str, Any] | None], None]] = []
        self.on_moving: Callable[[Item], None] = lambda item: None
        """What a VM says of a process that moves."""
        self.on_new: Callable[[Vm], None] = lambda vm: None
        """A VM begins: it is to be told which processes have moved."""
        self.on_gone: Callable[[Vm], None] = lambda vm: None
        """A VM has ended."""

    async def __aenter__(self) -> Self:
        await self._start(SYSTEM_HOST, None, Sizing(self._config))
        self._tasks.start(self._look(), "look")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()
        ended = await asyncio.gather(*(self._stop(host) for host in list(self._running)), return_exceptions=True)
        for problem in ended:
            if isinstance(problem, BaseException):
                log.error("host did not end in order", exc_info=problem)

    def on_ended(self, callback: Callable[[bytes, dict[str, Any] | None], None]) -> None:
        """Call back with (pid, error) when a process ends that has a name, a stream or is tracked."""
        self._on_ended.append(callback)

    def handles(self, kind: str) -> bool:
        return kind in HOST_KINDS

    async def put(self, entry: Entry) -> None:
        """Start the host; one that runs is given in place what may change. Raises OSError, ValueError, RuntimeError."""
        wanted = self._tune(entry, self._config)
        running = self._running.get(entry.id)
        if running is not None and running.entry is not None and running.entry.kind == entry.kind:
            running.entry = entry
            await self._resize(running, wanted)
            return
        if running is not None:
            await self._stop(entry.id)
        await self._start(entry.id, entry, wanted)

    async def remove(self, id: str) -> None:
        """Stop the host, its processes first."""
        if id in self._running:
            await self._stop(id)

    async def drain(self, reason: str, grace: timedelta) -> None:
        """CANCEL every process of every host, kill what is left after ``grace``."""
        await asyncio.gather(*(vm.stop(reason, grace) for vm in self.vms()))

    async def refresh(self) -> None:
        """Ask the kernels for what only they count."""
        await asyncio.gather(*(_refresh(worker) for worker in self._answering()))

    def broken(self) -> list[str]:
        """Hosts with a VM that is gone."""
        return [host for host, running in self._running.items() if any(w.vm.failed for w in running.workers)]

    def whose_turn(self, slot: int) -> int:
        """Whose turn it is in the VM of ``slot``, as ``Kernel.whose_turn`` tells. From any thread."""
        return next((vm.whose_turn() for vm in self.vms() if vm.slot == slot), 0)

    def vms(self) -> list[Vm]:
        return [worker.vm for running in self._running.values() for worker in running.workers]

    def terminal(self) -> str | None:
        """The one terminal host, None when there is none. Raises ValueError when there are several."""
        found = [h for h, running in self._running.items() if running.entry and running.entry.kind == "terminal.host"]
        if len(found) > 1:
            raise ValueError(f"several terminal hosts ({', '.join(sorted(found))}); choose one with --host")
        return found[0] if found else None

    async def processes(self) -> list[dict[str, Any]]:
        """All processes of the node, host by host."""
        workers = self._answering()
        listed = await asyncio.gather(*(_ask(worker, b"list") for worker in workers))
        return [
            {**to_text(process), "worker": worker.number}
            for worker, some in zip(workers, listed, strict=True)
            for process in some or ()
        ]

    async def barrier(self) -> None:
        """Wait until every VM has done what it was given so far. Raises TimeoutError."""
        await asyncio.gather(*(_ask(worker, b"idle") for worker in self._answering()))

    async def look(self, pid: str, slot: int) -> dict[str, Any] | None:
        """A process as in the list of all, None when the VM in ``slot`` has none of that PID."""
        workers = [worker for worker in self._answering() if worker.vm.slot == slot]
        found = await _ask(workers[0], b"look", pid.encode()) if workers else None
        return None if found is None else dict(to_text(found))

    async def inspect(self, pid: str, slot: int) -> dict[str, Any] | None:
        """Everything the VM in ``slot`` knows of a process, None when it has none of that PID."""
        for running in self._running.values():
            for worker in running.answering():
                if worker.vm.slot == slot:
                    return _shown(await _ask(worker, b"inspect", pid.encode()), running, worker)
        return None

    async def trace(self, pid: str, slot: int) -> dict[str, Any] | None:
        """What the VM in ``slot`` saw arrive at a process and leave it since it was asked last; as raw values."""
        workers = [worker for worker in self._answering() if worker.vm.slot == slot]
        return await _ask(workers[0], b"trace", pid.encode()) if workers else None

    def _answering(self) -> list[Worker]:
        return [worker for running in self._running.values() for worker in running.answering()]

    def code_changed(self, ids: set[str]) -> None:
        """These entries changed: VMs drop what they compiled of them."""
        item = [44, [one.encode() for one in sorted(ids)]]
        for vm in self.vms():
            vm.post(item)

    def has(self, host: str) -> bool:
        """Whether processes can come to this host."""
        running = self._running.get(host)
        return running is not None and running.entry is not None and running.entry.kind == "process.host"

    def has_room(self, host: str, coming: int) -> bool:
        """Whether a worker of ``host`` is below its limit of processes, with so many on their way here."""
        running = self._running.get(host)
        return running is not None and any(
            worker.vm.stats().processes + coming < running.config.max_processes for worker in running.answering()
        )

    def place(self, host: str) -> Vm | None:
        """The worker of ``host`` that has the least to do; None when there is no such host."""
        running = self._running.get(host)
        return running.least_loaded().vm if running is not None and running.workers else None

    def post_to_all(self, item: Item) -> None:
        for vm in self.vms():
            vm.post(item)

    def tell_ended(self, pid: bytes, error: dict[str, Any] | None) -> None:
        """A process that was to live here has ended before it did."""
        for callback in self._on_ended:
            callback(pid, error)

    def stats(self) -> list[HostStats]:
        return [running.stats() for running in self._running.values()]

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            for running in list(self._running.values()):
                running.look()
                for worker in [one for one in running.workers if one.retiring and not one.ending]:
                    await self._end_if_empty(running, worker)

    async def _end_if_empty(self, running: Host, worker: Worker) -> None:
        """A retiring worker ends when nothing lives in it and nothing is on its way there."""
        stats = worker.vm.stats()
        if not stats.failed and (stats.processes or stats.waiting_in):
            return
        slot = worker.vm.slot
        worker.ending = True  # from here on nothing new starts there, and then it is asked
        self._router.closing.add(slot)
        try:
            if not stats.failed and not await _ask(worker, b"idle"):
                return
            if worker.retiring and worker in running.workers:
                await self._end(running, worker)
                log.info("worker ended", host=running.host_id, worker=worker.number, workers=len(running.workers))
        except TimeoutError:
            log.debug("worker does not say whether it is idle", host=running.host_id, worker=worker.number)
        finally:
            worker.ending = False
            self._router.closing.discard(slot)

    async def _start(self, host: str, entry: Entry | None, wanted: Sizing) -> None:
        running = Host(host, entry, wanted.config, wanted.workers)
        number = self._effective(running)
        try:
            for _ in range(number):
                await self._add_worker(running)
        except BaseException:
            for worker in list(running.workers):
                await self._end(running, worker)
            raise
        self._running[host] = self._router.hosts[host] = running
        log.debug("host started", host=host, workers=number, slots=[worker.vm.slot for worker in running.workers])

    def _effective(self, running: Host) -> int:
        number = effective_workers(running.asked, self._cores)
        if number < running.asked:
            log.warning(
                "host gets fewer workers than it asks for",
                host=running.host_id,
                asked=running.asked,
                workers=number,
                cores=self._cores,
            )
        return number

    async def _resize(self, running: Host, wanted: Sizing) -> None:
        """Bring a host that runs to its new limits and number of workers."""
        if wanted.config != running.config:
            running.config = wanted.config
            for worker in running.workers:
                worker.vm.change(wanted.config)
        enough = effective_workers(wanted.workers, self._cores)
        if wanted.workers == running.asked and len(running.staying()) == enough:
            return
        running.asked = wanted.workers
        number = self._effective(running)
        for worker in [one for one in running.workers if one.retiring and not one.ending]:
            worker.retiring = len(running.staying()) >= number
        while len(running.staying()) < number:
            await self._add_worker(running)
        staying = sorted(running.staying(), key=lambda worker: (worker.load.processes, -worker.number))
        for worker in staying[: len(staying) - number]:
            worker.retiring = True
        running.look()
        log.info("host resized", host=running.host_id, workers=number, retiring=len(running.workers) - number)

    async def _add_worker(self, running: Host) -> None:
        slot, counter = self._slots.take()
        vm = Vm(
            slot=slot,
            node=self._node,
            incarnation=self._incarnation,
            host_id=running.host_id,
            config=running.config,
            modules=self._halves,
            on_output=self._take,
            on_step=self._on_step,
            on_failure=lambda vm, error: self._on_failure(f"VM of {vm.host_id}", error),
            counter=counter,
            inline=self._inline,
        )
        try:
            await vm.__aenter__()
        except BaseException:
            await vm.__aexit__(None, None, None)
            self._slots.give_back(slot, counter)
            raise
        running.add(vm)
        self._router.greet(vm)
        for name, (pid, revision) in self._names().items():
            vm.post([43, name.encode(), pid.encode(), revision])
        if running.entry is not None and running.entry.kind == "terminal.host":
            self._terminals.add(slot)
        self.on_new(vm)
        self._router.slots[slot] = vm

    async def _stop(self, host: str) -> None:
        running = self._running[host]
        self._router.hosts.pop(host, None)
        await asyncio.gather(*(self._end(running, worker) for worker in list(running.workers)))
        del self._running[host]

    async def _end(self, running: Host, worker: Worker) -> None:
        """End a worker, its processes first. Its slot is free afterwards."""
        async with worker.end:
            if worker in running.workers:
                await self._end_once(running, worker)

    async def _end_once(self, running: Host, worker: Worker) -> None:
        vm = worker.vm
        await vm.stop("host stopping", STOP_GRACE)
        if not vm.failed:
            try:
                await _refresh(worker)
            except TimeoutError:
                log.warning("figures of a worker are lost", host=running.host_id, worker=worker.number)
        self._router.slots.pop(vm.slot, None)
        self.on_gone(vm)
        self._terminals.discard(vm.slot)
        self._dispatcher.vm_ended(vm)
        await vm.__aexit__(None, None, None)
        running.drop(worker)
        if vm.gone:
            self._slots.give_back(vm.slot, vm.stats().counter)

    def step_waiting(self) -> None:
        """Step the VMs that have little to do now, rather than in the next turn of the loop."""
        self._inline.run()

    def _take(self, vm: Vm, items: list[Item]) -> None:
        """Everything a VM put out in one step, in order."""
        route, guarded = self._router.route, self._guard.guarded
        for item in items:
            op = item[0]
            if guarded and op in ACTS and self._withheld(item, op, guarded):
                continue
            if op < ROUTED:
                route(item)
                continue
            match op:
                case Out.CALL | Out.CAST | Out.TAKEN_BACK | Out.UPGRADED:
                    self._dispatcher.take(vm, item)
                case Out.CODE:
                    self._give_code(vm, item[1], item[2])
                case Out.ENDED:
                    self._ended(vm, item)
                case Out.RUNS_FOR:
                    self._guard.runs_for(item[1], item[2])
                case Out.UNMOVABLE | Out.LEAVING | Out.LUGGAGE | Out.WATCHED | Out.WATCHES:
                    self.on_moving(item)
                case Out.DEAD_LETTER:
                    self._router.dead_letters.note(*item[1:])
                case Out.STOPPED:
                    log.debug("host stopped", host=vm.host_id)
                case _:
                    log.error("unknown item from a VM", op=op, slot=vm.slot)

    def _withheld(self, item: Item, op: int, guarded: Collection[bytes]) -> bool:
        """Whether the item comes from a process that owned something and does not any more."""
        pid = item[1] if op == Out.CAST else item[2]
        if pid not in guarded or self._guard.may_act(pid):
            return False
        if op in (Kind.MESSAGE, Kind.MESSAGES):
            self._router.dead_letters.add(item, "lease_over")
        return True

    def _give_code(self, vm: Vm, opid: int, entry: bytes) -> None:
        try:
            vm.post([40, opid, None, [self._code(entry.decode())]])
        except LookupError as error:
            vm.post([40, opid, error_map("NotFound", str(error.args[0])), []])
        except ValueError as error:
            vm.post([40, opid, error_map("Invalid", str(error)), []])

    def _ended(self, vm: Vm, item: Item) -> None:
        self._dispatcher.take(vm, item)
        self.tell_ended(item[1], None if item[3] is None else to_text(item[3]))


async def _ask(worker: Worker, what: bytes, argument: Any = None) -> Any:
    """What its VM shows; None when it ends meanwhile. Raises TimeoutError."""
    try:
        return await worker.vm.query(what, argument)
    except VmGone:
        return None


async def _refresh(worker: Worker) -> None:
    told, mail = await asyncio.gather(_ask(worker, b"counters"), _ask(worker, b"mail"))
    if told is not None and mail is not None:
        worker.counters = Counters.of(to_text(told), int(mail))


def _shown(found: Any, running: Host, worker: Worker) -> dict[str, Any] | None:
    if found is None:
        return None
    workers = {"worker": worker.number, "workers": len(running.workers), "workers_asked": running.asked}
    return {**to_text(found), **workers}
