"""Entries, imports, require and what happens when code changes."""

from __future__ import annotations

from node.host.boundary import In, Out
from tests.luaworld import OUTSIDE, World


def test_a_library_is_imported_under_its_alias_and_runs_once_per_process(world: World) -> None:
    world.entry("app:lib", "local n = 0 return { next = function() n = n + 1 return n end }", kind="library.lua")
    source = 'local a, b = require("counter"), require("counter") a.next() return { a == b, b.next() }'
    for _ in range(2):
        assert world.main(source, imports={"counter": "app:lib"}) == [True, 2]


def test_libraries_have_globals_and_modules_of_their_own(world: World) -> None:
    world.entry(
        "app:lib",
        """secret = 1
        string.shout = function(s) return s:upper() end
        local ok = pcall(require, "funcs")
        return { funcs = ok, json = require("json").encode({ 1 }), seen = mine }""",
        kind="library.lua",
        modules=["json"],
    )
    assert world.main(
        """mine = 1
        local lib = require("lib")
        local json = pcall(require, "json")
        return { lib.funcs, lib.json, lib.seen == nil, secret == nil, string.shout == nil, json }""",
        imports={"lib": "app:lib"},
        modules=["funcs"],
    ) == [False, b"[1]", True, True, True, False]


def test_libraries_import_libraries(world: World) -> None:
    world.entry("app:low", "return { value = 1 }", kind="library.lua")
    world.entry(
        "app:high", 'return { value = require("low").value + 1 }', kind="library.lua", imports={"low": "app:low"}
    )
    assert world.main('return require("high").value', imports={"high": "app:high"}) == 2


def test_a_circle_of_imports_is_an_error_that_names_it(world: World) -> None:
    world.entry("app:a", 'return require("b")', kind="library.lua", imports={"b": "app:b"})
    world.entry("app:b", 'return require("a")', kind="library.lua", imports={"a": "app:a"})
    message = world.outcome('require("a")', imports={"a": "app:a"})[6][b"message"]
    assert b"app:a -> app:b -> app:a" in message


def test_a_library_that_fails_can_be_required_again(world: World) -> None:
    world.entry("app:lib", "error('not yet')", kind="library.lua")
    assert world.main(
        'local a, x = pcall(require, "lib") local b, y = pcall(require, "lib") return { a, b, x == y }',
        imports={"lib": "app:lib"},
    ) == [False, False, True]


def test_a_missing_import_is_not_found_with_the_way_to_it(world: World) -> None:
    world.entry("app:user", "return { main = function() end }", imports={"lib": "app:none"})
    message = world.main(
        'local _, err = process.spawn("app:user", "app:processes") return err:kind() .. " " .. err:message()'
    )
    assert message == b'NotFound app:user imports app:none as "lib": no entry app:none'


def test_an_undeclared_module_is_refused_with_what_to_do(world: World) -> None:
    message = world.outcome('require("json")', modules=["time"])[6][b"message"].decode()
    assert "module 'json' is not available to app:main1: its entry needs 'modules: [json, time]'" in message


def test_a_library_that_is_not_imported_is_refused_with_the_line_to_add(world: World) -> None:
    message = world.outcome('require("helpers")')[6][b"message"].decode()
    assert "there is no such module; for a library of your own add 'imports: {helpers: namespace:entry}'" in message


def test_an_import_can_name_a_module_of_the_runtime(world: World) -> None:
    assert world.main('return require("j").encode({ 1 })', imports={"j": ":json"}) == b"[1]"


def test_what_is_always_there_needs_no_declaration(world: World) -> None:
    assert (
        world.main(
            """return { require("process") == process, require("channel") == channel, require("errors") == errors,
            require("payload") == payload, require("coroutine") == coroutine }"""
        )
        == [True] * 5
    )


def test_code_is_asked_for_once(world: World) -> None:
    world.entry("app:x", "return { main = function() return 1 end }")
    asked: list[bytes] = []
    take = world._take

    def count(item: list[object]) -> None:
        if item[0] == Out.CODE:
            asked.append(item[2])  # type: ignore[arg-type]
        take(item)

    world._take = count  # type: ignore[method-assign]
    world.main(
        'for i = 1, 10 do coroutine.spawn(function() process.spawn("app:x", "app:processes") end) end '
        'process.exec("app:x", "app:processes")'
    )
    assert asked.count(b"app:x") == 1


def test_changed_code_is_read_again_and_running_processes_keep_theirs(world: World) -> None:
    world.entry("app:lib", "return { v = 1 }", kind="library.lua")
    world.entry(
        "app:late",
        """return { main = function() process.inbox():receive() return require("lib").v end }""",
        imports={"lib": "app:lib"},
    )
    old = world.spawn("app:late")
    world.entry("app:lib", "return { v = 2 }", kind="library.lua")
    world.run([44, [b"app:lib"]])
    new = world.spawn("app:late")
    for pid in (old, new):
        world.send(pid, "go", 1)
    assert [world.exit_of(pid)[5] for pid in (old, new)] == [1, 2]


def test_a_change_while_code_is_being_read_reads_it_again(world: World) -> None:
    world.entry("app:x", "return { main = function() return 'new' end }")
    package = dict(world.entries.pop(b"app:x"))
    stale = package | {b"source": package[b"source"].replace(b"new", b"old")}
    original, world._take = world._take, world.out.append  # type: ignore[method-assign,assignment]
    reference = world.post_spawn("app:x")
    world.run()
    asked = world.out.pop()
    world.entries[b"app:x"] = package
    world._take = original  # type: ignore[method-assign]
    world.run([44, [b"app:x"]], [40, asked[1], None, [stale]])
    assert world.exit_of(world.reply(reference)[5])[5] == b"new"


def test_a_process_that_asked_for_it_hears_of_changed_code_once(world: World) -> None:
    world.entry("app:lib", "return {}", kind="library.lua")
    pid = world.spawn_body(
        """process.set_options({ upgradable = true })
        process.inbox():receive()
        local events = process.events()
        local e = events:receive()
        return { e.kind == process.event.OUTDATED, #e.sources, channel.select({ events:case_receive(), default =
            true }).default }""",
        imports={"lib": "app:lib"},
    )
    world.run([44, [b"app:lib"]], [44, [b"app:main1"]])
    world.send(pid, "go", 1)
    assert world.exit_of(pid)[5] == [True, 2, True]


def test_line_numbers_are_those_of_the_source(world: World) -> None:
    world.entry(
        "app:lines", "-- one\nlocal function main()\n  local x = 1\n  error('here')\nend\nreturn { main = main }"
    )
    assert world.exit_of(world.spawn("app:lines"))[6][b"message"] == b"app:lines:4: here"


def test_a_module_half_calls_casts_and_streams() -> None:
    half = """return function(env)
        local module = {}
        function module.double(n) return env.call("demo", "double", n) end
        function module.open() return env.stream("demo", "open", "x") end
        function module.note(text) return env.cast("demo", "note", text) end
        return module
    end"""
    world = World(modules={"demo": half})
    opened: list[list[object]] = []

    def double(n: int) -> list[int]:
        if n < 0:
            raise LookupError("no such number")
        return [n * 2]

    def open_stream(number: int, text: bytes) -> list[int]:
        opened.append([number, text])
        world.post([41, number, b"one"], [41, number, {b"n": 2}], [42, number])
        return [number]

    world.handlers[b"demo", b"double"] = double
    world.handlers[b"demo", b"open"] = open_stream
    assert world.main(
        """local demo = require("demo")
        local four = demo.double(2)
        local none, err = demo.double(-1)
        demo.note({ fine = true })
        local bad, problem = demo.note({ f = print })
        local ch, id = demo.open()
        local first, second = ch:receive(), ch:receive()
        local _, open = ch:receive()
        return { four, none == nil, err:kind(), problem:kind(), first, second.n, open }""",
        modules=["demo"],
    ) == [4, True, b"NotFound", b"Invalid", b"one", 2, False]
    assert opened == [[1, b"x"]]
    assert any(item[0] == 51 and item[3:] == [b"demo", b"note", [{b"fine": True}]] for item in world.out)
    assert any(item[0] == 53 for item in world.out)


def test_a_call_is_taken_back_when_its_caller_dies() -> None:
    half = "return function(env) return { wait = function() return env.call('demo', 'wait') end } end"
    world = World(modules={"demo": half})
    pid = world.spawn_body('require("demo").wait()', modules=["demo"])
    asked = next(item for item in world.out if item[0] == Out.CALL)
    assert asked[2:] == [pid, b"app:main1", b"demo", b"wait", []]
    world.run([10, pid, b"{n1@node:test|1-0}", 0])
    assert [56, asked[1]] in world.out
    world.run([40, asked[1], None, [1]])


def test_answers_keep_their_holes() -> None:
    half = "return function(env) return { get = function() return select('#', env.call('demo', 'get')) end } end"
    world = World(modules={"demo": half})
    world.handlers[b"demo", b"get"] = lambda: [None, 1, None]
    assert world.main('return require("demo").get()', modules=["demo"]) == 3


def test_an_answer_that_is_no_plain_data_never_reaches_a_process() -> None:
    half = "return function(env) return { get = function() return env.call('demo', 'get') end } end"
    world = World(modules={"demo": half})
    world.handlers[b"demo", b"get"] = lambda: [{b"inside": object()}]
    kind = world.main('local _, err = require("demo").get() return err:kind()', modules=["demo"])
    assert kind == b"Internal"


def test_a_process_that_was_ended_while_it_waited_for_code_stays_ended(world: World) -> None:
    world.entry("app:x", "return { main = function() return 1 end }")
    package = world.entries.pop(b"app:x")
    original, world._take = world._take, world.out.append  # type: ignore[method-assign,assignment]
    world.entries[b"app:x"] = package
    source = f"process.spawn('app:x', 'app:processes') process.send('{OUTSIDE.decode()}', 'went on')"
    world.entry("app:asker", f"return {{ main = function() {source} end }}")
    reference = world.post_spawn("app:asker")
    world.run()
    asked = world.out.pop()
    world.run([In.ANSWER, asked[1], None, [world.entries[b"app:asker"]]])
    asked = world.out[-1]
    assert asked[2] == b"app:x"
    world._take = original  # type: ignore[method-assign]
    world.run([10, world.reply(reference)[5], OUTSIDE, 0])
    world.run([In.ANSWER, asked[1], None, [package]])
    assert world.messages() == []
