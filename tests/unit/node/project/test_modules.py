from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Invalid
from node.project import Project, load_project
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


class TestFinding:
    def test_a_missing_module_is_one_problem_that_says_where_it_was_looked_for(self, project: Write) -> None:
        user = "  - {name: p, kind: process.lua, source: return 1, imports: {j: 'acme.jobs:lib'}}\n"
        (line,) = refused(project({"src/_index.yaml": app(more=user)}))
        assert line.startswith("src/_index.yaml:5: app:dep: component: module acme/jobs is missing")
        assert ".wippy/vendor/acme/jobs" in line
        assert "workspace.replacements" in line

    def test_a_packed_module_is_said_to_be_packed(self, project: Write) -> None:
        root = project({"src/_index.yaml": app(), ".wippy/vendor/acme/jobs-v1.0.0.wapp": b"PACK"})
        assert "jobs-v1.0.0.wapp is packed" in refused(root)[0]

    def test_a_pinned_module_is_read_without_being_asked_for(self, project: Write) -> None:
        lock = "modules: [{name: acme/jobs, version: v1.2.0, hash: abc}]\n"
        files: dict[str, str | bytes] = {"wippy.lock": lock, "src/a.yaml": "namespace: a\nentries: []\n"}
        assert "wippy.lock: module acme/jobs is missing" in refused(project(files))[0]
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
