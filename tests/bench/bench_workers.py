"""What a second worker gives, and what a message between workers costs.

    python -m tests.bench.bench_workers [--rounds 3]

``workers_two_busy``: two computations at once on a host with two workers, as a multiple of what one worker does; the
peer is the same with one. ``worker_one_way``: messages/s from a process to one in another worker of the host; the
peer is the same within one worker. One JSON line each.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time

import structlog
import uvloop

from tests.unit.node.hostworld import HostWorld

FIGURES = ("workers_two_busy", "worker_one_way")
TURNS = 20_000_000
MESSAGES = 100_000
SOURCES = {
    "busy": "return { main = function(turns) local n = 0 for i = 1, turns do n = n + i % 7 end return n end }",
    "collector": """return { main = function(count)
        local inbox = process.inbox()
        for _ = 1, count do inbox:receive() end
    end }""",
    "sender": """return { main = function(to, count)
        for i = 1, count do
            while not process.send(to, "n", { id = i, data = "x" }) do process.yield() end
        end
    end }""",
    "pair": """return { main = function(count)
        local to = process.spawn("app:collector", "app:processes", count)
        process.monitor(to)
        for i = 1, count do process.send(to, "n", { id = i, data = "x" }) end
        process.events():receive()
    end }""",
}


async def two_busy(workers: int) -> float:
    """Seconds until two computations are done."""
    async with HostWorld(SOURCES) as world:
        await world.put(workers=workers)
        began = time.perf_counter()
        pids = [await world.spawn("busy", TURNS) for _ in range(2)]
        for pid in pids:
            await world.until(lambda pid=pid: pid in world.exits, "the computation to end", 120)  # type: ignore[misc]
        return time.perf_counter() - began


async def one_way(workers: int) -> float:
    """Messages per second to a process in another worker, or in the same one."""
    async with HostWorld(SOURCES) as world:
        await world.put(workers=workers, mailbox_size=1_000_000)
        began = time.perf_counter()
        if workers == 1:
            last = await world.spawn("pair", MESSAGES)
        else:
            last = await world.spawn("collector", MESSAGES)
            await world.spawn("sender", last, MESSAGES)
        await world.until(lambda: last in world.exits, "all messages to arrive", 120)
        return MESSAGES / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for figure, measure, unit in (
        ("workers_two_busy", two_busy, "seconds"),
        ("worker_one_way", one_way, "messages/s"),
    ):
        two = statistics.median(uvloop.run(measure(2)) for _ in range(rounds))
        one = statistics.median(uvloop.run(measure(1)) for _ in range(rounds))
        ratio = one / two if unit == "seconds" else two / one
        line = {
            "figure": figure,
            "value": round(two, 3),
            "unit": unit,
            "peer": "one worker",
            "peer_value": round(one, 3),
        }
        print(json.dumps({**line, "ratio": round(ratio, 3)}), flush=True)


if __name__ == "__main__":
    main()
