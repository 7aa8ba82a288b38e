"""What one Lua VM does by itself: messages, spawns, fairness, memory, many tickers.

    python -m tests.bench.bench_local [--rounds 5]

The peer is asyncio: tasks with queues on the standard event loop, timed in the same run, between the rounds. It does
the same work: a message brings its topic, its sender and a copy of its value, of one level, which is all a value has
here. The second peer is Erlang/OTP (erlang.py), where it is installed.
Prints one JSON line per figure; values are medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias

from cluster.envelope import Kind
from node.host import Vm, VmConfig
from node.host.boundary import In, Item, Out
from node.lua.dialect import transform
from tests.bench.erlang import Erlang

FIGURES = (
    "local_ping_pong",
    "local_one_way",
    "spawn",
    "spawn_10k_seconds",
    "bytes_per_process",
    "busy_echo_p99_ms",
    "tickers_cpu",
)
HOST, OUTSIDE = b"{bench@app:processes|}", b"{bench@node:bench|1-0}"
ROUND_TRIPS, MESSAGES, PROCESSES, SPINNERS, ECHOES = 100_000, 200_000, 10_000, 1_000, 40

ENTRIES = {
    "app:echo": """return { main = function()
        local inbox = process.inbox()
        while true do
            local message = inbox:receive()
            process.send(message:from(), "pong", message:payload():data())
        end
    end }""",
    "app:ping": """return { main = function(count)
        local inbox, data = process.inbox(), ("x"):rep(100)
        local echo = process.spawn("app:echo", "app:processes")
        for id = 1, count do
            process.send(echo, "ping", { id = id, data = data })
            local answer = inbox:receive():payload():data()
            assert(answer.id == id)
        end
        process.terminate(echo)
        return count
    end }""",
    "app:sink": """return { main = function(count, parent)
        local inbox, sum = process.inbox(), 0
        for _ = 1, count do sum = sum + inbox:receive():payload():data().id end
        process.send(parent, "done", sum)
    end }""",
    "app:source": """return { main = function(count)
        local inbox, data = process.inbox(), ("x"):rep(100)
        local sink = process.spawn("app:sink", "app:processes", count, process.pid())
        for id = 1, count do process.send(sink, "item", { id = id, data = data }) end
        return inbox:receive():payload():data()
    end }""",
    "app:idle": "return { main = function() process.inbox():receive() end }",
    "app:spawner": """return { main = function(count)
        for _ = 1, count do process.spawn("app:idle", "app:processes") end
        return count
    end }""",
    "app:spin": "return { main = function() local n = 0 while true do n = n + 1 end end }",
    "app:ticker": """local time = require("time")
    return { main = function(collector, number, interval)
        local ticks = time.ticker(interval):response()
        while true do
            ticks:receive()
            process.send(collector, "tick", { id = number })
        end
    end }""",
    "app:collector": """return { main = function(count)
        local inbox = process.inbox()
        for number = 1, count do
            process.spawn("app:ticker", "app:processes", process.pid(), number, math.random(500, 3000) .. "ms")
        end
        while true do inbox:receive() end
    end }""",
}


class Bench:
    """A VM with the entries above, and processes to wait for."""

    def __init__(self) -> None:
        config = VmConfig(mailbox_limit=1_000_000, max_processes=1_000_000)
        self.vm = Vm(1, "bench", 1, "app:processes", config, {}, self._take)
        self._reference = 0
        self._replies: dict[int, asyncio.Future[bytes]] = {}
        self._exits: dict[bytes, asyncio.Future[Any]] = {}
        self._messages: asyncio.Queue[list[Any]] = asyncio.Queue()

    def _take(self, vm: Vm, items: list[Item]) -> None:
        for item in items:
            match item[0]:
                case Out.CODE:
                    id = item[2].decode()
                    package = {b"id": item[2], b"kind": b"process.lua", b"modules": [b"time"]}
                    package |= {b"source": transform(ENTRIES[id], id).encode(), b"method": b"main"}
                    vm.post([int(In.ANSWER), item[1], None, [package]])
                case Kind.REPLY:
                    self._replies.pop(item[3]).set_result(item[5])
                case Kind.EXIT:
                    assert item[6] is None, item[6]
                    self._exits[item[2]].set_result(item[5])
                case Kind.MESSAGE:
                    self._messages.put_nowait(item[5])

    async def spawn(self, id: str, *args: Any) -> bytes:
        self._reference += 64
        reply = self._replies[self._reference] = asyncio.get_running_loop().create_future()
        self.vm.post([int(Kind.SPAWN), HOST, OUTSIDE, self._reference, id.encode(), list(args), {b"monitor": True}])
        pid: bytes = await reply
        self._exits[pid] = asyncio.get_running_loop().create_future()
        return pid

    async def run(self, id: str, *args: Any) -> Any:
        return await self._exits[await self.spawn(id, *args)]

    async def ask(self, pid: bytes, value: Any) -> list[Any]:
        self.vm.post([int(Kind.MESSAGE), pid, OUTSIDE, 0, b"ping", [value], b"", 0])
        return await self._messages.get()


async def seconds_of(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


Mailbox: TypeAlias = "asyncio.Queue[tuple[str, Mailbox, dict[str, Any]]]"
"""Of an asyncio task: topic, who sent it, and the value."""


async def peer_ping_pong() -> float:
    there: Mailbox = asyncio.Queue()
    back: Mailbox = asyncio.Queue()
    count, data = ROUND_TRIPS // 4, "x" * 100

    async def echo() -> None:
        for _ in range(count):
            _, sender, value = await there.get()
            sender.put_nowait(("pong", there, dict(value)))

    async def ping() -> None:
        for id in range(count):
            item = {"id": id, "data": data}
            there.put_nowait(("ping", back, dict(item)))
            _, _, answer = await back.get()
            assert answer["id"] == id

    return count / await seconds_of(asyncio.gather(echo(), ping()))


async def peer_one_way() -> float:
    queue: Mailbox = asyncio.Queue(1000)
    own: Mailbox = asyncio.Queue()
    count, data = MESSAGES // 4, "x" * 100

    async def source() -> None:
        for id in range(count):
            item = {"id": id, "data": data}
            await queue.put(("item", own, dict(item)))

    async def sink() -> int:
        sum = 0
        for _ in range(count):
            _, _, value = await queue.get()
            sum += value["id"]
        return sum

    return count / await seconds_of(asyncio.gather(source(), sink()))


async def peer_spawn(when_alive: Callable[[], None] = lambda: None) -> float:
    queues: list[asyncio.Queue[Any]] = []

    async def idle(queue: asyncio.Queue[Any]) -> None:
        await queue.get()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(PROCESSES):
            queue: asyncio.Queue[Any] = asyncio.Queue()
            queues.append(queue)
            group.create_task(idle(queue))
        await asyncio.sleep(0)
        rate = PROCESSES / (time.perf_counter() - began)
        when_alive()
        for queue in queues:
            queue.put_nowait(None)
    return rate


async def peer_busy_echo() -> float:
    """The same load by hand: 1,000 tasks that compute 0.2 ms at a time; p99 of an echo in ms."""
    ended = False
    there: asyncio.Queue[int] = asyncio.Queue()
    back: asyncio.Queue[int] = asyncio.Queue()

    async def spin() -> None:
        while not ended:
            until = time.perf_counter() + 0.0002
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0)

    async def echo() -> None:
        while True:
            back.put_nowait(await there.get())

    taken: list[float] = []
    async with asyncio.TaskGroup() as group:
        answering = group.create_task(echo())
        for _ in range(SPINNERS):
            group.create_task(spin())
        for value in range(ECHOES // 4):
            began = time.perf_counter()
            there.put_nowait(value)
            await back.get()
            taken.append((time.perf_counter() - began) * 1000)
        ended = True
        answering.cancel()
    return quantile(taken, 0.99)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tell(
    figure: str,
    unit: str,
    values: list[float],
    peers: list[float] | None = None,
    erlang: list[float] | None = None,
    **more: Any,
) -> None:
    """Print the line of a figure. ``erlang`` is empty where there is no Erlang, None where it has no such figure."""
    value = statistics.median(values)
    line: dict[str, Any] = {"figure": figure, "value": round(value, 3), "unit": unit}
    if peers:
        peer = statistics.median(peers)
        line |= {"peer": "asyncio", "peer_value": round(peer, 3), "ratio": round(value / peer, 2)}
    if erlang:
        other = statistics.median(erlang)
        line |= {"erlang": round(other, 3), "erlang_ratio": round(value / other, 2)}
    elif erlang is not None:
        line |= {"erlang": None, "note": "erl is not installed"}
    print(json.dumps(line | more), flush=True)


async def rate(
    figure: str, entry: str, count: int, peer: Callable[[], Awaitable[float]], erlang: Erlang, rounds: int
) -> None:
    """Items per second of an entry that handles ``count``, beside its peers."""
    values, peers, others = [], [], []
    bench = Bench()
    async with bench.vm:
        await bench.run(entry, count // 20)
        for _ in range(rounds):
            values.append(count / await seconds_of(bench.run(entry, count)))
            peers.append(await peer())
            others += await erlang.measure(figure, count)
    tell(figure, "per second", values, peers, others)


async def spawning(erlang: Erlang, rounds: int) -> None:
    rates, seconds, peers, others = [], [], [], []
    for _ in range(rounds):
        bench = Bench()
        async with bench.vm:
            await bench.run("app:spawner", 100)
            took = await seconds_of(bench.run("app:spawner", PROCESSES))
            assert bench.vm.stats().processes == PROCESSES + 100
            rates.append(PROCESSES / took)
            seconds.append(took)
        peers.append(await peer_spawn())
        others += await erlang.measure("spawn", PROCESSES)
    tell("spawn", "per second", rates, peers, others)
    tell("spawn_10k_seconds", "s", seconds, [PROCESSES / rate for rate in peers], [PROCESSES / rate for rate in others])


async def lua_bytes() -> float:
    """What an idle process of the VM adds to the resident memory; needs a Python that did nothing before."""
    bench = Bench()
    async with bench.vm:
        await bench.run("app:spawner", 100)
        before = resident()
        await bench.run("app:spawner", PROCESSES)
        return (resident() - before) / PROCESSES


async def asyncio_bytes() -> float:
    before = resident()
    after = before

    def measure() -> None:
        nonlocal after
        after = resident()

    await peer_spawn(measure)
    return (after - before) / PROCESSES


async def alone(what: str) -> list[float]:
    """The bytes of a process, measured in a Python of its own."""
    python = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.bench_local", "--bytes", what, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await python.communicate()
    return [float(output)]


async def memory(erlang: Erlang) -> None:
    others = await erlang.measure("bytes_per_process", PROCESSES)
    tell("bytes_per_process", "bytes", await alone("lua"), await alone("asyncio"), others)


async def busy_echo() -> None:
    bench = Bench()
    async with bench.vm:
        echo = await bench.spawn("app:echo")
        for _ in range(SPINNERS):
            await bench.spawn("app:spin")
        taken = [await seconds_of(bench.ask(echo, value)) * 1000 for value in range(ECHOES)]
    tell(
        "busy_echo_p99_ms",
        "ms",
        [quantile(taken, 0.99)],
        [await peer_busy_echo()],
        p50=round(quantile(taken, 0.5), 1),
        p99=round(quantile(taken, 0.99), 1),
    )


async def tickers(lasting: timedelta) -> None:
    bench = Bench()
    async with bench.vm:
        await bench.spawn("app:collector", PROCESSES)
        while bench.vm.stats().processes <= PROCESSES:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(lasting.total_seconds())
        share = (time.process_time() - used) / (time.perf_counter() - began)
    tell("tickers_cpu", "cores", [share])


async def main(rounds: int) -> None:
    async with Erlang() as erlang:
        await rate("local_ping_pong", "app:ping", ROUND_TRIPS, peer_ping_pong, erlang, rounds)
        await rate("local_one_way", "app:source", MESSAGES, peer_one_way, erlang, rounds)
        await spawning(erlang, rounds)
        await memory(erlang)
    await busy_echo()
    await tickers(timedelta(seconds=8))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", choices=("lua", "asyncio"), help="only the bytes of one idle process of these")
    chosen = parser.parse_args()
    if chosen.bytes:
        print(asyncio.run(lua_bytes() if chosen.bytes == "lua" else asyncio_bytes()))
    else:
        asyncio.run(main(chosen.rounds))
