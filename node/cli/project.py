"""Verbs around a project: init, version."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from node.cli.console import note, show_json
from node.cli.failures import Failed

_SRC = "./src"
_INDEX = """version: "1.0"
namespace: app

entries:
  - name: terminal
    kind: terminal.host
    lifecycle:
      auto_start: true

  - name: hello
    kind: process.lua
    meta:
      command:
        name: hello
        short: Say hello
    source: file://hello.lua
    method: main
    modules:
      - io
"""
_HELLO = """local io = require("io")

local function main(name: string?): integer
    io.print("Hello, " .. (name or "world") .. "! This is " .. process.pid() .. ".")
    return 0
end

return { main = main }
"""


def init(
    src: Annotated[str, typer.Option("-d", "--src-dir", metavar="DIR", help="Where the sources go")] = _SRC,
    modules: Annotated[str, typer.Option("--modules-dir", metavar="DIR", help="Where dependencies go")] = ".wippy",
    lock: Annotated[Path, typer.Option("-l", "--lock-file", metavar="FILE", help="The lock file to write")] = Path(
        "wippy.lock"
    ),
) -> None:
    """Make a project in this directory: a lock file, and a first program when there is no source yet."""
    import yaml

    from node.project.definitions import defines_entries

    if lock.exists():
        raise Failed(f"{lock} exists already; this is a project: run it with `wippy run`")
    if src == _SRC and not (lock.parent / src).exists() and lock.parent.is_dir() and defines_entries(lock.parent):
        src = "."  # an application that lives in the directory itself
    folder = lock.parent / src
    files = {}
    if not (folder.is_dir() and any(folder.rglob("*.yaml"))):
        files = {folder / "_index.yaml": _INDEX, folder / "hello.lua": _HELLO}
        _check_free(folder, files)
    directories = {"directories": {"modules": modules, "src": src}}
    files[lock] = yaml.safe_dump(directories, sort_keys=False, allow_unicode=True)
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file}")
    if len(files) > 1:
        note("next: wippy run -x app:hello")


def _check_free(folder: Path, files: Iterable[Path]) -> None:
    """Nothing of what is there may be in the way; said before anything is written."""
    if folder.exists() and not folder.is_dir():
        raise Failed(f"{folder} is no directory; name another one with --src-dir")
    for file in files:
        if file.exists():
            raise Failed(
                f"{file} exists already, and no YAML file beside it; move it away, or write {folder}/_index.yaml"
            )


def version(
    short: Annotated[bool, typer.Option("--short", help="Only the number")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON")] = False,
) -> None:
    """The version of wippy and of the Python it runs on."""
    from node.version import VERSION as number

    python = ".".join(str(part) for part in sys.version_info[:3])
    if as_json:
        show_json({"version": number, "python": python})
    elif short:
        print(number)
    else:
        print(f"wippy {number} (Python {python})")
