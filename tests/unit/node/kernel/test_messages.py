"""Sending, mailboxes and what a message looks like on arrival."""

from __future__ import annotations

import pytest

from node.host.kernel import VmConfig
from tests.luaworld import OUTSIDE, REMOTE, World

COLLECT = """
local inbox = process.inbox()
local got = {}
for i = 1, n do
    local m = inbox:receive()
    got[i] = m:payload():data()
end
return got
"""


def test_a_message_arrives_with_topic_sender_and_payload(world: World) -> None:
    world.entry(
        "app:greeter",
        """return { main = function(who)
            process.send(who, "hello", { text = "hi", n = 3, f = 3.0 })
        end }""",
    )
    seen = world.main(
        """local child = process.spawn("app:greeter", "app:processes", process.pid())
        local m = process.inbox():receive()
        local data = m:payload():data()
        return { m:topic(), m:from() == child, data.text, math.type(data.n), math.type(data.f) }"""
    )
    assert seen == [b"hello", True, b"hi", b"integer", b"float"]


def test_messages_of_one_sender_keep_their_order(world: World) -> None:
    pid = world.spawn_body(f"local n = 500 {COLLECT}")
    world.run(*[[1, pid, OUTSIDE, 0, b"t", [i], b"", 0] for i in range(500)])
    assert world.exit_of(pid)[5] == list(range(500))


def test_messages_sent_before_the_inbox_was_asked_for_are_not_lost(world: World) -> None:
    pid = world.spawn_body("local go = process.listen('go') go:receive() local n = 2 " + COLLECT)
    world.send(pid, "early", b"first")
    world.send(pid, "other", b"second")
    world.send(pid, "go", True)
    assert world.exit_of(pid)[5] == [b"first", b"second"]


def test_a_listened_topic_goes_to_its_channel_and_not_to_the_inbox(world: World) -> None:
    pid = world.spawn_body(
        """local jobs, inbox = process.listen("job"), process.inbox()
        local same = process.listen("job") == jobs
        local first, second = jobs:receive(), inbox:receive()
        return { same, first, second:topic() }"""
    )
    world.send(pid, "job", b"work")
    world.send(pid, "note", b"text")
    assert world.exit_of(pid)[5] == [True, b"work", b"note"]


def test_listening_with_messages_gives_message_objects(world: World) -> None:
    pid = world.spawn_body(
        """local m = process.listen("job", { message = true }):receive()
        return { m:topic(), m:from(), m:payload():data() }"""
    )
    world.send(pid, "job", 7)
    assert world.exit_of(pid)[5] == [b"job", OUTSIDE, 7]


def test_listening_takes_over_what_waits_for_the_inbox_in_order(world: World) -> None:
    pid = world.spawn_body(
        """local inbox = process.inbox()
        process.listen("go"):receive()
        local jobs = process.listen("job")
        return { jobs:receive(), jobs:receive(), inbox:receive():topic() }"""
    )
    for topic, value in (("job", 1), ("note", 2), ("job", 3), ("go", 0)):
        world.send(pid, topic, value)
    assert world.exit_of(pid)[5] == [1, 3, b"note"]


def test_unlistening_gives_the_rest_back_to_the_inbox_in_order_of_arrival(world: World) -> None:
    pid = world.spawn_body(
        """local inbox, jobs = process.inbox(), process.listen("job")
        process.listen("go"):receive()
        local ended = process.unlisten(jobs)
        local _, open = jobs:receive()
        local got = { ended, open }
        for i = 3, 5 do got[i] = inbox:receive():payload():data() end
        return got"""
    )
    for topic, value in (("job", 1), ("note", 2), ("job", 3), ("go", 0)):
        world.send(pid, topic, value)
    assert world.exit_of(pid)[5] == [True, False, 1, 2, 3]


def test_a_topic_nobody_receives_holds_up_no_other(world: World) -> None:
    pid = world.spawn_body(
        """local slow, fast = process.listen("slow"), process.listen("fast")
        local sum = 0
        for i = 1, 3 do sum = sum + fast:receive() end
        return { sum, (slow:receive()) }"""
    )
    for topic, value in (("slow", 1), ("slow", 2), ("fast", 10), ("fast", 20), ("fast", 30)):
        world.send(pid, topic, value)
    assert world.exit_of(pid)[5] == [60, 1]


@pytest.mark.parametrize("way", ["process.send(process.pid(), 't', 1, 2)", "process.inbox():receive()"])
def test_several_payloads_are_a_plain_list_to_who_listens_to_the_topic(world: World, way: str) -> None:
    pid = world.spawn_body(f"local topic = process.listen('t') {way} return topic:receive()")
    if not world.has_ended(pid):
        world.send(pid, "t", 1, 2)
        world.send(pid, "go")
    assert world.exit_of(pid)[5] == [1, 2]


def test_startup_messages_from_elsewhere_keep_their_holes(world: World) -> None:
    world.entry("app:first", "return { main = function() return #process.inbox():receive():payload() end }")
    pid = world.spawn("app:first", options={b"monitor": True, b"messages": [[b"t", [1, 5, None]]]})
    assert world.exit_of(pid)[5] == 3


def test_several_payloads_arrive_as_a_list_of_payloads_and_none_as_nil(world: World) -> None:
    pid = world.spawn_body(
        """local inbox = process.inbox()
        local many = inbox:receive():payload()
        local none = inbox:receive():payload()
        local hole = inbox:receive():payload()
        return { #many, many[1]:data(), many[3]:data(), none == nil, hole:data() == nil }"""
    )
    world.run(
        [1, pid, OUTSIDE, 0, b"many", [1, None, 3], b"", 0],
        [1, pid, OUTSIDE, 0, b"none", [], b"", 0],
        [1, pid, OUTSIDE, 0, b"hole", [None], b"", 0],
    )
    assert world.exit_of(pid)[5] == [3, 1, 3, True, True]


def test_what_was_sent_is_a_copy(world: World) -> None:
    seen = world.main(
        """local shared = { list = { 1, 2 } }
        process.send(process.pid(), "t", shared)
        shared.list[1] = 99
        local got = process.inbox():receive():payload():data()
        got.list[2] = 77
        return { got.list[1], shared.list[2] }"""
    )
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("function() end", "the value is a function"),
        ("{ a = { b = print } }", "field 'a.b' is a function"),
        ("{ 1, channel.new() }", "field '[2]' is a channel"),
        ("{ co = coroutine.create(print) }", "field 'co' is a thread"),
        ("(function() local t = {} t.self = t return t end)()", "field 'self' refers to a table it is part of"),
        ("(function() local t = {} for i = 1, 100 do t = { t } end return t end)()", "nested deeper than 64"),
        ("{ [{}] = 1 }", "has a key that is a table"),
    ],
)
def test_what_is_no_plain_data_is_refused_with_its_place(world: World, value: str, place: str) -> None:
    kind, message = world.main(
        f"""local ok, err = process.send(process.pid(), "t", {value})
        return {{ err:kind(), err:message() }}"""
    )
    assert kind == b"Invalid"
    assert place in message.decode()


def test_a_table_referred_to_many_times_does_not_unfold_without_end(world: World) -> None:
    assert (
        world.main(
            """local t = { 1 }
        for i = 1, 60 do t = { t, t } end
        process.send(process.pid(), "t", t)
        local got = process.inbox():receive():payload():data()
        for i = 1, 60 do
            if got[1] ~= got[2] then return "unfolded" end
            got = got[1]
        end
        return got[1]"""
        )
        == 1
    )


def test_error_objects_and_instants_pass_as_what_they_are(world: World) -> None:
    seen = world.main(
        """local time = require("time")
        local now = time.now()
        local err = errors.new({ message = "gone", kind = errors.NOT_FOUND, details = { id = 7 } })
        process.send(process.pid(), "t", { err = err, at = now, wait = time.parse_duration("2s") })
        local got = process.inbox():receive():payload():data()
        return { got.err:kind(), got.err:details().id, got.at:equal(now), got.wait:seconds() }""",
        modules=["time"],
    )
    assert seen == [b"NotFound", 7, True, 2.0]


def test_topics_of_the_runtime_are_refused(world: World) -> None:
    kind = world.main("local ok, err = process.send(process.pid(), '@x', 1) return err:kind()")
    assert kind == b"Invalid"


def test_a_message_from_outside_on_a_topic_of_the_runtime_is_refused(world: World) -> None:
    pid = world.spawn_body("process.inbox():receive() return 'got it'")
    world.run([1, pid, OUTSIDE, 640, b"@pid/events", [1], b"", 0])
    assert world.reply(640)[4] == 1
    assert not world.has_ended(pid)


def test_wrong_argument_types_raise_where_they_were_written(world: World) -> None:
    exit = world.outcome("\n\nprocess.send(nil, 'x')")
    assert exit[6][b"message"] == b"app:main1:3: bad argument #1 to 'send' (string expected, got nil)"


def test_a_dead_pid_and_an_unknown_name_are_not_found(world: World) -> None:
    seen = world.main(
        """local _, dead = process.send("{n1@app:processes|1-1}", "t", 1)
        local _, name = process.send("nobody", "t", 1)
        local _, odd = process.send("{what}", "t", 1)
        return { dead:kind(), name:kind(), odd:kind() }"""
    )
    assert seen == [b"NotFound", b"NotFound", b"Invalid"]


def test_a_message_for_another_vm_leaves_as_an_envelope(world: World) -> None:
    world.main(f"return process.send('{REMOTE.decode()}', 'job', {{ a = 1 }}, nil, 'x')")
    sent = next(item for item in world.out if item[0] == 1)
    assert sent[1] == REMOTE
    assert sent[3:] == [0, b"job", [{b"a": 1}, None, b"x"], b"", 0]


def test_a_message_that_is_too_big_for_the_wire_is_refused_with_both_sizes() -> None:
    world = World(VmConfig(max_message=10_000))
    message = world.main(
        f"local ok, err = process.send('{REMOTE.decode()}', 'job', ('x'):rep(20000)) return err:kind() .. ': ' "
        ".. err:message()"
    )
    assert b"Invalid: message of 20" in message
    assert b"10000 bytes" in message


def test_a_full_mailbox_refuses_and_says_so_to_both_sides() -> None:
    world = World(VmConfig(mailbox_limit=3))
    kinds = world.main(
        """local kinds = {}
        for i = 1, 5 do
            local ok, err = process.send(process.pid(), "t", i)
            kinds[i] = ok or err:kind()
        end
        return kinds"""
    )
    assert kinds == [True, True, True, b"RateLimited", b"RateLimited"]
    pid = world.spawn_body("process.listen('never'):receive()")
    for reference in (640, 704, 768, 832):
        world.run([1, pid, OUTSIDE, reference, b"t", [1], b"", 0])
    assert [world.reply(reference)[4] for reference in (640, 704, 768, 832)] == [0, 0, 0, 1]
    assert world.query(b"counters")[b"dead_letters"][b"full"] == 3


def test_a_request_to_a_dead_pid_is_answered_noproc(world: World) -> None:
    world.run([1, b"{n1@app:processes|1-1}", OUTSIDE, 640, b"t", [1], b"", 0])
    assert world.reply(640)[4] == 2


def test_binary_text_and_large_integers_survive(world: World) -> None:
    pid = world.spawn_body("local d = process.inbox():receive():payload():data() return d")
    world.send(pid, "t", {b"bin": b"\x00\xff", b"big": 2**63 - 1, b"small": -(2**63), b"f": 1.0, b"empty": {}})
    value = world.exit_of(pid)[5]
    assert value == {b"bin": b"\x00\xff", b"big": 2**63 - 1, b"small": -(2**63), b"f": 1.0, b"empty": []}
    assert type(value[b"f"]) is float


def test_objects_of_the_runtime_show_nothing_of_their_inside(world: World) -> None:
    seen = world.main(
        """local ch = process.inbox()
        process.send(process.pid(), "t", 1)
        local m = ch:receive()
        local found = 0
        for _ in pairs(ch) do found = found + 1 end
        return { found, getmetatable(ch), getmetatable(m), getmetatable(m:payload()), pcall(setmetatable, ch, {}) }"""
    )
    assert seen[:5] == [0, False, False, False, False]


def test_the_data_method_of_a_message_takes_other_payloads_and_refuses_what_is_none(world: World) -> None:
    assert world.main(
        """process.send(process.pid(), "topic", { 1 })
        local message = process.inbox():receive()
        local data = message:payload().data
        local given, problem = pcall(data)
        local texted, complaint = pcall(data, "text")
        return { data(message)[1], data(payload.new(5)), given, problem:find("payload:data()", 1, true) ~= nil,
            texted, complaint:find("payload:data()", 1, true) ~= nil }"""
    ) == [1, 5, False, True, False, True]


def test_messages_that_found_no_receiver_keep_their_order_through_every_change_of_subscriptions(world: World) -> None:
    assert world.main(
        """local pid, inbox = process.pid(), process.inbox()
        for number = 1, 6 do process.send(pid, number % 2 == 0 and "even" or "odd", number) end
        local even = process.listen("even")
        process.send(pid, "even", 8)
        process.unlisten(even)
        local seen = {}
        for place = 1, 7 do seen[place] = inbox:receive():payload():data() end
        return seen"""
    ) == [1, 2, 3, 4, 5, 6, 8]
