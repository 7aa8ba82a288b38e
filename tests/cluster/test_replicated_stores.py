"""``store.kv.crdt`` among real nodes: NATS loses all it had, a node comes later, and nothing is missing."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from cluster.errors import ClusterError
from tests.cluster.processes import WIPPY, Program

pytestmark = pytest.mark.servers

ENTRIES = """\
version: "1.0"
namespace: app
entries:
  - name: processes
    kind: process.host
    lifecycle:
      auto_start: true
  - name: sessions
    kind: store.kv.crdt
    namespace: sess
  - name: cache
    kind: store.memory
  - name: write
    kind: function.lua
    source: |
      return {main = function(key, value) return assert(require("store").get("app:sessions")):set(key, value) end}
    method: main
    modules: [store]
  - name: read
    kind: function.lua
    source: |
      return {main = function(key) return (assert(require("store").get("app:sessions")):get(key)) end}
    method: main
    modules: [store]
"""


async def test_a_restarted_nats_has_all_again_from_the_nodes(
    own_servers: EmbeddedServers, cluster_name: str, tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "_index.yaml").write_text(ENTRIES)
    (tmp_path / "wippy.lock").write_text("directories:\n  src: ./src\n")

    def start(name: str) -> Program:
        where = ["--cluster", cluster_name, "--nats", own_servers.nats_url, "--etcd", own_servers.etcd_url]
        return Program([*WIPPY, "run", ".", "--node", name, "--set", "metrics.port=0", *where], tmp_path, name)

    async def ready(node: Program) -> None:
        await asyncio.to_thread(node.until, lambda: "node ready" in node.err, 30)

    async def call(node: str, function: str, *args: Any) -> Any:
        async with Client([own_servers.nats_url], [own_servers.etcd_url], cluster_name, gateway=node) as client:
            return await client.call_function(f"app:{function}", *args, timeout=5.0)

    async def reads(node: str, key: str, value: Any) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    if await call(node, "read", key) == value:
                        return
                except ClusterError:
                    pass  # the node is not back on NATS yet
                await asyncio.sleep(0.1)

    with ExitStack() as stack:
        nodes = [stack.enter_context(start(name)) for name in ("node-1", "node-2")]
        for node in nodes:
            await ready(node)
        assert await call("node-1", "write", "a", "before") is True
        await reads("node-2", "a", "before")
        await own_servers.nats.kill()
        await own_servers.nats.start()
        await reads("node-1", "a", "before")
        assert await call("node-2", "write", "b", "after") is True
        await reads("node-1", "b", "after")
        nodes.append(stack.enter_context(start("node-3")))
        await ready(nodes[-1])
        assert [await call("node-3", "read", key) for key in ("a", "b")] == ["before", "after"]
        warnings = [line for node in nodes for line in node.err.splitlines() if "data of its own" in line]
        assert len(warnings) == 1
        assert "app:cache" in warnings[0]
        assert "make it a store.kv.raft" in warnings[0]
