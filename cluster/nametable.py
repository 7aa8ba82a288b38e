"""What is known of names on one node, and the text of a cluster name's key.

Three tables: the cluster's names as the watch shows them, those this node wishes for (EVENTUAL, perhaps not in etcd
yet), and its own LOCAL ones. A look-up asks them in this order and never waits; whoever listens is told when its
answer changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from cluster.errors import NameTaken
from cluster.etcd import KeyValue
from cluster.handlers import Handlers
from cluster.pid import is_pid

MAX_NAME = 255
"""Bytes."""


class Scope(IntEnum):
    """How far a name is known, as Lua counts them."""

    LOCAL = 0
    EVENTUAL = 1
    CONSISTENT = 2
    STRONG = 3


@dataclass(frozen=True)
class Registered:
    """Who has a name. ``revision`` is 0 for a LOCAL one, and for an EVENTUAL one that only this node knows yet."""

    pid: str
    revision: int
    scope: Scope
    lease: int = 0


NameChange: TypeAlias = Callable[[str, str | None, int], None]
"""``handler(name, pid, revision)``: what a look-up says from now on; None = nobody."""


class NameTable:
    """The tables, to be read; whatever changes them tells."""

    def __init__(self) -> None:
        self.cluster: dict[str, Registered] = {}
        self.wishes: dict[str, Registered] = {}
        self.local: dict[str, Registered] = {}
        self.changed: Handlers[str, str | None, int] = Handlers("change of a name")
        self._by_pid: dict[str, set[str]] = {}

    def lookup(self, name: str) -> Registered | None:
        return self.cluster.get(name) or self.wishes.get(name) or self.local.get(name)

    def names_of(self, pid: str) -> list[str]:
        return sorted(self._by_pid.get(pid, ()))

    def all(self) -> list[tuple[str, Registered]]:
        """Every name, cluster names first, by name."""
        return [*sorted({**self.wishes, **self.cluster}.items()), *sorted(self.local.items())]

    def held(self, name: str, pid: str) -> Registered | None:
        """How the process has the name in the cluster; None when it does not."""
        present = self.cluster.get(name)
        return present if present is not None and present.pid == pid else None

    def shows(self, name: str, revision: int) -> bool:
        """Whether the name is there under this revision, and no other."""
        present = self.cluster.get(name)
        return present is not None and present.revision == revision

    def register_local(self, name: str, pid: str) -> Registered:
        """Raises NameTaken."""
        present = self.local.get(name)
        if present is not None and present.pid != pid:
            raise NameTaken(name, present.pid)
        if present is None:
            self.put(self.local, name, Registered(pid, 0, Scope.LOCAL))
        return self.local[name]

    def unregister_local(self, name: str, pid: str) -> bool:
        return self._drop(self.local, name, pid)

    def drop_wish(self, name: str, pid: str) -> bool:
        return self._drop(self.wishes, name, pid)

    def _drop(self, table: dict[str, Registered], name: str, pid: str) -> bool:
        """False when the process does not have it."""
        present = table.get(name)
        if present is None or present.pid != pid:
            return False
        self.put(table, name, None)
        return True

    def put(self, table: dict[str, Registered], name: str, registered: Registered | None) -> None:
        """Change one table and tell what a look-up says now, if that is something else."""
        before = self.lookup(name)
        present = table.pop(name, None)
        if registered is not None:
            table[name] = registered
        for changed in (present, registered):
            if changed is not None:
                self._index(name, changed.pid)
        after = self.lookup(name)
        if before != after:
            self.changed.tell(name, after.pid if after else None, after.revision if after else 0)

    def _index(self, name: str, pid: str) -> None:
        for table in (self.cluster, self.wishes, self.local):
            present = table.get(name)
            if present is not None and present.pid == pid:
                self._by_pid.setdefault(pid, set()).add(name)
                return
        names = self._by_pid.get(pid, set())
        names.discard(name)
        if not names:
            self._by_pid.pop(pid, None)


def name_value(pid: str, scope: Scope) -> bytes:
    """What stands in the key of a cluster name: the PID, and the scope when it is not CONSISTENT."""
    text = pid if scope is Scope.CONSISTENT else f"{pid} {scope.name}"
    return text.encode("utf-8", "surrogateescape")


def read_value(value: bytes) -> tuple[str, Scope]:
    """The PID and the scope in the key of a cluster name."""
    text = value.decode("utf-8", "surrogateescape")
    pid, _, scope = text.partition("} ")
    return (f"{pid}}}", Scope[scope]) if scope in Scope.__members__ else (text, Scope.CONSISTENT)


def registered_in(kv: KeyValue) -> Registered:
    """What the key of a cluster name says."""
    pid, scope = read_value(kv.value)
    return Registered(pid, kv.mod_revision, scope, kv.lease)


def check_name(name: str) -> None:
    """Raises ValueError for a text that can't be a name."""
    if not name or is_pid(name) or len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
        raise ValueError(
            f"expected a name of 1 to {MAX_NAME} bytes that does not start with a brace, got {name[:80]!r}"
        )
