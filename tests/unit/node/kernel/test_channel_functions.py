"""Every function of channel, coroutine, errors, subscribe and the waiting part of time, row by row."""

from __future__ import annotations

import pytest

from tests.luaworld import World

MODULES = ("time", "ctx")
PRELUDE = """
local time = require("time")
local function v(value, err)
    if err == nil then return value end
    return { value == nil and "nil" or value, err:kind(), err:retryable() == true }
end
"""
INVALID = [b"nil", b"Invalid", False]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # channel
        ("return channel.new():close() == nil", True),
        ("return channel.new(1):send(1)", True),
        ("local c = channel.new(1) c:send(nil) return select('#', c:receive())", 2),
        (
            "local c = channel.new() c:close() return { tostring((c:receive())), select(2, c:receive()) }",
            [b"nil", False],
        ),
        ("local c = channel.new(2) c:send(1) c:send(2) c:close() return { c:receive() }", [1, True]),
        ("local a, b = channel.new(), channel.new() return a == b", False),
        ("local c = channel.new(1) return channel.select { c:case_receive(), default = true }.default", True),
        ("local c = channel.new(1) return channel.select { c:case_receive(), default = true }.ok", True),
        ("local c = channel.new(1) return channel.select { c:case_send(5) }.value", 5),
        ("local c = channel.new(1) return channel.select { c:case_send(5) }.ok", True),
        ("local c = channel.new(1) c:send(5) return channel.select { c:case_receive() }.channel == c", True),
        ("local c = channel.new() c:close() return channel.select { c:case_receive() }.ok", False),
        ("local c = channel.new() c:close() return channel.select { c:case_receive(), default = true }.ok", False),
        ("return channel.select { default = true }.default", True),
        ("local c = channel.new(1.0) return c:send(1)", True),
        # coroutine
        ("return coroutine.spawn(function() end) == nil", True),
        ("return coroutine.running() == nil", True),
        ("return coroutine.wrap(function() return type(coroutine.running()) end)()", b"thread"),
        ("return coroutine.isyieldable()", False),
        ("return coroutine.status(coroutine.create(print))", b"suspended"),
        ("local co = coroutine.create(function() error('x', 0) end) return { coroutine.resume(co) }", [False, b"x"]),
        ("local co = coroutine.wrap(function(...) return select('#', ...) end) return co(1, nil, nil)", 3),
        (
            "local c = channel.new(3) for i = 1, 3 do coroutine.spawn(function() c:send(i) end) end return c:receive()",
            1,
        ),
        # errors
        ("return errors.new('m'):kind()", b""),
        ("return errors.new('m'):retryable() == nil", True),
        ("return errors.new('m'):details() == nil", True),
        ("return tostring(errors.new('m'))", b"m"),
        ("return errors.new({ message = 'm', kind = errors.TIMEOUT }):kind()", b"Timeout"),
        ("return errors.new({ message = 'm', kind = 'Own' }):kind()", b"Own"),
        ("return errors.new({ message = 'm', retryable = false }):retryable()", False),
        ("return errors.new({ message = 'm', details = { a = { 1 } } }):details().a[1]", 1),
        ("return errors.is(errors.new({ message = 'm', kind = errors.INVALID }), errors.INVALID)", True),
        ("return errors.is(nil, errors.INVALID)", False),
        ("return errors.is('Invalid', errors.INVALID)", False),
        ("return errors.wrap(nil, 'm') == nil", True),
        ("return errors.wrap('low', 'high'):message()", b"high: low"),
        ("return errors.call_stack('x') == nil", True),
        ("return errors.new('m').message == 'm'", False),
        ("return (pcall(errors.new('m').kind, {}))", False),
        (
            "local ok, e = pcall(error, errors.new({ message = 'm', kind = errors.CONFLICT })) return e:kind()",
            b"Conflict",
        ),
        ("return require('errors') == errors", True),
        # subscribe and unsubscribe
        ("return subscribe('t') == process.listen('t')", True),
        ("local c = subscribe('t') process.send(process.pid(), 't', 5) return c:receive()", 5),
        ("local c = channel.new(2) return subscribe('t', c) == c", True),
        ("local c = channel.new(2) subscribe('t', c) process.send(process.pid(), 't', 5) return c:receive()", 5),
        ("return v(subscribe('@t'))", INVALID),
        ("return v(subscribe('t', process.inbox()))", INVALID),
        ("local c = channel.new() c:close() return v(subscribe('t', c))", INVALID),
        ("process.listen('t') return v(subscribe('t', channel.new()))", [b"nil", b"AlreadyExists", False]),
        ("return unsubscribe(subscribe('t'))", True),
        ("return unsubscribe(subscribe('t', channel.new()))", True),
        ("return v(unsubscribe(channel.new()))", [False, b"NotFound", False]),
        # ctx and payload
        ("return v(require('ctx').get('nothing'))", [b"nil", b"NotFound", False]),
        ("return v(require('ctx').get(''))", INVALID),
        ("return next(require('ctx').all()) == nil", True),
        ("return payload.new({ 1 }):data()[1]", 1),
        ("return payload.new('x'):get_format()", b"lua/any"),
        ("return v(payload.new({ a = 1 }):transcode(payload.format.JSON):data())", b'{"a":1}'),
        ("return v(payload.new({ a = 1 }):transcode(payload.format.YAML))", [b"nil", b"Internal", False]),
        ("return (payload.new('{'):transcode(payload.format.STRING)):data()", b"{"),
        ("return payload.format.BYTES", b"application/octet-stream"),
        # the part of time that waits
        ("return select('#', time.sleep('1ms'))", 0),
        ("return select('#', time.sleep(0))", 0),
        ("return v(time.sleep('soon'))", INVALID),
        ("return select(2, time.after('1ms'):receive())", True),
        ("return v(time.after('soon'))", INVALID),
        ("return time.timer('1ms'):response():receive():unix() > 0", True),
        ("local t = time.timer('1ms') return t:response() == t:channel()", True),
        ("local t = time.timer('1h') return { t:stop(), t:stop() }", [True, False]),
        ("local t = time.timer('1h') return { t:reset('1ms'), select(2, t:channel():receive()) }", [True, True]),
        ("local t = time.timer('1ms') t:channel():receive() return t:reset('1ms')", False),
        ("local t = time.timer('1h') return v(t:reset('soon'))", [False, b"Invalid", False]),
        ("return v(time.timer(0))", INVALID),
        ("return v(time.timer('-1s'))", INVALID),
        ("return v(time.ticker('0s'))", INVALID),
        ("return v(time.ticker('soon'))", INVALID),
        ("local t = time.ticker('1ms') t:response():receive() t:channel():receive() return t:stop()", True),
        ("return v(time.load_location(''))", INVALID),
        ("return v(time.parse(time.RFC3339, 'x'))", INVALID),
        ("return v(time.parse_duration('x'))", INVALID),
    ],
)
def test_results_and_errors(world: World, body: str, expected: object) -> None:
    assert world.main(PRELUDE + body, modules=MODULES) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("channel.new('x')", "bad argument #1 to 'new'"),
        ("channel.new(1.5)", "bad argument #1 to 'new'"),
        ("channel.new().send({}, 1)", "expected a channel: call it as ch:send()"),
        ("channel.new().receive()", "expected a channel: call it as ch:receive()"),
        ("channel.select()", "bad argument #1 to 'select'"),
        ("channel.select { 1 }", "invalid case 1 in channel.select"),
        ("local c = channel.new() c:close() c:send(1)", "send on closed channel"),
        ("local c = channel.new() c:close() channel.select { c:case_send(1) }", "send on closed channel"),
        ("process.inbox():send(1)", "can't send on a channel of the runtime"),
        ("coroutine.create(1)", "bad argument #1 to 'create'"),
        ("coroutine.resume(1)", "bad argument #1 to 'resume'"),
        ("coroutine.status(1)", "bad argument #1 to 'status'"),
        ("coroutine.wrap(1)", "bad argument #1 to 'wrap'"),
        ("coroutine.spawn()", "bad argument #1 to 'spawn'"),
        ("coroutine.yield(1)", "outside a coroutine"),
        ("errors.new()", "bad argument #1 to 'new'"),
        ("errors.new('NotFound', 'm') error(errors.new({}))", "bad argument #1 to 'new'"),
        ("errors.new({ message = 'm', details = 1 })", "bad argument #1 to 'new'"),
        ("errors.wrap('x')", "bad argument #2 to 'wrap'"),
        ("subscribe()", "bad argument #1 to 'subscribe'"),
        ("subscribe('t', {})", "bad argument #2 to 'subscribe'"),
        ("unsubscribe()", "bad argument #1 to 'unsubscribe'"),
        ("require('time').now():round(1)", "uration"),
        ("require('time').timer('1s').stop({})", "expected a timer"),
    ],
)
def test_misuse_raises(world: World, body: str, message: str) -> None:
    raised = world.outcome("\n" + body, modules=MODULES)[6][b"message"].decode()
    assert raised.startswith("app:main1:2: ")
    assert message in raised


class TestSubscribing:
    def test_several_topics_can_share_a_channel_of_the_program(self, world: World) -> None:
        assert (
            world.main(
                """local both = channel.new(4)
            subscribe("a", both) subscribe("b", both)
            for i = 1, 2 do process.send(process.pid(), "a", i) process.send(process.pid(), "b", i * 10) end
            local sum = 0
            for _ = 1, 4 do sum = sum + both:receive() end
            return sum"""
            )
            == 33
        )

    @pytest.mark.parametrize("taken", [0, 1, 2])
    def test_what_a_full_channel_did_not_take_is_in_the_mailbox_again_in_its_order(
        self, world: World, taken: int
    ) -> None:
        pid = world.spawn_body(
            """local small, got = subscribe("a", channel.new(1)), {}
            process.listen("go"):receive()
            for i = 1, ... do got[i] = small:receive() end
            unsubscribe(small)
            local left, open = small:receive()
            while open do
                got[#got + 1] = left
                left, open = small:receive()
            end
            local inbox = process.inbox()
            while #got < 5 do got[#got + 1] = inbox:receive():payload():data() end
            return got""",
            taken,
        )
        for number in (1, 2, 3, 4):
            world.send(pid, "a", number)
        world.send(pid, "go", 1)
        world.send(pid, "last", 5)
        assert world.exit_of(pid)[5] == [1, 2, 3, 4, 5]

    def test_a_channel_the_program_closes_gives_the_rest_back_too(self, world: World) -> None:
        pid = world.spawn_body(
            """local small = subscribe("a", channel.new())
            process.listen("go"):receive()
            small:close()
            local inbox, got = process.inbox(), {}
            for i = 1, 3 do got[i] = inbox:receive():payload():data() end
            return got"""
        )
        for number in (1, 2, 3):
            world.send(pid, "a", number)
        world.send(pid, "go", 1)
        assert world.exit_of(pid)[5] == [1, 2, 3]

    def test_what_arrived_before_comes_first(self, world: World) -> None:
        pid = world.spawn_body('process.listen("go"):receive() return (subscribe("a", channel.new(1)):receive())')
        world.send(pid, "a", 1)
        world.send(pid, "go", 1)
        assert world.exit_of(pid)[5] == 1

    def test_an_unsubscribed_channel_is_closed(self, world: World) -> None:
        assert world.main(
            """local c = subscribe("a", channel.new())
            unsubscribe(c)
            return { select(2, c:receive()), (pcall(c.send, c, 1)) }"""
        ) == [False, False]

    def test_a_subscription_keeps_a_process_from_being_called_blocked(self, world: World) -> None:
        pid = world.spawn_body('return (subscribe("a", channel.new()):receive())')
        assert not world.has_ended(pid)
        world.send(pid, "a", 7)
        assert world.exit_of(pid)[5] == 7


TIME_NAMES = """now date unix parse parse_duration load_location fixed_zone sleep after timer ticker utc localtz
    NANOSECOND MICROSECOND MILLISECOND SECOND MINUTE HOUR RFC3339 RFC3339NANO RFC822 RFC822Z RFC850 RFC1123 RFC1123Z
    DATE_TIME DATE_ONLY TIME_ONLY KITCHEN STAMP STAMP_MILLI STAMP_MICRO STAMP_NANO JANUARY DECEMBER SUNDAY SATURDAY"""
TIME_METHODS = """add sub add_date before after equal format format_rfc3339 unix unix_nano date clock year month day
    hour minute second nanosecond weekday year_day is_zero utc in_local in_location location round truncate"""


def test_everything_the_module_time_promises_is_there(world: World) -> None:
    asked = {
        "time": TIME_NAMES.split(),
        "time.now()": TIME_METHODS.split(),
        "time.parse_duration('1s')": ["hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"],
        "time.utc": ["string"],
        "time.timer('1h')": ["response", "channel", "stop", "reset"],
        "time.ticker('1h')": ["response", "channel", "stop"],
    }
    for object, names in asked.items():
        for name in names:
            assert world.main(f"{PRELUDE} return ({object}).{name} ~= nil", modules=MODULES) is True, f"{object}.{name}"


class TestEndings:
    @pytest.mark.parametrize(
        ("body", "reason", "kind"),
        [
            ("return 1", "normal", None),
            ("error('x')", "error", b"Internal"),
            ("return nil, 'x'", "error", b""),
            ("channel.new():receive()", "deadlock", b"Internal"),
            ("process.terminate(process.pid())", "killed", b"Canceled"),
            ("process.spawn_linked('app:bad', 'app:processes') process.inbox():receive()", "linked", b"Internal"),
            ("table.sort({ 2, 1 }, function() while true do end end)", "budget", b"Canceled"),
        ],
    )
    def test_every_end_has_a_reason_and_a_kind(self, world: World, body: str, reason: str, kind: bytes | None) -> None:
        world.entry("app:bad", "return { main = function() error('bad') end }")
        exit = world.outcome(body)
        assert (exit[6] and exit[6][b"kind"]) == kind
        assert world.query(b"counters")[b"entries"][b"app:main1"][b"exits"] == {reason.encode(): 1}

    def test_a_call_that_takes_too_long_ends_by_timeout(self, world: World) -> None:
        world.function("app:slow", "return { main = function() process.inbox():receive() end }")
        assert world.call("app:slow", timeout=5)[1][b"kind"] == b"Timeout"
        assert world.query(b"counters")[b"entries"][b"app:slow"][b"exits"] == {b"timeout": 1}

    def test_only_the_values_of_main_count(self, world: World) -> None:
        assert world.main("coroutine.spawn(function() return 'no' end) return 'yes', nil, 'ignored'") == b"yes"

    def test_a_second_value_that_is_an_error_makes_it_an_error(self, world: World) -> None:
        exit = world.outcome("return 'value', errors.new({ message = 'm', kind = errors.CONFLICT })")
        assert (exit[5], exit[6][b"kind"]) == (None, b"Conflict")

    def test_a_second_value_in_words_is_an_error_of_no_kind(self, world: World) -> None:
        exit = world.outcome("return nil, 'in words'")
        assert exit[6] == {b"kind": b"", b"message": b"in words"}

    @pytest.mark.parametrize("second", ["true", "false", "7", "{}", "print"])
    def test_any_other_second_value_is_left_out(self, world: World, second: str) -> None:
        exit = world.outcome(f"return 'value', {second}")
        assert (exit[5], exit[6]) == (b"value", None)

    def test_an_error_in_a_coroutine_of_the_user_is_for_who_resumes_it(self, world: World) -> None:
        assert world.main("local ok = coroutine.resume(coroutine.create(error)) return ok") is False

    @pytest.mark.parametrize("where", ["coroutine.spawn(boom)", "boom()", "coroutine.wrap(boom)()"])
    def test_an_uncaught_error_ends_the_process_and_all_its_coroutines(self, world: World, where: str) -> None:
        exit = world.outcome(
            f"""local time = require("time")
            local function boom() error("boom", 0) end
            coroutine.spawn(function() time.sleep("10ms") process.send("{{n1@node:test|1-0}}", "still", 1) end)
            {where}
            time.sleep("1h")""",
            modules=MODULES,
        )
        assert exit[6][b"message"] == b"boom"
        assert world.messages() == []

    @pytest.mark.parametrize(
        "body",
        [
            "channel.new():receive()",
            "channel.new():send(1)",
            "channel.select { channel.new():case_receive() }",
            "channel.select { channel.new():case_send(1) }",
            "channel.select {}",
            "local a, b = channel.new(), channel.new() coroutine.spawn(function() a:receive() end) b:receive()",
            "process.unlisten(process.listen('t')) channel.new():receive()",
            "require('time').timer('1h'):stop() channel.new():receive()",
        ],
    )
    def test_where_nothing_can_wake_a_process_it_fails(self, world: World, body: str) -> None:
        exit = world.outcome(body, modules=MODULES)
        assert exit[6][b"message"] == b"all coroutines blocked with no pending operations"
        assert exit[6][b"kind"] == b"Internal"

    @pytest.mark.parametrize(
        "body",
        [
            "process.inbox() channel.new():receive()",
            "process.events() channel.new():receive()",
            "process.listen('t') channel.new():receive()",
            "subscribe('t', channel.new()) channel.new():receive()",
            "local t = require('time').timer('1h') channel.new():receive()",
            "coroutine.spawn(function() require('time').sleep('1h') end) channel.new():receive()",
        ],
    )
    def test_where_something_still_can_it_waits(self, world: World, body: str) -> None:
        assert not world.has_ended(world.spawn_body(body, modules=MODULES))
