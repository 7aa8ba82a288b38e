"""The order in which entries are brought up: what is used before its users.

An entry names others in known places of its metadata and data (a service its process, a
router its server). ``references`` finds them; ``creation_order`` sorts by them, and deleting
goes in reverse. References that lead nowhere and cycles are no matter here: what must exist is
for the kinds to say, and a cycle is cut at its smallest id, the same on every node.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cluster.registry.entry import Entry, with_default_ns

_META = [
    "server",
    "router",
    "parent",
    "groups",
    "depends_on",
    "*_env",
    "temporal.workflow.worker",
    "temporal.activity.worker",
]
_DATA = [
    "server",
    "router",
    "func",
    "process",
    "host",
    "children.process",
    "children.host",
    "template.process",
    "template.host",
    "queue",
    "driver",
    "dead_letter.queue",
    "store",
    "storage",
    "storages",
    "set",
    "fs",
    "env",
    "config",
    "bucket",
    "client",
    "network",
    "database",
    "imports.*",
    "contracts.contract",
    "contracts.methods.*",
    "contracts.*.contract",
    "contracts.*.methods.*",
    "token_store",
    "security.*",
    "middleware",
    "post_middleware",
    "groups",
    "lifecycle.requires",
    "lifecycle.depends_on",
    "lifecycle.security.policies",
    "lifecycle.security.groups",
    "*_env",
    "tls.*_env",
]
_PLACEHOLDER = re.compile(r"(?<!\$)\$\{(?:env:)?([^}|]+)")


def references(entry: Entry) -> list[str]:
    """The ids an entry names, relative ones completed with its own namespace, and the names of
    environment variables as they stand. Not every one need be an entry."""
    found = [*_at_paths(entry.meta, _META), *_at_paths(entry.data, _DATA)]
    named = [with_default_ns(text, entry.ns) for text in found]
    return list(dict.fromkeys([*named, *found, *_placeholders(entry.data)]))


def _at_paths(value: Any, paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        yield from _walk(value, path.split("."))


def _walk(value: Any, steps: list[str]) -> Iterator[str]:
    """The references at the end of ``steps``; a list on the way stands for each of its items."""
    match value:
        case list():
            for item in value:
                yield from _walk(item, steps)
        case str() if value and not steps:
            yield value
        case {"name": str() as name, **rest} if not steps and rest.keys() <= {"ns"}:
            yield f"{rest.get('ns', '')}:{name}"
        case dict() if steps:
            step, below = steps[0], steps[1:]
            for key in _matching(value, step):
                yield from _walk(value[key], below)


def _matching(value: Mapping[str, Any], step: str) -> list[str]:
    if step.startswith("*"):
        return [key for key in value if key.endswith(step[1:])]
    return [step] if step in value else []


def _placeholders(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text if "${" in text:
                yield from _PLACEHOLDER.findall(text)
            case list() as items:
                waiting += items
            case dict() as mapping:
                waiting += mapping.values()


def creation_order(entries: Iterable[Entry]) -> list[str]:
    """The ids of ``entries``, each after those among them that it names; ties by id."""
    by_id = {entry.id: entry for entry in entries}
    variables = {
        entry.data["variable"]: entry.id
        for entry in by_id.values()
        if entry.kind == "env.variable" and isinstance(entry.data, dict) and isinstance(entry.data.get("variable"), str)
    }
    needs = {id: _needs(entry, by_id, variables) for id, entry in by_id.items()}
    users: dict[str, list[str]] = {id: [] for id in by_id}
    for id, needed in needs.items():
        for other in needed:
            users[other].append(id)
    return _sorted(needs, users)


def _needs(entry: Entry, present: Mapping[str, Entry], variables: Mapping[str, str]) -> set[str]:
    named = {variables.get(text, text) for text in references(entry)}
    return {id for id in named if id in present and id != entry.id}


def _sorted(needs: dict[str, set[str]], users: dict[str, list[str]]) -> list[str]:
    ready = [id for id, needed in needs.items() if not needed]
    heapq.heapify(ready)
    blocked = sorted(needs, reverse=True)
    order: list[str] = []
    done: set[str] = set()
    while len(order) < len(needs):
        while not ready and blocked[-1] in done:
            blocked.pop()
        id = heapq.heappop(ready) if ready else _cut(blocked[-1], needs)
        done.add(id)
        order.append(id)
        for user in users[id]:
            needs[user].discard(id)
            if not needs[user] and user not in done:
                heapq.heappush(ready, user)
    return order


def _cut(start: str, needs: dict[str, set[str]]) -> str:
    """The smallest id of a cycle that ``start`` waits for."""
    path = [start]
    while (following := min(needs[path[-1]])) not in path:
        path.append(following)
    return min(path[path.index(following) :])
