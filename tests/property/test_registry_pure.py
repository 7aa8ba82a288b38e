"""Laws of changesets, overlays and order, for any entries."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.registry import Changeset, Entry, Origin, RegistryState, build_delta, creation_order, references
from cluster.registry.changeset import Fold, Mark
from cluster.registry.overlay import merge
from cluster.registry.value import canonical, canonical_list, flaw, outweighs, parse, parse_list, same

text = st.text('ab\u00e9\u65e5\n"\\', max_size=4)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)
ids = st.builds("{}:{}".format, st.sampled_from(["a", "b.c"]), st.sampled_from(["x", "y", "z", "x.y", "x:y"]))
metas = st.dictionaries(
    st.sampled_from(["type", "depends_on", "title"]), ids | st.lists(ids, max_size=3) | scalars, max_size=3
)
entries = st.builds(
    Entry, ids, st.sampled_from(["registry.entry", "process.lua"]), metas, mappings, st.sampled_from(list(Origin))
)
sets_of_entries = st.lists(entries, max_size=6, unique_by=lambda entry: entry.id)


def same_states(left: RegistryState, right: RegistryState) -> bool:
    return (
        not left.differs_from(right)
        and not left.base_differs_from(right, left.base.keys() | right.base.keys())
        and canonical(left.at(0).payload().decode()) == canonical(right.at(0).payload().decode())
    )


@settings(max_examples=60, deadline=None)
@given(sets_of_entries, sets_of_entries)
def test_applying_the_difference_leads_there(before: list[Entry], after: list[Entry]) -> None:
    start = RegistryState.of(before, 0)
    delta = build_delta(before, after)
    assert not delta or not delta.problems(start.base)
    assert same_states(start.advance(delta, 1), RegistryState.of(after, 1))


@settings(max_examples=60, deadline=None)
@given(sets_of_entries, sets_of_entries)
def test_there_and_back_again_is_where_it_was(before: list[Entry], after: list[Entry]) -> None:
    start = RegistryState.of(before, 0)
    there = start.advance(build_delta(before, after), 1)
    assert same_states(there.advance(build_delta(after, before), 2), start)


@settings(max_examples=60, deadline=None)
@given(sets_of_entries, sets_of_entries, ids, mappings)
def test_the_stored_forms_lose_nothing(
    before: list[Entry], after: list[Entry], id: str, mapping: dict[str, Any]
) -> None:
    delta = build_delta(before, after)
    changes = Changeset((*delta.operations, Fold(id, mapping, 5), Mark(id, True), Mark("a:z", False)))
    assert canonical(changes.payload().decode()) == canonical(Changeset.parse(changes.payload()).payload().decode())
    state = RegistryState.of(before, 0).advance(changes, 1)
    assert same_states(RegistryState.parse(state.payload()), state)


@settings(max_examples=60, deadline=None)
@given(sets_of_entries, st.lists(st.tuples(ids, st.none() | mappings), max_size=6))
def test_removing_every_overlay_gives_the_base_back(
    base: list[Entry], folds: list[tuple[str, dict[str, Any] | None]]
) -> None:
    start = state = RegistryState.of(base, 0)
    for mod, (id, mapping) in enumerate(folds, 1):
        state = state.advance(Changeset((Fold(id, mapping, mod if mapping is not None else 0),)), mod)
    for id in list(state.overlays):
        state = state.advance(Changeset((Fold(id, None, 0),)), state.version + 1)
    assert same_states(state, start)


@settings(max_examples=60, deadline=None)
@given(sets_of_entries, sets_of_entries, ids, mappings)
def test_an_index_finds_what_looking_at_all_finds(
    before: list[Entry], after: list[Entry], id: str, mapping: dict[str, Any]
) -> None:
    changes = Changeset((Fold(id, mapping, 3), *build_delta(before, after).operations))
    state = RegistryState.of(before, 0).advance(changes, 1)
    for kind in ("registry.entry", "process.lua"):
        assert state.find({".kind": kind}) == [entry for entry in state.entries() if entry.kind == kind]
    for value in {entry.meta.get("type") for entry in state.entries() if isinstance(entry.meta.get("type"), str)}:
        assert state.find({"meta.type": value}) == [e for e in state.entries() if e.meta.get("type") == value]


@settings(max_examples=60, deadline=None)
@given(mappings, mappings)
def test_an_overlay_laid_twice_is_laid_once(base: dict[str, Any], over: dict[str, Any]) -> None:
    once = merge(base, over)
    assert same(merge(once, over), once)
    assert not [key for key, value in over.items() if value is None and key in once]


@settings(max_examples=60, deadline=None)
@given(values)
def test_every_value_without_a_flaw_survives_json(value: Any) -> None:
    assert flaw(value) == ""
    assert same(parse(canonical(value)), value)


@settings(max_examples=60, deadline=None)
@given(sets_of_entries)
def test_the_order_holds_everything_once_and_used_before_user_unless_in_a_cycle(found: list[Entry]) -> None:
    order = creation_order(found)
    assert sorted(order) == sorted(entry.id for entry in found)
    needs = {entry.id: set(references(entry)) & set(order) - {entry.id} for entry in found}

    def reaches(start: str, goal: str, seen: frozenset[str] = frozenset()) -> bool:
        return any(each == goal or reaches(each, goal, seen | {each}) for each in needs[start] if each not in seen)

    for user, used in needs.items():
        for each in used:
            assert order.index(each) < order.index(user) or reaches(each, user)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, max_size=4), st.dictionaries(st.sampled_from(["m", "n"]), values))
def test_a_list_made_and_read_item_by_item_is_the_same_json(items: list[Any], others: dict[str, Any]) -> None:
    whole = {"items": items} | {f"l{key}": value for key, value in others.items()}
    raw = canonical_list("items", items, {key: value for key, value in whole.items() if key != "items"})
    assert raw == canonical(whole)
    assert same(parse_list(raw, "items"), whole)
    assert same(parse_list(b" " + raw, "items"), whole), "another form is read in one go"


@settings(max_examples=60, deadline=None)
@given(values)
def test_weighing_is_about_the_length_of_the_json(value: Any) -> None:
    assert outweighs([value], len(canonical(value)) // 8 - 1)
    assert not outweighs([value], 20 * len(canonical(value)))
