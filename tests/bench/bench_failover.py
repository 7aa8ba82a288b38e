"""How long a lost node's services are away: ``kill -9`` of the node to their answers from other nodes.

    python -m tests.bench.bench_failover [--kills 5] [--services 1000]

Real processes with the default lease (TTL 5 s). One service on three nodes is lost ``--kills`` times (30 with
WIPPY_CHAOS=full); then a node of five that share a thousand services is. The peer is the end of the lease itself,
seen in etcd in the same runs: sooner nothing may start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.errors import ClusterError
from cluster.etcd import Etcd
from cluster.keys import Keys
from tests.cluster.processes import WIPPY, Program

FIGURES = ("failover_p99_seconds", "failover_1000_seconds")
DEADLINE = 120.0
CLUSTER = "failover"
LUA = """
local function main()
    local inbox = process.inbox()
    while true do
        process.send(inbox:receive():from(), "here", process.pid())
    end
end
return { main = main }
"""
HEAD = """
version: "1.0"
namespace: app
entries:
  - { name: processes, kind: process.host, lifecycle: { auto_start: true } }
  - { name: answering, kind: process.lua, source: "file://answering.lua", method: main }
"""
SERVICE = (
    "  - {{ name: s{n}, kind: process.service, process: app:answering, host: app:processes, "
    "lifecycle: {{ auto_start: true }} }}\n"
)


@dataclass(frozen=True)
class Lost:
    """What became of the services of a lost node, in seconds since it was killed."""

    lease_ended: float
    answered: tuple[float, ...]


class Nodes:
    """The nodes of one run. The processes are ended with ``stack``."""

    def __init__(self, directory: Path, names: Sequence[str], servers: EmbeddedServers, client: Client, etcd: Etcd):
        self._directory = directory
        self._names = names
        self._servers = servers
        self._client = client
        self._etcd = etcd
        self._keys = Keys(CLUSTER)
        self._programs: dict[str, Program] = {}
        self._starts = 0

    def start(self, name: str, stack: AsyncExitStack) -> None:
        urls = ("--nats", self._servers.nats_url, "--etcd", self._servers.etcd_url, "--cluster", CLUSTER)
        sets = ("metrics.port=0", "logger.level=warn", f"cluster.expected_nodes={len(self._names)}")
        options = [part for text in sets for part in ("--set", text)]
        command = [*WIPPY, "run", str(self._directory / "app"), "--node", name, *urls, *options]
        self._starts += 1
        self._programs[name] = stack.enter_context(Program(command, self._directory, f"{name}.{self._starts}"))

    async def states(self) -> dict[str, dict[str, Any]]:
        """By key where each service runs, as its node said."""
        found = await self._etcd.range(self._keys.services)
        return {kv.key: json.loads(kv.value) for kv in found.kvs if kv.key.endswith(".state")}

    async def all_run(self, services: int) -> dict[str, dict[str, Any]]:
        deadline = time.monotonic() + DEADLINE
        while len(states := await self.states()) < services or len(await self._client.nodes()) < len(self._names):
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(states)} of {services} services run after {DEADLINE:g} s")
            await asyncio.sleep(0.05)
        return states

    async def kill(self, node: str, states: dict[str, dict[str, Any]]) -> Lost:
        """Kill the node; wait until everything it had answers elsewhere."""
        lost = {key for key, state in states.items() if state["node"] == node}
        self._programs[node].process.kill()
        began = time.monotonic()
        answers: dict[str, asyncio.Task[float]] = {}
        ended = 0.0
        async with asyncio.TaskGroup() as group:
            while len(answers) < len(lost):
                if time.monotonic() - began > DEADLINE:
                    raise SystemExit(f"{len(lost) - len(answers)} of {len(lost)} services are not back")
                await asyncio.sleep(0.01)
                for key, state in (await self.states()).items():
                    if key in lost and key not in answers and state["node"] != node:
                        answers[key] = group.create_task(self._answered(state["pid"], began))
                if not ended and not any(member.node == node for member in await self._client.nodes()):
                    ended = time.monotonic() - began
        return Lost(ended, tuple(sorted(answer.result() for answer in answers.values())))

    async def _answered(self, pid: str, began: float) -> float:
        while True:
            try:
                await self._client.call(pid, "where", timeout=5.0)
                return time.monotonic() - began
            except ClusterError:
                if time.monotonic() - began > DEADLINE:
                    raise
                await asyncio.sleep(0.02)


@asynccontextmanager
async def cluster(names: Sequence[str], services: int) -> AsyncIterator[tuple[Nodes, AsyncExitStack]]:
    with tempfile.TemporaryDirectory(prefix="wippy-bench-") as scratch:
        source = Path(scratch) / "app" / "src"
        source.mkdir(parents=True)
        (source / "answering.lua").write_text(LUA)
        (source / "_index.yaml").write_text(HEAD + "".join(SERVICE.format(n=n) for n in range(services)))
        async with AsyncExitStack() as stack:
            servers = await stack.enter_async_context(EmbeddedServers())
            etcd = await stack.enter_async_context(Etcd([servers.etcd_url]))
            client = await stack.enter_async_context(Client([servers.nats_url], [servers.etcd_url], CLUSTER))
            nodes = Nodes(Path(scratch), names, servers, client, etcd)
            for name in names:
                nodes.start(name, stack)
            yield nodes, stack


async def one_service(kills: int) -> list[Lost]:
    lost = []
    async with cluster(("n1", "n2", "n3"), 1) as (nodes, stack):
        for _ in range(kills):
            states = await nodes.all_run(1)
            (owner,) = {state["node"] for state in states.values()}
            lost.append(await nodes.kill(owner, states))
            nodes.start(owner, stack)
    return lost


async def many_services(services: int) -> Lost:
    async with cluster(("n1", "n2", "n3", "n4", "n5"), services) as (nodes, _):
        states = await nodes.all_run(services)
        counts = Counter(state["node"] for state in states.values())
        return await nodes.kill(counts.most_common(1)[0][0], states)


def figure(name: str, value: float, p50: float, p99: float, lease: float, **more: Any) -> None:
    line = {
        "figure": name,
        "value": round(value, 2),
        "unit": "s",
        "p50": round(p50, 2),
        "p99": round(p99, 2),
        "peer": "end of the lease",
        "peer_value": round(lease, 2),
        "ratio": round(value / lease, 2) if lease else None,
        **more,
    }
    print(json.dumps(line), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30 if os.environ.get("WIPPY_CHAOS") == "full" else 5)
    parser.add_argument("--services", type=int, default=1000)
    arguments = parser.parse_args()
    lost = await one_service(arguments.kills)
    times = sorted(each.answered[-1] for each in lost)
    leases = statistics.median(each.lease_ended for each in lost)
    figure("failover_p99_seconds", times[-1], statistics.median(times), times[-1], leases, kills=len(times))
    many = await many_services(arguments.services)
    half, most = many.answered[len(many.answered) // 2], many.answered[len(many.answered) * 99 // 100]
    last, lost_here = many.answered[-1], len(many.answered)
    figure("failover_1000_seconds", last, half, most, many.lease_ended, services=arguments.services, lost=lost_here)


if __name__ == "__main__":
    asyncio.run(main())
