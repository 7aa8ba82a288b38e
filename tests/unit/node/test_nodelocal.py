"""One warning for each entry whose data are one node's own, from one node, once there are several."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from cluster.members import Member, NodeState
from cluster.registry import Entry, RegistryState
from node.nodelocal import NodeLocal

CACHE = Entry("app:cache", "store.memory")
VALUES = Entry("app:values", "env.storage.memory")
SHARED = Entry("app:shared", "store.kv.raft", {}, {"namespace": "shared"})


def member(node: str) -> Member:
    return Member(node, 1, 1, 1, 1, NodeState.READY, {}, "", {}, "", "")


class World:
    def __init__(self) -> None:
        self.members: list[Member] = []
        self.state = RegistryState.of([], 0)
        self.local = NodeLocal("n1", lambda: self.members, lambda: self.state)
        self.said: list[Any] = []

    def nodes(self, *names: str) -> list[str]:
        """These are the nodes now; the entries warned of."""
        self.members = [member(name) for name in names]
        return self._entries(self.local.members_changed)

    def holds(self, *entries: Entry) -> list[str]:
        """The registry holds these now; the entries warned of."""
        before, self.state = self.state, RegistryState.of(entries, self.state.version + 1)
        changed = self.state.differs_from(before)
        return self._entries(lambda: self.local.entries_changed(changed))

    def _entries(self, change: Any) -> list[str]:
        with structlog.testing.capture_logs() as logs:
            change()
        self.said += logs
        return sorted(log["entry"] for log in logs)


@pytest.fixture
def world() -> World:
    return World()


def test_a_node_alone_says_nothing_and_the_first_of_several_does(world: World) -> None:
    assert world.nodes("n1") == []
    assert world.holds(CACHE, VALUES, SHARED) == []
    assert world.nodes("n1", "n2") == ["app:cache", "app:values"]
    cache = next(log for log in world.said if log["entry"] == "app:cache")
    assert (cache["log_level"], "store.kv.raft" in cache["remedy"]) == ("warning", True)


def test_it_is_said_once_whatever_comes_and_goes(world: World) -> None:
    world.nodes("n1", "n2")
    assert world.holds(CACHE) == ["app:cache"]
    assert world.nodes("n1", "n2", "n3") == world.nodes("n1") == world.nodes("n1", "n2") == []
    assert world.holds() == world.holds(CACHE) == []
    assert world.holds(CACHE, VALUES) == ["app:values"]


def test_another_node_says_it_while_there_is_one_before_this(world: World) -> None:
    world.nodes("n0", "n1")
    assert world.holds(CACHE) == []
    assert world.nodes("n1", "n2") == ["app:cache"]


def test_an_entry_that_is_changed_to_such_a_kind_is_told(world: World) -> None:
    world.nodes("n1", "n2")
    assert world.holds(Entry("app:cache", "store.kv.raft", {}, {"namespace": "cache"})) == []
    assert world.holds(CACHE) == ["app:cache"]
