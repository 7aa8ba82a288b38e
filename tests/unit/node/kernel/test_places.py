"""Processes that moved, as those see them that did not: where they are, who is told, who is watched."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.envelope import Kind
from node.host.boundary import In, Item, Out
from tests.luaworld import OUTSIDE, World
from tests.movingworld import uniq_of

AWAY = b"{n2@app:processes|5-2a}"
"""Born on n2, and on n3 once it has moved."""

WATCHER = """
    local events, inbox = process.events(), process.inbox()
    process.set_options({ trap_links = true })
    local acts = { monitor = process.monitor, unmonitor = process.unmonitor, link = process.link,
        unlink = process.unlink, cancel = process.cancel,
        send = function(pid) return process.send(pid, "topic", 1) end }
    while true do
        local picked = channel.select({ inbox:case_receive(), events:case_receive() })
        if picked.channel == events then
            process.send("%s", "event", { picked.value.kind, picked.value.from })
        else
            local topic = picked.value:topic()
            if topic == "end" then return end
            local ok, err = acts[topic](picked.value:payload():data())
            process.send("%s", "did", ok or tostring(err))
        end
    end
""" % ((OUTSIDE.decode(),) * 2)


def moved(world: World, pid: bytes, node: bytes) -> list[Item]:
    return world.run([In.MOVED, [[uniq_of(pid), node]]])


def did(world: World, pid: bytes, act: str, whom: bytes) -> Any:
    """What became of it; requests of it are answered well."""
    mark = len(world.out)
    world.send(pid, act, whom)
    for item in world.out[mark:]:
        if item[0] in (Kind.MONITOR, Kind.LINK, Kind.CANCEL):
            world.run([int(Kind.REPLY), pid, whom, item[3], 0, True])
    return [payloads[0] for topic, payloads in world.messages() if topic == "did"][-1]


def events(world: World) -> list[list[bytes]]:
    return [payloads[0] for topic, payloads in world.messages() if topic == "event"]


def watches(items: list[Item]) -> list[list[Any]]:
    return [item[1:] for item in items if item[0] == Out.WATCHES]


@pytest.fixture
def watcher(world: World) -> bytes:
    return world.spawn_body(WATCHER)


class TestTheNodeIsTold:
    @pytest.mark.parametrize(("act", "watch"), [("monitor", 1), ("link", 2)])
    def test_who_watches_one_that_moved(self, world: World, watcher: bytes, act: str, watch: int) -> None:
        assert did(world, watcher, act, AWAY) is True
        assert watches(moved(world, AWAY, b"n3")) == [[watcher, AWAY, watch, True]]
        assert moved(world, AWAY, b"n4") == []

    @pytest.mark.parametrize(("act", "watch"), [("monitor", 1), ("link", 2)])
    def test_who_begins_and_ends_to(self, world: World, watcher: bytes, act: str, watch: int) -> None:
        moved(world, AWAY, b"n3")
        world.out.clear()
        assert did(world, watcher, act, AWAY) is True
        assert did(world, watcher, "un" + act, AWAY) is True
        assert watches(world.out) == [[watcher, AWAY, watch, True], [watcher, AWAY, watch, False]]

    @pytest.mark.parametrize("act", ["monitor", "link"])
    def test_of_one_that_ended(self, world: World, watcher: bytes, act: str) -> None:
        moved(world, AWAY, b"n3")
        did(world, watcher, act, AWAY)
        world.out.clear()
        world.send(watcher, "end")
        assert [told[3] for told in watches(world.out)] == [False]

    @pytest.mark.parametrize(("act", "watch", "kind"), [("monitor", 1, b"pid.exit"), ("link", 2, b"pid.link.down")])
    def test_when_it_has_heard_of_the_end(
        self, world: World, watcher: bytes, act: str, watch: int, kind: bytes
    ) -> None:
        moved(world, AWAY, b"n3")
        did(world, watcher, act, AWAY)
        world.out.clear()
        exit = [int(Kind.EXIT), watcher, AWAY, 0, watch, None, {b"kind": b"Internal", b"message": b"x"}]
        world.run(exit, exit)
        assert watches(world.out) == [[watcher, AWAY, watch, False]]
        assert events(world) == [[kind, AWAY]]

    def test_who_waits_for_the_end_of_one_that_moved(self, world: World) -> None:
        pid = world.spawn_body("return process.exec('app:x', 'n2@app:processes')")
        (asked,) = [item for item in world.out if item[0] == Kind.SPAWN]
        world.run([int(Kind.REPLY), pid, asked[1], asked[3], 0, AWAY])
        assert watches(moved(world, AWAY, b"n3")) == [[pid, AWAY, 1, True]]
        world.run([In.NODE_GONE, b"n2", b"crashed"], [In.NODE_GONE, b"n3", b"crashed"])
        assert not world.has_ended(pid)
        out = world.run([int(Kind.EXIT), pid, AWAY, 0, 1, 42, None])
        assert watches(out) == [[pid, AWAY, 1, False]]
        assert world.exit_of(pid)[5] == 42

    def test_in_one_go_of_many(self, world: World) -> None:
        watchers = [world.spawn_body(WATCHER) for _ in range(3)]
        pids = [b"{n2@app:processes|5-%da}" % number for number in range(3)]
        for watcher, pid in zip(watchers, pids, strict=True):
            did(world, watcher, "monitor", pid)
        told = world.run([In.MOVED, [[uniq_of(pid), b"n3"] for pid in pids]])
        assert sorted(watches(told)) == sorted(
            [watcher, pid, 1, True] for watcher, pid in zip(watchers, pids, strict=True)
        )

    def test_of_one_born_here(self, world: World, watcher: bytes) -> None:
        born_here = world.spawn_body("process.inbox():receive()")
        did(world, watcher, "monitor", born_here)
        assert watches(moved(world, born_here, b"n1")) == [[watcher, born_here, 1, True]]


class TestNodesThatGo:
    def test_say_nothing_of_one_that_moved(self, world: World, watcher: bytes) -> None:
        did(world, watcher, "monitor", AWAY)
        moved(world, AWAY, b"n3")
        world.run([In.NODE_GONE, b"n2", b"crashed"], [In.NODE_GONE, b"n3", b"crashed"])
        assert events(world) == []
        moved(world, AWAY, b"")
        world.run([In.NODE_GONE, b"n2", b"crashed"])
        assert events(world) == [[b"pid.exit", AWAY]]

    def test_end_what_waits_for_an_answer_of_one_that_is_there_now(self, world: World, watcher: bytes) -> None:
        moved(world, AWAY, b"n3")
        world.send(watcher, "monitor", AWAY)
        world.run([In.NODE_GONE, b"n2", b"crashed"])
        assert world.messages()[-1:] == []
        world.run([In.NODE_GONE, b"n3", b"crashed"])
        ((topic, (problem,)),) = world.messages()
        assert b"n3" in problem
        assert topic == "did"


class TestSending:
    def test_goes_out_for_one_born_here_that_moved(self, world: World, watcher: bytes) -> None:
        gone = world.spawn_body("return 1")
        assert b"no process" in did(world, watcher, "send", gone)
        moved(world, gone, b"n2")
        world.out.clear()
        assert did(world, watcher, "send", gone) is True
        assert next(item[1] for item in world.out if item[0] == Kind.MESSAGE) == gone

    def test_depends_on_the_node_where_it_is_now(self, world: World, watcher: bytes) -> None:
        world.run([In.NODES, [b"n1", b"n2"]])
        assert did(world, watcher, "send", AWAY) is True
        moved(world, AWAY, b"n3")
        assert b"no node n3" in did(world, watcher, "send", AWAY)
        moved(world, AWAY, b"n2")
        assert did(world, watcher, "send", AWAY) is True
        world.run([In.NODES, [b"n1"]])
        assert b"no node n2" in did(world, watcher, "send", AWAY)
        moved(world, AWAY, b"n1")
        assert did(world, watcher, "send", AWAY) is True

    def test_by_name_counts_as_held_here_when_it_came_here(self, world: World, watcher: bytes) -> None:
        world.run([In.NAME, b"name", AWAY, 7], [In.NAMES_IN_DOUBT, True])
        assert did(world, watcher, "send", b"name") is True
        moved(world, AWAY, b"n1")
        assert b"may be over" in did(world, watcher, "send", b"name")

    def test_waits_while_the_node_where_it_is_now_has_no_room(self, world: World, watcher: bytes) -> None:
        moved(world, AWAY, b"n3")
        world.run([In.CONGESTION, b"n3", True])
        world.out.clear()
        world.send(watcher, "send", AWAY)
        assert [item for item in world.out if item[0] == Kind.MESSAGE] == []
        world.run([In.CONGESTION, b"n3", False])
        assert [item[1] for item in world.out if item[0] == Kind.MESSAGE] == [AWAY, OUTSIDE]

    def test_a_name_of_one_that_moved_is_not_given_up_here(self, world: World) -> None:
        gone = world.spawn_body("return 1")
        moved(world, gone, b"n2")
        assert world.run([In.NAME, b"name", gone, 7]) == []


class TestBeingWatched:
    def test_from_a_node_that_asserts_it_anew(self, world: World) -> None:
        pid = world.spawn_body("process.inbox():receive() error('on purpose')")
        out = world.run([In.WATCH, pid, AWAY, 1, 5], [In.WATCH, pid, b"{n2@a:b|5-3a}", 2, 6])
        assert out == [[Out.WATCHED, pid, AWAY, 1, 5, True], [Out.WATCHED, pid, b"{n2@a:b|5-3a}", 2, 6, True]]
        mark = len(world.out)
        world.send(pid, "go")
        exits = sorted(item[1:5] for item in world.out[mark:] if item[0] == Kind.EXIT)
        assert exits == sorted([[OUTSIDE, pid, 0, 1], [AWAY, pid, 0, 1], [b"{n2@a:b|5-3a}", pid, 0, 2]])

    def test_of_one_that_has_ended(self, world: World) -> None:
        pid = world.spawn_body("return 1")
        assert world.run([In.WATCH, pid, AWAY, 1, 5]) == [[Out.WATCHED, pid, AWAY, 1, 5, False]]

    def test_by_one_that_is_gone_ends(self, world: World) -> None:
        pid = world.spawn_body("process.inbox():receive()")
        moved(world, AWAY, b"n3")
        world.run([In.WATCH, pid, AWAY, 1, 5])
        world.run([In.NODE_GONE, b"n3", b"crashed"])
        assert AWAY in world.query(b"inspect", pid)[b"watchers"]
        moved(world, AWAY, b"")
        assert AWAY not in world.query(b"inspect", pid)[b"watchers"]

    def test_by_one_that_is_forgotten_where_it_was_born_goes_on(self, world: World, watcher: bytes) -> None:
        """It may be there: a move was given up, and the key went with a lease."""
        pid = world.spawn_body("process.inbox():receive()")
        did(world, watcher, "monitor", pid)
        world.run([In.WATCH, pid, AWAY, 1, 5])
        for one, node in ((watcher, b"n1"), (AWAY, b"n2")):
            moved(world, one, node)
            moved(world, one, b"")
        assert {watcher, AWAY} <= set(world.query(b"inspect", pid)[b"watchers"])
        world.run([In.NODE_GONE, b"n2", b"crashed"])
        assert AWAY not in world.query(b"inspect", pid)[b"watchers"]
