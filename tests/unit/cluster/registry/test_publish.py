from __future__ import annotations

import pytest

from cluster.registry import Create, Delete, Entry, Origin, PushConflict, RegistryState, Take, Update
from cluster.registry.publish import as_files, differences, plan_push


def entry(name: str, n: int = 1, origin: Origin = Origin.FILES) -> Entry:
    return Entry(f"a:{name}", "registry.entry", {}, {"n": n}, origin)


RUNTIME = Origin.RUNTIME
CLUSTER = RegistryState.of([entry("same"), entry("changed"), entry("gone"), entry("made", 1, RUNTIME)], 3)
FILES = [entry("same"), entry("changed", 2), entry("new")]


def test_a_push_creates_updates_and_deletes_only_what_files_own() -> None:
    assert plan_push(CLUSTER, FILES).operations == (Delete("a:gone"), Update(entry("changed", 2)), Create(entry("new")))


def test_prune_also_deletes_what_was_made_at_run_time() -> None:
    assert Delete("a:made") in plan_push(CLUSTER, FILES, prune=True).operations


def test_a_push_of_the_same_files_changes_nothing() -> None:
    state = CLUSTER.advance(plan_push(CLUSTER, FILES), 4)
    assert not plan_push(state, FILES)
    assert not differences(state, FILES)


def test_an_entry_changed_at_run_time_is_a_conflict_with_both_sides() -> None:
    state = RegistryState.of([entry("x", 5, RUNTIME)], 0)
    with pytest.raises(PushConflict) as conflict:
        plan_push(state, [entry("x", 1)])
    (both,) = conflict.value.conflicts
    assert (both.id, both.files, both.cluster) == ("a:x", entry("x", 1), entry("x", 5, RUNTIME))
    assert "a:x" in str(conflict.value)


def test_take_decides_a_conflict() -> None:
    state = RegistryState.of([entry("x", 5, RUNTIME)], 0)
    assert plan_push(state, [entry("x", 1)], Take.FILES).operations == (Update(entry("x", 1)),)
    assert not plan_push(state, [entry("x", 1)], Take.CLUSTER)


def test_the_same_content_made_at_run_time_is_no_conflict() -> None:
    assert not plan_push(RegistryState.of([entry("x", 1, RUNTIME)], 0), [entry("x", 1)])


def test_entries_that_are_pushed_come_from_files_whatever_they_say() -> None:
    (operation,) = plan_push(RegistryState.of(), [entry("x", 1, RUNTIME)]).operations
    assert operation == Create(entry("x", 1, Origin.FILES))


def test_differences_tell_which_side_lacks_what() -> None:
    found = [str(each) for each in differences(CLUSTER, as_files(FILES))]
    assert found == ["a:changed differs", "a:gone is only in the cluster", "a:new is only in the files"]
