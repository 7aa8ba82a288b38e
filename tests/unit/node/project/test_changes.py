import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Invalid
from node.project import load_project
from node.settings import Settings, load_settings

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

    def test_lists_and_maps_are_set_as_json_and_what_is_none_is_a_text(self, root: Path) -> None:
        entries = load(
            root,
            'app:conf:items=["a", {"b": 1.5}]',
            'app:conf:deep={"x": null}',
            "app:conf:pattern=[a-z]+",
            "app:conf:open={",
            "app:service:input=[1, true]",
        )
        data = entries["app:conf"].data
        assert data == {"items": ["a", {"b": 1.5}], "deep": {"x": None}, "pattern": "[a-z]+", "open": "{"}
        assert entries["app:service"].data["input"] == [1, True]

    def test_the_section_sets_lists_maps_and_null(self, root: Path) -> None:
        section = {"app:conf:items": [1, [2]], "app:conf:deep": {"er": {"list": []}}, "app:conf:none": None}
        data = load(root, override=section)["app:conf"].data
        assert data == {"items": [1, [2]], "deep": {"er": {"list": []}}, "none": None}

    def test_a_key_that_holds_dots_is_found_as_a_whole(self, project: Write) -> None:
        text = "namespace: a\nname: x\nkind: registry.entry\nmeta: {mcp.tool: false}\noptions: {allow.origins: no}\n"
        entry = load(project({"src/_index.yaml": text}), "a:x:meta.mcp.tool=true", "a:x:options.allow.origins=all")[
            "a:x"
        ]
        assert entry.meta == {"mcp.tool": True}
        assert entry.data == {"options": {"allow.origins": "all"}}

    def test_a_file_in_an_override_is_read_from_where_the_entry_stands(self, root: Path, project: Write) -> None:
        project({"src/other.lua": "return 2", "src/bad.lua": "x =\n\n= 1"})
        assert load(root, "app:code:source=file://other.lua")["app:code"].data["source"] == "return 2"
        section = {"app:code:source": "file://other.lua"}
        assert load(root, override=section)["app:code"].data["source"] == "return 2"
        assert load(root, "app:conf:link=file://other.lua")["app:conf"].data["link"] == "file://other.lua"
        (line,) = refused(root, "app:code:source=file://none.lua")
        assert line == "-o app:code:source: app:code: source: there is no file none.lua"
        (line,) = refused(root, "app:code:source=file://../../x.lua")
        assert "leads outside of app" in line
        (line,) = refused(root, "app:code:source=file://bad.lua")
        assert line.startswith("src/bad.lua:3: app:code: source: ")

    def test_lua_in_an_override_that_is_wrong_is_placed_at_the_override(self, root: Path) -> None:
        (line,) = refused(root, "app:code:source=return return")
        assert line.startswith("-o app:code:source: app:code: source: ")

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
            ("app:conf:data={}", "data can't be replaced as a whole"),
            ("app:conf:meta=x", "meta can't be replaced as a whole"),
            ("app:conf:name=x", "name can't be changed"),
            ("app:host:host=[1]", "host: expected a map of fields"),
            ("app:host:kind=5", "expected a kind"),
            ("app:host:kind=nothing", "unknown kind"),
            ("app:host:host.workers=none", "host.workers: expected an integer, got 'none'"),
        ],
    )
    def test_what_can_not_be_done_is_said_with_the_option(self, root: Path, override: str, message: str) -> None:
        (line,) = refused(root, override)
        assert line.startswith(f"-o {override.partition('=')[0]}: ")
        assert message in line

    def test_an_override_of_a_file_is_placed_there(self, root: Path, project: Write) -> None:
        more = {"more.yaml": "override:\n  app:gone:x: 1\n  app:host:host.workers: none\n"}
        project({".wippy.yaml": "override:\n\n  app:conf: 5\n  app:host:host.workers: none\n", **more})
        files = [root / ".wippy.yaml", root / "more.yaml"]
        settings = load_settings(root, files=files, sets=["override.app:none:a.b=1"])
        with pytest.raises(Invalid) as raised:
            load_project(root, settings=settings)
        assert [str(problem).partition(": ")[0] for problem in raised.value.problems] == [
            "--set override.app:none:a.b",
            ".wippy.yaml:3",
            "more.yaml:2",
            "more.yaml:3",
        ]


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
            ({"namespaces": ["**.legacy.**.a"]}, {"app:h", "legacy:h", "legacy.a.b:h"}),
            ({"namespaces": ["leg*"]}, {"app:h", "legacy.a:h", "legacy.a.b:h"}),
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

    @pytest.mark.parametrize(
        ("disable", "message"),
        [
            ({"namespaces": ["app:host"]}, "expected patterns of namespaces such as legacy.**, got 'app:host'"),
            ({"entries": ["app.host"]}, "expected patterns of ids such as app:test*, got 'app.host'"),
            ({"entries": ["app:"]}, "expected patterns of ids"),
        ],
    )
    def test_a_pattern_that_could_meet_nothing_is_refused(self, disable: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            Settings.model_validate({"disable": disable})

    def test_a_reference_to_a_disabled_entry_is_missing(self, root: Path) -> None:
        (line,) = refused(root, disable={"entries": ["app:code"]})
        assert "app:service: process: there is no entry app:code" in line

    def test_overrides_come_before_disabling(self, root: Path) -> None:
        assert "app:conf" not in load(root, "app:conf:meta.off=true", disable={"meta": {"off": True}})
