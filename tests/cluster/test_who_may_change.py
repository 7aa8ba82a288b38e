"""Who may change the registry from Lua: programs of a node with its own servers, or those a host's entry names."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Client
from cluster.embedded import EmbeddedServers
from tests.cluster.processes import WIPPY, Program, wippy
from tests.cluster.test_apps import copied

pytestmark = pytest.mark.servers


QUICK = ("--set", "shutdown.timeout=1s")


def entry(id: str) -> dict[str, Any]:
    return {"id": id, "kind": "registry.entry", "data": {"n": 1}}


async def changed_by_client(client: Client, id: str) -> Any:
    """By a function a client calls: it runs on the node's own host."""
    return await client.call_function("app:change", "create", entry(id), timeout=20.0)


async def changed_by_process(client: Client, pid: str, id: str) -> Any:
    """By a function a process calls: it runs on the process's host."""
    return (await client.call(pid, "change", entry(id), timeout=20.0)).value


async def test_in_a_cluster_of_external_servers_a_host_says_what_its_programs_may_change(
    servers: EmbeddedServers, cluster_name: str, tmp_path: Path
) -> None:
    app = copied("hot", tmp_path)
    index = app / "src" / "_index.yaml"
    place = ["--nats", servers.nats_url, "--etcd", servers.etcd_url, "--cluster", cluster_name]
    with Program([*WIPPY, "run", "--node", "node-1", *QUICK, *place], app, "node") as node:
        await asyncio.to_thread(node.until, lambda: "node ready" in node.err)
        async with Client([servers.nats_url], [servers.etcd_url], cluster_name) as client:
            pid = await client.spawn("app:asker", "app:processes")
            by_client, by_process = await changed_by_client(client, "app:x"), await changed_by_process(
                client, pid, "app:x"
            )  # fmt: skip
            for refused, host in ((by_client, "node:system"), (by_process, "app:processes")):
                assert refused["kind"] == "PermissionDenied"
                assert f"programs on {host} may not change app" in refused["message"]
                assert "registry.write" in refused["message"]
                assert refused["details"] == {"host": host, "namespaces": ["app"], "allowed": []}
            await asyncio.to_thread(node.until, lambda: "what a program may not do is refused" in node.err)
            assert "app:change" in node.err

            allowing = 'kind: process.host\n    registry: {write: [app, "tools.*"]}'
            index.write_text(index.read_text().replace("kind: process.host", allowing))
            await asyncio.to_thread(wippy, app, "registry", "push", *place)
            assert "version" in await changed_by_process(client, pid, "app:x"), "the host runs on with its new rule"
            assert "version" in await changed_by_process(client, pid, "tools.web:x")
            refused = await changed_by_process(client, pid, "other:x")
            assert (refused["kind"], refused["details"]["allowed"]) == ("PermissionDenied", ["app", "tools.*"])
            back = await client.call_function("app:change", "back", 0)
            assert (back["kind"], back["details"]["namespaces"]) == ("PermissionDenied", ["app", "tools.web"])

            (listed,) = json.loads((await asyncio.to_thread(wippy, app, "registry", "list", "-n", "tools*", "--json",
                                                            *place)).stdout)  # fmt: skip
            assert (listed["id"], listed["origin"]) == ("tools.web:x", "runtime")


async def test_a_node_with_its_own_servers_lets_its_programs_change_everything(binaries: None, tmp_path: Path) -> None:
    app = copied("hot", tmp_path)
    with Program([*WIPPY, "run", "--node", "solo", *QUICK], app, "node") as node:
        await asyncio.to_thread(node.until, lambda: "node ready" in node.err)
        place = json.loads((app / ".wippy" / "cluster.json").read_text())
        async with Client(place["nats"], place["etcd"], place["cluster"]) as client:
            pid = await client.spawn("app:asker", "app:processes")
            assert "version" in await changed_by_client(client, "any.where:x")
            assert "version" in await changed_by_process(client, pid, "app:x")
    assert "what a program may not do is refused" not in node.err
