"""``docs/projects.md``, done as a reader does it: its files saved, its commands typed, what it says compared."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.cli.app import main
from node.project import load_project

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "projects.md").read_text()
BLOCK = re.compile(r"(?P<before>[^`]*(?:`[^`\n]+`[^`]*)*)```(?P<kind>\w*)\n(?P<text>.*?)```\n", re.DOTALL)
FILE = re.compile(r"`([\w./]*\.(?:yaml|lua))`")


def blocks() -> Iterator[tuple[str, str, str]]:
    """The file a block is to be saved as, its kind, its text. A file keeps its name until another is named."""
    file = ""
    for found in BLOCK.finditer(TEXT):
        names = FILE.findall(found["before"])
        file = names[-1] if names else file
        yield file, found["kind"], found["text"]


def test_the_page_is_true_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = ""
    done = []
    for file, kind, text in blocks():
        done.append(kind)
        match kind:
            case "yaml" | "lua":
                path = tmp_path / file
                assert path.suffix == f".{kind}", f"no file is named before {text}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            case "sh":
                capsys.readouterr()
                main(shlex.split(text)[1:])
                shown = capsys.readouterr()
                said = shown.out + shown.err
            case "text":
                assert text.strip() in said.strip()
            case "json":
                loaded = {entry.id: entry.data for entry in load_project(tmp_path).entries}
                for id, data in json.loads(text).items():
                    assert loaded.get(id) == data, id
            case other:
                assert other == "", "a block of a kind that is not executed"
    assert {kind: done.count(kind) for kind in ("yaml", "lua", "sh", "text", "json")} == {
        "yaml": 12,
        "lua": 1,
        "sh": 6,
        "text": 6,
        "json": 4,
    }
