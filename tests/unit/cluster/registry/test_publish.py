from __future__ import annotations

import pytest

from cluster.registry import Changeset, Create, Delete, Entry, Origin, PushConflict, RegistryState, Take, Update
from cluster.registry.origins import at_run_time, restoring
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


class TestDeletedAtRunTime:
    """An entry of the files that was deleted at run time must not come back without a word."""

    STATE = CLUSTER.advance(at_run_time(CLUSTER, Changeset((Delete("a:changed"),))), 4)

    def test_it_is_a_conflict_that_says_so(self) -> None:
        assert self.STATE.overridden == {"a:changed"}
        with pytest.raises(PushConflict) as conflict:
            plan_push(self.STATE, FILES)
        (both,) = conflict.value.conflicts
        assert (both.files, both.cluster) == (entry("changed", 2), None)
        assert str(both) == "a:changed is in the files and was deleted at run time"
        assert str(both) in [str(each) for each in differences(self.STATE, FILES)]

    def test_taking_the_files_brings_it_back_for_good(self) -> None:
        state = self.STATE.advance(plan_push(self.STATE, FILES, Take.FILES), 5)
        assert state.get("a:changed") == entry("changed", 2)
        assert not state.overridden
        assert not plan_push(state, FILES)

    def test_taking_the_cluster_leaves_it_deleted_and_the_question_stays(self) -> None:
        state = self.STATE.advance(plan_push(self.STATE, FILES, Take.CLUSTER), 5)
        assert "a:changed" not in state
        with pytest.raises(PushConflict):
            plan_push(state, FILES)
        assert not plan_push(state, FILES, Take.CLUSTER)

    def test_what_the_files_gave_up_as_well_is_forgotten(self) -> None:
        state = self.STATE.advance(plan_push(self.STATE, [entry("same")]), 5)
        assert not state.overridden
        assert plan_push(state, [entry("same"), entry("changed")]).operations == (Create(entry("changed")),)

    def test_it_is_remembered_when_it_was_changed_before(self) -> None:
        state = CLUSTER.advance(at_run_time(CLUSTER, Changeset((Update(entry("changed", 5, RUNTIME)),))), 4)
        state = state.advance(at_run_time(state, Changeset((Delete("a:changed"),))), 5)
        with pytest.raises(PushConflict):
            plan_push(state, FILES)

    def test_what_was_made_at_run_time_is_not_remembered(self) -> None:
        assert at_run_time(CLUSTER, Changeset((Delete("a:made"),))).operations == (Delete("a:made"),)

    def test_a_push_that_deletes_leaves_nothing_to_ask_about(self) -> None:
        state = CLUSTER.advance(plan_push(CLUSTER, FILES), 4)
        assert plan_push(state, [*FILES, entry("gone")]).operations == (Create(entry("gone")),)

    def test_a_restored_version_remembers_what_it_knew(self) -> None:
        before = self.STATE.advance(plan_push(self.STATE, FILES, Take.FILES), 5)
        again = before.advance(restoring(before, self.STATE), 6)
        assert again.payload() == self.STATE.at(6).payload()
        assert RegistryState.parse(again.payload()).overridden == {"a:changed"}

    def test_a_rollback_does_not_bind_the_files(self) -> None:
        """The next push of the same files is a new change, and wins."""
        pushed = CLUSTER.advance(plan_push(CLUSTER, FILES), 4)
        back = pushed.advance(restoring(pushed, CLUSTER), 5)
        assert back.entries() == CLUSTER.entries()
        assert back.advance(plan_push(back, FILES), 6).entries() == pushed.entries()
