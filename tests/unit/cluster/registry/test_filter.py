from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import Invalid
from cluster.registry import Entry, Filter
from cluster.registry.filter import glob

ENTRY = Entry(
    "app.api:users.list",
    "http.endpoint",
    {"type": "tool", "tags": ["a", "b"], "port": 8080, "on": True, "deep": {"er": "x"}, "graph.rule": "true"},
)


@pytest.mark.parametrize(
    "filter",
    [
        {},
        {".kind": "http.endpoint"},
        {".kind": "http.*"},
        {".kind": "*.end*"},
        {".ns": "app.api", ".name": "users.list", ".id": "app.api:users.list"},
        {"meta.type": "tool"},
        {"meta.port": 8080},
        {"meta.on": True},
        {"meta.tags": ["a", "b"]},
        {"meta.deep.er": "x"},
        {"meta.graph.rule": "true"},
        {"~meta.type": "^t.*l$"},
        {"~.name": r"users\."},
        {"*meta.type": "oo"},
        {"*meta.tags": "b"},
        {"*meta.port": "08"},
        {"^meta.type": "to"},
        {"$.id": "list"},
        {"^meta.on": "tr"},
    ],
)
def test_a_filter_that_holds(filter: dict[str, Any]) -> None:
    assert Filter.parse(filter).holds(ENTRY)


@pytest.mark.parametrize(
    "filter",
    [
        {".kind": "http"},
        {".ns": "app.*"},
        {".name": "users.*"},
        {"meta.type": "TOOL"},
        {"meta.port": "8080"},
        {"meta.port": 8080.5},
        {"meta.on": 1},
        {"meta.tags": "a"},
        {"meta.missing": None},
        {"*meta.tags": "c"},
        {"~meta.tags": "a"},
        {"^meta.tags": "a"},
        {"~meta.type": "^ool"},
        {"$meta.type": "too"},
        {".kind": "http.*", "meta.type": "no"},
        {".kind": 3},
    ],
)
def test_a_filter_that_does_not_hold(filter: dict[str, Any]) -> None:
    assert not Filter.parse(filter).holds(ENTRY)


def test_keys_of_another_shape_are_ignored_and_listed() -> None:
    filter = Filter.parse({"kind": "registry.entry", "meta.": 1, ".nope": 1, "~x": "(", ".ns": "app.api"})
    assert filter.ignored == ("kind", "meta.", ".nope", "~x")
    assert filter.holds(ENTRY)


@pytest.mark.parametrize("value", ["(", "(?=x)", 3, None])
def test_a_bad_regular_expression_is_refused_with_its_key(value: Any) -> None:
    with pytest.raises(Invalid, match=r"~meta\.type"):
        Filter.parse({"~meta.type": value})


@pytest.mark.parametrize(
    ("pattern", "text", "holds"),
    [
        ("*", "", True),
        ("a*", "a", True),
        ("a*a", "a", False),
        ("a**b", "ab", True),
        ("*a*b*", "xaxbx", True),
        ("*a*b*", "xbxax", False),
        ("ab*ab", "abab", True),
        ("ab*ab", "aba", False),
    ],
)
def test_a_star_stands_for_any_characters(pattern: str, text: str, holds: bool) -> None:
    assert glob(pattern, text) is holds
