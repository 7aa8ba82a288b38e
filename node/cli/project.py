"""Verbs around a project: init, version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from node.cli.console import note, show_json
from node.cli.failures import Failed

_LOCK = """directories:
  modules: {modules}
  src: {src}
"""
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
    src: Annotated[str, typer.Option("-d", "--src-dir", metavar="DIR", help="Where the sources go")] = "./src",
    modules: Annotated[str, typer.Option("--modules-dir", metavar="DIR", help="Where dependencies go")] = ".wippy",
    lock: Annotated[Path, typer.Option("-l", "--lock-file", metavar="FILE", help="The lock file to write")] = Path(
        "wippy.lock"
    ),
) -> None:
    """Make a project in this directory: a lock file, and a first program when there is no source yet."""
    if lock.exists():
        raise Failed(f"{lock} exists already; this is a project: run it with `wippy run`")
    folder = lock.parent / src
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(_LOCK.format(modules=modules, src=src))
    print(f"wrote {lock}")
    if folder.is_dir() and any(folder.rglob("*.yaml")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("_index.yaml", _INDEX), ("hello.lua", _HELLO)):
        (folder / name).write_text(text)
        print(f"wrote {folder / name}")
    note("next: wippy run -x app:hello")


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
