"""What the node tells of itself, to the metrics server, to clients and to people.

Everything here reads ``stats()`` snapshots of the components; nothing changes anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from cluster.bus import Bus, ConnectionStats
from cluster.door import Door
from cluster.errors import CallTimeout
from cluster.etcd import Room
from cluster.events import EventBus
from cluster.fencing import LeaseKeeper
from cluster.link import State
from cluster.links import Links
from cluster.members import Members, NodeState
from cluster.pid import Pid
from cluster.quarantine import Quarantine
from cluster.registry import Registry
from node.convergence import Convergence
from node.host.vm import STEP_BOUNDS
from node.hosts import Hosts
from node.limits import limits_of
from node.logs import Logs
from node.metrics import HostSample, LinkSample, NatsSample, NodeSample, Steps, WorkerSample
from node.modules.system import resident
from node.moving import Moving
from node.probes import Target
from node.router import Router
from node.supervisor import Supervisor
from node.trees import HOST, Trees
from node.workers import HostStats, WorkerStats

MAX_DEGRADED = 200
MAX_REASON = 1000
REFRESH_DEADLINE = 0.5


@dataclass
class NodeView:
    """A node's components, read together. Satisfies the metrics server's view."""

    node: str
    version: str
    incarnation: int
    bus: Bus
    links: Links
    members: Members
    registry: Registry
    convergence: Convergence
    room: Room
    hosts: Hosts
    trees: Trees
    moving: Moving
    router: Router
    supervisor: Supervisor
    quarantine: Quarantine
    events: EventBus
    door: Door
    keeper: LeaseKeeper
    logs: Logs
    state: Callable[[], NodeState]
    metrics_address: Callable[[], str]
    expected_nodes: int
    """How many nodes the cluster is meant to have, by this node's settings."""
    began: float = field(default_factory=time.monotonic)

    async def refresh(self) -> None:
        await self.hosts.refresh()

    def failing(self) -> Sequence[str]:
        """Why the node should be restarted: a VM that is gone."""
        return [f"VM of {host} is gone" for host in self.hosts.broken()]

    def unready(self) -> Sequence[str]:
        reasons = list(self.failing())
        state = self.state()
        if state is not NodeState.READY:
            reasons.append(f"node is {state.value}")
        if not self.bus.data.connected:
            reasons.append("no connection to NATS")
        if self.keeper.remaining() <= 0:
            reasons.append("lease is over")
        return reasons

    def targets(self) -> Sequence[Target]:
        return [
            Target(member.http, {"node": member.node, **{f"label_{k}": v for k, v in member.labels.items()}})
            for member in self.members.all()
            if member.http
        ]

    def remarks(self) -> Sequence[str]:
        """What is not as it should be though the node serves."""
        return [
            f"degraded: {one.entry} since v{one.version} ({one.attempts} tries): {one.reason}"
            for one in self.convergence.degraded()
        ] + list(self.room.remarks())

    def sample(self) -> NodeSample:
        bus, links = self.bus.stats(), self.links.stats()
        states = [member.state.value for member in self.members.all()]
        return NodeSample(
            version=self.version,
            hosts=[_host(host) for host in self.hosts.stats()],
            messages=self._messages(),
            dead_letters=self._dead_letters(),
            moves=dict(self.moving.verdicts),
            guests=len(self.moving.guests),
            registry_version=self.registry.state.version,
            registry_head=self.registry.state.version + self.registry.lag,
            degraded=[(one.entry, one.version, one.reason) for one in self.convergence.degraded()],
            etcd=self.room.latest,
            lease_seconds_left=max(self.keeper.remaining(), 0.0),
            links=[
                LinkSample(
                    link.node,
                    link.state is State.OPEN,
                    link.envelopes_in,
                    link.envelopes_out,
                    link.waiting_bytes,
                    link.closes,
                    link.congested,
                    link.resent,
                )
                for link in links.links
            ],
            nats=[_nats("data", bus.data), _nats("control", bus.control)],
            nodes={state: states.count(state) for state in set(states)},
            services=self.supervisor.counts(),
            quarantined=len(self.quarantine.services()),
            side_door=self._side_door(),
            events=self._events(),
            log_lines_dropped=self.logs.dropped,
        )

    def health(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "time": time.time(),
            "version": self.version,
            "incarnation": self.incarnation,
            "state": self.state().value,
            "os_pid": os.getpid(),
            "processes": sum(host.processes for host in self.hosts.stats()),
            "registry_version": self.registry.state.version,
            "converged_version": self.convergence.version,
            "degraded": self._degraded(),
            "unready": list(self.unready()),
            "metrics": self.metrics_address(),
            "expected_nodes": self.expected_nodes,
            "lease_seconds_left": round(max(self.keeper.remaining(), 0.0), 2),
        }

    async def converged(self, version: int, timeout: float) -> dict[str, Any]:
        """How far this node is with ``version``, once it is through or the time is over.

        ``waiting_for`` is empty when it runs what the version says, but for the degraded entries: each VM has
        forgotten the code that changed, too.
        """
        waiting_for = ""
        try:
            async with asyncio.timeout(timeout):
                waiting_for = f"version {version} of the registry"
                await self.registry.reached(version, timedelta(seconds=timeout))
                waiting_for = "entries that are still being worked on"
                await self.convergence.reached(version, timeout)
                waiting_for = "a VM that does not answer"
                await self.hosts.refresh()  # what was asked of a VM after a change is answered after it
                waiting_for = ""
        except (TimeoutError, CallTimeout):
            pass
        return {
            "node": self.node,
            "applied": self.registry.state.version,
            "converged": self.convergence.version,
            "waiting_for": waiting_for,
            "degraded": self._degraded(),
        }

    def _degraded(self) -> list[dict[str, Any]]:
        """As many as fit into a message whatever their reasons."""
        return [
            {**asdict(one), "reason": one.reason[:MAX_REASON]} for one in self.convergence.degraded()[:MAX_DEGRADED]
        ]

    async def figures(self) -> dict[str, Any]:
        """Counters since the start and states of now. Of a VM that does not answer, as of its last answer."""
        with contextlib.suppress(TimeoutError, CallTimeout):
            async with asyncio.timeout(REFRESH_DEADLINE):
                await self.hosts.refresh()
        sample = self.sample()
        hosts = [_shown_host(host) for host in self.hosts.stats()]
        return {
            "at": time.monotonic(),
            "incarnation": self.incarnation,
            "up": time.monotonic() - self.began,
            "expected_nodes": self.expected_nodes,
            "cpu_seconds": time.process_time(),
            "resident": resident(),
            "processes": sum(host["processes"] for host in hosts),
            "mailbox": sum(host["mailbox"] for host in hosts),
            "run_queue": sum(host["run_queue"] for host in hosts),
            "hosts": hosts,
            "services": dict(sample.services),
            "messages": dict(sample.messages),
            "dead_letters": dict(sample.dead_letters),
            "links": [asdict(link) for link in sample.links],
            "nats": [asdict(nats) for nats in sample.nats],
        }

    async def inspect(self, pid: str) -> dict[str, Any] | None:
        if Pid.parse(pid).host == HOST:
            return self.trees.inspect(pid)
        return await self.hosts.inspect(pid, self.moving.slot(pid.encode()))

    def dead_letters(self) -> list[dict[str, Any]]:
        return [asdict(letter) for letter in self.router.dead_letters.kept()]

    def _side_door(self) -> dict[str, int]:
        stats = self.door.stats()
        return {"accepted": stats.accepted, **stats.refused}

    def _events(self) -> dict[str, int]:
        stats = self.events.stats()
        return {"sent": stats.sent, "received": stats.received, "delivered": stats.delivered}

    def _messages(self) -> dict[str, int]:
        received = sum(host.counters.received for host in self.hosts.stats())
        remote = self.router.messages_in
        return {
            "local": max(received - (remote - self.router.messages_elsewhere), 0),
            "remote_in": remote,
            "remote_out": self.router.messages_out,
        }

    def _dead_letters(self) -> dict[str, int]:
        counts = self.router.dead_letters.counts()
        for host in self.hosts.stats():
            for reason, count in host.counters.dead_letters.items():
                counts[reason] = counts.get(reason, 0) + count
        return counts


def _host(host: HostStats) -> HostSample:
    counters = host.counters
    return HostSample(
        host=host.host,
        live=counters.live,
        spawned=counters.spawned,
        exits=counters.exits,
        mailbox=counters.mail,
        workers=[_worker(worker) for worker in host.workers],
        workers_asked=host.asked,
        short_of_memory=counters.short_of_memory,
        limit_hits=counters.limits,
        limits=limits_of(host.config),
    )


def _shown_host(host: HostStats) -> dict[str, Any]:
    """A host as ``wippy top`` shows it."""
    return {
        "host": host.host,
        "processes": host.processes,
        "mailbox": host.counters.mail,
        "run_queue": sum(worker.vm.run_queue + worker.vm.waiting_in for worker in host.workers),
        "memory": sum(worker.vm.memory for worker in host.workers),
        "busy": sum(worker.busy for worker in host.workers),
    }


def _worker(worker: WorkerStats) -> WorkerSample:
    vm = worker.vm
    return WorkerSample(worker.number, vm.memory, worker.busy, Steps(STEP_BOUNDS, vm.step_counts, vm.step_seconds))


def _nats(connection: str, stats: ConnectionStats) -> NatsSample:
    return NatsSample(connection, stats.connected, stats.reconnects, stats.slow_consumer_drops, stats.permission_errors)
