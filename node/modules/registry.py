"""Module ``registry``: reads and changes the cluster's registry from Lua.

Reads of the current version never wait. A snapshot stays what it was however the registry
moves on: the states of recent snapshots are kept, older ones are loaded from etcd. ``apply``
commits the operations as one changeset and returns when this node has applied it, so the next
``find`` sees it; entries that others changed since the snapshot are a Conflict.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import structlog

from cluster.envelope import to_text
from cluster.errors import Invalid, RegistryConflict
from cluster.registry import (
    Changeset,
    Create,
    Delete,
    Entry,
    Filter,
    Fold,
    Operation,
    RegistryState,
    Restored,
    Update,
    VersionInfo,
    VersionNotFound,
    build_delta,
    parse_operation,
)
from node.modules.contract import Answer, Caller, LuaError, Values, argument, invalid, lua_type, not_found, text
from node.modules.permits import Permits

log = structlog.get_logger("wippy.lua")

KEPT_STATES = 16
COMMIT_DEADLINE = timedelta(seconds=120)
"""Longer than a commit may take, so that it is the registry that says what became of it."""
KEPT_WARNINGS = 1000


class Registry(Protocol):
    """What the module needs of ``cluster.registry.Registry``."""

    @property
    def state(self) -> RegistryState: ...

    async def commit(
        self, operations: Sequence[Operation], author: str = "", message: str = "", base_version: int | None = None
    ) -> VersionInfo: ...

    async def versions(self) -> list[VersionInfo]: ...

    async def state_at(self, version: int) -> RegistryState: ...

    async def apply_version(
        self, version: int, author: str = "", permit: Callable[[Changeset], None] | None = None
    ) -> Restored: ...


class RegistryModule:
    """Python half of ``registry``."""

    name = "registry"
    deadlines: Mapping[str, timedelta | None] = {"apply": COMMIT_DEADLINE, "apply_version": COMMIT_DEADLINE}

    def __init__(self, registry: Registry, permits: Permits) -> None:
        self._registry = registry
        self._permits = permits
        self._states: OrderedDict[int, RegistryState] = OrderedDict()
        self._searching = asyncio.Lock()
        self._warned: set[tuple[str, str]] = set()
        self._functions: dict[str, Callable[[Caller, Values], Answer]] = {
            "get": self._get,
            "find": self._find,
            "snapshot": self._snapshot,
            "snapshot_at": self._snapshot_at,
            "current_version": self._current_version,
            "versions": self._versions,
            "get_version": self._get_version,
            "apply": self._apply,
            "apply_version": self._apply_version,
            "build_delta": self._build_delta,
        }

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        function = self._functions.get(fn)
        if function is None:
            raise invalid(f"registry has no function {fn!r}")
        with _refusals():
            return function(caller, args)

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"registry.{fn} wants an answer")

    def _get(self, caller: Caller, args: Values) -> Answer:
        id = text(argument(args, 0), "entry id")

        def look(state: RegistryState) -> Values:
            entry = state.get(id)
            if entry is None:
                raise not_found(f"no entry {id!r} in the registry at v{state.version}")
            return [_lua_entry(entry)]

        return self._read(argument(args, 1), look)

    def _find(self, caller: Caller, args: Values) -> Answer:
        wanted = Filter.parse(_text_keys(argument(args, 0)))
        self._warn(caller, wanted.ignored)

        def look(state: RegistryState) -> Values:
            return [[_lua_entry(entry) for entry in state.find(wanted)]]

        if wanted.matches_patterns:
            return self._search(argument(args, 1), look)
        return self._read(argument(args, 1), look)

    async def _search(self, version: Any, look: Callable[[RegistryState], Values]) -> Values:
        """A search that may take long: beside the event loop, one at a time, so that it holds up nobody else."""
        state = self._registry.state if version is None else await self._loaded(_number(version))
        async with self._searching:
            with _refusals():
                return await asyncio.to_thread(look, state)

    def _snapshot(self, caller: Caller, args: Values) -> Values:
        state = self._registry.state
        self._keep(state)
        return [state.version]

    async def _snapshot_at(self, caller: Caller, args: Values) -> Values:
        return [(await self._loaded(_number(argument(args, 0)))).version]

    def _current_version(self, caller: Caller, args: Values) -> Values:
        return [self._registry.state.version]

    async def _versions(self, caller: Caller, args: Values) -> Values:
        return [[info.version for info in await self._registry.versions()]]

    def _get_version(self, caller: Caller, args: Values) -> Answer:
        number = _number(argument(args, 0))
        if number == self._registry.state.version or number in self._states:
            return [number]
        return self._known_version(number)

    async def _known_version(self, number: int) -> Values:
        if number not in {info.version for info in await self._registry.versions()}:
            raise not_found(f"no version v{number} in the registry's history")
        return [number]

    async def _apply(self, caller: Caller, args: Values) -> Values:
        operations, base = argument(args, 0), argument(args, 1)
        if not isinstance(operations, list) or not operations:
            raise invalid("no changes to apply")
        with _refusals():
            parsed = [_operation(raw) for raw in operations]
            self._permits.check(caller, (operation.id for operation in parsed))
            info = await self._registry.commit(parsed, _author(caller), base_version=_number(base))
        return [info.version]

    async def _apply_version(self, caller: Caller, args: Values) -> Values:
        number = _number(argument(args, 0))

        def permit(changes: Changeset) -> None:
            self._permits.check(caller, changes.touched)

        with _refusals():
            restored = await self._registry.apply_version(number, _author(caller), permit)
        return [restored.version]

    def _build_delta(self, caller: Caller, args: Values) -> Values:
        before, after = ([Entry.parse(to_text(raw)) for raw in _list(argument(args, at))] for at in (0, 1))
        known = {entry.id: entry for entry in before}
        return [[_lua_operation(operation, known) for operation in build_delta(before, after).operations]]

    def _read(self, version: Any, look: Callable[[RegistryState], Values]) -> Answer:
        """``look`` at the state of a version, None for the current one; waits only for one that has to be loaded."""
        current = self._registry.state
        if version is None or version == current.version:
            return look(current)
        kept = self._states.get(_number(version))
        return look(kept) if kept is not None else self._load(_number(version), look)

    async def _load(self, version: int, look: Callable[[RegistryState], Values]) -> Values:
        return look(await self._loaded(version))

    async def _loaded(self, version: int) -> RegistryState:
        """The state of a version, kept for whoever asks for it again."""
        state = await self._state_at(version)
        self._keep(state)
        return state

    async def _state_at(self, version: int) -> RegistryState:
        if version == self._registry.state.version:
            return self._registry.state
        kept = self._states.get(version)
        if kept is not None:
            return kept
        with _refusals():
            return await self._registry.state_at(version)

    def _keep(self, state: RegistryState) -> None:
        self._states[state.version] = state
        self._states.move_to_end(state.version)
        while len(self._states) > KEPT_STATES:
            self._states.popitem(last=False)

    def _warn(self, caller: Caller, ignored: Sequence[str]) -> None:
        for key in ignored:
            if (caller.entry, key) in self._warned or len(self._warned) >= KEPT_WARNINGS:
                continue
            self._warned.add((caller.entry, key))
            log.warning(
                "registry.find ignores a key",
                key=key,
                use=f".{key} or meta.{key}",
                pid=caller.pid_text,
                entry=caller.entry,
            )


def _operation(raw: Any) -> Operation:
    """What a program may ask for; what operators lay over entries is not among it."""
    operation = parse_operation(to_text(raw))
    if isinstance(operation, Fold):
        raise invalid("expected entry.create, entry.update or entry.delete, got overlay")
    return operation


def _author(caller: Caller) -> str:
    return f"{caller.entry} {caller.pid_text}"


@contextmanager
def _refusals() -> Iterator[None]:
    """What the registry may refuse, as Lua sees it."""
    try:
        yield
    except Invalid as error:
        raise invalid(str(error), {"problems": [problem.as_dict() for problem in error.problems]}) from None
    except RegistryConflict as error:
        meanwhile = [version.as_dict() for version in error.meanwhile]
        details = {"head": error.head, "changed": list(error.changed), "meanwhile": meanwhile}
        raise LuaError("Conflict", str(error), retryable=True, details=details) from None
    except VersionNotFound as error:
        raise not_found(str(error)) from None


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise invalid(f"expected the number of a version, got {value!r}")
    return int(value)


def _list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if value == {}:
        return []
    raise invalid(f"expected a list of entries, got {lua_type(value)}")


def _text_keys(filter: Any) -> dict[str, Any]:
    if filter == []:
        return {}
    if not isinstance(filter, dict):
        raise invalid(f"expected a filter as a table of field and value, got {lua_type(filter)}")
    return {str(key): value for key, value in to_text(filter).items()}


def _lua_entry(entry: Entry) -> dict[str, Any]:
    return {"id": entry.id, "kind": entry.kind, "meta": entry.meta, "data": entry.data}


def _lua_operation(operation: Operation, before: Mapping[str, Entry]) -> dict[str, Any]:
    match operation:
        case Create(entry):
            return {"kind": "entry.create", "entry": _lua_entry(entry)}
        case Update(entry):
            return {"kind": "entry.update", "entry": _lua_entry(entry)}
        case Delete(id):
            return {"kind": "entry.delete", "entry": _lua_entry(before[id])}
        case _:
            raise AssertionError(f"a difference of entries has no {operation}")
