from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Invalid
from node.project import load_project
from node.settings import Settings

Write = Callable[[dict[str, str | bytes]], Path]

INDEX = """\
namespace: app
entries:
  - {name: host, kind: process.host}
  - {name: code, kind: process.lua, source: return 1}
  - name: service
    kind: process.service
    meta: {tags: [a, b], type: main}
    process: code
    host: host
  - {name: conf, kind: registry.entry, items: [1, 2], deep: {er: {value: 1}}}
"""


def load(root: Path, *overrides: str, **settings: Any) -> dict[str, Any]:
    found = load_project(root, overrides=overrides, settings=Settings.model_validate(settings))
    return {entry.id: entry for entry in found.entries}


def refused(root: Path, *overrides: str, **settings: Any) -> list[str]:
    with pytest.raises(Invalid) as raised:
        load(root, *overrides, **settings)
    return [str(problem) for problem in raised.value.problems]


@pytest.fixture
def root(project: Write) -> Path:
    return project({"src/_index.yaml": INDEX})


class TestOverrides:
    def test_fields_of_data_and_meta_and_the_kind_are_set(self, root: Path) -> None:
        entries = load(
            root,
            "app:conf:deep.er.value=2",
            "app:conf:data.kind=custom",
            "app:conf:new.path=true",
            "app:conf:items.1=0.5",
            "app:service:meta.type=other",
            "app:host:kind=terminal.host",
        )
        assert entries["app:conf"].data == {
            "items": [1, 0.5],
            "deep": {"er": {"value": 2}},
            "kind": "custom",
            "new": {"path": True},
        }
        assert entries["app:service"].meta["type"] == "other"
        assert entries["app:host"].kind == "terminal.host"

    def test_the_section_keeps_types_and_the_command_line_wins(self, root: Path) -> None:
        section = {"app:conf:items": ["x"], "app:conf:text": "7"}
        assert load(root, override=section)["app:conf"].data["text"] == "7"
        entries = load(root, "app:conf:text=8", override=section)
        assert entries["app:conf"].data["items"] == ["x"]
        assert entries["app:conf"].data["text"] == 8

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("app:cnf:x=1", "there is no entry app:cnf; did you mean 'app:conf'?"),
            ("app:conf=1", "expected namespace:entry:path"),
            ("app:conf:x", "expected namespace:entry:path"),
            ("app:conf:items.7=1", "expected a position below 2"),
            ("app:conf:items.x=1", "expected a position below 2"),
            ("app:conf:deep.er.value.x=1", "holds no fields"),
            ("app:conf:a..b=1", "expected a path"),
            ("app:host:kind=5", "expected a kind"),
            ("app:host:kind=nothing", "unknown kind"),
            ("app:host:host.workers=none", "host.workers: expected a valid integer"),
        ],
    )
    def test_what_can_not_be_done_is_said_with_the_option(self, root: Path, override: str, message: str) -> None:
        (line,) = refused(root, override)
        assert line.startswith(f"-o {override.partition('=')[0]}: ")
        assert message in line


class TestOwnSettings:
    def test_without_settings_those_of_the_directory_hold(self, project: Write) -> None:
        text = "override: {'app:conf:x': 1}\ndisable: {entries: ['app:service']}\n"
        root = project({"src/_index.yaml": INDEX, ".wippy.yaml": text})
        entries = {entry.id: entry for entry in load_project(root).entries}
        assert entries["app:conf"].data["x"] == 1
        assert "app:service" not in entries


class TestDisable:
    @pytest.mark.parametrize(
        ("disable", "left"),
        [
            ({"namespaces": ["app"]}, {"legacy:h", "legacy.a:h", "legacy.a.b:h"}),
            ({"namespaces": ["legacy.*"]}, {"app:h", "legacy:h", "legacy.a.b:h"}),
            ({"namespaces": ["legacy.**"]}, {"app:h"}),
            ({"namespaces": ["**.b"]}, {"app:h", "legacy:h", "legacy.a:h"}),
            ({"namespaces": ["**"]}, set()),
            ({"entries": ["legacy.**:h"]}, {"app:h"}),
            ({"entries": ["*:x*"]}, {"app:h", "legacy:h", "legacy.a:h", "legacy.a.b:h"}),
            ({"meta": {"type": ["old", "older"]}}, {"app:h", "legacy:h", "legacy.a.b:h"}),
            ({"meta": {"tags": "beta"}}, {"app:h", "legacy:h", "legacy.a:h"}),
        ],
    )
    def test_patterns_leave_entries_out(self, project: Write, disable: dict[str, Any], left: set[str]) -> None:
        extra = {"legacy.a": "meta: {type: old}\n", "legacy.a.b": "meta: {tags: [beta]}\n"}
        root = project(
            {
                f"src/{name}.yaml": f"namespace: {name}\nname: h\nkind: process.host\n{extra.get(name, '')}"
                for name in ("app", "legacy", "legacy.a", "legacy.a.b")
            }
        )
        assert set(load(root, disable=disable)) == left

    def test_a_reference_to_a_disabled_entry_is_missing(self, root: Path) -> None:
        (line,) = refused(root, disable={"entries": ["app:code"]})
        assert "app:service: process: there is no entry app:code" in line

    def test_overrides_come_before_disabling(self, root: Path) -> None:
        assert "app:conf" not in load(root, "app:conf:meta.off=true", disable={"meta": {"off": True}})
