from __future__ import annotations

import math

import pytest

from cluster.registry.value import MAX_DEPTH, canonical, flaw, parse, same


@pytest.mark.parametrize("value", [None, True, -(2**63), 2**63 - 1, 1.5, "ä", [], {"a": [{"b": None}]}])
def test_json_like_values_have_no_flaw(value: object) -> None:
    assert flaw(value) == ""


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, math.inf]}, "a[1]: inf"),
        ({"a": math.nan}, "a: nan"),
        ({"a": {"b": 2**63}}, "a.b: integer outside 64 bits"),
        ({"a": b"raw"}, "a: bytes"),
        ({1: "x"}, "expected text keys, got 1"),
        ({"a": "\ud800"}, "a: text that is not valid UTF-8"),
        ({"\ud800": 1}, "expected text keys"),
        ((1, 2), "tuple is not a JSON value"),
    ],
)
def test_a_flaw_is_named_with_its_place(value: object, place: str) -> None:
    assert place in flaw(value)


def test_depth_is_limited_also_for_a_value_that_holds_itself() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert f"deeper than {MAX_DEPTH}" in flaw(endless)


def test_a_value_that_shares_its_parts_a_billion_times_is_refused_quickly() -> None:
    value: object = "lol"
    for _ in range(40):
        value = [value, value]
    assert "more than" in flaw(value)


@pytest.mark.parametrize(
    ("left", "right"), [(1, True), (1, 1.0), (0, False), ({"a": [1]}, {"a": [True]}), (None, False)]
)
def test_values_that_json_tells_apart_are_not_the_same(left: object, right: object) -> None:
    assert not same(left, right)


def test_canonical_text_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": {"d": 1, "c": "ä"}}) == canonical({"a": {"c": "ä", "d": 1}, "b": 1})


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_parsing_what_is_no_json_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        parse(raw)
