"""From a directory to the entries of an application.

The stages: read the project's files and its modules', override, leave out what is disabled,
link what modules require, check. Every stage goes on after a mistake, so that one run shows
all of them; nothing is returned unless there are none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import Invalid, Problem
from cluster.registry.entry import Entry
from node.kinds import Checker, Command, commands
from node.project.definitions import Definitions, Tree
from node.project.draft import Draft
from node.project.finding import Module
from node.project.inline import inline_changed
from node.project.layout import Layout, read_layout
from node.project.linking import link
from node.project.modules import read_modules
from node.project.overrides import apply_overrides, disabled, parse_overrides
from node.settings import Settings, load_settings


@dataclass(frozen=True)
class Project:
    """The entries of an application, in the order they were read."""

    root: Path
    entries: tuple[Entry, ...]
    warnings: tuple[Problem, ...]
    directories: tuple[Path, ...]
    """What to watch for changes: the sources of the project and of its modules."""
    _drafts: Mapping[str, Draft] = field(repr=False, default_factory=dict)

    @property
    def files(self) -> frozenset[Path]:
        """The files whose content entries have, besides the YAML files."""
        return frozenset(self.root / text.file for draft in self._drafts.values() for text in draft.texts.values())

    def commands(self) -> list[Command]:
        """What ``wippy run NAME`` can start."""
        return commands(self.entries)

    def locate(self, problem: Problem) -> Problem:
        """A problem somebody found in one of the entries, with file and line."""
        draft = self._drafts.get(problem.entry)
        return problem if draft is None else draft.locate(problem)


def load_project(
    directory: Path,
    *,
    overrides: Sequence[str] = (),
    settings: Settings | None = None,
    modules: Collection[str] | None = None,
) -> Project:
    """The project in ``directory``. Raises Invalid with every problem found.

    ``overrides`` are ``namespace:entry:path=value``. ``settings`` bring overrides, disabled
    entries and replacements of modules; None means those of the directory's own ``.wippy.yaml``.
    ``modules`` are the names ``require`` knows; None leaves them unchecked.
    """
    loading = _Loading(directory.resolve(), load_settings(directory) if settings is None else settings)
    loading.read()
    loading.change(overrides)
    return loading.checked(Checker(modules))


class _Loading:
    def __init__(self, root: Path, settings: Settings) -> None:
        self._root = root
        self._settings = settings
        self._layout: Layout = read_layout(root, settings.workspace.replacements)
        self._definitions = Definitions(shown=root)
        self._modules: list[Module] = []
        self._absent: set[str] = set()
        self._problems: list[Problem] = list(self._layout.problems)
        self._warnings: list[Problem] = list(self._layout.warnings)

    def read(self) -> None:
        """The files of the project and of its modules."""
        source = self._layout.source
        if source is not None:
            self._definitions.read_tree(Tree(source, self._layout.base))
        if self._root.is_dir():
            self._modules = read_modules(self._definitions, self._layout)
        self._problems += self._definitions.problems
        self._warnings += self._definitions.warnings

    def change(self, options: Sequence[str]) -> None:
        """Override, disable, link."""
        drafts = self._definitions.drafts
        changes, malformed = parse_overrides(self._settings.override, options, self._settings.override_places)
        self._problems += malformed
        self._problems += [
            problem for problem in apply_overrides(drafts, changes) if not self._is_excused(problem.entry)
        ]
        for draft in drafts.values():
            if draft.changed:
                failed = inline_changed(draft, self._root)
                self._problems += [draft.problem(reason, path) for path, reason in failed]
        self._absent = disabled(drafts, self._settings.disable)
        for id in self._absent:
            del drafts[id]
        strict = self._settings.registry.strict_requirements
        linked = link(drafts, self._absent, strict=strict, excused=self._is_excused)
        self._problems += linked.problems
        self._warnings += linked.warnings

    def checked(self, checker: Checker) -> Project:
        """The result, if there is one."""
        drafts = self._definitions.drafts
        entries = tuple(draft.entry() for draft in drafts.values())
        known = {(problem.entry, problem.field) for problem in self._problems}
        for problem in checker.problems(entries, self._is_excused):
            if (problem.entry, problem.field) not in known:
                self._problems.append(self._located(problem))
        if self._problems:
            raise Invalid(_sorted(self._problems))
        warnings = [*self._warnings, *(self._located(warning) for warning in checker.warnings(entries))]
        sources = [] if self._layout.source is None else [self._layout.source]
        directories = (*sources, *(module.source for module in self._modules))
        return Project(self._root, entries, tuple(_sorted(warnings)), directories, drafts)

    def _is_excused(self, id: str) -> bool:
        """Whether an entry is declared, or may be, and could not be read: that was said already."""
        read, (namespace, colon, _) = self._definitions, id.partition(":")
        if not colon:  # the name of a variable, which any file may declare
            return bool(read.unread_ids or read.unread_namespaces or read.missing_modules)
        if id in read.unread_ids or namespace in read.unread_namespaces:
            return True
        return bool(read.missing_modules) and all(namespace != draft.ns for draft in read.drafts.values())

    def _located(self, problem: Problem) -> Problem:
        draft = self._definitions.drafts.get(problem.entry)
        return problem if draft is None else draft.locate(problem)


def _sorted(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.file, problem.line))
