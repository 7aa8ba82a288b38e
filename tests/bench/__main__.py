"""Runs the benchmarks: ``python -m tests.bench [FIGURE...]``.

Every ``bench_*.py`` here is a program that prints one JSON line per figure. A module may name
its figures in ``FIGURES`` (a tuple of texts, read without importing it); an argument chooses
the programs that have that figure, or whose name it is: ``links`` means ``bench_links.py``.
Each runs in a process of its own, one after the other, so that none disturbs another.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DEADLINE_SECONDS = 600


def figures_of(program: Path) -> tuple[str, ...]:
    """The texts in its FIGURES; none when it does not say."""
    for statement in ast.parse(program.read_text()).body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id="FIGURES")], value=value)
                | ast.AnnAssign(target=ast.Name(id="FIGURES"), value=ast.expr() as value)
            ):
                return tuple(ast.literal_eval(value))
    return ()


def chosen(programs: list[Path], wanted: list[str]) -> list[Path]:
    """The programs that have one of the figures; all without a choice. Exits with what there is on an unknown one."""
    if not wanted:
        return programs
    known = {
        name: program for program in programs for name in (*figures_of(program), program.stem.removeprefix("bench_"))
    }
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.exit(f"error: no figure {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    return [program for program in programs if any(known[name] is program for name in wanted)]


def run(program: Path) -> bool:
    """Run one program; whether it ended well. Its lines are shown as they come."""
    print(f"{program.stem} ...", file=sys.stderr, flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    try:
        ended = subprocess.run(
            [sys.executable, str(program)], cwd=ROOT, env=environment, timeout=DEADLINE_SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        ended = f"no end within {DEADLINE_SECONDS} s"
    if ended:
        print(json.dumps({"program": program.stem, "failed": ended}), flush=True)
    print(f"{program.stem}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return not ended


def main() -> int:
    programs = chosen(sorted(HERE.glob("bench_*.py")), sys.argv[1:])
    results = [run(program) for program in programs]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
