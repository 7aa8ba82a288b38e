"""Nodes with replicas of one registry, and everything that may happen to them, checked against the model.

A ``Scene`` runs on the etcd in memory or on a real one. Whatever was done, ``settle`` waits until
every connected node is at the head, reads from the log which intents became versions, lets the
model follow, and compares: every state a node went through is the model's at the same version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from cluster.errors import Invalid, OutcomeUnknown, RegistryConflict, Unavailable
from cluster.etcd import Batch, KeyEvent, KeyValue
from cluster.keys import Keys
from cluster.registry import (
    Create,
    Delete,
    Entry,
    Folding,
    Keep,
    Operation,
    Origin,
    PushConflict,
    Registry,
    RegistryState,
    Take,
    Update,
    Verdict,
    collect,
)
from cluster.registry.snapshot import write_snapshot
from cluster.registry.status import status_of
from cluster.registry.store import Store
from tests.sim.registry_model import (
    Commit,
    Fold,
    Intent,
    ModelEntry,
    NotAllowed,
    NothingToDo,
    Push,
    Rollback,
    World,
    takes_overlay,
)

PATIENCE = timedelta(seconds=20)
SETTLED = 30.0
SNAPSHOT_EVERY = 5


class Killed(BaseException):
    """The machine of the writer is gone: not even its handlers of errors run on."""


Step = Callable[[], Awaitable[None]]
STEP: ContextVar[Step | None] = ContextVar("what happens before and after each request of this writer", default=None)


class Client:
    """An etcd client whose requests can be interrupted."""

    def __init__(self, etcd: Any) -> None:
        self._etcd = etcd

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._etcd, name)
        if name not in ("get", "range", "put", "delete", "delete_prefix", "grant", "txn"):
            return method

        async def interrupted(*args: Any, **kwargs: Any) -> Any:
            step = STEP.get()
            if step is not None:
                await step()
            answer = await method(*args, **kwargs)
            if step is not None:
                await step()
            return answer

        return interrupted


async def with_steps(step: Step, work: Awaitable[Any]) -> Any:
    """``work`` with ``step`` before and after each of its requests."""
    token = STEP.set(step)
    try:
        return await work
    finally:
        STEP.reset(token)


@dataclass
class Channel:
    prefix: str
    handler: Callable[[Batch], None]
    known: dict[str, int] = field(default_factory=dict)
    held: list[Batch] = field(default_factory=list)

    def deliver(self, batch: Batch) -> None:
        for event in batch.events:
            if event.deleted:
                self.known.pop(event.kv.key, None)
            else:
                self.known[event.kv.key] = event.kv.mod_revision
        self.handler(batch)


class Gate:
    """A watch that can be cut off, and goes on later: with what it missed, or with a re-list."""

    def __init__(self, watch: Any, etcd: Any, keys: Keys) -> None:
        self.is_cut = False
        self._watch = watch
        self._etcd = etcd
        self._keys = keys
        self._channels: list[Channel] = []
        self._frozen = 0

    @property
    def applied(self) -> int:
        return self._frozen if self.is_cut else int(self._watch.applied)

    def subscribe(self, prefix: str, handler: Callable[[Batch], None]) -> Callable[[], None]:
        channel = Channel(prefix, handler)
        self._channels.append(channel)
        undo: Callable[[], None] = self._watch.subscribe(prefix, lambda batch: self._take(channel, batch))
        return undo

    def _take(self, channel: Channel, batch: Batch) -> None:
        if self.is_cut:
            channel.held.append(batch)
        else:
            channel.deliver(batch)

    def cut(self) -> None:
        self._frozen, self.is_cut = self.applied, True

    async def heal(self, *, relist: bool) -> None:
        kvs: list[KeyValue] = []
        at = 0
        if relist:
            found = await self._etcd.range(self._keys.prefix)
            kvs, at = [kv for kv in found.kvs if not kv.key.startswith(self._keys.blobs)], found.revision
        self.is_cut = False
        for channel in self._channels:
            held, channel.held = channel.held, []
            if relist:
                channel.deliver(_relist(channel, kvs, at))
            for batch in held:
                if batch.revision > at:
                    channel.deliver(batch)


def _relist(channel: Channel, kvs: Iterable[KeyValue], revision: int) -> Batch:
    here = {kv.key: kv for kv in kvs if kv.key.startswith(channel.prefix)}
    gone = [KeyEvent(True, KeyValue(key, b"", 0, revision, 0, 0)) for key in channel.known if key not in here]
    news = [KeyEvent(False, kv) for key, kv in here.items() if channel.known.get(key) != kv.mod_revision]
    return Batch(revision, [*gone, *news], relist=True)


@dataclass
class Node:
    name: str
    registry: Registry
    gate: Gate
    stack: AsyncExitStack
    seen: list[tuple[int, RegistryState]] = field(default_factory=list)
    may_skip: bool = False


def world_of(state: RegistryState) -> World:
    entries = {id: (each.kind, each.meta, each.data, str(each.origin)) for id, each in state.base.items()}
    overlays = {id: (over.mapping, over.mod) for id, over in state.overlays.items()}
    return World(entries, overlays, state.overridden)


def as_entry(id: str, entry: ModelEntry) -> Entry:
    return Entry(id, entry[0], entry[1], entry[2], Origin(entry[3]))


class Scene:
    """``connect`` opens a client; ``make_watch`` makes a watch of it and ``start`` starts that."""

    def __init__(
        self,
        keys: Keys,
        connect: Callable[[AsyncExitStack], Awaitable[Any]],
        make_watch: Callable[[Any], Any],
        start: Callable[[AsyncExitStack, Any], Awaitable[None]],
    ) -> None:
        self.keys = keys
        self.nodes: list[Node] = []
        self.model: list[World] = []
        self.intents: dict[str, Intent] = {}
        self.told: dict[str, int] = {}
        self.refused: set[str] = set()
        self.config: dict[str, tuple[Any, int]] = {}
        self._mappings: dict[int, Any] = {}
        self._oldest = 0
        self._number = 0
        self._connect, self._make_watch, self._start = connect, make_watch, start
        self._stack = AsyncExitStack()
        self.etcd: Any = None

    async def open(self, nodes: int) -> None:
        self.etcd = await self._connect(self._stack)
        for number in range(nodes):
            self.nodes.append(await self._open_node(f"n{number}"))

    async def close(self) -> None:
        for node in self.nodes:
            await node.stack.aclose()
        await self._stack.aclose()

    @property
    def connected(self) -> list[Node]:
        return [node for node in self.nodes if not node.gate.is_cut]

    @property
    def now(self) -> World:
        return self.model[-1] if self.model else World()

    async def _open_node(self, name: str) -> Node:
        stack = AsyncExitStack()
        client: Any = Client(await self._connect(stack))
        watch = self._make_watch(client)
        gate: Any = Gate(watch, client, self.keys)
        registry = Registry(client, gate, self.keys, name, snapshot_every=SNAPSHOT_EVERY, patience=PATIENCE)
        node = Node(name, registry, gate, stack)
        folding = Folding(client, gate, self.keys, registry, lambda: self.connected.index(node))
        registry.on_change(lambda before, after, changed: node.seen.append((after.version, after)))
        await self._start(stack, watch)
        await stack.enter_async_context(registry)
        node.seen.clear()
        await stack.enter_async_context(folding)
        return node

    # what may happen

    async def commit(self, node: Node, changes: list[tuple[str, str, ModelEntry | None]], back: int = 0) -> None:
        """``back``: made against a version so far before the head."""
        base = max(len(self.model) - 1 - back, self._oldest)
        intent = Commit(tuple(changes), self.model[base] if self.model else World())
        await self.alone(intent, self._committing(node, intent, base if self.model else None))

    async def push(self, node: Node, files: dict[str, tuple[str, dict[str, Any], Any]], take: Any, prune: bool) -> None:
        intent = Push(files, take, prune)
        await self.alone(intent, self._pushing(node, intent))

    async def rollback(self, node: Node, version: int) -> None:
        version = max(version % len(self.model), self._oldest)
        intent = Rollback(self.model[version])
        await self.alone(intent, self._rolling_back(node, version))

    async def alone(self, intent: Intent, work: Callable[[str], Awaitable[int | None]]) -> None:
        """Nobody else is at work, so what must come of it is known."""
        try:
            intent.apply(self.now)
            expected = "told"
        except NotAllowed:
            expected = "refused"
        except NothingToDo:
            expected = "nothing"
        assert await self._attempt(intent, work) == expected
        await self.settle()

    async def together(self, works: list[tuple[Node, Intent]]) -> None:
        """All at once; the log says who was first, and somebody was."""
        allowed = [intent for _, intent in works if _is_allowed(intent, self.now)]
        outcomes = await asyncio.gather(*(self._attempt(intent, self._doing(node, intent)) for node, intent in works))
        if allowed and len(allowed) == len(works):
            assert set(outcomes) & {"told", "unknown", "unavailable"}, "somebody wins"
        await self.settle()

    async def crash(self, node: Node, intent: Intent, steps: int) -> None:
        """The writer's machine dies before or after one of its requests, and comes back later."""
        left = steps

        async def step() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        await asyncio.gather(with_steps(step, self._attempt(intent, self._doing(node, intent))))
        await self.restart(node)

    async def harass(self, node: Node, intent: Intent, *, expire_at: int = -1) -> None:
        """The collector runs before and after each request; at one of them all leases of writers end."""
        number = 0

        async def step() -> None:
            nonlocal number
            if number == expire_at:
                await self._expire()
            number += 1
            token = STEP.set(None)
            await collect(self.etcd, self.keys)
            STEP.reset(token)

        expected = "told" if _is_allowed(intent, self.now) else None
        outcome = await with_steps(step, self._attempt(intent, self._doing(node, intent)))
        assert expected is None or outcome == expected, "the slow writer wins"
        await self.settle()

    async def _expire(self) -> None:
        uploads = await self.etcd.range(self.keys.uploads)
        for lease in {kv.lease for kv in uploads.kvs}:
            await self.etcd.revoke(lease)

    async def restart(self, node: Node) -> None:
        await node.stack.aclose()
        self.nodes[self.nodes.index(node)] = await self._open_node(node.name)
        await self.settle()

    async def heal(self, node: Node, *, relist: bool) -> None:
        node.may_skip = relist or node.registry.state.version < self._oldest
        await node.gate.heal(relist=relist)
        await self.settle()
        node.may_skip = False

    async def overlay(self, id: str, value: bytes | None, mapping: Any) -> None:
        """``mapping`` is what ``value`` says, None when it says nothing."""
        key = self.keys.overlay(id)
        if value is None:
            await self.etcd.delete(key)
            self.config.pop(id, None)
        else:
            mod = await self.etcd.put(key, value)
            self.config[id] = (mapping, mod)
            self._mappings[mod] = mapping
        await self.settle()

    async def snapshot(self, node: Node) -> None:
        await write_snapshot(self.etcd, self.keys, node.registry.state, PATIENCE)

    async def throw_nothing_away(self) -> None:
        """The collector at its usual settings, while others are at work."""
        await collect(self.etcd, self.keys)

    async def throw_history_away(self, versions: int) -> None:
        await collect(self.etcd, self.keys, Keep(versions, time=timedelta(0)))
        kept = await Store(self.etcd, self.keys).changes()
        self._oldest = min(kept, default=0)
        await self.settle()

    # doing it

    def _doing(self, node: Node, intent: Intent) -> Callable[[str], Awaitable[int | None]]:
        match intent:
            case Commit():
                return self._committing(node, intent, None)
            case Push():
                return self._pushing(node, intent)
            case Rollback(target):
                return self._rolling_back(node, self.model.index(target, self._oldest))

    def _committing(self, node: Node, intent: Commit, base: int | None) -> Callable[[str], Awaitable[int | None]]:
        async def work(message: str) -> int | None:
            operations = [_operation(what, id, entry) for what, id, entry in intent.operations]
            return (await node.registry.commit(operations, "", message, base)).version

        return work

    def _pushing(self, node: Node, intent: Push) -> Callable[[str], Awaitable[int | None]]:
        async def work(message: str) -> int | None:
            files = [Entry(id, kind, meta, data) for id, (kind, meta, data) in intent.files.items()]
            take = Take(intent.take) if intent.take else None
            done = await node.registry.publish(files, "always", message=message, take=take, prune=intent.prune)
            return done.version if done.changed else None

        return work

    def _rolling_back(self, node: Node, version: int) -> Callable[[str], Awaitable[int | None]]:
        async def work(message: str) -> int | None:
            before = len(self.model)
            done = await node.registry.rollback(version, message=message)
            return done.version if done.version >= before else None

        return work

    async def _attempt(self, intent: Intent, work: Callable[[str], Awaitable[int | None]]) -> str:
        self._number += 1
        message = f"m{self._number}"
        self.intents[message] = intent
        try:
            version = await work(message)
        except (RegistryConflict, PushConflict, Invalid):
            self.refused.add(message)
            return "refused"
        except Unavailable:
            self.refused.add(message)
            return "unavailable"
        except (OutcomeUnknown, Killed):
            return "unknown"
        if version is None:
            return "nothing"
        self.told[message] = version
        return "told"

    # looking

    async def settle(self) -> None:
        async with asyncio.timeout(SETTLED):
            while not await self._is_settled():
                await asyncio.sleep(0.002)
        for node in self.connected:
            self._check(node)

    async def _is_settled(self) -> bool:
        await self._follow_log()
        head = len(self.model) - 1
        if any(node.registry.state.version != head for node in self.connected):
            return False
        if self.now.overlays.keys() - self.config.keys():
            return False
        for id, (mapping, mod) in self.config.items():
            is_good = isinstance(mapping, dict) and takes_overlay(self.now.entries.get(id))
            status = status_of(await self.etcd.get(self.keys.overlay_status(id)))
            if status is None or (status.mod, status.status is Verdict.APPLIED) != (mod, is_good):
                return False
            if is_good and self.now.overlays.get(id) != (mapping, mod):
                return False
        return True

    async def _follow_log(self) -> None:
        store = Store(self.etcd, self.keys)
        head = (await store.head()).version
        if head < len(self.model):
            return
        records = await store.changes(len(self.model), head)
        for version in range(len(self.model), head + 1):
            record = records[version]
            if record.overlay is not None:
                change: Any = Fold(record.entry, self._mappings.get(record.overlay), record.overlay)
            else:
                assert record.message not in self.refused, "what was refused is not applied"
                change = self.intents.pop(record.message)
            self.model.append(change.apply(self.now))
        for message, version in self.told.items():
            assert version <= head, f"{message} was promised as v{version}"
            assert records.get(version) is None or records[version].message == message
        self.told.clear()

    def _check(self, node: Node) -> None:
        """It is where the model is, and went there by the same way, step by step."""
        state = node.registry.state
        assert world_of(state) == self.now
        seen = {each.id: (each.kind, each.meta, each.data, str(each.origin)) for each in state.entries()}
        assert seen == self.now.seen()
        versions = [version for version, _ in node.seen]
        for version, then in node.seen:
            assert world_of(then) == self.model[version]
        if versions and not node.may_skip:
            assert versions == list(range(versions[0], versions[-1] + 1)), f"{versions} leave one out"
        node.seen = node.seen[-1:]

    async def check_history(self, node: Node, version: int) -> None:
        """Any version that is kept can be read."""
        version = max(version % len(self.model), self._oldest)
        assert world_of(await node.registry.state_at(version)) == self.model[version]

    async def check_end(self) -> None:
        """Everybody is back, the log is whole, and what nothing names is collected."""
        for node in [node for node in self.nodes if node.gate.is_cut]:
            await self.heal(node, relist=True)
        await self.settle()
        while self.nodes:
            await self.nodes.pop().stack.aclose()
        store = Store(self.etcd, self.keys)
        assert world_of(await store.load(len(self.model) - 1)) == self.now
        async with asyncio.timeout(SETTLED):
            # a request of a writer that was cancelled may land a moment later
            while not await self._is_clean(store):
                await asyncio.sleep(0.05)

    async def _is_clean(self, store: Store) -> bool:
        """Every blob is named, every named blob is there, nobody uploads."""
        await self._expire()
        await collect(self.etcd, self.keys)
        named = {each.blob.upload for each in (await store.changes()).values()}
        named |= {each.blob.upload for each in (await store.snapshots()).values()}
        blobs = {kv.key.removeprefix(self.keys.blobs).split("/")[0] for kv in (await self._under(self.keys.blobs))}
        assert named <= blobs, "every named blob is there"
        return blobs == named and not await self._under(self.keys.uploads)

    async def _under(self, prefix: str) -> list[KeyValue]:
        found: list[KeyValue] = (await self.etcd.range(prefix, keys_only=True)).kvs
        return found


def _is_allowed(intent: Intent, world: World) -> bool:
    try:
        intent.apply(world)
    except (NotAllowed, NothingToDo):
        return False
    return True


def _operation(what: str, id: str, entry: ModelEntry | None) -> Operation:
    if entry is None:
        return Delete(id)
    return Create(as_entry(id, entry)) if what == "create" else Update(as_entry(id, entry))


@asynccontextmanager
async def opened(scene: Scene, nodes: int) -> AsyncIterator[Scene]:
    await scene.open(nodes)
    try:
        yield scene
    finally:
        await scene.close()
