"""A VM that only collects what is posted to it, and a caller in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster.envelope import to_raw
from node.modules.contract import Caller, Stream
from node.modules.dispatch import Dispatcher

PID = b"{node-1@app:processes|1-1}"


@dataclass
class FakeVm:
    """Collects items; ``answer`` waits for the result of an operation."""

    slot: int = 1
    host_id: str = "app:processes"
    posted: list[list[Any]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def post(self, item: list[Any]) -> None:
        self.posted.append(to_raw(item))
        self.arrived.set()

    async def answer(self, opid: int) -> tuple[Any, list[Any]]:
        """(error map or None, values) of an operation."""
        async with asyncio.timeout(5):
            while True:
                for item in self.posted:
                    if item[0] == 40 and item[1] == opid:
                        return item[2], item[3]
                self.arrived.clear()
                await self.arrived.wait()


@dataclass
class NoStreams:
    """For handlers that open none."""

    def opened(self, caller: Caller, number: int) -> Stream:
        raise AssertionError("no stream expected")

    def find(self, caller: Caller, number: int) -> Stream | None:
        return None

    def run(self, work: Any, name: str) -> None:
        raise AssertionError("no work expected")


class Asker:
    """Asks modules through a real dispatcher, as a process in a VM would."""

    def __init__(self, dispatcher: Dispatcher, vm: FakeVm) -> None:
        self.dispatcher = dispatcher
        self.vm = vm
        self.opid = 0

    def start(self, module: str, fn: str, *args: Any, pid: bytes = PID) -> int:
        self.opid += 1
        self.dispatcher.take(self.vm, [50, self.opid, pid, b"app:main", module.encode(), fn.encode(), list(args)])
        return self.opid

    async def ask(self, module: str, fn: str, *args: Any, pid: bytes = PID) -> tuple[Any, list[Any]]:
        return await self.vm.answer(self.start(module, fn, *args, pid=pid))

    async def value(self, module: str, fn: str, *args: Any, pid: bytes = PID) -> Any:
        """The first value; fails the test when the answer is an error."""
        error, values = await self.ask(module, fn, *args, pid=pid)
        assert error is None, error
        return values[0] if values else None

    async def error(self, module: str, fn: str, *args: Any, pid: bytes = PID) -> dict[bytes, Any]:
        """The error map; fails the test when there is none."""
        error, values = await self.ask(module, fn, *args, pid=pid)
        assert error is not None, f"expected an error, got {values}"
        found: dict[bytes, Any] = error
        return found


@pytest.fixture
def vm() -> FakeVm:
    return FakeVm()


@pytest.fixture
def caller(vm: FakeVm) -> Caller:
    return Caller(PID, "app:main", vm, NoStreams())


@pytest.fixture
async def asking(vm: FakeVm) -> Any:
    """``asking(modules...)`` gives an Asker; its dispatcher ends with the test."""
    dispatchers: list[Dispatcher] = []

    async def open_asker(*modules: Any, **options: Any) -> Asker:
        dispatcher = Dispatcher(modules, **options)
        dispatchers.append(dispatcher)
        await dispatcher.__aenter__()
        return Asker(dispatcher, vm)

    yield open_asker
    for dispatcher in dispatchers:
        await dispatcher.__aexit__(None, None, None)
