"""Spawn, exec, upgrade and the builders; here and on other nodes."""

from __future__ import annotations

import pytest

from cluster.envelope import Kind
from cluster.pid import Pid
from node.host.kernel import VmConfig
from tests.luaworld import HOST, OUTSIDE, REMOTE, World

ADD = "return { main = function(a, b) return a + b end }"


def test_pids_name_node_host_incarnation_and_slot(world: World) -> None:
    world.entry("app:add", ADD)
    pid = Pid.parse(world.spawn("app:add", 1, 2).decode())
    assert (pid.node, pid.host, pid.incarnation, pid.slot) == ("n1", "app:processes", 1, 1)


def test_a_thousand_pids_are_different_and_of_this_slot(world: World) -> None:
    world.entry("app:add", ADD)
    pids = world.main(
        """local pids = {}
        for i = 1, 1000 do pids[i] = process.spawn("app:add", "app:processes", i, i) end
        return pids"""
    )
    assert len(set(pids)) == 1000
    assert {Pid.parse(pid.decode()).slot for pid in pids} == {1}


def test_a_process_knows_its_pid_and_entry(world: World) -> None:
    pid = world.spawn_body("return { process.pid(), process.id() }")
    assert world.exit_of(pid)[5] == [pid, b"app:main1"]


def test_arguments_are_copied_and_holes_kept(world: World) -> None:
    world.entry(
        "app:args", "return { main = function(...) local t = ... return { select('#', ...), t.n, select(3, ...) } end }"
    )
    assert world.main(
        """local t = { n = 1 }
        local events = process.events()
        process.spawn_monitored("app:args", "app:processes", t, nil, "x", nil)
        t.n = 2
        return events:receive().result.value"""
    ) == [4, 1, b"x"]


def test_an_unknown_entry_is_not_found(world: World) -> None:
    kind, message = world.main(
        'local _, err = process.spawn("app:none", "app:processes") return { err:kind(), err:message() }'
    )
    assert kind == b"NotFound"
    assert b"app:none" in message


def test_a_function_or_library_can_not_be_spawned(world: World) -> None:
    world.function("app:f", ADD)
    assert world.main('local _, err = process.spawn("app:f", "app:processes") return err:kind()') == b"Invalid"


def test_source_that_does_not_compile_is_invalid_and_says_where(world: World) -> None:
    world.entry("app:bad", "return {\n main = = }", raw=True)
    message = world.main('local _, err = process.spawn("app:bad", "app:processes") return err:message()')
    assert b"app:bad:2:" in message


def test_source_can_not_close_the_function_it_is_put_into(world: World) -> None:
    world.entry("app:bad", "return {} end, (function() return 1", raw=True)
    assert world.main('local _, err = process.spawn("app:bad", "app:processes") return err:kind()') == b"Invalid"


def test_a_chunk_may_return_one_function_and_method_may_name_another(world: World) -> None:
    world.entry("app:one", "return function() return 'one' end")
    world.entry("app:other", "return { go = function() return 'other' end }", method="go")
    assert world.exit_of(world.spawn("app:one"))[5] == b"one"
    assert world.exit_of(world.spawn("app:other"))[5] == b"other"


def test_a_missing_method_fails_with_its_name(world: World) -> None:
    world.entry("app:none", "return { run = function() end }")
    error = world.exit_of(world.spawn("app:none"))[6]
    assert b"app:none has no function 'main'" in error[b"message"]


def test_exec_gives_the_value_or_the_error(world: World) -> None:
    world.entry("app:add", ADD)
    seen = world.main(
        """local sum, none = process.exec("app:add", "app:processes", 20, 22)
        local value, err = process.exec("app:add", "app:processes", 1)
        return { sum, none == nil, value == nil, err:kind() }"""
    )
    assert seen == [42, True, True, b"Internal"]


def test_a_spawn_on_another_node_waits_for_its_reply(world: World) -> None:
    pid = world.spawn_body('return process.spawn_linked("app:x", "n2@app:processes", 1, nil)')
    asked = next(item for item in world.out if item[0] == Kind.SPAWN)
    assert asked[1:3] == [b"{n2@app:processes|}", pid]
    assert asked[4:6] == [b"app:x", [1, None]]
    assert asked[6][b"link"] is True
    assert asked[3] % 64 == 1
    world.run([int(Kind.REPLY), pid, asked[1], asked[3], 0, REMOTE])
    assert world.exit_of(pid)[5] == REMOTE
    assert any(item[:3] == [Kind.UNLINK, REMOTE, pid] for item in world.out)


def test_a_parent_that_failed_before_the_reply_takes_its_linked_child_along(world: World) -> None:
    pid = world.spawn_body('process.spawn_linked("app:x", "n2@app:processes")')
    asked = next(item for item in world.out if item[0] == Kind.SPAWN)
    world.run([int(Kind.TERMINATE), pid, OUTSIDE, 0])
    world.run([int(Kind.REPLY), pid, asked[1], asked[3], 0, REMOTE])
    told = next(item for item in world.out if item[0] == Kind.EXIT and item[1] == REMOTE)
    assert told[4] == 2
    assert told[6][b"message"] == b"terminated"


def test_an_own_node_in_the_host_is_no_other_node(world: World) -> None:
    world.entry("app:add", ADD)
    assert world.main('return process.exec("app:add", "n1@app:processes", 1, 2)') == 3


def test_exec_on_another_node_waits_for_the_exit(world: World) -> None:
    pid = world.spawn_body('return process.exec("app:x", "n2@app:processes")')
    asked = next(item for item in world.out if item[0] == Kind.SPAWN)
    world.run(
        [int(Kind.REPLY), pid, asked[1], asked[3], 0, REMOTE],
        [int(Kind.EXIT), pid, REMOTE, 0, 1, b"far away", None],
    )
    assert world.exit_of(pid)[5] == b"far away"


def test_exec_on_a_node_that_goes_away_fails(world: World) -> None:
    pid = world.spawn_body('local _, err = process.exec("app:x", "n2@app:processes") return err:kind()')
    asked = next(item for item in world.out if item[0] == Kind.SPAWN)
    world.run([int(Kind.REPLY), pid, asked[1], asked[3], 0, REMOTE])
    world.run([45, b"n2", b"lost"])
    assert world.exit_of(pid)[5] == b"Unavailable"


def test_builders_never_change_and_carry_context_name_and_messages(world: World) -> None:
    world.handlers[b"names", b"register"] = lambda *args: [True]
    world.entry(
        "app:child",
        """local ctx = require("ctx")
        return { main = function()
            local inbox = process.inbox()
            local m = inbox:receive()
            return { ctx.get("a"), ctx.get("b") or "none", m:topic(), m:payload():data() }
        end }""",
        modules=["ctx"],
    )
    seen = world.main(
        """local base = process.with_context({ a = 1 })
        local more = base:with_context({ b = 2 }):with_message("start", { n = 7 }):with_name("worker")
        local first = more:exec("app:child", "app:processes")
        local plain = base:with_message("start", "x"):exec("app:child", "app:processes")
        return { first, plain }"""
    )
    assert seen[0][:3] == [1, 2, b"start"]
    assert seen[0][3] == {b"n": 7}
    assert seen[1] == [1, b"none", b"start", b"x"]


def test_context_is_inherited_by_children_and_calls(world: World) -> None:
    world.entry(
        "app:child",
        """local ctx, funcs = require("ctx"), require("funcs")
        return { main = function() return { ctx.get("who"), (funcs.call("app:f")) } end }""",
        modules=["ctx", "funcs"],
    )
    world.function(
        "app:f", 'local ctx = require("ctx") return { main = function() return ctx.get("who") end }', modules=["ctx"]
    )
    seen = world.main('return process.with_context({ who = "me" }):exec("app:child", "app:processes")')
    assert seen == [b"me", b"me"]


def test_a_name_that_is_taken_gets_the_messages_instead_of_a_new_process(world: World) -> None:
    pid = world.spawn_body("local m = process.inbox():receive() return m:payload():data()")
    world.run([43, b"singleton", pid, 5])
    given = world.main(
        """local pid = process.with_options({}):with_name("singleton"):with_message("hey", 9):spawn("app:main1",
            "app:processes")
        return pid"""
    )
    assert given == pid
    assert world.exit_of(pid)[5] == 9


def test_security_in_builders_is_unavailable_by_name(world: World) -> None:
    kind, message = world.main(
        "local _, err = process.with_context({}):with_actor({}) return { err:kind(), err:message() }"
    )
    assert kind == b"Unavailable"
    assert b"security" in message


def test_a_host_for_one_process_refuses_a_second() -> None:
    world = World(VmConfig(single=True))
    world.entry("app:add", ADD)
    kind = world.main('local _, err = process.spawn("app:add", "app:processes", 1, 2) return err:kind()')
    assert kind == b"Unavailable"


def test_a_host_at_its_limit_refuses_more() -> None:
    world = World(VmConfig(max_processes=3))
    world.entry("app:wait", "return { main = function() process.inbox():receive() end }")
    assert world.main(
        """local kinds = {}
        for i = 1, 4 do
            local pid, err = process.spawn("app:wait", "app:processes")
            kinds[i] = pid and "ok" or err:kind()
        end
        return kinds"""
    ) == [b"ok", b"ok", b"RateLimited", b"RateLimited"]


def test_a_spawn_from_outside_attaches_before_the_child_runs(world: World) -> None:
    world.entry("app:quick", "return { main = function() return 5 end }")
    reference = world.post_spawn("app:quick", options={b"monitor": True})
    world.run()
    kinds = [item[0] for item in world.out]
    assert kinds == [Kind.REPLY, Kind.EXIT]
    assert world.reply(reference)[4] == 0


def test_a_spawn_from_outside_of_something_unknown_is_answered_with_the_error(world: World) -> None:
    reference = world.post_spawn("app:none")
    world.run()
    assert world.reply(reference)[4] == 1
    assert world.reply(reference)[5][b"kind"] == b"NotFound"


def test_a_tracked_process_is_told_to_the_node_when_it_ends(world: World) -> None:
    world.entry("app:bad", "return { main = function() error('x') end }")
    pid = world.spawn("app:bad", options={b"tracked": True})
    ended = next(item for item in world.out if item[0] == 53)
    assert ended[1:3] == [pid, b"app:bad"]
    assert ended[3][b"message"] == b"app:bad:1: x"


def test_upgrade_keeps_pid_mail_and_watchers(world: World) -> None:
    world.entry(
        "app:v2",
        """return { main = function(state)
            local inbox = process.inbox()
            return { state.count, inbox:receive():payload():data(), process.pid(), process.id() }
        end }""",
    )
    pid = world.spawn_body(
        """local inbox, jobs = process.inbox(), process.listen("job")
        process.listen("go"):receive()
        coroutine.spawn(function() while true do inbox:receive() process.pid() end end)
        pcall(process.upgrade, "app:v2", { count = 7 })
        return "never" """
    )
    world.run(
        [1, pid, OUTSIDE, 0, b"go", [1], b"", 0],
        [1, pid, OUTSIDE, 0, b"job", [b"kept"], b"", 0],
    )
    assert world.exit_of(pid)[5] == [7, b"kept", pid, b"app:v2"]


def test_upgrade_to_itself_runs_again_with_new_state(world: World) -> None:
    pid = world.spawn_body("local n = ... if n < 5 then process.upgrade(nil, n + 1) end return n", 1)
    assert world.exit_of(pid)[5] == 5
    assert world.query(b"counters")[b"live"] == 0


def test_upgrade_to_something_unknown_fails_the_process(world: World) -> None:
    error = world.outcome('process.upgrade("app:none")')[6]
    assert error[b"kind"] == b"NotFound"


@pytest.mark.parametrize("call", ["spawn(1, 'h')", "spawn('app:x')", "with_context(1)", "listen(1)", "cancel(nil)"])
def test_wrong_types_raise(world: World, call: str) -> None:
    assert b"app:main1:1: bad argument" in world.outcome(f"process.{call}")[6][b"message"]


def test_a_spawn_for_a_host_of_the_same_node_but_another_vm_leaves(world: World) -> None:
    world.spawn_body('process.spawn("app:x", "app:other")')
    asked = next(item for item in world.out if item[0] == Kind.SPAWN)
    assert asked[1] == b"{n1@app:other|}"
    assert asked[1] != HOST
