"""Losing a node of a development cluster, and the commands ``wippy up`` prints to try it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.processes import Development, environment, eventually, is_running

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

LEASE_TTL = 5.0


def counted(up: Development) -> dict[str, Any]:
    return dict(up.call("counter", "get"))


def shell(up: Development, command: str) -> str:
    """A printed command, pasted as it is."""
    ended = subprocess.run(
        ["sh", "-c", command],
        cwd=up.directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ended.stdout


def test_the_printed_commands_work_and_the_counter_survives_its_node(own_up: Development) -> None:
    call, metrics, config, kill, ps = own_up.suggestions.values()
    assert '"node":' in shell(own_up, call)
    assert "wippy_" in shell(own_up, metrics)
    assert shell(own_up, config).startswith("applied:")
    assert "app:worker_process" in shell(own_up, ps)

    own_up.wippy("send", "counter", "add", '{"n": 41}')
    before = counted(own_up)
    killed_at = time.monotonic()
    shell(own_up, kill)
    killed = before["node"]
    assert f"kill -9 {own_up.pids[killed]}" == kill, "the node that runs the counter is the one to kill"

    def elsewhere() -> dict[str, Any] | None:
        answer = counted(own_up)
        return answer if answer["node"] != killed else None

    after = eventually(elsewhere, within=LEASE_TTL + 10, what="the counter answers on another node")
    took = time.monotonic() - killed_at
    assert after["count"] == before["count"]
    assert took <= LEASE_TTL + 3, f"took {took:.1f} s"

    rows = {node["node"]: node["state"] for node in own_up.json("nodes", "--json")}
    assert rows.pop(killed) == "gone"
    assert set(rows.values()) == {"ready"}
    for node in rows:
        exits = eventually(
            lambda node=node: own_up.call(f"worker@{node}", "status")["counter_exits"],
            within=10,
            what=f"the monitor on {node} fired",
        )
        assert exits == 1
    assert f"{killed} was ended by SIGKILL" in own_up.err
    assert own_up.process.poll() is None, "the other nodes go on"


def test_everything_ends_when_the_parent_is_killed(own_up: Development) -> None:
    servers = servers_of(own_up)
    nodes = list(own_up.pids.values())
    assert len(servers) == 2
    os.kill(own_up.pid, signal.SIGKILL)
    own_up.process.wait(10)
    eventually(
        lambda: not [pid for pid in (*nodes, *servers) if is_running(pid)],
        within=40,
        what="nodes and servers ended",
    )


def test_everything_ends_at_ctrl_c_in_order(own_up: Development) -> None:
    pids = [*own_up.pids.values(), *servers_of(own_up)]
    own_up.process.send_signal(signal.SIGINT)
    assert own_up.process.wait(40) == 0, own_up.err[-3000:]
    assert not [pid for pid in pids if is_running(pid)]
    assert not (own_up.directory / ".wippy" / "cluster.json").exists()
    assert "Traceback" not in own_up.err


def servers_of(up: Development) -> list[int]:
    """The nats-server and the etcd that listen on the cluster's addresses."""
    ports = {url.rpartition(":")[2] for url in (*up.place["nats"], *up.place["etcd"])}
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            is_server = words[0].endswith(("nats-server", "etcd"))
            if is_server and any(word in ports or word.rpartition(":")[2] in ports for word in words[1:]):
                found.append(int(folder.name))
    return found
