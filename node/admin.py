"""Answers what clients and the command line ask this node: the control subject's queries.

A query is a msgpack map ``{op, ...}``; the answer ``{ok: true, value}`` or
``{ok: false, error: {kind, message, code}}``. Queries that act on processes are turned into
envelopes, so they take the same path and order as everybody's; this node is the client's
gateway. Every query has a deadline (``timeout`` in seconds, at most 300); at most ``MAX_WAITING``
wait at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgpack
import structlog

from cluster import rollcall
from cluster.envelope import to_text, unpack
from cluster.errors import CallTimeout, ClusterError, MessageTooBig
from cluster.locks import Lock
from cluster.members import Member
from cluster.names import Names
from cluster.tasks import Tasks
from node.acting import Acting
from node.operating import Operated, Operating
from node.pages import PAGE_ITEMS, Pages
from node.ports import Ports, Refused
from node.query import BadQuery, NotFound, Query, text_of, timeout_of

log = structlog.get_logger("wippy.admin")

MAX_WAITING = 1000
Op: TypeAlias = Callable[[Query], Awaitable[Any]]
Ops: TypeAlias = dict[str, Op]


@dataclass(frozen=True)
class NodeState:
    """What the node tells of itself. Callables, so that every answer is current."""

    node: str
    members: Callable[[], list[Member]]
    """The registered nodes as this one sees them."""
    health: Callable[[], dict[str, Any]]
    converged: Callable[[int, float], Awaitable[dict[str, Any]]]
    """How far this node is with a version of the registry, waiting so many seconds for it."""
    applied: Callable[[int, float], Awaitable[None]]
    """Returns when the watched copies are complete up to a revision, within so many seconds."""
    barrier: Callable[[], Awaitable[None]]
    """Returns when every VM has done what it was given so far."""
    processes: Callable[[], Awaitable[list[dict[str, Any]]]]
    inspect: Callable[[str], Awaitable[dict[str, Any] | None]]
    stats: Callable[[], Awaitable[dict[str, Any]]]
    services: Callable[[], list[dict[str, Any]]]
    trees: Callable[[], list[dict[str, Any]]]
    dead_letters: Callable[[], list[dict[str, Any]]]
    locks: Callable[[], list[Lock]]
    operated: Operated


class Admin:
    """The control door of one node."""

    def __init__(
        self, state: NodeState, ports: Ports, names: Names, tasks: Tasks, more: Mapping[str, Op] | None = None
    ) -> None:
        self._state = state
        self._acting = Acting(state.node, ports, names, tasks, state.applied)
        operating = Operating(state.node, state.operated)
        self._names = names
        self._tasks = tasks
        self._waiting = 0
        self._pages = Pages()
        self._ops: Ops = {
            "health": self._health,
            "converged": self._converged,
            "applied": self._applied,
            "stats": self._stats,
            "list": self._list,
            "inspect": self._inspect,
            "names": self._list_names,
            "locks": self._list_locks,
            "services": self._services,
            "trees": self._trees,
            "dead_letters": self._dead_letters,
            "send": self._acting.send,
            "call": self._acting.call,
            "call_function": self._acting.call_function,
            "spawn": self._acting.spawn,
            "cancel": self._acting.cancel,
            "terminate": self._acting.terminate,
            "cordon": operating.cordon,
            "uncordon": operating.uncordon,
            "label": operating.label,
            "release": operating.release,
            "drain": operating.drain,
            "drained": operating.drained,
            "move": operating.move,
            **(more or {}),
        }

    def on_query(self, payload: bytes, answer: Callable[[bytes], Awaitable[None]], client: str = "") -> None:
        """A query of ``client`` arrived; the answer goes to ``answer`` when it is known."""
        self._tasks.start(self._handle(payload, answer, self._ops, client), "query")

    def on_announcement(self, payload: bytes, answer: Callable[[bytes], Awaitable[None]]) -> None:
        """The same of a query to every node, which may only ask who there is."""
        self._tasks.start(self._handle(payload, answer, {rollcall.OP: self._members}), "query to all")

    async def _handle(
        self, payload: bytes, answer: Callable[[bytes], Awaitable[None]], ops: Ops, client: str = ""
    ) -> None:
        self._waiting += 1
        try:
            packed = _packed(await self._result(payload, ops, client))
        except asyncio.CancelledError:
            await answer(_packed(_failure("Unavailable", f"node {self._state.node} is stopping", "stopping")))
            raise
        finally:
            self._waiting -= 1
        try:
            await answer(packed)
        except MessageTooBig as error:
            text = f"the answer of {error.size} bytes is over the {error.limit} that fit into one message of NATS"
            await answer(_packed(_failure("Invalid", f"{text}; ask for less", "too_big")))

    async def _result(self, payload: bytes, ops: Ops, client: str) -> dict[str, Any]:
        if self._waiting > MAX_WAITING:
            return _failure("Unavailable", f"{MAX_WAITING} queries wait already; try again", "busy")
        try:
            return {"ok": True, "value": await self._run(payload, ops, client)}
        except Refused as error:
            return _failure(error.kind, str(error), error.code)
        except CallTimeout as error:
            return _failure("Timeout", str(error), "timeout")
        except TimeoutError:
            return _failure("Timeout", f"a host of node {self._state.node} does not answer", "timeout")
        except NotFound as error:
            return _failure("NotFound", str(error), "noproc")
        except (ClusterError, ValueError) as error:
            return _failure("Invalid", str(error), "invalid")
        except Exception as error:
            log.exception("query failed")
            return _failure("Internal", f"{type(error).__name__}: {error}", "internal")

    async def _run(self, payload: bytes, ops: Ops, client: str) -> Any:
        query = to_text(unpack(payload))
        if not isinstance(query, dict) or not isinstance(query.get("op"), str):
            raise BadQuery("expected a msgpack map with a text field 'op'")
        handler = ops.get(query["op"])
        if handler is None:
            raise BadQuery(f"unknown op {query['op']!r}; known: {', '.join(sorted(ops))}")
        return await handler({**query, "client": client})

    async def _members(self, query: Query) -> Any:
        return rollcall.told(self._state.node, self._state.members())

    async def _health(self, query: Query) -> Any:
        return self._state.health()

    async def _converged(self, query: Query) -> Any:
        version = query.get("version")
        if isinstance(version, bool) or not isinstance(version, int) or version < 0:
            raise BadQuery(f"op 'converged' expects a version as a number, got {version!r}")
        return await self._state.converged(version, timeout_of(query))

    async def _applied(self, query: Query) -> Any:
        revision = query.get("revision")
        if isinstance(revision, bool) or not isinstance(revision, int) or revision < 0:
            raise BadQuery(f"op 'applied' expects a revision as a number, got {revision!r}")
        await self._state.applied(revision, timeout_of(query))
        if query.get("processes"):
            await self._state.barrier()
        return {"revision": revision}

    async def _stats(self, query: Query) -> Any:
        return await self._state.stats()

    async def _list(self, query: Query) -> Any:
        """Processes, a page at a time; ``host`` and ``entry`` leave the others out."""
        if "cursor" in query:
            return self._page(query)
        wanted = {field: text_of(query, field) for field in ("host", "entry") if query.get(field) is not None}
        found = [
            one
            for one in await self._state.processes()
            if all(one.get(field) == value for field, value in wanted.items())
        ]
        return self._page(query, sorted(found, key=lambda one: one.get("started", 0)))

    def _page(self, query: Query, items: list[Any] | None = None) -> dict[str, Any]:
        """The first page of ``items``, or the page at the query's cursor."""
        limit = query.get("limit", PAGE_ITEMS)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise BadQuery(f"op {query['op']!r} expects a limit of 1 or more, got {limit!r}")
        return self._pages.next(text_of(query, "cursor"), limit) if items is None else self._pages.first(items, limit)

    async def _inspect(self, query: Query) -> Any:
        found = await self._state.inspect(text_of(query, "pid"))
        if found is None:
            raise NotFound(f"no process {query['pid']} on node {self._state.node}")
        return found

    async def _list_names(self, query: Query) -> Any:
        """Names, a page at a time."""
        if "cursor" in query:
            return self._page(query)
        names = [
            {"name": name, "pid": held.pid, "scope": int(held.scope), "revision": held.revision}
            for name, held in self._names.all()
        ]
        return self._page(query, names)

    async def _list_locks(self, query: Query) -> Any:
        """Held locks of the cluster, a page at a time."""
        if "cursor" in query:
            return self._page(query)
        held = [{"lock": lock.name, "pid": lock.pid, "token": lock.token} for lock in self._state.locks()]
        return self._page(query, held)

    async def _services(self, query: Query) -> Any:
        """Services as this node knows them, a page at a time."""
        return self._page(query) if "cursor" in query else self._page(query, self._state.services())

    async def _trees(self, query: Query) -> Any:
        """The supervisors of this node and their children, a page at a time."""
        return self._page(query) if "cursor" in query else self._page(query, self._state.trees())

    async def _dead_letters(self, query: Query) -> Any:
        """The dead letters that are kept, the newest first, a page at a time; ``reason`` leaves the others out."""
        if "cursor" in query:
            return self._page(query)
        reason = None if query.get("reason") is None else text_of(query, "reason")
        letters = [one for one in self._state.dead_letters() if reason in (None, one["reason"])]
        return self._page(query, letters[::-1])


def _packed(answer: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(answer, use_bin_type=False, unicode_errors="surrogateescape")
    return packed


def _failure(kind: str, message: str, code: str) -> dict[str, Any]:
    return {"ok": False, "error": {"kind": kind, "message": message, "code": code}}
