from pathlib import Path
from typing import Any

import pytest

from cluster.registry.entry import Entry
from node.env import BadName, EnvRegistry, NotFound, PermissionDenied, StorageFailed
from node.kinds import decode


def storage(name: str, kind: str, **data: Any) -> Entry:
    return Entry(f"app:{name}", f"env.storage.{kind}", {}, data)


def variable(name: str, storage: str, **data: Any) -> Entry:
    return Entry(f"app:{name}", "env.variable", {}, {"storage": storage, **data})


def registry(directory: Path, *entries: Entry, **environ: str) -> EnvRegistry:
    found = EnvRegistry(environ, directory)
    assert found.converge(entries) == {}
    return found


class TestGet:
    def test_a_variable_is_found_by_public_name_and_by_id(self, tmp_path: Path) -> None:
        env = registry(tmp_path, storage("os", "os"), variable("port", "os", variable="PORT"), PORT="80")
        assert (env.get("PORT"), env.get("app:port")) == ("80", "80")

    def test_the_default_stands_in_for_a_missing_value(self, tmp_path: Path) -> None:
        env = registry(tmp_path, storage("os", "os"), variable("port", "app:os", variable="PORT", default=8080))
        assert env.get("PORT") == "8080"

    def test_only_declared_variables_of_the_operating_system_are_visible(self, tmp_path: Path) -> None:
        env = registry(tmp_path, storage("os", "os"), SECRET="x")
        with pytest.raises(NotFound, match="not registered"):
            env.get("SECRET")

    def test_a_variable_without_value_is_not_found(self, tmp_path: Path) -> None:
        env = registry(tmp_path, storage("m", "memory"), variable("v", "m", variable="V"))
        with pytest.raises(NotFound, match="no value"):
            env.get("V")
        assert env.lookup("V") is None

    def test_an_empty_name_is_invalid(self, tmp_path: Path) -> None:
        with pytest.raises(BadName) as raised:
            registry(tmp_path).get("")
        assert raised.value.kind == "Invalid"

    def test_a_private_variable_has_no_public_name(self, tmp_path: Path) -> None:
        env = registry(tmp_path, storage("s", "static", values={"key": "v"}), variable("key", "s"))
        assert env.get("app:key") == "v"
        assert env.get_all() == {}
        with pytest.raises(NotFound):
            env.get("key")

    def test_all_lists_public_variables_that_have_a_value(self, tmp_path: Path) -> None:
        env = registry(
            tmp_path,
            storage("m", "memory"),
            variable("a", "m", variable="A", default="1"),
            variable("b", "m", variable="B"),
            variable("c", "gone", variable="C", default="3"),
        )
        assert env.get_all() == {"A": "1"}


class TestSet:
    def test_a_value_set_is_read_back(self, tmp_path: Path) -> None:
        env = registry(tmp_path, storage("m", "memory"), variable("v", "m", variable="V", default="old"))
        env.set("V", "new")
        assert env.get("app:v") == "new"

    @pytest.mark.parametrize("spelling", ["readonly", "read_only"])
    def test_a_read_only_variable_refuses(self, tmp_path: Path, spelling: str) -> None:
        env = registry(tmp_path, storage("m", "memory"), variable("v", "m", variable="V", **{spelling: True}))
        with pytest.raises(PermissionDenied, match="variable V is read only"):
            env.set("V", "x")

    @pytest.mark.parametrize("kind", ["os", "static"])
    def test_a_read_only_storage_refuses(self, tmp_path: Path, kind: str) -> None:
        env = registry(tmp_path, storage("s", kind), variable("v", "s", variable="V"))
        with pytest.raises(PermissionDenied, match="storage app:s is read only"):
            env.set("V", "x")

    def test_a_value_that_is_no_text_is_invalid(self, tmp_path: Path) -> None:
        env = registry(tmp_path, storage("m", "memory"), variable("v", "m", variable="V"))
        with pytest.raises(BadName, match="expected a text"):
            env.set("V", 5)  # type: ignore[arg-type]


class TestFile:
    def test_values_outlive_the_registry(self, tmp_path: Path) -> None:
        entries = (storage("f", "file", file_path="conf/x.env", auto_create=True), variable("v", "f", variable="V"))
        registry(tmp_path, *entries).set("V", "kept")
        assert registry(tmp_path, *entries).get("V") == "kept"
        assert (tmp_path / "conf/x.env").read_text() == "V=kept\n"

    def test_a_missing_file_without_auto_create_is_told_with_the_remedy(self, tmp_path: Path) -> None:
        env = EnvRegistry({}, tmp_path)
        failed = env.converge([storage("f", "file", file_path="x.env"), variable("v", "f", variable="V", default="d")])
        assert "auto_create: true" in failed["app:f"]
        with pytest.raises(NotFound, match="storage app:f"):
            env.get("V")

    def test_a_file_that_can_not_be_written_is_unavailable(self, tmp_path: Path) -> None:
        env = registry(
            tmp_path, storage("f", "file", file_path="d/x.env", auto_create=True), variable("v", "f", variable="V")
        )
        (tmp_path / "d/x.env").unlink()
        (tmp_path / "d/x.env").mkdir()
        with pytest.raises(StorageFailed) as raised:
            env.set("V", "x")
        assert raised.value.kind == "Unavailable"


class TestRouter:
    def test_the_first_hit_is_read_and_the_first_storage_written(self, tmp_path: Path) -> None:
        env = registry(
            tmp_path,
            storage("r", "router", storages=["m", "s", "os"]),
            storage("m", "memory"),
            storage("s", "static", values={"A": "static", "B": "static"}),
            storage("os", "os"),
            variable("a", "r", variable="A"),
            variable("c", "r", variable="C"),
            variable("in_m", "m", variable="B"),
            A="os",
            C="os",
        )
        assert (env.get("A"), env.get("C")) == ("static", "os")
        env.set("A", "written")
        assert env.get("A") == "written"

    def test_a_read_only_first_storage_refuses_writes(self, tmp_path: Path) -> None:
        env = registry(
            tmp_path,
            storage("r", "router", storages=["os", "m"]),
            storage("os", "os"),
            storage("m", "memory"),
            variable("a", "r", variable="A"),
        )
        with pytest.raises(PermissionDenied):
            env.set("A", "x")


class TestConverge:
    def test_values_in_memory_survive_a_change_of_other_entries(self, tmp_path: Path) -> None:
        entries = [storage("m", "memory"), variable("v", "m", variable="V")]
        env = registry(tmp_path, *entries)
        env.set("V", "x")
        assert env.converge([*entries, storage("os", "os")]) == {}
        assert env.get("V") == "x"

    def test_a_variable_that_went_is_gone(self, tmp_path: Path) -> None:
        env = registry(tmp_path, storage("m", "memory"), variable("v", "m", variable="V", default="1"))
        env.converge([storage("m", "memory")])
        assert env.lookup("V") is None

    def test_a_static_storage_shows_its_new_values(self, tmp_path: Path) -> None:
        wanted = variable("v", "s", variable="V")
        env = registry(tmp_path, storage("s", "static", values={"V": "1"}), wanted)
        env.converge([storage("s", "static", values={"V": "2"}), wanted])
        assert env.get("V") == "2"

    def test_a_broken_entry_keeps_its_former_self_and_is_told(self, tmp_path: Path) -> None:
        wanted = variable("v", "s", variable="V")
        env = registry(tmp_path, storage("s", "static", values={"V": "1"}), wanted)
        failed = env.converge([storage("s", "static", valuse={}), wanted])
        assert "did you mean 'values'" in failed["app:s"]
        assert env.get("V") == "1"

    def test_an_entry_may_use_a_variable_declared_beside_it(self, tmp_path: Path) -> None:
        env = registry(
            tmp_path,
            storage("f", "file", file_path="${env:FILE}", auto_create=True),
            storage("os", "os"),
            variable("file", "os", variable="FILE"),
            FILE="given.env",
        )
        assert (tmp_path / "given.env").exists()
        assert env.get("FILE") == "given.env"

    def test_other_kinds_are_no_concern(self, tmp_path: Path) -> None:
        assert EnvRegistry({}, tmp_path).converge([Entry("app:x", "http.service"), Entry("app:y", "nonsense")]) == {}

    def test_placeholders_of_entries_are_resolved_by_it(self, tmp_path: Path) -> None:
        env = registry(tmp_path, storage("os", "os"), variable("n", "os", variable="NS"), NS="orders")
        model = decode(Entry("app:s", "store.kv.raft", {}, {"namespace": "${env:NS}"}), env.lookup)
        assert model.model_dump()["namespace"] == "orders"
