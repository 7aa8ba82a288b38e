"""What entries say of each other: references that must lead somewhere, names that must be unique.

Pure functions over the entries of one would-be registry state and their models. An entry
without a model, being too broken, is not asked about its references, and counts as present
for those of others, so that one mistake gives one problem.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from cluster.errors import Problem
from cluster.registry.entry import Entry
from cluster.registry.order import references
from node.kinds.commands import command_problems, commands
from node.kinds.env import RouterStorage, Variable
from node.kinds.hosts import ProcessHost, TerminalHost
from node.kinds.lifecycle import Lifecycle
from node.kinds.lua import Code
from node.kinds.model import KindModel
from node.kinds.placeholders import needed_variables
from node.kinds.service import ProcessService
from node.kinds.store import ClusterStore, MemoryStore, ReplicatedStore
from node.kinds.supervisor import ProcessSupervisor, Template
from node.kinds.table import KINDS
from node.spelling import did_you_mean

Pairs = Mapping[str, tuple[Entry, KindModel | None]]

_HOSTS = frozenset(name for name, kind in KINDS.items() if kind.host)
_IMPORTABLE = frozenset(name for name, kind in KINDS.items() if kind.importable)
_STORAGES = frozenset(name for name in KINDS if name.startswith("env.storage."))
_SUPERVISED = frozenset({"process.lua", "process.supervisor"})
_PLACED = frozenset({"process.service", "process.supervisor"})
_STARTED = frozenset({"store.memory", "store.kv.raft", "store.kv.crdt", "pg.scope"}) | _PLACED | _HOSTS


def relation_problems(pairs: Pairs, excused: Callable[[str], bool]) -> list[Problem]:
    """Everything wrong between the entries in ``pairs``."""
    references = _References(pairs, excused)
    found = [problem for entry, model in pairs.values() for problem in references.problems(entry, model)]
    found += _missing_variables(pairs, excused)
    found += _cycles("imports", _imports(pairs))
    found += _cycles("storages", _routes(pairs))
    found += _cycles("lifecycle.requires", _requirements(pairs))
    found += _cycles("children", _supervised(pairs))
    said = {problem.message for problem in found}
    found += [circle for circle in _cycles("", _named(pairs)) if circle.message not in said]
    return found + _same_variables(pairs) + _same_commands(pairs)


class _References:
    def __init__(self, pairs: Pairs, excused: Callable[[str], bool]) -> None:
        self._pairs = pairs
        self._excused = excused

    def problems(self, entry: Entry, model: KindModel | None) -> Iterator[Problem]:
        match model:
            case ProcessService():
                yield from self._one(entry, "process", model.process, {"process.lua"}, "a process.lua entry")
                yield from self._one(entry, "host", model.host, _HOSTS, "a process.host entry")
                yield from self._lifecycle(entry, model.lifecycle)
            case ProcessSupervisor():
                for position, child in enumerate(model.children or ()):
                    yield from self._child(entry, f"children.{position}.", child)
                if model.template is not None:
                    yield from self._child(entry, "template.", model.template)
                yield from self._lifecycle(entry, model.lifecycle)
            case ProcessHost() | TerminalHost() | MemoryStore() | ClusterStore() | ReplicatedStore():
                yield from self._lifecycle(entry, model.lifecycle)
            case Code():
                for alias, target in model.imports.items():
                    if not target.startswith(":"):
                        expected = "a library.lua, function.lua or process.lua entry"
                        yield from self._one(entry, f"imports.{alias}", target, _IMPORTABLE, expected)
            case Variable():
                yield from self._one(entry, "storage", model.storage, _STORAGES, "an env.storage entry")
            case RouterStorage():
                for position, storage in enumerate(model.storages):
                    yield from self._one(entry, f"storages.{position}", storage, _STORAGES, "an env.storage entry")
            case _:
                pass

    def _child(self, entry: Entry, path: str, child: Template) -> Iterator[Problem]:
        yield from self._one(entry, f"{path}process", child.process, _SUPERVISED, "a process.lua or process.supervisor")
        yield from self._one(entry, f"{path}host", child.host, _HOSTS, "a process.host entry")
        target = self._pairs.get(child.process)
        if target is None:
            return
        if target[0].kind == "process.lua" and child.host is None:
            yield Problem("is required and missing; name the process.host it runs on", entry.id, f"{path}host")
        if target[0].kind == "process.supervisor" and child.host is not None:
            yield Problem("a supervisor runs on no host; remove it", entry.id, f"{path}host")

    def _lifecycle(self, entry: Entry, lifecycle: Lifecycle) -> Iterator[Problem]:
        for field, ids in (("requires", lifecycle.requires), ("depends_on", lifecycle.depends_on)):
            for position, id in enumerate(ids):
                expected = "an entry that is started"
                yield from self._one(entry, f"lifecycle.{field}.{position}", id, _STARTED, expected)

    def _one(
        self, entry: Entry, field: str, id: str | None, kinds: Collection[str], expected: str
    ) -> Iterator[Problem]:
        if id is None:
            return  # missing or wrong, which was said already
        target = self._pairs.get(id)
        if target is None:
            if not self._excused(id):
                near = did_you_mean(id, [other for other, (found, _) in self._pairs.items() if found.kind in kinds])
                yield Problem(f"there is no entry {id}; expected {expected}{near}", entry.id, field)
        elif target[0].kind not in kinds and target[0].kind in KINDS:
            yield Problem(f"{id} is of kind {target[0].kind}; expected {expected}", entry.id, field)


def _imports(pairs: Pairs) -> dict[str, list[str]]:
    return {id: list(model.imports.values()) for id, (_, model) in pairs.items() if isinstance(model, Code)}


def _routes(pairs: Pairs) -> dict[str, list[str]]:
    return {id: model.storages for id, (_, model) in pairs.items() if isinstance(model, RouterStorage)}


def _supervised(pairs: Pairs) -> dict[str, list[str]]:
    return {
        id: [child.process for child in (*(model.children or ()), *filter(None, [model.template])) if child.process]
        for id, (_, model) in pairs.items()
        if isinstance(model, ProcessSupervisor)
    }


def _requirements(pairs: Pairs) -> dict[str, list[str]]:
    placed = (ProcessService, ProcessSupervisor)
    return {id: list(model.lifecycle.required) for id, (_, model) in pairs.items() if isinstance(model, placed)}


def _named(pairs: Pairs) -> dict[str, list[str]]:
    """All that entries which are brought about name anywhere; code and what applications read by themselves aside."""
    brought = [
        entry for entry, _ in pairs.values() if (kind := KINDS.get(entry.kind)) and kind.applied and not kind.code
    ]
    variables = {
        entry.data["variable"]: entry.id
        for entry in brought
        if entry.kind == "env.variable" and isinstance(entry.data, dict) and isinstance(entry.data.get("variable"), str)
    }
    return {
        entry.id: sorted({variables.get(name, name) for name in references(entry)} & pairs.keys() - {entry.id})
        for entry in brought
    }


def _cycles(field: str, edges: Mapping[str, list[str]]) -> list[Problem]:
    """One problem for each circle met, naming it from its smallest id on."""
    circles: set[tuple[str, ...]] = set()
    done: set[str] = set()
    for start in sorted(edges):
        _walk(start, edges, done, circles)
    return [
        Problem(f"in a circle: {' -> '.join((*circle, circle[0]))}", entry=circle[0], field=field)
        for circle in sorted(circles)
    ]


def _walk(start: str, edges: Mapping[str, list[str]], done: set[str], circles: set[tuple[str, ...]]) -> None:
    """Depth first, without recursion: chains of imports may be long."""
    path: list[str] = []
    waiting: list[tuple[str, Iterator[str]]] = []
    on_path: dict[str, int] = {}

    def enter(id: str) -> None:
        on_path[id] = len(path)
        path.append(id)
        waiting.append((id, iter(edges.get(id, ()))))

    if start in done:
        return
    enter(start)
    while waiting:
        id, following = waiting[-1]
        target = next(following, None)
        if target is None:
            waiting.pop()
            path.pop()
            del on_path[id]
            done.add(id)
        elif target in on_path:
            circles.add(_from_smallest(path[on_path[target] :]))
        elif target in edges and target not in done:
            enter(target)


def _from_smallest(circle: list[str]) -> tuple[str, ...]:
    first = circle.index(min(circle))
    return (*circle[first:], *circle[:first])


def _missing_variables(pairs: Pairs, excused: Callable[[str], bool]) -> list[Problem]:
    """Placeholders without a default, in entries that are decoded for use, that name no variable."""
    variables = [entry for entry, _ in pairs.values() if entry.kind == "env.variable" and isinstance(entry.data, dict)]
    names = [entry.data.get("variable") for entry in variables]
    declared = {entry.id for entry in variables} | {name for name in names if isinstance(name, str)}
    found = []
    for id, (entry, _) in pairs.items():
        kind = KINDS.get(entry.kind)
        if kind is None or not kind.applied or kind.code or not isinstance(entry.data, dict):
            continue
        for path, name in needed_variables(entry.data, kind.model.raw_fields):
            if name not in declared and not excused(name):
                near = did_you_mean(name, declared)
                message = f"there is no variable {name}{near}; declare it with an env.variable entry, or give a default"
                found.append(Problem(message, id, path))
    return found


def _same_variables(pairs: Pairs) -> list[Problem]:
    owners: dict[str, str] = {}
    found = []
    for id, (_, model) in sorted(pairs.items()):
        if isinstance(model, Variable) and model.variable is not None:
            owner = owners.setdefault(model.variable, id)
            if owner != id:
                found.append(Problem(f"variable {model.variable} is declared by {owner} already", id, "variable"))
    return found


def _same_commands(pairs: Pairs) -> list[Problem]:
    owners: dict[str, str] = {}
    found = []
    for command in commands(entry for entry, _ in pairs.values() if not command_problems(entry)):
        owner = owners.setdefault(command.name, command.entry)
        if owner != command.entry:
            found.append(
                Problem(f"command {command.name} is declared by {owner} already", command.entry, "meta.command.name")
            )
    return found
