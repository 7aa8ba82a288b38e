"""``find`` with every operator, on states that went through versions, against a filter as plain as can be."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.registry import Entry, RegistryState, build_delta

WORDS = ["", "a", "ab", "abc", "b", "bc", "a.b", "function.lua", "function.go", "7"]
words = st.sampled_from(WORDS)
values = words | st.integers(-1, 8) | st.booleans() | st.just(1.0) | st.lists(words | st.integers(0, 2), max_size=3)
metas = st.dictionaries(st.sampled_from(["type", "tags", "deep", "x.y"]), values | st.fixed_dictionaries({"y": values}))
ids = st.builds("{}:{}".format, st.sampled_from(["a", "a.b", "b"]), st.sampled_from(["x", "xy", "a.b", "z"]))
kinds = st.sampled_from(["function.lua", "function.go", "a", "a.b"])
worlds = st.lists(st.builds(Entry, ids, kinds, metas), max_size=8, unique_by=lambda entry: entry.id)
fields = st.sampled_from(
    [".kind", ".ns", ".name", ".id", "meta.type", "meta.tags", "meta.deep", "meta.deep.y", "meta.x.y"]
)
globs = st.sampled_from(["function.*", "*", "*.lua", "f*n.*a", "a*", "**"])
patterns = st.sampled_from(["^a", "b$", "a|b", "[ab]c", "a.b", "a+", "^$", "^(true|7)$", "u.*a"])
conditions = (
    st.tuples(st.just(""), fields, values)
    | st.tuples(st.just(""), st.just(".kind"), globs)
    | st.tuples(st.sampled_from("*^$"), fields, values)
    | st.tuples(st.just("~"), fields, patterns)
)
filters = st.lists(conditions, min_size=1, max_size=3).map(
    lambda each: {how + field: value for how, field, value in each}
)


def held(entry: Entry, field: str) -> list[Any]:
    """What stands in a field, in a list; empty when there is no such field."""
    if field[0] == ".":
        return [{".kind": entry.kind, ".ns": entry.ns, ".name": entry.name, ".id": entry.id}[field]]
    key = field.removeprefix("meta.")
    if key in entry.meta:
        return [entry.meta[key]]
    first, _, rest = key.partition(".")
    below = entry.meta.get(first)
    return [below[rest]] if rest and isinstance(below, dict) and rest in below else []


def as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def equal(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)


def plainly(entry: Entry, how: str, field: str, wanted: Any) -> bool:
    for found in held(entry, field):
        text, part = as_text(found), as_text(wanted)
        match how:
            case "" if field == ".kind":
                shape = re.escape(wanted).replace(r"\*", ".*") if isinstance(wanted, str) else None
                return shape is not None and re.fullmatch(shape, found) is not None
            case "":
                return equal(found, wanted)
            case "*" if isinstance(found, list):
                return any(equal(item, wanted) for item in found)
            case _ if text is None or part is None:
                return False
            case "~":
                return re.search(wanted, text) is not None
            case "*":
                return part in text
            case "^":
                return text.startswith(part)
            case "$":
                return text.endswith(part)
    return False


@settings(max_examples=150, deadline=None)
@given(worlds, worlds, st.lists(filters, min_size=1, max_size=4))
def test_find_is_what_looking_at_each_entry_finds(
    before: list[Entry], after: list[Entry], wanted: list[dict[str, Any]]
) -> None:
    state = RegistryState.of(before, 0)
    for filter in wanted:  # this also makes indexes, which the next version carries on
        check(state, filter)
    state = state.advance(build_delta(before, after), 1)
    for filter in wanted:
        check(state, filter)


def check(state: RegistryState, filter: dict[str, Any]) -> None:
    conditions = [(key[0], key[1:], value) if key[0] in "~*^$" else ("", key, value) for key, value in filter.items()]
    plain = [entry.id for entry in state.entries() if all(plainly(entry, *each) for each in conditions)]
    assert [entry.id for entry in state.find(filter)] == plain


def test_more_fields_than_are_indexed_are_found_as_well() -> None:
    entries = [Entry(f"a:e{n}", "registry.entry", {f"f{n}": "x"}) for n in range(60)]
    state = RegistryState.of(entries, 0)
    for n in range(60):
        assert [entry.id for entry in state.find({f"meta.f{n}": "x"})] == [f"a:e{n}"]
