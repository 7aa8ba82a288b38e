"""Every command in the README is executed: here, or by the test named beside it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.processes import ROOT, WIPPY, Development, environment
from tests.cluster.test_apps import AppUp

pytestmark = pytest.mark.servers

ELSEWHERE = {
    "make up": "tests/unit/test_packaging.py (the plan), tests/cluster (what it starts)",
    "make test": "tests/unit/test_packaging.py (the plan), this run",
    ". .venv/bin/activate": "the shell's own; the tests name the programs by their paths",
    ".venv/bin/pip install -c constraints.txt -e '.[etcd3]'": "tests/unit/test_packaging.py (the extra)",
}
MACHINES = "wippy run . --node "
"""Executed by tests/cluster/test_deploy.py, which takes the lines from the README."""


HOP = "wippy up --nodes 3 examples/hop"
"""The commands of its section are for that cluster."""


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def of_hop() -> list[str]:
    (section,) = [part for part in (ROOT / "README.md").read_text().split("\n## ") if HOP in part]
    return [command for command in commands() if f"\n{command}\n" in section]


def test_every_command_works(up: Development) -> None:
    apart = of_hop()
    executed = 0
    for command in commands():
        if command not in ELSEWHERE and command not in apart and not command.startswith(MACHINES):
            execute(command, up)
            executed += 1
    assert executed > 15


def test_a_process_hops_as_shown(binaries: None, tmp_path: Path) -> None:
    start, *rest = of_hop()
    assert start == HOP
    with AppUp(tmp_path, "hop") as up:
        said = {command: execute(command, up) for command in rest}
    assert '"lost": 0' in said["wippy call thrower@node-1 report"]
    assert '"doubled": 0' in said["wippy call thrower@node-1 report"]


def execute(command: str, up: Development) -> str:
    """Run a command in the directory of ``up``; what it printed."""
    ended = subprocess.run(
        localised(command, up),
        cwd=up.directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    assert ended.stdout.strip() or "agree" in ended.stderr, f"{command} says nothing"
    return ended.stdout


def localised(command: str, up: Development) -> list[str]:
    """The command for the cluster of this test: its programs, its addresses."""
    words = shlex.split(command)
    first, metrics = words[0], up.place["nodes"][0]["metrics"].removesuffix("/metrics")
    programs = {"wippy": list(WIPPY), ".venv/bin/python": [sys.executable]}
    scripts = {"deploy/operator/set_config.py": str(ROOT / "deploy" / "operator" / "set_config.py")}
    rest = [scripts.get(word, word.replace("http://127.0.0.1:9464", metrics)) for word in words[1:]]
    return [*programs.get(first, [first]), *rest]
