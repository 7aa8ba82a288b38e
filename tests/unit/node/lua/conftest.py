"""A bare Lua 5.4 VM for the tests of Lua sources: no kernel, no processes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import lupa.lua54 as lupa
import pytest

ERRORS = b"""
    local meta = { __metatable = false, __tostring = function(self) return self[2] end }
    meta.__index = { kind = function(self) return self[1] end, message = function(self) return self[2] end }
    return {
        INTERNAL = "Internal", INVALID = "Invalid", NOT_FOUND = "NotFound", UNAVAILABLE = "Unavailable",
        new = function(t) return setmetatable({ t.kind, t.message }, meta) end,
    }
"""


class Vm:
    """One VM; ``run`` takes Lua text and gives its results as Python values, ``bytes`` for texts."""

    def __init__(self) -> None:
        self.lua = lupa.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
        self.lua.execute(b"__w_yield = function() return 1000 end")
        self.lua.globals()[b"errors"] = self.lua.execute(ERRORS)

    def run(self, text: str, *arguments: Any) -> Any:
        return self.lua.execute(text.encode(), *arguments)

    def error(self, text: str) -> str:
        """The error that running ``text`` raises."""
        with pytest.raises(lupa.LuaError) as caught:
            self.run(text)
        return str(caught.value)

    def load(self, package: str, path: str) -> Any:
        """Run one of the sources of this project and give what its chunk returns."""
        source = resources.files(package).joinpath(path).read_bytes()
        load = self.lua.eval(b"function(text, name) return assert(load(text, name, 't'))() end")
        return load(source, b"=" + path.encode())


@pytest.fixture
def vm() -> Vm:
    return Vm()


@pytest.fixture
def loads(vm: Vm) -> Callable[[str], str]:
    """Lua's own opinion of a text: an empty text, or the error of ``load``."""
    load = vm.lua.eval(b"function(text) local f, e = load(text, '=chunk', 't') return e or '' end")
    return lambda text: load(text.encode()).decode()
