"""How fast typed Lua is made ready for a VM, types and yield points included.

    python -m tests.bench.bench_dialect [--rounds 5]

The peer is Python's own parser, written in C, on a Python program of the same shape and length; Lua's own compiler
is reported beside it. Prints one JSON line, medians of the rounds; the peers run between the rounds.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
import time
from collections.abc import Callable

import lupa.lua54 as lupa

from node.lua.dialect import transform

FIGURES = ("dialect_lines",)
FUNCTIONS = 150

LUA = """
type Order{n} = {{id: string, items: {{Item}}, total?: number}}

-- Adds up the order and tells the ledger of it.
local function settle{n}(order: Order{n}, rate: number?): (number, string?)
    local total: number, count = 0, 0
    for index, item in ipairs(order.items) do
        if item.quantity > 0 and item.price ~= nil then
            total = total + item.price * item.quantity * (rate or 1.0)
            count = count + 1
        else
            logger:warn("odd item", {{id = order.id, index = index, sku = item.sku}})
        end
    end
    local reply, err = process.send("ledger", "settled", {{id = order.id, total = total, items = count}})
    if err then
        return 0, "ledger: " .. tostring(err)
    end
    return (reply :: Order{n}).total or total, nil
end
"""

PYTHON = """
Order{n} = dict[str, "str | list[Item] | float | None"]

# Adds up the order and tells the ledger of it.
def settle{n}(order: Order{n}, rate: float | None) -> tuple[float, str | None]:
    total: float = 0
    count = 0
    for index, item in enumerate(order["items"]):
        if item.quantity > 0 and item.price is not None:
            total = total + item.price * item.quantity * (rate or 1.0)
            count = count + 1
        else:
            logger.warn("odd item", {{"id": order["id"], "index": index, "sku": item.sku}})

    reply, err = process.send("ledger", "settled", {{"id": order["id"], "total": total, "items": count}})
    if err:
        return 0, "ledger: " + str(err)

    return cast(Order{n}, reply).total or total, None

"""


def program(template: str) -> str:
    return "".join(template.format(n=n) for n in range(FUNCTIONS))


def lines_per_second(work: Callable[[], object], lines: int) -> float:
    began = time.perf_counter()
    work()
    return lines / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    source, peer_source = program(LUA), program(PYTHON)
    lines, peer_lines = source.count("\n"), peer_source.count("\n")
    # Lua allows 200 locals: its compiler gets each function in a block of its own
    blocks = transform("".join(f"do {LUA.format(n=n)} end\n" for n in range(FUNCTIONS)), "bench").encode()
    compiled = lupa.LuaRuntime(encoding=None).eval(b"function(text) return assert(load(text)) end")
    ours, python, lua = [], [], []
    for _ in range(rounds):
        ours.append(lines_per_second(lambda: transform(source, "bench"), lines))
        python.append(lines_per_second(lambda: ast.parse(peer_source), peer_lines))
        lua.append(lines_per_second(lambda: compiled(blocks), lines))
    value, peer = statistics.median(ours), statistics.median(python)
    figure = {
        "figure": "dialect_lines",
        "value": round(value),
        "unit": "lines/s",
        "peer": "ast.parse",
        "peer_value": round(peer),
        "ratio": round(value / peer, 2),
        "lua_load": round(statistics.median(lua)),
    }
    print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
