"""The documents say what the program does."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import typer.main

from node.cli.app import build
from node.kinds import KINDS
from node.modules import MODULES
from node.project import load_project
from node.settings import Settings
from node.settings.describe import fields_of
from tests.docs import DOCS, PAGES
from tests.kinds import APART, EXAMPLES

GREETER = """
local logger = require("logger")
local texts = require("texts")
return { main = function(name) logger:info(texts.greeting .. ", " .. name) end }
"""
ROOT = Path(__file__).parents[2]
PROSE = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(DOCS.glob("*.md")),
    *sorted((ROOT / "examples").glob("**/*.md")),
]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_made_from_the_program_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "write it anew with `python -m tests.docs`"


def test_every_kind_has_an_example_and_every_field_a_text() -> None:
    assert list(EXAMPLES) == list(KINDS)
    models = [kind.model for kind in KINDS.values()]
    fields = [(model.__name__, field) for model in models for field in fields_of(model, whole={*APART, "pool", "host"})]
    fields += [(name, field) for name, model in APART.items() for field in fields_of(model, whole={"security"})]
    assert [(name, field.path) for name, field in fields if not field.text] == []


def test_the_examples_of_the_kinds_are_an_application_that_loads(tmp_path: Path) -> None:
    vendor = tmp_path / ".wippy" / "vendor" / "acme" / "jobs"
    source = tmp_path / "src"
    for directory in (vendor, source):
        directory.mkdir(parents=True)
    (vendor / "wippy.yaml").write_text('version: "1.2.0"\n')
    (vendor / "_index.yaml").write_text(
        "namespace: acme.jobs\nentries:\n"
        "  - {name: size, kind: ns.requirement, targets: [{entry: conf, path: .size}]}\n"
        "  - {name: conf, kind: registry.entry}\n"
    )
    (source / "README.md").write_text("A shop.\n")
    (source / "greeter.lua").write_text(GREETER)
    text = textwrap.indent("".join(EXAMPLES.values()), "  ")
    (source / "_index.yaml").write_text(f'version: "1.0"\nnamespace: app\nentries:\n{text}')
    project = load_project(tmp_path, settings=Settings(), modules=MODULES)
    assert project.warnings == ()
    data = {entry.id: entry.data for entry in project.entries}
    assert data["app:limits"] == {"rate": 2, "queue_size": 100}
    assert data["acme.jobs:conf"] == {"size": 9}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_verbs_that_are_written_about_exist(page: Path) -> None:
    command = typer.main.get_command(build())
    verbs = command.commands  # type: ignore[attr-defined]  # a group of verbs
    written = re.findall(r"(?:^|`)(?:.*-- )?wippy ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+))?", page.read_text(), re.MULTILINE)
    for verb, second in written:
        assert verb in verbs, f"wippy {verb}"
        inner = getattr(verbs[verb], "commands", None)
        if inner is not None and second:
            assert second in inner, f"wippy {verb} {second}"
