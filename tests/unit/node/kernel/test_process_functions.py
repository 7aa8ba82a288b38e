"""Every function of the module process: what it gives, what it answers as an error, and when it raises.

Each row is a body of a main function and what it returns; ``E(kind)`` stands for ``nil, err`` of that kind. Raising is
for arguments of a wrong type; what can't be done is a value.
"""

from __future__ import annotations

import pytest

from tests.luaworld import World

DEAD = "{n1@app:processes|1-1}"
CHILDREN = {
    "app:wait": "return { main = function() return process.inbox():receive():payload():data() end }",
    "app:add": "return { main = function(a, b) return a + b end }",
    "app:bad": "return { main = function(text) error(text or 'broken', 0) end }",
    "app:nope": "return { main = function() return nil, errors.new({ message = 'no', kind = errors.NOT_FOUND }) end }",
    "app:says": "return { main = function() return nil, 'in words' end }",
    "app:two": "return { main = function() return 1, nil, 3 end }",
    "app:none": "return { main = function() end }",
    "app:ctx": "return { main = function() return require('ctx').all() end }",
}
# v: (value of the first result, kind of the error) as Python sees them
PRELUDE = f"""
local H, DEAD = "app:processes", "{DEAD}"
local function v(value, err)
    if err == nil then return value end
    return {{ value == nil and "nil" or value, err:kind(), err:retryable() == true }}
end
local function child(id, ...) return assert(process.spawn(id or "app:wait", H, ...)) end
"""


def answer(world: World, body: str) -> object:
    for id, source in CHILDREN.items():
        world.entry(id, source, modules=["ctx"])
    world.function("app:f", "return { main = function() return process.id() end }")
    return world.main(PRELUDE + body, modules=["funcs"])


def failed(kind: str, value: object = b"nil", retryable: bool = False) -> list[object]:
    return [value, kind.encode(), retryable]


NOT_FOUND, INVALID, UNAVAILABLE = failed("NotFound"), failed("Invalid"), failed("Unavailable")
EXISTS = failed("AlreadyExists")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # about oneself
        ("return type(process.pid())", b"string"),
        ("return process.pid():find('^{n1@app:processes|1%-%w+}$') ~= nil", True),
        ("return process.id()", b"app:main1"),
        ("return (require('funcs').call('app:f'))", b"app:f"),
        # send
        ("return v(process.send(process.pid(), 't'))", True),
        ("return v(process.send(process.pid(), 't', nil))", True),
        ("return v(process.send(process.pid(), 't', 1, nil, 3))", True),
        ("return v(process.send(DEAD, 't', 1))", NOT_FOUND),
        ("return v(process.send('nobody', 't', 1))", NOT_FOUND),
        ("return v(process.send('', 't', 1))", NOT_FOUND),
        ("return v(process.send('{no pid}', 't', 1))", INVALID),
        ("return v(process.send(process.pid(), '@t', 1))", INVALID),
        ("return v(process.send(process.pid(), '', 1))", INVALID),
        ("return v(process.send(process.pid(), 't', print))", INVALID),
        # spawn and its variants
        ("return type(process.spawn('app:none', H))", b"string"),
        ("return type(process.spawn_monitored('app:none', H))", b"string"),
        ("return type(process.spawn_linked('app:none', H))", b"string"),
        ("return type(process.spawn_linked_monitored('app:none', H))", b"string"),
        ("return select('#', process.spawn('app:none', H))", 1),
        ("return v(process.spawn('app:unknown', H))", NOT_FOUND),
        ("return v(process.spawn('app:f', H))", INVALID),
        ("return v(process.spawn('', H))", INVALID),
        ("return v(process.spawn('app:none', ''))", INVALID),
        ("return v(process.spawn('app:none', H, print))", INVALID),
        ("return v(process.spawn_monitored('app:unknown', H))", NOT_FOUND),
        ("return v(process.spawn_linked('app:unknown', H))", NOT_FOUND),
        ("return v(process.spawn_linked_monitored('app:unknown', H))", NOT_FOUND),
        # exec
        ("return v(process.exec('app:add', H, 20, 22))", 42),
        ("return v(process.exec('app:none', H)) == nil", True),
        ("return { process.exec('app:two', H) }", [1]),
        ("return v(process.exec('app:bad', H))", [b"nil", b"Internal", False]),
        ("return v(process.exec('app:nope', H))", [b"nil", b"NotFound", False]),
        ("return v(process.exec('app:says', H))", [b"nil", b"", False]),
        ("return v(process.exec('app:unknown', H))", NOT_FOUND),
        ("return v(process.exec('app:f', H))", INVALID),
        ("return v(process.exec('app:add', H, print))", INVALID),
        # terminate and cancel
        ("return v(process.terminate(child()))", True),
        ("return v(process.terminate(DEAD))", NOT_FOUND),
        ("return v(process.terminate('nobody'))", NOT_FOUND),
        ("return v(process.cancel(child(), 'why'))", True),
        ("return v(process.cancel(child()))", True),
        ("return v(process.cancel(DEAD, 'why'))", NOT_FOUND),
        ("return v(process.cancel('nobody'))", NOT_FOUND),
        ("process.cancel(process.pid()) return process.events():receive().reason", b""),
        # monitor and link
        ("return v(process.monitor(child()))", True),
        ("local c = child() process.monitor(c) return v(process.monitor(c))", EXISTS),
        ("return v(process.monitor(DEAD))", NOT_FOUND),
        ("return v(process.monitor('nobody'))", NOT_FOUND),
        ("local c = child() process.monitor(c) return v(process.unmonitor(c))", True),
        ("return v(process.unmonitor(child()))", NOT_FOUND),
        ("return v(process.link(child()))", True),
        ("local c = child() process.link(c) return v(process.link(c))", True),
        ("return v(process.link(DEAD))", NOT_FOUND),
        ("return v(process.link(process.pid()))", INVALID),
        ("local c = child() process.link(c) return v(process.unlink(c))", True),
        ("return v(process.unlink(child()))", NOT_FOUND),
        # options
        ("return process.get_options()", {b"trap_links": False, b"upgradable": False, b"migratable": False}),
        ("return v(process.set_options({ trap_links = true, upgradable = true }))", True),
        ("process.set_options({ trap_links = true }) return process.get_options().trap_links", True),
        ("return v(process.set_options({}))", True),
        ("return v(process.set_options({ speed = 1 }))", failed("Invalid", False)),
        ("return v(process.set_options({ trap_links = 1 }))", failed("Invalid", False)),
        # channels
        ("return process.inbox() == process.inbox()", True),
        ("return process.events() == process.events()", True),
        ("return process.listen('a') == process.listen('a')", True),
        ("return process.listen('a') == process.listen('b')", False),
        ("return v(process.listen('@a'))", INVALID),
        ("return v(process.listen(''))", INVALID),
        ("return process.unlisten(process.listen('a'))", True),
        ("return process.unlisten(channel.new())", False),
        ("return process.unlisten(process.inbox())", False),
        ("local c = process.listen('a') process.unlisten(c) return process.unlisten(c)", False),
        ("process.send(process.pid(), 'ab', 1) process.listen('a') return process.inbox():receive():topic()", b"ab"),
        # constants
        ("local e = process.event return { e.CANCEL, e.EXIT }", [b"pid.cancel", b"pid.exit"]),
        ("local e = process.event return { e.LINK_DOWN, e.OUTDATED }", [b"pid.link.down", b"pid.outdated"]),
        ("local r = process.registry return { r.LOCAL, r.EVENTUAL, r.CONSISTENT, r.STRONG }", [0, 1, 2, 3]),
        # builders
        ("return process.with_context({ a = 1 }):exec('app:ctx', H)", {b"a": 1}),
        ("return process.with_context({ a = 1 }):with_context({ b = 2 }):exec('app:ctx', H)", {b"a": 1, b"b": 2}),
        ("return process.with_options({}):with_context({ a = 1 }):exec('app:ctx', H)", {b"a": 1}),
        ("return v(process.with_options({}):exec('app:add', H, 1, 2))", 3),
        ("return type(process.with_options({}):spawn('app:none', H))", b"string"),
        ("return type(process.with_options({}):spawn_monitored('app:none', H))", b"string"),
        ("return type(process.with_options({}):spawn_linked('app:none', H))", b"string"),
        ("return type(process.with_options({}):spawn_linked_monitored('app:none', H))", b"string"),
        ("return v(process.with_options({}):spawn('app:unknown', H))", NOT_FOUND),
        ("return process.with_options({}):with_message('t', 5):exec('app:wait', H)", 5),
        # what needs a part that is not there
        ("return v(process.with_options({ network = 'app:tor' }))", UNAVAILABLE),
        ("return v(process.with_options({}):with_options({ network = 'app:tor' }))", UNAVAILABLE),
        ("return v(process.with_options({ ['temporal.workflow.id'] = 'x' }))", UNAVAILABLE),
        ("return v(process.with_options({}):with_actor({}))", UNAVAILABLE),
        ("return v(process.with_options({}):with_scope({}))", UNAVAILABLE),
        # names
        ("return v(process.registry.register('', nil))", INVALID),
        ("return v(process.registry.register('{n}', nil))", INVALID),
        ("return v(process.registry.register('n', nil, 9))", INVALID),
        ("return v(process.registry.unregister('n', 9))", failed("Invalid", False)),
        ("return v(process.registry.lookup('nobody'))", NOT_FOUND),
    ],
)
def test_results_and_errors(world: World, body: str, expected: object) -> None:
    assert answer(world, body) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("send()", "bad argument #1 to 'send' (string expected, got nil)"),
        ("send({}, 't')", "bad argument #1 to 'send' (string expected, got table)"),
        ("send('x')", "bad argument #2 to 'send' (string expected, got nil)"),
        ("spawn()", "bad argument #1"),
        ("spawn('app:x', 1)", "bad argument #2"),
        ("spawn_monitored(1, 'h')", "bad argument #1"),
        ("spawn_linked('app:x')", "bad argument #2"),
        ("spawn_linked_monitored(nil, 'h')", "bad argument #1"),
        ("exec(nil, 'h')", "bad argument #1"),
        ("terminate()", "bad argument #1 to 'terminate'"),
        ("cancel(1)", "bad argument #1 to 'cancel'"),
        ("cancel(process.pid(), {})", "bad argument #2 to 'cancel'"),
        ("monitor()", "bad argument #1 to 'monitor'"),
        ("unmonitor(1)", "bad argument #1 to 'unmonitor'"),
        ("link({})", "bad argument #1 to 'link'"),
        ("unlink()", "bad argument #1 to 'unlink'"),
        ("set_options()", "bad argument #1 to 'set_options'"),
        ("listen()", "bad argument #1 to 'listen'"),
        ("upgrade(1)", "bad argument #1 to 'upgrade'"),
        ("with_context()", "bad argument #1 to 'with_context'"),
        ("with_context({ f = print })", "bad argument #1 to 'with_context'"),
        ("with_options('x')", "bad argument #1 to 'with_options'"),
        ("with_options({}):with_name(1)", "bad argument #1 to 'with_name'"),
        ("with_options({}):with_name('')", "bad argument #1 to 'with_name'"),
        ("with_options({}):with_message(1)", "bad argument #1 to 'with_message'"),
        ("with_options({}):with_message('@t')", "bad argument #1 to 'with_message'"),
        ("with_options({}).spawn({}, 'a', 'h')", "expected a spawn builder"),
        ("registry.register()", "bad argument #1 to 'register'"),
        ("registry.register('n', 1)", "bad argument #2 to 'register'"),
        ("registry.lookup()", "bad argument #1 to 'lookup'"),
        ("registry.unregister({})", "bad argument #1 to 'unregister'"),
    ],
)
def test_arguments_of_a_wrong_type_raise(world: World, call: str, message: str) -> None:
    raised = world.outcome(f"\nlocal x = process.{call}")[6][b"message"].decode()
    assert raised.startswith("app:main1:2: ")
    assert message in raised


NAMES = {
    "cancel", "event", "events", "exec", "fence", "get_options", "id", "inbox", "link", "listen", "monitor", "move",
    "pid", "registry", "send", "set_options", "spawn", "spawn_linked", "spawn_linked_monitored", "spawn_monitored",
    "terminate", "unlink", "unlisten", "unmonitor", "upgrade", "with_context", "with_options",
}  # fmt: skip


def test_the_names_of_the_module_are_these(world: World) -> None:
    names = world.main("local names = {} for name in pairs(process) do names[#names + 1] = name end return names")
    assert {name.decode() for name in names} == NAMES


def test_names_are_registered_with_the_node_and_it_decides(world: World) -> None:
    asked: list[object] = []

    def register(name: bytes, pid: bytes, scope: int | None) -> list[object]:
        asked.append((name, scope))
        if name == b"taken":
            raise LookupError("held")
        world.post([43, name, pid, 0])
        return [True]

    def unregister(name: bytes, pid: bytes, scope: int | None) -> list[object]:
        if name == b"mine":
            world.post([43, name, b"", 0])
        return [name == b"mine"]

    world.handlers[b"names", b"register"] = register
    world.handlers[b"names", b"unregister"] = unregister
    seen = world.main(
        PRELUDE
        + """local r = process.registry
        local first, own = v(r.register("mine")), (r.lookup("mine")) == process.pid()
        local found = { first, own, v(r.register("taken", nil, r.CONSISTENT)) }
        return { found, v(r.unregister("mine")), v(r.unregister("other")), (r.lookup("mine")) == nil }"""
    )
    assert seen == [[True, True, [b"nil", b"NotFound", False]], True, False, True]
    assert asked == [(b"mine", None), (b"taken", 2)]


def test_what_a_message_is_asked_by_its_methods(world: World) -> None:
    assert world.main(
        """process.send(process.pid(), "t", { a = 1 })
        local m = process.inbox():receive()
        local p = m:payload()
        return { m:topic(), m:from() == process.pid(), p:data().a, p.a == nil, p:get_format(), m.topic ~= "t" }"""
    ) == [b"t", True, 1, True, b"lua/any", True]


def test_a_message_of_the_node_itself_has_an_empty_sender(world: World) -> None:
    pid = world.spawn_body("return process.inbox():receive():from()")
    world.send(pid, "t", 1, sender=b"")
    assert world.exit_of(pid)[5] == b""


@pytest.mark.parametrize("topic", ["a", "a.b", "A", "a*", " a"])
def test_topics_match_exactly(world: World, topic: str) -> None:
    pid = world.spawn_body(
        """local exact, inbox = process.listen("a"), process.inbox()
        local r = channel.select { exact:case_receive(), inbox:case_receive() }
        return r.channel == exact"""
    )
    world.send(pid, topic, 1)
    assert world.exit_of(pid)[5] is (topic == "a")
