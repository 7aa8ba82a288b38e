"""The Lua halves in a real VM, over the real Python halves, registry, store and event bus."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import structlog

from cluster.keys import Keys
from cluster.registry import Create, Entry, Update
from tests.integration.node.small_node import Lua, LuaFailed, until

pytestmark = pytest.mark.servers

DOCUMENT = Path(__file__).parents[3] / "docs" / "modules.md"
EXAMPLES = re.findall(r"\n## ([^\n]+)\n(?:(?!\n## ).)*?```lua\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.mark.parametrize(("section", "example"), EXAMPLES, ids=[section for section, _ in EXAMPLES])
async def test_every_example_of_the_document_runs(lua: Lua, section: str, example: str) -> None:
    lua.io.terminals.add(1)
    assert await lua(example) is None


def test_the_document_has_an_example_per_module() -> None:
    assert {section for section, _ in EXAMPLES} >= {"registry", "events", "store", "env", "io", "logger"}


class TestRegistry:
    async def test_the_published_project_is_version_0(self, lua: Lua) -> None:
        source = """
            local registry = require("registry")
            local version = registry.current_version()
            return {version:id(), version:string(), tostring(version), version:previous() == nil, version:next() == nil}
        """
        assert await lua(source) == [0, "v0", "v0", True, True]

    async def test_changes_create_update_and_delete_in_one_version(self, lua: Lua) -> None:
        source = """
            local registry = require("registry")
            local changes = registry.snapshot():changes()
            changes:create({id = "app:a", kind = "registry.entry", meta = {type = "t"}, data = {n = 1}})
            changes:create({id = {ns = "app", name = "b"}, kind = "registry.entry", data = {}})
            assert(changes:apply():string() == "v1")
            changes = registry.snapshot():changes()
            changes:update({id = "app:a", kind = "registry.entry", meta = {type = "t"}, data = {n = 2, list = {1, 2}}})
            changes:delete({ns = "app", name = "b"})
            assert(#changes:ops() == 2 and changes:ops()[1].kind == "entry.update")
            assert(changes:apply():string() == "v2")
            local a, b = registry.get("app:a"), registry.get("app:b")
            assert(b == nil)
            return a
        """
        expected = {"id": "app:a", "kind": "registry.entry", "meta": {"type": "t"}, "data": {"n": 2, "list": [1, 2]}}
        assert await lua(source) == expected
        assert len(await lua.registry.versions()) == 3

    async def test_nothing_to_apply_and_a_wrong_entry_are_invalid(self, lua: Lua) -> None:
        source = """
            local registry = require("registry")
            local changes = registry.snapshot():changes()
            local _, nothing = changes:apply()
            changes:create({id = "no namespace", kind = "registry.entry"})
            local _, wrong = changes:apply()
            return {nothing:kind(), nothing:message(), wrong:kind(), wrong:details().problems[1].field}
        """
        assert await lua(source) == ["Invalid", "no changes to apply", "Invalid", "id"]

    async def test_history_and_snapshots_of_versions(self, lua: Lua) -> None:
        source = """
            local registry = require("registry")
            for n = 1, 3 do
                local changes = registry.snapshot():changes()
                changes:create({id = "app:e" .. n, kind = "registry.entry"})
                changes:apply()
            end
            local history = registry.history()
            local ids = {}
            for i, version in ipairs(history:versions()) do ids[i] = version:id() end
            local snapshot = registry.snapshot_at(1)
            local two = history:get_version(2)
            local _, missing = registry.snapshot_at(9)
            return {
                ids, #snapshot:namespace("app"), #history:snapshot_at(two):find({["^.name"] = "e"}),
                two:previous():id(), two:next():id(), two == history:get_version(2),
                missing:kind(), snapshot:version():string(),
            }
        """
        result = await lua(source)
        assert result == [[0, 1, 2, 3], 7, 2, 1, 3, True, "NotFound", "v1"]

    async def test_the_ends_of_history_operations_and_differences(self, lua: Lua) -> None:
        source = """
            local registry = require("registry")
            local first = registry.current_version()
            local changes = registry.snapshot():changes()
            changes:create({id = {ns = "app", name = "x"}, kind = "registry.entry", data = {n = 1}})
            changes:delete({ns = "app", name = "counters"})
            local kinds = {}
            for i, op in ipairs(changes:ops()) do kinds[i] = op.kind .. " " .. op.entry.id end
            local last = assert(changes:apply())
            local left = #changes:ops()
            local function list(id) return {{id = id, kind = "t", meta = {}, data = {}}} end
            local delta = registry.build_delta(list("t:a"), list("t:b"))
            return {
                first:previous() == nil, last:next() == nil, last:previous() == first, tostring(last), kinds, left,
                {delta[1].kind, delta[1].entry.id, delta[2].kind, delta[2].entry.id},
                registry.get({ns = "app", name = "x"}).data.n, #registry.find({kind = "registry.entry"}),
            }
        """
        result = await lua(source)
        assert result[:4] == [True, True, True, "v1"]
        assert result[4:6] == [["entry.create app:x", "entry.delete app:counters"], 0]
        assert result[6] == ["entry.delete", "t:a", "entry.create", "t:b"]
        assert result[7:] == [1, 6], "a key without prefix leaves nothing out"

    async def test_a_wrong_type_of_argument_raises_at_the_callers_line(self, lua: Lua) -> None:
        for call in ("get(7)", "find('x')", "parse_id()", "snapshot_at({})", "apply_version('v1')", "build_delta({})"):
            with pytest.raises(LuaFailed, match="bad argument"):
                await lua(f'return require("registry").{call}')

    async def test_parse_id_splits_at_the_first_colon(self, lua: Lua) -> None:
        source = """
            local parse = require("registry").parse_id
            return {parse("app.lib:a:b"), parse("alone"), parse(":x")}
        """
        assert await lua(source) == [
            {"ns": "app.lib", "name": "a:b"},
            {"ns": "", "name": "alone"},
            {"ns": "", "name": "x"},
        ]

    async def test_a_process_hears_of_a_change_made_elsewhere(self, lua: Lua) -> None:
        source = """
            local events, registry = require("events"), require("registry")
            local sub = events.subscribe("registry", "entry.*")
            process.registry.register("ready")
            local event = sub:channel():receive()
            return {event.kind, event.path, event.data.version, registry.get(event.path).data.n}
        """
        pid = await lua.start(f"local function main() {source} end return {{main = main}}")
        await until(lambda: lua.events.stats().subscribers)
        await lua.registry.commit([Create(Entry("app:new", "registry.entry", {}, {"n": 7}))], "operator")
        assert await lua.result(pid) == ["entry.create", "app:new", 1, 7]

    async def test_a_conflict_names_what_changed(self, lua: Lua) -> None:
        await lua.registry.commit([Create(Entry("app:x", "registry.entry"))], "operator")
        source = """
            local registry = require("registry")
            local stale = registry.snapshot():changes()
            stale:update({id = "app:x", kind = "registry.entry", data = {by = "process"}})
            local events = require("events")
            local sub = events.subscribe("registry", "registry.commit")
            sub:channel():receive()
            local _, err = stale:apply()
            return {err:kind(), err:retryable(), err:details()}
        """
        pid = await lua.start(f"local function main() {source} end return {{main = main}}")
        await until(lambda: lua.events.stats().subscribers)
        await lua.registry.commit([Update(Entry("app:x", "registry.entry", {}, {"by": "operator"}))], "ann", "release")
        kind, retryable, details = await lua.result(pid)
        assert (kind, retryable, details["head"], details["changed"]) == ("Conflict", True, 2, ["app:x"])
        (release,) = details["meanwhile"]
        assert release.pop("time").startswith("20")
        assert release == {
            "version": 2,
            "author": "ann",
            "where": "node node-1",
            "message": "release",
            "entries": ["app:x"],
        }


class TestEvents:
    async def test_patterns_and_order(self, lua: Lua) -> None:
        source = """
            local events = require("events")
            local all = events.subscribe("**")
            local some = events.subscribe("orders", "order.(created|paid)")
            for _, kind in ipairs({"order.created", "order.lost", "order.paid"}) do
                events.send("orders", kind, "/1")
            end
            events.send("users", "order.created", "/2")
            local seen = {}
            for i = 1, 4 do seen[i] = all:channel():receive().kind end
            local first, second = some:channel():receive(), some:channel():receive()
            return {seen, first.kind, second.kind, first.data == nil}
        """
        assert await lua(source) == [
            ["order.created", "order.lost", "order.paid", "order.created"],
            "order.created",
            "order.paid",
            True,
        ]

    async def test_the_subscription_ends_with_its_process(self, lua: Lua) -> None:
        await lua('require("events").subscribe("a") require("events").subscribe("b.*")')
        await until(lambda: not lua.events.stats().subscribers)

    async def test_empty_parts_are_invalid(self, lua: Lua) -> None:
        source = """
            local events = require("events")
            local kinds = {}
            for i, args in ipairs({{"", "k", "p"}, {"s", "", "p"}, {"s", "k", ""}}) do
                local ok, err = events.send(args[1], args[2], args[3])
                kinds[i] = tostring(ok) .. " " .. err:kind()
            end
            local _, err = events.subscribe("")
            local _, bad = events.subscribe("(a")
            return {kinds, err:kind(), bad:kind()}
        """
        assert await lua(source) == [["false Invalid"] * 3, "Invalid", "Invalid"]


class TestStore:
    @pytest.mark.parametrize("id", ["app:counters", "app:shared", "app:copied"])
    async def test_values_come_back_as_they_were(self, lua: Lua, id: str) -> None:
        source = """
            local id = ...
            local s = require("store").get(id)
            local values = {1, 1.5, "text", "\\255\\0", true, {1, 2, 3}, {a = {b = "c"}, [7] = false}, {}}
            local back = {}
            for i, value in ipairs(values) do
                assert(s:set("k" .. i, value))
                back[i] = s:get("k" .. i)
                assert(math.type(back[i]) == math.type(value))
            end
            assert(s:set("no", false))
            assert(s:get("no") == false)
            local value, err = s:get("missing")
            return {back, value == nil, err:kind(), s:info().backend, s:release(), select(2, s:get("k1")):kind()}
        """
        backend = {"app:counters": "memory", "app:shared": "kv.raft", "app:copied": "kv.crdt"}[id]
        back = [1, 1.5, "text", "\udcff\0", True, [1, 2, 3], {"a": {"b": "c"}, 7: False}]
        result = await lua(source, id.encode())
        assert result[0][:7] == back
        assert result[1:] == [True, "NotFound", backend, True, "Invalid"]

    async def test_a_program_can_ask_whether_a_store_has_conditional_writes(self, lua: Lua) -> None:
        source = """
            local store = require("store")
            local s = store.get("app:copied")
            local info = s:info()
            assert(info.backend == store.backend.KV_CRDT and info.consistency == store.consistency.EVENTUAL)
            local entry, err = s:put("k", 1, {only_if_absent = true})
            local put = s:put("k", 1, {ttl = 60})
            assert(s:entry("k").version == put.version)
            return {info.conditional_put, entry == nil, err:kind(), err:retryable(), put.key}
        """
        assert await lua(source) == [False, True, "Invalid", False, "k"]

    async def test_a_counter_kept_by_compare_and_set_loses_no_count(self, lua: Lua) -> None:
        source = """
            local s = require("store").get("app:shared")
            local done = channel.new(4)
            for _ = 1, 4 do
                coroutine.spawn(function()
                    for _ = 1, 10 do
                        while true do
                            local entry = s:entry("count")
                            local options = entry and {if_version = entry.version} or {only_if_absent = true}
                            local _, err = s:put("count", (entry and entry.value or 0) + 1, options)
                            if not err then break end
                            assert(err:kind() == errors.CONFLICT or err:kind() == errors.ALREADY_EXISTS)
                        end
                    end
                    done:send(true)
                end)
            end
            for _ = 1, 4 do done:receive() end
            return s:get("count")
        """
        assert await lua(source) == 40

    async def test_a_former_owner_gets_stale_owner(self, lua: Lua, cluster_name: str) -> None:
        claim = Keys(cluster_name).service("app:counter", 0)
        source = """
            local s = require("store").get("app:shared")
            local inbox = process.inbox()
            assert(s:set("count", 1))
            process.registry.register("owner")
            inbox:receive()
            local ok, err = s:set("count", 2)
            return {ok, err:kind(), err:details().reason, s:get("count")}
        """
        pid = await lua.start(f"local function main() {source} end return {{main = main}}")
        lua.fences[pid] = (claim, await lua.etcd.put(claim, b"node-1"))
        async with asyncio.timeout(5):
            while await lua.stores.find("app:shared").read(b"count") is None:  # type: ignore[union-attr]
                continue
        await lua.etcd.put(claim, b"node-2")
        lua.vm.post([1, pid, b"{node-1@node:test|1-1s}", 0, b"go", [], b"", 0])
        assert await lua.result(pid) == [False, "PermissionDenied", "stale_owner", 1]


class TestIo:
    async def test_in_a_terminal_everything_arrives_in_order(self, lua: Lua) -> None:
        lua.io.terminals.add(1)
        source = """
            local io = require("io")
            io.print("a", nil, 1, 1.5, true, {} ~= nil)
            io.write("b", 2, "\\n")
            io.eprint("c")
            for n = 1, 3000 do io.print("line", n, string.rep("x", 40)) end
            assert(io.flush())
            return io.args()
        """
        assert await lua(source) == ["one", "two words"]
        lines = lua.screen.text.splitlines()
        assert lines[:3] == ["a\tnil\t1\t1.5\ttrue\ttrue", "b2", "c"]
        assert [line.split("\t")[1] for line in lines[3:]] == [str(n) for n in range(1, 3001)]

    async def test_elsewhere_it_is_unavailable(self, lua: Lua) -> None:
        source = """
            local io = require("io")
            local kinds = {}
            for i, name in ipairs({"print", "write", "eprint", "read", "readline", "flush", "raw"}) do
                local ok, err = io[name]("x")
                if name == "read" then ok, err = io.read() end
                kinds[i] = tostring(ok) .. err:kind()
            end
            return kinds
        """
        source = source.replace('io[name]("x")', 'io[name](name ~= "read" and "x" or nil)')
        assert await lua(source) == ["nilUnavailable"] * 7
        assert lua.screen.puts == []


class TestLogger:
    async def test_lines_say_who_logged_and_where(self, lua: Lua) -> None:
        source = """local function main()
            local logger = require("logger")
            logger:info("hello", {n = 1})
            print("a", 2)
            logger:named("auth"):with({user = "alice"}):error("failed")
        end
        return {main = main}"""
        with structlog.testing.capture_logs() as records:
            pid = await lua.start(source)
            await lua.result(pid)
        ours: list[Any] = [record for record in records if record.get("pid") == pid.decode()]
        assert [(record["log_level"], record["event"]) for record in ours] == [
            ("info", "hello"),
            ("info", "a\t2"),
            ("error", "failed"),
        ]
        assert ours[0]["fields"] == {"n": 1}
        assert ours[0]["entry"] == "app:test1"
        assert ours[0]["location"] == "app:test1:3"
        assert (ours[2]["logger"], ours[2]["fields"]) == ("auth", {"user": "alice"})


class TestNames:
    async def test_a_cluster_name_is_registered_looked_up_and_taken_back(self, lua: Lua) -> None:
        source = """
            local names = process.registry
            assert(names.register("lobby", process.pid(), names.CONSISTENT))
            local found = names.lookup("lobby") == process.pid()
            local freed = names.unregister("lobby")
            local _, err = names.lookup("lobby")
            return {found, freed, err:kind()}
        """
        assert await lua(source) == [True, True, "NotFound"]
