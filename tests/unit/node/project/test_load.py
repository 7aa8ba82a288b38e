import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Invalid, Problem
from cluster.registry.entry import Origin
from node.project import Project, load_project

Write = Callable[[dict[str, str | bytes]], Path]

INDEX = "src/_index.yaml"
LUA = "return {main = function() end}\n"


def refused(root: Path, *overrides: str, **options: object) -> list[str]:
    with pytest.raises(Invalid) as raised:
        load_project(root, overrides=overrides, **options)  # type: ignore[arg-type]
    return [str(problem) for problem in raised.value.problems]


def only(root: Path, *overrides: str) -> str:
    lines = refused(root, *overrides)
    assert len(lines) == 1, lines
    return lines[0]


def ids(project: Project) -> list[str]:
    return [entry.id for entry in project.entries]


class TestFiles:
    def test_entries_of_all_files_below_src_are_read(self, project: Write) -> None:
        root = project(
            {
                INDEX: "version: '1.0'\nnamespace: app\nentries:\n  - {name: h, kind: process.host}\n",
                "src/deep/er/one.yaml": "namespace: app.deep\nname: one\nkind: registry.entry\nmeta: {a: b}\nx: 1\n",
                "src/values.yaml": "replicas: 3\nsome: {thing: else}\n",
                "src/.hidden/_index.yaml": "namespace: no\nentries: [{name: x, kind: y}]\n",
                "src/node_modules/a.yaml": "namespace: no\nentries: [{name: x, kind: y}]\n",
                "src/notes.txt": "namespace: no",
            }
        )
        loaded = load_project(root)
        assert ids(loaded) == ["app:h", "app.deep:one"]
        assert (loaded.entries[1].meta, loaded.entries[1].data) == ({"a": "b"}, {"x": 1})
        assert {entry.origin for entry in loaded.entries} == {Origin.FILES}
        assert loaded.directories == (root / "src",)

    def test_entries_may_be_empty(self, project: Write) -> None:
        assert ids(load_project(project({INDEX: "namespace: app\nentries:\n"}))) == []

    def test_a_directory_with_definitions_and_no_src_is_itself_the_source(self, project: Write) -> None:
        root = project({"_index.yaml": "namespace: app\nentries: [{name: h, kind: process.host}]\n"})
        assert ids(load_project(root)) == ["app:h"]

    def test_a_directory_with_nothing_says_how_to_start(self, project: Write) -> None:
        assert "src/_index.yaml" in only(project({"README.md": "hi"}))

    def test_a_directory_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        assert "no such directory" in only(tmp_path / "nowhere")

    def test_the_lock_file_names_the_source(self, project: Write) -> None:
        lock = "directories: {modules: .wippy, src: ./code}\n"
        root = project({"wippy.lock": lock, "code/x.yaml": "namespace: a\nentries: [{name: h, kind: process.host}]\n"})
        assert ids(load_project(root)) == ["a:h"]

    def test_a_source_that_is_not_there_is_said(self, project: Write) -> None:
        assert "there is no directory ./code" in only(project({"wippy.lock": "directories: {src: ./code}\n"}))

    @pytest.mark.parametrize(
        "lock", ["- 1\n", "directories: 5\n", "modules: [x]\n", "modules: [{name: '../x'}]\n", "a: ["]
    )
    def test_a_broken_lock_file_is_refused(self, project: Write, lock: str) -> None:
        root = project({"wippy.lock": lock, INDEX: "namespace: a\nentries: []\n"})
        assert only(root).startswith("wippy.lock")

    @pytest.mark.parametrize(
        "lock", ["modules:\n", "directories:\nreplacements:\n", "directories: {modules: , src: }\n"]
    )
    def test_a_lock_file_with_empty_sections_says_nothing(self, project: Write, lock: str) -> None:
        root = project({"wippy.lock": lock, INDEX: "namespace: a\nname: x\nkind: registry.entry\n"})
        assert [entry.id for entry in load_project(root).entries] == ["a:x"]


class TestInlining:
    def test_a_source_is_read_relative_to_its_yaml(self, project: Write) -> None:
        root = project(
            {
                "src/a/_index.yaml": "namespace: a\nname: p\nkind: process.lua\nsource: file://code/p.lua\n",
                "src/a/code/p.lua": LUA,
            }
        )
        assert load_project(root).entries[0].data == {"source": LUA}

    def test_a_file_elsewhere_in_the_project_is_allowed(self, project: Write) -> None:
        text = "namespace: a\nname: d\nkind: ns.definition\nreadme: file://../README.md\nwiki: {page: file://w.md}\n"
        root = project({INDEX: text, "README.md": "read me", "src/w.md": "wiki"})
        assert load_project(root).entries[0].data == {"readme": "read me", "wiki": {"page": "wiki"}}

    def test_other_fields_are_left_as_they_are(self, project: Write) -> None:
        root = project({INDEX: "namespace: a\nname: e\nkind: registry.entry\nurl: file:///etc/hostname\n"})
        assert load_project(root).entries[0].data == {"url": "file:///etc/hostname"}

    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            ("file://../../outside.lua", "leads outside of app"),
            ("file:///etc/hostname", "leads outside of app"),
            ("file://link.lua", "leads outside of app"),
            ("file://linked/outside.lua", "leads outside of app"),
            ("file://../../nothing.lua", "leads outside of app"),
            ("file://none.lua", "there is no file none.lua"),
            ("file://sub", "sub is not a file"),
            ("file://circle.lua", "circle.lua can't be read: "),
            ("file://sub/x/y.lua", "sub/x/y.lua can't be read: Not a directory"),
            ("file://", "got no path"),
            ("file://latin.lua", "latin.lua is not UTF-8 text: byte 0xe9 at 3"),
        ],
    )
    def test_files_that_must_not_or_can_not_be_read(self, project: Write, reference: str, message: str) -> None:
        root = project(
            {
                INDEX: f"namespace: a\nentries:\n  - name: p\n    kind: process.lua\n    source: {reference}\n",
                "../outside.lua": "return 'secret'",
                "src/sub/x": "",
                "src/latin.lua": b"-- \xe9\n",
            }
        )
        (root / "src/circle.lua").symlink_to(root / "src/circle.lua")
        (root / "src/link.lua").symlink_to(root.parent / "outside.lua")
        (root / "src/linked").symlink_to(root.parent)
        line = only(root)
        assert line.startswith("src/_index.yaml:5: a:p: source: ")
        assert message in line

    def test_a_link_inside_the_project_is_followed(self, project: Write) -> None:
        root = project({INDEX: "namespace: a\nname: p\nkind: process.lua\nsource: file://l.lua\n", "src/p.lua": LUA})
        (root / "src/l.lua").symlink_to(root / "src/p.lua")
        assert load_project(root).entries[0].data["source"] == LUA


class TestProblems:
    def test_everything_wrong_in_all_files_is_told_at_once(self, project: Write) -> None:
        root = project(
            {
                "../outside.lua": "return 1",
                "src/broken/_index.yaml": "namespace: app.broken\nentries:\n - name: x\n  kind: y\n",
                "src/w.lua": "local a = 1\n\nlocal function (\n",
                "src/latin/_index.yaml": b"namespace: app.latin\n# \xff\n",
                INDEX: """\
namespace: app
entries:
  - name: host
    kind: process.host
  - name: a
    kind: proces.lua
    source: file://w.lua
  - name: w
    kind: process.lua
    source: file://w.lua
    modules: [loger]
    imports:
      lib: app.lib:nothing
      other: app.broken:x
  - name: w
    kind: process.host
  - name: out
    kind: library.lua
    source: file://../../outside.lua
  - name: web
    kind: http.service
    addr: ":80"
  - name: inline
    kind: library.lua
    source: |
      local x = 1
      local = 2
  - name: s
    kind: process.service
    process: a
    host: hots
    lifecycle:
      auto_start: true
      auto_start: false
      restart: {max_atempts: 3}
  - kind: process.host
  - just text
  - {name: "b d", kind: process.host}
  - {name: nokind}
  - {name: meta, kind: process.host, meta: 5}
""",
            }
        )
        lines = refused(root, "app:nothing:x=1", "nonsense", modules={"logger"})
        expected = [
            "-o app:nothing:x: app:nothing: there is no entry app:nothing",
            "-o nonsense: expected namespace:entry:path",
            "src/_index.yaml:6: app:a: kind: unknown kind 'proces.lua'; did you mean 'process.lua'?",
            "src/_index.yaml:11: app:w: modules.0: unknown module 'loger'; did you mean 'logger'?",
            "src/_index.yaml:13: app:w: imports.lib: there is no entry app.lib:nothing",
            "src/_index.yaml:15: app:w: is defined twice, first at src/_index.yaml:8",
            "src/_index.yaml:19: app:out: source: file://../../outside.lua leads outside of app",
            "src/_index.yaml:21: app:web: kind: kind http.service is not supported by this version yet",
            "src/_index.yaml:27: app:inline: source: expected",
            "src/_index.yaml:31: app:s: host: there is no entry app:hots; expected a process.host entry; did you mean",
            "src/_index.yaml:34: key 'auto_start' is given twice, first on line 33",
            "src/_index.yaml:35: app:s: lifecycle.restart.max_atempts: unknown field",
            "src/_index.yaml:36: app:?: name: is required and missing",
            "src/_index.yaml:37: entries: expected an entry with name and kind, got 'just text'",
            "src/_index.yaml:38: app:b d: name: name 'b d' must not",
            "src/_index.yaml:39: app:nokind: kind: is required and missing",
            "src/_index.yaml:40: app:meta: meta: expected a map, got 5",
            "src/broken/_index.yaml:4: not valid YAML",
            "src/latin/_index.yaml:2: expected UTF-8 text, got byte 0xff",
            "src/w.lua:3: app:w: source: expected",
        ]
        for line, start in zip(lines, expected, strict=True):
            assert line.startswith(start), (line, start)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("namespace: a b\nentries: []\n", "src/_index.yaml:1: namespace: namespace 'a b' may hold"),
            ("namespace: [a]\nentries: []\n", "src/_index.yaml:1: namespace: expected a text"),
            ("\nnamespace: a\nentires: []\n", "src/_index.yaml:2: a namespace without entries"),
            ("namespace: a\nentries: {x: 1}\n", "src/_index.yaml:2: entries: expected a list"),
            ("namespace: a\nentries: []\n---\nx: 1\n", "src/_index.yaml:1: only the first YAML document"),
            ("namespace: a\nname: x\nkid: process.host\n", "a:x: kind: is required and missing; did you mean 'kid'?"),
            ("namespace: a\nentries: [{name: 5, kind: x}]\n", "a:?: name: expected a text, got 5"),
        ],
    )
    def test_files_of_another_shape_are_refused(self, project: Write, text: str, message: str) -> None:
        assert message in only(project({INDEX: text}))

    def test_problems_of_values_in_foreign_files_are_no_concern(self, project: Write) -> None:
        root = project({INDEX: "namespace: a\nentries: []\n", "src/other.yaml": "a: !Ref x\na: 2\n"})
        assert load_project(root).warnings == ()

    def test_an_id_defined_in_two_files_names_both(self, project: Write) -> None:
        one = "namespace: a\nentries: [{name: h, kind: process.host}]\n"
        root = project({"src/one.yaml": one, "src/two.yaml": f"\n{one}"})
        assert only(root) == "src/two.yaml:3: a:h: is defined twice, first at src/one.yaml:2"

    def test_a_key_beside_entries_is_a_warning(self, project: Write) -> None:
        loaded = load_project(project({INDEX: "namespace: a\nentries: []\ndependencies: []\n"}))
        assert [str(warning) for warning in loaded.warnings] == [
            "src/_index.yaml:3: 'dependencies' beside entries is not read"
        ]

    def test_an_undeclared_require_is_a_warning_with_the_place_in_the_lua_file(self, project: Write) -> None:
        text = "namespace: a\nname: p\nkind: process.lua\nsource: file://p.lua\n"
        root = project({INDEX: text, "src/p.lua": '-- a\nlocal t = require("time")\n'})
        warnings = load_project(root, modules={"time"}).warnings
        assert [(warning.file, warning.line) for warning in warnings] == [("src/p.lua", 2)]

    def test_a_problem_found_later_is_placed_where_the_entry_was_written(self, project: Write) -> None:
        text = "namespace: a\nentries:\n  - name: h\n    kind: process.host\n    lifecycle:\n      startup: required\n"
        root = project({INDEX: text})
        loaded = load_project(root)
        located = loaded.locate(Problem("is odd", entry="a:h", field="lifecycle.startup"))
        assert (located.file, located.line) == (INDEX, 6)
        unknown = Problem("is odd", entry="b:h")
        assert loaded.locate(unknown) is unknown


class TestCommands:
    def test_commands_of_the_project_are_listed(self, project: Write) -> None:
        text = "namespace: a\nname: p\nkind: process.lua\nmeta: {command: {name: go, short: Goes}}\nsource: return 1\n"
        found = load_project(project({INDEX: text})).commands()
        assert [(each.name, each.entry, each.short) for each in found] == [("go", "a:p", "Goes")]


def warned(root: Path) -> list[str]:
    return [str(warning) for warning in load_project(root).warnings]


class TestNastyFiles:
    """Whatever lies below the sources: read, said, or none of our business; never a crash or a standstill."""

    GOOD = "namespace: a\nname: h\nkind: process.host\n"

    def test_syntax_errors_of_several_files_are_told_at_once_with_line_and_column(self, project: Write) -> None:
        root = project(
            {
                "src/tab.yaml": "namespace: a\nentries:\n\t- x\n",
                "src/list.yaml": "namespace: b\nentries: [1,\n",
                "src/good.yaml": self.GOOD,
                "src/latin.yaml": "namespace: c\n# \xe9\n".encode("latin-1"),
                "src/utf16.yaml": self.GOOD.encode("utf-16"),
                "src/zero.yaml": b"namespace: d\nname: \0\n",
                "src/bomb.yaml": "namespace: e\na: &a [1]\n"
                + "b: &b [*a, *a]\n"
                + "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}' if n else '*b'] * 9)}]\n" for n in range(9)),
            }
        )
        lines = refused(root)
        expected = [
            "src/bomb.yaml:9: more than 500000 values once aliases are expanded",
            "src/latin.yaml:2: expected UTF-8 text, got byte 0xe9",
            "src/list.yaml:3: not valid YAML: ",
            "src/tab.yaml:3: not valid YAML: ",
            "src/utf16.yaml:1: expected UTF-8 text, got byte 0xff",
            "src/zero.yaml:2: not valid YAML: ",
        ]
        assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected
        assert lines[3].endswith("(column 1)")

    def test_a_broken_file_that_names_no_namespace_is_not_ours_and_said(self, project: Write) -> None:
        root = project({"src/good.yaml": self.GOOD, "src/chart/values.yaml": "a: {{ .Values.a }}: x\n  b: [\n"})
        (line,) = warned(root)
        assert line.startswith("src/chart/values.yaml:")
        assert line.endswith("; not read")

    def test_a_directory_named_like_a_file_is_a_directory(self, project: Write) -> None:
        root = project({"src/x.yaml/y.yaml": self.GOOD})
        assert ids(load_project(root)) == ["a:h"]
        assert warned(root) == []

    def test_empty_files_and_files_of_comments_are_nobodys(self, project: Write) -> None:
        root = project(
            {"src/good.yaml": self.GOOD, "src/a.yaml": "", "src/b.yaml": "# x\n", "src/c.yaml": b"\xef\xbb\xbf"}
        )
        assert warned(root) == []

    def test_links_are_followed_inside_and_passed_over_elsewhere(self, project: Write) -> None:
        root = project({"src/good.yaml": self.GOOD, "parts/other.yaml": self.GOOD.replace(": h", ": o")})
        project({"../outside.yaml": self.GOOD.replace(": h", ": x")})
        (root / "src/in.yaml").symlink_to(root / "parts/other.yaml")
        (root / "src/out.yaml").symlink_to(root.parent / "outside.yaml")
        (root / "src/deep").symlink_to(root / "parts")
        (root / "src/loop").symlink_to(root / "src")
        assert ids(load_project(root)) == ["a:h", "a:o"]
        assert warned(root) == [
            "src/deep: is a link to a directory and is not entered",
            "src/loop: is a link to a directory and is not entered",
            "src/out.yaml: is a link that leads outside of app and is not read",
        ]

    def test_links_in_a_circle_or_to_nothing_can_not_be_read(self, project: Write) -> None:
        root = project({"src/good.yaml": self.GOOD})
        (root / "src/a.yaml").symlink_to(root / "src/b.yaml")
        (root / "src/b.yaml").symlink_to(root / "src/a.yaml")
        (root / "src/c.yaml").symlink_to(root / "src/gone.yaml")
        assert [line.partition(": ")[0] for line in refused(root)] == ["src/a.yaml", "src/b.yaml", "src/c.yaml"]

    def test_a_pipe_is_not_waited_for(self, project: Write) -> None:
        root = project({"src/good.yaml": self.GOOD})
        os.mkfifo(root / "src/pipe.yaml")
        assert warned(root) == ["src/pipe.yaml: is no regular file and is not read"]

    def test_a_huge_file_is_refused_unread(self, project: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        root, size = project({"src/good.yaml": self.GOOD}), 9 * 1024**2
        with (root / "src/huge.yaml").open("wb") as file:
            file.truncate(size)
        read, real = [], Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or real(path))
        assert only(root) == f"src/huge.yaml: file of {size} bytes is over the limit of 8388608 bytes; split it"
        assert read == ["good.yaml"]

    def test_a_directory_that_can_not_be_read_is_a_problem(
        self, project: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = project({"src/good.yaml": self.GOOD, "src/locked/x.yaml": self.GOOD})
        scandir = os.scandir

        def refusing(path: str) -> Any:
            if str(path).endswith("locked"):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)
        assert only(root) == "src/locked: can't be read: Permission denied"

    def test_a_version_of_the_format_that_is_not_known_is_said(self, project: Write) -> None:
        (line,) = warned(project({INDEX: "version: '2.0'\nnamespace: a\nentries: []\n"}))
        assert line == "src/_index.yaml:1: version 2.0 of the file format is not known here; it is read as 1.0"
        for known in ("1.0", "'1.0'", "1", ""):
            assert warned(project({INDEX: f"version: {known}\nnamespace: a\nentries: []\n"})) == []

    def test_the_version_of_a_single_entry_is_its_own_unless_it_is_that_of_the_format(self, project: Write) -> None:
        text = "namespace: a\nname: c\nkind: registry.entry\nversion: {}\n"
        assert load_project(project({INDEX: text.format("^1.2")})).entries[0].data == {"version": "^1.2"}
        assert load_project(project({INDEX: text.format("'1.0'")})).entries[0].data == {}
        assert "unknown field 'version'" in only(project({INDEX: f"version: 2\n{self.GOOD}"}))

    def test_words_and_numbers_mean_what_yaml_1_2_says(self, project: Write) -> None:
        text = "namespace: a\nname: c\nkind: registry.entry\nv: [on, no, y, 0600, 1_000, 12:30, 2024-01-01, true]\n"
        data = load_project(project({INDEX: text})).entries[0].data
        assert data == {"v": ["on", "no", "y", 0o600, "1_000", "12:30", "2024-01-01", True]}
