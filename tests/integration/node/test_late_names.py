"""A registration that etcd takes long after its process gave up and ended does not keep the name from others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster import owned
from cluster.embedded import EmbeddedServers
from cluster.errors import OutcomeUnknown
from cluster.etcd import Etcd
from tests.integration.node.small_node import Lua, small_node, until

pytestmark = pytest.mark.servers

NAME = "late"


class Gate:
    """etcd, of which answers to registrations of ``NAME`` are lost while the gate is closed, and their writes wait."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self.closed = False
        self.waiting: list[Callable[[], Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._etcd, name)

    async def txn(self, compares: Sequence[Any], success: Sequence[Any], failure: Sequence[Any] = ()) -> Any:
        if self.closed and any(str(getattr(one, "key", "")).endswith(f"names/{NAME}") for one in success):
            self.waiting.append(lambda: self._etcd.txn(compares, success, failure))
            raise OutcomeUnknown("the answer was lost")
        return await self._etcd.txn(compares, success, failure)

    async def open(self) -> None:
        """What waited takes effect."""
        self.closed = False
        await self.waiting[0]()


@pytest.fixture
async def gate(etcd: Etcd) -> Gate:
    return Gate(etcd)


@pytest.fixture
async def lua(
    servers: EmbeddedServers, cluster_name: str, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Lua]:
    monkeypatch.setattr(owned, "WITHIN", 0.3)
    late: Any = gate
    async with small_node(servers, cluster_name, late, tmp_path) as lua:
        yield lua


REGISTER = "local ok, err = process.registry.register('late', nil, process.registry.CONSISTENT)"


async def test_the_name_of_a_process_that_gave_up_and_ended_is_free_again(lua: Lua, gate: Gate) -> None:
    seen: list[str | None] = []
    lua.names.on_change(lambda name, pid, revision: seen.append(pid))
    gate.closed = True
    assert await lua(f"{REGISTER} return ok == nil and err:kind()") == "Timeout"
    await gate.open()
    await until(lambda: len(seen) == 2)
    assert seen[0] is not None
    assert seen[1] is None
    assert lua.names.lookup(NAME) is None


async def test_the_name_of_a_process_killed_while_it_waited_is_free_again(lua: Lua, gate: Gate) -> None:
    seen: list[str | None] = []
    lua.names.on_change(lambda name, pid, revision: seen.append(pid))
    gate.closed = True
    pid = await lua.start(f"local function main() {REGISTER} end return {{main = main}}")
    await until(lambda: gate.waiting)
    lua.vm.post([10, pid, b"{node-1@node:test|1-1s}", 0])
    await asyncio.wait_for(lua.exits.setdefault(pid, asyncio.get_running_loop().create_future()), 5)
    await gate.open()
    await until(lambda: seen == [pid.decode(), None])


async def test_a_process_that_lives_on_has_the_name_and_takes_it_along(lua: Lua, gate: Gate) -> None:
    gate.closed = True
    pid = await lua.start(f"local function main() {REGISTER} process.inbox():receive() end return {{main = main}}")
    await until(lambda: gate.waiting)
    await gate.open()
    await until(lambda: lua.names.lookup(NAME))
    held = lua.names.lookup(NAME)
    assert held is not None
    assert held.pid == pid.decode()
    lua.vm.post([1, pid, b"{node-1@node:test|1-1s}", 0, b"end", [], b"", 0])
    await until(lambda: lua.names.lookup(NAME) is None)


async def test_a_process_that_was_told_of_a_failure_and_lives_on_does_not_keep_the_name(lua: Lua, gate: Gate) -> None:
    seen: list[str | None] = []
    lua.names.on_change(lambda name, pid, revision: seen.append(pid))
    gate.closed = True
    wait = "if not ok then process.registry.register('told') end process.inbox():receive()"
    pid = await lua.start(f"local function main() {REGISTER} {wait} end return {{main = main}}")
    await until(lambda: lua.names.lookup("told"))
    await gate.open()
    await until(lambda: seen[1:] == [pid.decode(), None])
    assert pid not in lua.exits
    lua.vm.post([1, pid, b"{node-1@node:test|1-1s}", 0, b"end", [], b"", 0])
    await until(lambda: lua.names.lookup("told") is None)


async def test_a_name_given_to_a_process_that_has_ended_is_free_again(lua: Lua) -> None:
    pid = await lua.start("return {main = function() process.inbox():receive() end}")
    lua.vm.post([1, pid, b"{node-1@node:test|1-1s}", 0, b"end", [], b"", 0])
    await asyncio.wait_for(lua.exits.setdefault(pid, asyncio.get_running_loop().create_future()), 5)
    seen: set[tuple[str, str | None]] = set()
    lua.names.on_change(lambda name, pid, revision: seen.add((name, pid)))
    for scope in ("LOCAL", "EVENTUAL", "CONSISTENT"):
        await lua(f"process.registry.register('late {scope}', '{pid.decode()}', process.registry.{scope})")
        name = f"late {scope}"
        await until(lambda name=name: {(name, pid.decode()), (name, None)} <= seen)
        await until(lambda name=name: lua.names.lookup(name) is None)
