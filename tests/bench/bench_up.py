"""How long a person waits: ``wippy up`` with three nodes to the first reply from another node.

    python -m tests.bench.bench_up [--rounds 3]

Runs the counter example as real processes and calls the worker of node-3 through node-1 until it answers. There is
no peer to time beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cluster.client import Client
from cluster.errors import ClusterError

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ("up_first_reply_seconds",)
DEADLINE = 60.0


async def first_reply(place: Path, began: float) -> float:
    """Seconds from ``began`` until the worker on node-3 has answered through node-1."""
    known = await asyncio.to_thread(await_place, place, began)
    async with Client(known["nats"], known["etcd"], known["cluster"], gateway="node-1") as client:
        while time.monotonic() - began < DEADLINE:
            try:
                await client.call("worker@node-3", "status", timeout=5.0)
                return time.monotonic() - began
            except ClusterError:
                await asyncio.sleep(0.02)
    raise SystemExit(f"no reply within {DEADLINE:g} s")


def await_place(place: Path, began: float) -> dict[str, Any]:
    """What the file of the development cluster says, once it is there."""
    while time.monotonic() - began < DEADLINE:
        if place.is_file():
            return dict(json.loads(place.read_text()))
        time.sleep(0.02)
    raise SystemExit(f"no cluster within {DEADLINE:g} s")


def once() -> float:
    with tempfile.TemporaryDirectory(prefix="wippy-bench-") as scratch:
        app = Path(scratch) / "counter"
        shutil.copytree(ROOT / "examples" / "counter", app, ignore=shutil.ignore_patterns(".wippy"))
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "node.cli", "up", str(app), "--nodes", "3", "--no-watch"],
            cwd=scratch,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return asyncio.run(first_reply(Path(scratch) / ".wippy" / "cluster.json", began))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = sorted(once() for _ in range(parser.parse_args().rounds))
    figure = {
        "figure": "up_first_reply_seconds",
        "value": round(rounds[len(rounds) // 2], 2),
        "unit": "s",
        "p50": round(rounds[len(rounds) // 2], 2),
        "p99": round(rounds[-1], 2),
        "peer": "none",
        "peer_value": None,
        "ratio": None,
    }
    print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
