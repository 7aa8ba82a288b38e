"""What is typed behind a verb."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cluster.configuration import Setting
from cluster.registry.changeset import Changeset, Create
from cluster.registry.entry import Entry, Origin
from cluster.registry.state import EMPTY, RegistryState
from node.cli import config, suggestions
from node.cli.children import how_it_ended
from node.cli.failures import Failed
from node.cli.foreground import log_level
from node.cli.gateway import json_argument, seconds
from node.cli.registry import opening, pushing
from node.cli.run import place_app


@pytest.mark.parametrize(("text", "value"), [("5s", 5.0), ("500ms", 0.5), ("1m", 60.0), ("2", 2.0), ("0.5", 0.5)])
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "0s", "-1s"])
def test_durations_that_make_no_sense_are_wrong_usage(text: str) -> None:
    with pytest.raises(Failed) as failed:
        seconds(text)
    assert failed.value.code == 2


def test_json_values() -> None:
    assert json_argument('{"n": 1}') == {"n": 1}
    with pytest.raises(Failed, match="expected JSON"):
        json_argument("n: 1")


class TestPlacesOfJson:
    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "payload.json").write_text('{"n": "\u00e9"}')
        assert json_argument(f"@{tmp_path / 'payload.json'}") == {"n": "\u00e9"}

    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[1, 2]")))
        assert json_argument("-") == [1, 2]

    @pytest.mark.parametrize("content", [None, b"\xff", b"{n"])
    def test_one_that_can_not_be_read_is_wrong_usage(self, tmp_path: Path, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / "payload.json").write_bytes(content)
        with pytest.raises(Failed, match="expected JSON") as failed:
            json_argument(f"@{tmp_path / 'payload.json'}")
        assert failed.value.code == 2


class TestDeletions:
    def entries(self, count: int, origin: Origin = Origin.FILES) -> list[Entry]:
        return [Entry(f"app:{n}", "registry.entry", origin=origin) for n in range(count)]

    def state(self, count: int, origin: Origin = Origin.FILES) -> RegistryState:
        return EMPTY.advance(Changeset(tuple(Create(entry) for entry in self.entries(count, origin))), 0)

    @pytest.mark.parametrize(("before", "after"), [(11, 0), (4, 1), (5, 2), (3, 0)])
    def test_more_than_half_is_too_much(self, before: int, after: int) -> None:
        with pytest.raises(pushing.TooManyDeletions, match=f"would delete {before - after} of {before} entries"):
            pushing.check_deletions(self.state(before), self.entries(after))

    @pytest.mark.parametrize(("before", "after"), [(2, 0), (6, 3), (11, 11), (0, 5)])
    def test_less_is_not(self, before: int, after: int) -> None:
        pushing.check_deletions(self.state(before), self.entries(after))

    def test_entries_made_at_run_time_are_not_the_files(self) -> None:
        pushing.check_deletions(self.state(9, Origin.RUNTIME), [])


def test_code_with_unknown_modules_is_refused_as_a_node_does() -> None:
    code = {"source": "return {}", "method": "main", "modules": ["loger"]}
    state = EMPTY.advance(Changeset((Create(Entry("app:a", "process.lua", data=code)),)), 0)
    assert ["unknown module 'loger'" in problem.message for problem in opening.check(state)] == [True]


@pytest.mark.parametrize(
    ("level", "silent", "shown"), [("warn", False, "warning"), ("debug", False, "debug"), ("debug", True, "error")]
)
def test_a_silent_node_shows_errors(level: str, silent: bool, shown: str) -> None:
    assert log_level(level, silent) == shown


class TestRun:
    @pytest.fixture(autouse=True)
    def _project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "shop").mkdir()
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("run", "run"),
            ("run shop", "run --app shop"),
            ("run shop -x app:cli 3", "run --app shop -x app:cli 3"),
            ("run --node a shop --set b=c", "run --app shop --node a --set b=c"),
            ("run hello shop", "run hello shop"),
            ("run -x app:cli shop", "run -x app:cli shop"),
            ("run shop hello --loud", "run --app shop hello --loud"),
            ("up shop", "up shop"),
        ],
    )
    def test_a_directory_is_the_application(self, typed: str, meant: str) -> None:
        assert place_app(typed.split()) == meant.split()


def setting(raw: bytes | None) -> Setting:
    return Setting("app:limits", raw, 7, None)


class TestConfig:
    def test_json_replaces_the_whole(self) -> None:
        assert config._overlay(setting(b'{"a": 1}'), ['{"b": 2}']) == {"b": 2}

    def test_paths_change_single_values(self) -> None:
        changed = config._overlay(
            setting(b'{"a": 1, "deep": {"x": 1}}'), ["deep.y=2", "rate=5", "name=slow down", "on=true"]
        )
        assert changed == {"a": 1, "deep": {"x": 1, "y": 2}, "rate": 5, "name": "slow down", "on": True}

    def test_a_path_goes_through_what_was_no_mapping(self) -> None:
        assert config._overlay(setting(b'{"a": 1}'), ["a.b=2"]) == {"a": {"b": 2}}

    @pytest.mark.parametrize("typed", ["rate", "=5"])
    def test_what_is_neither_is_wrong_usage(self, typed: str) -> None:
        with pytest.raises(Failed) as failed:
            config._overlay(setting(None), [typed])
        assert failed.value.code == 2

    def test_an_overlay_that_is_no_json_is_not_touched(self) -> None:
        with pytest.raises(Failed, match="is not JSON"):
            config._overlay(setting(b"rate: 5"), ["rate=6"])

    def test_single_values_are_removed(self) -> None:
        mapping: dict[str, Any] = {"a": {"b": 1, "c": None}}
        assert config._remove(mapping, ["a", "c"])
        assert not config._remove(mapping, ["a", "x", "y"])
        assert mapping == {"a": {"b": 1}}


@pytest.mark.parametrize(("text", "number"), [("v3", 3), ("0", 0)])
def test_versions(text: str, number: int) -> None:
    assert opening.version_number(text) == number


@pytest.mark.parametrize("text", ["", "v", "latest", "-1"])
def test_versions_that_are_none(text: str) -> None:
    with pytest.raises(Failed, match="expected a version"):
        opening.version_number(text)


@pytest.mark.parametrize(
    ("code", "words"), [(0, "ended with code 0"), (-9, "was ended by SIGKILL"), (-200, "was ended by signal 200")]
)
def test_ends_in_words(code: int, words: str) -> None:
    assert how_it_ended(code) == words


class TestSuggestions:
    NODES = (
        {"name": "node-1", "pid": 11, "metrics": "http://127.0.0.1:9464/metrics"},
        {"name": "node-2", "pid": 12, "metrics": "http://127.0.0.1:9465/metrics"},
    )
    TRIES = (
        {"says": "change", "command": "config set app:limits '{\"rate\": 5}'"},
        {"says": "call", "command": "call worker@<last-node> work"},
    )
    NAMES: ClassVar = {"counter": "{node-2@app:processes|1-2}", "worker@node-1": "{node-1@app:processes|1-2}"}

    def test_five_commands_with_the_full_path_of_wippy(self) -> None:
        found = suggestions.suggestions(self.TRIES, self.NODES, self.NAMES)
        wippy = suggestions.wippy_command()
        assert wippy.startswith(("/", "'/"))
        assert [each.command for each in found if "curl" not in each.command and "webbrowser" not in each.command] == [
            f"{wippy} call worker@node-2 work",
            f"{wippy} config set app:limits '{{\"rate\": 5}}'",
            "kill -9 12",
            f"{wippy} ps",
        ]
        assert "http://127.0.0.1:9464/metrics" in found[1].command

    def test_the_node_to_kill_is_the_one_that_runs_what_the_cluster_has_once(self) -> None:
        (kill,) = [each for each in suggestions.suggestions((), self.NODES, self.NAMES) if "kill -9" in each.command]
        assert 'kill node-2, which runs "counter"' in kill.says

    def test_without_names_it_is_the_last_node(self) -> None:
        (kill,) = [each for each in suggestions.suggestions((), self.NODES, {}) if "kill -9" in each.command]
        assert kill.command == "kill -9 12"


def test_the_executable_is_the_one_of_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "wippy").touch()
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    assert suggestions.wippy_command() == f"'{folder / 'wippy'}'"
