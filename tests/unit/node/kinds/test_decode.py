import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import Invalid
from cluster.registry.entry import Entry
from node.kinds import KINDS, LATER, decode
from node.kinds.hosts import ProcessHost
from node.kinds.lua import Process
from node.kinds.plain import RegistryEntry
from node.kinds.service import ProcessService
from node.kinds.store import MemoryStore


def no_env(_: str) -> str | None:
    return None


def env(**values: str) -> Any:
    return values.get


def refusals(kind: str, data: Any, lookup: Any = no_env) -> list[str]:
    with pytest.raises(Invalid) as raised:
        decode(Entry("app:x", kind, {}, data), lookup)
    return [f"{problem.field}: {problem.message}" for problem in raised.value.problems]


class TestModels:
    def test_a_service_has_the_documented_defaults(self) -> None:
        service = decode(Entry("app:s", "process.service", {}, {"process": "p", "host": "sys:h"}), no_env)
        assert isinstance(service, ProcessService)
        assert (service.process, service.host, service.input) == ("app:p", "sys:h", [])
        life = service.lifecycle
        assert (life.auto_start, life.startup) == (False, "required")
        assert (life.start_timeout, life.stop_timeout, life.stable_threshold) == (
            timedelta(seconds=10),
            timedelta(seconds=10),
            timedelta(seconds=5),
        )
        restart = life.restart
        assert (restart.initial_delay, restart.max_delay) == (timedelta(seconds=1), timedelta(seconds=90))
        assert (restart.backoff_factor, restart.jitter, restart.max_attempts) == (2.0, 0.1, 0)
        placement = service.placement
        assert (placement.mode, placement.replicas, placement.on_lease_loss) == ("cluster", 1, "stop")

    def test_requirements_old_and_new_count_once_each_as_full_ids(self) -> None:
        data = {"process": "p", "host": "h", "lifecycle": {"requires": ["a", "b"], "depends_on": ["b", "x:c"]}}
        service = decode(Entry("app:s", "process.service", {}, data), no_env)
        assert isinstance(service, ProcessService)
        assert service.lifecycle.required == ("app:a", "app:b", "x:c")

    def test_imports_of_entries_become_full_ids_and_of_modules_stay(self) -> None:
        data = {"source": "return 1", "imports": {"a": "lib", "b": "x:lib", "j": ":json"}}
        process = decode(Entry("app:p", "process.lua", {}, data), no_env)
        assert isinstance(process, Process)
        assert process.imports == {"a": "app:lib", "b": "x:lib", "j": ":json"}
        assert process.method == "main"

    def test_a_host_takes_the_originals_sizes(self) -> None:
        host = decode(Entry("app:h", "process.host", {}, {"host": {"workers": 32, "queue_size": 4096}}), no_env)
        assert isinstance(host, ProcessHost)
        assert (host.host.workers, host.host.queue_size, host.host.local_queue_size) == (32, 4096, 256)

    @pytest.mark.parametrize("data", [{"id": 1, "source": "${not_code", "nested": {"x": [1]}}, {}, [1, 2], "text"])
    def test_a_registry_entry_is_of_any_shape(self, data: Any) -> None:
        model = decode(Entry("app:x", "registry.entry", {}, data), no_env)
        assert isinstance(model, RegistryEntry)
        assert model.data == data

    def test_every_kind_refuses_unknown_fields_but_the_free_form_one(self) -> None:
        for kind in KINDS.values():
            if not kind.model.free_form:
                assert kind.model.model_config["extra"] == "forbid"

    def test_no_kind_is_both_run_and_not_yet_run(self) -> None:
        assert not KINDS.keys() & LATER


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "data", "message"),
        [
            ("process.lua", {}, "source: is required and missing"),
            ("process.lua", {"source": ""}, "source: expected at least one character, got ''"),
            ("process.lua", {"source": 5}, "source: expected a valid string, got 5"),
            ("process.lua", {"source": "x", "imports": ["a"]}, "imports: expected a map of fields, got ['a']"),
            ("process.lua", {"source": "x", "pool": {"size": True}}, "pool.size: expected a number, got true"),
            ("store.memory", {"max_size": True}, "max_size: expected a number, got true"),
            ("store.memory", {"max_size": 1.5}, "max_size: expected an integer, got 1.5"),
            ("store.memory", {"max_size": [1]}, "max_size: expected an integer, got [1]"),
            ("store.memory", {"max_size": None}, "max_size: expected an integer, got None"),
            ("process.host", {"host": {"workers": False}}, "host.workers: expected a number, got false"),
            (
                "process.host",
                {"lifecycle": {"auto_start": "maybe"}},
                "lifecycle.auto_start: expected true or false, got 'maybe'",
            ),
            (
                "process.host",
                {"lifecycle": {"restart": {"jitter": True}}},
                "lifecycle.restart.jitter: expected a number",
            ),
            ("env.storage.file", {"file_path": "x", "dir_mode": True}, "dir_mode: expected permissions such as"),
            ("store.kv.raft", {"namespace": "a" * 129}, "namespace: expected at most 128 characters"),
            ("process.lua", {"source": "x", "modules": "json"}, "modules: expected a valid list, got 'json'"),
            ("process.lua", {"source": "x", "module": []}, "module: unknown field 'module'; did you mean 'modules'?"),
            ("process.lua", {"source": "x", "imports": {"a": "b c"}}, "imports.a: name 'b c'"),
            ("process.lua", {"source": "x", "imports": {"a": ":"}}, "imports.a: expected an entry id or :module"),
            ("process.service", {"process": "p"}, "host: is required and missing"),
            ("process.service", {"process": "p", "host": "node:control"}, "host: node:control is the node itself"),
            ("process.host", {"host": {"workers": 0}}, "host.workers: expected at least 1, got 0"),
            ("process.host", {"lifecycle": {"stop_timeout": "5"}}, "lifecycle.stop_timeout: expected a duration"),
            (
                "process.host",
                {"lifecycle": {"stop_timeout": "0s"}},
                "lifecycle.stop_timeout: expected a duration above",
            ),
            ("process.host", {"lifecycle": []}, "lifecycle: expected a map of fields, got []"),
            ("process.host", {"lifecycle": {"restart": {"delay": "1s"}}}, "lifecycle.restart.delay: unknown field"),
            (
                "process.host",
                {"lifecycle": {"restart": {"initial_delay": "2h"}}},
                "lifecycle.restart: expected max_delay",
            ),
            ("store.kv.raft", {"namespace": "_x"}, "namespace: expected a text that matches"),
            ("store.kv.crdt", {"namespace": "Sess"}, "namespace: expected a text that matches"),
            ("store.kv.crdt", {}, "namespace: is required and missing"),
            ("store.kv.crdt", {"namespace": "s", "durable": "often"}, "durable: expected true or false, got 'often'"),
            ("store.kv.crdt", {"namespace": "s", "max_size": 0}, "max_size: expected at least 1, got 0"),
            ("store.kv.crdt", {"namespace": "s", "max_bytes": "64 pounds"}, "max_bytes: "),
            ("env.variable", {"storage": "s", "variable": "A-B"}, "variable: expected letters"),
            ("env.storage.file", {"file_path": "x", "file_mode": "rw"}, "file_mode: expected an integer, got 'rw'"),
            ("env.storage.router", {"storages": []}, "storages: expected at least one item, got []"),
            ("ns.dependency", {"component": "wippy"}, "component: expected organization/module"),
        ],
    )
    def test_a_wrong_field_is_named_with_what_was_expected(self, kind: str, data: Any, message: str) -> None:
        lines = refusals(kind, data)
        assert len(lines) == 1
        assert lines[0].startswith(message)

    def test_every_node_takes_no_replicas(self) -> None:
        placement = {"mode": "every_node", "replicas": 3}
        assert refusals("process.service", {"process": "p", "host": "h", "placement": placement}) == [
            "placement: replicas needs mode: cluster; every_node runs exactly one on each node"
        ]

    def test_all_wrong_fields_are_told_at_once(self) -> None:
        data = {"proces": "p", "host": 5, "lifecycle": {"auto_start": "maybe"}}
        assert len(refusals("process.service", data)) == 4

    def test_a_kind_not_run_yet_and_an_unknown_one_are_told_apart(self) -> None:
        assert refusals("http.service", {}) == ["kind: kind http.service is not supported by this version yet"]
        assert refusals("proces.lua", {}) == ["kind: unknown kind 'proces.lua'; did you mean 'process.lua'?"]


class TestPlaceholders:
    def test_values_come_from_the_env_registry_and_defaults_stand_in(self) -> None:
        data = {"namespace": "a-${env:NS}-${env:app:stage|dev}-${ZONE|x}"}
        store = decode(Entry("app:x", "store.kv.raft", {}, data), env(NS="b", ZONE="z"))
        assert store.model_dump()["namespace"] == "a-b-dev-z"

    @pytest.mark.parametrize("values", [{}, {"SIZE": "64"}])
    def test_a_whole_placeholder_takes_the_type_of_its_default(self, values: dict[str, str]) -> None:
        store = decode(Entry("app:x", "store.memory", {}, {"max_size": "${env:SIZE|64}"}), env(**values))
        assert isinstance(store, MemoryStore)
        assert store.max_size == 64

    def test_a_value_of_another_type_than_the_default_is_refused_without_showing_it(self) -> None:
        lines = refusals("store.memory", {"max_size": "${env:SIZE|64}"}, env(SIZE="hunter2"))
        assert lines == ["max_size: expected variable SIZE to hold a whole number, as its default does"]

    def test_a_variable_without_value_and_default_is_refused_once(self) -> None:
        lines = refusals("store.kv.raft", {"namespace": "${env:NS}"})
        assert lines == ["namespace: variable NS has no value; set it, or give a default: ${env:NS|...}"]

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("$${env:X}", "${env:X}"),
            ("${VAR}", "${VAR}"),
            ("${lower|x}", "${lower|x}"),
            ("${env:E|}", ""),
            ("${env:T|true}", True),
            ("${env:F|0.5}", 0.5),
            ("${env:EMPTY|7}x", "x"),
        ],
    )
    def test_escapes_and_foreign_spans_are_left_alone(self, text: str, value: object) -> None:
        model = decode(Entry("app:x", "registry.entry", {}, {"a": [text]}), env(EMPTY=""))
        assert isinstance(model, RegistryEntry)
        assert model.data == {"a": [value]}

    def test_code_is_never_touched(self) -> None:
        source = 'return "${env:HOME|x}"'
        process = decode(Entry("app:x", "process.lua", {}, {"source": source}), env(HOME="/home/me"))
        assert isinstance(process, Process)
        assert process.source == source

    def test_the_entry_keeps_the_placeholder(self) -> None:
        entry = Entry("app:x", "store.kv.raft", {}, {"namespace": "${env:NS}"})
        decode(entry, env(NS="secret"))
        assert entry.data == {"namespace": "${env:NS}"}

    def test_the_older_form_resolves_and_falls_back_to_the_field(self) -> None:
        data = {"namespace": "given", "namespace_env": "NS"}
        entry = Entry("app:x", "store.kv.raft", {}, data)
        found = [decode(entry, env(**each)).model_dump()["namespace"] for each in ({"NS": "found"}, {"NS": ""}, {})]
        assert found == ["found", "given", "given"]

    def test_the_older_form_alone_without_value_is_refused(self) -> None:
        assert "not registered" in refusals("store.kv.raft", {"namespace_env": "NS"})[0]


def test_the_documented_rule_of_a_host_says_what_its_programs_may_change() -> None:
    page = (Path(__file__).parents[4] / "docs" / "live-change.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    ((name, kind, data),) = [(each.pop("name"), each.pop("kind"), each) for each in yaml.safe_load(text)]
    host = decode(Entry(f"app:{name}", kind, {}, data), lambda _: None)
    assert isinstance(host, ProcessHost)
    assert host.registry.write == ["app", "tools.*"]


@pytest.mark.parametrize("pattern", ["", "a*b", "tools.(x"])
def test_a_rule_that_is_no_pattern_is_refused_with_its_place(pattern: str) -> None:
    with pytest.raises(Invalid, match="write"):
        decode(Entry("app:h", "process.host", {}, {"registry": {"write": [pattern]}}), lambda _: None)
