"""Supervision trees over real nodes: commands, restarts, escalation, changes, lost nodes and partitions.

``WIPPY_CHAOS=full`` watches a partition for longer.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.embedded import EmbeddedServers
from cluster.errors import ClusterError
from tests.chaos.proxy import Proxy
from tests.cluster.trees import NAMES, Trees, eventually, trees_cluster

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

FIXED = ("beside", "third", "inner", "a", "b", "pool")
PROCESSES = 4
"""Processes among the fixed children; the others are supervisors."""
MANY = 1000
FULL = os.environ.get("WIPPY_CHAOS") == "full"


@pytest_asyncio.fixture
async def trees(servers: EmbeddedServers, cluster_name: str, tmp_path: Path) -> AsyncIterator[Trees]:
    async with trees_cluster(servers, cluster_name, tmp_path) as cluster:
        yield cluster


async def test_a_tree_is_commanded_restarted_and_changed_across_nodes(trees: Trees) -> None:
    await trees.start(*NAMES)
    first = await trees.running(*FIXED)
    assert (first["third"]["node"], first["inner"]["node"], first["b"]["node"]) == ("node-3", "node-2", "node-3")
    await trees.only(PROCESSES)

    # a failure in a group whose members live on two nodes: both start anew, the rest of the tree goes on
    await trees.tell(first["b"]["pid"], "fail")
    second = await trees.running(*FIXED, but=[first["a"]["pid"], first["b"]["pid"]])
    assert {id: second[id]["pid"] for id in ("beside", "third", "inner")} == {
        id: first[id]["pid"] for id in ("beside", "third", "inner")
    }

    # once more is more than the inner supervisor stands: the one above starts it anew, and those after it
    await trees.tell(second["a"]["pid"], "fail")
    third = await trees.running(*FIXED, but=[second["inner"]["pid"], second["pool"]["pid"]])
    assert third["third"]["pid"] == first["third"]["pid"]
    assert third["inner"]["restarts"] == 1
    await trees.only(PROCESSES)

    # children made at run time, asked for from another node than the supervisor's
    pool = third["pool"]["pid"]
    elsewhere = next(name for name in NAMES if name != third["pool"]["node"])
    started = await trees.ask("start_child", pool, "x", 7, gateway=elsewhere)
    assert (await trees.client.call(started["value"], "args", timeout=5.0)).value == ["x", 7]
    assert (await trees.ask("terminate_child", pool, started["value"], gateway=elsewhere)) == {"value": True}
    assert (await trees.ask("terminate_child", pool, started["value"]))["kind"] == "NotFound"
    assert (await trees.ask("restart_child", pool, "1"))["kind"] == "Invalid"

    top = "app:top"
    added = {"id": "late", "process": "child", "host": "processes", "node": "node-2", "restart": "temporary"}
    late = (await trees.ask("start_child", top, added))["value"]
    assert late.startswith("{node-2@")
    assert (await trees.ask("start_child", top, added))["details"] == {"pid": late}
    assert (await trees.ask("start_child", top, {"id": "no", "process": "nothing"}))["kind"] == "Invalid"
    assert (await trees.ask("delete_child", top, "third"))["kind"] == "Conflict"
    assert (await trees.ask("terminate_child", top, "third")) == {"value": True}
    assert (await trees.ask("count_children", top))["value"] == {
        "specs": 5,
        "active": 4,
        "supervisors": 2,
        "workers": 3,
    }
    again = (await trees.ask("restart_child", top, "third"))["value"]
    assert again.startswith("{node-3@")
    which = {child["id"]: child for child in (await trees.ask("which_children", top))["value"]}
    assert (which["third"]["pid"], which["inner"]["type"]) == (again, "supervisor")
    assert (await trees.ask("count_children", "app:nobody"))["kind"] == "NotFound"
    assert "use the PID" in (await trees.ask("start_child", "app:pool", 1))["message"]
    assert (await trees.ask("count_children", again))["kind"] == "Invalid"

    # another definition: what is gone stops, what is another child starts anew, what was added stays
    before = await trees.running(*FIXED)
    index = trees.app / "src" / "_index.yaml"
    text = index.read_text()
    index.write_text(
        text.replace("      - id: beside\n", "      - id: besides\n").replace("intensity: 3", "intensity: 4")
    )
    await asyncio.to_thread(trees.push)
    after = await trees.running("besides", "third", "inner", "late")
    assert "beside" not in after
    assert {id: after[id]["pid"] for id in ("third", "inner", "late")} == {
        id: before[id]["pid"] for id in ("third", "inner")
    } | {"late": late}

    with pytest.raises(ClusterError, match="spawn it on node:supervisor"):
        await trees.client.spawn("app:pool", "app:processes")
    described = await asyncio.to_thread(trees.wippy, "inspect", after["inner"]["pid"])
    assert "children  2 running" in described

    drawn = await asyncio.to_thread(trees.wippy, "tree")
    assert "app:top  rest_for_one" in drawn
    assert "│  └─ b  app:child  running  {node-3@app:processes|" in drawn
    roots = json.loads(await asyncio.to_thread(trees.wippy, "tree", "--format", "json"))
    assert roots[0]["children"][0]["id"] == "besides"


async def test_a_thousand_children_over_three_nodes_end_with_their_supervisor(trees: Trees) -> None:
    await trees.start(*NAMES)
    pool = (await trees.running(*FIXED))["pool"]["pid"]
    started = await trees.ask("many", pool, MANY)
    assert started == {"value": MANY}
    there = await trees.only(PROCESSES + MANY)
    by_node = [sum(pid.startswith(f"{{{name}@") for pid in there) for name in NAMES]
    assert min(by_node) > MANY // 4

    # what ends them is not asked of them: the supervisor is killed, and so is everything under it
    await trees.client.terminate(pool)
    assert (await trees.running(*FIXED, but=[pool]))["pool"]["pid"] != pool
    await trees.only(PROCESSES)


async def test_lost_nodes_leave_no_orphans_and_no_duplicates(trees: Trees) -> None:
    await trees.start(*NAMES)
    first = await trees.running(*FIXED)
    for number in range(12):
        await trees.ask("start_child", first["pool"]["pid"], number)
    await trees.only(PROCESSES + 12)

    trees.kill("node-3")
    drawn = await asyncio.to_thread(trees.wippy, "tree")
    assert "third  app:child  running  " in drawn
    assert "(node node-3 does not answer)" in drawn

    async def waits() -> bool:
        found = await trees.leaves()
        return {found["third"]["state"], found["b"]["state"]} == {"waiting for a place"}

    await eventually(waits, within=20, what="the children of node-3 wait for it")
    await trees.only(2)  # beside and a: the pool came after third, and lost its children with the restart

    await trees.start("node-3")
    await trees.running(*FIXED)
    await trees.only(PROCESSES)

    top = (await trees.tree())["node"]
    trees.kill(top)

    async def moved() -> bool:
        return bool((await trees.tree())["node"] != top)

    await eventually(moved, within=20, what="the supervisor at the top runs elsewhere")
    await trees.start(top)
    await trees.running(*FIXED)
    await trees.only(PROCESSES)


async def test_a_partition_makes_no_second_child(servers: EmbeddedServers, cluster_name: str, tmp_path: Path) -> None:
    async with Proxy(int(servers.nats_url.rpartition(":")[2])) as proxy:
        async with trees_cluster(servers, cluster_name, tmp_path) as trees:
            cut_off = f"nats://127.0.0.1:{proxy.port}"
            await trees.start(*NAMES, nats={"node-3": cut_off}, options=("--set", "cluster.link_timeout=6s"))
            first = await trees.running(*FIXED)
            pool = first["pool"]["pid"]
            for number in range(6):
                await trees.ask("start_child", pool, number)
            there = await trees.only(PROCESSES + 6)
            pooled = [
                pid
                for pid in there
                if pid.startswith("{node-3@") and pid not in (first["third"]["pid"], first["b"]["pid"])
            ]
            assert pooled

            proxy.hold()
            # a link with something to acknowledge closes sooner than an idle one, and whoever asked hears of it
            nobody = "{node-3@node:supervisor|zz-zz}"
            asked = asyncio.create_task(trees.ask("count_children", nobody, gateway="node-1"))

            async def lost() -> bool:
                rows = (await trees.client.ask("node-1", "trees"))["items"]
                return any(row.get("id") == "third" and row["state"] == "lost" for row in rows)

            await eventually(lost, within=60, what="the link to node-3 closes")
            assert (await asked)["kind"] == "Unavailable"
            reachable = [pid for pid in there if not pid.startswith("{node-3@")]
            for _ in range(100 if FULL else 10):
                assert await trees.children_on(NAMES[:2]) == reachable, "nothing of node-3 is started elsewhere"
                await asyncio.sleep(0.1)

            await proxy.mend()
            after = await trees.running(*FIXED, but=[first["third"]["pid"], first["b"]["pid"]], within=60)
            assert after["third"]["node"] == "node-3"
            await trees.only(PROCESSES)
