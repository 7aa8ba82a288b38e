from __future__ import annotations

import pytest

from cluster.errors import Invalid
from cluster.registry import Changeset, Create, Delete, Entry, Update, build_delta, parse_operation
from cluster.registry.changeset import Fold


def entry(id: str, **data: object) -> Entry:
    return Entry(id, "registry.entry", {}, dict(data))


class TestProblems:
    def test_no_operation_at_all_is_refused(self) -> None:
        assert [p.message for p in Changeset().problems(())] == ["no changes to apply"]

    def test_every_problem_is_found_and_names_its_entry(self) -> None:
        changes = Changeset(
            (Create(entry("a:x")), Update(entry("a:y")), Delete("a:z"), Create(Entry("bad", "k")), Fold("a:w", {}, 1))
        )
        found = [(p.entry, p.message) for p in changes.problems({"a:x"})]
        assert found[:3] == [
            ("a:x", "exists already; update it instead"),
            ("a:y", "does not exist; create it instead"),
            ("a:z", "does not exist"),
        ]
        assert [id for id, _ in found[3:]] == ["bad", "a:w"]

    def test_operations_see_what_the_earlier_ones_did(self) -> None:
        x = entry("a:x")
        assert not Changeset((Create(x), Update(x), Delete("a:x"), Create(x))).problems(())
        assert Changeset((Delete("a:x"), Update(x))).problems({"a:x"})


class TestStoredForm:
    def test_a_changeset_survives_it(self) -> None:
        changes = Changeset(
            (
                Create(entry("a:x", n=1)),
                Update(entry("a:y")),
                Delete("a:z"),
                Fold("a:w", {"n": None}, 7),
                Fold("a:v", None, 0),
            )
        )
        assert Changeset.parse(changes.payload()) == changes

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"[]",
            b"{}",
            b'{"operations":[1]}',
            b'{"operations":[{"kind":"entry.burn"}]}',
            b'{"operations":[{"kind":"overlay","id":"a:x","mapping":3,"mod":1}]}',
        ],
    )
    def test_what_is_no_changeset_is_refused(self, raw: bytes) -> None:
        with pytest.raises(Invalid):
            Changeset.parse(raw)

    def test_one_over_the_limit_is_refused_with_both_sizes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cluster.registry.changeset.MAX_PAYLOAD", 100)
        with pytest.raises(Invalid, match=r"changeset of \d+ bytes is over the limit of 100 bytes"):
            Changeset((Create(entry("a:x", text="x" * 100)),)).payload()


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "entry.delete", "id": "a:x"},
        {"kind": "entry.delete", "entry": "a:x"},
        {"kind": "entry.delete", "entry": {"ns": "a", "name": "x"}},
        {"kind": "entry.delete", "entry": {"id": "a:x"}},
    ],
)
def test_a_delete_names_its_entry_in_any_of_the_known_ways(raw: object) -> None:
    assert parse_operation(raw) == Delete("a:x")


class TestBuildDelta:
    def test_the_same_on_both_sides_is_no_change(self) -> None:
        assert not build_delta([entry("a:x", n=1)], [entry("a:x", n=1)])

    def test_a_number_that_became_a_boolean_is_a_change(self) -> None:
        assert build_delta([entry("a:x", n=1)], [entry("a:x", n=True)]).operations == (Update(entry("a:x", n=True)),)

    def test_used_entries_are_created_before_and_deleted_after_their_users(self) -> None:
        service = Entry("a:a-service", "process.service", {}, {"process": "z-process", "host": "a:m-host"})
        both = [service, Entry("a:z-process", "process.lua"), Entry("a:m-host", "process.host")]
        created = [operation.id for operation in build_delta([], both).operations]
        assert created == ["a:m-host", "a:z-process", "a:a-service"]
        assert [operation.id for operation in build_delta(both, []).operations] == created[::-1]
