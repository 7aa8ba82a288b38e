"""Ports: late answers, and processes nobody waits for."""

from __future__ import annotations

import asyncio

import pytest

from cluster.envelope import Kind
from cluster.errors import CallTimeout
from node.ports import Port, Refused
from tests.unit.node.services import Host, turns


async def spawn(port: Port, timeout: float = 5.0) -> bytes:
    return await port.spawn(b"{n1@app:processes|}", "app:p", [], {}, timeout=timeout)


async def test_a_process_that_starts_after_its_asker_gave_up_is_ended() -> None:
    host = Host()
    port = host.ports.open("node:test")
    with pytest.raises(CallTimeout):
        await spawn(port, timeout=0.001)
    late = host.start()
    assert host.terminated == [late]


async def test_it_is_ended_also_when_the_asker_was_cancelled_and_its_port_is_closed() -> None:
    host = Host()
    port = host.ports.open("node:test")
    asking = asyncio.ensure_future(spawn(port))
    await turns()
    asking.cancel()
    await turns()
    port.close()
    late = host.start()
    assert host.terminated == [late]
    assert asking.cancelled()


async def test_the_process_is_accepted_before_its_exit_is_handled() -> None:
    host = Host()
    port = host.ports.open("node:test")
    told: list[object] = []
    port.on_exit = lambda ended: told.append(ended.pid)

    def accept(pid: bytes) -> bool:
        told.append("accepted")
        return True

    asking = asyncio.ensure_future(port.spawn(b"{n1@h|}", "app:p", [], {}, timeout=5, accept=accept))
    await turns()
    pid = host.start()
    host.exit(pid)
    assert told == ["accepted", pid]
    assert await asking == pid


async def test_a_process_that_is_not_accepted_is_ended_and_its_spawn_refused() -> None:
    host = Host()
    port = host.ports.open("node:test")
    asking = asyncio.ensure_future(port.spawn(b"{n1@h|}", "app:p", [], {}, timeout=5, accept=lambda pid: False))
    await turns()
    pid = host.start()
    with pytest.raises(Refused, match="not wanted"):
        await asking
    assert host.terminated == [pid]


async def test_an_answer_of_an_unknown_status_is_an_error_and_no_surprise() -> None:
    host = Host()
    port = host.ports.open("node:test")
    asking = asyncio.ensure_future(port.request(Kind.MONITOR, b"{n2@h|1-1}", timeout=5))
    await turns()
    port.deliver([int(Kind.REPLY), port.pid, b"{n2@h|1-1}", 64, 99, None])
    with pytest.raises(Refused):
        await asking


async def test_noproc_names_the_process() -> None:
    host = Host()
    port = host.ports.open("node:test")
    asking = asyncio.ensure_future(port.request(Kind.TERMINATE, b"{n2@h|1-1}", timeout=5))
    await turns()
    port.deliver([int(Kind.REPLY), port.pid, b"{n2@h|1-1}", 64, 2, None])
    with pytest.raises(Refused, match=r"no process \{n2@h\|1-1\}"):
        await asking
