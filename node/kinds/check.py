"""Whether a set of entries can be run: each entry by itself, then what they say of each other.

``Checker`` is the pure validator of the registry: given all entries of a would-be state it
returns every problem at once. What it finds in one entry is remembered by content, so that
checking again after a small change costs only the change. Warnings are apart: they keep
nothing from running.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from cluster.errors import Problem
from cluster.registry.entry import Entry
from node.kinds.code import GLOBALS, required_names, syntax_problem
from node.kinds.commands import command_problems
from node.kinds.decode import examine
from node.kinds.lua import Code
from node.kinds.model import KindModel
from node.kinds.relations import relation_problems
from node.kinds.table import KINDS, refused_kind
from node.spelling import did_you_mean

LATER_MODULES = frozenset(
    (
        "archive", "base64", "cdc", "cloudstorage", "compress", "contract", "crypto", "ctx", "eval_runner", "excel",
        "exec", "expr", "fs", "hash", "html", "http", "http_client", "hub", "metrics", "pg", "queue", "security",
        "sql", "system", "templates", "text", "treesitter", "tty", "uuid", "websocket", "workflow", "yaml",
    )
)  # fmt: skip
"""Modules of the original that some version of this runtime does not have."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of one entry by itself."""

    entry: Entry
    model: KindModel | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


class Checker:
    """Checks entries. ``modules`` are the names ``require`` knows in this build; None leaves them unchecked."""

    def __init__(self, modules: Collection[str] | None = None) -> None:
        self._modules = None if modules is None else frozenset(modules) | GLOBALS
        self._known: dict[str, Examined] = {}

    def problems(self, entries: Iterable[Entry], excused: Callable[[str], bool] = lambda _: False) -> list[Problem]:
        """Everything that keeps ``entries`` from running, as one registry.

        References to ids that ``excused`` accepts are not missed: they exist but could not be read.
        """
        examined = self._examine_all(entries)
        found = [problem for each in examined.values() for problem in each.problems]
        return found + relation_problems({id: (each.entry, each.model) for id, each in examined.items()}, excused)

    def warnings(self, entries: Iterable[Entry]) -> list[Problem]:
        """What looks like a mistake and keeps nothing from running."""
        return [warning for each in self._examine_all(entries).values() for warning in each.warnings]

    def entry(self, entry: Entry) -> list[Problem]:
        """Everything wrong with one entry by itself."""
        return list(self._examine(entry).problems)

    def _examine_all(self, entries: Iterable[Entry]) -> Mapping[str, Examined]:
        self._known = {entry.id: self._examine(entry) for entry in entries}
        return self._known

    def _examine(self, entry: Entry) -> Examined:
        known = self._known.get(entry.id)
        if known is not None and (known.entry is entry or known.entry.same_content(entry)):
            return known
        if problems := entry.problems():
            return Examined(entry, None, tuple(problems), ())
        if refused := refused_kind(entry.kind):
            return Examined(entry, None, (Problem(refused, entry.id, "kind"),), ())
        model, problems = examine(entry)
        problems += command_problems(entry)
        warnings: list[Problem] = []
        if KINDS[entry.kind].code:
            problems += self._code_problems(entry)
            warnings = [] if model is None or problems else self._undeclared(entry, model)
        return Examined(entry, model, tuple(problems), tuple(warnings))

    def _code_problems(self, entry: Entry) -> list[Problem]:
        """Read from the data, not the model: one bad field must not hide what is wrong with the others."""
        data = entry.data if isinstance(entry.data, dict) else {}
        source, modules = data.get("source"), data.get("modules")
        listed = modules if isinstance(modules, list) else []
        found = [self._unknown_module(entry.id, name, position) for position, name in enumerate(listed)]
        if isinstance(source, str):
            found.append(syntax_problem(entry, source))
        return [problem for problem in found if problem is not None]

    def _unknown_module(self, entry: str, name: object, position: int) -> Problem | None:
        if self._modules is None or not isinstance(name, str) or name in self._modules:
            return None
        if name in LATER_MODULES:
            message = f"module {name} is not supported by this version yet"
        else:
            message = f"unknown module {name!r}{did_you_mean(name, self._modules | LATER_MODULES)}"
        return Problem(message, entry, f"modules.{position}")

    def _undeclared(self, entry: Entry, model: KindModel) -> list[Problem]:
        assert isinstance(model, Code)
        declared = GLOBALS | set(model.modules) | set(model.imports)
        return [
            Problem(f"require({name!r}) fails unless modules or imports list it", entry.id, "source", entry.id, line)
            for name, line in required_names(entry, model.source).items()
            if name not in declared
        ]


def check_state(entries: Iterable[Entry], modules: Collection[str] | None = None) -> list[Problem]:
    """``Checker.problems`` for one time."""
    return Checker(modules).problems(entries)


def check_entry(entry: Entry, modules: Collection[str] | None = None) -> list[Problem]:
    """``Checker.entry`` for one time."""
    return Checker(modules).entry(entry)
