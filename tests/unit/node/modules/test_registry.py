"""The registry module: reads without waiting, snapshots that stay, changes whole or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from cluster.errors import Invalid, OutcomeUnknown, RegistryConflict
from cluster.registry import (
    Changeset,
    Entry,
    Operation,
    RegistryState,
    Restored,
    VersionInfo,
    VersionNotFound,
    build_delta,
)
from node.modules.permits import EVERY_NAMESPACE, Permits
from node.modules.registry import RegistryModule


class FakeRegistry:
    """The registry's rules without etcd: states by version, conflicts by entry."""

    def __init__(self, *entries: Entry) -> None:
        self.states = [RegistryState.of(entries, 0)]
        self.authors: list[str] = []
        self.loads = 0
        self.raising: Exception | None = None

    @property
    def state(self) -> RegistryState:
        return self.states[-1]

    async def commit(
        self, operations: Sequence[Operation], author: str = "", message: str = "", base_version: int | None = None
    ) -> VersionInfo:
        if self.raising is not None:
            raise self.raising
        changes = Changeset(tuple(operations))
        base = await self.state_at(self.state.version if base_version is None else base_version)
        if changed := self.state.base_differs_from(base, changes.touched):
            raise RegistryConflict(self.state.version, changed)
        if problems := changes.problems(self.state.base):
            raise Invalid(problems)
        self.authors.append(author)
        self.states.append(self.state.advance(changes, self.state.version + 1))
        return self._info(self.state.version)

    async def versions(self) -> list[VersionInfo]:
        return [self._info(state.version) for state in self.states]

    async def state_at(self, version: int) -> RegistryState:
        self.loads += 1
        if not 0 <= version < len(self.states):
            raise VersionNotFound(version, 0, len(self.states) - 1)
        return self.states[version]

    async def apply_version(
        self, version: int, author: str = "", permit: Callable[[Changeset], None] | None = None
    ) -> Restored:
        target = await self.state_at(version)
        changes = build_delta(self.state.base.values(), target.base.values())
        if permit is not None:
            permit(changes)
        self.states.append(self.state.advance(changes, self.state.version + 1))
        return Restored(self.state.version, version, len(changes), ())

    def _info(self, version: int) -> VersionInfo:
        return VersionInfo(version, "someone", datetime.now(UTC), "", 1)


def tool(name: str, **data: Any) -> Entry:
    return Entry(f"app:tool.{name}", "registry.entry", {"type": "tool", "title": name}, data)


def create(name: str, data: Any = None) -> dict[bytes, Any]:
    entry = {
        b"id": f"app:tool.{name}".encode(),
        b"kind": b"registry.entry",
        b"meta": {b"type": b"tool"},
        b"data": {} if data is None else data,
    }
    return {b"kind": b"entry.create", b"entry": entry}


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry(tool("calc", precision=3), tool("translate"), Entry("other:x", "process.lua"))


@pytest.fixture
async def asker(asking: Any, registry: FakeRegistry) -> Any:
    """Everything may be changed, unless the host's entry says otherwise."""
    return await asking(
        RegistryModule(registry, Permits(lambda id: registry.state.get(id), lambda _: None, EVERY_NAMESPACE))
    )


class TestReading:
    async def test_get_gives_the_entry_at_once(self, asker: Any, vm: Any) -> None:
        asker.start("registry", "get", b"app:tool.calc")
        entry = {
            b"id": b"app:tool.calc",
            b"kind": b"registry.entry",
            b"meta": {b"type": b"tool", b"title": b"calc"},
            b"data": {b"precision": 3},
        }
        assert vm.posted == [[40, 1, None, [entry]]]

    async def test_get_of_an_unknown_id_is_not_found(self, asker: Any) -> None:
        error = await asker.error("registry", "get", b"app:nothing")
        assert (error[b"kind"], error[b"message"]) == (b"NotFound", b"no entry 'app:nothing' in the registry at v0")

    async def test_find_matches_metadata_and_fields(self, asker: Any) -> None:
        for filter, ids in (
            ({b"meta.type": b"tool"}, [b"app:tool.calc", b"app:tool.translate"]),
            ({b".kind": b"process.lua"}, [b"other:x"]),
            ({b"^meta.title": b"tr"}, [b"app:tool.translate"]),
            ({}, [b"app:tool.calc", b"app:tool.translate", b"other:x"]),
            ([], [b"app:tool.calc", b"app:tool.translate", b"other:x"]),
        ):
            found = await asker.value("registry", "find", filter)
            assert [entry[b"id"] for entry in found] == ids

    async def test_a_search_for_a_pattern_is_done_beside_the_loop_and_any_other_at_once(
        self, asker: Any, vm: Any
    ) -> None:
        asker.start("registry", "find", {b"^meta.title": b"tr"})
        assert len(vm.posted) == 1
        asker.start("registry", "find", {b"~meta.title": b"^tr"})
        assert len(vm.posted) == 1
        found = await asker.value("registry", "find", {b"~meta.title": b"^tr"})
        assert [entry[b"id"] for entry in found] == [b"app:tool.translate"]
        error = await asker.error("registry", "find", {b"~meta.title": b"("})
        assert error[b"kind"] == b"Invalid"

    async def test_a_key_without_prefix_is_ignored_with_one_warning_per_entry_and_key(self, asker: Any) -> None:
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                assert len(await asker.value("registry", "find", {b"kind": b"process.lua"})) == 3
        assert [(line["key"], line["use"], line["entry"]) for line in logs] == [
            ("kind", ".kind or meta.kind", "app:main")
        ]

    async def test_a_bad_regular_expression_is_invalid(self, asker: Any) -> None:
        assert (await asker.error("registry", "find", {b"~meta.type": b"("}))[b"kind"] == b"Invalid"


class TestSnapshots:
    async def test_a_snapshot_stays_what_it_was_without_loading_anything(
        self, asker: Any, registry: FakeRegistry
    ) -> None:
        version = await asker.value("registry", "snapshot")
        await asker.value("registry", "apply", [create("weather")], version)
        registry.loads = 0
        assert len(await asker.value("registry", "find", {b"meta.type": b"tool"}, version)) == 2
        assert len(await asker.value("registry", "find", {b"meta.type": b"tool"})) == 3
        assert registry.loads == 0

    async def test_an_older_version_is_loaded_once(self, asker: Any, registry: FakeRegistry) -> None:
        for name in ("a", "b"):
            await asker.value("registry", "apply", [create(name)], registry.state.version)
        registry.loads = 0
        assert await asker.value("registry", "snapshot_at", 1) == 1
        for _ in range(3):
            assert (await asker.error("registry", "get", b"app:tool.b", 1))[b"kind"] == b"NotFound"
        assert registry.loads == 1

    async def test_a_version_that_never_was_is_not_found(self, asker: Any) -> None:
        for fn in ("snapshot_at", "get_version", "apply_version"):
            assert (await asker.error("registry", fn, 7))[b"kind"] == b"NotFound", fn

    @pytest.mark.parametrize("number", [-1, 1.5, True, b"1", None])
    async def test_what_is_no_number_of_a_version_is_invalid(self, asker: Any, number: Any) -> None:
        assert (await asker.error("registry", "snapshot_at", number))[b"kind"] == b"Invalid"


class TestApply:
    async def test_the_next_find_sees_what_was_applied(self, asker: Any, registry: FakeRegistry) -> None:
        assert await asker.value("registry", "apply", [create("weather")], 0) == 1
        assert len(await asker.value("registry", "find", {b"meta.type": b"tool"})) == 3
        assert registry.authors == ["app:main {node-1@app:processes|1-1}"]

    async def test_writers_of_different_entries_both_succeed(self, asker: Any) -> None:
        assert await asker.value("registry", "apply", [create("a")], 0) == 1
        assert await asker.value("registry", "apply", [create("b")], 0) == 2

    async def test_writers_of_one_entry_conflict_and_the_second_learns_what_changed(self, asker: Any) -> None:
        await asker.value("registry", "apply", [create("a")], 0)
        error = await asker.error("registry", "apply", [create("a")], 0)
        assert (error[b"kind"], error[b"retryable"]) == (b"Conflict", True)
        assert error[b"details"] == {b"head": 1, b"changed": [b"app:tool.a"], b"meanwhile": []}

    async def test_a_bad_changeset_changes_nothing_and_lists_every_problem(
        self, asker: Any, registry: FakeRegistry
    ) -> None:
        missing = {b"kind": b"entry.delete", b"entry": {b"id": b"app:gone"}}
        error = await asker.error("registry", "apply", [create("calc"), missing], 0)
        assert error[b"kind"] == b"Invalid"
        assert [problem[b"entry"] for problem in error[b"details"][b"problems"]] == [b"app:tool.calc", b"app:gone"]
        assert registry.state.version == 0

    async def test_an_empty_table_is_empty_data(self, asker: Any, registry: FakeRegistry) -> None:
        await asker.value("registry", "apply", [create("a", data=[])], 0)
        entry = registry.state.get("app:tool.a")
        assert entry is not None
        assert entry.data == {}

    @pytest.mark.parametrize("operations", [[], {}, None, [b"x"], [{b"kind": b"entry.burn", b"entry": {}}]])
    async def test_what_is_no_list_of_operations_is_invalid(self, asker: Any, operations: Any) -> None:
        assert (await asker.error("registry", "apply", operations, 0))[b"kind"] == b"Invalid"

    async def test_an_unknown_outcome_says_so_and_is_not_to_be_retried(
        self, asker: Any, registry: FakeRegistry
    ) -> None:
        registry.raising = OutcomeUnknown("no answer from etcd")
        error = await asker.error("registry", "apply", [create("a")], 0)
        assert (error[b"kind"], error[b"retryable"]) == (b"Timeout", False)
        assert error[b"details"] == {b"outcome": b"unknown"}


def host(*namespaces: str) -> dict[bytes, Any]:
    """An operation that lets the programs of the caller's host change these namespaces."""
    data = {b"registry": {b"write": [each.encode() for each in namespaces]}}
    return {b"kind": b"entry.create", b"entry": {b"id": b"app:processes", b"kind": b"process.host", b"data": data}}


class TestPermits:
    async def test_a_host_without_a_rule_has_that_of_the_node_and_the_refusal_names_both_places(
        self, asking: Any, registry: FakeRegistry
    ) -> None:
        asker = await asking(RegistryModule(registry, Permits(lambda id: registry.state.get(id), lambda _: None, ())))
        with structlog.testing.capture_logs() as logs:
            error = await asker.error("registry", "apply", [create("a")], 0)
        assert (error[b"kind"], error[b"retryable"]) == (b"PermissionDenied", False)
        assert error[b"message"] == (
            b"programs on app:processes may not change app: the entry app:processes has no registry.write, and the"
            b" setting registry.write allows nothing, as is the default with external servers; name the namespace in"
            b" either"
        )
        (line,) = logs
        assert (line["log_level"], line["pid"], line["entry"]) == (
            "warning", "{node-1@app:processes|1-1}", "app:main"
        )  # fmt: skip
        assert (line["host"], line["namespaces"], line["entries"]) == ("app:processes", ["app"], ["app:tool.a"])
        assert registry.state.version == 0

    async def test_the_entry_of_the_host_decides_namespace_by_namespace(
        self, asker: Any, registry: FakeRegistry
    ) -> None:
        await asker.value("registry", "apply", [host("tools.*", "own")], 0)

        def entry(id: bytes) -> dict[bytes, Any]:
            return {b"kind": b"entry.create", b"entry": {b"id": id, b"kind": b"registry.entry"}}

        version = await asker.value("registry", "apply", [entry(b"tools.web:x"), entry(b"own:x")], 1)
        for id in (b"app:x", b"tools:x", b"tools.web.deep:x", b"owner:x"):
            error = await asker.error("registry", "apply", [entry(b"own:y"), entry(id)], version)
            assert error[b"kind"] == b"PermissionDenied", id
            assert b"registry.write of the entry app:processes allows tools.*, own" in error[b"message"]
            assert error[b"details"][b"namespaces"] == [id.partition(b":")[0]]
        assert registry.state.version == version

    async def test_going_back_touches_every_namespace_it_changes(self, asker: Any, registry: FakeRegistry) -> None:
        await asker.value("registry", "apply", [create("a")], 0)
        await asker.value("registry", "apply", [host("tools")], 1)
        error = await asker.error("registry", "apply_version", 0)
        assert (error[b"kind"], error[b"details"][b"namespaces"]) == (b"PermissionDenied", [b"app"])
        assert registry.state.version == 2

    async def test_a_host_whose_entry_can_not_be_used_may_change_nothing(
        self, asker: Any, registry: FakeRegistry
    ) -> None:
        broken = host("app")
        broken[b"entry"][b"data"][b"registry"] = {b"wirte": [b"app"]}
        await asker.value("registry", "apply", [broken], 0)
        error = await asker.error("registry", "apply", [create("a")], 1)
        assert error[b"kind"] == b"PermissionDenied"
        assert b"wirte" in error[b"message"]

    async def test_what_operators_lay_over_entries_is_not_for_programs(
        self, asker: Any, registry: FakeRegistry
    ) -> None:
        overlay = {b"kind": b"overlay", b"id": b"app:tool.calc", b"mapping": {b"precision": 9}, b"mod": 7}
        error = await asker.error("registry", "apply", [overlay], 0)
        assert error[b"kind"] == b"Invalid"
        assert registry.state.version == 0


class TestHistory:
    async def test_versions_lists_the_history_and_apply_version_goes_back(
        self, asker: Any, registry: FakeRegistry
    ) -> None:
        await asker.value("registry", "apply", [create("a")], 0)
        assert await asker.value("registry", "versions") == [0, 1]
        assert await asker.value("registry", "current_version") == 1
        assert await asker.value("registry", "apply_version", 0) == 2
        assert registry.state.get("app:tool.a") is None

    async def test_get_version_knows_what_is_in_the_history(self, asker: Any) -> None:
        await asker.value("registry", "apply", [create("a")], 0)
        assert await asker.value("registry", "get_version", 0) == 0
        assert (await asker.error("registry", "get_version", 2))[b"kind"] == b"NotFound"


async def test_build_delta_lists_deletes_then_what_is_new(asker: Any) -> None:
    def entry(name: bytes, **data: int) -> dict[bytes, Any]:
        fields = {key.encode(): value for key, value in data.items()}
        return {b"id": b"test:" + name, b"kind": b"test", b"meta": {}, b"data": fields}

    before = [entry(b"a"), entry(b"b", x=1), entry(b"c")]
    after = [entry(b"b", x=2), entry(b"c"), entry(b"d")]
    delta = await asker.value("registry", "build_delta", before, after)
    assert [(op[b"kind"], op[b"entry"][b"id"]) for op in delta] == [
        (b"entry.delete", b"test:a"),
        (b"entry.update", b"test:b"),
        (b"entry.create", b"test:d"),
    ]
    assert await asker.value("registry", "build_delta", [], {}) == []
