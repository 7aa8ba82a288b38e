"""Whatever plain data goes into a process comes out of it the same."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.luaworld import OUTSIDE, World

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=40),
)
KEYS = st.one_of(st.binary(max_size=10), st.integers(-10, 10), st.floats(0.1, 0.9))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(KEYS, inner, max_size=6)),
    max_leaves=40,
)
RELAY = """local function main()
    local inbox = process.inbox()
    while true do
        local m = inbox:receive()
        local list = m:payload()
        process.send(process.pid(), "again", list:data())
        local again = inbox:receive()
        process.send(m:from(), "back", again:payload():data())
    end
end
return { main = main }"""

_world = World()
_world.entry("app:relay", RELAY)
_relay = _world.spawn("app:relay")


def as_lua_has_it(value: Any) -> Any:
    """What the rule of lists and maps makes of a value."""
    match value:
        case list():
            return [as_lua_has_it(item) for item in value]
        case dict() if not value:
            return []
        case dict():
            items = {key: as_lua_has_it(item) for key, item in value.items()}
            if set(items) == set(range(1, len(items) + 1)):
                return [items[position] for position in range(1, len(items) + 1)]
            return items
        case _:
            return value


def is_same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    match left:
        case list():
            return len(left) == len(right) and all(is_same(a, b) for a, b in zip(left, right, strict=True))
        case dict():
            return left.keys() == right.keys() and all(is_same(item, right[key]) for key, item in left.items())
        case float():
            return left == right and math.copysign(1, left) == math.copysign(1, right)
        case _:
            return bool(left == right)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_a_value_survives_the_way_into_lua_between_processes_and_back(value: Any) -> None:
    _world.out.clear()
    _world.send(_relay, "t", value, sender=OUTSIDE)
    [(topic, payloads)] = _world.messages()
    assert topic == "back"
    assert is_same(payloads[0], as_lua_has_it(value))
