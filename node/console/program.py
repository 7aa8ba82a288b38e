"""What a console is made of: the host its process runs on, the entry, and the Lua halves only it may load.

None of it is in the registry: the node gives the entry to its VMs itself, and no entry can list the modules.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from cluster.registry import Entry
from node.console.lines import CHUNK
from node.lua.dialect import transform
from node.modules.halves import MODULES

HOST = "node:console"
PROMPT = "node:console"
MODULE = "node.console"
_HALVES = {MODULE: "prompt", f"{MODULE}.shown": "shown", f"{MODULE}.helpers": "helpers", f"{MODULE}.running": "running"}

HOST_ENTRY = Entry(HOST, "process.host", {}, {"host": {"memory": 256 * 1024**2, "max_processes": 1000}})
"""A VM that exists while there are consoles: what is typed can't use up the memory of anything else."""

_SOURCE = f"local console = require('{MODULE}') return function() return console.run(_ENV) end"


def console_halves() -> dict[str, str]:
    """The Lua halves of the prompt, by the name ``require`` has for them."""
    folder = resources.files("node.console")
    return {name: folder.joinpath(f"{file}.lua").read_text(encoding="utf-8") for name, file in _HALVES.items()}


def prompt_package(version: int) -> dict[bytes, Any]:
    """The entry's program as a VM takes it: typed lines may require every module of the runtime."""
    return {
        b"id": PROMPT.encode(),
        b"kind": b"process.lua",
        b"source": transform(_SOURCE, CHUNK).encode(),
        b"method": b"",
        b"modules": [name.encode() for name in (MODULE, *sorted(MODULES))],
        b"imports": {},
        b"version": version,
    }
