"""Makefile, constraints and project file: what a newcomer's machine meets first."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FIND_PYTHON = ROOT / ".ci" / "find-python"
TOOLS = ("sh", "dirname", "cat", "touch", "sed")


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirement_name(text: str) -> str:
    return re.split(r"[<>=!~;\[ ]", text, maxsplit=1)[0].lower().replace("_", "-")


def pins() -> dict[str, str]:
    lines = [line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in found}


class TestConstraints:
    def test_every_line_is_a_pin_and_names_no_address(self) -> None:
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        for line in lines:
            assert not line or line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+", line), line
        assert not [line for line in lines if "://" in line]

    def test_every_requirement_is_pinned(self) -> None:
        configuration = project()
        table = configuration["project"]
        assert isinstance(table, dict)
        groups = configuration["dependency-groups"]
        assert isinstance(groups, dict)
        wanted = [
            *table["dependencies"],
            *(text for texts in table["optional-dependencies"].values() for text in texts),
        ]
        wanted += [text for group in groups.values() for text in group if isinstance(text, str)]
        assert {requirement_name(text) for text in wanted} <= set(pins())

    def test_everything_that_is_installed_along_is_pinned_too(self) -> None:
        """What the requirements require, all the way down, as far as it is installed here."""
        known, unpinned = set(pins()), set()
        todo = {name for name in known if is_installed(name)}
        seen: set[str] = set()
        while todo:
            name = todo.pop()
            seen.add(name)
            for text in metadata.requires(name) or ():
                requirement = Requirement(text)
                needed = canonicalize_name(requirement.name)
                if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                    continue
                if needed not in known:
                    unpinned.add(f"{needed} (of {name})")
                elif needed not in seen and is_installed(needed):
                    todo.add(needed)
        assert not unpinned


def test_every_file_of_a_bundled_module_is_part_of_the_package() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = configuration["tool"]["setuptools"]["package-data"]["node"]
    packaged = {path for pattern in patterns for path in (ROOT / "node").glob(pattern)}
    bundled = {path for path in (ROOT / "node" / "bundled").rglob("*") if path.is_file()}
    assert bundled
    assert bundled <= packaged


def is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def path_with(tmp_path: Path, **programs: str) -> str:
    """A PATH with the basic tools and the given shell scripts, and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    for name, script in programs.items():
        program = folder / name.replace("_", ".").replace("-dot-", ".")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(folder)


def find_python(path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(FIND_PYTHON)], env={"PATH": path, **environment}, capture_output=True, text=True, timeout=30, check=False
    )


REAL = f'exec {sys.executable} "$@"'
OLD = "exit 1"
WITHOUT_VENV = 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.11;; *) exit 0;; esac'


class TestFindPython:
    def test_takes_a_python_that_can_make_environments(self, tmp_path: Path) -> None:
        found = find_python(path_with(tmp_path, python3=REAL))
        assert found.returncode == 0
        assert found.stdout.strip() == str(tmp_path / "bin" / "python3")

    def test_passes_over_an_old_one(self, tmp_path: Path) -> None:
        found = find_python(path_with(tmp_path, python3=OLD, python3_12=REAL))
        assert found.stdout.strip().endswith("python3.12")

    def test_takes_the_one_that_is_named(self, tmp_path: Path) -> None:
        found = find_python(path_with(tmp_path, python3=REAL, mine=REAL), PYTHON="mine")
        assert found.stdout.strip().endswith("mine")

    def test_names_the_one_package_that_lacks_on_debian(self, tmp_path: Path) -> None:
        found = find_python(
            path_with(tmp_path, **{"python3": WITHOUT_VENV, "apt-get": "exit 0", "apt-cache": "exit 1"})
        )
        assert found.returncode == 1
        assert "python3 can't make virtual environments" in found.stderr
        assert "apt-get install python3-venv," in found.stderr

    def test_names_the_package_of_a_python_that_is_not_the_default(self, tmp_path: Path) -> None:
        programs = {"python3": 'case "$2" in *print*) echo 3.9;; *) exit 1;; esac', "python3_11": WITHOUT_VENV}
        found = find_python(path_with(tmp_path, **programs, **{"apt-get": "exit 0", "apt-cache": "exit 1"}))
        assert "apt-get install python3.11-venv," in found.stderr

    def test_names_a_package_where_there_is_no_python_at_all(self, tmp_path: Path) -> None:
        found = find_python(path_with(tmp_path, **{"apt-get": "exit 0", "apt-cache": "exit 1"}))
        assert found.returncode == 1
        assert "no Python 3.11 or newer on PATH" in found.stderr
        assert "apt-get install python3-venv," in found.stderr


class TestMakefile:
    @pytest.fixture(autouse=True)
    def _make(self) -> None:
        if shutil.which("make") is None:
            pytest.skip("make is not on this machine; install it to check the Makefile")

    def make(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        ended = subprocess.run(
            ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        return ended.stdout

    def test_help_names_every_target(self) -> None:
        shown = self.make("help")
        for target in ("up", "test", "lint", "bench", "chaos"):
            assert f"make {target} " in shown

    @pytest.mark.parametrize("target", ["up", "test", "lint", "bench", "chaos"])
    def test_a_target_installs_what_it_needs_first(self, target: str, tmp_path: Path) -> None:
        plan = self.make("-n", target, f"VENV={tmp_path / 'venv'}")
        assert "-m venv" in plan
        assert plan.index("pip install") < plan.rindex("\n", 0, len(plan.rstrip()))
        assert "-c constraints.txt" in plan

    def test_an_install_says_only_what_it_does_and_what_went_wrong(self, tmp_path: Path) -> None:
        plan = self.make("-n", "up", f"VENV={tmp_path / 'venv'}").splitlines()
        (at,) = (n for n, line in enumerate(plan) if "pip install" in line and " -e ." in line)
        assert " -q " in plan[at]
        assert "-qq" not in plan[at], "which would keep warnings to itself"
        assert 'PYTHONWARNINGS="ignore:Editable installation"' in plan[at]
        assert plan[at - 1].startswith('echo "Installing')

    def test_a_second_run_installs_nothing(self, tmp_path: Path) -> None:
        venv = tmp_path / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(sys.executable)
        (venv / ".pip").write_text(f"{ROOT}\n")
        for stamp in (".runs", ".tests", ".lints"):
            (venv / stamp).touch()
        assert "pip" not in self.make("-n", "test", f"VENV={venv}")

    def test_an_environment_of_another_directory_is_made_again(self, tmp_path: Path) -> None:
        venv = tmp_path / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(sys.executable)
        (venv / ".pip").write_text("/somewhere/else\n")
        assert "-m venv" in self.make("-n", "test", f"VENV={venv}")


def test_the_check_of_everything_is_valid_shell() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not on this machine; install it to check .ci/run")
    subprocess.run([bash, "-n", str(ROOT / ".ci" / "run")], check=True, timeout=30)
    subprocess.run(["sh", "-n", str(FIND_PYTHON)], check=True, timeout=30)


def test_the_extra_of_the_operator_script_brings_what_it_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(each.startswith("etcd3==") for each in project["optional-dependencies"]["etcd3"])
    assert "etcd3==0.12.0" in (ROOT / "constraints.txt").read_text()
