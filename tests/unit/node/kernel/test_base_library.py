"""The base library is what docs/modules.md says, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.luaworld import World

PAGE = Path(__file__).parents[4] / "docs" / "modules.md"
LIBRARIES = ("string", "table", "math", "os", "coroutine")
ABSENT = """load loadstring loadfile dofile collectgarbage rawlen debug package io utf8 python module
    newproxy setfenv getfenv
    jit bit32 ffi K turns arg""".split()  # noqa: SIM905 - easier to read


def written() -> dict[str, set[str]]:
    """The names in the table of the page, by library."""
    section = PAGE.read_text(encoding="utf-8").split("## The base library")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `?(\w+)`? \| (`.*`) \|$", section, re.MULTILINE)
    return {library: set(re.findall(r"`([^`]+)`", names)) for library, names in rows}


def test_each_library_has_what_is_written() -> None:
    for library in LIBRARIES:
        names = World().main(
            f"local names = {{}} for name in pairs({library}) do names[#names + 1] = name end return names"
        )
        assert {name.decode() for name in names} == written()[library]


def test_every_base_function_is_there_and_nothing_that_reaches_out() -> None:
    present = World().main(
        "local found = {} for _, name in ipairs({ ... }) do if _G[name] ~= nil then found[#found + 1] = name end end "
        "return table.concat(found, ' ')",
        *(name.encode() for name in sorted(written()["base"]) + ABSENT),
    )
    assert set(present.decode().split()) == written()["base"]
    for call in ("string.dump", "os.execute", "os.exit", "os.getenv", "os.remove", "os.rename", "os.tmpname"):
        assert World().main(f"return {call} == nil") is True


def test_a_long_text_is_searched_while_others_have_their_turns_or_the_search_is_refused(world: World) -> None:
    """Lua's own matcher would stand still for it; here the search gives way, for less than 100 ms in all."""
    body = """local s = ("word "):rep(20000)
    return { s:find("%s+$"), (#s:match("^%s*(.-)%s*$")), (s .. "joe@example.com"):match("[%w%.]+@[%w%.]+%.%a+") }"""
    assert world.main(body) == [100_000, 99_999, b"joe@example.com"]
    with pytest.raises(AssertionError, match="too costly on a text of 1000000 bytes: use fewer repetitions"):
        world.main('return (("word "):rep(200000)):find("%s+$")')
