"""Patterns over dotted names."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.patterns import Pattern


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("orders", ["orders"], ["order", "orders.x", ""]),
        ("*", ["orders", ""], ["a.b"]),
        ("registry.*", ["registry.create"], ["registry", "registry.entry.create"]),
        ("registry.**", ["registry", "registry.create", "registry.entry.create"], ["other"]),
        ("**", ["a", "a.b.c", ""], []),
        ("**.end", ["end", "a.end", "a.b.end"], ["end.a"]),
        ("a.**.z", ["a.z", "a.b.z", "a.b.c.z"], ["a", "z", "a.b"]),
        ("user.(created|deleted)", ["user.created", "user.deleted"], ["user.updated", "user"]),
        ("user_(a|b)_x.*", ["user_a_x.1", "user_b_x.2"], ["user_c_x.1", "user_a_x"]),
        ("(|x)y", ["y", "xy"], ["xxy"]),
    ],
)
def test_what_a_pattern_matches(pattern: str, yes: list[str], no: list[str]) -> None:
    compiled = Pattern(pattern)
    assert [name for name in yes if not compiled.matches(name)] == []
    assert [name for name in no if compiled.matches(name)] == []


@pytest.mark.parametrize(
    "pattern", ["a*", "*a", "(a", "a)", "(a|(b|c))", "(a.b|c)", "a|b", "(*|b)", "***", "", "x" * 257]
)
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Pattern(pattern)


def test_too_many_alternatives_or_segments_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 64"):
        Pattern("(a|b)" * 7)
    with pytest.raises(ValueError, match="at most 32"):
        Pattern(".".join("a" * 33))


def test_only_plain_text_is_literal() -> None:
    assert Pattern("a.b").literal == "a.b"
    assert [Pattern(text).literal for text in ("a.*", "**", "(a)")] == [None, None, None]


def test_a_hostile_pattern_costs_little() -> None:
    pattern = Pattern(".".join(["**", "a"] * 16))
    began = time.perf_counter()
    assert not pattern.matches(".".join("a" * 2000) + ".b")
    assert time.perf_counter() - began < 1.0


SEGMENT = st.sampled_from(["a", "b", "*", "**", "(a|b)", "(a|c)"])
NAME = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6)


@given(pattern=st.lists(SEGMENT, min_size=1, max_size=5), name=NAME)
def test_it_agrees_with_a_regular_expression(pattern: list[str], name: list[str]) -> None:
    # each segment of the name ends with a dot, so that "any number" is (segment.)*
    regex = "".join({"*": r"[^.]*\.", "**": r"([^.]*\.)*"}.get(part, part + r"\.") for part in pattern)
    expected = re.fullmatch(regex, "".join(part + "." for part in name)) is not None
    assert Pattern(".".join(pattern)).matches(".".join(name)) == expected
