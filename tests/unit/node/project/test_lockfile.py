"""The lock file written again: pins changed, all else as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from node.project.layout import Pin, read_layout
from node.project.lockfile import lock_text, write_lock

Write = Callable[[dict[str, str | bytes]], Path]

PINS = {"b/b": Pin("2.0.0", "ff"), "a/a": Pin("", "")}
SECTION = "modules:\n- name: a/a\n- name: b/b\n  version: 2.0.0\n  hash: ff\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"directories:\n  modules: .wippy\n  src: src\n{SECTION}"),
        ("# only words\n", f"directories:\n  modules: .wippy\n  src: src\n{SECTION}"),
        ("directories: {src: src} # mine\n", f"directories: {{src: src}} # mine\n{SECTION}"),
        ("directories: {src: src}", f"directories: {{src: src}}\n{SECTION}"),
        (
            "# top\nmodules:\n  - name: old/one  # gone\n\n# about options\noptions: {unpack_modules: true}\n",
            f"# top\n{SECTION}\n# about options\noptions: {{unpack_modules: true}}\n",
        ),
        ("modules: [{name: old/one}]\ndirectories:\n  src: src\n", f"{SECTION}directories:\n  src: src\n"),
        ("{directories: {src: src}, modules: []}\n", f"directories:\n  src: src\n{SECTION}"),
        ("directories: {src: src}\nmodules:\n- name: x/y\n# end\n", f"directories: {{src: src}}\n{SECTION}# end\n"),
    ],
)
def test_pins_are_written_and_everything_else_stays(project: Write, before: str, after: str) -> None:
    root = project({"src/a.yaml": "namespace: a\nentries: []\n"})
    if before:
        project({"wippy.lock": before})
    layout = read_layout(root, {})
    assert lock_text(layout, PINS) == after
    write_lock(layout, lock_text(layout, PINS))
    again = read_layout(root, {})
    assert (again.pinned, again.problems, again.source) == (PINS, [], root / "src")
    assert lock_text(again, again.pinned) == after
    assert sorted(path.name for path in root.iterdir()) == ["src", "wippy.lock"]


def test_without_pins_the_section_goes(project: Write) -> None:
    root = project({"src/a.yaml": "namespace: a\nentries: []\n", "wippy.lock": f"{SECTION}directories: {{src: src}}\n"})
    assert lock_text(read_layout(root, {}), {}) == "directories: {src: src}\n"
