"""What the node tells and asks a kernel: names, queries, stopping, odd items."""

from __future__ import annotations

from cluster.envelope import Kind
from node.host.kernel import VmConfig
from tests.luaworld import OUTSIDE, REMOTE, World

WAITING = "return { main = function() process.inbox():receive() end }"


def test_a_name_leads_to_a_process_here_or_elsewhere(world: World) -> None:
    world.entry("app:wait", "return { main = function() return process.inbox():receive():payload():data() end }")
    here = world.spawn("app:wait")
    world.run([43, b"here", here, 3], [43, b"there", REMOTE, 9])
    assert world.main(
        "return { process.send('here', 't', 1), process.send('there', 't', 2), process.registry.lookup('there') }"
    ) == [
        True,
        True,
        REMOTE,
    ]
    assert world.exit_of(here)[5] == 1
    sent = next(item for item in world.out if item[0] == Kind.MESSAGE)
    assert sent[1] == REMOTE
    assert sent[6:] == [b"there", 9, 1]


def test_a_freed_name_is_not_found(world: World) -> None:
    world.run([43, b"n", REMOTE, 9], [43, b"n", b"", 10])
    assert world.main("local _, err = process.registry.lookup('n') return err:kind()") == b"NotFound"


def test_registering_asks_the_node_and_is_seen_at_once(world: World) -> None:
    asked: list[tuple[object, ...]] = []

    def register(name: bytes, pid: bytes, scope: int) -> list[bool]:
        asked.append((name, pid, scope))
        world.post([43, name, pid, 5])
        return [True]

    def unregister(name: bytes, *args: object) -> list[bool]:
        world.post([43, name, b"", 6])
        return [True]

    world.handlers[b"names", b"register"] = register
    world.handlers[b"names", b"unregister"] = unregister
    pid = world.spawn_body(
        """local ok = process.registry.register("me", nil, process.registry.CONSISTENT)
        local found = process.registry.lookup("me")
        local freed = process.registry.unregister("me")
        local _, err = process.registry.lookup("me")
        return { ok, found, freed, err:kind() }"""
    )
    assert world.exit_of(pid)[5] == [True, pid, True, b"NotFound"]
    assert asked == [(b"me", pid, 2)]
    assert any(item[:2] == [53, pid] for item in world.out)


def test_a_name_that_was_lost_before_the_answer_came_is_not_found(world: World) -> None:
    def register(name: bytes, pid: bytes, scope: int) -> list[bool]:
        world.post([43, name, pid, 5], [43, name, b"", 6])
        return [True]

    world.handlers[b"names", b"register"] = register
    program = 'return { process.registry.register("me"), (process.registry.lookup("me")) or "nobody" }'
    assert world.main(program) == [True, b"nobody"]


def test_a_default_scope_comes_from_the_configuration() -> None:
    world = World(VmConfig(default_scope=2))
    asked: list[object] = []

    def register(name: bytes, pid: bytes, scope: int) -> list[bool]:
        asked.append(scope)
        return [True]

    world.handlers[b"names", b"register"] = register
    world.main('return process.registry.register("me")')
    assert asked == [2]


def test_list_and_inspect_show_what_lives(world: World) -> None:
    world.entry("app:wait", WAITING)
    pid = world.spawn("app:wait")
    [shown] = world.query(b"list")
    assert shown[b"pid"] == pid
    assert shown[b"entry"] == b"app:wait"
    assert shown[b"state"] == b"idle"
    assert shown[b"parent"] == OUTSIDE
    detail = world.query(b"inspect", pid)
    assert detail[b"watchers"] == [OUTSIDE]
    assert world.query(b"inspect", REMOTE) is None


def test_stop_cancels_everything_waits_and_kills_the_rest(world: World) -> None:
    world.entry("app:polite", "return { main = function() return process.events():receive().reason end }")
    world.entry("app:stubborn", "return { main = function() while true do process.inbox():receive() end end }")
    polite, stubborn = world.spawn("app:polite"), world.spawn("app:stubborn")
    world.run([48, b"maintenance", 0.1])
    assert world.exit_of(polite)[5] == b"maintenance"
    assert world.exit_of(stubborn)[6][b"kind"] == b"Canceled"
    assert world.out[-1] == [55]
    reference = world.post_spawn("app:polite")
    world.run()
    assert world.reply(reference)[5][b"kind"] == b"Unavailable"


def test_who_is_asked_to_end_hears_until_when(world: World) -> None:
    world.entry("app:polite", "return { main = function() return process.events():receive().deadline end }")
    cancelled, stopped = world.spawn("app:polite"), world.spawn("app:polite")
    world.run([9, cancelled, OUTSIDE, 0, b"node draining", 1_795_205_778_294])
    assert world.exit_of(cancelled)[5] == 1_795_205_778_294
    world.run([48, b"maintenance", 10, 1_795_205_778_295])
    assert world.exit_of(stopped)[5] == 1_795_205_778_295


def test_who_never_asked_for_events_is_not_waited_for_as_long_as_who_did() -> None:
    world = World()
    world.function(
        "app:slow", "return { main = function() require('time').sleep('8s') return 7 end }", modules=["time"]
    )
    world.entry(
        "app:unaware",
        "return { main = function() while true do require('time').sleep('1s') end end }",
        modules=["time"],
    )
    world.entry(
        "app:slow_to_end",
        "return { main = function() process.events() require('time').sleep('20s') return 1 end }",
        modules=["time"],
    )
    world.entry(
        "app:caller", "return { main = function() return require('funcs').call('app:slow') end }", modules=["funcs"]
    )
    unaware, slow, caller = (world.spawn(id) for id in ("app:unaware", "app:slow_to_end", "app:caller"))
    world.patience = 60
    began = world.clock.passed
    world.run([48, b"maintenance", 30], until=lambda: world.has_ended(unaware))
    assert 3 <= world.clock.passed - began < 4
    world.run(until=lambda: world.has_ended(caller))
    assert world.exit_of(caller)[5] == 7
    world.run(until=lambda: world.has_ended(slow))
    assert world.exit_of(slow)[5] == 1
    assert world.clock.passed - began < 21


def test_stopping_an_empty_vm_is_answered_at_once(world: World) -> None:
    assert world.run([48, b"x", 10]) == [[55]]


def test_an_item_of_an_unknown_kind_is_reported_and_the_next_is_taken() -> None:
    world = World()
    world.entry("app:wait", WAITING)
    reference = world.post_spawn("app:wait")
    world.post([99, 1], [1, None, None, 0, None, [], b"", 0])
    world.run()
    assert len(world.complaints()) == 1
    assert world.reply(reference)[4] == 0


def test_answers_nobody_waits_for_are_dropped(world: World) -> None:
    assert world.run([40, 12345, None, [1]], [41, 77, 1], [42, 77], [3, REMOTE, REMOTE, 12345, 0, 1]) == []


def test_counters_tell_what_happened_by_entry(world: World) -> None:
    world.entry("app:wait", WAITING)
    pid = world.spawn("app:wait")
    world.send(pid, "t", 1)
    counts = world.query(b"counters")[b"entries"][b"app:wait"]
    assert counts == {
        b"live": 0, b"spawned": 1, b"sent": 0, b"received": 1, b"refused": 0, b"exits": {b"normal": 1},
    }  # fmt: skip


def test_what_the_node_does_not_show_of_a_log_stays_in_the_vm() -> None:
    world = World(VmConfig(log_level=1))
    world.main(
        """local logger = require("logger")
        logger:debug("one") logger:info("two") logger:named("part"):info("three")
        logger:warn("four") logger:with({ a = 1 }):error("five")""",
        modules=["logger"],
    )
    assert world.logs == ["four", "five"]


def test_loggers_of_two_processes_have_nothing_in_common(world: World) -> None:
    world.main('local l = require("logger") l.info = nil l.mark = 1', modules=["logger"])
    world.main('local l = require("logger") assert(not l.mark) l:info("here") l:warn("too")', modules=["logger"])
    assert world.logs == ["here", "too"]
