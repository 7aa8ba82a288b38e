"""An entry on its way from the files to the registry, with the places its parts were written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.documents import Node
from cluster.errors import Problem
from cluster.registry.entry import Entry, Origin, split_id


@dataclass(frozen=True, slots=True)
class Place:
    """A file, as shown to people, and a line in it (from 1)."""

    file: str
    line: int


@dataclass(slots=True)
class Draft:
    """One entry that the pipeline may still change."""

    id: str
    kind: str
    meta: dict[str, Any]
    data: dict[str, Any]
    file: str
    node: Node
    """Where it stands in its file."""
    module: str = ""
    """The component it came with; empty for the project's own."""
    directory: Path = Path()
    """Where its file is: what ``file://`` starts from."""
    base: Path = Path()
    """What ``file://`` must not leave."""
    texts: dict[str, Place] = field(default_factory=dict)
    """Where the text of a field begins: the file it was inlined from, or its lines in the YAML."""
    changed: dict[str, str] = field(default_factory=dict)
    """Fields that something else than the file has set, and what."""

    @property
    def ns(self) -> str:
        return split_id(self.id)[0]

    def entry(self) -> Entry:
        return Entry(self.id, self.kind, self.meta, self.data, Origin.FILES)

    def is_changed(self, path: str) -> bool:
        """Whether the value at ``path`` is not what the file has."""
        return bool(self._origin(path))

    def _origin(self, path: str) -> str:
        return next((origin for at, origin in self.changed.items() if path == at or path.startswith(f"{at}.")), "")

    def place(self, path: str = "") -> Place:
        """Where the value at a dotted path was written, or the nearest thing around it."""
        if origin := self._origin(path):
            return Place(origin, 0)
        return Place(self.file, self.node.line_of(path) if path else self.node.line)

    def problem(self, message: str, path: str = "") -> Problem:
        """A problem at the place of ``path``."""
        place = self.place(path)
        return Problem(message, entry=self.id, field=path, file=place.file, line=place.line)

    def locate(self, problem: Problem) -> Problem:
        """A problem of the entry by itself, placed: in the file a text came from, or in the YAML."""
        text = self.texts.get(problem.field)
        if problem.line and text is not None:
            return Problem(problem.message, self.id, problem.field, text.file, text.line + problem.line - 1)
        return self.problem(problem.message, problem.field)
