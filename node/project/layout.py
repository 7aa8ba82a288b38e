"""Where a project keeps things: its sources, and the local directories of its modules.

``wippy.lock`` says so; without one the sources are in ``src`` and modules under ``.wippy``. A
directory without either is itself the source when its YAML files define entries. Modules are
only ever taken from local directories: replacements first, then ``<modules>/vendor``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.errors import Problem
from node.documents import Document, parse_bytes
from node.explain import explain
from node.kinds.plain import check_component
from node.project.definitions import defines_entries
from node.project.inline import shown_path
from node.scalars import PlainText

LOCK = "wippy.lock"
MANIFEST = "wippy.yaml"

_M = TypeVar("_M", bound=BaseModel)


class _Directories(BaseModel):
    modules: str = ".wippy"
    src: str | None = None


class _Pinned(BaseModel):
    name: str
    version: PlainText = ""


class _Lock(BaseModel):
    model_config = ConfigDict(extra="ignore")

    directories: _Directories = _Directories()
    modules: list[_Pinned] = Field(default_factory=list)
    replacements: Any = None


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: PlainText = ""
    exclude: list[str] = Field(default_factory=list)


@dataclass(slots=True)
class Layout:
    """The directories of a project; ``source`` is None when there is none."""

    root: Path
    source: Path | None = None
    modules: Path = Path()
    pinned: dict[str, str] = field(default_factory=dict)
    """Components and their versions, from the lock file."""
    replacements: dict[str, Path] = field(default_factory=dict)
    """Components that come from a directory of their own."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Module:
    """A module found on this machine."""

    component: str
    root: Path
    source: Path
    version: str
    exclude: tuple[str, ...]


def read_layout(root: Path, replacements: Mapping[str, Path | None]) -> Layout:
    """The layout of the project in ``root``; ``replacements`` of the configuration win over the lock file's."""
    layout = Layout(root)
    if not root.is_dir():
        layout.problems.append(Problem("there is no such directory", file=str(root)))
        return layout
    lock = _read_lock(layout)
    layout.modules = root / lock.directories.modules
    layout.pinned = {pinned.name: pinned.version for pinned in lock.modules}
    for name in layout.pinned:
        if wrong := check_component(name):
            layout.problems.append(Problem(wrong, field="modules", file=LOCK))
    layout.replacements = _lock_replacements(layout, lock.replacements)
    for component, directory in replacements.items():
        layout.replacements.pop(component, None)
        if directory is not None:
            layout.replacements[component] = directory
    layout.source = _source(layout, lock.directories.src)
    return layout


def _read_lock(layout: Layout) -> _Lock:
    if not (layout.root / LOCK).is_file():
        return _Lock()
    document = parse_bytes((layout.root / LOCK).read_bytes(), LOCK)
    layout.problems += document.problems
    return _validated(document, LOCK, _Lock, layout.problems) or _Lock()


def _validated(document: Document, name: str, model: type[_M], problems: list[Problem]) -> _M | None:
    if document.root is None or document.root.value is None:
        return None
    try:
        return model.model_validate(document.root.plain())
    except ValidationError as error:
        for problem in explain(error, model):
            line = document.root.line_of(problem.field)
            problems.append(Problem(problem.message, field=problem.field, file=name, line=line))
    return None


def _lock_replacements(layout: Layout, raw: Any) -> dict[str, Path]:
    """``{org/module: directory}`` or a list of ``{from, to}``; both forms exist."""
    if not raw:
        return {}
    layout.warnings.append(Problem("replacements belong under workspace.replacements of .wippy.yaml", file=LOCK))
    if isinstance(raw, list) and all(isinstance(each, dict) for each in raw):
        raw = {each.get("from"): each.get("to") for each in raw}
    if isinstance(raw, dict) and all(isinstance(text, str) for pair in raw.items() for text in pair):
        return {component: layout.root / directory for component, directory in raw.items()}
    message = "expected a map of organization/module to a directory"
    layout.problems.append(Problem(message, field="replacements", file=LOCK))
    return {}


def _source(layout: Layout, named: str | None) -> Path | None:
    source = layout.root / (named or "src")
    if source.is_dir():
        return source
    if named is None and defines_entries(layout.root):
        return layout.root
    if named is None:
        text = "holds no src directory and no definition files; start with src/_index.yaml, or run `wippy init`"
        layout.problems.append(Problem(text, file=str(layout.root)))
    else:
        layout.problems.append(Problem(f"there is no directory {named}", field="directories.src", file=LOCK))
    return None


def find_module(layout: Layout, component: str) -> Module | str:
    """The module of a component, or why there is none."""
    replacement = layout.replacements.get(component)
    if replacement is not None:
        if not replacement.is_dir():
            return f"its replacement {replacement} is no directory"
        return _module(component, replacement)
    organization, _, name = component.partition("/")
    vendor = layout.modules / "vendor" / organization
    unpacked = sorted((*vendor.glob(name), *vendor.glob(f"{name}-v*")))
    for directory in unpacked:
        if directory.is_dir():
            return _module(component, directory, layout.pinned.get(component, ""))
    where = shown_path(vendor / name, layout.root)
    packed = [path.name for path in vendor.glob(f"{name}-*.wapp")]
    if packed:
        return f"{packed[0]} is packed, which this version does not read; unpack it into {where}"
    remedy = "put it there, or name its directory under workspace.replacements"
    return f"it is not in {where}; {remedy} (the remote hub is not reached)"


def _module(component: str, root: Path, pinned: str = "") -> Module:
    file = root / MANIFEST
    manifest = _validated(parse_bytes(file.read_bytes(), MANIFEST), MANIFEST, _Manifest, []) if file.is_file() else None
    source = read_layout(root, {}).source if (root / LOCK).is_file() else None
    fallback = root / "src" if (root / "src").is_dir() else root
    version = pinned or (manifest.version if manifest else "")
    return Module(component, root, source or fallback, version, tuple(manifest.exclude) if manifest else ())
