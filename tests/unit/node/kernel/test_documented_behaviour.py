"""Where the original's documentation and its source differ: here the documentation holds.

One test for each such place in the Lua files' conventions, the process API and the rules of processes. Each says first
what the source of the original does instead. (Services restart with the documented backoff: that is shown with the
supervisor, in ``tests/unit/cluster/test_supervision.py``.)
"""

from __future__ import annotations

import pytest

from cluster.envelope import Kind
from tests.luaworld import OUTSIDE, REMOTE, World

WAIT = "return { main = function() return process.inbox():receive():payload():data() end }"


def watch_remotely(world: World, verb: str, rest: str) -> bytes:
    """A process that monitors or links to one on node n2, which has agreed."""
    pid = world.spawn_body(f'process.{verb}("{REMOTE.decode()}") {rest}')
    asked = next(item for item in world.out if item[0] in (Kind.MONITOR, Kind.LINK))
    world.run([int(Kind.REPLY), pid, REMOTE, asked[3], 0, True])
    return pid


def lose_the_node(world: World) -> None:
    world.run([45, b"n2", b"lease expired"])


def test_a_pure_monitor_gets_exit_when_the_node_is_lost(world: World) -> None:
    """Source: LINK_DOWN, which kills a process that does not trap links."""
    pid = watch_remotely(
        world, "monitor", "local e = process.events():receive() return { e.kind, e.result.error:kind() }"
    )
    lose_the_node(world)
    assert world.exit_of(pid)[5] == [b"pid.exit", b"Unavailable"]


def test_a_link_goes_down_when_the_node_is_lost(world: World) -> None:
    pid = watch_remotely(world, "link", "process.inbox():receive()")
    lose_the_node(world)
    assert b"linked process failed" in world.exit_of(pid)[6][b"message"]


def test_the_end_of_a_process_on_another_node_reaches_its_monitor(world: World) -> None:
    """Source: only the loss of a whole node is heard of."""
    pid = watch_remotely(world, "monitor", "local e = process.events():receive() return { e.kind, e.result.value }")
    world.run([int(Kind.EXIT), pid, REMOTE, 0, 1, b"done", None])
    assert world.exit_of(pid)[5] == [b"pid.exit", b"done"]


def test_terminate_reaches_another_node(world: World) -> None:
    """Source: only processes of the own node can be terminated."""
    pid = world.spawn_body(f'return process.terminate("{REMOTE.decode()}")')
    asked = next(item for item in world.out if item[0] == Kind.TERMINATE)
    world.run([int(Kind.REPLY), pid, REMOTE, asked[3], 0, True])
    assert (asked[1], world.exit_of(pid)[5]) == (REMOTE, True)


@pytest.mark.parametrize("spawn", ["spawn_monitored", "spawn_linked_monitored", "exec"])
def test_a_spawned_process_starts_without_the_context_of_its_parent(world: World, spawn: str) -> None:
    """Source: actor, scope and context values are inherited."""
    world.entry("app:child", "return { main = function() return require('ctx').all() end }", modules=["ctx"])
    world.entry(
        "app:parent",
        f"""return {{ main = function()
            local value = process.{spawn}("app:child", "app:processes")
            return type(value) == "table" and value or process.events():receive().result.value
        end }}""",
    )
    body = "return process.with_context({ user = 'ann' }):exec('app:parent', 'app:processes')"
    assert world.main(body) == []


def test_a_context_that_is_given_is_there(world: World) -> None:
    world.entry("app:child", "return { main = function() return require('ctx').all() end }", modules=["ctx"])
    assert world.main("return process.with_context({ user = 'ann' }):exec('app:child', 'app:processes')") == {
        b"user": b"ann"
    }


def test_a_function_has_the_context_of_its_caller(world: World) -> None:
    world.function("app:f", "return { main = function() return require('ctx').all() end }", modules=["ctx"])
    world.entry(
        "app:parent", "return { main = function() return require('funcs').call('app:f') end }", modules=["funcs"]
    )
    assert world.main("return process.with_context({ user = 'ann' }):exec('app:parent', 'app:processes')") == {
        b"user": b"ann"
    }


def test_cancel_takes_a_reason_and_no_deadline(world: World) -> None:
    """Older programs pass "5s" as a deadline: it is the reason, and nothing ends by itself."""
    world.patience = 60.0
    world.entry("app:child", "return { main = function() return process.events():receive() end }")
    event = world.main(
        """local child = process.spawn_monitored("app:child", "app:processes")
        process.cancel(child, "5s")
        return process.events():receive().result.value"""
    )
    assert (event[b"kind"], event[b"reason"], b"deadline" in event) == (b"pid.cancel", b"5s", False)


def test_events_say_what_they_are_in_kind(world: World) -> None:
    """One page of the documentation says ``type``; all others, and the source, say ``kind``."""
    world.entry("app:ok", "return { main = function() return 1 end }")
    assert world.main(
        """process.spawn_monitored("app:ok", "app:processes")
        local e = process.events():receive()
        return { e.kind, e.type == nil, e.result.value, e.result.error == nil }"""
    ) == [b"pid.exit", True, 1, True]


def test_who_asked_for_it_hears_of_changed_code(world: World) -> None:
    """Documented only: OUTDATED, the option upgradable."""
    pid = world.spawn_body(
        """process.set_options({ upgradable = true })
        local e = process.events():receive()
        return { e.kind == process.event.OUTDATED, e.sources }"""
    )
    world.run([44, [b"app:main1"]])
    assert world.exit_of(pid)[5] == [True, [b"app:main1"]]


def test_who_did_not_ask_does_not(world: World) -> None:
    pid = world.spawn_body("process.events():receive()")
    world.run([44, [b"app:main1"]])
    assert not world.has_ended(pid)


def test_a_builder_can_exec(world: World) -> None:
    """Documented only."""
    world.entry("app:add", "return { main = function(a, b) return a + b end }")
    assert world.main("return process.with_options({}):exec('app:add', 'app:processes', 1, 2)") == 3


def test_a_registered_name_is_a_destination_wherever_a_pid_is(world: World) -> None:
    """Source: not in every function."""
    world.entry("app:wait", WAIT)
    pid = world.spawn("app:wait")
    world.run([43, b"worker", pid, 3])
    assert (
        world.main(
            """local done = {}
        for i, verb in ipairs({ "monitor", "unmonitor", "link", "unlink", "cancel", "send", "terminate" }) do
            done[i] = process[verb]("worker", verb == "send" and "t" or nil)
        end
        return done"""
        )
        == [True] * 7
    )


def test_kinds_are_compared_with_the_constants(world: World) -> None:
    """The documentation prints NOT_FOUND where the value is NotFound."""
    assert world.main(
        """local _, err = process.send("nobody", "t")
        return { err:kind() == errors.NOT_FOUND, errors.is(err, errors.NOT_FOUND), err:kind() }"""
    ) == [True, True, b"NotFound"]


def test_an_error_is_not_made_of_a_kind_and_a_message(world: World) -> None:
    """Examples write ``errors.new("TIMEOUT", "text")``; the reference says that is not supported."""
    assert world.main('local e = errors.new("TIMEOUT", "text") return { e:kind(), e:message() }') == [b"", b"TIMEOUT"]


def test_a_channel_stays_in_its_process(world: World) -> None:
    """A sample of the documentation spawns a process with a channel as argument."""
    world.entry("app:wait", WAIT)
    kind, message = world.main(
        """local _, err = process.spawn("app:wait", "app:processes", channel.new())
        return { err:kind(), err:message() }"""
    )
    assert kind == b"Invalid"
    assert b"is a channel, which belongs to one process" in message


def test_coroutines_end_with_the_main_one(world: World) -> None:
    """An example of the original says that a coroutine goes on after its function has answered."""
    world.function(
        "app:f",
        f"""local time = require("time")
        return {{ main = function()
            coroutine.spawn(function() time.sleep("10ms") process.send("{OUTSIDE.decode()}", "still there") end)
            return "answered"
        end }}""",
        modules=["time"],
    )
    body = "local v = require('funcs').call('app:f') require('time').sleep('100ms') return v"
    assert world.main(body, modules=["funcs", "time"]) == b"answered"
    assert world.messages() == []


def test_a_topic_that_is_listened_to_gets_what_is_sent_directly(world: World) -> None:
    """Notes to the examples say that ``listen`` is for published messages alone."""
    assert (
        world.main("local c = process.listen('t') process.send(process.pid(), 't', 5) local v = c:receive() return v")
        == 5
    )


def test_rounding_wants_a_duration(world: World) -> None:
    """Everywhere else a duration may be a number or a text."""
    assert world.main(
        """local time = require("time")
        local t = time.unix(7199, 0):utc()
        return { t:round(time.parse_duration("1h")):unix(), (pcall(t.round, t, "1h")), (pcall(t.truncate, t, 1)) }""",
        modules=["time"],
    ) == [7200, False, False]


def test_the_running_coroutine_is_nil_in_the_main_one(world: World) -> None:
    """Lua 5.4 gives the main coroutine and true."""
    assert world.main("return { coroutine.running() == nil, type(coroutine.wrap(coroutine.running)()) }") == [
        True,
        b"thread",
    ]


def test_unpack_and_create_are_there_and_what_reaches_out_is_not(world: World) -> None:
    """Documented as Lua 5.3 without load, rawlen, utf8 and debug, yet with ``unpack`` and ``table.create``."""
    assert world.main(
        """local t = table.create(4, 0)
        return { select("#", unpack({ 1, 2 })), #t, load == nil, rawlen == nil, utf8 == nil, debug == nil, 7 // 2 }"""
    ) == [2, 0, True, True, True, True, 3]


def test_the_modules_that_are_globals_may_be_listed_and_required_too(world: World) -> None:
    body = "return { require('process') == process, require('channel') == channel, require('errors') == errors }"
    assert world.main(body, modules=["process", "channel", "errors"]) == [True, True, True]
    assert world.main(body) == [True, True, True]


def test_an_upgrade_that_fails_crashes_the_process(world: World) -> None:
    assert world.outcome("process.upgrade('app:none')")[6][b"kind"] == b"NotFound"
