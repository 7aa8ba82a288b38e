"""Values for what modules require, written into the entries that need them.

An ``ns.requirement`` is a hole: a name, targets, perhaps a default. An ``ns.dependency`` fills
holes of the component it names (bare parameter names) or any hole (full ids). A parameter
wins over the default, one of the project's own over one of a module; two values for one hole
are a conflict. Nothing here refuses a hole that stays open: that is a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import Problem
from cluster.registry.entry import split_id, with_default_ns
from cluster.registry.value import same
from node.project.draft import Draft
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


def link(drafts: Mapping[str, Draft], absent: Collection[str] = ()) -> Linked:
    """Write the value of every requirement into its targets. ``absent`` are ids left out on purpose."""
    linker = _Linker(drafts, absent)
    linker.check_roots()
    for draft in drafts.values():
        if draft.kind == REQUIREMENT:
            linker.fill(draft)
    linker.check_parameters()
    return linker.result


class _Linker:
    def __init__(self, drafts: Mapping[str, Draft], absent: Collection[str]) -> None:
        self._drafts = drafts
        self._absent = absent
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
        elif "default" in requirement.data:
            self._write(requirement, requirement.data["default"])
        else:
            message = "has no default and no dependency gives it a value; its targets stay as they are"
            self.result.warnings.append(requirement.problem(message))

    def _values(self, requirement: Draft) -> list[_Value]:
        found = []
        for dependency in self._dependencies:
            for name, value in _parameters(dependency):
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
            return "" if id in self._absent else f"there is no entry {id}{did_you_mean(id, self._drafts)}"
        change = append if path.endswith(_APPEND) else assign
        return change(draft, path.removesuffix(_APPEND).strip().removeprefix("."), value, f"requirement {requirement}")

    def check_parameters(self) -> None:
        """A parameter that fills nothing is worth a word."""
        holes = [draft for draft in self._drafts.values() if draft.kind == REQUIREMENT]
        for dependency in self._dependencies:
            component = dependency.data.get("component")
            names = [split_id(hole.id)[1] for hole in holes if hole.module == component]
            for name, _ in _parameters(dependency):
                if (dependency.id, name) not in self._used:
                    message = f"parameter {name} fills no requirement of {component}{did_you_mean(name, names)}"
                    self.result.warnings.append(dependency.problem(message, "parameters"))


def _parameters(dependency: Draft) -> list[tuple[str, Any]]:
    raw = dependency.data.get("parameters")
    well_formed = [each for each in (raw if isinstance(raw, list) else []) if isinstance(each, dict)]
    return [(each["name"], each.get("value")) for each in well_formed if isinstance(each.get("name"), str)]


def _fills(name: str, dependency: Draft, requirement: Draft) -> bool:
    if ":" in name:
        return name == requirement.id
    return name == split_id(requirement.id)[1] and dependency.data.get("component") == requirement.module
