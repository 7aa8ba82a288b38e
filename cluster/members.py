"""The nodes of the cluster: a watched copy of ``nodes/``, and this node's own registration.

``Members`` answers at once from the copy and tells changes in the order etcd made them. A node that registered
anew has a new epoch; its end and its return are told apart, as two changes.

``Registration`` creates ``nodes/<node>`` only if absent. Found under the own lease it is our own (the answer was
lost); found under another, the starter waits until that lease has ended, saying so, and never revokes it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from typing import Any, TypeAlias

import structlog

from cluster import owned
from cluster.errors import NodeDown, OutcomeUnknown, Unavailable
from cluster.etcd import Batch, Compare, Etcd, KeyValue, Lease, PrefixWatch, Put
from cluster.handlers import Handlers
from cluster.keys import Keys

log = structlog.get_logger("wippy.members")

_ATTEMPTS = 5

POLL = 0.5
"""Seconds between two looks at a registration that is in the way."""


class NodeState(Enum):
    """What a node offers."""

    JOINING = "joining"
    """Registered, not serving yet."""
    READY = "ready"
    CORDONED = "cordoned"
    """Keeps what it has, gets nothing new."""
    DRAINING = "draining"
    """Gives away what it has."""


@dataclass(frozen=True)
class Description:
    """What a node says about itself in the value of its key."""

    incarnation: int
    state: NodeState = NodeState.JOINING
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    capability: Mapping[str, int] = field(default_factory=dict)
    http: str = ""
    """Address of its metrics server, ``host:port``; empty when it has none."""
    started: str = ""
    """When its process started, ISO 8601 in UTC."""

    def to_json(self) -> bytes:
        return json.dumps(
            {
                "incarnation": self.incarnation,
                "state": self.state.value,
                "labels": dict(self.labels),
                "version": self.version,
                "capability": dict(self.capability),
                "http": self.http,
                "started": self.started,
            },
            sort_keys=True,
        ).encode()

    @classmethod
    def from_json(cls, value: bytes) -> Description:
        """Raises ValueError when ``value`` is not what ``to_json`` writes."""
        try:
            fields: dict[str, Any] = json.loads(value)
            return cls(
                incarnation=int(fields["incarnation"]),
                state=NodeState(fields["state"]),
                labels={str(k): str(v) for k, v in fields.get("labels", {}).items()},
                version=str(fields.get("version", "")),
                capability={str(k): int(v) for k, v in fields.get("capability", {}).items()},
                http=str(fields.get("http", "")),
                started=str(fields.get("started", "")),
            )
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"expected the description of a node, got {value[:200]!r} ({error!r})") from None


@dataclass(frozen=True)
class Member:
    """One registered node. ``epoch`` is the create_revision of its key."""

    node: str
    epoch: int
    mod_revision: int
    lease: int
    incarnation: int
    state: NodeState
    labels: Mapping[str, str]
    version: str
    capability: Mapping[str, int]
    http: str
    started: str

    @classmethod
    def from_key(cls, node: str, kv: KeyValue) -> Member:
        """Raises ValueError when the value can't be read."""
        said = Description.from_json(kv.value)
        return cls(
            node=node,
            epoch=kv.create_revision,
            mod_revision=kv.mod_revision,
            lease=kv.lease,
            incarnation=said.incarnation,
            state=said.state,
            labels=said.labels,
            version=said.version,
            capability=said.capability,
            http=said.http,
            started=said.started,
        )

    def carries(self, labels: Iterable[tuple[str, str]]) -> bool:
        """Whether it has all these labels, with these values."""
        return all(self.labels.get(name) == value for name, value in labels)


MemberChange: TypeAlias = Callable[[Member | None, Member | None], None]
"""``handler(before, after)``: joined (None, m), changed (m, m'), left (m, None)."""


class Members:
    """The registered nodes as the watch shows them. Make it before the watch starts."""

    def __init__(self, watch: PrefixWatch, keys: Keys) -> None:
        self._watch = watch
        self._prefix = keys.nodes
        self._members: dict[str, Member] = {}
        self._handlers: Handlers[Member | None, Member | None] = Handlers("change of a member")
        self.unreadable = 0
        watch.subscribe(keys.nodes, self._apply)

    @property
    def applied(self) -> int:
        """The revision up to which the copy is complete."""
        return self._watch.applied

    def get(self, node: str) -> Member | None:
        return self._members.get(node)

    def all(self) -> list[Member]:
        """Every registered node, by name."""
        return sorted(self._members.values(), key=lambda member: member.node)

    def ready(self) -> list[Member]:
        """Those that take new work."""
        return [member for member in self.all() if member.state is NodeState.READY]

    def on_change(self, handler: MemberChange) -> None:
        """Call ``handler`` for each change from now on, on the loop, in etcd's order."""
        self._handlers.add(handler)

    def _apply(self, batch: Batch) -> None:
        for event in batch.events:
            node = event.kv.key.removeprefix(self._prefix)
            self._change(node, None if event.deleted else self._read(node, event.kv))

    def _read(self, node: str, kv: KeyValue) -> Member | None:
        try:
            return Member.from_key(node, kv)
        except ValueError as error:
            self.unreadable += 1
            log.error("registration can't be read; the node counts as absent", node=node, error=str(error))
            return None

    def _change(self, node: str, after: Member | None) -> None:
        before = self._members.get(node)
        if before is not None and after is not None and before.epoch != after.epoch:
            self._change(node, None)
            before = None
        if before == after:
            return
        if after is None:
            del self._members[node]
        else:
            self._members[node] = after
        self._handlers.tell(before, after)


class Registration:
    """This node's key in ``nodes/``, on its lease."""

    def __init__(
        self,
        etcd: Etcd,
        keys: Keys,
        node: str,
        lease: Lease,
        description: Description,
        *,
        on_wait: Callable[[Member], None] | None = None,
        patience: timedelta = timedelta(minutes=10),
    ) -> None:
        self._etcd = etcd
        self._key = keys.node(node)
        self._node = node
        self._lease = lease
        self._on_wait = on_wait
        self._patience = patience.total_seconds()
        self._describing = asyncio.Lock()
        self.description = description
        self.epoch = 0

    async def register(self) -> int:
        """Create the key and return the epoch.

        While another process holds the name, waits for the end of its lease and tells ``on_wait`` who holds it.
        Raises Unavailable when it still holds after ``patience``.
        """
        holder: Member | None = None
        try:
            async with asyncio.timeout(self._patience):
                while (found := await self._create()) is not None:
                    if holder is None or holder.epoch != found.epoch:
                        holder = found
                        self._say(found)
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise Unavailable(
                f"node name {self._node!r} is still held by {_holder(holder)} after {self._patience:g} s; "
                "stop that node or start this one under another name"
            ) from None
        return self.epoch

    async def set_state(self, state: NodeState, *when: Compare) -> bool:
        """Publish what this node offers now, if ``when`` holds; whether it did.

        Raises NodeDown when the registration is over, Unavailable, OutcomeUnknown.
        """
        async with self._describing:  # a state and labels may change at the same time, and neither undoes the other
            return await self._put(replace(self.description, state=state), *when)

    async def set_labels(self, changes: Mapping[str, str | None]) -> Mapping[str, str]:
        """Set labels, or with None take them away; those the node has then. Raises as ``set_state``."""
        async with self._describing:
            labels = {**self.description.labels, **changes}
            kept = {name: value for name, value in labels.items() if value is not None}
            await self._put(replace(self.description, labels=kept))
            return kept

    async def _put(self, description: Description, *when: Compare) -> bool:
        mine = [Compare.create(self._key, "=", self.epoch), *when]
        put = [Put(self._key, description.to_json(), lease=self._lease.id)]
        for _ in range(_ATTEMPTS):
            try:
                result = await self._etcd.txn(mine, put)
            except OutcomeUnknown:
                await asyncio.sleep(POLL)
                continue
            if not result.succeeded:
                held = await self._etcd.get(self._key)
                if when and held is not None and held.create_revision == self.epoch:
                    return False
                raise NodeDown(self._node, self.epoch)
            self.description = description
            return True
        raise OutcomeUnknown(f"etcd did not say whether node {self._node} is described as {description.state.value}")

    async def _create(self) -> Member | None:
        """One try. None when the key is ours now, else who holds it."""
        holding = await owned.create(self._etcd, self._key, self.description.to_json(), self._lease.id)
        if not holding.ours:
            return _member(self._node, holding.kv)
        self.epoch = holding.kv.create_revision
        return None

    def _say(self, holder: Member) -> None:
        log.warning(
            "the node's name is taken; waiting until that registration ends",
            node=self._node,
            holder=_holder(holder),
        )
        if self._on_wait is not None:
            self._on_wait(holder)


async def draw_incarnation(etcd: Etcd, keys: Keys) -> int:
    """A number no start of any node of this cluster has had. Raises Unavailable when others always win."""
    for _ in range(100):
        kv = await etcd.get(keys.incarnation)
        drawn = int(kv.value) + 1 if kv else 1
        unchanged = Compare.mod(keys.incarnation, "=", kv.mod_revision) if kv else Compare.absent(keys.incarnation)
        try:
            result = await etcd.txn([unchanged], [Put(keys.incarnation, str(drawn).encode())])
        except OutcomeUnknown:
            continue  # the number may be spent; the next one is as good
        if result.succeeded:
            return drawn
    raise Unavailable(f"could not draw an incarnation from {keys.incarnation}: too many nodes start at once; try again")


def _holder(holder: Member | None) -> str:
    if holder is None:
        return "another process"
    return f"a process of incarnation {holder.incarnation} (epoch {holder.epoch}, started {holder.started or '?'})"


def _member(node: str, kv: KeyValue) -> Member:
    """The holder of a key, readable or not: only its epoch and lease matter here."""
    try:
        return Member.from_key(node, kv)
    except ValueError:
        none: dict[str, Any] = {}
        return Member(node, kv.create_revision, kv.mod_revision, kv.lease, 0, NodeState.JOINING, none, "", none, "", "")
