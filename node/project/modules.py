"""The modules a project uses: found, read, and theirs in turn.

A module is used when an ``ns.dependency`` names it, the lock file pins it, or a replacement
stands for it. Each is read once. What one of them needs and is not on this machine is a
problem that says where it was looked for.
"""

from __future__ import annotations

from collections.abc import Iterator

from cluster.errors import Problem
from node.kinds.plain import check_component
from node.project.definitions import Definitions, Tree
from node.project.draft import Draft
from node.project.finding import Module, find_module
from node.project.layout import Layout
from node.project.versions import satisfies

DEPENDENCY = "ns.dependency"


def read_modules(definitions: Definitions, layout: Layout) -> list[Module]:
    """Read all modules in use into ``definitions``, those they use included."""
    reader = _Reader(definitions, layout)
    for component in (*layout.replacements, *layout.pinned):
        reader.read(component, None)
    # a module read may bring dependencies of its own
    seen: set[str] = set()
    while following := [draft for draft in dependencies(definitions) if draft.id not in seen]:
        for draft in following:
            seen.add(draft.id)
            reader.read(draft.data["component"], draft)
    return reader.modules


def dependencies(definitions: Definitions) -> Iterator[Draft]:
    """The drafts that name a component."""
    for draft in definitions.drafts.values():
        if draft.kind == DEPENDENCY and isinstance(draft.data.get("component"), str):
            yield draft


class _Reader:
    def __init__(self, definitions: Definitions, layout: Layout) -> None:
        self._definitions = definitions
        self._layout = layout
        self._found: dict[str, Module | None] = {}

    @property
    def modules(self) -> list[Module]:
        return [module for module in self._found.values() if module is not None]

    def read(self, component: str, asked_by: Draft | None) -> None:
        """Read a component once, and check each time that its version suits who asks."""
        if check_component(component):
            return  # said where it was written
        if component not in self._found:
            self._found[component] = self._find(component, asked_by)
        module = self._found[component]
        if module is not None and asked_by is not None:
            self._check_version(module, asked_by)

    def _find(self, component: str, asked_by: Draft | None) -> Module | None:
        found = find_module(self._layout, component)
        if isinstance(found, str):
            message = f"module {component} can't be loaded: {found}"
            problem = (
                Problem(message, file=self._layout.lock) if asked_by is None else asked_by.problem(message, "component")
            )
            self._definitions.problems.append(problem)
            self._definitions.missing_modules.add(component)
            return None
        self._definitions.read_tree(Tree(found.source, found.root, component, found.exclude))
        return found

    def _check_version(self, module: Module, asked_by: Draft) -> None:
        constraint = asked_by.data.get("version", "*")
        if not isinstance(constraint, str) or not module.version or module.component in self._layout.replacements:
            return
        try:
            fits = satisfies(module.version, constraint)
        except ValueError as error:
            self._definitions.problems.append(asked_by.problem(str(error), "version"))
            return
        if not fits:
            message = f"module {module.component} is here in version {module.version}, which {constraint} excludes"
            self._definitions.problems.append(asked_by.problem(message, "version"))
