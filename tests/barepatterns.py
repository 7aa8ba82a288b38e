"""The guarded string functions in a bare VM, without a kernel: for tests that compare and measure them."""

from __future__ import annotations

from typing import Any

import lupa.lua54 as lupa

from node.host.sources import read_kernel

FILES = (b"arguments", b"pattern_items", b"pattern_costs", b"pattern_matcher", b"pattern_replacing", b"patterns")

LOAD = b"""
local files = ...
local K = { parts = {}, turns = { charge = function() end }, guards = { OUT_OF_MEMORY = "not enough memory" } }
for i = 1, #files do
    K.parts[files[i][1]] = assert(load(files[i][2], "=kernel/" .. files[i][1], "t"))(K)
end
return K.parts.patterns
"""


def bare_lua() -> lupa.LuaRuntime:
    return lupa.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)


def load_patterns(lua: lupa.LuaRuntime) -> Any:
    """The function of limits that gives find, match, gmatch and gsub."""
    texts = dict(read_kernel())
    files = [(name, texts[name]) for name in FILES]
    return lua.execute(LOAD, lua.table_from(files, recursive=True))
