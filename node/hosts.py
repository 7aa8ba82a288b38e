"""The hosts of a node: one Lua VM per ``process.host`` and ``terminal.host``, and one for the node itself.

A host's VM has a slot (1..63) for its life; slots are not handed out twice, because the
counters of a slot's PIDs must never go back. What VMs put out is sorted here: envelopes to
the router, operations to the module dispatcher, requests for code to the registry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, Self

import structlog

from cluster.envelope import Kind, error_map, to_text
from cluster.pid import VM_SLOTS
from cluster.registry import Entry, RegistryState
from node.host import Vm, VmConfig, VmStats
from node.host.boundary import Item, Out
from node.host.vm import StepObserver
from node.modules import Dispatcher
from node.router import Router

log = structlog.get_logger("wippy.hosts")

SYSTEM_HOST = "node:system"
HOST_KINDS = frozenset({"process.host", "terminal.host"})
STOP_GRACE = timedelta(seconds=2)
ROUTED = 32
"""Items below are envelopes."""
ACTS = frozenset({Kind.MESSAGE, Kind.SPAWN, Kind.CALL, Kind.CANCEL, Kind.TERMINATE, Out.CALL, Out.CAST})
"""Items by which a process acts on others. Answers and exits are none: whoever waits for them must not wait in vain."""


class Guard(Protocol):
    """Who knows the processes that own something, and whether they still may act (fencing rule F4)."""

    @property
    def guarded(self) -> Collection[bytes]: ...

    def may_act(self, pid: bytes) -> bool: ...


@dataclass(frozen=True)
class Counters:
    """What the kernel of a VM counted, as of the last ``refresh``. Mappings are by entry id, or by reason."""

    live: Mapping[str, int] = field(default_factory=dict)
    spawned: Mapping[str, int] = field(default_factory=dict)
    exits: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    received: int = 0
    mail: int = 0

    @classmethod
    def of(cls, told: dict[str, Any], mail: int) -> Counters:
        entries: dict[str, dict[str, Any]] = told["entries"] or {}
        exits: dict[str, int] = {}
        for counts in entries.values():
            for reason, number in (counts["exits"] or {}).items():
                exits[reason] = exits.get(reason, 0) + number
        return cls(
            live={entry: counts["live"] for entry, counts in entries.items()},
            spawned={entry: counts["spawned"] for entry, counts in entries.items()},
            exits=exits,
            dead_letters=told["dead_letters"],
            received=sum(counts["received"] for counts in entries.values()),
            mail=mail,
        )


@dataclass
class _Host:
    """A host that runs. ``entry`` is None for the node's own."""

    vm: Vm
    entry: Entry | None
    counters: Counters = Counters()


@dataclass(frozen=True)
class HostStats:
    """One host's figures."""

    host: str
    kind: str
    vm: VmStats
    counters: Counters


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
        tune: Callable[[Entry, VmConfig], VmConfig],
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
        self._on_failure = on_failure
        self._terminals = terminals
        self._guard = guard
        self._slots = iter(range(1, VM_SLOTS))
        self._running: dict[str, _Host] = {}
        self._on_ended: list[Callable[[bytes, dict[str, Any] | None], None]] = []

    async def __aenter__(self) -> Self:
        await self._start(SYSTEM_HOST, None, self._config)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = await asyncio.gather(*(self._stop(host) for host in list(self._running)), return_exceptions=True)
        for problem in ended:
            if isinstance(problem, BaseException):
                log.error("host did not end in order", exc_info=problem)

    def on_ended(self, callback: Callable[[bytes, dict[str, Any] | None], None]) -> None:
        """Call back with (pid, error) when a process ends that has a name, a stream or is tracked."""
        self._on_ended.append(callback)

    async def converge(self, state: RegistryState) -> dict[str, str]:
        """Start the VMs of new hosts, stop those of removed ones."""
        wanted = {entry.id: entry for entry in state.entries() if entry.kind in HOST_KINDS}
        failed: dict[str, str] = {}
        for host in [h for h, running in self._running.items() if _is_obsolete(running, wanted.get(h))]:
            await self._stop(host)
        for host, entry in wanted.items():
            running = self._running.get(host)
            if running is not None:
                running.entry = entry
                continue
            try:
                await self._start(host, entry, self._tune(entry, self._config))
            except (OSError, ValueError, RuntimeError) as error:
                failed[host] = str(error)
        return failed

    async def drain(self, reason: str, grace: timedelta) -> None:
        """CANCEL every process of every host, kill what is left after ``grace``."""
        await asyncio.gather(*(host.vm.stop(reason, grace) for host in self._running.values()))

    async def refresh(self) -> None:
        """Ask the kernels for what only they count."""

        async def ask(host: _Host) -> None:
            told, mail = await asyncio.gather(host.vm.query(b"counters"), host.vm.query(b"mail"))
            host.counters = Counters.of(to_text(told), int(mail))

        await asyncio.gather(*(ask(host) for host in self._answering()))

    def broken(self) -> list[str]:
        """Hosts whose VM is gone."""
        return [host for host, running in self._running.items() if running.vm.stats().failed]

    def vms(self) -> list[Vm]:
        return [running.vm for running in self._running.values()]

    def terminal(self) -> str | None:
        """The one terminal host, None when there is none. Raises ValueError when there are several."""
        found = [h for h, running in self._running.items() if running.entry and running.entry.kind == "terminal.host"]
        if len(found) > 1:
            raise ValueError(f"several terminal hosts ({', '.join(sorted(found))}); choose one with --host")
        return found[0] if found else None

    async def processes(self) -> list[dict[str, Any]]:
        """All processes of the node, host by host."""
        listed = await asyncio.gather(*(running.vm.query(b"list") for running in self._answering()))
        return [to_text(process) for some in listed for process in some]

    async def inspect(self, pid: str, slot: int) -> dict[str, Any] | None:
        for running in self._answering():
            if running.vm.slot == slot:
                found: dict[str, Any] | None = to_text(await running.vm.query(b"inspect", pid.encode()))
                return found
        return None

    def _answering(self) -> list[_Host]:
        return [host for host in self._running.values() if not host.vm.stats().failed]

    def code_changed(self, ids: set[str]) -> None:
        """These entries changed: VMs drop what they compiled of them."""
        item = [44, [one.encode() for one in sorted(ids)]]
        for host in self._running.values():
            host.vm.post(item)

    def stats(self) -> list[HostStats]:
        return [
            HostStats(host, running.entry.kind if running.entry else "node", running.vm.stats(), running.counters)
            for host, running in self._running.items()
        ]

    async def _start(self, host: str, entry: Entry | None, config: VmConfig) -> None:
        slot = next(self._slots, None)
        if slot is None:
            raise RuntimeError(f"a node can start {VM_SLOTS - 1} hosts in its life; restart it to add {host}")
        vm = Vm(
            slot=slot,
            node=self._node,
            incarnation=self._incarnation,
            host_id=host,
            config=config if entry is None or entry.kind != "terminal.host" else replace(config, single=True),
            modules=self._halves,
            on_output=self._take,
            on_step=self._on_step,
            on_failure=lambda vm, error: self._on_failure(f"VM of {vm.host_id}", error),
        )
        try:
            await vm.__aenter__()
        except BaseException:
            await vm.__aexit__(None, None, None)
            raise
        self._running[host] = _Host(vm, entry)
        for name, (pid, revision) in self._names().items():
            vm.post([43, name.encode(), pid.encode(), revision])
        if entry is not None and entry.kind == "terminal.host":
            self._terminals.add(slot)
        self._router.slots[slot] = vm
        self._router.hosts[host] = vm
        log.debug("host started", host=host, slot=slot)

    async def _stop(self, host: str) -> None:
        running = self._running[host]
        self._router.hosts.pop(host, None)
        await running.vm.stop("host stopping", STOP_GRACE)
        del self._running[host]
        self._router.slots.pop(running.vm.slot, None)
        self._terminals.discard(running.vm.slot)
        self._dispatcher.vm_ended(running.vm)
        await running.vm.__aexit__(None, None, None)

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
                case Out.CALL | Out.CAST | Out.TAKEN_BACK:
                    self._dispatcher.take(vm, item)
                case Out.CODE:
                    self._give_code(vm, item[1], item[2])
                case Out.ENDED:
                    self._ended(vm, item)
                case Out.STOPPED:
                    log.debug("host stopped", host=vm.host_id)
                case _:
                    log.error("unknown item from a VM", op=op, slot=vm.slot)

    def _withheld(self, item: Item, op: int, guarded: Collection[bytes]) -> bool:
        """Whether the item comes from a process that owned something and does not any more."""
        pid = item[1] if op == Out.CAST else item[2]
        if pid not in guarded or self._guard.may_act(pid):
            return False
        if op == Kind.MESSAGE:
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
        for callback in self._on_ended:
            callback(item[1], None if item[3] is None else to_text(item[3]))


def _is_obsolete(running: _Host, wanted: Entry | None) -> bool:
    """Whether a host's entry is gone, or is of another kind now. The node's own host has none."""
    return running.entry is not None and (wanted is None or wanted.kind != running.entry.kind)
