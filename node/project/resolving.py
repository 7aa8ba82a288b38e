"""Which copy of which module a project is to have: decided before anything is written.

Wanted is what the lock file pins, what the project's ``ns.dependency`` entries name, what was
asked for by name, and what those modules need in turn. Every version must satisfy all who name
the module. What can't be had is a problem that says where it was looked for, all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import Invalid, Problem
from node.kinds.plain import check_component
from node.project.contents import NoModule
from node.project.definitions import Definitions, Tree
from node.project.draft import Draft
from node.project.finding import (
    BUNDLED,
    NO_HUB,
    Module,
    bundled,
    bundled_names,
    local,
    replaced,
    vendor_folder,
    vendored,
)
from node.project.inline import shown_path
from node.project.layout import Layout, Pin
from node.project.modules import dependencies
from node.project.versions import satisfies

_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class Wish:
    """Somebody's word on the version of a module."""

    constraint: str
    by: str


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    added: Mapping[str, str] = field(default_factory=dict)
    """Components to pin anew, with a constraint each."""
    only: Sequence[str] = ()
    """Components to install; all when empty."""
    directory: Path | None = None
    """A directory of modules, or of one, that is looked at first."""
    refresh: bool = False
    """Take every module anew, whatever is there."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A module and where it comes from."""

    module: Module
    origin: str
    """``replaced``, ``there``, ``bundled`` or ``local``."""


def resolve(layout: Layout, request: Request) -> dict[str, Choice]:
    """One choice for each module the project is to have. Raises Invalid with every problem."""
    resolver = _Resolver(layout, request)
    choices = resolver.run()
    if problems := [*layout.problems, *resolver.problems]:
        raise Invalid(problems)
    return choices


class _Resolver:
    def __init__(self, layout: Layout, request: Request) -> None:
        self._layout = layout
        self._request = request
        self._needs: dict[Path, list[tuple[str, Wish]]] = {}
        self.problems: list[Problem] = []

    def run(self) -> dict[str, Choice]:
        base = self._root_wishes()
        if self.problems:
            return {}
        choices: dict[str, Choice] = {}
        for _ in range(_ROUNDS):
            wishes = {component: list(said) for component, said in base.items()}
            for choice in choices.values():
                for component, wish in self._needs_of(choice.module):
                    wishes.setdefault(component, []).append(wish)
            self.problems = []
            chosen = {component: self._choose(component, said) for component, said in wishes.items()}
            following = {component: choice for component, choice in chosen.items() if choice is not None}
            if following == choices:
                return choices
            choices = following
        unsettled = ", ".join(sorted(choices))
        self._complain(
            f"the versions of {unsettled} exclude each other in turn; name one: `wippy add ORG/MODULE@VERSION`"
        )
        return {}

    def _root_wishes(self) -> dict[str, list[Wish]]:
        layout, request = self._layout, self._request
        wishes: dict[str, list[Wish]] = {}
        for component in (*layout.replacements, *layout.pinned):
            wishes[component] = []
        if layout.source is not None:
            for component, wish in self._read(Tree(layout.source, layout.base), layout.root):
                wishes.setdefault(component, []).append(wish)
        for component, constraint in request.added.items():
            wishes.setdefault(component, []).append(Wish(constraint, "the command line"))
        for component in request.only:
            if component not in wishes:
                self._complain(f"{component} is not used here; `wippy add {component}` adds it")
        if request.only:
            wishes = {component: said for component, said in wishes.items() if component in request.only}
        return wishes

    def _needs_of(self, module: Module) -> list[tuple[str, Wish]]:
        known = self._needs.get(module.root)
        if known is None:
            tree = Tree(module.source, module.root, module.component, module.exclude)
            known = self._needs[module.root] = self._read(tree, self._layout.root)
        return known

    def _read(self, tree: Tree, shown: Path) -> list[tuple[str, Wish]]:
        definitions = Definitions(shown)
        definitions.read_tree(tree)
        self._layout.problems += definitions.problems
        return [_need(draft) for draft in dependencies(definitions) if not check_component(draft.data["component"])]

    def _choose(self, component: str, wishes: Sequence[Wish]) -> Choice | None:
        try:
            if wrong := check_component(component):
                raise NoModule(wrong)
            if (replacement := self._layout.replacements.get(component)) is not None:
                return Choice(replaced(component, replacement), "replaced")
            return self._best(component, wishes)
        except (NoModule, ValueError) as reason:
            self._complain(f"module {component}: {reason}")
            return None

    def _best(self, component: str, wishes: Sequence[Wish]) -> Choice:
        there = self._candidates(component)
        if not there:
            raise NoModule(self._nowhere(component))
        pin, lock, anew = self._pin(component), self._layout.lock, self._anew(component)
        pinned = [each for each in there if each.module.has_version(pin.version)]
        if not pinned:
            raise NoModule(f"{lock} pins {pin.version}, there is {self._seen(there)}; {anew}")
        unchanged = [each for each in pinned if not pin.hash or each.module.hash() == pin.hash]
        if not unchanged:
            raise NoModule(f"no copy is what {lock} pins by hash; there is {self._seen(pinned)}; {anew}")
        fitting = [each for each in unchanged if _fits(each.module.version or pin.version, wishes)]
        if not fitting:
            said = ", ".join(f"{wish.by} wants {wish.constraint}" for wish in wishes)
            raise NoModule(f"{said}; there is {self._seen(unchanged)}; {anew}")
        order = self._preference(component)
        return max(fitting, key=lambda each: (order[each.origin], each.module.order))

    def _preference(self, component: str) -> Mapping[str, int]:
        """The greatest wins, then the newest version, then the copy that is there already."""
        if self._request.refresh:
            return {"local": 2, "bundled": 1, "there": 0}
        if component in self._request.added:
            return {"local": 1, "there": 0, "bundled": 0}
        return {"there": 2, "local": 1, "bundled": 0}

    def _pin(self, component: str) -> Pin:
        none = Pin("", "")
        return none if component in self._request.added else self._layout.pinned.get(component, none)

    def _candidates(self, component: str) -> list[Choice]:
        found = [Choice(module, "there") for module in vendored(self._layout, component)]
        if self._request.directory is not None:
            found += [Choice(module, "local") for module in local(self._request.directory, component)]
        return found + [Choice(module, "bundled") for module in bundled(component)]

    def _nowhere(self, component: str) -> str:
        places = [shown_path(vendor_folder(self._layout, component), self._layout.root)]
        if self._request.directory is not None:
            places += [str(self._request.directory / component), f"{self._request.directory} itself"]
        where = ", ".join([*places, f"the modules bundled with wippy ({', '.join(bundled_names())})"])
        return (
            f"not found in {where}, and no replacement is named; {NO_HUB}: get the module, and name its directory "
            "with --from"
        )

    def _seen(self, choices: Sequence[Choice]) -> str:
        named = [(each.module.version or "one without version", self._origin(each)) for each in choices]
        return " and ".join(f"{version} ({origin})" for version, origin in named)

    def _origin(self, choice: Choice) -> str:
        inside = choice.module.root.is_relative_to(BUNDLED)
        return "bundled" if inside else shown_path(choice.module.root, self._layout.root)

    def _anew(self, component: str) -> str:
        return f"`wippy add {component}` pins another ({NO_HUB}; --from names a directory)"

    def _complain(self, message: str) -> None:
        self.problems.append(Problem(message, file=self._layout.lock))


def _need(draft: Draft) -> tuple[str, Wish]:
    return draft.data["component"], Wish(str(draft.data.get("version") or "*"), draft.id)


def _fits(version: str, wishes: Sequence[Wish]) -> bool:
    """A copy that says no version satisfies everybody. Raises ValueError for a malformed constraint."""
    told = [satisfies(version or "0", wish.constraint) for wish in wishes]
    return all(told) or not version
