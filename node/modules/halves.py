"""The names a process can ``require``, and the Lua halves that come with this package.

A Lua half is the text of a chunk that returns ``function(env) ... return module end``, in a
file NAME.lua here; the kernel runs it once per process that asks for the module. A name that
is not in ``MODULES`` is not there at all: listing it in ``modules:`` is an error when the
project is loaded.
"""

from __future__ import annotations

from importlib import resources


def load_halves() -> dict[str, str]:
    """The Lua source of every half, by module name."""
    return {
        file.name.removesuffix(".lua"): file.read_text(encoding="utf-8")
        for file in resources.files("node.modules").iterdir()
        if file.name.endswith(".lua")
    }


MODULES: frozenset[str] = frozenset(load_halves())
"""Everything ``require`` knows."""
