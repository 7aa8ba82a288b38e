"""Channels, select and coroutines inside one process."""

from __future__ import annotations

import pytest

from tests.luaworld import World


def test_an_unbuffered_send_waits_for_its_receiver(world: World) -> None:
    assert world.main(
        """local ch, log = channel.new(), {}
        coroutine.spawn(function()
            log[#log + 1] = "sending"
            ch:send("v")
            log[#log + 1] = "sent"
        end)
        local done = channel.new()
        coroutine.spawn(function() done:send(1) end)
        done:receive()
        log[#log + 1] = "receiving"
        local v, ok = ch:receive()
        log[#log + 1] = v
        coroutine.spawn(function() done:send(1) end)
        done:receive()
        return log"""
    ) == [b"sending", b"receiving", b"v", b"sent"]


def test_a_buffered_channel_takes_as_many_as_its_size(world: World) -> None:
    assert world.main(
        """local ch, sent = channel.new(2), 0
        coroutine.spawn(function() for i = 1, 4 do ch:send(i) sent = i end end)
        local tick = channel.new()
        coroutine.spawn(function() tick:send(1) end)
        tick:receive()
        local before = sent
        local got = { before }
        for i = 1, 4 do got[#got + 1] = ch:receive() end
        return got"""
    ) == [2, 1, 2, 3, 4]


def test_values_survive_closing_and_then_nil_false_comes(world: World) -> None:
    assert world.main(
        """local ch = channel.new(2)
        ch:send("a") ch:close() ch:close()
        local v, ok = ch:receive()
        local w, more = ch:receive()
        return { v, ok, w == nil, more }"""
    ) == [b"a", True, True, False]


def test_nil_is_a_value_like_any_other(world: World) -> None:
    assert world.main(
        """local ch = channel.new(1)
        ch:send(nil)
        local v, ok = ch:receive()
        return { v == nil, ok }"""
    ) == [True, True]


def test_sending_on_a_closed_channel_raises_at_the_senders_line(world: World) -> None:
    message = world.outcome("local ch = channel.new(1) ch:close()\nch:send(1)")[6][b"message"]
    assert message == b"app:main1:2: send on closed channel"


def test_closing_wakes_senders_with_an_error_and_receivers_with_nothing(world: World) -> None:
    assert (
        world.main(
            """local ch, other, done = channel.new(), channel.new(), channel.new(2)
        coroutine.spawn(function() done:send({ pcall(ch.send, ch, 1) }) end)
        coroutine.spawn(function() done:send({ other:receive() }) end)
        coroutine.spawn(function() ch:close() other:close() end)
        local a, b = done:receive(), done:receive()
        local text = type(a[2]) == "string" and a[2] or b[2]
        return text"""
        )
        == b"app:main1:2: send on closed channel"
    )


def test_select_gives_the_channel_its_value_and_ok(world: World) -> None:
    assert world.main(
        """local a, b = channel.new(1), channel.new(1)
        b:send("x")
        local r = channel.select { a:case_receive(), b:case_receive() }
        b:close()
        local closed = channel.select { a:case_receive(), b:case_receive() }
        return { r.channel == b, r.value, r.ok, closed.channel == b, closed.ok }"""
    ) == [True, b"x", True, True, False]


def test_select_waits_and_leaves_the_other_channels_untouched(world: World) -> None:
    assert world.main(
        """local a, b, log = channel.new(), channel.new(), {}
        coroutine.spawn(function() b:send(1) a:send(2) end)
        local first = channel.select { a:case_receive(), b:case_receive() }
        local second = channel.select { a:case_receive(), b:case_receive() }
        return { first.channel == b, first.value, second.channel == a, second.value }"""
    ) == [True, 1, True, 2]


def test_select_with_default_does_not_wait(world: World) -> None:
    assert world.main(
        """local r = channel.select { channel.new():case_receive(), default = true }
        return { r.default, r.ok, r.channel == nil }"""
    ) == [True, True, True]


def test_select_sends_when_a_receiver_comes(world: World) -> None:
    assert world.main(
        """local out, back = channel.new(), channel.new()
        coroutine.spawn(function() back:send(out:receive() * 2) end)
        local r = channel.select { out:case_send(21) }
        return { r.channel == out, r.value, (back:receive()) }"""
    ) == [True, 21, 42]


def test_a_select_that_can_send_or_receive_does_only_one(world: World) -> None:
    assert world.main(
        """local a, b, done = channel.new(), channel.new(), channel.new(10)
        coroutine.spawn(function()
            local r = channel.select { a:case_send("sent"), b:case_receive() }
            done:send(r.channel == a and "sent" or "received")
        end)
        coroutine.spawn(function() done:send({ a:receive() }) end)
        done:receive() done:receive()
        local left = channel.select { a:case_receive(), default = true }
        local blocked = channel.select { b:case_send(1), default = true }
        return { left.default, blocked.default }"""
    ) == [True, True]


def test_select_is_fair_to_channels_that_are_always_ready(world: World) -> None:
    counts = world.main(
        """local a, b = channel.new(1000), channel.new(1000)
        for i = 1, 1000 do a:send(1) b:send(1) end
        local counts = { 0, 0 }
        for i = 1, 1000 do
            local r = channel.select { a:case_receive(), b:case_receive() }
            local which = r.channel == a and 1 or 2
            counts[which] = counts[which] + 1
        end
        return counts"""
    )
    assert min(counts) > 300


@pytest.mark.parametrize("case", ["1", "{}", "setmetatable({}, { __index = function() return 1 end })", "channel"])
def test_what_is_no_case_is_refused(world: World, case: str) -> None:
    message = world.outcome(f"channel.select {{ {case} }}")[6][b"message"].decode()
    assert "invalid case 1 in channel.select" in message


def test_many_waiting_receivers_are_served_in_order(world: World) -> None:
    assert world.main(
        """local ch, got = channel.new(), channel.new(5)
        for i = 1, 5 do coroutine.spawn(function() got:send({ i, ch:receive() }) end) end
        coroutine.spawn(function() for i = 10, 50, 10 do ch:send(i) end end)
        local sum = {}
        for _ = 1, 5 do local pair = got:receive() sum[pair[1]] = pair[2] end
        return sum"""
    ) == [10, 20, 30, 40, 50]


def test_a_channel_of_the_runtime_can_be_closed_but_not_sent_to(world: World) -> None:
    assert world.main(
        """local inbox = process.inbox()
        local ok, text = pcall(inbox.send, inbox, 1)
        return { ok, text }"""
    ) == [False, b"app:main1:2: can't send on a channel of the runtime"]


def test_coroutines_of_the_user_yield_values_and_wait_on_channels(world: World) -> None:
    assert world.main(
        """local ch = channel.new(1)
        local co = coroutine.create(function(a)
            local b = coroutine.yield(a + 1)
            local c = ch:receive()
            return b + c
        end)
        local _, first = coroutine.resume(co, 1)
        coroutine.spawn(function() ch:send(100) end)
        local _, last = coroutine.resume(co, 10)
        local again, text = coroutine.resume(co)
        return { first, last, coroutine.status(co), again, text }"""
    ) == [2, 110, b"dead", False, b"cannot resume dead coroutine"]


def test_wrap_gives_a_generator_and_raises_its_errors(world: World) -> None:
    assert world.main(
        """local sum = 0
        for i in coroutine.wrap(function() for i = 1, 10 do coroutine.yield(i) end end) do sum = sum + i end
        local ok, err = pcall(coroutine.wrap(function() error("inside") end))
        return { sum, ok, err:match("inside") }"""
    ) == [55, False, b"inside"]


def test_yielding_outside_of_a_coroutine_is_an_error(world: World) -> None:
    assert b"outside a coroutine" in world.outcome("coroutine.yield(1)")[6][b"message"]


def test_waiting_inside_a_callback_of_a_c_function_is_refused_and_leaves_no_trace(world: World) -> None:
    assert world.main(
        """local ch = channel.new()
        local ok, err = pcall(table.sort, { 2, 1 }, function() ch:receive() end)
        local inner, problem = pcall(table.sort, { 2, 1 }, function()
            coroutine.wrap(function() ch:receive() end)()
        end)
        coroutine.spawn(function() ch:send("for the one that waits") end)
        return { ok, err:match("can't wait"), inner, problem:match("can't wait"), (ch:receive()) }"""
    ) == [False, b"can't wait", False, b"can't wait", b"for the one that waits"]


def test_pcall_works_across_waits(world: World) -> None:
    assert world.main(
        """local ch = channel.new()
        coroutine.spawn(function() ch:send(1) end)
        local ok, v = pcall(function() local v = ch:receive() error({ v = v }) end)
        return { ok, v.v, select("#", pcall(function() return nil, nil end)) }"""
    ) == [False, 1, 3]


def test_an_error_in_any_coroutine_fails_the_process(world: World) -> None:
    exit = world.outcome(
        """coroutine.spawn(function() error("in the background") end)
        process.inbox():receive()"""
    )
    assert b"in the background" in exit[6][b"message"]


def test_the_end_of_main_ends_all_coroutines(world: World) -> None:
    world.main(
        """local who = ...
        coroutine.spawn(function() while true do process.send(who, "still", 1) channel.new():receive() end end)
        return 1""",
        b"{n1@node:test|1-0}",
    )
    assert world.messages() == []
    assert world.query(b"list") == []


def test_a_process_in_which_nothing_can_go_on_fails(world: World) -> None:
    exit = world.outcome("channel.new():receive()")
    assert exit[6][b"message"] == b"all coroutines blocked with no pending operations"


def test_a_process_that_can_still_be_woken_is_not_called_blocked(world: World) -> None:
    for waiting in ("process.inbox()", "process.events()", "process.listen('t')"):
        pid = world.spawn_body(f"{waiting} channel.new():receive()")
        assert not world.has_ended(pid)
