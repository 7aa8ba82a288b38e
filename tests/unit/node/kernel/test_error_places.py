"""Where an error happened: the entry and the line a person wrote, wherever it was raised and however it travels."""

from __future__ import annotations

import pytest

from tests.luaworld import REMOTE, World

# Line 7 fails; types over several lines stand before it.
FAILING = """type Order = {
    id: string, -- kept
    items: {[string]: number},
}
local function fail(
    order: Order?): never
    error("broken")
end
"""


def test_a_type_over_many_lines_moves_no_line(world: World) -> None:
    assert world.outcome(FAILING + "fail()")[6][b"message"] == b"app:main1:7: broken"


@pytest.mark.parametrize(
    "call",
    [
        "coroutine.wrap(fail)()",
        "coroutine.spawn(fail) process.inbox():receive()",
        "coroutine.wrap(function() coroutine.wrap(fail)() end)()",
        "local co = coroutine.create(fail) local _, text = coroutine.resume(co) error(text, 0)",
        "table.sort({ 2, 1 }, fail)",
        "string.gsub('x', 'x', fail)",
        "for _ in fail do end",
        "local t = setmetatable({}, { __index = fail }) print(t.x)",
        "local t <close> = setmetatable({}, { __close = fail })",
        "local _, text = pcall(fail) error(text, 0)",
        "local _, text = xpcall(fail, function(e) return e end) error(text, 0)",
    ],
)
def test_a_callback_keeps_its_own_line(world: World, call: str) -> None:
    assert world.outcome(FAILING + call)[6][b"message"].startswith(b"app:main1:7: broken")


def test_a_library_is_named_with_its_own_lines(world: World) -> None:
    world.entry(
        "app.shop:rules", "local M = {}\n\nfunction M.check()\n  error('no')\nend\nreturn M", kind="library.lua"
    )
    imports = {"rules": "app.shop:rules"}
    assert world.outcome("require('rules').check()", imports=imports)[6][b"message"] == b"app.shop:rules:4: no"


def test_a_library_that_fails_as_it_is_loaded_says_where(world: World) -> None:
    world.entry("app:lib", "\n\nlocal x = nil .. 'x'", kind="library.lua")
    message = world.outcome("require('lib')", imports={"lib": "app:lib"})[6][b"message"]
    assert message.startswith(b"app:lib:3: attempt to concatenate a nil value")


def test_the_stack_of_an_error_object_goes_through_libraries_to_the_process(world: World) -> None:
    world.entry(
        "app:lib", "local M = {}\nfunction M.make(f)\n  local e = f()\n  return e\nend\nreturn M", kind="library.lua"
    )
    stack = world.main(
        """local lib = require("lib")
        local err = lib.make(function()
            local made = errors.new("x")
            return made
        end)
        return err:stack()""",
        imports={"lib": "app:lib"},
    )
    assert [line.split(b" in ")[0] for line in stack.split(b"\n")] == [b"app:main1:3", b"app:lib:3", b"app:main1:2"]


def test_the_stack_of_an_error_made_in_a_coroutine_names_its_lines(world: World) -> None:
    stack = world.main(
        """local result = channel.new(1)
        local function make()
            local err = errors.new("x")
            return err
        end
        coroutine.spawn(function()
            local err = make()
            result:send(err)
        end)
        return result:receive():stack()"""
    )
    assert [line.split(b" in ")[0] for line in stack.split(b"\n")] == [b"app:main1:3", b"app:main1:7"]


def test_a_process_or_function_that_failed_gives_its_stack_through_libraries(world: World) -> None:
    world.entry("app:lib", "local M = {}\nfunction M.f(x)\n  return x.y.z\nend\nreturn M", kind="library.lua")
    source = "local lib = require('lib')\nreturn { main = function()\n  local v = lib.f({})\n  return v\nend }"
    world.entry("app:bad", source, imports={"lib": "app:lib"})
    world.function("app:f", source, imports={"lib": "app:lib"})
    assert world.main(
        """process.spawn_monitored("app:bad", "app:processes")
        local _, err = require("funcs").call("app:f")
        return { process.events():receive().result.error:stack(), err:stack() }""",
        modules=["funcs"],
    ) == [b"app:lib:3 in f\napp:bad:3", b"app:lib:3 in f\napp:f:3"]


def test_wrapping_keeps_the_stack_and_call_stack_gives_it_in_parts(world: World) -> None:
    seen = world.main(
        """local err = errors.new("low")
        local wrapped = errors.wrap(err, "high")
        local parts = errors.call_stack(wrapped)
        local first = parts.frames[1]
        return { wrapped:stack() == err:stack(), first.source, first.line, parts.thread == process.pid() }"""
    )
    assert seen == [True, b"app:main1", 1, True]


def test_a_failed_process_tells_its_monitor_the_line(world: World) -> None:
    world.entry("app:bad", "return { main = function()\n\n  local t = nil\n  return t.x\nend }")
    seen = world.main(
        """process.spawn_monitored("app:bad", "app:processes")
        return tostring(process.events():receive().result.error)"""
    )
    assert seen.startswith(b"app:bad:4: attempt to index a nil value")


def test_a_failed_function_tells_its_caller_the_line(world: World) -> None:
    world.function("app:f", "return { main = function(x)\n  return x.y.z\nend }")
    assert world.main("local _, err = require('funcs').call('app:f', {}) return err:message()", modules=["funcs"]) == (
        b"app:f:2: attempt to index a nil value (field 'y')"
    )


def test_after_an_upgrade_the_new_entry_is_named(world: World) -> None:
    world.entry("app:v2", "return { main = function()\n  error('new')\nend }")
    assert world.outcome("process.upgrade('app:v2')")[6][b"message"] == b"app:v2:2: new"


@pytest.mark.parametrize(
    "call",
    [
        "process.send(1, 't')",
        "process.send('x', 1)",
        "process.spawn(1, 'h')",
        "process.exec('x')",
        "process.monitor(1)",
        "process.cancel(process.pid(), 1)",
        "process.listen(1)",
        "process.set_options(1)",
        "process.with_context(1)",
        "process.registry.register(1)",
        "channel.new(-1)",
        "channel.select(1)",
        "coroutine.spawn(1)",
        "errors.new(1)",
        "payload.new(print)",
        "subscribe(1)",
        "string.rep()",
        "table.concat({ {} })",
        "setmetatable(1, {})",
        "require('nothing')",
        "require('time').date('x')",
        "require('funcs').call(1)",
        "require('ctx').get(1)",
        "error('mine')",
    ],
)
@pytest.mark.parametrize(
    "form", ["{}", "x = {}", "pcall(print) {}", "return {}", "return (function() return {} end)()"]
)
def test_misuse_names_the_line_of_the_user_also_as_the_last_call(world: World, call: str, form: str) -> None:
    source = "\n" + form.format(call)
    exit = world.outcome(source, modules=["time", "funcs", "ctx"])
    message = exit[6][b"message"]
    assert message.startswith((b"app:main1:2: ", b"app:main1:1: ")), message
    if not form.startswith("return"):
        assert message.startswith(b"app:main1:2: "), message


def test_a_coroutine_that_ends_in_a_tail_call_names_the_line_that_resumed_it(world: World) -> None:
    message = world.outcome("\nlocal f = coroutine.wrap(function() return process.send(1, 't') end)\n\nf()")[6]
    assert message[b"message"].startswith(b"app:main1:4: bad argument #1 to 'send'")


def test_print_as_the_last_call_of_a_process_names_its_entry(world: World) -> None:
    world.main("\nreturn print('x')")
    logged = next(item for item in world.out if item[0] == 51)
    assert logged[5][1] == b"app:main1:1"


def test_a_long_entry_id_keeps_the_end_that_tells_it_from_others(world: World) -> None:
    id = "app." + "very.long.namespace." * 5 + ":the_worker"
    world.entry(id, "return { main = function()\n  error('x')\nend }")
    message = world.exit_of(world.spawn(id))[6][b"message"]
    assert message.startswith(b"...")
    assert message.endswith(b":the_worker:2: x")


def test_source_that_does_not_compile_names_entry_and_line(world: World) -> None:
    world.entry("app:bad", "local x = 1\n\nreturn } ", raw=True)
    message = world.main("local _, err = process.spawn('app:bad', 'app:processes') return err:message()")
    assert b"app:bad:3:" in message


def test_an_error_that_came_from_another_node_keeps_its_text(world: World) -> None:
    pid = world.spawn_body('local _, err = process.exec("app:x", "n2@app:processes") return tostring(err)')
    asked = next(item for item in world.out if item[0] == 2)
    failure = {b"kind": b"Internal", b"message": b"app:x:9: far away"}
    world.run([3, pid, asked[1], asked[3], 0, REMOTE], [8, pid, REMOTE, 0, 1, None, failure])
    assert world.exit_of(pid)[5] == b"app:x:9: far away"
