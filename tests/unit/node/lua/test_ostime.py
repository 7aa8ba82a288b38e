"""The clock functions of the global os."""

from __future__ import annotations

import pytest

from tests.unit.node.lua.conftest import Vm


@pytest.fixture(scope="module")
def module() -> Vm:
    vm = Vm()
    vm.lua.globals()[b"make"] = vm.load("node.lua", "kernel/ostime.lua")
    vm.run("sandboxed = make(os)")
    return vm


def test_only_the_clock_is_there(module: Vm) -> None:
    names = module.run(
        "local n = {} for k in pairs(sandboxed) do n[#n + 1] = k end table.sort(n) return table.concat(n, ' ')"
    )
    assert names == b"clock date difftime platform time"
    assert module.run("return sandboxed.platform") == b"wippy"


def test_dates_and_times_are_lua_s(module: Vm) -> None:
    assert module.run("return sandboxed.date('!%Y-%m-%dT%H:%M:%SZ', 1735484645)") == b"2024-12-29T15:04:05Z"
    assert module.run("return sandboxed.date('!*t', 0).year") == 1970
    module.run("noon = { year = 2024, month = 1, day = 1, hour = 12 }")
    assert module.run("return sandboxed.date('%H', sandboxed.time(noon))") == b"12"
    assert module.run("return sandboxed.difftime(5, 3)") == 2
    assert module.run("return math.type(sandboxed.time()), type(sandboxed.clock()), type(sandboxed.date())") == (
        b"integer",
        b"number",
        b"string",
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("date('%Ez')", "invalid conversion specifier"),
        ("date(('%c'):rep(3000))", "a format of 6000 bytes is over the limit of 4096"),
        ("time({year = 2024})", "field 'month' missing"),
        ("date('%Y', 2^60)", "cannot be represented"),
    ],
)
def test_a_wrong_argument_raises(module: Vm, call: str, message: str) -> None:
    assert message in module.error(f"return sandboxed.{call}")
