"""The runtime's own events say what changed, entry by entry and node by node."""

from __future__ import annotations

from cluster.members import Member, NodeState
from cluster.registry import Changeset, Create, Delete, Entry, Fold, RegistryState, Update
from node.system_events import member_events, registry_events


def test_a_new_registry_version_is_one_event_per_entry_and_a_commit() -> None:
    before = RegistryState.of([Entry("a:old", "k"), Entry("a:same", "k"), Entry("a:up", "k")], 4)
    changes = Changeset((Create(Entry("a:new", "k2")), Update(Entry("a:up", "k", {}, {"x": 1})), Delete("a:old")))
    after = before.advance(changes, 5)
    events = registry_events(before, after, changes.touched)
    assert [(event.system, event.kind, event.path) for event in events] == [
        ("registry", "entry.delete", "a:old"),
        ("registry", "entry.create", "a:new"),
        ("registry", "entry.update", "a:up"),
        ("registry", "registry.commit", "v5"),
    ]
    assert events[1].data == {b"id": b"a:new", b"kind": b"k2", b"version": 5}
    assert events[-1].data == {b"version": 5, b"previous": 4, b"changed": [b"a:new", b"a:old", b"a:up"]}


def test_events_come_in_the_order_of_what_names_what() -> None:
    def service(name: str, host: str) -> Entry:
        return Entry(name, "process.service", {}, {"host": host})

    old = [Entry("a:z_host", "process.host"), service("a:a_service", "a:z_host")]
    new = [Entry("b:z_host", "process.host"), service("b:a_service", "b:z_host")]
    before, after = RegistryState.of(old, 1), RegistryState.of(new, 2)
    told = [event.path for event in registry_events(before, after, after.differs_from(before))]
    assert told == ["a:a_service", "a:z_host", "b:z_host", "b:a_service", "v2"]


def test_what_is_laid_over_an_entry_and_what_is_brought_back_are_updates_like_any() -> None:
    first = RegistryState.of([Entry("a:x", "registry.entry", {}, {"n": 1})], 1)
    overlaid = first.advance(Changeset((Fold("a:x", {"n": 2}, 7),)), 2)
    again = overlaid.advance(Changeset((Fold("a:x", None, 0),)), 3)
    for before, after in ((first, overlaid), (overlaid, again)):
        update, commit = registry_events(before, after, after.differs_from(before))
        assert (update.kind, update.path, update.data[b"version"]) == ("entry.update", "a:x", after.version)
        assert commit.path == f"v{after.version}"


def test_a_node_that_comes_changes_and_goes_is_told() -> None:
    def member(state: NodeState) -> Member:
        return Member("node-2", 9, 9, 1, 3, state, {"zone": "b"}, "1", {}, "127.0.0.1:9465", "")

    joining, ready = member(NodeState.JOINING), member(NodeState.READY)
    told = [*member_events(None, joining), *member_events(joining, ready), *member_events(ready, None)]
    assert [(event.system, event.kind, event.path) for event in told] == [
        ("cluster", "NodeJoined", "node-2"),
        ("cluster", "NodeUpdated", "node-2"),
        ("cluster", "NodeLeft", "node-2"),
    ]
    assert told[1].data[b"state"] == b"ready"
    assert told[1].data[b"meta"] == {b"zone": b"b"}
