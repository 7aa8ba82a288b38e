from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Invalid
from node.project import Project, load_project
from node.project.contents import module_hash
from node.project.versions import satisfies
from node.settings import Settings

Write = Callable[[dict[str, str | bytes]], Path]

MODULE = ".wippy/vendor/acme/jobs"
JOBS = """\
namespace: acme.jobs
entries:
  - name: target
    kind: ns.requirement
    targets:
      - {entry: conf, path: .meta.db}
      - {entry: "acme.jobs:conf", path: .deep.url}
  - name: size
    kind: ns.requirement
    default: 5
    targets: [{entry: conf, path: .size}]
  - name: extra
    kind: ns.requirement
    default: none
    targets: [{entry: conf, path: ".list+="}]
  - {name: conf, kind: registry.entry, list: [first]}
"""


def app(*parameters: str, more: str = "", version: str = "*") -> str:
    given = "".join(f"      - {each}\n" for each in parameters)
    return (
        "namespace: app\nentries:\n  - name: dep\n    kind: ns.dependency\n    component: acme/jobs\n"
        f'    version: "{version}"\n' + (f"    parameters:\n{given}" if given else "") + more
    )


def load(root: Path, **settings: Any) -> Project:
    return load_project(root, settings=Settings.model_validate(settings))


def conf(project: Project) -> dict[str, Any]:
    (entry,) = [entry for entry in project.entries if entry.id == "acme.jobs:conf"]
    return {"meta": entry.meta, **entry.data}


def refused(root: Path, **settings: Any) -> list[str]:
    with pytest.raises(Invalid) as raised:
        load(root, **settings)
    return [str(problem) for problem in raised.value.problems]


class TestLinking:
    def test_parameters_win_over_defaults_and_are_written_into_every_target(self, project: Write) -> None:
        parameters = ("{name: target, value: 'app:db'}", "{name: size, value: 9}", "{name: extra, value: [a]}")
        root = project({"src/_index.yaml": app(*parameters), f"{MODULE}/src/_index.yaml": JOBS})
        loaded = load(root)
        assert conf(loaded) == {
            "meta": {"db": "app:db"},
            "deep": {"url": "app:db"},
            "size": 9,
            "list": ["first", ["a"]],
        }
        assert loaded.warnings == ()
        assert loaded.directories == (root / "src", root / MODULE / "src")

    def test_defaults_stand_in_and_an_open_hole_is_a_warning(self, project: Write) -> None:
        loaded = load(project({"src/_index.yaml": app(), f"{MODULE}/_index.yaml": JOBS}))
        assert conf(loaded) == {"meta": {}, "size": 5, "list": ["first", "none"]}
        assert [warning.entry for warning in loaded.warnings] == ["acme.jobs:target"]
        assert loaded.warnings[0].file == f"{MODULE}/_index.yaml"

    def test_an_empty_default_is_a_default(self, project: Write) -> None:
        hole = "name: r\nkind: ns.requirement\ndefault: ''\ntargets: [{entry: c, path: .x}]\n"
        root = project(
            {"src/a.yaml": f"namespace: a\n{hole}", "src/b.yaml": "namespace: a\nname: c\nkind: registry.entry\n"}
        )
        loaded = load(root)
        assert loaded.entries[1].data == {"x": ""}
        assert loaded.warnings == ()

    def test_a_full_name_matches_exactly_and_a_bare_one_only_its_component(self, project: Write) -> None:
        other = (
            "  - name: dep2\n    kind: ns.dependency\n    component: acme/other\n"
            "    parameters: [{name: target, value: no}]\n"
        )
        root = project(
            {
                "src/_index.yaml": app("{name: 'acme.jobs:target', value: yes}", more=other),
                f"{MODULE}/_index.yaml": JOBS,
                ".wippy/vendor/acme/other/_index.yaml": "namespace: acme.other\nentries: []\n",
            }
        )
        loaded = load(root)
        assert conf(loaded)["meta"] == {"db": "yes"}
        assert [warning.message for warning in loaded.warnings] == [
            "parameter target fills no requirement of acme/other"
        ]

    def test_different_values_for_one_hole_are_a_conflict_and_equal_ones_are_not(self, project: Write) -> None:
        def second(value: str) -> str:
            return (
                "  - name: dep2\n    kind: ns.dependency\n    component: acme/other\n"
                f"    parameters: [{{name: 'acme.jobs:target', value: {value}}}]\n"
            )

        other: dict[str, str | bytes] = {".wippy/vendor/acme/other/_index.yaml": "namespace: acme.other\nentries: []\n"}
        files = {f"{MODULE}/_index.yaml": JOBS, **other}
        root = project({"src/_index.yaml": app("{name: target, value: one}", more=second("two")), **files})
        (line,) = refused(root)
        assert "acme.jobs:target: is given different values: app:dep says 'one', app:dep2 says 'two'" in line
        root = project({"src/_index.yaml": app("{name: target, value: one}", more=second("one")), **files})
        assert conf(load(root))["meta"] == {"db": "one"}

    def test_the_projects_own_parameters_beat_those_of_modules(self, project: Write) -> None:
        middle = (
            "namespace: acme.middle\nname: dep\nkind: ns.dependency\ncomponent: acme/jobs\n"
            "parameters: [{name: target, value: theirs}, {name: size, value: 7}]\n"
        )
        more = "  - {name: mid, kind: ns.dependency, component: acme/middle}\n"
        root = project(
            {
                "src/_index.yaml": app("{name: target, value: ours}", more=more),
                f"{MODULE}/_index.yaml": JOBS,
                ".wippy/vendor/acme/middle/_index.yaml": middle,
            }
        )
        assert (conf(load(root))["meta"], conf(load(root))["size"]) == ({"db": "ours"}, 7)

    def test_a_component_declared_twice_is_refused(self, project: Write) -> None:
        more = "  - {name: again, kind: ns.dependency, component: acme/jobs}\n"
        root = project({"src/_index.yaml": app(more=more), f"{MODULE}/_index.yaml": JOBS})
        assert any("component acme/jobs is declared by app:dep already" in line for line in refused(root))

    def test_a_target_that_is_not_there_is_refused_unless_it_was_disabled(self, project: Write) -> None:
        text = "namespace: a\nname: r\nkind: ns.requirement\ndefault: 1\ntargets: [{entry: gone, path: .x}]\n"
        (line,) = refused(project({"src/_index.yaml": text}))
        assert "a:r: targets.0: there is no entry a:gone" in line
        root = project({"src/_index.yaml": text, "src/g.yaml": "namespace: a\nname: gone\nkind: registry.entry\n"})
        assert len(load(root, disable={"entries": ["a:gone"]}).entries) == 1

    def test_a_mistyped_parameter_is_a_warning_with_a_suggestion(self, project: Write) -> None:
        root = project({"src/_index.yaml": app("{name: targt, value: x}"), f"{MODULE}/_index.yaml": JOBS})
        messages = [warning.message for warning in load(root).warnings]
        assert "parameter targt fills no requirement of acme/jobs; did you mean 'target'?" in messages

    def test_malformed_wiring_is_a_problem_and_not_a_crash(self, project: Write) -> None:
        text = """\
namespace: a
entries:
  - {name: r, kind: ns.requirement, default: 1, targets: []}
  - {name: s, kind: ns.requirement, targets: x}
  - {name: d, kind: ns.dependency, component: 5, parameters: x}
  - {name: e, kind: ns.dependency, component: ../up}
"""
        assert len(refused(project({"src/_index.yaml": text}))) == 5

    def test_a_hole_that_stays_open_is_a_problem_when_requirements_are_strict(self, project: Write) -> None:
        root = project({"src/_index.yaml": app(), f"{MODULE}/_index.yaml": JOBS})
        (line,) = refused(root, registry={"strict_requirements": True})
        assert line == (
            f"{MODULE}/_index.yaml:3: acme.jobs:target: has no default and gets no value; "
            "give parameter target in the ns.dependency of acme/jobs"
        )
        root = project({"src/_index.yaml": app("{name: target, value: x}")})
        assert conf(load(root, registry={"strict_requirements": True}))["meta"] == {"db": "x"}

    def test_a_null_default_is_none(self, project: Write) -> None:
        hole = "name: r\nkind: ns.requirement\ndefault:\ntargets: [{entry: c, path: .x}]\n"
        root = project(
            {"src/a.yaml": f"namespace: a\n{hole}", "src/b.yaml": "namespace: a\nname: c\nkind: registry.entry\n"}
        )
        loaded = load(root)
        assert loaded.entries[1].data == {}
        assert [warning.entry for warning in loaded.warnings] == ["a:r"]

    def test_what_is_appended_stands_in_the_list_once(self, project: Write) -> None:
        holes = "".join(
            f"  - {{name: r{n}, kind: ns.requirement, default: {value}, targets: [{{entry: c, path: '.list+='}}]}}\n"
            for n, value in enumerate(["a", "b", "a", "1", "true", "1.0"])
        )
        root = project({"src/a.yaml": f"namespace: a\nentries:\n{holes}  - {{name: c, kind: registry.entry}}\n"})
        (entry,) = [entry for entry in load(root).entries if entry.id == "a:c"]
        assert entry.data == {"list": ["a", "b", 1, True, 1.0]}

    @pytest.mark.parametrize("name", ["target", "acme.jobs:target", "jobs:target"])
    def test_a_module_is_known_by_its_name_and_by_organization_and_module_as_namespace(
        self, project: Write, name: str
    ) -> None:
        text = JOBS.replace("acme.jobs", "jobs")
        root = project({"src/_index.yaml": app(f"{{name: '{name}', value: x}}"), f"{MODULE}/_index.yaml": text})
        (entry,) = [entry for entry in load(root).entries if entry.id == "jobs:conf"]
        assert entry.meta == {"db": "x"}

    def test_a_bare_name_means_the_namespace_of_the_module_too_whoever_wrote_the_requirement(
        self, project: Write
    ) -> None:
        own = "namespace: acme.jobs\nname: mine\nkind: ns.requirement\ntargets: [{entry: conf, path: .mine}]\n"
        parameters = ("{name: target, value: x}", "{name: mine, value: 1}")
        root = project({"src/_index.yaml": app(*parameters), "src/own.yaml": own, f"{MODULE}/_index.yaml": JOBS})
        assert conf(load(root))["mine"] == 1

    def test_a_placeholder_in_a_parameter_or_default_is_carried_as_it_is(self, project: Write) -> None:
        text = JOBS.replace("default: 5", "default: '${env:SIZE|5}'")
        parameter = "{name: target, value: '${env:DB}'}"
        root = project({"src/_index.yaml": app(parameter), f"{MODULE}/_index.yaml": text})
        assert conf(load(root))["meta"] == {"db": "${env:DB}"}
        assert conf(load(root))["size"] == "${env:SIZE|5}"

    def test_targets_do_not_share_a_value(self, project: Write) -> None:
        text = """\
namespace: a
entries:
  - {name: r, kind: ns.requirement, default: {deep: {}}, targets: [{entry: c, path: .x}, {entry: d, path: .x}]}
  - {name: s, kind: ns.requirement, default: 1, targets: [{entry: c, path: .x.deep.y}]}
  - {name: c, kind: registry.entry}
  - {name: d, kind: registry.entry}
"""
        entries = {entry.id: entry.data for entry in load(project({"src/a.yaml": text})).entries}
        assert (entries["a:c"], entries["a:d"]) == ({"x": {"deep": {"y": 1}}}, {"x": {"deep": {}}})
        assert entries["a:r"]["default"] == {"deep": {}}

    def test_a_target_in_a_file_that_can_not_be_read_is_not_missed(self, project: Write) -> None:
        text = "namespace: a\nname: r\nkind: ns.requirement\ndefault: 1\ntargets: [{entry: b:c, path: .x}]\n"
        (line,) = refused(project({"src/a.yaml": text, "src/b.yaml": "namespace: b\nname: [\n"}))
        assert line.startswith("src/b.yaml:3: not valid YAML")

    def test_a_file_is_not_brought_by_a_requirement(self, project: Write) -> None:
        text = """\
namespace: a
entries:
  - {name: r, kind: ns.requirement, default: "file://x.lua", targets: [{entry: p, path: .source}]}
  - {name: p, kind: process.lua, source: return 1}
"""
        (line,) = refused(project({"src/a.yaml": text, "src/x.lua": "return 2"}))
        assert line.startswith("src/a.yaml:3: a:r: targets.0: file://x.lua is not read")


class TestFinding:
    @pytest.mark.parametrize(
        ("lock", "found"),
        [
            ("", "v1.10.0"),
            ("modules: [{name: acme/jobs, version: v1.2.0}]\n", "v1.2.0"),
            ("modules: [{name: acme/jobs, version: 1.9.0}]\n", "1.9.0"),
        ],
    )
    def test_of_several_copies_the_pinned_or_the_newest_is_taken(self, project: Write, lock: str, found: str) -> None:
        copies = {"jobs-v1.2.0": "v1.2.0", "jobs-v1.10.0": "v1.10.0", "jobs": "1.9.0"}
        text = "namespace: acme.jobs\nname: v\nkind: registry.entry\nis: "
        files: dict[str, str | bytes] = {
            f".wippy/vendor/acme/{name}/_index.yaml": f"{text}{version}\n" for name, version in copies.items()
        }
        files[".wippy/vendor/acme/jobs/wippy.yaml"] = "version: 1.9.0\n"
        files[".wippy/vendor/acme/jobs-viewer/_index.yaml"] = "namespace: v\nname: x\nkind: nonsense\n"
        loaded = load(project({"src/_index.yaml": app(), "wippy.lock": lock, **files}))
        assert [entry.data["is"] for entry in loaded.entries if entry.id == "acme.jobs:v"] == [found]

    def test_another_version_than_the_pinned_one_is_refused(self, project: Write) -> None:
        lock = "modules: [{name: acme/jobs, version: v1.2.0}]\n"
        manifest = {f"{MODULE}/wippy.yaml": "version: 1.4.2\n"}
        root = project({"wippy.lock": lock, "src/a.yaml": app(), f"{MODULE}/_index.yaml": JOBS, **manifest})
        assert "wippy.lock pins v1.2.0, there is 1.4.2 in .wippy/vendor/acme/jobs" in refused(root)[0]

    def test_a_copy_that_is_not_what_the_hash_says_is_refused(self, project: Write) -> None:
        root = project({"src/a.yaml": app(), f"{MODULE}/_index.yaml": JOBS})
        good = module_hash(root / MODULE, ())
        project({"wippy.lock": f"modules: [{{name: acme/jobs, hash: {good}}}]\n"})
        assert conf(load(root))["size"] == 5
        project({f"{MODULE}/_index.yaml": JOBS.replace("default: 5", "default: 6")})
        (line,) = refused(root)
        assert f"{MODULE} is not what wippy.lock pins (hash {good[:12]}...): it was changed" in line
        assert conf(load(root, workspace={"replacements": {"acme/jobs": str(root / MODULE)}}))["size"] == 6

    def test_a_bundled_module_is_there_without_being_installed(self, project: Write) -> None:
        text = "namespace: app\nname: terminal\nkind: ns.dependency\ncomponent: wippy/terminal\n"
        more = "parameters: [{name: hide_logs, value: true}]\n"
        loaded = load(project({"src/_index.yaml": text + more}))
        (host,) = [entry for entry in loaded.entries if entry.id == "wippy.terminal:host"]
        assert (host.kind, host.data) == ("terminal.host", {"lifecycle": {"auto_start": True}, "hide_logs": True})
        assert loaded.warnings == ()

    def test_the_projects_own_copy_stands_for_the_bundled_one(self, project: Write) -> None:
        text = "namespace: app\nname: terminal\nkind: ns.dependency\ncomponent: wippy/terminal\n"
        own = "namespace: wippy.terminal\nname: mine\nkind: process.host\n"
        root = project({"src/_index.yaml": text, ".wippy/vendor/wippy/terminal/_index.yaml": own})
        assert [entry.id for entry in load(root).entries] == ["app:terminal", "wippy.terminal:mine"]

    def test_which_module_is_read_is_not_overridden_and_its_parameters_are(self, project: Write) -> None:
        root = project({"src/_index.yaml": app("{name: size, value: 1}"), f"{MODULE}/_index.yaml": JOBS})
        for path in ("component", "data.version"):
            (line,) = refused(root, override={f"app:dep:{path}": "acme/other"})
            assert f"app:dep: {path}: modules are read before overrides" in line
        assert conf(load(root, override={"app:dep:parameters.0.value": 3}))["size"] == 3
        assert conf(load(root, disable={"entries": ["app:dep"]}))["size"] == 5

    @pytest.mark.parametrize(
        ("manifest", "message"),
        [
            ("version: [\n", "wippy.yaml:2: not valid YAML"),
            ("version: new\n", "wippy.yaml: version: expected a version such as 1.2.3, got 'new'"),
            ("exclude: x\n", "wippy.yaml:1: exclude: expected a valid list"),
            ("organization: acme\nmodule: other\n", "holds acme/other, not acme/jobs"),
        ],
    )
    def test_a_wrong_manifest_is_said(self, project: Write, manifest: str, message: str) -> None:
        root = project({"src/a.yaml": app(), f"{MODULE}/_index.yaml": JOBS, f"{MODULE}/wippy.yaml": manifest})
        assert message in refused(root)[0]

    @pytest.mark.parametrize(
        ("modules", "message"),
        [
            ("[{name: acme/jobs}, {name: acme/jobs}]", "acme/jobs is pinned twice"),
            ("[{name: acme/jobs, version: new}]", "expected a version such as 1.2.3, got 'new'"),
            ("[{name: acme/jobs, version: '%s'}]" % ("9" * 5000), "expected a version such as 1.2.3, got '9999"),
            ("[{name: jobs}]", "expected organization/module, got 'jobs'"),
        ],
    )
    def test_a_wrong_pin_is_said(self, project: Write, modules: str, message: str) -> None:
        root = project({"wippy.lock": f"modules: {modules}\n", "src/a.yaml": "namespace: a\nentries: []\n"})
        assert any(line.startswith("wippy.lock: ") and message in line for line in refused(root))

    def test_a_missing_module_is_one_problem_that_says_where_it_was_looked_for(self, project: Write) -> None:
        user = "  - {name: p, kind: process.lua, source: return 1, imports: {j: 'acme.jobs:lib'}}\n"
        (line,) = refused(project({"src/_index.yaml": app(more=user)}))
        assert line.startswith("src/_index.yaml:5: app:dep: component: module acme/jobs can't be loaded")
        assert ".wippy/vendor/acme/jobs" in line
        assert "workspace.replacements" in line

    def test_a_packed_module_is_said_to_be_packed(self, project: Write) -> None:
        root = project({"src/_index.yaml": app(), ".wippy/vendor/acme/jobs-v1.0.0.wapp": b"PACK"})
        assert "jobs-v1.0.0.wapp is packed" in refused(root)[0]

    def test_a_pinned_module_is_read_without_being_asked_for(self, project: Write) -> None:
        lock = "modules: [{name: acme/jobs, version: v1.2.0}]\n"
        files: dict[str, str | bytes] = {"wippy.lock": lock, "src/a.yaml": "namespace: a\nentries: []\n"}
        assert "wippy.lock: module acme/jobs can't be loaded" in refused(project(files))[0]
        root = project({**files, ".wippy/vendor/acme/jobs-v1.2.0/src/_index.yaml": JOBS})
        assert conf(load(root))["size"] == 5

    def test_a_replacement_stands_for_the_vendored_module(self, project: Write, tmp_path: Path) -> None:
        local = tmp_path / "local"
        local.mkdir()
        (local / "_index.yaml").write_text(JOBS.replace("default: 5", "default: 6"))
        root = project({"src/_index.yaml": app(), f"{MODULE}/_index.yaml": JOBS})
        assert conf(load(root, workspace={"replacements": {"acme/jobs": str(local)}}))["size"] == 6

    def test_replacements_of_the_lock_file_work_with_a_warning(self, project: Write) -> None:
        lock = "replacements:\n  - {from: acme/jobs, to: ./mine}\n"
        loaded = load(project({"wippy.lock": lock, "src/_index.yaml": app(), "mine/src/_index.yaml": JOBS}))
        assert conf(loaded)["size"] == 5
        assert any("workspace.replacements" in warning.message for warning in loaded.warnings)

    @pytest.mark.parametrize(
        "replacements", ["{jobs: ./mine}", "[{from: acme/jobs}]", "[x]", "5", "{acme/jobs: ./gone}"]
    )
    def test_a_wrong_replacement_is_said(self, project: Write, replacements: str) -> None:
        root = project({"wippy.lock": f"replacements: {replacements}\n", "src/a.yaml": "namespace: a\nentries: []\n"})
        (line,) = refused(root)
        assert line.startswith("wippy.lock: ")

    def test_excluded_files_of_a_module_are_not_read(self, project: Write) -> None:
        root = project(
            {
                "src/_index.yaml": app(),
                f"{MODULE}/wippy.yaml": "organization: acme\nmodule: jobs\nversion: 1.0.0\nexclude: ['src/test/*']\n",
                f"{MODULE}/src/_index.yaml": JOBS,
                f"{MODULE}/src/test/_index.yaml": "namespace: acme.jobs.test\nname: x\nkind: nonsense\n",
            }
        )
        assert conf(load(root))["size"] == 5

    def test_the_sources_of_a_module_are_in_the_module(self, project: Write) -> None:
        files: dict[str, str | bytes] = {"src/_index.yaml": app(), f"{MODULE}/lua/_index.yaml": JOBS}
        root = project({**files, f"{MODULE}/wippy.lock": "directories: {src: lua}\n"})
        assert conf(load(root))["size"] == 5
        for source in ("/", "../../../../src"):
            project({f"{MODULE}/wippy.lock": f"directories: {{src: {source}}}\n"})
            assert "directories.src leads outside of the module" in refused(root)[0]

    def test_files_of_a_module_do_not_reach_into_the_project(self, project: Write) -> None:
        reaching = f"{JOBS}  - {{name: thief, kind: ns.definition, readme: file://../../../../secret.md}}\n"
        root = project({"src/_index.yaml": app(), f"{MODULE}/_index.yaml": reaching, "secret.md": "s"})
        assert "leads outside of jobs" in refused(root)[0]

    @pytest.mark.parametrize(("constraint", "fits"), [("^1.0.0", True), (">=2.0.0", False), ("nonsense", False)])
    def test_the_version_must_suit(self, project: Write, constraint: str, fits: bool) -> None:
        root = project(
            {
                "src/_index.yaml": app(version=constraint),
                f"{MODULE}/wippy.yaml": "version: 1.4.2\n",
                f"{MODULE}/_index.yaml": JOBS,
            }
        )
        if fits:
            assert load(root)
        else:
            assert refused(root)[0].startswith("src/_index.yaml:6: app:dep: version: ")

    def test_modules_that_use_each_other_are_read_once(self, project: Write) -> None:
        back = f"{JOBS}  - {{name: back, kind: ns.dependency, component: acme/other}}\n"
        other = "namespace: acme.other\nname: dep\nkind: ns.dependency\ncomponent: acme/jobs\n"
        root = project(
            {
                "src/_index.yaml": app(),
                f"{MODULE}/_index.yaml": back,
                ".wippy/vendor/acme/other/_index.yaml": other,
            }
        )
        assert len(load(root).entries) == 7


@pytest.mark.parametrize(
    ("version", "constraint", "fits"),
    [
        ("v1.2.3", "1.2.3", True),
        ("1.2.4", "=1.2.3", False),
        ("1.9.0", "^1.2.0", True),
        ("2.0.0", "^1.2.0", False),
        ("0.3.0", "^0.2.1", False),
        ("0.0.3", "^0.0.3", True),
        ("0.0.4", "^0.0.3", False),
        ("1.2.9", "~1.2.0", True),
        ("1.3.0", "~1.2.0", False),
        ("1.5.0", ">=v1.0.0 <2.0.0", True),
        ("2.0.0", ">=1.0.0, <2.0.0", False),
        ("2.0.0", ">1.9", True),
        ("2.0.0", "<= 1.9", False),
        ("anything", "*", True),
    ],
)
def test_constraints_on_versions(version: str, constraint: str, fits: bool) -> None:
    assert satisfies(version, constraint) is fits
