from typing import Any

import pytest

from cluster.errors import Problem
from cluster.registry.entry import Entry
from node.kinds import Checker, check_entry, check_state, imported_ids


def lua(name: str, kind: str = "process", source: str = "return {main = function() end}", **data: Any) -> Entry:
    return Entry(f"app:{name}", f"{kind}.lua", {}, {"source": source, **data})


def service(name: str, process: str, host: str = "h", **data: Any) -> Entry:
    return Entry(f"app:{name}", "process.service", {}, {"process": process, "host": host, **data})


HOST = Entry("app:h", "process.host")


def lines(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems]


class TestReferences:
    def test_a_sound_state_has_no_problems(self) -> None:
        entries = [HOST, lua("p", imports={"l": "l"}), lua("l", "library"), service("s", "p"), service("t", "app:p")]
        assert check_state(entries) == []

    def test_missing_and_wrong_targets_are_named_with_suggestions(self) -> None:
        entries = [HOST, lua("worker"), service("a", "workr"), service("b", "h"), service("c", "worker", "host")]
        assert lines(check_state(entries)) == [
            "app:a: process: there is no entry app:workr; expected a process.lua entry; did you mean 'app:worker'?",
            "app:b: process: app:h is of kind process.host; expected a process.lua entry",
            "app:c: host: there is no entry app:host; expected a process.host entry; did you mean 'app:h'?",
        ]

    def test_imports_must_exist_and_be_code(self) -> None:
        entries = [HOST, lua("p", imports={"a": "gone", "b": "h", "j": ":json"})]
        assert [problem.field for problem in check_state(entries)] == ["imports.a", "imports.b"]

    def test_storages_must_be_storages(self) -> None:
        entries = [
            HOST,
            Entry("app:r", "env.storage.router", {}, {"storages": ["h", "gone"]}),
            Entry("app:v", "env.variable", {}, {"storage": "gone"}),
        ]
        assert [(p.entry, p.field) for p in check_state(entries)] == [
            ("app:r", "storages.0"),
            ("app:r", "storages.1"),
            ("app:v", "storage"),
        ]

    def test_required_services_must_be_something_that_starts(self) -> None:
        entries = [HOST, lua("p"), service("s", "p", lifecycle={"requires": ["h", "p"], "depends_on": ["gone"]})]
        assert [problem.field for problem in check_state(entries)] == ["lifecycle.requires.1", "lifecycle.depends_on.0"]

    def test_an_entry_of_a_kind_not_run_yet_counts_as_present(self) -> None:
        entries = [HOST, Entry("app:p", "process.wasm"), service("s", "p")]
        assert [problem.entry for problem in check_state(entries)] == ["app:p"]

    def test_one_wrong_field_does_not_hide_a_missing_reference(self) -> None:
        entries = [HOST, service("s", "gone", lifecycle={"auto_start": "maybe"})]
        assert [problem.field for problem in check_state(entries)] == ["lifecycle.auto_start", "process"]

    def test_a_missing_field_does_not_hide_a_missing_reference(self) -> None:
        entries = [
            lua("p"),
            Entry("app:s", "process.service", {}, {"process": "gone", "lifecycle": {"requires": ["none"]}}),
            Entry("app:r", "env.storage.router", {}, {}),
            Entry("app:c", "process.lua", {}, {"imports": {"l": "lib"}}),
        ]
        found = [f"{problem.entry} {problem.field}" for problem in check_state(entries)]
        assert sorted(found) == [
            "app:c imports.l",
            "app:c source",
            "app:r storages",
            "app:s host",
            "app:s lifecycle.requires.0",
            "app:s process",
        ]

    def test_excused_references_are_not_missed(self) -> None:
        assert Checker().problems([HOST, service("s", "gone")], lambda id: id == "app:gone") == []

    def test_a_reference_that_only_the_environment_knows_is_not_judged(self) -> None:
        variables = [
            Entry("app:os", "env.storage.os"),
            Entry("app:where", "env.variable", {}, {"variable": "HOST", "storage": "os"}),
        ]
        for name in ("HOST", "app:where"):
            assert check_state([HOST, lua("p"), *variables, service("s", "p", f"${{env:{name}}}")]) == []
        found = check_state([HOST, lua("p"), service("s", "p", "${env:HOST|gone}")])
        assert [problem.field for problem in found] == ["host"]

    def test_a_variable_without_default_must_be_declared(self) -> None:
        declared = Entry("app:v", "env.variable", {}, {"variable": "HOST", "storage": "gone"})
        found = check_state([lua("p"), declared, service("s", "p", "${env:HOTS}", input=["${env:A|b} ${env:C}"])])
        assert lines(found) == [
            "app:v: storage: there is no entry app:gone; expected an env.storage entry",
            "app:s: host: there is no variable HOTS; did you mean 'HOST'?; declare it with an env.variable entry, or "
            "give a default",
            "app:s: input.0: there is no variable C; declare it with an env.variable entry, or give a default",
        ]

    def test_a_variable_in_code_or_free_data_need_not_be_declared(self) -> None:
        free = Entry("app:c", "registry.entry", {}, {"url": "${env:NOBODY}"})
        assert check_state([free, lua("p", source='return "${env:NOBODY}"')]) == []

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("${env:A|${env:B|x}}", "a placeholder can't hold another one"),
            ("${env:}", "expected ${env:NAME}"),
            ("${env:A", "expected ${env:NAME}"),
            ("x $${env:A} ${env:B|}", ""),
        ],
    )
    def test_a_malformed_placeholder_is_a_problem_of_its_field(self, text: str, wrong: str) -> None:
        found = check_entry(service("s", "p", "h", input=[text]))
        assert [problem.field for problem in found] == (["input.0"] if wrong else [])
        assert all(problem.message.startswith(wrong) for problem in found)

    def test_a_placeholder_in_a_field_of_code_is_refused(self) -> None:
        found = check_entry(lua("p", method="${env:METHOD|main}", imports={"l": "app:${env:LIB}"}))
        assert [problem.field for problem in found] == ["imports.l", "method"]
        assert found[0].message.startswith("a variable can't stand here")

    def test_references_may_be_written_as_maps(self) -> None:
        parts = service("s", "p")
        parts.data.update(process={"name": "p"}, host={"ns": "app", "name": "h"})
        assert check_state([HOST, lua("p", imports={"j": {"name": "json"}}), parts]) == []
        parts.data.update(host={"ns": "app", "name": "h", "x": 1})
        assert [problem.field for problem in check_state([HOST, lua("p"), parts])] == ["host"]


class TestCircles:
    def test_a_circle_of_imports_is_named_once(self) -> None:
        entries = [
            lua("c", "library", imports={"a": "a"}),
            lua("a", "library", imports={"b": "b"}),
            lua("b", "library", imports={"c": "c"}),
            lua("user", imports={"a": "a"}),
        ]
        assert lines(check_state(entries)) == ["app:a: imports: in a circle: app:a -> app:b -> app:c -> app:a"]

    def test_an_entry_that_imports_itself_is_a_circle(self) -> None:
        found = check_state([lua("a", "library", imports={"me": "a"})])
        assert lines(found) == ["app:a: imports: in a circle: app:a -> app:a"]

    def test_two_ways_to_one_library_are_no_circle(self) -> None:
        entries = [
            lua("top", imports={"l": "left", "r": "right"}),
            lua("left", "library", imports={"b": "bottom"}),
            lua("right", "library", imports={"b": "bottom"}),
            lua("bottom", "library"),
        ]
        assert check_state(entries) == []

    def test_a_long_chain_is_no_problem(self) -> None:
        entries = [lua(f"l{n}", "library", imports={"next": f"l{n + 1}"}) for n in range(3000)]
        assert check_state([*entries, lua("l3000", "library")]) == []

    def test_routers_and_required_services_must_not_circle(self) -> None:
        entries = [
            HOST,
            lua("p"),
            Entry("app:r", "env.storage.router", {}, {"storages": ["r"]}),
            service("s", "p", lifecycle={"requires": ["t"]}),
            service("t", "p", lifecycle={"requires": ["s"]}),
        ]
        assert [(p.entry, p.field) for p in check_state(entries)] == [
            ("app:r", "storages"),
            ("app:s", "lifecycle.requires"),
        ]

    def test_a_circle_over_any_references_is_named_with_all_its_entries(self) -> None:
        entries = [
            Entry("app:file", "env.storage.file", {}, {"file_path": "${env:DIR|data}/settings.env"}),
            Entry("app:both", "env.storage.router", {}, {"storages": ["file"]}),
            Entry("app:dir", "env.variable", {}, {"storage": "both", "variable": "DIR"}),
        ]
        assert lines(check_state(entries)) == ["app:both: in a circle: app:both -> app:file -> app:dir -> app:both"]

    def test_what_applications_read_by_themselves_may_name_each_other(self) -> None:
        entries = [Entry(f"app:{n}", "registry.entry", {"parent": f"app:{m}"}) for n, m in ("ab", "ba")]
        assert check_state(entries) == []


class TestUniqueness:
    def test_two_variables_of_one_name_are_refused(self) -> None:
        storage = Entry("app:m", "env.storage.memory")
        twice = [Entry(f"app:{n}", "env.variable", {}, {"storage": "m", "variable": "PORT"}) for n in "ab"]
        assert lines(check_state([storage, *twice])) == ["app:b: variable: variable PORT is declared by app:a already"]

    def test_two_commands_of_one_name_are_refused(self) -> None:
        meta = {"command": {"name": "go"}}
        entries = [Entry(f"app:{n}", "process.lua", meta, {"source": "return 1"}) for n in "ab"]
        assert lines(check_state(entries)) == ["app:b: meta.command.name: command go is declared by app:a already"]


class TestCode:
    def test_a_syntax_error_has_entry_and_line(self) -> None:
        found = check_entry(lua("p", source="local a = 1\n\nlocal = 2\n"))
        assert [(problem.entry, problem.field, problem.line) for problem in found] == [("app:p", "source", 3)]

    def test_typed_lua_is_lua(self) -> None:
        assert check_entry(lua("p", source="local function f(a: number): string return tostring(a) end return f")) == []

    def test_modules_must_be_known(self) -> None:
        found = check_entry(lua("p", modules=["logger", "loger", "sql", "process"]), modules={"logger"})
        assert lines(found) == [
            "app:p: modules.1: unknown module 'loger'; did you mean 'logger'?",
            "app:p: modules.2: module sql is not supported by this version yet",
        ]

    def test_a_wrong_field_and_a_syntax_error_are_told_together(self) -> None:
        found = check_entry(lua("p", source="x =", method=5, modules=["nope"]), modules=set())
        assert {problem.field for problem in found} == {"source", "method", "modules.0"}

    def test_an_undeclared_require_is_a_warning(self) -> None:
        checker = Checker({"json"})
        entry = lua(
            "p", source='local a = require("json")\nlocal b = require("lib")\nlocal c = require("sql")\nreturn b'
        )
        entry = Entry(entry.id, entry.kind, {}, {**entry.data, "modules": ["json"], "imports": {"lib": "lib"}})
        entries = [entry, lua("lib", "library")]
        assert checker.problems(entries) == []
        assert [(warning.entry, warning.line) for warning in checker.warnings(entries)] == [("app:p", 3)]

    def test_imported_ids_are_full_and_leave_modules_out(self) -> None:
        assert imported_ids(lua("p", imports={"a": "l", "b": "x:l", "j": ":json"})) == {"app:l", "x:l"}
        assert imported_ids(HOST) == imported_ids(lua("p", imports={"a": 5})) == frozenset()


class TestEntries:
    def test_ids_and_values_that_no_registry_takes_are_problems(self) -> None:
        found = check_state([Entry("nonsense", "registry.entry"), Entry("app:x", "registry.entry", {}, {"a": {1, 2}})])
        assert [problem.field for problem in found] == ["id", "data"]

    def test_data_must_be_a_map_of_fields(self) -> None:
        assert lines(check_entry(Entry("app:h", "process.host", {}, [1]))) == [
            "app:h: data: expected a map of fields, got list"
        ]

    def test_a_malformed_command_is_a_problem(self) -> None:
        for command in ("go", {}, {"name": "two words"}, {"name": 5}):
            entry = Entry("app:p", "process.lua", {"command": command}, {"source": "return 1"})
            assert len(check_entry(entry)) == 1


class TestMemory:
    def test_only_what_changed_is_examined_again(self) -> None:
        checker = Checker()
        entries = [lua("a"), lua("b")]
        checker.problems(entries)
        before = checker._known["app:a"]
        checker.problems([entries[0], lua("b", source="return 2")])
        assert checker._known["app:a"] is before
        checker.problems([lua("a"), lua("b")])
        assert checker._known["app:a"] is before
        checker.problems([lua("b")])
        assert "app:a" not in checker._known

    def test_a_change_is_noticed(self) -> None:
        checker = Checker()
        assert checker.problems([lua("a")]) == []
        assert len(checker.problems([lua("a", source="x =")])) == 1
        assert checker.problems([lua("a")]) == []
