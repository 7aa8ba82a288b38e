from __future__ import annotations

from random import Random

import pytest

from cluster.errors import Invalid
from cluster.registry import ABSENT, Changeset, Create, Delete, Entry, Filter, RegistryState, Update
from cluster.registry.changeset import Fold


def entry(id: str, type: str = "t", kind: str = "registry.entry", **data: object) -> Entry:
    return Entry(id, kind, {"type": type}, dict(data))


def after(state: RegistryState, *operations: object) -> RegistryState:
    return state.advance(Changeset(operations), state.version + 1)  # type: ignore[arg-type]


START = RegistryState.of([entry("a:x", n=1), entry("a:y", "u", n=2), entry("b:z", kind="process.lua")], 0)


def test_an_empty_registry_is_at_no_version() -> None:
    assert RegistryState.of().version == ABSENT
    assert after(RegistryState.of(), Create(entry("a:x"))).version == 0


def test_a_new_version_leaves_the_old_one_as_it_was() -> None:
    later = after(START, Update(entry("a:x", n=5)), Delete("a:y"), Create(entry("a:new")))
    assert [e.id for e in later.entries()] == ["a:new", "a:x", "b:z"]
    assert [e.id for e in START.entries()] == ["a:x", "a:y", "b:z"]
    assert later.differs_from(START) == START.differs_from(later) == {"a:x", "a:y", "a:new"}


def test_find_follows_every_change_of_what_it_indexes() -> None:
    later = after(START, Update(entry("a:x", "u")), Delete("a:y"), Create(entry("a:new", "t")), Update(entry("b:z")))
    assert [e.id for e in later.find({"meta.type": "t"})] == ["a:new", "b:z"]
    assert [e.id for e in later.find({"meta.type": "u"})] == ["a:x"]
    assert later.find({".kind": "process.lua"}) == []
    assert [e.id for e in later.find({".ns": "a", "*.name": "e"})] == ["a:new"]
    assert [e.id for e in START.find({"meta.type": "t"})] == ["a:x", "b:z"]


def test_find_is_the_same_with_and_without_an_index() -> None:
    for raw in ({"meta.type": "t"}, {".kind": "process.lua", "meta.type": "t"}, {".ns": "a"}, {".kind": "*"}, {}):
        filter = Filter.parse(raw)
        assert START.find(filter) == [e for e in START.entries() if filter.holds(e)]


class TestOverlays:
    def test_everyone_sees_the_overlay_and_the_base_comes_back(self) -> None:
        over = after(START, Fold("a:x", {"n": 9, "m": {"k": 1}}, 77))
        assert over.get("a:x").data == {"n": 9, "m": {"k": 1}}  # type: ignore[union-attr]
        assert over.base["a:x"].data == {"n": 1}
        assert over.overlays["a:x"].mod == 77
        assert after(over, Fold("a:x", None, 0)).get("a:x") == START.get("a:x")

    def test_it_stays_on_top_of_a_new_base(self) -> None:
        over = after(START, Fold("a:x", {"n": 9}, 77))
        assert after(over, Update(entry("a:x", n=2, m=3))).get("a:x").data == {"n": 9, "m": 3}  # type: ignore[union-attr]

    @pytest.mark.parametrize("operation", [Delete("a:x"), Update(entry("a:x", kind="process.lua"))])
    def test_it_goes_with_an_entry_that_goes_or_takes_none_any_more(self, operation: object) -> None:
        assert not after(after(START, Fold("a:x", {"n": 9}, 77)), operation).overlays

    def test_one_for_an_entry_that_takes_none_changes_nothing(self) -> None:
        over = after(START, Fold("b:z", {"n": 9}, 77), Fold("a:gone", {}, 78))
        assert not over.overlays
        assert over.differs_from(START) == frozenset()

    def test_it_is_found_and_indexed_by_what_everyone_sees(self) -> None:
        assert after(START, Fold("a:x", {"n": 9}, 77)).find({"meta.type": "t"})[0].data == {"n": 9}


def test_versions_that_could_never_have_been_checked_apply_all_the_same() -> None:
    later = after(START, Create(entry("a:x", n=7)), Update(entry("a:none")), Delete("a:gone"))
    assert later.get("a:x").data == {"n": 7}  # type: ignore[union-attr]
    assert "a:none" in later


class TestSnapshots:
    def test_a_state_survives_it_with_its_overlays(self) -> None:
        state = after(START, Fold("a:x", {"n": None}, 5))
        back = RegistryState.parse(state.payload())
        assert back.version == state.version
        assert back.entries() == state.entries()
        assert dict(back.base) == dict(state.base)
        assert dict(back.overlays) == dict(state.overlays)
        assert back.find({"meta.type": "u"}) == state.find({"meta.type": "u"})

    @pytest.mark.parametrize(
        "raw",
        [b"", b"{}", b"[]", b'{"version":1,"entries":[{}],"overlays":{}}', b'{"version":1,"entries":[],"overlays":[]}'],
    )
    def test_what_is_none_is_refused(self, raw: bytes) -> None:
        with pytest.raises(Invalid):
            RegistryState.parse(raw)


def test_a_version_of_ten_thousand_entries_is_cheap_and_found_at_once() -> None:
    import time

    state = RegistryState.of([entry(f"a:e{i}", "rare" if i % 100 == 0 else "often") for i in range(10_000)], 0)
    began = time.process_time()
    for i in range(20):
        state = after(state, Update(entry(f"a:e{i}", "often", n=i)))
        state.find({"meta.type": "rare"})
    assert (time.process_time() - began) / 20 < 0.05


def test_a_search_that_would_hold_everybody_up_is_refused_and_an_ordinary_one_of_many_entries_is_not() -> None:
    chance = Random(1)
    many = {f"a:e{n}": " ".join(chance.choices(("red", "green", f"n{n}", "b" * (n % 7)), k=12)) for n in range(5_000)}
    state = RegistryState.of([Entry(id, "registry.entry", {"said": text}) for id, text in many.items()], 0)
    for _ in range(2):  # the first search makes the index
        assert len(state.find({"~meta.said": r"\bn\d*7\b.*(red|green)"})) > 100
    hard = RegistryState.of(
        [Entry(f"a:h{n}", "registry.entry", {"said": "".join(chance.choices("ab", k=8_000))}) for n in range(20)], 0
    )
    for _ in range(2):
        with pytest.raises(Invalid, match=r"~meta\.said: the pattern takes too long on so much text"):
            hard.find({"~meta.said": "(a|b)*a(a|b){12}c"})
