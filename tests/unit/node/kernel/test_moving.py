"""A process leaves one VM and goes on in another: what it is told, what travels, and who can reach it when."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cluster.envelope import Kind
from node.host.boundary import In, Item, Out
from node.host.kernel import VmConfig
from tests.luaworld import NOON, OUTSIDE, World
from tests.movingworld import DEADLINE, TwoNodes, uniq_of

KEEPER = """
    local function main(state)
        process.set_options({ migratable = true })
        local inbox, events = process.inbox(), process.events()
        state = state or { log = {} }
        while true do
            local picked = channel.select({ events:case_receive(), inbox:case_receive() })
            local value = picked.value
            if picked.channel == inbox and value:topic() == "get" then
                process.send(value:from(), "state", state)
            elseif picked.channel == inbox and value:topic() == "do" then
                state.result = load_do(value:payload():data(), state, value:from())
            elseif picked.channel == inbox then
                state.log[#state.log + 1] = value:payload():data()
            elseif value.kind == process.event.MIGRATE then
                process.upgrade(nil, state)
            else
                state.log[#state.log + 1] = value
            end
        end
    end
    return { main = main }
"""
"""A process that keeps what it is sent, and goes where it is asked to. "do" has it do one of DEEDS."""

DEEDS = """
    local deeds = {
        monitor = function(state, from, pid) local ok, err = process.monitor(pid) return ok or tostring(err) end,
        unmonitor = function(state, from, pid) return process.unmonitor(pid) end,
        link = function(state, from, pid) local ok, err = process.link(pid) return ok or tostring(err) end,
        unlink = function(state, from, pid) return process.unlink(pid) end,
        trap = function() return process.set_options({ trap_links = true }) end,
        send = function(state, from, pid) return process.send(pid, "sent", 1) end,
        fail = function() error("on purpose") end,
        stay = function() return process.set_options({ migratable = false }) end,
        outdated = function() return process.set_options({ upgradable = true }) end,
        context = function() return require("ctx").get("user") end,
        options = function() return process.get_options() end,
    }
    local function load_do(deed, state, from) return deeds[deed[1]](state, from, deed[2]) end
"""


@pytest.fixture
def nodes() -> TwoNodes:
    nodes = TwoNodes()
    define(nodes.worlds[b"n1"])
    return nodes


@pytest.fixture(autouse=True)
def no_complaints(nodes: TwoNodes) -> Any:
    yield
    for world in nodes.worlds.values():
        assert world.complaints() == []


def define(world: World) -> None:
    world.entry("app:keeper", DEEDS + KEEPER, modules=("ctx",))
    world.entry("app:quiet", "return { main = function() process.inbox():receive() end }")
    world.entry("app:fails", "return { main = function() process.inbox():receive() error('on purpose') end }")


def log_of(nodes: TwoNodes, pid: bytes) -> list[Any]:
    log: list[Any] = state_of(nodes, pid)[b"log"]
    return log


def state_of(nodes: TwoNodes, pid: bytes) -> dict[bytes, Any]:
    nodes.run()
    nodes.send(pid, "get")
    nodes.run()
    state: dict[bytes, Any] = nodes.messages("state")[-1]
    return state


def do(nodes: TwoNodes, pid: bytes, *deed: Any) -> Any:
    nodes.send(pid, "do", list(deed))
    return state_of(nodes, pid).get(b"result")


def of_kind(items: list[Item], kind: int) -> list[Item]:
    return [item for item in items if item[0] == kind]


def freeze(nodes: TwoNodes, pid: bytes) -> int:
    move = nodes.ask(pid)
    nodes.run()
    assert nodes.is_frozen(pid)
    return move


def lives_in(world: World, pid: bytes) -> bool:
    return any(row[b"pid"] == pid for row in world.query(b"list"))


class TestTheOption:
    def test_a_process_opts_in_and_out(self, world: World) -> None:
        body = """process.set_options({ migratable = true }) local before = process.get_options().migratable
            process.set_options({ migratable = false }) return { before, process.get_options().migratable }"""
        assert world.main(body) == [True, False]

    def test_a_function_cannot_opt_in(self, world: World) -> None:
        world.function(
            "app:f",
            "return { main = function() local ok, err = process.set_options({ migratable = true, trap_links = true })"
            " return { ok, err:kind(), tostring(err), process.get_options().trap_links } end }",
        )
        value, _ = world.call("app:f")
        assert value[:2] == [False, b"Invalid"]
        assert b"its caller waits for it where it runs" in value[2]
        assert value[3] is False

    def test_the_node_hears_of_the_end_of_one_that_opted_in(self, world: World) -> None:
        pid = world.spawn_body("process.set_options({ migratable = true })")
        assert [item[1] for item in of_kind(world.out, Out.ENDED)] == [pid]


class TestWhoCannotLeave:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [("process.inbox():receive()", b"not opted in"), ("", b"it has ended")],
    )
    def test_is_told_with_the_reason(self, world: World, body: str, reason: bytes) -> None:
        pid = world.spawn_body(body)
        (told,) = world.run([In.MIGRATE, pid, 7, b"n2", DEADLINE])
        assert told[:3] == [Out.UNMOVABLE, pid, 7]
        assert reason in told[3]

    def test_a_supervised_process_is_not_asked(self, nodes: TwoNodes) -> None:
        world = nodes.worlds[b"n1"]
        pid = world.spawn("app:keeper", options={b"owner": True})
        (told,) = world.run([In.MIGRATE, pid, 7, b"n2", DEADLINE])
        assert b"its supervisor starts it elsewhere" in told[3]
        (row,) = world.query(b"list")
        assert row[b"supervised"] is True

    def test_a_function_is_not_asked(self, world: World) -> None:
        world.function("app:f", "return { main = function() process.inbox():receive() end }")
        world.spawn_body("require('funcs').call('app:f')", modules=("funcs",))
        (pid,) = [row[b"pid"] for row in world.query(b"list") if row[b"kind"] == b"function"]
        (told,) = world.run([In.MIGRATE, pid, 7, b"n2", DEADLINE])
        assert b"its caller can" in told[3]

    def test_one_that_opts_out_when_it_is_asked_stays(self, nodes: TwoNodes) -> None:
        pid = nodes.spawn("app:keeper")
        nodes.send(pid, "do", [b"stay"])
        move = nodes.ask(pid)
        assert [item[:3] for item in of_kind(nodes.run(), Out.UNMOVABLE)] == [[Out.UNMOVABLE, pid, move]]
        assert state_of(nodes, pid)[b"result"] is True
        assert log_of(nodes, pid) == []

    def test_one_that_opts_out_before_it_looked_has_no_event(self, world: World) -> None:
        pid = world.spawn_body(
            """process.set_options({ migratable = true }) local inbox, events = process.inbox(), process.events()
            inbox:receive() process.set_options({ migratable = false })
            return channel.select({ events:case_receive(), default = true }).default"""
        )
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        world.send(pid, "go")
        assert world.exit_of(pid)[5] is True
        assert [item[:3] for item in of_kind(world.out, Out.UNMOVABLE)] == [[Out.UNMOVABLE, pid, 1]]


class TestBeingAsked:
    def test_the_event_says_where_to_and_until_when(self, world: World) -> None:
        pid = world.spawn_body(
            "process.set_options({ migratable = true }) local e = process.events():receive() return e"
        )
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        event = world.exit_of(pid)[5]
        assert event.pop(b"at") >= NOON * 10**9
        assert event == {b"kind": b"pid.migrate", b"from": b"", b"to": b"n2", b"deadline": DEADLINE}

    def test_an_event_nobody_took_yet_is_joined(self, world: World) -> None:
        pid = world.spawn_body(
            """process.set_options({ migratable = true }) process.inbox():receive()
            local events = process.events()
            local first = events:receive()
            return { first.to, first.deadline, channel.select({ events:case_receive(), default = true }).default }"""
        )
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE], [In.MIGRATE, pid, 2, b"n3", DEADLINE + 5])
        world.send(pid, "go")
        assert world.exit_of(pid)[5] == [b"n3", DEADLINE + 5, True]

    @pytest.mark.parametrize("asks_for_events", [True, False])
    def test_an_event_nobody_took_is_gone_with_the_wish(self, world: World, asks_for_events: bool) -> None:
        pid = world.spawn_body(
            f"""process.set_options({{ migratable = true }})
            local events = {(asks_for_events and "process.events()") or "nil"} process.inbox():receive()
            events = events or process.events()
            local first, second = events:receive(), events:receive()
            return {{ first.kind, first.reason, second.reason }}"""
        )
        cancel = [int(Kind.CANCEL), pid, OUTSIDE, 0]
        world.run([*cancel, b"a"], [In.MIGRATE, pid, 1, b"n2", DEADLINE], [*cancel, b"b"], [In.THAW, pid, 1, b"late"])
        world.send(pid, "go")
        assert world.exit_of(pid)[5] == [b"pid.cancel", b"a", b"b"]

    def test_an_upgrade_after_the_wish_was_withdrawn_is_one_in_place(self, nodes: TwoNodes) -> None:
        world = nodes.worlds[b"n1"]
        world.entry(
            "app:late",
            """return { main = function(again) process.set_options({ migratable = true })
            if again then return "here" end
            process.events():receive() process.inbox():receive() process.upgrade(nil, true) end }""",
        )
        pid = world.spawn("app:late")
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE], [In.THAW, pid, 1, b"late"])
        world.send(pid, "go")
        assert world.exit_of(pid)[5] == b"here"
        assert of_kind(world.out, Out.LEAVING) == []

    def test_a_withdrawal_of_another_move_means_nothing(self, nodes: TwoNodes) -> None:
        pid = nodes.spawn("app:keeper")
        world = nodes.worlds[b"n1"]
        out = world.run([In.MIGRATE, pid, 5, b"n2", DEADLINE], [In.THAW, pid, 4, b"late"])
        assert out == [[Out.LEAVING, pid, 5, b"app:keeper"]]
        assert world.run([In.FREEZE, pid, 4], [In.DROP, pid, 5]) == []
        assert lives_in(world, pid)


class TestTheMove:
    def test_state_and_mail_go_on_elsewhere(self, nodes: TwoNodes) -> None:
        pid = nodes.spawn("app:keeper")
        for number in range(3):
            nodes.send(pid, "add", number)
        nodes.ask(pid)
        for number in range(3, 6):
            nodes.send(pid, "add", number)
        nodes.run()
        nodes.send(pid, "add", 6)
        nodes.settle(pid)
        nodes.send(pid, "add", 7)
        assert log_of(nodes, pid) == list(range(8))
        assert not lives_in(nodes.worlds[b"n1"], pid)
        assert lives_in(nodes.worlds[b"n2"], pid)

    def test_it_comes_and_goes(self, nodes: TwoNodes) -> None:
        pid = nodes.spawn("app:keeper")
        for number in range(6):
            nodes.send(pid, "add", number)
            nodes.move(pid)
        assert log_of(nodes, pid) == list(range(6))
        assert nodes.place_of(pid) == b"n1"

    def test_it_starts_over_here_when_the_move_is_given_up(self, nodes: TwoNodes) -> None:
        pid = nodes.spawn("app:keeper")
        nodes.send(pid, "add", 1)
        freeze(nodes, pid)
        nodes.send(pid, "add", 2)
        nodes.settle(pid, stays=True)
        assert log_of(nodes, pid) == [1, 2]
        nodes.move(pid)
        assert log_of(nodes, pid) == [1, 2]

    def test_another_entry_may_go_on_with_its_state(self, nodes: TwoNodes) -> None:
        nodes.worlds[b"n1"].entry(
            "app:first",
            """return { main = function() process.set_options({ migratable = true })
            process.events():receive() process.upgrade("app:second", 1, nil, 3) end }""",
        )
        nodes.worlds[b"n1"].entry(
            "app:second",
            """return { main = function(...) local a, b, c = ...
            return { process.id(), select('#', ...), a, b == nil, c } end }""",
        )
        pid = nodes.spawn("app:first")
        nodes.ask(pid)
        nodes.run()
        nodes.settle(pid)
        nodes.run()
        (exit,) = nodes.exits(pid)
        assert exit[5] == [b"app:second", 3, 1, True, 3]

    def test_code_that_is_not_there_is_an_error_where_it_was(self, nodes: TwoNodes) -> None:
        nodes.worlds[b"n1"].entry(
            "app:wrong",
            """return { main = function() process.set_options({ migratable = true })
            process.events():receive() process.upgrade("app:nothing") end }""",
        )
        pid = nodes.spawn("app:wrong")
        nodes.ask(pid)
        nodes.run()
        (exit,) = nodes.exits(pid)
        assert exit[6][b"kind"] == b"NotFound"

    def test_context_options_and_counters_travel(self, nodes: TwoNodes) -> None:
        world = nodes.worlds[b"n1"]
        pid = world.spawn("app:keeper", options={b"context": {b"user": b"ann"}, b"monitor": True})
        nodes.send(pid, "do", [b"trap"])
        nodes.run()
        before = world.query(b"inspect", pid)
        nodes.move(pid)
        after = nodes.worlds[b"n2"].query(b"inspect", pid)
        assert do(nodes, pid, b"context") == b"ann"
        assert do(nodes, pid, b"options") == {b"trap_links": True, b"upgradable": False, b"migratable": True}
        for name in (b"sent", b"received", b"parent", b"watchers", b"entry"):
            assert after[name] == before[name], name

    def test_the_counters_of_the_vms_stay_right(self, nodes: TwoNodes) -> None:
        pid = nodes.spawn("app:keeper")
        first, second = nodes.worlds[b"n1"], nodes.worlds[b"n2"]

        def counts() -> dict[bytes, int]:
            sums = dict.fromkeys((b"live", b"spawned", b"sent", b"received"), 0)
            for world in (first, second):
                entries = world.query(b"counters")[b"entries"]
                of_entry = entries.get(b"app:keeper", {}) if entries else {}
                for name in sums:
                    sums[name] += of_entry.get(name, 0)
            return sums

        log_of(nodes, pid)
        before = counts()
        assert before == {b"live": 1, b"spawned": 1, b"sent": 1, b"received": 1}
        freeze(nodes, pid)
        assert counts() == before
        nodes.settle(pid)
        nodes.run()
        assert counts() == before
        assert [world.query(b"counters")[b"live"] for world in (first, second)] == [0, 1]
        freeze(nodes, pid)
        nodes.settle(pid, stays=True)
        log_of(nodes, pid)
        assert counts() == {b"live": 1, b"spawned": 1, b"sent": 2, b"received": 2}

    def test_what_it_sent_by_name_keeps_its_order(self, nodes: TwoNodes) -> None:
        pid, first, later = nodes.spawn("app:keeper"), b"{n3@app:x|9-1}", b"{n3@app:x|9-2}"
        for world in nodes.worlds.values():
            world.run([In.NAME, b"name", first, 5])
        do(nodes, pid, b"send", b"name")
        (sent,) = [item for item in nodes.worlds[b"n1"].out if item[0] == Kind.MESSAGE and item[1] == first]
        do(nodes, pid, b"send", later)
        nodes.move(pid)
        world = nodes.worlds[b"n2"]
        world.run([In.NAME, b"name", later, 6])
        (letter,) = world.run([int(Kind.RETURN), pid, first, 0, *sent[4:]])
        assert letter[0] == Out.DEAD_LETTER
        assert letter[-1] == b"stale_name_overtaken"

    def test_the_rows_of_the_list_say_how_far_it_is(self, nodes: TwoNodes) -> None:
        world = nodes.worlds[b"n1"]
        world.entry(
            "app:slow",
            """return { main = function() process.set_options({ migratable = true })
            process.events():receive() process.inbox():receive() process.upgrade() end }""",
        )
        pid = world.spawn("app:slow")

        def moving() -> Any:
            (row,) = world.query(b"list")
            assert row[b"migratable"] is True
            assert row[b"supervised"] is False
            return row.get(b"moving")

        assert moving() is None
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        assert moving() == b"asked"
        world.send(pid, "go")
        assert moving() == b"leaving"

    def test_all_of_it_ends_where_it_was(self, nodes: TwoNodes) -> None:
        nodes.worlds[b"n1"].entry(
            "app:busy",
            f"""local time = require("time") return {{ main = function(again)
            process.set_options({{ migratable = true }})
            if again then process.inbox():receive() return end
            coroutine.spawn(function()
                while true do time.sleep("10ms") process.send("{OUTSIDE.decode()}", "tick", 1) end
            end)
            local ticks = time.ticker("10ms")
            process.events():receive() process.upgrade(nil, true) end }}""",
            modules=("time", "coroutine"),
        )
        world = nodes.worlds[b"n1"]
        reference = world.post_spawn("app:busy")
        world.run(until=lambda: len(world.messages()) > 3)
        pid_of_it: bytes = world.reply(reference)[5]
        world.run([In.MIGRATE, pid_of_it, 1, b"n2", DEADLINE])
        ticks = len(world.messages())
        world.run([In.FREEZE, pid_of_it, 1])
        world.run()
        assert len(world.messages()) == ticks
        assert world.query(b"counters")[b"timers"] == 0


class TestTheManual:
    def test_its_example_moves(self, nodes: TwoNodes) -> None:
        page = (Path(__file__).parents[4] / "docs" / "moving.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"```lua\n(.*?)```", page, flags=re.DOTALL)
        nodes.worlds[b"n1"].entry("app:example", example)
        pid = nodes.spawn("app:example")
        nodes.send(pid, "job", 1)
        nodes.run()
        nodes.move(pid)
        nodes.send(pid, "job", 2)
        nodes.run()
        nodes.put([int(Kind.CANCEL), pid, OUTSIDE, 0, b"enough"])
        nodes.run()
        (exit,) = nodes.exits(pid)
        assert exit[5] == 2
        assert nodes.place_of(pid) == b"n2"


class TestMemory:
    """A process that waits to be frozen is measured like the others."""

    def test_one_that_holds_most_is_killed_while_it_waits(self) -> None:
        mib = 1024 * 1024
        world = World(VmConfig(max_memory=256 * mib))
        world.entry(
            "app:large",
            """return { main = function() process.set_options({ migratable = true })
            local list = {} for i = 1, 12 do list[i] = ("%d"):format(i):rep(1 << 20) end
            process.events():receive() process.upgrade(nil, list) end }""",
        )
        pid = world.spawn("app:large")
        small = world.spawn_body("process.inbox():receive()")
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        assert not world.has_ended(pid)
        world.kernel.change(VmConfig(max_memory=16 * mib))
        world.run()
        assert world.exit_of(pid)[6][b"message"] == b"killed: memory"
        assert not world.has_ended(small)
        assert world.run([In.FREEZE, pid, 1]) == []

    def test_one_that_there_is_no_room_to_pack_stays(self) -> None:
        mib = 1024 * 1024
        world = World(VmConfig(max_memory=64 * mib))
        world.entry(
            "app:large",
            """return { main = function(state) process.set_options({ migratable = true })
            if state then process.inbox():receive() return "here" end
            local text, list = ("x"):rep(1 << 20), {} for i = 1, 30 do list[i] = text end
            process.events():receive() process.upgrade(nil, list) end }""",
        )
        pid = world.spawn("app:large")
        out = world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        assert [item[0] for item in out] == [Out.LEAVING]
        out = world.run([In.FREEZE, pid, 1])
        assert [item[:3] for item in out] == [[Out.UNMOVABLE, pid, 1]]
        world.send(pid, "go")
        assert world.exit_of(pid)[5] == b"here"
        assert world.complaints() == []


class TestValues:
    """What is in the mailbox and in the state arrives as it was."""

    CHECK = """
        local time = require("time")
        local function same(a, b)
            if math.type(a) ~= math.type(b) or type(a) ~= type(b) then return false end
            if type(a) ~= "table" then return a == b or a ~= a and b ~= b end
            for k, v in pairs(a) do if not same(v, b[k]) then return false, k end end
            for k in pairs(b) do if a[k] == nil then return false, k end end
            return true
        end
        local function values()
            local deep = {}
            local at = deep
            for i = 1, 60 do at.next = {} at = at.next end
            return {
                whole = 1.0, one = 1, big = math.maxinteger, small = math.mininteger, negative = -33, zero = -0.0,
                inf = math.huge, bytes = "\\0\\255\\128abc", long = ("x"):rep(100000), holes = { 1, nil, 3, nil },
                map = { [1.5] = "a", [true] = "b", [-7] = "c", [1 << 40] = "d" }, empty = {}, no = false,
                list = { { 1, 2.0, "3" }, {}, { { {} } } }, deep = deep,
            }
        end
    """

    def test_of_all_kinds_in_the_state_and_in_the_mail(self, nodes: TwoNodes) -> None:
        nodes.worlds[b"n1"].entry(
            "app:exact",
            self.CHECK
            + """return { main = function(first, second, state)
            process.set_options({ migratable = true })
            if not state then
                local own = process.pid()
                process.send(own, "one", values())
                process.send(own, "many", 1, nil, values(), nil)
                process.send(own, "none")
                process.send(own, "no", false)
                process.events():receive()
                process.upgrade(nil, 1, nil, values())
            end
            local inbox = process.inbox()
            local one, many, none, no = inbox:receive(), inbox:receive(), inbox:receive(), inbox:receive()
            local list = many:payload()
            return { first, second == nil, same(state, values()), same(one:payload():data(), values()),
                #list, list[1]:data(), list[2]:data() == nil, same(list[3]:data(), values()), list[4]:data() == nil,
                none:topic(), none:payload() == nil, no:payload():data(), one:from() == process.pid(),
                state.zero == 0 and 1 / state.zero < 0 }
            end }""",
            modules=("time",),
        )
        pid = nodes.spawn("app:exact")
        nodes.ask(pid)
        nodes.run()
        nodes.settle(pid)
        nodes.run()
        (exit,) = nodes.exits(pid)
        assert exit[6] is None
        assert exit[5] == [1, True, True, True, 4, 1, True, True, True, b"none", True, False, True, True]

    def test_errors_times_and_zones_are_what_they_were(self, nodes: TwoNodes) -> None:
        nodes.worlds[b"n1"].entry(
            "app:typed",
            """local time, errors = require("time"), require("errors")
            local function values()
                local zone = time.fixed_zone("here", 3600)
                return {
                    err = errors.new({ kind = "Invalid", message = "wrong", retryable = true, details = { n = 1.0 } }),
                    plain = errors.new("text"),
                    at = time.date(2024, 5, 6, 7, 8, 9, 10, zone), utc = time.utc, here = zone,
                    localtz = time.localtz, span = time.parse_duration("90s"),
                }
            end
            return { main = function(state)
            process.set_options({ migratable = true })
            if not state then
                process.send(process.pid(), "one", values())
                process.events():receive()
                process.upgrade(nil, values())
            end
            local mail = process.inbox():receive():payload():data()
            local found = {}
            for _, v in ipairs({ state, mail }) do
                found[#found + 1] = { v.err:kind(), v.err:message(), v.err:retryable(), v.err:details().n,
                    math.type(v.err:details().n), v.plain:message(), v.at:format(time.RFC3339NANO),
                    v.utc == time.utc, v.localtz == time.localtz, tostring(v.here), v.span:seconds() }
            end
            return found end }""",
            modules=("time", "errors"),
        )
        pid = nodes.spawn("app:typed")
        nodes.ask(pid)
        nodes.run()
        nodes.settle(pid)
        nodes.run()
        (exit,) = nodes.exits(pid)
        assert exit[6] is None, exit[6]
        assert exit[5][0] == exit[5][1]
        assert exit[5][0] == [
            b"Invalid", b"wrong", True, 1.0, b"float", b"text", b"2024-05-06T07:08:09.00000001+01:00",
            True, True, b"here", 90.0,
        ]  # fmt: skip

    def test_a_state_that_is_too_large_keeps_it_here(self, nodes: TwoNodes) -> None:
        nodes.worlds[b"n1"].entry(
            "app:large",
            """return { main = function(state)
            process.set_options({ migratable = true })
            if state then return "here" end
            local text, list = ("x"):rep(1 << 20), {}
            for position = 1, 65 do list[position] = text end
            process.events():receive() process.upgrade(nil, list) end }""",
        )
        pid = nodes.spawn("app:large")
        move = nodes.ask(pid)
        told = nodes.run()
        ((_, *said),) = of_kind(told, Out.UNMOVABLE)
        assert said[:2] == [pid, move]
        assert said[2].startswith(b"its state and its mail are too large to be moved")
        (exit,) = nodes.exits(pid)
        assert exit[5] == b"here"


class TestReachingIt:
    """Senders and watchers in the VM it leaves and in the VM it comes to."""

    @pytest.fixture
    def sender(self, nodes: TwoNodes) -> bytes:
        nodes.worlds[b"n1"].entry(
            "app:sender",
            """return { main = function(pid) local inbox = process.inbox()
            while true do
                local data = inbox:receive():payload():data()
                local ok, err = process.send(pid, "add", data)
                if not ok then process.send(pid:sub(1, 0) .. "{n1@node:test|1-0}", "failed", tostring(err)) end
            end end }""",
        )
        return b"app:sender"

    @pytest.mark.parametrize("node", [b"n1", b"n2"])
    def test_those_beside_it_send_in_order(self, nodes: TwoNodes, sender: bytes, node: bytes) -> None:
        pid = nodes.spawn("app:keeper")
        beside = nodes.spawn(sender.decode(), pid, node=node)
        for number in range(10):
            nodes.send(beside, "go", 4 * number)
            nodes.ask(pid)
            nodes.send(beside, "go", 4 * number + 1)
            nodes.run()
            nodes.send(beside, "go", 4 * number + 2)
            nodes.settle(pid)
            nodes.send(beside, "go", 4 * number + 3)
            nodes.run()
        assert log_of(nodes, pid) == list(range(40))
        assert nodes.messages("failed") == []

    def test_one_that_moved_sends_to_those_beside_it(self, nodes: TwoNodes) -> None:
        pid, other = nodes.spawn("app:keeper"), nodes.spawn("app:keeper", node=b"n2")
        nodes.move(pid)
        assert do(nodes, pid, b"send", other) is True
        assert log_of(nodes, other) == [1]
        assert do(nodes, other, b"send", pid) is True
        assert log_of(nodes, pid) == [1]
        assert do(nodes, pid, b"send", pid) is True
        assert log_of(nodes, pid) == [1, 1]

    def test_one_that_is_thawed_is_reached_through_the_node(self, nodes: TwoNodes, sender: bytes) -> None:
        pid = nodes.spawn("app:keeper")
        beside = nodes.spawn(sender.decode(), pid)
        freeze(nodes, pid)
        nodes.settle(pid, stays=True)
        nodes.run()
        world = nodes.worlds[b"n1"]
        out = world.run([int(Kind.MESSAGE), beside, OUTSIDE, 0, b"go", [5], b"", 0])
        assert [item[:3] for item in of_kind(out, Kind.MESSAGE)] == [[Kind.MESSAGE, pid, beside]]

    def test_one_that_stayed_and_is_forgotten_is_reached(self, nodes: TwoNodes, sender: bytes) -> None:
        pid = nodes.spawn("app:keeper")
        beside, watcher = nodes.spawn(sender.decode(), pid), nodes.spawn("app:keeper")
        freeze(nodes, pid)
        nodes.settle(pid, stays=True)
        nodes.run()
        nodes._moved.clear()
        nodes.worlds[b"n1"].run([In.MOVED, [[uniq_of(pid), b""]]])
        nodes.send(beside, "go", 5)
        assert do(nodes, watcher, b"monitor", pid) is True
        assert do(nodes, pid, b"monitor", watcher) is True
        assert log_of(nodes, pid) == [5]
        assert nodes.messages("failed") == []
        nodes.send(watcher, "do", [b"fail"])
        nodes.run()
        assert [event[b"kind"] for event in log_of(nodes, pid)[1:]] == [b"pid.exit"]

    @pytest.mark.parametrize("watcher_node", [b"n1", b"n2"])
    @pytest.mark.parametrize("moves", [1, 2, 3])
    def test_its_watchers_hear_once_of_its_end(self, nodes: TwoNodes, watcher_node: bytes, moves: int) -> None:
        pid, watcher = nodes.spawn("app:keeper"), nodes.spawn("app:keeper", node=watcher_node)
        assert do(nodes, watcher, b"monitor", pid) is True
        for _ in range(moves):
            nodes.move(pid)
        assert (watcher, pid, 1) in nodes.watches
        nodes.send(pid, "do", [b"fail"])
        nodes.run()
        (event,) = log_of(nodes, watcher)
        assert (event[b"kind"], event[b"from"]) == (b"pid.exit", pid)
        assert b"on purpose" in event[b"result"][b"error"][b"message"]
        assert nodes.watches == set()

    @pytest.mark.parametrize("node", [b"n1", b"n2"])
    def test_it_hears_of_the_end_of_those_it_watches(self, nodes: TwoNodes, node: bytes) -> None:
        pid, watched = nodes.spawn("app:keeper"), nodes.spawn("app:fails", node=node)
        assert do(nodes, pid, b"monitor", watched) is True
        nodes.move(pid)
        nodes.send(watched, "go", 1)
        nodes.run()
        (event,) = log_of(nodes, pid)
        assert (event[b"kind"], event[b"from"]) == (b"pid.exit", watched)
        assert b"on purpose" in event[b"result"][b"error"][b"message"]

    @pytest.mark.parametrize("node", [b"n1", b"n2"])
    def test_it_hears_of_one_that_ended_on_the_way(self, nodes: TwoNodes, node: bytes) -> None:
        pid, watched = nodes.spawn("app:keeper"), nodes.spawn("app:fails", node=node)
        assert do(nodes, pid, b"monitor", watched) is True
        freeze(nodes, pid)
        nodes.send(watched, "go", 1)
        nodes.run()
        nodes._held.clear()  # its exit is lost with the link
        nodes.settle(pid)
        nodes.worlds[b"n2"].patience = 3.0
        (event,) = log_of(nodes, pid)
        assert (event[b"kind"], event[b"from"]) == (b"pid.exit", watched)
        assert event[b"result"][b"error"][b"kind"] == b"NotFound"

    @pytest.mark.parametrize("node", [b"n1", b"n2"])
    def test_what_one_said_that_ended_on_the_way_is_heard(self, nodes: TwoNodes, node: bytes) -> None:
        pid, watched = nodes.spawn("app:keeper"), nodes.spawn("app:fails", node=node)
        linked = nodes.spawn("app:quiet", node=node)
        assert do(nodes, pid, b"monitor", watched) is True
        assert do(nodes, pid, b"link", linked) is True
        freeze(nodes, pid)
        nodes.send(watched, "go", 1)
        nodes.send(linked, "go", 1)
        nodes.run()
        for world in nodes.worlds.values():
            world.patience = 3.0
        nodes.settle(pid)
        (event,) = log_of(nodes, pid)
        assert b"on purpose" in event[b"result"][b"error"][b"message"]
        assert nodes.exits(pid) == []

    def test_a_link_that_ended_on_the_way_is_none(self, nodes: TwoNodes) -> None:
        pid, linked = nodes.spawn("app:keeper"), nodes.spawn("app:keeper")
        assert do(nodes, linked, b"link", pid) is True
        freeze(nodes, pid)
        assert do(nodes, linked, b"unlink", pid) is True
        nodes.settle(pid)
        nodes.run()
        for of, world in ((pid, nodes.worlds[b"n2"]), (linked, nodes.worlds[b"n1"])):
            assert world.query(b"inspect", of)[b"links"] == []
        assert nodes.watches == set()

    @pytest.mark.parametrize("node", [b"n1", b"n2"])
    def test_its_links_hold(self, nodes: TwoNodes, node: bytes) -> None:
        pid, linked = nodes.spawn("app:keeper"), nodes.spawn("app:fails", node=node)
        assert do(nodes, pid, b"link", linked) is True
        nodes.move(pid)
        nodes.send(linked, "go", 1)
        nodes.run()
        (exit,) = nodes.exits(pid)
        assert exit[6][b"message"].startswith(b"linked process failed: " + linked)

    @pytest.mark.parametrize("node", [b"n1", b"n2"])
    def test_it_takes_along_those_linked_to_it(self, nodes: TwoNodes, node: bytes) -> None:
        pid, linked = nodes.spawn("app:keeper"), nodes.spawn("app:keeper", node=node)
        assert do(nodes, linked, b"link", pid) is True
        nodes.move(pid)
        assert (linked, pid, 2) in nodes.watches
        nodes.send(pid, "do", [b"fail"])
        nodes.run()
        (exit,) = nodes.exits(linked)
        assert exit[6][b"message"].startswith(b"linked process failed: " + pid)

    def test_its_end_comes_behind_the_answer_to_who_begins_to_watch(self, nodes: TwoNodes) -> None:
        """Else the watcher would hear of an end before it watches, and never again."""
        pid = nodes.spawn("app:keeper")
        nodes.move(pid)
        watcher = nodes.spawn("app:keeper", node=b"n2")
        world = nodes.worlds[b"n2"]
        nodes.send(watcher, "do", [b"monitor", pid])
        asked = world.run()
        assert [item[0] for item in asked] == [Kind.MONITOR]
        out = world.run(*asked, [int(Kind.MESSAGE), pid, OUTSIDE, 0, b"do", [[b"fail"]], b"", 0])
        assert [item[0] for item in out if item[1] == watcher] == [Kind.REPLY, Kind.EXIT]
        world.run(*[item for item in out if item[1] == watcher])
        (event,) = log_of(nodes, watcher)
        assert event[b"kind"] == b"pid.exit"

    def test_one_that_it_watches_is_not_waited_for(self, nodes: TwoNodes) -> None:
        """Its watch is asserted anew when it comes; what answers that holds nothing up."""
        nodes.worlds[b"n1"].entry(
            "app:waits",
            """return { main = function(pid)
            process.set_options({ migratable = true })
            if pid then process.monitor(pid) process.events():receive() process.upgrade(nil, false) end
            if pid == false then process.events():receive() process.upgrade() end
            channel.new():receive() end }""",
        )
        world = nodes.worlds[b"n2"]
        pid = nodes.worlds[b"n1"].spawn("app:waits", b"{n3@app:x|9-1}")
        (asked,) = of_kind(nodes.worlds[b"n1"].out, Kind.MONITOR)
        nodes.worlds[b"n1"].run([int(Kind.REPLY), pid, asked[1], asked[3], 0, True])
        nodes._tell(pid, b"n1")
        nodes.worlds[b"n1"].run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        (luggage,) = of_kind(nodes.worlds[b"n1"].run([In.FREEZE, pid, 1]), Out.LUGGAGE)
        (asked,) = of_kind(world.run([In.ADOPT, pid, luggage[3], b""]), Kind.MONITOR)
        assert asked[1:3] == [b"{n3@app:x|9-1}", pid]
        assert [item[0] for item in world.run([In.MIGRATE, pid, 2, b"n1", DEADLINE])] == [Out.LEAVING]
        world.run([int(Kind.REPLY), pid, asked[1], asked[3], 2, None])
        (luggage,) = of_kind(world.run([In.FREEZE, pid, 2]), Out.LUGGAGE)
        out = nodes.worlds[b"n1"].run([In.ADOPT, pid, luggage[3], b""])
        assert [item[0] for item in of_kind(out, Kind.MONITOR)] == [Kind.MONITOR]
        assert b"all coroutines blocked" in nodes.worlds[b"n1"].exit_of(pid)[6][b"message"]

    def test_a_monitor_from_beside_it_begins_and_ends(self, nodes: TwoNodes) -> None:
        pid = nodes.spawn("app:keeper")
        nodes.move(pid)
        watcher = nodes.spawn("app:keeper", node=b"n2")
        assert do(nodes, watcher, b"monitor", pid) is True
        assert nodes.watches == {(watcher, pid, 1)}
        assert nodes.worlds[b"n2"].query(b"inspect", pid)[b"watchers"] in ([OUTSIDE, watcher], [watcher, OUTSIDE])
        assert do(nodes, watcher, b"unmonitor", pid) is True
        assert nodes.watches == set()
        assert nodes.worlds[b"n2"].query(b"inspect", pid)[b"watchers"] == [OUTSIDE]

    def test_one_that_waits_for_its_end_gets_the_outcome(self, nodes: TwoNodes) -> None:
        nodes.worlds[b"n1"].entry(
            "app:travels",
            """return { main = function(done) process.set_options({ migratable = true })
            if done then return "from afar" end
            process.events():receive() process.upgrade(nil, true) end }""",
        )
        world = nodes.worlds[b"n1"]
        caller = world.spawn_body("return process.exec('app:travels', 'app:processes')")
        (pid,) = [row[b"pid"] for row in world.query(b"list") if row[b"entry"] == b"app:travels"]
        nodes.ask(pid)
        nodes.run()
        assert nodes.watches == {(caller, pid, 1)}
        nodes.settle(pid)
        nodes.run()
        (exit,) = nodes.exits(caller)
        assert exit[5] == b"from afar"
        assert nodes.watches == set()


class TestTheWayOut:
    """Between the hand-over and [63]."""

    @pytest.fixture
    def calls(self, nodes: TwoNodes) -> World:
        world = nodes.worlds[b"n1"]
        world.function("app:wait", "return { main = function() process.inbox():receive() return 1 end }")
        world.entry("app:waits", "return { main = function() process.inbox():receive() return 1 end }")
        world.entry(
            "app:caller",
            """local funcs = require("funcs") return { main = function(how, pid)
            process.set_options({ migratable = true })
            if how == "again" then process.inbox():receive() return end
            coroutine.spawn(function()
                if how == "function" then funcs.call("app:wait")
                elseif how == "exec" then process.exec("app:waits", "app:processes")
                elseif how == "exec_there" then process.exec("app:waits", "n2@app:processes")
                elseif how == "request" then process.monitor(pid)
                else process.registry.register("name") end
            end)
            process.events():receive() process.upgrade(nil, "again") end }""",
            modules=("funcs", "coroutine"),
        )
        return world

    @pytest.mark.parametrize("how", ["function", "exec", "exec_there"])
    def test_it_waits_for_what_it_called(self, nodes: TwoNodes, calls: World, how: str) -> None:
        pid = nodes.spawn("app:caller", how.encode())
        nodes.ask(pid)
        nodes.run()
        assert not nodes.is_frozen(pid)
        world = nodes.worlds[b"n2" if how == "exec_there" else b"n1"]
        (called,) = [row[b"pid"] for row in world.query(b"list") if row[b"entry"].startswith(b"app:wait")]
        (row,) = [row for row in calls.query(b"list") if row[b"pid"] == pid]
        assert row[b"moving"] == b"waiting for answers"
        nodes.send(called, "go", 1)
        nodes.run()
        assert nodes.is_frozen(pid)
        nodes.settle(pid)
        nodes.run()
        assert lives_in(nodes.worlds[b"n2"], pid)

    def test_it_waits_for_the_answer_of_another_node(self, nodes: TwoNodes, calls: World) -> None:
        pid = calls.spawn("app:caller", b"request", b"{n3@app:processes|9-1}")
        (asked,) = of_kind(calls.out, Kind.MONITOR)
        assert calls.run([In.MIGRATE, pid, 1, b"n2", DEADLINE]) == []
        undone, told = calls.run([int(Kind.REPLY), pid, asked[1], asked[3], 0, True])
        assert undone[:3] == [Kind.UNMONITOR, asked[1], pid]
        assert told == [Out.LEAVING, pid, 1, b"app:caller"]

    def test_it_waits_for_the_node(self, calls: World) -> None:
        pid = calls.spawn("app:caller", b"operation")
        (asked,) = of_kind(calls.out, Out.CALL)
        assert calls.run([In.MIGRATE, pid, 1, b"n2", DEADLINE]) == []
        assert calls.run([In.ANSWER, asked[1], None, [True]]) == [[Out.LEAVING, pid, 1, b"app:caller"]]

    def test_a_withdrawal_meanwhile_starts_it_over_and_ends_what_it_called(self, calls: World) -> None:
        pid = calls.spawn("app:caller", b"function")
        calls.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        assert calls.run([In.THAW, pid, 1, b"too late"]) == []
        assert [row[b"pid"] for row in calls.query(b"list")] == [pid]
        calls.send(pid, "go", 1)
        assert calls.exit_of(pid)[6] is None

    def test_one_that_is_killed_meanwhile_has_ended(self, calls: World) -> None:
        pid = calls.spawn("app:caller", b"function")
        calls.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        out = calls.run([int(Kind.TERMINATE), pid, OUTSIDE, 0])
        assert [item[0] for item in out] == [Kind.EXIT, Out.ENDED]
        assert calls.run([In.FREEZE, pid, 1], [In.THAW, pid, 1, b""], [In.DROP, pid, 1]) == []
        assert calls.query(b"counters")[b"live"] == 0

    def test_one_that_is_killed_before_it_is_frozen_has_ended(self, nodes: TwoNodes) -> None:
        pid, world = nodes.spawn("app:keeper"), nodes.worlds[b"n1"]
        assert world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])[0][0] == Out.LEAVING
        out = world.run([int(Kind.TERMINATE), pid, OUTSIDE, 0], [In.FREEZE, pid, 1])
        assert [item[0] for item in out] == [Kind.EXIT, Out.ENDED]

    def test_a_link_takes_it_along_meanwhile(self, nodes: TwoNodes) -> None:
        pid, linked, world = nodes.spawn("app:keeper"), nodes.spawn("app:fails"), nodes.worlds[b"n1"]
        do(nodes, pid, b"link", linked)
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        world.send(linked, "go", 1)
        assert b"linked process failed" in world.exit_of(pid)[6][b"message"]

    def test_what_comes_before_the_freeze_travels(self, nodes: TwoNodes) -> None:
        pid, world = nodes.spawn("app:keeper"), nodes.worlds[b"n1"]
        nodes._tell(pid, b"n1")
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        world.send(pid, "add", 1)
        (luggage,) = world.run([int(Kind.MESSAGE), pid, OUTSIDE, 0, b"add", [2], b"", 0], [In.FREEZE, pid, 1])
        nodes._moved[uniq_of(pid)] = b"n2"
        nodes.worlds[b"n2"].run([In.ADOPT, pid, luggage[3], b""])
        assert log_of(nodes, pid) == [1, 2]

    def test_the_luggage_is_the_last_that_comes_of_it(self, nodes: TwoNodes) -> None:
        pid, other = nodes.spawn("app:keeper"), nodes.spawn("app:keeper")
        nodes.move(other)
        do(nodes, pid, b"monitor", other)
        world = nodes.worlds[b"n1"]
        out = world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE], [In.FREEZE, pid, 1])
        assert [item[0] for item in out] == [Out.LEAVING]
        out = world.run([In.FREEZE, pid, 1])
        assert [item[0] for item in out] == [Out.WATCHES, Out.LUGGAGE]
        assert out[0] == [Out.WATCHES, pid, other, 1, False]
        assert sorted(out[1][4]) == [[OUTSIDE, 1]]

    def test_what_streamed_into_it_ends_and_what_it_claimed_is_given_up(self) -> None:
        half = 'return function(env) return { open = function() return env.stream("feed", "open") end } end'
        world = World(modules={"feed": half})
        world.handlers[(b"feed", b"open")] = lambda *_: [True]
        define(world)
        world.entry(
            "app:streams",
            f"""return {{ main = function(again) process.set_options({{ migratable = true }})
            if again then process.inbox():receive() return end
            local fed = require("feed").open()
            coroutine.spawn(function()
                while true do process.send("{OUTSIDE.decode()}", "fed", (fed:receive())) end
            end)
            coroutine.spawn(function()
                process.with_context({{}}):with_name("n"):spawn("app:quiet", "app:processes")
            end)
            process.events():receive() process.upgrade(nil, true) end }}""",
            modules=("feed", "coroutine"),
        )
        pid = world.spawn("app:streams")
        (claim,) = of_kind(world.out, Out.CALL)
        assert world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE], [In.FEED, 1, 5]) == []
        out = world.run([In.ANSWER, claim[1], None, [True]])
        assert [item[:2] for item in out] == [[Out.ENDED, claim[6][1]], [Out.UPGRADED, pid], [Out.LEAVING, pid]]

    def test_a_stop_does_not_take_it_for_one_that_knows_nothing(self, nodes: TwoNodes) -> None:
        pid, world = nodes.spawn("app:keeper"), nodes.worlds[b"n1"]
        world.patience = 4.0
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE], [In.STOP, b"shutdown", 60])
        assert not world.has_ended(pid)
        (luggage,) = of_kind(world.run([In.FREEZE, pid, 1]), Out.LUGGAGE)
        nodes._moved[uniq_of(pid)] = b"n2"
        nodes.worlds[b"n2"].run([In.ADOPT, pid, luggage[3], b""])
        (event,) = log_of(nodes, pid)
        assert (event[b"kind"], event[b"reason"]) == (b"pid.cancel", b"shutdown")

    def test_a_deadlock_is_none_while_it_waits(self, nodes: TwoNodes) -> None:
        pid, world = nodes.spawn("app:keeper"), nodes.worlds[b"n1"]
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        world.run()
        assert not world.has_ended(pid)

    def test_one_that_is_asked_again_on_its_way_leaves_under_the_later_number(self, calls: World) -> None:
        pid = calls.spawn("app:caller", b"operation")
        (asked,) = of_kind(calls.out, Out.CALL)
        calls.run([In.MIGRATE, pid, 1, b"n2", DEADLINE], [In.MIGRATE, pid, 2, b"n3", DEADLINE])
        assert calls.run([In.ANSWER, asked[1], None, [True]]) == [[Out.LEAVING, pid, 2, b"app:caller"]]
        out = calls.run([In.MIGRATE, pid, 3, b"n2", DEADLINE])
        assert out == [[Out.LEAVING, pid, 3, b"app:caller"]]

    def test_one_that_nobody_was_told_of_is_sent_for_all_the_same(self, nodes: TwoNodes) -> None:
        pid, watcher, world = nodes.spawn("app:keeper"), nodes.spawn("app:keeper"), nodes.worlds[b"n1"]
        do(nodes, watcher, b"monitor", pid)
        world.run([In.MIGRATE, pid, 1, b"n2", DEADLINE])
        out = world.run([In.FREEZE, pid, 1])
        assert [item[:3] for item in of_kind(out, Out.WATCHES)] == [[Out.WATCHES, watcher, pid]]
        out = world.run([int(Kind.MESSAGE), watcher, OUTSIDE, 0, b"do", [[b"send", pid]], b"", 0])
        assert [item[1] for item in of_kind(out, Kind.MESSAGE)] == [pid]


class TestFrozen:
    def test_it_cannot_be_killed_nor_reached(self, nodes: TwoNodes) -> None:
        pid, world = nodes.spawn("app:keeper"), nodes.worlds[b"n1"]
        freeze(nodes, pid)
        (reply,) = world.run([int(Kind.TERMINATE), pid, OUTSIDE, 64])
        assert reply[4] == 2
        assert world.query(b"inspect", pid) is None
        assert world.query(b"counters")[b"live"] == 1

    def test_the_host_stops_when_it_is_known_where_it_runs(self, nodes: TwoNodes) -> None:
        pid, world = nodes.spawn("app:keeper"), nodes.worlds[b"n1"]
        freeze(nodes, pid)
        assert world.run([In.STOP, b"shutdown", 0.2]) == []
        nodes.settle(pid)
        assert [Out.STOPPED] in world.run()

    @pytest.mark.parametrize(("grace", "has_ended"), [(0, True), (60, False)])
    def test_one_that_goes_on_in_a_host_that_stops_ends_with_it(
        self, nodes: TwoNodes, grace: int, has_ended: bool
    ) -> None:
        pid, world = nodes.spawn("app:keeper"), nodes.worlds[b"n1"]
        freeze(nodes, pid)
        world.run([In.STOP, b"shutdown", grace])
        nodes.settle(pid, stays=True)
        nodes.run()
        if has_ended:
            assert nodes.exits(pid)
        else:
            (event,) = log_of(nodes, pid)
            assert (event[b"kind"], event[b"reason"]) == (b"pid.cancel", b"shutdown")

    def test_code_that_changed_meanwhile_is_told(self, nodes: TwoNodes) -> None:
        pid, world = nodes.spawn("app:keeper"), nodes.worlds[b"n1"]
        do(nodes, pid, b"outdated")
        freeze(nodes, pid)
        world.run([In.CODE_CHANGED, [b"app:keeper"]])
        nodes.settle(pid, stays=True)
        (event,) = log_of(nodes, pid)
        assert (event[b"kind"], event[b"sources"]) == (b"pid.outdated", [b"app:keeper"])

    def test_one_that_goes_on_has_the_limits_of_now(self, nodes: TwoNodes) -> None:
        pid, world = nodes.spawn("app:keeper"), nodes.worlds[b"n1"]
        freeze(nodes, pid)
        world.kernel.change(VmConfig(mailbox_limit=77))
        nodes.settle(pid, stays=True)
        nodes.run()
        assert world.query(b"inspect", pid)[b"mailbox_limit"] == 77

    def test_it_hears_of_a_node_that_went_meanwhile(self, nodes: TwoNodes) -> None:
        pid, watched = nodes.spawn("app:keeper"), nodes.spawn("app:quiet", node=b"n2")
        assert do(nodes, pid, b"monitor", watched) is True
        freeze(nodes, pid)
        world = nodes.worlds[b"n1"]
        world.run([In.NODE_GONE, b"n2", b"crashed"])
        (asked,) = of_kind(world.run([In.THAW, pid, 1, b""]), Kind.MONITOR)
        world.patience = 3.0
        world.run([int(Kind.REPLY), pid, watched, asked[3], 3, None])
        nodes._release(pid)
        (event,) = log_of(nodes, pid)
        assert (event[b"kind"], event[b"from"]) == (b"pid.exit", watched)
        assert event[b"result"][b"error"][b"kind"] == b"Unavailable"


class TestArriving:
    def luggage(self, nodes: TwoNodes) -> tuple[bytes, Item]:
        pid = nodes.spawn("app:keeper")
        nodes.send(pid, "add", 1)
        freeze(nodes, pid)
        luggage = nodes._luggage[pid]
        nodes._tell(pid, b"n2")
        nodes._release(pid)
        return pid, luggage

    def test_what_comes_while_its_code_is_fetched_waits(self, nodes: TwoNodes) -> None:
        pid, luggage = self.luggage(nodes)
        world = nodes.worlds[b"n2"]
        messages = [[int(Kind.MESSAGE), pid, OUTSIDE, 0, b"add", [number], b"", 0] for number in (2, 3)]
        world.run([In.ADOPT, pid, luggage[3], b""], *messages)
        assert world.asked[b"app:keeper"] == 1
        assert log_of(nodes, pid) == [1, 2, 3]

    def test_one_that_is_to_leave_again_before_its_code_is_there_does_so_afterwards(self, nodes: TwoNodes) -> None:
        pid = nodes.spawn("app:keeper")
        freeze(nodes, pid)
        nodes.settle(pid)
        nodes.ask(pid)
        nodes.run()
        nodes.settle(pid)
        assert log_of(nodes, pid) == []
        assert nodes.place_of(pid) == b"n1"

    def test_one_whose_code_is_gone_ends_with_an_error(self, nodes: TwoNodes) -> None:
        pid, luggage = self.luggage(nodes)
        world = nodes.worlds[b"n2"]
        world.entries = {}
        out = world.run([In.ADOPT, pid, luggage[3], b""])
        assert [item[0] for item in out if item[0] != Out.CAST] == [Kind.EXIT, Out.ENDED]
        assert world.exit_of(pid)[6][b"kind"] == b"NotFound"
        assert world.query(b"counters")[b"live"] == 0

    def test_one_that_comes_to_a_host_that_is_being_stopped_ends_with_an_error(self, nodes: TwoNodes) -> None:
        pid, luggage = self.luggage(nodes)
        world = nodes.worlds[b"n2"]
        world.run([In.STOP, b"shutdown", 60])
        world.run([In.ADOPT, pid, luggage[3], b""])
        assert b"is stopping" in world.exit_of(pid)[6][b"message"]

    def test_one_that_is_one_too_many_runs_all_the_same(self, nodes: TwoNodes) -> None:
        pid, luggage = self.luggage(nodes)
        world = nodes.worlds[b"n2"]
        world.kernel.change(VmConfig(max_processes=1))
        world.spawn("app:keeper")
        world.run([In.ADOPT, pid, luggage[3], b""])
        assert len(world.query(b"list")) == 2

    def test_one_that_is_killed_while_its_code_is_fetched_never_runs(self, nodes: TwoNodes) -> None:
        pid, luggage = self.luggage(nodes)
        world = nodes.worlds[b"n2"]
        out = world.run([In.ADOPT, pid, luggage[3], b""], [int(Kind.TERMINATE), pid, OUTSIDE, 0])
        assert [item[0] for item in out] == [Kind.EXIT, Out.ENDED]
        assert world.query(b"list") == []

    def test_it_is_not_told_of_code_that_changed_before_it_had_any(self, nodes: TwoNodes) -> None:
        pid = nodes.spawn("app:keeper")
        do(nodes, pid, b"outdated")
        freeze(nodes, pid)
        nodes.settle(pid)
        nodes.worlds[b"n2"].post([In.CODE_CHANGED, [b"app:keeper"]])
        assert log_of(nodes, pid) == []

    def test_text_that_is_no_luggage_is_reported(self, world: World) -> None:
        world.run([In.ADOPT, b"{n2@app:processes|5-2a}", b"\xc1\xa3abc\x01", b""])
        (complaint,) = world.complaints()
        world.out.clear()
        assert "unknown type" in complaint
        assert world.query(b"list") == []

    def test_a_typed_value_is_none_outside_of_luggage(self, world: World) -> None:
        pid = world.spawn_body("process.inbox():receive()")
        packed = world.kernel.pack([int(Kind.MESSAGE), pid, OUTSIDE, 0, b"t", [b"x"], b"", 0])
        world.kernel.step_packed([packed.replace(b"\xa1x", b"\xc1\xa5error\x80")])
        assert not world.has_ended(pid)
