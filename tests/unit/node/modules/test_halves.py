"""Every module that can be required has a Lua half that Lua can read, and the documents name it."""

from __future__ import annotations

from pathlib import Path

import lupa.lua54
import pytest

from node.modules import MODULES, load_halves

DOCUMENT = Path(__file__).parents[4] / "docs" / "modules.md"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_half_is_a_chunk_lua_can_read(name: str) -> None:
    runtime = lupa.lua54.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
    load = runtime.eval(b"function(source, name) return (select(2, load(source, name))) or true end")
    assert load(load_halves()[name].encode(), b"=" + name.encode()) is True


def test_the_modules_the_surface_promises_are_there() -> None:
    assert {
        "process", "channel", "coroutine", "errors", "payload", "json", "time",
        "logger", "funcs", "events", "registry", "env", "store", "io",
    } <= MODULES  # fmt: skip


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_document_lists_every_module(name: str) -> None:
    table = DOCUMENT.read_text().split("## What is there")[1].split("## ")[0]
    assert f"`{name}`" in table
