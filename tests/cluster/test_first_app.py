"""The tutorial, done as a reader does it: its files saved and its commands typed beside a real ``wippy up``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.processes import ROOT, WIPPY, Development, Program, eventually, wippy

pytestmark = pytest.mark.servers

TEXT = (ROOT / "docs" / "first-app.md").read_text()
BLOCK = re.compile(
    r"(?P<before>(?:[^\n]+\n)*)\n?```(?P<kind>\w+)\n(?P<text>.*?)```(?:\n```text\n(?P<said>.*?)```)?", re.DOTALL
)
CODE = ("text or tostring(problem)", 'text .. "!"')
ENTRY = ("stop_timeout: 5s", "stop_timeout: 3s")


class FirstApp(Development):
    """``wippy up`` in the directory of the tutorial."""

    def __init__(self, directory: Path) -> None:
        self.directory = self.app = directory
        Program.__init__(self, [*WIPPY, "up"], directory, "up")


def steps(text: str) -> Iterator[tuple[str, str, str, str]]:
    """File to save or empty, kind, content, and what the last command must say."""
    for found in BLOCK.finditer(text):
        names = re.findall(r"`(src/[a-z_.]+)`", found["before"])
        file = names[-1] if found["kind"] in ("yaml", "lua") else ""
        yield file, found["kind"], found["text"], (found["said"] or "").strip()


def save(directory: Path, file: str, content: str) -> None:
    fresh = directory / f"{file}.fresh"
    fresh.write_text(content)
    fresh.replace(directory / file)


def type_in(directory: Path, commands: str, said: str) -> None:
    """The last command is repeated until it says what the page says: changes reach every node moments later."""
    lines = [shlex.split(line)[1:] for line in commands.splitlines()]
    for words in lines[:-1] if said else lines:
        wippy(directory, *words)
    if said:
        eventually(
            lambda: wippy(directory, *lines[-1], code=None).stdout.strip() == said,
            within=15,
            what=f"wippy {shlex.join(lines[-1])} says {said}",
        )


def walk(directory: Path, part: str) -> int:
    count = 0
    for file, kind, content, said in steps(part):
        if kind == "sh":
            type_in(directory, content, said)
        else:
            save(directory, file, content)
        count += 1
    return count


def edit(up: FirstApp, file: str, change: tuple[str, str], told: str) -> None:
    """A change the page describes in words; returns when it is pushed."""
    assert all(f"`{text}`" in told for text in change)
    content = (up.directory / file).read_text()
    assert content.count(change[0]) == 1
    pushes = up.err.count(", applied on ")
    save(up.directory, file, content.replace(*change))
    eventually(lambda: up.err.count(", applied on ") > pushes, within=10, what="the saved file is pushed")


def services(up: FirstApp) -> dict[str, Any]:
    return {each["node"]: each["state"] for each in up.json("services", "--json") if each["service"] == "app:greeter"}


def test_the_tutorial_does_what_it_says(binaries: None, tmp_path: Path) -> None:
    files, run = TEXT.split("## Run it")
    run, old_code = run.split("Running processes keep")
    old_code, new_code = old_code.split("New code is that of")
    new_code, again = new_code.split("A change of the entry starts")
    assert walk(tmp_path, files) == 5
    with FirstApp(tmp_path) as up:
        up.until(lambda: "Ctrl-C stops everything" in up.out)
        assert walk(tmp_path, run) == 6

        edit(up, "src/greeter.lua", CODE, old_code)
        assert walk(tmp_path, old_code) == 1

        assert walk(tmp_path, new_code) == 3
        eventually(lambda: services(up).get("node-3") == "exited", within=10, what="the cancelled service is done")
        edit(up, "src/_index.yaml", ENTRY, again)
        assert walk(tmp_path, again) == 1
