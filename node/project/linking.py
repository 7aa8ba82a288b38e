"""Values for what modules require, written into the entries that need them.

An ``ns.requirement`` is a hole: a name, targets, perhaps a default (null is none). An
``ns.dependency`` fills holes of the component it names (bare parameter names) or any hole (full
ids). A parameter wins over the default, one of the project's own over one of a module; two
values for one hole are a conflict. A hole that stays open is a warning, or a problem when
requirements are strict.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import Problem
from cluster.registry.entry import split_id, with_default_ns
from cluster.registry.value import same
from node.project.draft import Draft
from node.project.inline import PREFIX, holds_document
from node.project.modules import DEPENDENCY
from node.project.paths import append, assign
from node.spelling import did_you_mean

REQUIREMENT = "ns.requirement"
_APPEND = "+="


@dataclass(frozen=True, slots=True)
class _Value:
    """A parameter that fills a requirement."""

    value: Any
    dependency: Draft


@dataclass(slots=True)
class Linked:
    """What linking found."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def link(
    drafts: Mapping[str, Draft],
    absent: Collection[str] = (),
    *,
    strict: bool = False,
    excused: Callable[[str], bool] = lambda _: False,
) -> Linked:
    """Write the value of every requirement into its targets.

    ``absent`` are ids left out on purpose; ``excused`` says which may exist and could not be read.
    ``strict`` makes a problem of a requirement that gets no value.
    """
    linker = _Linker(drafts, lambda id: id in absent or excused(id), strict)
    linker.check_roots()
    for draft in drafts.values():
        if draft.kind == REQUIREMENT:
            linker.fill(draft)
    linker.check_parameters()
    return linker.result


class _Linker:
    def __init__(self, drafts: Mapping[str, Draft], may_lack: Callable[[str], bool], strict: bool) -> None:
        self._drafts = drafts
        self._may_lack = may_lack
        self._strict = strict
        self._dependencies = [draft for draft in drafts.values() if draft.kind == DEPENDENCY]
        self._used: set[tuple[str, str]] = set()
        self.result = Linked()

    def check_roots(self) -> None:
        """The project itself may name a component only once."""
        first: dict[Any, Draft] = {}
        for dependency in self._dependencies:
            component = dependency.data.get("component")
            if dependency.module == "" and isinstance(component, str):
                owner = first.setdefault(component, dependency)
                if owner is not dependency:
                    message = f"component {component} is declared by {owner.id} already"
                    self.result.problems.append(dependency.problem(message, "component"))

    def fill(self, requirement: Draft) -> None:
        values = self._values(requirement)
        if any(not same(each.value, values[0].value) for each in values[1:]):
            said = ", ".join(f"{each.dependency.id} says {each.value!r}" for each in values)
            self.result.problems.append(requirement.problem(f"is given different values: {said}"))
        elif values:
            self._write(requirement, values[0].value)
        elif requirement.data.get("default") is not None:
            self._write(requirement, requirement.data["default"])
        else:
            self._leave_open(requirement)

    def _leave_open(self, requirement: Draft) -> None:
        name = split_id(requirement.id)[1] if requirement.module else requirement.id
        where = f"of {requirement.module}" if requirement.module else "that is used"
        message = f"has no default and gets no value; give parameter {name} in the ns.dependency {where}"
        found = self.result.problems if self._strict else self.result.warnings
        found.append(requirement.problem(message if self._strict else f"{message}; its targets stay as they are"))

    def _values(self, requirement: Draft) -> list[_Value]:
        found = []
        for dependency in self._dependencies:
            for name, value in parameters(dependency):
                if _fills(name, dependency, requirement):
                    self._used.add((dependency.id, name))
                    found.append(_Value(value, dependency))
        own = [each for each in found if each.dependency.module == ""]
        return own or found

    def _write(self, requirement: Draft, value: Any) -> None:
        targets = requirement.data.get("targets")
        for position, target in enumerate(targets if isinstance(targets, list) else []):
            match target:
                case {"entry": str(entry), "path": str(path)}:
                    if wrong := self._write_to(with_default_ns(entry, requirement.ns), path, value, requirement.id):
                        self.result.problems.append(requirement.problem(wrong, f"targets.{position}"))

    def _write_to(self, id: str, path: str, value: Any, requirement: str) -> str:
        draft = self._drafts.get(id)
        if draft is None:
            return "" if self._may_lack(id) else f"there is no entry {id}{did_you_mean(id, self._drafts)}"
        change = append if path.endswith(_APPEND) else assign
        path = path.removesuffix(_APPEND).strip().removeprefix(".")
        if isinstance(value, str) and value.startswith(PREFIX) and holds_document(draft.kind, path):
            return f"{value} is not read: which directory it starts from can't be told; give the text, or an override"
        return change(draft, path, value, f"requirement {requirement}")

    def check_parameters(self) -> None:
        """A parameter that fills nothing is worth a word."""
        holes = [draft for draft in self._drafts.values() if draft.kind == REQUIREMENT]
        for dependency in self._dependencies:
            component = dependency.data.get("component")
            names = [split_id(hole.id)[1] for hole in holes if hole.module == component]
            for name, _ in parameters(dependency):
                if (dependency.id, name) not in self._used:
                    message = f"parameter {name} fills no requirement of {component}{did_you_mean(name, names)}"
                    self.result.warnings.append(dependency.problem(message, "parameters"))


def parameters(dependency: Draft) -> list[tuple[str, Any]]:
    """The names and values an ``ns.dependency`` gives, as far as they are well formed."""
    raw = dependency.data.get("parameters")
    well_formed = [each for each in (raw if isinstance(raw, list) else []) if isinstance(each, dict)]
    return [(each["name"], each.get("value")) for each in well_formed if isinstance(each.get("name"), str)]


def _fills(name: str, dependency: Draft, requirement: Draft) -> bool:
    """Whether a parameter is meant for a requirement. A module is known by its name and as the namespace
    ``organization.module``."""
    component = dependency.data.get("component")
    namespace = component.replace("/", ".") if isinstance(component, str) else ""
    own = component == requirement.module or namespace == requirement.ns
    given, _, bare = name.rpartition(":")
    if given:
        return name == requirement.id or (bare == split_id(requirement.id)[1] and given == namespace and own)
    return own and name == split_id(requirement.id)[1]
