"""The shape of the code: one direction between the packages, one place for tasks and for the environment."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [path for package in ("cluster", "node") for path in sorted((ROOT / package).rglob("*.py"))]
WRITTEN = [path for path in MODULES if not path.name.endswith("_pb2.py")]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module a file imports, in functions too."""
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            yield from (alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom) and item.level == 0 and item.module:
            yield item.module


@pytest.mark.parametrize("path", sorted((ROOT / "cluster").rglob("*.py")), ids=name_of)
def test_cluster_never_imports_node(path: Path) -> None:
    assert not [name for name in imports(ast.parse(path.read_text())) if name.split(".")[0] == "node"]


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_tasks_are_created_in_one_place_only(path: Path) -> None:
    if path == ROOT / "cluster" / "tasks.py":
        return
    calls = [item for item in ast.walk(ast.parse(path.read_text())) if isinstance(item, ast.Attribute)]
    assert not [call.lineno for call in calls if call.attr in ("create_task", "ensure_future")]


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_the_environment_is_read_by_settings_only(path: Path) -> None:
    if (ROOT / "node" / "settings") in path.parents:
        return
    names = [item for item in ast.walk(ast.parse(path.read_text())) if isinstance(item, ast.Attribute)]
    read = [name.lineno for name in names if name.attr in ("environ", "getenv")]
    assert not read or name_of(path) in ALLOWED_ENVIRONMENT


ALLOWED_ENVIRONMENT = frozenset({"cluster/guardian.py", "node/assembly.py"})
"""One starts servers in a copy of it, the other hands it to ``env.storage.os``: neither is configured by it."""


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module opens with a docstring"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_named_after_nothing(path: Path) -> None:
    assert path.stem not in ("utils", "helpers", "manager", "common", "misc")


def test_packages_are_packages() -> None:
    """setuptools finds only directories with an ``__init__.py``."""
    folders = {path.parent for path in MODULES}
    assert not [name_of(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_nothing_speaks_of_one_machine() -> None:
    """No paths of a developer's machine, no addresses of package indexes."""
    pattern = re.compile(r"(?<![\w.])/(?:root|home/\w+)/|index-url|find-links")
    suffixes = {".py", ".lua", ".md", ".yaml", ".yml", ".toml", ".txt", ".tpl", ".service", ".env", ".cfg"}
    here = Path(__file__)
    found = [
        f"{name_of(path)}: {match[0]}"
        for folder in ("cluster", "node", "tests", "docs", "deploy", "helm", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and path != here and "__pycache__" not in path.parts
        for match in [pattern.search(path.read_text(errors="replace"))]
        if match
    ]
    assert not found
