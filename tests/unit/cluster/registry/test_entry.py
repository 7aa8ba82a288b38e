from __future__ import annotations

import dataclasses

import pytest

from cluster.errors import Invalid
from cluster.registry import Entry, Origin, id_text, split_id, with_default_ns
from cluster.registry.entry import id_flaw


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("app:x", ("app", "x")),
        ("app:x:y", ("app", "x:y")),
        (":json", ("", "json")),
        ("x", ("", "x")),
        ("a.b:c.d-e_f", ("a.b", "c.d-e_f")),
    ],
)
def test_an_id_splits_on_the_first_colon(text: str, parts: tuple[str, str]) -> None:
    assert split_id(text) == parts


def test_a_reference_without_a_namespace_means_the_own_one() -> None:
    assert with_default_ns("x", "app") == with_default_ns(":x", "app") == "app:x"
    assert with_default_ns("lib:x", "app") == "lib:x"


@pytest.mark.parametrize("text", ["app:x", "a.b-c.d_1:tool.weather", "app:ünïcode", "app:x:y"])
def test_ids_that_are_accepted(text: str) -> None:
    assert id_flaw(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        ":x",
        "app:",
        "a b:x",
        "app:x y",
        "app:x/y",
        "app:x|y",
        "app:{x}",
        "app:x@y",
        "a..b:x",
        ".a:x",
        "app:\n",
        "app:\ud800",
        "app:" + "x" * 300,
    ],
)
def test_ids_that_are_refused(text: str) -> None:
    assert id_flaw(text)
    with pytest.raises(Invalid):
        Entry.parse({"id": text, "kind": "registry.entry"})


def test_an_id_may_be_a_map_of_namespace_and_name() -> None:
    assert id_text({"ns": "app", "name": "x"}) == "app:x"
    with pytest.raises(Invalid):
        id_text({"ns": "app"})


def test_an_entry_survives_its_json_form() -> None:
    entry = Entry("app:x", "registry.entry", {"type": "t"}, {"a": [1, {"b": None}]}, Origin.FILES)
    assert Entry.parse(entry.as_dict()) == entry


def test_the_empty_table_of_lua_is_an_empty_map() -> None:
    entry = Entry.parse({"id": "app:x", "kind": "registry.entry", "meta": [], "data": []})
    assert (entry.meta, entry.data) == ({}, {})


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        ("app:x", "expected an entry as a map"),
        ({"id": "app:x"}, "expected a kind"),
        ({"id": "app:x", "kind": 3}, "expected a kind"),
        ({"id": "app:x", "kind": "a b"}, "expected a kind"),
        ({"id": "app:x", "kind": "k", "meta": "m"}, "expected a map, got str"),
        ({"id": "app:x", "kind": "k", "data": {"x": b""}}, "x: bytes is not a JSON value"),
        ({"id": "app:x", "kind": "k", "source": "..."}, "unknown field source"),
        ({"id": "app:x", "kind": "k", "origin": "moon"}, "expected origin"),
    ],
)
def test_a_bad_entry_is_refused_with_what_is_wrong(raw: object, what: str) -> None:
    with pytest.raises(Invalid) as refused:
        Entry.parse(raw)
    assert what in str(refused.value)


def test_all_problems_of_an_entry_are_found_at_once() -> None:
    problems = Entry("nope", "a b", {"x": b""}, {"y": b""}).problems()
    assert [problem.field for problem in problems] == ["id", "kind", "meta", "data"]


def test_an_entry_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Entry("app:x", "k").kind = "other"  # type: ignore[misc]


def test_content_is_compared_as_json_and_without_the_origin() -> None:
    entry = Entry("app:x", "k", {}, {"n": 1}, Origin.FILES)
    assert entry.same_content(Entry("app:x", "k", {}, {"n": 1}, Origin.RUNTIME))
    assert not entry.same_content(Entry("app:x", "k", {}, {"n": True}, Origin.FILES))
    assert not entry.identical(entry.with_origin(Origin.RUNTIME))
