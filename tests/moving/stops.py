"""Where a move can be stopped: what the nodes of a town say to each other, to etcd and to their VMs is held at a gate.

A gate is armed for the first thing it knows; that and all that comes behind it on the same way waits until it is
opened. What is held on a link goes with the link when that closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest

from cluster.envelope import Envelope, Kind
from cluster.etcd import Batch, Delete, Etcd
from cluster.migration.departure import Step
from cluster.migration.transactions import Answer, Outcome, Read, Transact
from cluster.tasks import Tasks
from node.host.boundary import Out
from node.moving import performing
from node.parts import Parts

Known = Callable[[Any], bool]


class Etcds(Enum):
    """What happens to a question to etcd at its gate."""

    BEFORE = "asked when the gate opens"
    AFTER = "asked, and answered when the gate opens"
    LOST = "asked at once, and the answer is lost"
    NEVER = "never asked, and the answer is lost"
    LATE = "the answer is lost, and it is asked when the gate opens"


@dataclass
class Gate:
    """``reached`` is set by the first that waits; ``done`` when what was let late through is done."""

    knows: Known
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    taken: bool = False
    alone: bool = False
    """Whether what comes behind passes: an answer that is slow on a longer way."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    held: list[Any] = field(default_factory=list)
    give: Callable[[list[Any]], None] = lambda held: None

    @property
    def is_holding(self) -> bool:
        return self.reached.is_set() and not self.opened.is_set()

    def stops(self, what: Any) -> bool:
        """Whether this waits here, or behind what does."""
        if not self.opened.is_set() and not self.reached.is_set() and self.knows(what):
            self.reached.set()
        return self.is_holding

    def open(self) -> None:
        if self.opened.is_set():
            return
        self.opened.set()
        held, self.held = self.held, []
        if held:
            self.give(held)


class Rig:
    """The gates of a town. Made once for its nodes; ``clear`` opens all gates and forgets them."""

    def __init__(self) -> None:
        self._nodes: dict[str, Parts] = {}
        self._links: dict[tuple[str, str], list[Gate]] = {}
        self._vms: dict[str, list[Gate]] = {}
        self._watches: dict[str, list[Gate]] = {}
        self._etcds: dict[str, list[tuple[Gate, Etcds]]] = {}
        self._tasks = Tasks("rig")
        self._ask = performing.ask

    def install(self, nodes: dict[str, Parts], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(performing, "ask", self._asked)
        for name, parts in nodes.items():
            self._nodes[name] = parts
            self._install(name, parts)

    def _install(self, name: str, parts: Parts) -> None:
        parts.links._received = lambda peer, envelopes: self._received(name, peer, envelopes)
        parts.links.on_down(lambda peer, reason: self._closed(name, peer))
        parts.hosts.on_moving = lambda item: self._from_vm(name, item)
        subscribers = parts.watch._subscribers
        at = next(n for n, (_, handler) in enumerate(subscribers) if handler == parts.moving._apply)
        subscribers[at] = (subscribers[at][0], lambda batch: self._seen(name, batch))

    def clear(self) -> None:
        for gates in (*self._links.values(), *self._vms.values(), *self._watches.values()):
            for gate in gates:
                gate.open()
        for asked in self._etcds.values():
            for gate, _ in asked:
                gate.open()
        for of in (self._links, self._vms, self._watches, self._etcds):
            of.clear()

    # -- arming

    def link(self, source: str, target: str, *kinds: Kind) -> Gate:
        """What ``source`` sends to ``target``, from the first of these kinds on."""
        gate = Gate(lambda envelope: envelope[0] in kinds)
        gate.give = lambda held: self._received(target, source, held)
        self._links.setdefault((source, target), []).append(gate)
        return gate

    def vm(self, node: str, kind: Out) -> Gate:
        gate = Gate(lambda item: item[0] == kind)
        gate.give = lambda held: [self._from_vm(node, item) for item in held] and None
        self._vms.setdefault(node, []).append(gate)
        return gate

    def watch(self, node: str, value: str) -> Gate:
        """The watch of ``node``, from the moment on at which a process is on node ``value``."""
        gate = Gate(lambda batch: any(event.kv.value == value.encode() and not event.deleted for event in batch.events))
        gate.give = lambda held: [self._seen(node, batch) for batch in held] and None
        self._watches.setdefault(node, []).append(gate)
        return gate

    def etcd(self, node: str, what: str, how: Etcds) -> Gate:
        """The first question of ``node`` of a sort: mark, abort, commit, delete, read."""
        gate = Gate(lambda asked: asked == what)
        self._etcds.setdefault(node, []).append((gate, how))
        return gate

    # -- holding

    def _received(self, node: str, peer: str, envelopes: list[Envelope]) -> None:
        gates = self._links.get((peer, node), [])
        for gate in gates:
            if gate.alone and not gate.opened.is_set():
                gate.held += [envelope for envelope in envelopes if gate.knows(envelope)]
                envelopes = [envelope for envelope in envelopes if not gate.knows(envelope)]
                if gate.held:
                    gate.reached.set()
        for position, envelope in enumerate(envelopes):
            for gate in gates:
                if not gate.alone and gate.stops(envelope):
                    gate.held += envelopes[position:]
                    if position:
                        self._nodes[node].router.from_link(peer, envelopes[:position])
                    return
        self._nodes[node].router.from_link(peer, envelopes)

    def _closed(self, node: str, peer: str) -> None:
        for gate in self._links.get((peer, node), []):
            gate.held.clear()

    def _from_vm(self, node: str, item: Envelope) -> None:
        for gate in self._vms.get(node, []):
            if gate.stops(item):
                gate.held.append(item)
                return
        self._nodes[node].moving.from_vm(item)

    def _seen(self, node: str, batch: Batch) -> None:
        for gate in self._watches.get(node, []):
            if gate.stops(batch):
                gate.held.append(batch)
                return
        self._nodes[node].moving._apply(batch)

    async def _asked(self, etcd: Etcd, request: Transact | Read) -> Answer:
        node = next(name for name, parts in self._nodes.items() if parts.etcd is etcd)
        what = self._sort(self._nodes[node], request)
        for gate, how in self._etcds.get(node, []):
            if gate.taken or not gate.knows(what):
                continue
            gate.taken = True
            return await self._through(gate, how, lambda: self._ask(etcd, request), request)
        return await self._ask(etcd, request)

    async def _through(
        self, gate: Gate, how: Etcds, ask: Callable[[], Awaitable[Answer]], request: Transact | Read
    ) -> Answer:
        unknown = Answer(request.request, Outcome.UNKNOWN)
        match how:
            case Etcds.BEFORE:
                gate.reached.set()
                await gate.opened.wait()
                return await ask()
            case Etcds.AFTER:
                answer = await ask()
                gate.reached.set()
                await gate.opened.wait()
                return answer
            case Etcds.LOST:
                await ask()
            case Etcds.LATE:
                self._tasks.start(self._later(gate, ask), "late")
            case Etcds.NEVER:
                pass
        gate.reached.set()
        return unknown

    async def _later(self, gate: Gate, ask: Callable[[], Awaitable[Answer]]) -> None:
        await gate.opened.wait()
        await ask()
        gate.done.set()

    def _sort(self, parts: Parts, request: Transact | Read) -> str:
        if isinstance(request, Read):
            return "read"
        if isinstance(request.success[0], Delete):
            return "delete"
        if len(request.compares) > 1:
            return "commit"
        moved = parts.moving._table.get(request.success[0].key.removeprefix(parts.keys.moved).encode())
        departure = moved.core.departure if moved is not None and moved.core is not None else None
        return "mark" if departure is not None and departure.step is Step.MARKING else "abort"
