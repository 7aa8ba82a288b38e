"""The documents say what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from node.cli.app import build
from tests.docs import DOCS, PAGES

ROOT = Path(__file__).parents[2]
PROSE = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(DOCS.glob("*.md")),
    *sorted((ROOT / "examples").glob("*/*.md")),
]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_made_from_the_program_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "write it anew with `python -m tests.docs`"


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_verbs_that_are_written_about_exist(page: Path) -> None:
    command = typer.main.get_command(build())
    verbs = command.commands  # type: ignore[attr-defined]  # a group of verbs
    written = re.findall(r"(?:^|`)(?:.*-- )?wippy ([a-z]+)(?: ([a-z]+))?", page.read_text(), re.MULTILINE)
    for verb, second in written:
        assert verb in verbs, f"wippy {verb}"
        inner = getattr(verbs[verb], "commands", None)
        if inner is not None and second:
            assert second in inner, f"wippy {verb} {second}"
