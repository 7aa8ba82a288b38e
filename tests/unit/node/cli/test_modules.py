"""``wippy add`` and ``wippy install``: where modules come from, what is written, and what a failure leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.cli.app import main
from node.project import installing, load_project
from node.project.contents import NoModule, module_hash
from node.project.layout import Pin, read_layout
from node.project.resolving import Request

Said = Callable[..., tuple[int, str, str]]

JOBS = """\
namespace: acme.jobs
entries:
  - {name: size, kind: ns.requirement, default: 5, targets: [{entry: conf, path: .size}]}
  - {name: conf, kind: registry.entry}
"""
NEEDS_TERMINAL = "  - {name: term, kind: ns.dependency, component: wippy/terminal, version: ^0.1}\n"
COPY = Path(".wippy/vendor/acme/jobs")


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application without modules, and a directory of modules beside it."""
    app = tmp_path / "app"
    (app / "src").mkdir(parents=True)
    (app / "src/_index.yaml").write_text("namespace: app\nentries: []\n")
    monkeypatch.chdir(app)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a verb: its exit code, its output, its errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def module(folder: Path, name: str, version: str = "1.2.0", text: str = JOBS) -> Path:
    """A module ``acme/name`` in ``folder/acme/name``."""
    root = folder / "acme" / name
    root.mkdir(parents=True, exist_ok=True)
    (root / "wippy.yaml").write_text(f"organization: acme\nmodule: {name}\nversion: {version}\n")
    (root / "_index.yaml").write_text(text)
    return root


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A directory of modules: acme/jobs, which needs wippy/terminal."""
    module(tmp_path / "shelf", "jobs", text=JOBS + NEEDS_TERMINAL)
    return tmp_path / "shelf"


def everything(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def pins() -> dict[str, Pin]:
    return read_layout(Path.cwd(), {}).pinned


class TestAdd:
    def test_a_bundled_module_is_copied_pinned_and_loads(self, said: Said) -> None:
        code, out, _ = said("add", "wippy/terminal")
        assert code == 0
        assert out == (
            "wippy/terminal 0.1.0: bundled with wippy, copied to .wippy/vendor/wippy/terminal\nwrote wippy.lock\n"
        )
        assert pins() == {"wippy/terminal": Pin("0.1.0", module_hash(Path(".wippy/vendor/wippy/terminal"), ()))}
        assert "wippy.terminal:host" in [entry.id for entry in load_project(Path()).entries]

    def test_a_second_time_nothing_is_written(self, said: Said) -> None:
        said("add", "wippy/terminal")
        before, time = everything(Path()), Path("wippy.lock").stat().st_mtime_ns
        assert said("add", "wippy/terminal") == (
            0,
            "wippy/terminal 0.1.0: there already\n",
            "everything is there already\n",
        )
        assert (everything(Path()), Path("wippy.lock").stat().st_mtime_ns) == (before, time)

    def test_a_module_of_a_local_directory_brings_what_it_needs(self, said: Said, shelf: Path) -> None:
        code, out, _ = said("add", "acme/jobs@^1.0", "--from", str(shelf))
        assert code == 0
        assert out.splitlines()[0] == f"acme/jobs 1.2.0: from {shelf}/acme/jobs, copied to {COPY}"
        assert list(pins()) == ["acme/jobs", "wippy/terminal"]
        shutil.rmtree(shelf)
        assert load_project(Path()).warnings == ()

    def test_the_directory_may_be_the_module_itself(self, said: Said, shelf: Path) -> None:
        assert said("add", "acme/jobs", "--from", str(shelf / "acme" / "jobs"))[0] == 0
        assert pins()["acme/jobs"].version == "1.2.0"

    def test_what_is_nowhere_is_said_with_every_place_and_that_the_hub_is_not_reached(
        self, said: Said, shelf: Path
    ) -> None:
        code, _, err = said("add", "acme/none", "acme/nothing", "--from", str(shelf))
        assert code == 1
        first, second = err.splitlines()
        for part in (
            "error: wippy.lock: module acme/none: not found in .wippy/vendor/acme/none",
            f"{shelf}/acme/none",
            f"{shelf} itself",
            "the modules bundled with wippy",
            "the remote hub is not reached",
            "--from",
        ):
            assert part in first
        assert "module acme/nothing" in second
        assert not Path("wippy.lock").exists()
        assert not Path(".wippy").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["jobs"], "expected organization/module, got 'jobs'"),
            (["acme/jobs@new"], "expected a version such as 1.2.3, got 'new'"),
            (["acme/jobs", "--from", "gone"], "--from: there is no directory gone"),
        ],
    )
    def test_wrong_usage_is_said(self, said: Said, arguments: list[str], message: str) -> None:
        code, _, err = said("add", *arguments)
        assert (code, err) == (2, f"error: {message}\n")

    def test_a_version_that_is_not_there_is_refused_and_says_which_is(self, said: Said, shelf: Path) -> None:
        code, _, err = said("add", "acme/jobs@2.0.0", "--from", str(shelf))
        assert code == 1
        assert f"the command line wants 2.0.0; there is 1.2.0 ({shelf}/acme/jobs)" in err

    def test_it_updates_a_module_that_is_pinned(self, said: Said, shelf: Path) -> None:
        said("add", "acme/jobs", "--from", str(shelf))
        module(shelf, "jobs", "1.3.0")
        assert said("add", "acme/jobs", "--from", str(shelf))[0] == 0
        assert pins()["acme/jobs"].version == "1.3.0"
        assert "1.3.0" in (COPY / "wippy.yaml").read_text()
        assert said("add", "acme/jobs@1.2.0")[0] == 1
        assert pins()["acme/jobs"].version == "1.3.0"

    def test_an_empty_list_of_modules_is_filled(self, said: Said) -> None:
        Path("wippy.lock").write_text("# ours\nmodules:\ndirectories: {src: src}\n")
        assert said("add", "wippy/terminal")[0] == 0
        assert set(pins()) == {"wippy/terminal"}
        assert Path("wippy.lock").read_text().startswith("# ours\nmodules:\n- name: wippy/terminal\n")

    def test_a_directory_that_is_named_comes_before_a_newer_copy(self, said: Said, shelf: Path) -> None:
        older = shelf.parent / "older"
        module(older, "jobs", "1.1.0")
        said("add", "acme/jobs", "--from", str(shelf))
        assert said("add", "acme/jobs", "--from", str(older))[0] == 0
        assert pins()["acme/jobs"].version == "1.1.0"

    def test_a_copy_somebody_changed_is_overwritten_only_when_asked(self, said: Said, shelf: Path) -> None:
        said("add", "acme/jobs", "--from", str(shelf))
        (COPY / "mine.lua").write_text("-- mine")
        module(shelf, "jobs", "1.3.0")
        code, _, err = said("add", "acme/jobs", "--from", str(shelf))
        assert code == 1
        assert f"{COPY} holds changes the lock file does not know; --refresh overwrites them" in err
        assert (COPY / "mine.lua").exists()
        assert said("add", "acme/jobs", "--from", str(shelf), "--refresh")[0] == 0
        assert not (COPY / "mine.lua").exists()

    def test_values_a_module_needs_are_named_until_they_are_given(self, said: Said, shelf: Path) -> None:
        hole = "  - {name: db, kind: ns.requirement, targets: [{entry: conf, path: .db}]}\n"
        module(shelf, "jobs", text=JOBS + hole)
        _, _, err = said("add", "acme/jobs", "--from", str(shelf))
        assert "component: acme/jobs" in err
        assert "- {name: db, value: ...}" in err
        snippet = err.partition("\n\n")[2].replace("...", "here")
        Path("src/_index.yaml").write_text(f"namespace: app\nentries:\n{snippet}")
        (conf,) = [entry for entry in load_project(Path()).entries if entry.id == "acme.jobs:conf"]
        assert conf.data == {"db": "here", "size": 5}
        assert "db" not in said("add", "acme/jobs")[2]

    def test_modules_that_want_different_versions_are_refused(self, said: Said, shelf: Path) -> None:
        for name, version in (("one", "^1.0"), ("two", "^2.0")):
            need = f"namespace: acme.{name}\nname: d\nkind: ns.dependency\ncomponent: acme/jobs\nversion: {version}\n"
            module(shelf, name, text=need)
        code, _, err = said("add", "acme/one", "acme/two", "--from", str(shelf))
        assert code == 1
        assert "module acme/jobs: acme.one:d wants ^1.0, acme.two:d wants ^2.0; there is 1.2.0" in err
        assert not Path("wippy.lock").exists()

    def test_versions_that_exclude_each_other_in_turn_are_told_and_one_that_is_named_settles_it(
        self, said: Said, shelf: Path
    ) -> None:
        """The newest a/a brings a/b, which wants the older a/a, which does without a/b."""
        need = "namespace: acme.{}\nname: d\nkind: ns.dependency\ncomponent: acme/{}\nversion: {}\n"
        module(shelf, "one-v1.0.0", "1.0.0", "namespace: acme.one\nentries: []\n")
        (shelf / "acme/one-v1.0.0/wippy.yaml").write_text("version: 1.0.0\n")
        module(shelf, "one", "2.0.0", need.format("one", "two", "^1.0"))
        module(shelf, "two", "1.0.0", need.format("two", "one", "^1.0"))
        code, _, err = said("add", "acme/one", "--from", str(shelf))
        assert code == 1
        assert "the versions of acme/one" in err
        assert said("add", "acme/one@^1.0", "--from", str(shelf))[0] == 0
        assert list(pins()) == ["acme/one"]

    def test_modules_that_need_each_other_are_both_brought(self, said: Said, shelf: Path) -> None:
        for name, other in (("one", "two"), ("two", "one")):
            need = f"namespace: acme.{name}\nname: d\nkind: ns.dependency\ncomponent: acme/{other}\n"
            module(shelf, name, text=need)
        assert said("add", "acme/one", "--from", str(shelf))[0] == 0
        assert list(pins()) == ["acme/one", "acme/two"]

    def test_a_module_that_can_not_be_read_is_not_brought(self, said: Said, shelf: Path) -> None:
        module(shelf, "jobs", text="namespace: acme.jobs\nentries: [\n")
        code, _, err = said("add", "acme/jobs", "--from", str(shelf))
        assert code == 1
        assert "_index.yaml:3: not valid YAML" in err
        assert not Path(".wippy").exists()


class TestInstall:
    def test_a_fresh_checkout_gets_what_the_lock_file_pins(self, said: Said, shelf: Path) -> None:
        said("add", "acme/jobs", "--from", str(shelf))
        before = everything(Path())
        shutil.rmtree(".wippy")
        module(shelf / "newer", "jobs", "1.3.0")
        code, _, err = said("install", "--from", str(shelf / "newer"))
        assert code == 1
        assert "wippy.lock pins 1.2.0, there is 1.3.0" in err
        assert said("install", "--from", str(shelf))[0] == 0
        assert everything(Path()) == before

    def test_dependencies_of_the_sources_are_brought_and_pinned(self, said: Said, shelf: Path) -> None:
        text = "namespace: app\nname: d\nkind: ns.dependency\ncomponent: acme/jobs\nversion: ^1.0\n"
        Path("src/_index.yaml").write_text(text)
        assert said("install", "--from", str(shelf))[0] == 0
        assert list(pins()) == ["acme/jobs", "wippy/terminal"]
        assert load_project(Path()).warnings == ()

    def test_sources_may_be_outside_of_the_project(self, said: Said, shelf: Path, tmp_path: Path) -> None:
        Path("wippy.lock").write_text("directories: {src: ../elsewhere}\n")
        (tmp_path / "elsewhere").mkdir()
        text = "namespace: app\nname: d\nkind: ns.dependency\ncomponent: acme/jobs\n"
        (tmp_path / "elsewhere/_index.yaml").write_text(text)
        assert said("install", "--from", str(shelf))[0] == 0
        assert list(pins()) == ["acme/jobs", "wippy/terminal"]
        assert load_project(Path()).warnings == ()

    def test_a_copy_of_other_content_than_the_hash_is_refused(self, said: Said, shelf: Path) -> None:
        said("add", "acme/jobs", "--from", str(shelf))
        (COPY / "mine.lua").write_text("-- mine")
        code, _, err = said("install")
        assert code == 1
        assert f"no copy is what wippy.lock pins by hash; there is 1.2.0 ({COPY})" in err
        assert "holds changes the lock file does not know" in said("install", "--from", str(shelf))[2]
        assert said("install", "--from", str(shelf), "--repair")[0] == 0
        assert not (COPY / "mine.lua").exists()

    def test_a_copy_that_may_be_the_pinned_one_stays_unless_a_new_one_is_asked_for(
        self, said: Said, shelf: Path
    ) -> None:
        Path("wippy.lock").write_text("modules: [{name: acme/jobs, version: 1.2.0}]\n")
        module(Path(".wippy/vendor"), "jobs", "1.2.0", JOBS.replace("default: 5", "default: 6"))
        assert said("install", "--from", str(shelf))[1].startswith("acme/jobs 1.2.0: there already\n")
        assert "default: 6" in (COPY / "_index.yaml").read_text()
        assert pins()["acme/jobs"].hash == module_hash(COPY, ())
        assert said("install", "--from", str(shelf), "--refresh")[0] == 0
        assert "default: 6" in (COPY / "_index.yaml").read_text(), "it alone has the hash that is pinned now"
        Path("wippy.lock").write_text("modules: [{name: acme/jobs, version: 1.2.0}]\n")
        assert said("install", "--from", str(shelf), "--refresh")[0] == 0
        assert "default: 5" in (COPY / "_index.yaml").read_text()

    def test_a_replaced_module_stays_where_it_is_and_out_of_the_lock_file(self, said: Said, shelf: Path) -> None:
        Path(".wippy.yaml").write_text(f"workspace: {{replacements: {{acme/jobs: {shelf}/acme/jobs}}}}\n")
        code, out, _ = said("install")
        assert code == 0
        assert f"acme/jobs 1.2.0: replaced by {shelf}/acme/jobs" in out
        assert list(pins()) == ["wippy/terminal"]
        assert not COPY.exists()

    def test_only_the_named_modules_are_touched(self, said: Said, shelf: Path) -> None:
        module(shelf, "jobs")
        said("add", "acme/jobs", "wippy/terminal", "--from", str(shelf))
        shutil.rmtree(".wippy")
        assert said("install", "wippy/terminal")[0] == 0
        assert not COPY.exists()
        assert list(pins()) == ["acme/jobs", "wippy/terminal"]
        assert "acme/other is not used here" in said("install", "acme/other")[2]

    def test_without_modules_there_is_nothing_to_do(self, said: Said) -> None:
        assert said("install") == (0, "", "no modules are used here; `wippy add ORG/MODULE` adds one\n")
        assert not Path("wippy.lock").exists()

    def test_another_lock_file_and_directory_may_be_named(self, said: Said) -> None:
        Path("own.lock").write_text("directories: {modules: deps, src: src}\n")
        assert said("add", "wippy/terminal", "-l", "own.lock")[0] == 0
        assert Path("deps/vendor/wippy/terminal/_index.yaml").exists()
        assert "wippy/terminal" in Path("own.lock").read_text()
        assert not Path("wippy.lock").exists()


class TestFailingHalfway:
    @pytest.fixture(autouse=True)
    def _installed(self, said: Said, shelf: Path) -> None:
        """Version 1.2.0 is there, 1.3.0 is about to come, and a second module with it."""
        said("add", "acme/jobs", "--from", str(shelf))
        module(shelf, "jobs", "1.3.0")
        module(shelf, "second", text=JOBS.replace("acme.jobs", "acme.second"))

    @pytest.mark.parametrize("step", range(6))
    def test_a_failure_at_any_step_changes_nothing(
        self, said: Said, shelf: Path, monkeypatch: pytest.MonkeyPatch, step: int
    ) -> None:
        before = everything(Path())
        calls: list[str] = []

        def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                calls.append(name)
                if len(calls) == step + 1:
                    raise OSError(28, "No space left on device", str(arguments[0]))
                return real(*arguments, **named)

            return call

        monkeypatch.setattr(installing, "copy_module", failing("copy", installing.copy_module))
        monkeypatch.setattr(installing.os, "rename", failing("rename", os.rename))
        monkeypatch.setattr(installing, "write_lock", failing("lock", installing.write_lock))
        code, _, err = said("add", "acme/jobs", "acme/second", "--from", str(shelf))
        assert (code, "nothing was changed" in err) == (1, True), calls
        monkeypatch.undo()
        monkeypatch.chdir(shelf.parent / "app")
        assert everything(Path()) == before
        assert said("add", "acme/jobs", "acme/second", "--from", str(shelf))[0] == 0
        assert pins()["acme/jobs"].version == "1.3.0"

    def test_a_kill_between_the_steps_is_completed_by_the_next_run(
        self, said: Said, shelf: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The copies are in place and the lock file is not written; work of the killed one lies about."""
        shutil.rmtree(COPY)
        shutil.copytree(shelf / "acme/jobs", COPY)
        Path(".wippy/vendor/.install-killed/old/acme").mkdir(parents=True)
        assert said("add", "acme/jobs", "acme/second", "--from", str(shelf))[0] == 0
        assert pins()["acme/jobs"].version == "1.3.0"
        assert not Path(".wippy/vendor/.install-killed").exists()
        assert load_project(Path()).warnings == ()

    def test_a_kill_between_moving_aside_and_moving_in_loses_no_copy(self, said: Said) -> None:
        before = everything(Path())
        Path(".wippy/vendor/.install-killed/old/acme").mkdir(parents=True)
        COPY.rename(".wippy/vendor/.install-killed/old/acme/jobs")
        code, out, _ = said("install")
        assert (code, "acme/jobs 1.2.0: there already" in out) == (0, True)
        assert everything(Path()) == before

    def test_two_at_once_are_one_after_the_other(self, said: Said, shelf: Path) -> None:
        import fcntl

        with Path(".wippy/vendor/.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            code, _, err = said("add", "acme/jobs", "--from", str(shelf))
        assert code == 1
        assert "another installation works in" in err
        assert said("add", "acme/jobs", "--from", str(shelf))[0] == 0

    def test_what_another_pinned_after_the_plan_was_made_is_not_lost(self, said: Said, shelf: Path) -> None:
        layout = read_layout(Path.cwd(), {})
        late = installing.plan(layout, Request(added={"acme/jobs": "*"}, directory=shelf))
        assert said("add", "acme/second", "--from", str(shelf))[0] == 0
        before = everything(Path.cwd())
        with pytest.raises(NoModule, match=r"wippy\.lock was changed meanwhile; try again"):
            installing.carry_out(late)
        assert everything(Path.cwd()) == before
        assert "acme/second" in pins()
