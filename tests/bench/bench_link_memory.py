"""What a link to one peer takes of a node's memory: idle, and for what waits to be acknowledged.

    python -m tests.bench.bench_link_memory

Two figures, in resident bytes of a process of its own: ``link_idle_bytes`` is one of ten thousand open links nothing
goes over, ``link_unacked_bytes`` one of five thousand frames of 32 small envelopes that a peer has not acknowledged.
There is no connection for each peer, so neither server nor kernel keeps anything. Erlang's is no peer: its memory goes
up and down by more than a link takes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from cluster.envelope import pack
from cluster.link import LinkCore
from cluster.links import _Peer
from tests.bench.bench_links import envelope

FIGURES = ("link_idle_bytes", "link_unacked_bytes")
LINKS = 10_000
FRAMES = 5_000
BATCH = 32


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def opened(number: int) -> _Peer:
    """A link as the node keeps it for a peer that is there."""
    core = LinkCore("a", f"node-{number}")
    core.pair(number * 2 + 1, number * 2 + 2, "")
    return _Peer(core, f"wippy.bench.node.node-{number}.{number * 2 + 2}.data.a")


def idle() -> float:
    peers = {f"node-{number}": opened(number) for number in range(LINKS // 10)}
    before = resident()
    peers |= {f"node-{number}": opened(number) for number in range(LINKS // 10, LINKS)}
    return (resident() - before) / (LINKS - LINKS // 10)


def unacked() -> float:
    core = opened(1).core
    before = 0
    for number in range(FRAMES * 11 // 10):
        if number == FRAMES // 10:
            before = resident()
        for at in range(BATCH):
            core.send(pack(envelope(number * BATCH + at)))
        core.frames(float(number))
    return (resident() - before) / FRAMES


def main() -> None:
    for figure, value in zip(FIGURES, (idle(), unacked()), strict=True):
        line = {"figure": figure, "value": round(value), "unit": "bytes", "peer": None}
        if figure == "link_unacked_bytes":
            line["of_envelopes"] = sum(len(pack(envelope(number))) for number in range(BATCH))
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
