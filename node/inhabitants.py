"""What lives on this node, as a drain has to know it: processes, supervisors among them, and services.

A process is told with who cares for it: the service it is of, or its supervisor, here or elsewhere. The supervisor of
a tree that is a service ends with that service, and all below it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.drain import Care, Process
from cluster.pid import node_of


class Service(Protocol):
    """A replica of a service that is here."""

    @property
    def service(self) -> str: ...

    @property
    def replica(self) -> int: ...

    @property
    def pids(self) -> Collection[bytes]: ...

    @property
    def able(self) -> frozenset[str]:
        """The other nodes that may take it now."""


@dataclass(frozen=True)
class Overseen:
    """A supervisor process of this node. ``top``: the one at the top of its tree, as far as that is here."""

    pid: str
    entry: str
    parent: str
    is_owned: bool
    top: str


@dataclass(frozen=True)
class Census:
    """All there is at one time. ``services`` are keys ``service/replica``."""

    processes: Sequence[Process]
    services: Mapping[str, Service]


class Inhabitants:
    """Looks at the node. ``processes`` are rows as the kernels tell them."""

    def __init__(
        self,
        node: str,
        processes: Callable[[], Awaitable[list[dict[str, Any]]]],
        supervisors: Callable[[], Sequence[Overseen]],
        services: Callable[[], Sequence[Service]],
    ) -> None:
        self._node = node.encode()
        self._processes = processes
        self._supervisors = supervisors
        self._services = services

    async def count(self) -> Census:
        """Raises TimeoutError when a VM does not answer."""
        rows = await self._processes()
        services = {f"{one.service}/{one.replica}": one for one in self._services()}
        keys = {pid.decode(): key for key, one in services.items() for pid in one.pids}
        supervisors = {one.pid: one for one in self._supervisors()}
        found = [self._supervisor(one, keys) for one in supervisors.values() if one.pid not in keys]
        found += [self._process(row, keys, services, supervisors) for row in rows]
        return Census(found, services)

    def _supervisor(self, one: Overseen, keys: Mapping[str, str]) -> Process:
        if not one.is_owned:
            return Process(one.pid, one.entry)
        return Process(one.pid, one.entry, care=self._care_of(one.parent), service=keys.get(one.top, ""))

    def _process(
        self,
        row: Mapping[str, Any],
        keys: Mapping[str, str],
        services: Mapping[str, Service],
        supervisors: Mapping[str, Overseen],
    ) -> Process:
        pid, entry, parent = str(row["pid"]), str(row.get("entry") or ""), str(row.get("parent") or "")
        migratable, is_busy = bool(row.get("migratable")), bool(row.get("moving"))
        key, started = keys.get(pid), row.get("started", 0) / 1e9
        if key is not None:
            able = services[key].able
            return Process(pid, entry, migratable, Care.SERVICE, key, is_busy=is_busy, able=able, started=started)
        if row.get("supervised"):
            above = supervisors.get(parent)
            return Process(pid, entry, care=self._care_of(parent), service=keys.get(above.top, "") if above else "")
        is_call = row.get("kind") == "function"
        return Process(pid, entry, migratable, is_call=is_call, is_busy=is_busy, started=started)

    def _care_of(self, parent: str) -> Care:
        return Care.HERE if node_of(parent.encode()) == self._node else Care.ELSEWHERE
