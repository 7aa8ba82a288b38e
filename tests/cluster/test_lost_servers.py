"""``wippy up`` whose own NATS or etcd ends: it says so and stops; it does not sit there without them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.processes import Development, is_running

pytestmark = pytest.mark.servers


def listening(url: str) -> int:
    """The process that has the port of ``url``, by what its command line says."""
    port = url.rpartition(":")[2]
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if any(word == port or word.endswith(f"client-urls={url}") for word in command[1:]) and (
            Path(command[0]).name in ("nats-server", "etcd")
        ):
            return int(directory.name)
    raise AssertionError(f"nothing listens at {url}")


@pytest.mark.parametrize("server", ["nats", "etcd"])
def test_the_end_of_a_server_is_noticed_and_ends_the_cluster(own_up: Development, server: str) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc to find the server's process")
    nodes = [node["pid"] for node in own_up.place["nodes"]]
    os.kill(listening(own_up.place[server][0]), signal.SIGKILL)
    began = time.monotonic()
    own_up.until(lambda: f"{server} has ended: it was ended by SIGKILL" in own_up.err, within=4)
    assert time.monotonic() - began < 3
    try:
        code = own_up.process.wait(25)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"did not end; stderr:\n{own_up.err[-4000:]}") from None
    assert code == 1
    last = own_up.err.splitlines()[-1]
    assert last.startswith(f"error: {server} ended (it was ended by SIGKILL) and the cluster can't go on without it")
    assert "wippy up" in last
    assert not [pid for pid in nodes if is_running(pid)]
    assert not (own_up.directory / ".wippy" / "cluster.json").exists()
