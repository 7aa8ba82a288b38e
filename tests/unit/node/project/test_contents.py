"""What belongs to a module, and what its hash depends on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from node.project import contents
from node.project.contents import NoModule, copy_module, module_files, module_hash

Write = Callable[[dict[str, str | bytes]], Path]


def test_hidden_excluded_and_installed_files_do_not_belong_to_it(project: Write) -> None:
    root = project(
        {
            "wippy.yaml": "",
            "src/a.lua": "",
            "src/test/t.lua": "",
            ".git/config": "",
            ".env": "",
            "node_modules/x/y.js": "",
        }
    )
    assert module_files(root, ["src/test/*"]) == ["src/a.lua", "wippy.yaml"]


def test_the_hash_is_of_names_and_contents_and_of_nothing_else(project: Write, tmp_path: Path) -> None:
    root = project({"a.lua": "1", "b/c.lua": "2"})
    known = module_hash(root, ())
    assert known == "1c1d2e66eada67ed9fc69817b358e71ef53a92f5df8922a2340179298c193834", (
        "lock files that exist hold such hashes"
    )
    os.utime(root / "a.lua", (1, 1))
    (root / "a.lua").chmod(0o600)
    (root / ".hidden").write_text("x")
    assert module_hash(root, ()) == known
    copy_module(root, (), tmp_path / "copy")
    assert module_hash(tmp_path / "copy", ()) == known
    for change in ({"a.lua": "2"}, {"d.lua": ""}):
        before = {name: (root / name).read_bytes() if (root / name).exists() else None for name in change}
        project(dict(change))
        assert module_hash(root, ()) != known
        for name, content in before.items():
            (root / name).unlink() if content is None else (root / name).write_bytes(content)
    (root / "a.lua").rename(root / "z.lua")
    assert module_hash(root, ()) != known


def test_a_link_inside_stands_for_its_file_and_one_that_leads_out_is_refused(project: Write, tmp_path: Path) -> None:
    root = project({"a.lua": "1"})
    (root / "b.lua").symlink_to("a.lua")
    copy_module(root, (), tmp_path / "copy")
    assert not (tmp_path / "copy/b.lua").is_symlink()
    assert (tmp_path / "copy/b.lua").read_text() == "1"
    (tmp_path / "secret").write_text("s")
    for target in (tmp_path / "secret", tmp_path / "gone", tmp_path):
        (root / "c").symlink_to(target)
        with pytest.raises(NoModule, match="c is a link that leads to no file of the module"):
            module_files(root, ())
        (root / "c").unlink()


def test_a_directory_too_large_for_a_module_is_refused(project: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project({"a": "12345", "b": "12345"})
    monkeypatch.setattr(contents, "MAX_BYTES", 9)
    with pytest.raises(NoModule, match="holds 10 bytes, more than 9"):
        module_files(root, ())
    monkeypatch.setattr(contents, "MAX_FILES", 1)
    with pytest.raises(NoModule, match="holds 2 files, more than 1"):
        module_files(root, ())
    assert module_files(root, ["b"]) == ["a"]
