"""Function calls: funcs, futures, executors."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize(
    "retry",
    [
        "initial_delay = math.huge, max_delay = math.huge",
        "initial_delay = 1, max_delay = 1e300, backoff_factor = 1e200",
        "initial_delay = 1, max_delay = math.huge, backoff_factor = math.huge",
    ],
)
def test_a_pause_beyond_all_measure_is_a_long_one(world: World, retry: str) -> None:
    """It is computed in the kernel, whose failure would be that of every process."""
    world.function("app:f", "return { main = function() return nil, errors.new('fails') end }")
    pid = world.spawn_body(
        f"return require('funcs').new():with_options({{ retry = {{ max_attempts = 3, {retry} }} }}):call('app:f')",
        modules=["funcs"],
    )
    assert not world.has_ended(pid)
    assert world.main("return 1") == 1


def test_a_timeout_beyond_all_measure_is_a_long_one(world: World) -> None:
    world.function("app:f", "return { main = function() return process.inbox():receive() end }")
    pid = world.spawn_body(
        "return require('funcs').new():with_options({ timeout = math.maxinteger }):call('app:f')", modules=["funcs"]
    )
    assert not world.has_ended(pid)


class TestRetry:
    """The option ``retry`` of executors."""

    def run(self, world: World, retry: str, *, good_from: int = 3, error: str = "kind = errors.UNAVAILABLE") -> object:
        """[what the call gave, how often it ran]; the function works from its ``good_from``-th run on."""
        world.function(
            "app:flaky",
            f"""return {{ main = function(counter, list)
                list[1] = list[1] + 1
                local n = require("funcs").call("app:count", counter)
                if n >= {good_from} then return {{ n, list[1] }} end
                return nil, errors.new({{ message = "run " .. n, {error} }})
            end }}""",
            modules=["funcs"],
        )
        world.function(
            "app:count",
            """return { main = function(counter)
                process.send(counter, "count", process.pid())
                return process.inbox():receive():payload():data()
            end }""",
        )
        world.entry(
            "app:counter",
            """return { main = function()
                local n = 0
                while true do
                    n = n + 1
                    local m = process.inbox():receive()
                    process.send(m:from(), "n", n)
                end
            end }""",
        )
        return main(
            world,
            f"""local counter = process.spawn("app:counter", "app:processes")
            local executor = assert(funcs.new():with_options({{ retry = {retry} }}))
            local value, err = executor:call("app:flaky", counter, {{ 0 }})
            local runs = funcs.call("app:count", counter) - 1
            return {{ value or err:message(), runs }}""",
        )

    def test_a_call_that_fails_for_a_moment_is_tried_again(self, world: World) -> None:
        assert self.run(world, "{ max_attempts = 5, initial_delay = 1 }") == [[3, 1], 3]

    def test_the_last_error_is_given_when_all_attempts_failed(self, world: World) -> None:
        assert self.run(world, "{ max_attempts = 3, initial_delay = '1ms' }", good_from=9) == [b"run 3", 3]

    def test_one_attempt_is_no_retry(self, world: World) -> None:
        assert self.run(world, "{ max_attempts = 1 }") == [b"run 1", 1]

    def test_an_error_that_says_it_is_final_is_not_tried_again(self, world: World) -> None:
        final = "kind = errors.UNAVAILABLE, retryable = false"
        assert self.run(world, "{ max_attempts = 5, initial_delay = 1 }", error=final) == [b"run 1", 1]
        for kind in ("INVALID", "PERMISSION_DENIED", "INTERNAL"):
            fresh = World()
            error = f"kind = errors.{kind}"
            assert self.run(fresh, "{ max_attempts = 5, initial_delay = 1 }", error=error) == [b"run 1", 1]

    def test_the_pauses_grow(self, world: World) -> None:
        self.run(world, "{ max_attempts = 4, initial_delay = 100, backoff_factor = 2 }", good_from=4)
        assert 0.7 <= world.clock.passed < 1.5

    def test_the_longest_pause_is_kept(self, world: World) -> None:
        self.run(world, "{ max_attempts = 6, initial_delay = 100, max_delay = 100 }", good_from=6)
        assert 0.5 <= world.clock.passed < 1.0

    def test_a_canceled_future_is_not_tried_again(self, world: World) -> None:
        world.function("app:never", "return { main = function() return nil, errors.new('again') end }")
        assert main(
            world,
            """local time = require("time")
            local f = funcs.new():with_options({ retry = { max_attempts = 9, initial_delay = 50 } }):async("app:never")
            time.sleep("10ms")
            local canceled = f:cancel()
            time.sleep("200ms")
            local _, err = f:result()
            return { canceled, err:kind() }""",
        ) == [True, b"Canceled"]
        assert world.query(b"counters")[b"entries"][b"app:never"][b"spawned"] == 1

    def test_the_end_of_the_caller_ends_the_attempts(self, world: World) -> None:
        world.function("app:never", "return { main = function() return nil, errors.new('again') end }")
        main(
            world,
            'funcs.new():with_options({ retry = { max_attempts = 9, initial_delay = 400 } }):async("app:never") '
            'require("time").sleep("2ms")',
        )
        assert world.query(b"counters")[b"entries"][b"app:never"][b"spawned"] == 1
        assert world.query(b"counters")[b"live"] == 0

    def test_options_that_make_no_sense_are_invalid(self, world: World) -> None:
        for retry in (
            "1",
            "{}",
            "{ max_attempts = 0 }",
            "{ max_attempts = 1.5 }",
            "{ max_attempts = 2, initial_delay = 'soon' }",
            "{ max_attempts = 2, initial_delay = 0 }",
            "{ max_attempts = 2, initial_delay = 5, max_delay = 1 }",
            "{ max_attempts = 2, backoff_factor = 0.5 }",
        ):
            body = f"local _, err = funcs.new():with_options({{ retry = {retry} }}) return err:kind()"
            assert main(world, body) == b"Invalid", retry

    def test_options_that_need_what_is_not_there_are_unavailable(self, world: World) -> None:
        for option in ("network = 'app:tor'", "['activity.retry_policy'] = {}", "['temporal.workflow.id'] = 'x'"):
            body = f"local _, err = funcs.new():with_options({{ {option} }}) return err:kind()"
            assert main(world, body) == b"Unavailable", option

    def test_any_other_option_has_no_effect(self, world: World) -> None:
        world.function("app:one", "return { main = function() return 1 end }")
        assert main(world, "return funcs.new():with_options({ priority = 5, key = 'v' }):call('app:one')") == 1
