"""The env registry of a node: named variables over storages, as the entries ``env.*`` declare them.

The ``env`` module of Lua and the placeholders in entries read it. A variable has a public
name, or only the id of its entry, and its value comes from a storage: memory, the operating
system, values in the entry, a file, or several of these in turn. ``converge`` makes it what
the entries say; values in memory survive that. A storage that can't be had keeps its former
self, and ``converge`` says why. Expected failures are ``EnvError``s whose ``kind`` is that of Lua.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from cluster.errors import ClusterError, Invalid
from cluster.registry.entry import Entry
from node.envfile import EnvFile
from node.kinds import (
    KINDS,
    FileStorage,
    KindModel,
    MemoryStorage,
    OsStorage,
    RouterStorage,
    StaticStorage,
    Variable,
    decode,
)

ENV_KINDS = frozenset(name for name in KINDS if name.startswith("env."))


class EnvError(ClusterError):
    """What the caller asked for can't be had."""

    kind: ClassVar[str] = "Internal"


class NotFound(EnvError):
    """No such variable, no value, or its storage is missing."""

    kind = "NotFound"


class PermissionDenied(EnvError):
    """The variable or its storage is read only."""

    kind = "PermissionDenied"


class BadName(EnvError, ValueError):
    """An empty name, or a value that is no text."""

    kind = "Invalid"


class StorageFailed(EnvError):
    """The file behind a storage can't be read or written."""

    kind = "Unavailable"


class Storage(Protocol):
    """Where values are kept."""

    def read(self, key: str) -> str | None: ...

    def write(self, key: str, value: str) -> None:
        """Raises PermissionDenied when it is read only."""
        ...


@dataclass(frozen=True, slots=True)
class _Named:
    """A variable and the key of its value in the storage."""

    id: str
    model: Variable

    @property
    def key(self) -> str:
        return self.model.variable or self.id.partition(":")[2]


class EnvRegistry:
    """Variables by public name and by entry id. ``environ`` is what ``env.storage.os`` shows."""

    def __init__(self, environ: Mapping[str, str], directory: Path) -> None:
        self._environ = environ
        self._directory = directory
        self._storages: dict[str, Storage] = {}
        self._models: dict[str, KindModel] = {}
        self._variables: dict[str, _Named] = {}

    def converge(self, entries: Iterable[Entry]) -> dict[str, str]:
        """Become what the ``env.*`` entries among ``entries`` say. Returns what could not be done: id -> reason."""
        mine = [entry for entry in entries if entry.kind in ENV_KINDS]
        failed = self._take(mine)
        # an entry may use a variable that another one of them has just declared
        return self._take(mine) if failed else failed

    def _take(self, entries: list[Entry]) -> dict[str, str]:
        models, failed = self._decoded(entries)
        storages: dict[str, Storage] = {}
        for id, model in models.items():
            if not isinstance(model, Variable):
                try:
                    storages[id] = self._storage(id, model)
                except OSError as error:
                    failed[id] = str(error)
                    if id in self._storages:
                        storages[id] = self._storages[id]
        self._models, self._storages = models, storages
        self._variables = _by_name({id: model for id, model in models.items() if isinstance(model, Variable)})
        return failed

    def _decoded(self, entries: list[Entry]) -> tuple[dict[str, KindModel], dict[str, str]]:
        models: dict[str, KindModel] = {}
        failed: dict[str, str] = {}
        for entry in entries:
            try:
                models[entry.id] = decode(entry, self.lookup)
            except Invalid as error:
                failed[entry.id] = str(error)
                if entry.id in self._models:
                    models[entry.id] = self._models[entry.id]
        return models, failed

    def get(self, name: str) -> str:
        """The value of a variable, by public name or entry id. Raises NotFound, BadName, StorageFailed."""
        named = self._named(name)
        value = self._read(named)
        if value is None:
            raise NotFound(f"variable {name} has no value")
        return value

    def lookup(self, name: str) -> str | None:
        """``get`` for placeholders: None when there is no value."""
        try:
            return self.get(name)
        except EnvError:
            return None

    def set(self, name: str, value: str) -> None:
        """Give a variable a value. Raises NotFound, PermissionDenied, BadName, StorageFailed."""
        named = self._named(name)
        if not isinstance(value, str):
            raise BadName(f"expected a text as value of {name}, got {type(value).__name__}")
        if named.model.readonly:
            raise PermissionDenied(f"variable {name} is read only")
        try:
            self._storage_of(named).write(named.key, value)
        except OSError as error:
            raise StorageFailed(f"storage {named.model.storage} can't be written: {error}") from error

    def get_all(self) -> dict[str, str]:
        """Every variable that has a public name and a value."""
        public = sorted(name for name, named in self._variables.items() if named.model.variable == name)
        return {name: value for name in public if (value := self.lookup(name)) is not None}

    def _named(self, name: str) -> _Named:
        if not name:
            raise BadName("expected the name of a variable, got an empty one")
        named = self._variables.get(name)
        if named is None:
            raise NotFound(f"variable {name} is not registered; declare it with an env.variable entry")
        return named

    def _read(self, named: _Named) -> str | None:
        try:
            value = self._storage_of(named).read(named.key)
        except OSError as error:
            raise StorageFailed(f"storage {named.model.storage} can't be read: {error}") from error
        return named.model.default if value is None else value

    def _storage_of(self, named: _Named) -> Storage:
        storage = self._storages.get(named.model.storage)
        if storage is None:
            raise NotFound(f"storage {named.model.storage} of variable {named.key} is not available")
        return storage

    def _storage(self, id: str, model: KindModel) -> Storage:
        """The storage of an entry; the present one when nothing changed. Raises OSError."""
        present = self._storages.get(id)
        if present is not None and self._models.get(id) == model:
            return present
        match model:
            case MemoryStorage():
                return _Memory()
            case StaticStorage(values=values):
                return _ReadOnly(id, values)
            case FileStorage():
                return _File(id, model, self._directory)
            case RouterStorage(storages=ids):
                return _Router(id, ids, lambda other: self._storages.get(other))
            case OsStorage():
                return _ReadOnly(id, self._environ)
            case _:
                raise TypeError(f"{id} is no storage")


def _by_name(models: Mapping[str, Variable]) -> dict[str, _Named]:
    """By entry id and by public name; of two entries with one public name the first by id has it."""
    named: dict[str, _Named] = {}
    for id, model in sorted(models.items()):
        named[id] = _Named(id, model)
        if model.variable is not None:
            named.setdefault(model.variable, named[id])
    return named


class _Memory:
    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def read(self, key: str) -> str | None:
        return self._values.get(key)

    def write(self, key: str, value: str) -> None:
        self._values[key] = value


class _ReadOnly:
    def __init__(self, id: str, values: Mapping[str, str]) -> None:
        self._id = id
        self._values = values

    def read(self, key: str) -> str | None:
        return self._values.get(key)

    def write(self, key: str, value: str) -> None:
        raise PermissionDenied(f"storage {self._id} is read only")


class _File:
    def __init__(self, id: str, model: FileStorage, directory: Path) -> None:
        path = directory / model.file_path
        self._file = EnvFile(path, file_mode=model.file_mode, dir_mode=model.dir_mode)
        if model.auto_create:
            self._file.create()
        elif not self._file.exists():
            raise FileNotFoundError(f"there is no file {path}; create it, or set auto_create: true")

    def read(self, key: str) -> str | None:
        return self._file.get(key)

    def write(self, key: str, value: str) -> None:
        self._file.set(key, value)


class _Router:
    """Reads ask each storage in turn, writes go to the first. Circles are refused before entries are taken."""

    def __init__(self, id: str, ids: list[str], storage: Callable[[str], Storage | None]) -> None:
        self._id = id
        self._ids = ids
        self._storage = storage

    def read(self, key: str) -> str | None:
        for id in self._ids:
            storage = self._storage(id)
            value = None if storage is None else storage.read(key)
            if value is not None:
                return value
        return None

    def write(self, key: str, value: str) -> None:
        storage = self._storage(self._ids[0])
        if storage is None:
            raise NotFound(f"storage {self._ids[0]}, the first of {self._id}, is not available")
        storage.write(key, value)
