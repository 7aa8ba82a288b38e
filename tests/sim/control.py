"""The control subjects, as far as nodes ask each other: up to which revision is your copy complete?

A query travels to whoever serves the epoch it names, and its answer back, over the same bad network as the frames.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgpack

from cluster.errors import CallTimeout, ClusterError, NotConnected, Unavailable

if TYPE_CHECKING:
    from tests.sim.machine import Life


class Control:
    """The second connection of a life; ``control`` is itself, as ``Everywhere`` wants a bus."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self.control = self

    async def request(self, subject: str, payload: bytes, timeout: float) -> bytes:
        _, _, _, node, epoch, _, _ = subject.split(".")
        life = self._life
        if not life.connection.connected:
            raise NotConnected("no connection")
        there = life.sim.machines[node].life
        if not there.alive or not there.connection.connected or there.serves != int(epoch):
            raise Unavailable(f"nobody answers on {subject}")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._travel(life, there, lambda: there.tasks.start(self._answer(there, payload, answer), "query"))
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise CallTimeout(f"request to {subject}", timeout) from None

    async def _answer(self, there: Life, payload: bytes, answer: asyncio.Future[bytes]) -> None:
        query: dict[str, Any] = msgpack.unpackb(payload)
        try:
            await there.watch.reached(query["revision"], query["timeout"])
        except ClusterError:
            return
        packed = msgpack.packb({"ok": True, "value": {}})
        self._travel(there, self._life, lambda: answer.done() or answer.set_result(packed))

    @staticmethod
    def _travel(src: Life, dst: Life, work: Any) -> None:
        network, world = src.sim.network, src.sim.world
        delay = world.pick((0.0005, 0.001, 0.01))

        def arrive() -> None:
            if not network.weather(src.name, dst.name).cut and src.connection.connected and dst.connection.connected:
                dst.loop.call_soon_threadsafe(work)

        world.after(delay, arrive)
