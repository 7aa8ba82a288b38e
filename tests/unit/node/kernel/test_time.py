"""Sleeping, timers and tickers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.luaworld import World


def main(world: World, source: str, *args: Any) -> Any:
    return world.main(f'local time = require("time") {source}', *args, modules=["time"])


def test_sleep_lasts_at_least_as_long_as_asked(world: World) -> None:
    assert main(world, 'time.sleep("30ms") time.sleep(20 * time.MILLISECOND) return 1') == 1
    assert world.clock.passed >= 0.05


def test_after_fires_once_with_an_instant(world: World) -> None:
    assert main(
        world,
        """local before = time.now()
        local at, ok = time.after("10ms"):receive()
        return { ok, at:after(before) }""",
    ) == [True, True]


def test_a_timeout_in_a_select(world: World) -> None:
    assert main(
        world,
        """local timeout, work = time.after("5ms"), channel.new()
        local r = channel.select { work:case_receive(), timeout:case_receive() }
        return r.channel == timeout""",
    )


def test_a_stopped_timer_does_not_fire_and_a_reset_one_fires_later(world: World) -> None:
    assert main(
        world,
        """local a, b = time.timer("5ms"), time.timer("5ms")
        local stopped, again = a:stop(), a:stop()
        local running = b:reset("20ms")
        local began = time.now()
        b:response():receive()
        local r = channel.select { a:channel():case_receive(), default = true }
        return { stopped, again, running, time.now():sub(began):milliseconds() >= 15, r.default }""",
    ) == [True, False, True, True, True]


def test_a_ticker_does_not_drift_and_drops_what_nobody_takes(world: World) -> None:
    ticks = main(
        world,
        """local ticker, ticks = time.ticker("10ms"), 0
        for i = 1, 20 do ticker:response():receive() ticks = ticks + 1 end
        local late = time.after("55ms")
        late:receive()
        local waiting = 0
        while not channel.select({ ticker:response():case_receive(), default = true }).default do waiting = waiting
            + 1 end
        ticker:stop()
        return { ticks, waiting }""",
    )
    assert ticks == [20, 1]
    assert 0.25 <= world.clock.passed < 0.6


@pytest.mark.parametrize("call", ["timer('-1s')", "ticker(0)", "timer('soon')", "after('soon')", "sleep('soon')"])
def test_a_bad_duration_is_invalid(world: World, call: str) -> None:
    assert main(world, f"local _, err = time.{call} return err:kind()") == b"Invalid"


@pytest.mark.parametrize("call", ["sleep", "after", "timer", "ticker"])
def test_what_is_due_after_the_end_of_time_never_is(world: World, call: str) -> None:
    """A moment that wrapped around would be in the past: a ticker would tick without end."""
    pid = world.spawn_body(
        f"""local made = require("time").{call}(math.maxinteger)
        local channel = type(made) == "table" and made.channel and made:channel() or made
        return channel:receive()""",
        modules=["time"],
    )
    assert not world.has_ended(pid)
    assert world.main("return 1") == 1


def test_sleeping_processes_wake_in_the_order_of_their_times(world: World) -> None:
    world.entry(
        "app:sleeper",
        'local time = require("time") return { main = function(who, ms) time.sleep(ms .. "ms") '
        'process.send(who, "up", ms) end }',
        modules=["time"],
    )
    assert main(
        world,
        """local inbox = process.inbox()
        for _, ms in ipairs({ 30, 10, 20, 5 }) do process.spawn("app:sleeper", "app:processes", process.pid(), ms) end
        local order = {}
        for i = 1, 4 do order[i] = inbox:receive():payload():data() end
        return order""",
    ) == [5, 10, 20, 30]


def test_timers_of_ended_processes_are_swept(world: World) -> None:
    world.entry(
        "app:brief",
        'local time = require("time") return { main = function() for i = 1, 50 do time.after("1h") end end }',
        modules=["time"],
    )
    main(world, 'for i = 1, 100 do process.spawn("app:brief", "app:processes") end time.sleep("1ms")')
    assert world.query(b"counters")[b"timers"] < 3000
