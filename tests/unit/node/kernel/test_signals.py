"""Monitors, links, exits, cancel and terminate, within a VM and across."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.envelope import Kind
from tests.luaworld import OUTSIDE, REMOTE, World

NOBODY = b"{n1@app:processes|1-1}"
FAILING = "return { main = function(text) error(text or 'broken') end }"
WAITING = "return { main = function() process.inbox():receive() return 'done' end }"


def watch(world: World, spawn: str, *args: Any) -> Any:
    """Main: spawn with the given variant, give its first event."""
    return world.main(
        f"""local events = process.events()
        local child, err = process.{spawn}
        if not child then return nil, err end
        local e = events:receive()
        local r = e.result or {{}}
        return {{ e.kind, e.from == child, r.value or "nil", r.error and tostring(r.error) or "nil", e.reason or
            "none" }}""",
        *args,
    )


def test_a_monitor_hears_of_a_normal_end_with_the_value(world: World) -> None:
    world.entry("app:ok", "return { main = function(a, b) return { sum = a + b } end }")
    seen = watch(world, 'spawn_monitored("app:ok", "app:processes", 1, 2)')
    assert seen == [b"pid.exit", True, {b"sum": 3}, b"nil", b"none"]


def test_a_monitor_hears_of_an_error_with_its_place(world: World) -> None:
    world.entry("app:bad", FAILING)
    seen = watch(world, 'spawn_monitored("app:bad", "app:processes", "oops")')
    assert seen[:4] == [b"pid.exit", True, b"nil", b"app:bad:1: oops"]


def test_returning_nil_and_an_error_is_an_error_exit_with_its_kind(world: World) -> None:
    world.entry(
        "app:nope",
        "return { main = function() return nil, errors.new({ message = 'no', kind = errors.NOT_FOUND }) end }",
    )
    exit = world.outcome("return nil, errors.new({ message = 'no', kind = errors.NOT_FOUND, retryable = true })")
    assert exit[6] == {b"kind": b"NotFound", b"message": b"no", b"retryable": True}


def test_exits_are_counted_by_reason(world: World) -> None:
    world.entry("app:bad", FAILING)
    world.entry("app:wait", WAITING)
    world.spawn("app:bad")
    pid = world.spawn("app:wait")
    world.run([int(Kind.TERMINATE), pid, OUTSIDE, 640])
    world.send(world.spawn("app:wait"), "go", 1)
    entries = world.query(b"counters")[b"entries"]
    assert entries[b"app:bad"][b"exits"] == {b"error": 1}
    assert entries[b"app:wait"][b"exits"] == {b"killed": 1, b"normal": 1}


def test_a_monitor_of_a_dead_pid_is_not_found_and_a_second_one_already_exists(world: World) -> None:
    world.entry("app:wait", WAITING)
    assert world.main(
        """local _, none = process.monitor("{n1@app:processes|1-1}")
        local child = process.spawn("app:wait", "app:processes")
        local first = process.monitor(child)
        local _, twice = process.monitor(child)
        local off = process.unmonitor(child)
        local _, gone = process.unmonitor(child)
        return { none:kind(), first, twice:kind(), off, gone:kind() }"""
    ) == [b"NotFound", True, b"AlreadyExists", True, b"NotFound"]


def test_an_unmonitored_end_is_not_told(world: World) -> None:
    world.entry("app:wait", WAITING)
    assert world.main(
        """local events = process.events()
        local child = process.spawn_monitored("app:wait", "app:processes")
        process.unmonitor(child)
        process.terminate(child)
        return channel.select({ events:case_receive(), default = true }).default"""
    )


def test_a_linked_process_fails_with_its_partner(world: World) -> None:
    world.entry("app:bad", FAILING)
    exit = world.outcome('process.spawn_linked("app:bad", "app:processes", "boom") process.inbox():receive()')
    assert b"linked process failed" in exit[6][b"message"]
    assert b"boom" in exit[6][b"message"]


def test_a_link_says_nothing_of_a_normal_end(world: World) -> None:
    world.entry("app:ok", "return { main = function() return 1 end }")
    pid = world.spawn_body('process.spawn_linked("app:ok", "app:processes") process.inbox():receive() return "alive"')
    assert not world.has_ended(pid)
    world.send(pid, "go", 1)
    assert world.exit_of(pid)[5] == b"alive"


def test_a_process_that_traps_links_gets_an_event(world: World) -> None:
    world.entry("app:bad", FAILING)
    assert world.main(
        """process.set_options({ trap_links = true })
        local child = process.spawn_linked("app:bad", "app:processes", "x")
        local e = process.events():receive()
        return { e.kind, e.from == child, e.result.error:kind(), process.get_options().trap_links }"""
    ) == [b"pid.link.down", True, b"Internal", True]


def test_a_failure_runs_along_a_chain_of_links(world: World) -> None:
    world.entry(
        "app:chain",
        """local function main(n)
            if n == 0 then process.inbox():receive() error("end of chain") end
            process.spawn_linked("app:chain", "app:processes", n - 1)
            process.inbox():receive()
        end
        return { main = main }""",
    )
    world.spawn("app:chain", 300)
    assert world.query(b"counters")[b"live"] == 301
    last = next(
        p[b"pid"]
        for p in world.query(b"list")
        if world.query(b"inspect", p[b"pid"])[b"links"].__len__() == 1 and p[b"parent"] != OUTSIDE
    )
    world.send(last, "go", 1)
    assert world.query(b"counters")[b"live"] == 0


def test_unlinking_frees_both_sides(world: World) -> None:
    world.entry("app:bad", "return { main = function() process.inbox():receive() error('x') end }")
    assert world.main(
        """local child = process.spawn_linked("app:bad", "app:processes")
        local again = process.link(child)
        local off = process.unlink(child)
        process.monitor(child)
        process.send(child, "go", 1)
        return { again, off, process.events():receive().kind }"""
    ) == [True, True, b"pid.exit"]


def test_both_watches_tell_both(world: World) -> None:
    world.entry("app:bad", FAILING)
    assert sorted(
        world.main(
            """process.set_options({ trap_links = true })
            process.spawn_linked_monitored("app:bad", "app:processes")
            local events = process.events()
            return { events:receive().kind, (events:receive().kind) }"""
        )
    ) == [b"pid.exit", b"pid.link.down"]


def test_cancel_is_an_event_with_a_reason_and_nothing_else(world: World) -> None:
    pid = world.spawn_body("local e = process.events():receive() return { e.kind, e.from, e.reason, math.type(e.at) }")
    world.run([int(Kind.CANCEL), pid, OUTSIDE, 640, b"maintenance"])
    assert world.reply(640)[4] == 0
    assert world.exit_of(pid)[5] == [b"pid.cancel", OUTSIDE, b"maintenance", b"integer"]


def test_cancel_before_the_process_asks_for_its_events_is_kept(world: World) -> None:
    pid = world.spawn_body("process.inbox():receive() return process.events():receive().reason")
    world.run([int(Kind.CANCEL), pid, OUTSIDE, 0, b"later"])
    world.send(pid, "go", 1)
    assert world.exit_of(pid)[5] == b"later"


def test_terminate_ends_a_process_at_once_as_canceled(world: World) -> None:
    world.entry("app:wait", WAITING)
    seen = world.main(
        """local child = process.spawn_monitored("app:wait", "app:processes")
        local ok = process.terminate(child)
        local _, gone = process.send(child, "t", 1)
        local e = process.events():receive()
        return { ok, gone:kind(), e.result.error:kind(), e.result.error:message() }"""
    )
    assert seen == [True, b"NotFound", b"Canceled", b"terminated"]


def test_a_process_can_terminate_itself_and_nothing_after_it_runs(world: World) -> None:
    exit = world.outcome("pcall(process.terminate, process.pid()) process.send('nobody', 't') return 'went on'")
    assert exit[6][b"message"] == b"terminated"


def test_terminating_the_partner_of_a_link_ends_the_terminator_too(world: World) -> None:
    world.entry("app:wait", WAITING)
    exit = world.outcome(
        """local child = process.spawn_linked("app:wait", "app:processes")
        process.terminate(child)
        process.inbox():receive()"""
    )
    assert b"linked process failed" in exit[6][b"message"]


def test_unknown_options_are_invalid_and_change_nothing(world: World) -> None:
    assert world.main(
        """local ok, err = process.set_options({ trap_links = true, speed = 1 })
        return { ok, err:kind(), process.get_options().trap_links }"""
    ) == [False, b"Invalid", False]


def test_signals_to_a_process_that_is_gone_are_answered_noproc(world: World) -> None:
    for kind in (Kind.MONITOR, Kind.LINK, Kind.TERMINATE):
        world.run([int(kind), NOBODY, OUTSIDE, 640 + 64 * kind])
        assert world.reply(640 + 64 * kind)[4] == 2


def test_a_watcher_outside_gets_exit_after_everything_else_the_process_sent(world: World) -> None:
    world.entry(
        "app:talker", f"return {{ main = function() process.send('{REMOTE.decode()}', 'last', 1) return 2 end }}"
    )
    pid = world.spawn("app:talker")
    kinds = [item[0] for item in world.out if item[2] == pid]
    assert kinds == [Kind.MESSAGE, Kind.EXIT]


def test_a_remote_monitor_asks_and_waits_for_the_answer(world: World) -> None:
    pid = world.spawn_body(
        f"""local ok, err = process.monitor("{REMOTE.decode()}")
        if not ok then return {{ err:kind() }} end
        local e = process.events():receive()
        return {{ e.kind, e.from, e.result.value }}"""
    )
    asked = next(item for item in world.out if item[0] == Kind.MONITOR)
    assert asked[1:3] == [REMOTE, pid]
    world.run(
        [int(Kind.REPLY), pid, REMOTE, asked[3], 0, True],
        [int(Kind.EXIT), pid, REMOTE, 0, 1, b"over", None],  # in one batch: the event is not lost
    )
    assert world.exit_of(pid)[5] == [b"pid.exit", REMOTE, b"over"]


def test_a_remote_monitor_of_a_dead_process_is_not_found(world: World) -> None:
    pid = world.spawn_body(f'local ok, err = process.monitor("{REMOTE.decode()}") return err:kind()')
    asked = next(item for item in world.out if item[0] == Kind.MONITOR)
    world.run([int(Kind.REPLY), pid, REMOTE, asked[3], 2, None])
    assert world.exit_of(pid)[5] == b"NotFound"


@pytest.mark.parametrize(("linked", "kind"), [(False, b"pid.exit"), (True, b"pid.link.down")])
def test_the_loss_of_a_node_reaches_who_watches_there(world: World, linked: bool, kind: bytes) -> None:
    verb, asked_kind = ("link", Kind.LINK) if linked else ("monitor", Kind.MONITOR)
    pid = world.spawn_body(
        f"""process.set_options({{ trap_links = true }})
        process.{verb}("{REMOTE.decode()}")
        local e = process.events():receive()
        return {{ e.kind, e.from, e.result.error:kind(), e.result.error:message() }}"""
    )
    asked = next(item for item in world.out if item[0] == asked_kind)
    world.run([int(Kind.REPLY), pid, REMOTE, asked[3], 0, True], [45, b"n2", b"lease expired"])
    seen = world.exit_of(pid)[5]
    assert seen[:3] == [kind, REMOTE, b"Unavailable"]
    assert b"node disconnected" in seen[3]
    assert b"lease expired" in seen[3]


def test_the_loss_of_a_node_fails_what_was_asked_of_it_as_unknown(world: World) -> None:
    pid = world.spawn_body(
        f'local ok, err = process.terminate("{REMOTE.decode()}") return {{ err:kind(), err:message() }}'
    )
    world.run([45, b"n2", b"gone"])
    kind, message = world.exit_of(pid)[5]
    assert kind == b"Unavailable"
    assert b"noconnection" in message


def test_a_monitor_alone_does_not_die_with_a_node(world: World) -> None:
    pid = world.spawn_body(f'process.monitor("{REMOTE.decode()}") process.inbox():receive() return "alive"')
    asked = next(item for item in world.out if item[0] == Kind.MONITOR)
    world.run([int(Kind.REPLY), pid, REMOTE, asked[3], 0, True], [45, b"n2", b"gone"])
    world.send(pid, "go", 1)
    assert world.exit_of(pid)[5] == b"alive"


def test_an_ended_watcher_stops_watching_elsewhere(world: World) -> None:
    pid = world.spawn_body(f'process.monitor("{REMOTE.decode()}")')
    asked = next(item for item in world.out if item[0] == Kind.MONITOR)
    world.run([int(Kind.REPLY), pid, REMOTE, asked[3], 0, True])
    assert any(item[:3] == [Kind.UNMONITOR, REMOTE, pid] for item in world.out)


def test_watchers_on_a_lost_node_are_forgotten(world: World) -> None:
    world.entry("app:wait", WAITING)
    pid = world.spawn("app:wait")
    world.run([int(Kind.MONITOR), pid, REMOTE, 6400])
    world.run([45, b"n2", b"gone"])
    world.send(pid, "go", 1)
    assert [item[1] for item in world.out if item[0] == Kind.EXIT] == [OUTSIDE]
