"""Items and their values on the way into the kernel and back."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest

from cluster.envelope import Kind
from node.host.boundary import In, ItemPacker, pack_batch, unpack_batch
from tests.luaworld import OUTSIDE, World


def unpacked(item: list[Any]) -> Any:
    return msgpack.unpackb(ItemPacker().pack(item), raw=True, strict_map_key=False)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1", 1),
        ("3.0", 3.0),
        ("-0.0", -0.0),
        ("-1", -1),
        ("-33", -33),
        ("128", 128),
        ("65536", 65536),
        ("1 << 40", 1 << 40),
        ("math.mininteger", -(2**63)),
        ("math.maxinteger", 2**63 - 1),
        ("math.huge", math.inf),
        ("true", True),
        ("'a\\0b\\255'", b"a\x00b\xff"),
        ("('x'):rep(31)", b"x" * 31),
        ("('x'):rep(300)", b"x" * 300),
        ("('x'):rep(70000)", b"x" * 70000),
        ("{}", []),
        ("{ 1, 2, 3 }", [1, 2, 3]),
        ("(function() local t = {} for i = 1, 100000 do t[i] = i end return t end)()", list(range(1, 100001))),
        ("(function() local t = {} for i = 1, 70000 do t['k' .. i] = i end return #t end)()", 0),
        ("{ [3] = 'c', [1] = 'a', [2] = 'b' }", [b"a", b"b", b"c"]),
        ("(function() local t = {} t.a = 1 t[1] = 1 return t end)()", {b"a": 1, 1: 1}),
        ("{ 1, nil, 3 }", {1: 1, 3: 3}),
        ("{ 1, nil, 3, x = 4 }", {1: 1, 3: 3, b"x": 4}),
        ("{ [0] = 'z', 'a' }", {0: b"z", 1: b"a"}),
        ("{ [true] = 1 }", {True: 1}),
        ("{ [1.5] = 1 }", {1.5: 1}),
        ("{ a = { b = { 1, { c = false } } } }", {b"a": {b"b": [1, {b"c": False}]}}),
        ("setmetatable({ 1 }, { __index = function() return 2 end, __len = function() return 5 end })", [1]),
    ],
)
def test_a_value_leaves_the_kernel_as_what_it_is(source: str, value: Any) -> None:
    world = World()
    world.main(f"local ok, err = process.send('{OUTSIDE.decode()}', 't', {source}) if not ok then error(err) end")
    [(_, [sent])] = world.messages()
    assert sent == value
    assert type(sent) is type(value)
    assert not isinstance(value, float) or math.copysign(1, sent) == math.copysign(1, value)


def test_a_message_of_a_thousand_payloads_keeps_its_holes() -> None:
    world = World()
    world.main(f"process.send('{OUTSIDE.decode()}', 't', nil, table.unpack({{}}, 1, 1000))")
    assert world.messages() == [("t", [None] * 1001)]


def test_what_comes_in_may_hold_text_and_it_becomes_bytes() -> None:
    assert unpacked([In.ANSWER, 7, None, [{"a": ["b", "\udcff"]}]])[3] == [{b"a": [b"b", b"\xff"]}]


def test_a_batch_is_read_back_as_it_was() -> None:
    items: list[list[Any]] = [[Kind.MESSAGE, b"x", 1.0, None], [55]]
    assert unpack_batch(msgpack.packb(items, use_bin_type=False)) == items
    texts = [ItemPacker().pack(item) for item in items]
    assert msgpack.unpackb(pack_batch(texts), raw=True) == texts


@pytest.mark.parametrize("value", [object(), 2**70, {1, 2}, lambda: None])
def test_what_is_no_plain_data_is_reported_and_not_raised(value: Any) -> None:
    packer = ItemPacker()
    message: list[Any] = [int(Kind.MESSAGE), b"x", b"y", 0, b"t", [value], b"", 0]
    code, problem = msgpack.unpackb(packer.pack(message), raw=True)
    assert code == In.MALFORMED
    assert b"is not plain data" in problem
    assert msgpack.unpackb(packer.pack([41, 1, 2]), raw=True) == [41, 1, 2], "the packer must go on"


def test_an_answer_that_is_no_plain_data_becomes_an_error() -> None:
    _, operation, error, values = unpacked([int(In.ANSWER), 7, None, [object()]])
    assert (operation, error[b"kind"], values) == (7, b"Internal", [])


def test_nesting_beyond_reason_is_malformed() -> None:
    value: Any = []
    for _ in range(5000):
        value = [value]
    assert unpacked([int(Kind.MESSAGE), b"x", b"y", 0, b"t", value, b"", 0])[0] == In.MALFORMED


@pytest.mark.parametrize(
    "value",
    [{math.nan: 1}, {None: 1}, [{"deep": {math.nan: 1}}], msgpack.ExtType(5, b"x"), {"t": msgpack.Timestamp(1, 2)}],
)
def test_what_lua_can_not_hold_spoils_only_its_own_item(value: Any) -> None:
    world = World()
    pid = world.spawn_body("return process.inbox():receive():payload():data()")
    message = [int(Kind.MESSAGE), pid, OUTSIDE, 0, b"t"]
    world.run([*message, [value], b"", 0], [*message, [b"fine"], b"", 0])
    assert world.exit_of(pid)[5] == b"fine"
    assert len(world.complaints()) == 1


def test_integers_beyond_63_bits_become_floats() -> None:
    world = World()
    pid = world.spawn_body("local v = process.inbox():receive():payload():data() return { v, math.type(v) }")
    world.send(pid, "t", 2**64 - 1)
    assert world.exit_of(pid)[5] == [2.0**64, b"float"]
