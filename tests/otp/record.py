"""Records what the ``supervisor`` of Erlang/OTP does: ``python -m tests.otp.record`` writes ``recorded.jsonl``.

Needs ``erl`` and ``erlc``. One scheduler, so that what happens at the same time happens in one order.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.otp.scenarios import COUNT, RECORDED, Scenario, Told, as_erlang, make

PROGRAM = Path(__file__).parent / "recorder.erl"
DEADLINE = 300


def has_erlang() -> bool:
    return shutil.which("erl") is not None and shutil.which("erlc") is not None


def record(scenarios: Sequence[Scenario]) -> list[list[Told]]:
    """What Erlang tells after the start and after each step, for each scenario."""
    with tempfile.TemporaryDirectory() as folder:
        given, told = Path(folder) / "scenarios", Path(folder) / "told"
        given.write_text("".join(map(as_erlang, scenarios)))
        subprocess.run(["erlc", "-o", folder, str(PROGRAM)], check=True, timeout=DEADLINE)
        command = ["erl", "+S", "1", "-noshell", "-pa", folder, "-run", "recorder", "main", str(given), str(told)]
        subprocess.run(command, check=True, timeout=DEADLINE)
        return [json.loads(line) for line in told.read_text().splitlines()]


if __name__ == "__main__":
    made = [make(number) for number in range(COUNT)]
    lines = [json.dumps(both, separators=(",", ":")) for both in zip(made, record(made), strict=True)]
    RECORDED.write_text("\n".join(lines) + "\n")
