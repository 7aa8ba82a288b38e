"""Consoles: lines that run, fail, wait and are stopped; what is shown; who may say what; how one ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from node.console import session as sessions_file
from node.ports import Refused
from node.query import BadQuery, NotFound
from tests.unit.node.console.world import Console, ConsoleWorld

SOURCES = {
    "echo": """
        local function main()
            local inbox = process.inbox()
            while true do
                local message = inbox:receive()
                process.send(message:from(), "echo", message:payload())
            end
        end
        return { main = main }
    """,
    "fails": "return { main = function() error('broken on purpose') end }",
    "library": "return 1",
    "lib": "return { twice = function(n) return 2 * n end }",
}


@pytest.fixture
async def world() -> AsyncIterator[ConsoleWorld]:
    async with ConsoleWorld(**SOURCES) as world:
        yield world


@pytest.fixture
async def console(world: ConsoleWorld) -> Console:
    return await world.open()


# values and errors


async def test_lines_share_one_environment(console: Console) -> None:
    assert await console.value("local x = 20") == ""
    assert await console.value("function twice(n: number): number return 2 * n end") == ""
    assert await console.value("twice(x) + 2") == "42"
    assert await console.value("_") == "42"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("nil", "nil"),
        ("1, 'a', nil", '1\n"a"\nnil'),
        ("print", "<a function>"),
        ("{ 1, 2, x = { y = true } }", "{ 1, 2, x = { y = true } }"),
        ("{ [1.5] = 'half', ['a b'] = 1 }", '{ [1.5] = "half", ["a b"] = 1 }'),
        ("'tab\\t, \\27[31m, \\255'", '"tab\\t, \\x1b[31m, \\xff"'),
        ("channel.new(1)", "<a channel>"),
        ("errors.new({message = 'gone', kind = errors.NOT_FOUND})", "error NotFound: gone"),
        ("setmetatable({}, {__tostring = function() return 'mine' end})", "mine"),
        ("process.id()", '"node:console"'),
    ],
)
async def test_values_are_shown(console: Console, typed: str, shown: str) -> None:
    assert await console.value(typed) == shown


async def test_what_is_shown_has_bounds(console: Console) -> None:
    await console.value("t = {} for i = 1, 5000 do t[i] = i end")
    assert "… 4900 more" in await console.value("t")
    text = await console.value("string.rep('x', 5000000)")
    assert text.endswith("… (5000000 bytes)")
    assert len(text) < 3000
    await console.value("deep = {} local d = deep for i = 1, 40 do d.d = {} d = d.d end")
    assert "{ … }" in await console.value("deep")
    assert "a table above" in await console.value("(function() local a = {} a.a = a return a end)()")
    assert len(await console.value("(function() local w = {} for i = 1, 99 do w[i] = t end return w end)()")) < 100_000


async def test_an_error_shows_kind_message_and_line_and_does_not_end_the_console(console: Console) -> None:
    ok, shown = await console.run("\nerror('no luck')")
    assert (ok, shown) == (False, [("error", "Internal: prompt:2: no luck")])
    await console.run("function inner() error(errors.new({message = 'gone', kind = errors.NOT_FOUND})) end")
    ok, shown = await console.run("inner() x = 1")
    assert not ok
    assert shown == [("error", "NotFound: gone\n  at prompt:1 in inner\n  at prompt:1")]
    assert await console.run("error({ code = 5 })") == (False, [("error", "Internal: { code = 5 }\n  at prompt:1")])
    ok, shown = await console.run("goto nowhere")
    assert not ok
    assert shown[0][1].startswith("Syntax: ")
    assert await console.value("1") == "1"


async def test_a_coroutine_that_fails_does_not_end_the_console(console: Console) -> None:
    pid = console.pid
    await console.begin("coroutine.spawn(function() error('inside') end)")
    assert (await console.until("error"))["text"] == "Internal: prompt:1: inside"
    assert await console.value("process.pid()") == f'"{pid}"'


async def test_printing_is_shown_and_bounded(console: Console) -> None:
    ok, shown = await console.run("print('a', 1, nil) for i = 1, 100000 do print('0123456789') end")
    assert ok
    assert shown[0] == ("out", "a\t1\tnil")
    assert sum(len(text) for kind, text in shown if kind == "out") <= 256 * 1024
    assert [text for kind, text in shown if kind == "note"] == [
        "this line has printed 262144 bytes; the rest is left out"
    ]


async def test_what_a_slow_client_does_not_fetch_is_bounded(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_file, "BACKLOG", 10_000)
    await console.begin("for i = 1, 5000 do print('0123456789') end")
    async with asyncio.timeout(20):
        while (await console.ask("poll", after=0, wait=0))["busy"]:
            await asyncio.sleep(0.02)
    lost = await console.until("lost")
    assert lost["characters"] > 30_000
    assert (await console.until("done"))["ok"]


# stopping


@pytest.mark.parametrize(
    "endless",
    [
        "while true do end",
        "process.inbox():receive()",
        "channel.new(0):receive()",
        "require('time').sleep('1h')",
        "pcall(function() while true do pcall(error, 'x') end end)",
        "coroutine.wrap(function() while true do end end)()",
    ],
)
async def test_a_line_that_does_not_end_is_stopped(console: Console, endless: str) -> None:
    pid = console.pid
    await console.value("kept = 'still here'")
    await console.begin(endless)
    await console.poll(0.1)
    assert (await console.ask("stop", number=console.line))["told"]
    assert not (await console.until("done"))["ok"]
    assert await console.value("kept") == '"still here"'
    assert console.pid == pid


async def test_a_message_for_a_line_that_was_stopped_is_not_lost(world: ConsoleWorld, console: Console) -> None:
    await console.begin("channel.select({ process.inbox(), channel.new(0) })")
    await console.poll(0.1)
    await console.ask("stop", number=console.line)
    await console.until("done")
    await world.send(console.pid, "late", 1)
    assert (await console.until("message"))["text"] == "late from {n1@node:test|1-1s}: 1"
    assert await console.value("receive()") == '"late"\n1\n"{n1@node:test|1-1s}"'


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("waiting", ["process.inbox():receive()", "channel.select({ process.inbox() })"])
async def test_messages_keep_their_order_though_a_line_that_waited_was_stopped(
    world: ConsoleWorld, console: Console, waiting: str, at_once: bool
) -> None:
    await console.begin(waiting)
    await console.poll(0.1)
    await console.ask("stop", number=console.line)
    if not at_once:
        await console.until("done")
    for number in range(5):
        world.port.cast([1, console.pid.encode(), world.port.pid, 0, b"m", [number], b"", 0])
    shown = [(await console.until("message"))["text"][-1] for _ in range(5)]
    assert shown == ["0", "1", "2", "3", "4"]


async def test_a_message_that_comes_to_a_stopped_line_while_another_runs_is_not_lost(
    world: ConsoleWorld, console: Console
) -> None:
    await console.value("also = process.inbox() coroutine.spawn(function() first = also:receive() end)")
    await console.begin("also:receive()")
    await console.poll(0.1)
    await console.ask("stop", number=console.line)
    await console.until("done")
    await world.send(console.pid, "one")
    await console.begin("require('time').sleep('300ms')")
    await world.send(console.pid, "two")
    assert (await console.until("message"))["text"].startswith("two from ")
    assert await console.value("first:topic(), receive()") == '"one"\n"two"\nnil\n"{n1@node:test|1-1s}"'


async def test_stop_means_one_line(console: Console) -> None:
    await console.value("1")
    assert not (await console.ask("stop", number=1))["told"]
    await console.begin("require('time').sleep('300ms') return 'slept'")
    assert (await console.ask("stop", number=1))["told"]
    assert (await console.until("value"))["text"] == '"slept"'


@pytest.mark.parametrize(
    ("fatal", "why"),
    [
        ("table.sort({3, 1, 2}, function() while true do end end)", "a stretch that can't be interrupted"),
        ("local t = {} while true do t[#t + 1] = string.rep('x', 1000000) .. #t end", "killed: memory"),
    ],
)
async def test_a_process_that_must_be_killed_is_followed_by_another(console: Console, fatal: str, why: str) -> None:
    pid = console.pid
    await console.begin(fatal)
    assert why in (await console.until("restarted", 60))["text"]
    assert not (await console.until("done"))["ok"]
    assert await console.value("process.pid()") != f'"{pid}"'


async def test_an_upgrade_typed_at_the_prompt_starts_it_over(console: Console) -> None:
    pid = console.pid
    await console.value("x = 1")
    ok, _ = await console.run("process.upgrade()")
    assert not ok
    assert await console.value("x, process.pid()") == f'nil\n"{pid}"'


# messages and events


async def test_messages_are_shown_as_they_arrive_and_can_be_received(world: ConsoleWorld, console: Console) -> None:
    await world.send(console.pid, "greeting", b"hello")
    assert (await console.until("message"))["text"] == 'greeting from {n1@node:test|1-1s}: "hello"'
    await world.send(console.pid, "second")
    assert (await console.until("message"))["text"] == "second from {n1@node:test|1-1s}"
    assert await console.value("process.inbox():receive():topic()") == '"greeting"'
    assert await console.value("#flush()") == "1"
    assert await console.value("flush()") == "none"
    assert [event for event in await console.poll(0.05) if event["kind"] == "message"] == []


async def test_the_end_of_a_monitored_process_is_shown(world: ConsoleWorld, console: Console) -> None:
    await console.value("process.spawn_monitored('app:fails', 'app:processes')")
    text = (await console.until("event"))["text"]
    assert text.startswith("exit of {n1@app:processes|")
    assert "broken on purpose" in text
    await console.value("process.spawn_linked('app:fails', 'app:processes')")
    assert (await console.until("event"))["text"].startswith("link down to ")


async def test_a_console_talks_to_processes(world: ConsoleWorld, console: Console) -> None:
    await console.value("local echo = process.spawn('app:echo', 'app:processes')")
    assert await console.value("send(echo, 'hello', { a = 1 })") == "true"
    answer = await console.value("receive(5)")
    assert answer.startswith('"echo"\n{ a = 1 }\n"{n1@app:processes|')
    assert await console.value("receive(0.01)") == "nil"
    ok, shown = await console.run("send('nobody', 'x')")
    assert not ok
    assert "NotFound" in shown[0][1]


async def test_two_consoles_have_nothing_in_common(world: ConsoleWorld, console: Console) -> None:
    other = await world.open("client-2")
    await console.value("x = 1 string.mine = 1")
    assert await other.value("x, string.mine") == "nil\nnil"
    await console.begin("while true do end")
    assert await other.value("1 + 1") == "2"
    await console.ask("close")


# helpers


async def test_entries_are_listed_and_libraries_used(console: Console) -> None:
    assert await console.value("reg('work')") == "ID          KIND\napp:worker  process.lua"
    assert await console.value("#reg(), #reg('app:*b'), reg('library')[1].id") == '3\n1\n"app:lib"'
    assert await console.value("use('app:lib').twice(4)") == "8"
    ok, shown = await console.run("use('app:echo')")
    assert not ok
    assert "use takes a library" in shown[0][1]


async def test_the_client_answers_what_takes_all_nodes(console: Console) -> None:
    await console.begin("#pids('x')")
    asked = await console.until("ask")
    assert (asked["text"], asked["args"]) == ("pids", ["x"])
    answer = {"number": asked["number"], "value": [{"pid": "{a}", "entry": "app:x"}]}
    assert (await console.ask("answer", **answer))["taken"]
    assert not (await console.ask("answer", **answer))["taken"]
    assert (await console.until("value"))["text"] == "1"
    await console.until("done")
    await console.begin("tree()")
    asked = await console.until("ask")
    await console.ask("answer", number=asked["number"], error="no node answers")
    assert (await console.until("error"))["text"].startswith("Unavailable: no node answers")


@pytest.mark.parametrize(
    ("text", "among"),
    [
        ("pri", {"print"}),
        ("string.fo", {"string.format"}),
        ("process.registry.loo", {"process.registry.lookup"}),
        ("mine.deep.a", {"mine.deep.alpha", "mine.deep.apex"}),
        ("name:up", {"name:upper"}),
        ("trap.x", set[str]()),
        ("nothing.here", set[str]()),
        ("pid", {"pids"}),
    ],
)
async def test_names_are_completed(console: Console, text: str, among: set[str]) -> None:
    await console.value("mine = { deep = { alpha = 1, apex = 2, beta = 3 } } name = 'x'")
    await console.value("trap = setmetatable({}, { __index = function() while true do end end })")
    assert set((await console.ask("complete", text=text))["lua"]) == among


async def test_entries_and_names_are_completed_even_while_a_line_runs(console: Console) -> None:
    await console.begin("while true do end")
    found = await console.ask("complete", text="app:l")
    assert found["entries"] == ["app:lib", "app:limits"]
    assert (await console.ask("complete", text="wor"))["names"] == ["worker@n1"]
    assert (await console.ask("complete", text="prin"))["lua"] == ["print"]


# who may say what


async def test_a_console_is_refused_where_it_is_off(world: ConsoleWorld) -> None:
    world.enabled = False
    with pytest.raises(Refused, match=r"off on node n1: set `console.enabled: true`") as refused:
        await world.open()
    assert refused.value.kind == "PermissionDenied"
    assert await world.prompts() == []


async def test_only_the_client_that_opened_a_console_gets_a_word_in(world: ConsoleWorld, console: Console) -> None:
    stranger = Console(world, {"session": console.id, "pid": console.pid}, "client-2")
    for op, fields in (
        ("line", {"number": 1, "text": "x = 1"}),
        ("poll", {"after": 0}),
        ("stop", {"number": 1}),
        ("complete", {"text": "x"}),
        ("answer", {"number": 1, "value": 1}),
        ("close", {}),
    ):
        with pytest.raises(NotFound, match="no such console"):
            await stranger.ask(op, **fields)
    with pytest.raises(NotFound, match="no such console"):
        await Console(world, {"session": "0" * 32, "pid": ""}, "client-1").ask("close")
    assert await console.value("x") == "nil"


async def test_messages_are_never_lines(world: ConsoleWorld, console: Console) -> None:
    for topic in ("line", "op", "node.console", "stop"):
        await world.send(console.pid, topic, {b"op": b"line", b"n": 1, b"text": b"x = 666"})
        assert (await console.until("message"))["text"].startswith(f"{topic} from ")
    assert await console.value("x") == "nil"


async def test_a_process_can_not_make_itself_a_console(world: ConsoleWorld, console: Console) -> None:
    exits = []
    world.port.on_exit = exits.append
    await world.spawn("node:console")
    async with asyncio.timeout(20):
        while not exits:
            await asyncio.sleep(0.01)
    assert exits[0].error is not None
    assert exits[0].error["kind"] == "PermissionDenied"
    assert "is no console" in exits[0].error["message"]


async def test_no_program_has_the_module_of_the_prompt(world: ConsoleWorld) -> None:
    world.sources["app:thief"] = "return { main = function() return require('node.console') end }"
    exits = []
    world.port.on_exit = exits.append
    await world.spawn("app:thief")
    async with asyncio.timeout(20):
        while not exits:
            await asyncio.sleep(0.01)
    assert "is not available to app:thief" in exits[0].error["message"]


async def test_a_line_can_not_attach_a_second_prompt(console: Console) -> None:
    assert "has its prompt already" in await console.value("require('node.console').run(_ENV)")


async def test_the_prompt_has_no_way_out_of_the_sandbox(console: Console) -> None:
    assert await console.value("load, debug, dofile, loadstring, io, package") == "\n".join(["nil"] * 6)


async def test_every_line_is_logged_with_who_and_where(console: Console) -> None:
    with structlog.testing.capture_logs() as logged:
        await console.value("secret = 42")
        await console.run("x = = 1")
    lines = [one for one in logged if one["event"] == "console line"]
    assert [one["line"] for one in lines] == ["secret = 42", "x = = 1"]
    assert {one["who"] for one in lines} == {"ann@desk (client-1)"}
    assert {one["pid"] for one in lines} == {console.pid}


async def test_a_line_too_long_is_refused_and_the_console_goes_on(console: Console) -> None:
    ok, shown = await console.run("x = '" + "a" * 1_000_000 + "'")
    assert not ok
    assert "1000006 bytes; a prompt takes 65536" in shown[0][1]
    assert await console.value("1") == "1"


async def test_a_line_asked_again_runs_once(console: Console) -> None:
    await console.value("n = 0")
    await console.begin("n = n + 1")
    await console.until("done")
    await console.ask("line", number=console.line, text="n = n + 1")
    assert await console.value("n") == "1"


async def test_a_second_line_waits_for_nobody(console: Console) -> None:
    await console.begin("while true do end")
    with pytest.raises(BadQuery, match="line 1 still runs"):
        await console.begin("1")


# how one ends


async def test_a_console_whose_client_is_silent_ends_with_its_process(
    world: ConsoleWorld, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.connected = False
    monkeypatch.setattr(sessions_file, "LEASE", 0.3)
    await console.begin("while true do end")
    await asyncio.sleep(1)
    assert await world.prompts() == [console.pid]  # nobody could have reached the node
    world.connected = True
    async with asyncio.timeout(20):
        while await world.prompts() or "node:console" in world.hosts._running:
            await asyncio.sleep(0.02)
    with pytest.raises(NotFound):
        await console.poll()


async def test_closing_ends_the_process_and_the_last_one_the_vm(world: ConsoleWorld, console: Console) -> None:
    other = await world.open("client-2")
    await console.ask("close")
    async with asyncio.timeout(20):
        while await world.prompts() != [other.pid]:
            await asyncio.sleep(0.02)
    assert "node:console" in world.hosts._running
    await other.ask("close")
    async with asyncio.timeout(20):
        while "node:console" in world.hosts._running:
            await asyncio.sleep(0.02)


async def test_a_console_that_is_cancelled_says_why(world: ConsoleWorld, console: Console) -> None:
    await world.cancel(console.pid, "node stopping")
    assert (await console.until("closed"))["text"] == "it was asked to end: node stopping"


async def test_a_node_has_so_many_consoles(world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.console.sessions.MOST_SESSIONS", 1)
    await world.open()
    with pytest.raises(Refused, match="has 1 consoles already"):
        await world.open("client-2")


# tracing


async def test_what_arrives_at_a_process_and_what_it_sends_can_be_seen(world: ConsoleWorld) -> None:
    echo = (await world.spawn("app:echo")).decode()

    async def seen() -> list[dict[str, Any]]:
        answer = await world.ask("console_trace", pid=echo)
        assert answer["left_out"] == 0
        return list(answer["records"])

    assert await seen() == []
    await world.send(echo, "hello", {b"a": 1})
    await world.send(echo, "large", b"x" * 2000)
    records: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(records) < 4:
            records += await seen()
    other = "{n1@node:test|1-1s}"
    assert [(one["way"], one["other"], one["topic"], one.get("data")) for one in records] == [
        ("in", other, "hello", [{"a": 1}]),
        ("out", other, "echo", [{"a": 1}]),
        ("in", other, "large", None),
        ("out", other, "echo", None),
    ]
    assert records[2]["size"] > 2000
    await world.cancel(echo, "enough")
    assert [(one["way"], one["topic"], one["data"]) for one in await seen()] == [("event", "pid.cancel", ["enough"])]


async def test_messages_within_a_vm_are_traced(world: ConsoleWorld) -> None:
    world.sources["app:pair"] = """
        local function main()
            local inbox = process.inbox()
            local message = inbox:receive()
            local me = process.pid()
            process.send(me, "one", 1)
            process.send(me, "two", 1, 2)
            process.send(me, "none")
            for _ = 1, 3 do inbox:receive() end
            inbox:receive()
        end
        return { main = main }
    """
    pid = (await world.spawn("app:pair")).decode()
    await world.ask("console_trace", pid=pid)
    await world.send(pid, "go")
    records: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(records) < 7:
            records += (await world.ask("console_trace", pid=pid))["records"]
    assert [(one["way"], one["topic"], one["data"]) for one in records] == [
        ("in", "go", []),
        ("in", "one", [1]),
        ("out", "one", [1]),
        ("in", "two", [1, 2]),
        ("out", "two", [1, 2]),
        ("in", "none", []),
        ("out", "none", []),
    ]


async def test_messages_by_name_to_another_vm_are_traced(world: ConsoleWorld, console: Console) -> None:
    for vm in world.hosts.vms():
        vm.post([43, b"far", console.pid.encode(), 7])
    world.sources["app:caller"] = """
        local function main()
            local inbox = process.inbox()
            while inbox:receive() do process.send("far", "greeting", "hello", 2) end
        end
        return { main = main }
    """
    pid = (await world.spawn("app:caller")).decode()
    await world.ask("console_trace", pid=pid)
    await world.send(pid, "go")
    records: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(records) < 2:
            records += (await world.ask("console_trace", pid=pid))["records"]
    assert [(one["way"], one["other"], one["data"]) for one in records[1:]] == [("out", console.pid, ["hello", 2])]


async def test_a_trace_has_a_bound_and_ends_when_nobody_asks(world: ConsoleWorld) -> None:
    echo = (await world.spawn("app:echo")).decode()
    await world.ask("console_trace", pid=echo)
    for _ in range(600):
        world.port.cast([1, echo.encode(), world.port.pid, 0, b"flood", [1], b"", 0])
    await world.send(echo, "last")
    answer = await world.ask("console_trace", pid=echo)
    assert len(answer["records"]) + answer["left_out"] >= 601
    assert len(answer["records"]) <= 1000
    await asyncio.sleep(3.1)
    await world.send(echo, "unseen")
    assert (await world.ask("console_trace", pid=echo))["records"] == []
    with pytest.raises(NotFound, match="no process"):
        await world.ask("console_trace", pid="{n1@app:processes|1-zz2}")


async def test_a_trace_is_refused_where_the_console_is_off(world: ConsoleWorld) -> None:
    world.enabled = False
    with pytest.raises(Refused, match="the console is off"):
        await world.ask("console_trace", pid="{n1@app:processes|1-1}")
