"""Function calls: funcs, futures, executors."""

from __future__ import annotations

from cluster.pid import Pid
from tests.luaworld import World


def main(world: World, source: str) -> object:
    return world.main(f'local funcs = require("funcs") {source}', modules=["funcs", "time"])


def test_a_call_gives_the_first_value(world: World) -> None:
    world.function("app:double", "return { main = function(n) return n * 2, nil, 'ignored' end }")
    assert main(world, 'return { funcs.call("app:double", 21) }') == [42]


def test_an_error_that_was_returned_keeps_its_kind_and_a_raised_one_is_internal(world: World) -> None:
    world.function(
        "app:returns",
        "return { main = function() return nil, errors.new({ message = 'no', kind = errors.CONFLICT, details = "
        "{ at = 7 } }) end }",
    )
    world.function("app:raises", "return { main = function() error('broken') end }")
    assert main(
        world,
        """local _, a = funcs.call("app:returns")
        local _, b = funcs.call("app:raises")
        return { a:kind(), a:details().at, b:kind(), b:message() }""",
    ) == [b"Conflict", 7, b"Internal", b"app:raises:1: broken"]


def test_targets_are_checked(world: World) -> None:
    assert main(
        world,
        """local kinds = {}
        for i, id in ipairs({ "", "name", ":name", "ns:", "app:none" }) do
            local _, err = funcs.call(id)
            kinds[i] = err:kind()
        end
        return kinds""",
    ) == [b"Invalid"] * 4 + [b"NotFound"]


def test_a_function_has_a_pid_with_its_own_id_as_host(world: World) -> None:
    world.function("app:who", "return { main = function() return process.pid() end }")
    pid = Pid.parse(main(world, 'return funcs.call("app:who")').decode())  # type: ignore[attr-defined]
    assert (pid.host, pid.slot) == ("app:who", 1)


def test_a_call_that_takes_too_long_ends_with_timeout(world: World) -> None:
    world.function(
        "app:slow", 'local time = require("time") return { main = function() time.sleep("10s") end }', modules=["time"]
    )
    assert main(
        world,
        """local _, err = funcs.new():with_options({ timeout = 20 }):call("app:slow")
        return { err:kind(), err:retryable() }""",
    ) == [b"Timeout", True]
    assert world.query(b"counters")[b"live"] == 0


def test_calls_run_beside_each_other(world: World) -> None:
    world.function(
        "app:slow",
        'local time = require("time") return { main = function(n) time.sleep("30ms") return n end }',
        modules=["time"],
    )
    assert main(
        world,
        """local time = require("time")
        local began, futures, sum = time.now(), {}, 0
        for i = 1, 10 do futures[i] = funcs.async("app:slow", i) end
        for i = 1, 10 do sum = sum + futures[i]:response():receive():data() end
        return { sum, time.now():sub(began):milliseconds() < 200 }""",
    ) == [55, True]


def test_a_future_tells_how_it_stands(world: World) -> None:
    world.function("app:ok", "return { main = function(n) if n then return n end error('x') end }")
    assert main(
        world,
        """local f, g = funcs.async("app:ok", 7), funcs.async("app:ok")
        local pending, none = f:result()
        local before = f:is_complete()
        f:channel():receive() g:response():receive()
        local value = f:result()
        local _, failure = g:result()
        local err, failed = g:error()
        return { pending == nil, before, f:is_complete(), value:data(), failure:kind(), failed, err == failure,
            f:is_canceled() }""",
    ) == [True, False, True, 7, b"Internal", True, True, False]


def test_a_canceled_future_ends_the_call(world: World) -> None:
    world.function("app:wait", "return { main = function() process.inbox():receive() end }")
    assert main(
        world,
        """local f = funcs.async("app:wait")
        local ok = f:cancel()
        local _, err = f:result()
        return { ok, f:is_canceled(), err:kind(), (f:cancel()) }""",
    ) == [True, True, b"Canceled", False]
    assert world.query(b"counters")[b"live"] == 0


def test_the_end_of_the_caller_ends_its_calls(world: World) -> None:
    world.function("app:wait", "return { main = function() process.inbox():receive() end }")
    main(world, 'funcs.async("app:wait") return 1')
    assert world.query(b"counters")[b"entries"][b"app:wait"][b"exits"] == {b"killed": 1}


def test_a_call_can_wait_for_messages_of_its_own(world: World) -> None:
    world.function(
        "app:ask",
        "return { main = function(who) process.send(who, 'q', process.pid()) return "
        "process.inbox():receive():payload():data() end }",
    )
    assert (
        main(
            world,
            """local inbox = process.inbox()
        local f = funcs.async("app:ask", process.pid())
        local pid = inbox:receive():payload():data()
        process.send(pid, "a", 42)
        return f:response():receive():data()""",
        )
        == 42
    )


def test_executors_never_change(world: World) -> None:
    world.function(
        "app:ctx", 'local ctx = require("ctx") return { main = function() return ctx.all() end }', modules=["ctx"]
    )
    assert main(
        world,
        """local base = funcs.new():with_context({ a = 1 })
        local more, err = base:with_context({ b = 2 })
        local _, security = base:with_actor({})
        return { more:call("app:ctx"), base:call("app:ctx"), security:kind(), (select(2, base:with_options({
            timeout = -1 })):kind()) }""",
    ) == [{b"a": 1, b"b": 2}, {b"a": 1}, b"Unavailable", b"Invalid"]


def test_a_call_from_outside_is_answered_with_value_or_error(world: World) -> None:
    world.function("app:add", "return { main = function(a, b) return a + b end }")
    world.function(
        "app:slow", 'local time = require("time") return { main = function() time.sleep("10s") end }', modules=["time"]
    )
    assert world.call("app:add", 1, 2) == (3, None)
    assert world.call("app:none")[1][b"kind"] == b"NotFound"
    assert world.call("app:add", {})[1][b"kind"] == b"Internal"
    assert world.call("app:slow", timeout=10)[1][b"kind"] == b"Timeout"


def test_a_process_is_no_function(world: World) -> None:
    world.entry("app:p", "return { main = function() end }")
    assert main(world, 'local _, err = funcs.call("app:p") return err:kind()') == b"Invalid"
