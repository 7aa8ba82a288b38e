"""Module ``system``: what a program may know of its node and of the cluster.

Everything is this node's view, answered at once from what it knows. The locks of ``system.lock`` are in
``node.modules.locks``. Where the original tells of things this runtime does not have, the Lua half says so.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cluster.members import Member
from node.modules.contract import Answer, Caller, Values, argument, invalid, not_found, text, unavailable
from node.workers import HostStats

CLASSES: Mapping[str, tuple[str, ...]] = {
    "channel": ("deterministic", "workflow"),
    "coroutine": ("deterministic", "workflow"),
    "ctx": ("deterministic",),
    "env": ("io",),
    "errors": ("deterministic",),
    "events": ("io", "nondeterministic"),
    "funcs": ("nondeterministic", "workflow"),
    "io": ("io",),
    "json": ("deterministic", "encoding"),
    "logger": ("io",),
    "payload": ("deterministic",),
    "pg": ("process",),
    "process": ("process", "nondeterministic", "workflow"),
    "registry": ("storage", "nondeterministic"),
    "store": ("storage",),
    "supervisor": ("process",),
    "system": ("process",),
    "time": ("time", "workflow"),
}
"""What kind of effects a module has."""
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Facts:
    """Where the answers come from. Callables, so that every answer is current."""

    node: str
    members: Callable[[], Sequence[Member]]
    hosts: Callable[[], Sequence[HostStats]]
    processes: Callable[[], Awaitable[list[dict[str, Any]]]]
    services: Callable[[], list[dict[str, Any]]]
    wanted: Callable[[str], bool]
    """Whether a service is to run."""
    exit: Callable[[int], None]
    """End the node in good order with this exit code."""
    halves: Mapping[str, str]
    """The Lua source of every module."""


class SystemModule:
    """Python half of ``system``."""

    name = "system"
    deadlines: Mapping[str, timedelta | None] = {}

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._functions: dict[str, Callable[[Caller, Values], Answer]] = {
            "exit": self._exit,
            "modules": lambda caller, args: [self._modules()],
            "node.id": lambda caller, args: [facts.node],
            "node.addr": lambda caller, args: [self._address()],
            "node.role": lambda caller, args: ["non-member"],
            "cluster.members": lambda caller, args: [self._members()],
            "cluster.leader": lambda caller, args: [""],
            "cluster.size": lambda caller, args: [len(facts.members())],
            "process.pid": lambda caller, args: [os.getpid()],
            "process.hostname": lambda caller, args: [socket.gethostname()],
            "process.cwd": lambda caller, args: [_cwd()],
            "hosts.list": lambda caller, args: [self._hosts()],
            "hosts.processes": lambda caller, args: self._processes(text(argument(args, 0), "host id")),
            "supervisor.state": lambda caller, args: [self._state(text(argument(args, 0), "service id"))],
            "supervisor.states": lambda caller, args: [self._states()],
            "memory.stats": lambda caller, args: [self._memory()],
            "memory.allocated": lambda caller, args: [self._allocated()],
            "memory.get_limit": lambda caller, args: [self._memory_limit(caller)],
            "runtime.goroutines": lambda caller, args: [sum(host.processes for host in facts.hosts())],
            "runtime.max_procs": lambda caller, args: [_usable_cores()],
            "runtime.cpu_count": lambda caller, args: [os.cpu_count() or 1],
        }

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        function = self._functions.get(fn)
        if function is None:
            raise invalid(f"system has no function {fn!r}")
        return function(caller, args)

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"system.{fn} wants an answer")

    def _exit(self, caller: Caller, args: Values) -> Values:
        code = argument(args, 0)
        if not isinstance(code, int) or isinstance(code, bool):
            raise invalid(f"system.exit: expected an exit code, got {code!r}")
        self._facts.exit(code & 0xFF)
        return [True]

    def _modules(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "description": _description(source), "class": list(CLASSES.get(name, ()))}
            for name, source in sorted(self._facts.halves.items())
        ]

    # -- the cluster

    def _address(self) -> str:
        for member in self._facts.members():
            if member.node == self._facts.node and member.http:
                return member.http
        raise unavailable("this node is not registered at the moment, or tells no address")

    def _members(self) -> list[dict[str, Any]]:
        own = self._facts.node
        ordered = sorted(self._facts.members(), key=lambda member: (member.node != own, member.node))
        return [_member(member, own) for member in ordered]

    # -- hosts, processes and services of this node

    def _hosts(self) -> list[dict[str, Any]]:
        return [
            {
                "id": host.host,
                "workers": len(host.workers),
                "processes": host.processes,
                "executed": sum(worker.vm.steps for worker in host.workers),
                "stolen": 0,
                "queue_depth": sum(worker.vm.run_queue + worker.vm.waiting_in for worker in host.workers),
            }
            for host in self._facts.hosts()
        ]

    async def _processes(self, host: str) -> Values:
        known = [one.host for one in self._facts.hosts()]
        if host not in known:
            raise not_found(f"no host {host!r} on node {self._facts.node}; its hosts are: {', '.join(sorted(known))}")
        async with asyncio.timeout(10):
            found = await self._facts.processes()
        return [[_process(one) for one in found if one.get("host") == host]]

    def _states(self) -> list[dict[str, Any]]:
        """One state of each service: that of its replica here, else what its claim says."""
        chosen: dict[str, dict[str, Any]] = {}
        for row in self._facts.services():
            former = chosen.get(row["service"])
            if former is None or (row["node"] == self._facts.node and former["node"] != self._facts.node):
                chosen[row["service"]] = row
        return [self._service(chosen[service]) for service in sorted(chosen)]

    def _state(self, id: str) -> dict[str, Any]:
        for state in self._states():
            if state["id"] == id:
                return state
        raise not_found(f"no service {id!r} is known to node {self._facts.node}")

    def _service(self, row: dict[str, Any]) -> dict[str, Any]:
        since, changed = (int(row.get(key, 0) * NANOSECONDS) for key in ("since", "changed"))
        details = {"node": row["node"], "pid": row["pid"], "error": row.get("last_error"), "why": row.get("why")}
        return {
            "id": row["service"],
            "status": _status(row),
            "desired": "running" if self._facts.wanted(row["service"]) else "stopped",
            "retry_count": row.get("restarts", 0),
            "last_update": changed or since,
            "started_at": since,
            "details": ", ".join(f"{name} {value}" for name, value in details.items() if value),
        }

    # -- memory

    def _allocated(self) -> int:
        return sum(worker.vm.memory for host in self._facts.hosts() for worker in host.workers)

    def _memory(self) -> dict[str, Any]:
        """What the Lua VMs of the node have allocated, and what its process takes of the machine."""
        allocated, whole = self._allocated(), resident()
        return {
            "alloc": allocated,
            "heap_alloc": allocated,
            "heap_in_use": allocated,
            "heap_sys": whole,
            "sys": whole,
        }

    def _memory_limit(self, caller: Caller) -> int:
        for host in self._facts.hosts():
            if host.host == caller.vm.host_id:
                return int(host.config.max_memory)
        raise unavailable(f"host {caller.vm.host_id} is not there any more")


def _description(source: str) -> str:
    """What the first line of a Lua half says after its name."""
    return source.partition("\n")[0].lstrip("- ").partition(": ")[2]


def _member(member: Member, own: str) -> dict[str, Any]:
    told: dict[str, Any] = {"id": member.node, "is_local": member.node == own}
    if member.http:
        told["addr"] = member.http
    return {**told, "meta": {**member.labels, "state": member.state.value, "version": member.version}}


def _status(row: dict[str, Any]) -> str:
    """The state in the words of the original, which knows one node only."""
    match row["state"]:
        case "claimed":
            return "running" if row["pid"] else "starting"
        case "unplaced":
            return "unknown"
        case "quarantined":
            return "failed"
        case state:
            return str(state)


def _process(one: dict[str, Any]) -> dict[str, Any]:
    told = {
        "pid": one["pid"],
        "host": one["host"],
        "source": one["entry"],
        "state": one["state"],
        "started_at": int(one.get("started") or 0),
        "stats": {"mailbox": one.get("mailbox", 0), "worker": one.get("worker", 1)},
    }
    return {**told, "parent": one["parent"]} if one.get("parent") else told


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise unavailable(f"the working directory of the node is gone: {error}", retryable=False) from None


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident() -> int:
    """Bytes the process takes now; the most it ever took where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as figures:
            return int(figures.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
