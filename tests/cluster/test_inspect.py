"""``wippy inspect``: what one sees of a process from anywhere, and what when it is not there."""

from __future__ import annotations

import pytest

from tests.cluster.processes import Development, eventually

pytestmark = pytest.mark.servers


def pid_of(up: Development, name: str) -> str:
    return str(next(one["pid"] for one in up.json("names", "--json") if one["name"] == name))


def test_a_process_of_any_node_is_shown_by_name_and_by_pid(up: Development) -> None:
    pid = eventually(lambda: pid_of(up, "worker@node-2"), within=20, what="the worker of node-2")
    text = up.wippy("inspect", "worker@node-2", "--node", "node-1").stdout
    shown = dict(line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2)
    assert shown["pid"] == pid
    assert shown["code"].startswith("app:worker_process v")
    assert shown["host"] == "app:processes on node-2"
    assert "estimate" in shown["memory"]
    detail = up.json("inspect", pid, "--format", "json")
    assert detail["pid"] == pid
    assert detail["node"] == "node-2"
    assert "worker@node-2" in detail["names"]
    assert 1000 < detail["memory"] < 1_000_000
    assert detail["memory_complete"] is True
    assert (detail["worker"], detail["workers"], detail["workers_asked"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("{node-2@app:processes|1-zz1}", "noproc: no process {node-2@app:processes|1-zz1}"),
        ("{gone@app:processes|1-1t}", "noproc: the node of {gone@app:processes|1-1t} is gone"),
        ("nobody", "noproc: no process is registered as 'nobody'"),
    ],
)
def test_what_is_not_there_is_said_and_ends_with_1(up: Development, target: str, said: str) -> None:
    assert said in up.wippy("inspect", target, code=1).stderr
