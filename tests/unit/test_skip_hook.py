"""Skips can be made failures, so that a run that should prove everything can't pass by skipping."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPS = {
    "in a test": "import pytest\n\ndef test_one():\n    pytest.skip('no server here')\n",
    "of a module": "import pytest\n\npytest.skip('no server here', allow_module_level=True)\n",
}


@pytest.mark.parametrize("where", SKIPS)
@pytest.mark.parametrize(("setting", "passes"), [("0", True), ("1", False)])
def test_skip_fails_when_asked_to(tmp_path: Path, where: str, setting: str, passes: bool) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(SKIPS[where])
    environment = {**os.environ, "WIPPY_NO_SKIPS": setting, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ("skips are failures here" in ran.stdout) is not passes, ran.stdout
    assert (ran.returncode in (0, 5)) is passes
