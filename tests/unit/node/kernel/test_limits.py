"""The limits of a host: what happens at each, how it is counted, and that they change while the VM runs."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.envelope import Kind
from node.host.kernel import VmConfig
from tests.luaworld import OUTSIDE, REMOTE, World

SLEEPS = "process.inbox():receive()"


def hits(world: World) -> dict[bytes, int]:
    found: dict[bytes, int] = world.query(b"counters")[b"limits"]
    return found or {}


class TestMailbox:
    def test_a_sender_to_a_full_one_is_told_which_and_why(self) -> None:
        world = World(VmConfig(mailbox_limit=2))
        kind, retryable, details = world.main(
            """process.send(process.pid(), "t", 1) process.send(process.pid(), "t", 2)
            local ok, err = process.send(process.pid(), "t", 3)
            return { err:kind(), err:retryable(), err:details() }"""
        )
        assert (kind, retryable) == (b"RateLimited", True)
        assert details[b"reason"] == b"mailbox_full"
        assert details[b"limit"] == 2
        assert hits(world) == {b"mailbox_size": 1}

    def test_from_elsewhere_it_is_an_error_to_the_node_and_a_dead_letter(self) -> None:
        world = World(VmConfig(mailbox_limit=1))
        pid = world.spawn_body("process.listen('never'):receive()")
        world.run(*([int(Kind.MESSAGE), pid, REMOTE, ref, b"t", [1], b"", 0] for ref in (0, 640)))
        assert world.reply(640)[5][b"kind"] == b"RateLimited"
        assert world.query(b"counters")[b"dead_letters"][b"full"] == 1
        assert not world.has_ended(pid)

    @pytest.mark.parametrize("sender", [OUTSIDE, REMOTE])
    def test_with_the_policy_kill_it_ends_its_process(self, sender: bytes) -> None:
        world = World(VmConfig(mailbox_limit=3, mailbox_policy="kill"))
        pid = world.spawn_body("process.listen('never'):receive()")
        other = world.spawn_body("process.listen('never'):receive()")
        world.run(*([int(Kind.MESSAGE), pid, sender, 0, b"t", [1], b"", 0] for _ in range(3)))
        assert not world.has_ended(pid)
        world.run([int(Kind.MESSAGE), pid, sender, 0, b"t", [1], b"", 0])
        assert world.exit_of(pid)[6][b"message"] == b"killed: mailbox"
        assert not world.has_ended(other)
        assert world.query(b"counters")[b"entries"][b"app:main1"][b"exits"] == {b"mailbox": 1}

    def test_with_the_policy_kill_a_local_sender_is_told_and_goes_on(self) -> None:
        world = World(VmConfig(mailbox_limit=2, mailbox_policy="kill"))
        pid = world.spawn_body("process.listen('never'):receive()")
        results = world.main(
            """local results = {}
            for i = 1, 4 do
                local ok, err = process.send(..., "t", i)
                results[i] = ok or err:kind()
            end
            return results""",
            pid,
        )
        assert results == [True, True, b"RateLimited", b"NotFound"]
        assert world.exit_of(pid)[6][b"message"] == b"killed: mailbox"

    def test_with_the_policy_kill_a_process_that_floods_itself_dies_at_once(self) -> None:
        world = World(VmConfig(mailbox_limit=5, mailbox_policy="kill"))
        exit = world.outcome("while true do pcall(process.send, process.pid(), 't', 1) end")
        assert exit[6][b"message"] == b"killed: mailbox"
        assert world.main("return 1") == 1


class TestMessageSize:
    @pytest.mark.parametrize("pid", [REMOTE, b"own"])
    @pytest.mark.parametrize(
        "payload",
        [
            "('x'):rep(20000)",
            "{ text = ('x'):rep(20000) }",
            "{ { { ('x'):rep(6000), ('y'):rep(6000) } } }",
            "(function() local t = {} for i = 1, 20000 do t[i] = i end return t end)()",
        ],
    )
    def test_what_is_too_big_is_refused_with_both_sizes(self, pid: bytes, payload: str) -> None:
        world = World(VmConfig(max_message=10_000))
        to = "process.pid()" if pid == b"own" else f"'{pid.decode()}'"
        kind, message = world.main(
            f"""local ok, err = process.send({to}, "t", {payload})
            assert(not ok, "it was accepted")
            return {{ err:kind(), err:message() }}"""
        )
        assert kind == b"Invalid"
        assert b"10000 bytes" in message
        assert hits(world) == {b"max_message": 1}

    @pytest.mark.parametrize("payload", ["('x'):rep(9000)", "{ 1, 2, ('x'):rep(4000), ('x'):rep(4000) }"])
    def test_what_is_not_is_taken(self, payload: str) -> None:
        world = World(VmConfig(max_message=10_000))
        assert world.main(f"return process.send(process.pid(), 't', {payload})") is True


class TestCounts:
    def test_processes(self) -> None:
        world = World(VmConfig(max_processes=2))
        world.entry("app:child", "return { main = function() process.inbox():receive() end }")
        assert world.main(
            """local a = process.spawn("app:child", "app:processes")
            local b, err = process.spawn("app:child", "app:processes")
            return { a ~= nil, b == nil, err:kind() }"""
        ) == [True, True, b"RateLimited"]
        assert hits(world) == {b"max_processes": 1}

    def test_timers_of_one_process(self) -> None:
        world = World(VmConfig(max_timers=10))
        body = """local time = require("time")
            local made = 0
            while time.after("1h") do made = made + 1 end
            local _, err = time.after("1h")
            for _, make in ipairs { time.timer, time.ticker, time.sleep } do
                local ok, other = make("1h")
                assert(ok == nil and other:kind() == err:kind())
            end
            return { made, err:kind() }"""
        assert world.main(body, modules=["time"]) == [10, b"RateLimited"]
        assert world.main(body, modules=["time"]) == [10, b"RateLimited"]
        assert hits(world) == {b"max_timers": 10}

    def test_a_ticker_ticks_on_at_the_limit(self) -> None:
        world = World(VmConfig(max_timers=1))
        body = """local ticker = require("time").ticker("10ms")
            for i = 1, 3 do ticker:channel():receive() end return "ticked" """
        assert world.main(body, modules=["time"]) == b"ticked"

    def test_a_ticker_ticks_on_when_fewer_timers_are_allowed_than_there_are(self) -> None:
        world = World()
        pid = world.spawn_body(
            """local time = require("time")
            local long, ticker = time.ticker("1h"), time.ticker("1m")
            for i = 1, 3 do ticker:channel():receive() end
            return "ticked" """,
            modules=["time"],
        )
        world.kernel.change(VmConfig(max_timers=1))
        world.patience = 60.0
        world.run()
        assert world.exit_of(pid)[5] == b"ticked"

    def test_deadlines_of_the_kernel_are_never_refused(self) -> None:
        """Between two attempts of a call the kernel waits for its process, in no turn of it."""
        world = World(VmConfig(max_timers=1))
        world.function("app:f", "return { main = function() return nil, errors.new('fails') end }")
        assert (
            world.main(
                """require("time").ticker("1h")
            local again = { max_attempts = 2, initial_delay = 1 }
            local _, err = require("funcs").new():with_options({ retry = again }):call("app:f")
            return err:message()""",
                modules=["time", "funcs"],
            )
            == b"fails"
        )

    def test_answers_one_process_waits_for(self) -> None:
        world = World(VmConfig(max_waiting=3))
        pid = world.spawn_body(
            f"""for i = 1, 3 do coroutine.spawn(function() process.monitor("{REMOTE.decode()}") end) end
            coroutine.spawn(function()
                local ok, err = process.monitor("{{n2@app:processes|5-3b}}")
                process.send("{OUTSIDE.decode()}", "refused", err:kind())
            end)
            process.inbox():receive()"""
        )
        assert ("refused", [b"RateLimited"]) in world.messages()
        assert hits(world) == {b"max_waiting": 1}
        assert not world.has_ended(pid)

    def test_topics_one_process_listens_to(self) -> None:
        world = World(VmConfig(max_subscriptions=4))
        assert world.main(
            """local channels = {}
            for i = 1, 4 do channels[i] = process.listen("t" .. i) end
            assert(process.listen("t1") == channels[1])
            local none, err = process.listen("t5")
            local shared, other = subscribe("t5", channel.new(1))
            assert(none == nil and shared == nil and other:kind() == err:kind())
            process.unlisten(channels[2])
            return { err:kind(), process.listen("t5") ~= nil }"""
        ) == [b"RateLimited", True]
        assert hits(world) == {b"max_subscriptions": 2}

    def test_nested_pcalls(self) -> None:
        world = World(VmConfig(pcall_depth=5))
        deepest = """local function nest(n)
                local ok, inner = pcall(nest, n + 1)
                return ok and inner or n
            end
            return nest(0)"""
        assert world.main(deepest) == 4
        assert hits(world) == {b"pcall_depth": 1}

    def test_a_stretch_that_cannot_be_interrupted(self) -> None:
        world = World(VmConfig(stretch=0.02))
        exit = world.outcome("table.sort({ 3, 2, 1 }, function() while true do end end)")
        assert b"killed" in exit[6][b"message"]
        assert hits(world) == {b"stretch": 1}


class TestChange:
    @pytest.mark.parametrize(
        ("change", "body", "before", "after"),
        [
            ({"mailbox_limit": 1}, "process.send(process.pid(), 't', 1) return (process.send(process.pid(), 't', 1))",
             True, None),
            ({"max_message": 100}, "return (process.send(process.pid(), 't', ('x'):rep(1000)))", True, None),
            ({"max_timers": 1}, "local time = require('time') time.after('1h') return time.after('1h') ~= nil",
             True, False),
            ({"max_subscriptions": 1}, "process.listen('a') return process.listen('b') ~= nil", True, False),
            ({"pcall_depth": 2}, "return (pcall(function() assert(pcall(function() assert(pcall(error)) end)) end))",
             False, False),
            ({"max_processes": 1}, "return (process.spawn('app:child', 'app:processes')) ~= nil", True, False),
        ],
    )  # fmt: skip
    def test_takes_effect_while_the_vm_runs(self, change: dict[str, Any], body: str, before: Any, after: Any) -> None:
        world = World()
        world.entry("app:child", "return { main = function() end }")
        assert world.main(body, modules=["time"]) is before
        world.kernel.change(VmConfig(**change))
        assert world.main(body, modules=["time"]) is after

    def test_a_mailbox_that_is_there_gets_the_new_size(self) -> None:
        world = World()
        pid = world.spawn_body("process.listen('never'):receive()")
        config = VmConfig(mailbox_limit=2)
        world.kernel.change(config)
        for reference in (640, 704, 768):
            world.run([int(Kind.MESSAGE), pid, OUTSIDE, reference, b"t", [1], b"", 0])
        assert [world.reply(reference)[4] for reference in (640, 704, 768)] == [0, 0, 1]

    def test_less_memory_is_made_room_for(self) -> None:
        mib = 1024 * 1024
        world = World(VmConfig(max_memory=256 * mib))
        pid = world.spawn_body(
            "local t = {} for i = 1, 200000 do t[i] = { i, i } end process.inbox():receive() return t"
        )
        small = world.spawn_body(SLEEPS)
        config = VmConfig(max_memory=16 * mib)
        world.kernel.change(config)
        world.run()
        assert world.exit_of(pid)[6][b"message"] == b"killed: memory"
        assert not world.has_ended(small)
