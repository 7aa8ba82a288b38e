"""Where a project keeps things: its sources, and the local directories of its modules.

``wippy.lock`` says so; without one the sources are in ``src`` and modules under ``.wippy``. A
directory without either is itself the source when its YAML files define entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.documents import parse_bytes
from cluster.errors import Problem
from node.explain import explain
from node.kinds.plain import check_component
from node.project.definitions import defines_entries
from node.project.versions import version_flaw
from node.scalars import PlainText

LOCK = "wippy.lock"

_M = TypeVar("_M", bound=BaseModel)


class Section(BaseModel):
    """A key without a value says nothing, as people leave it when they take the last line below it away."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _said(cls, raw: Any) -> Any:
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw


class _Directories(Section):
    modules: str = ".wippy"
    src: str | None = None


class _Pinned(BaseModel):
    name: str
    version: PlainText = ""
    hash: PlainText = ""


class _Lock(Section):
    directories: _Directories = _Directories()
    modules: list[_Pinned] = Field(default_factory=list)
    replacements: Any = None


@dataclass(frozen=True, slots=True)
class Pin:
    """What the lock file says of a module; empty texts say nothing."""

    version: str
    hash: str


@dataclass(slots=True)
class Layout:
    """The directories of a project; ``source`` is None when there is none."""

    root: Path
    source: Path | None = None
    modules: Path = Path()
    pinned: dict[str, Pin] = field(default_factory=dict)
    """Components and their versions, from the lock file."""
    replacements: dict[str, Path] = field(default_factory=dict)
    """Components that come from a directory of their own."""
    lock: str = LOCK
    """The name of the lock file."""
    content: bytes = b""
    """What the lock file held when it was read."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    @property
    def base(self) -> Path:
        """What the sources must not lead out of: the project, or their own directory when it is elsewhere."""
        if self.source is None or self.source.resolve().is_relative_to(self.root.resolve()):
            return self.root
        return self.source


def read_layout(root: Path, replacements: Mapping[str, Path | None], lock: str = LOCK) -> Layout:
    """The layout of the project in ``root``; ``replacements`` of the configuration win over the lock file's."""
    layout = Layout(root, lock=lock)
    if not root.is_dir():
        layout.problems.append(Problem("there is no such directory", file=str(root)))
        return layout
    layout.content = lock_content(layout)
    said = _read_lock(layout)
    layout.modules = root / said.directories.modules
    layout.pinned = _pins(layout, said.modules)
    layout.replacements = _lock_replacements(layout, said.replacements)
    for component, directory in replacements.items():
        layout.replacements.pop(component, None)
        if directory is not None:
            layout.replacements[component] = directory
    for component in layout.replacements:
        if wrong := check_component(component):
            layout.problems.append(Problem(wrong, field="replacements", file=layout.lock))
    layout.source = _source(layout, said.directories.src)
    return layout


def lock_content(layout: Layout) -> bytes:
    """What the lock file holds now; nothing when there is none, or it can't be read."""
    file = layout.root / layout.lock
    try:
        return file.read_bytes() if file.is_file() else b""
    except OSError:
        return b""


def _read_lock(layout: Layout) -> _Lock:
    if not (layout.root / layout.lock).is_file():
        return _Lock()
    return read_model(layout.root / layout.lock, layout.lock, _Lock, layout.problems) or _Lock()


def read_model(file: Path, name: str, model: type[_M], problems: list[Problem]) -> _M | None:
    """The content of a YAML file as ``model``; None, and what is wrong with it, when it is none."""
    try:
        content = file.read_bytes()
    except OSError as error:
        problems.append(Problem(f"can't be read: {error.strerror}", file=name))
        return None
    document = parse_bytes(content, name)
    problems += document.problems
    if document.root is None or document.root.value is None:
        return None
    try:
        return model.model_validate(document.root.plain())
    except ValidationError as error:
        for problem in explain(error, model):
            line = document.root.line_of(problem.field)
            problems.append(Problem(problem.message, field=problem.field, file=name, line=line))
    return None


def _pins(layout: Layout, modules: list[_Pinned]) -> dict[str, Pin]:
    pins: dict[str, Pin] = {}
    for position, pinned in enumerate(modules):
        wrong = check_component(pinned.name) or version_flaw(pinned.version)
        if not wrong and pins.setdefault(pinned.name, pin := Pin(pinned.version, pinned.hash)) is not pin:
            wrong = f"{pinned.name} is pinned twice"
        if wrong:
            layout.problems.append(Problem(wrong, field=f"modules.{position}", file=layout.lock))
    return pins


def _lock_replacements(layout: Layout, raw: Any) -> dict[str, Path]:
    """``{org/module: directory}`` or a list of ``{from, to}``; both forms exist."""
    if not raw:
        return {}
    layout.warnings.append(Problem("replacements belong under workspace.replacements of .wippy.yaml", file=layout.lock))
    if isinstance(raw, list) and all(isinstance(each, dict) for each in raw):
        raw = {each.get("from"): each.get("to") for each in raw}
    if isinstance(raw, dict) and all(isinstance(text, str) for pair in raw.items() for text in pair):
        return {component: layout.root / directory for component, directory in raw.items()}
    message = "expected a map of organization/module to a directory"
    layout.problems.append(Problem(message, field="replacements", file=layout.lock))
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
        layout.problems.append(Problem(f"there is no directory {named}", field="directories.src", file=layout.lock))
    return None
