"""A client for programs outside the cluster: look at it, and act on what runs in it.

    async with Client(["nats://..."], ["http://..."], "shop") as client:
        reply = await client.call("worker@node-3", "work", {"n": 1}, timeout=5.0)

What acts on processes goes to one node, the gateway, which passes it on in the same order as
everybody's messages; the client asks every node only to list. A gateway that is gone is
replaced by the next one, because nothing was accepted; one that stays silent past the deadline
raises CallTimeout, and then the outcome is unknown. Nothing here waits without a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import msgpack

from cluster import bus, etcd, rollcall
from cluster.bus import Bus, Credentials
from cluster.envelope import MAX_MESSAGE, to_raw, to_text, unpack
from cluster.errors import CallTimeout, ClusterError, MessageTooBig, NotConnected, Unavailable
from cluster.etcd import Etcd, EtcdRefused
from cluster.keys import Keys
from cluster.members import Member, NodeState
from cluster.registry import Registry, Validator, open_registry
from cluster.settling import Outcome, settled
from cluster.subjects import Subjects
from cluster.tasks import Tasks

DEFAULT_TIMEOUT = 5.0
LISTING_TIMEOUT = 3.0
_PAGE = 2000
"""Items of a listing that are asked for at once."""
_PINGS = 5
_JETSTREAM_SECONDS = 1.0
_ETCD_PATIENCE = 1.0
"""Seconds etcd gets to say which nodes there are before a node is asked."""
_ETCD_SILENCE = 3.0
"""Seconds for which etcd is not waited for again."""
_ROLL_SECONDS = 2.0
_DECIDED = 6.0
"""Seconds a move may take beyond its own, until etcd has said what became of it."""
_CHASES = 5
"""Nodes that are asked one after the other for a process that is elsewhere by then."""
_SLACK = 0.5
"""Seconds a gateway gets beyond the deadline it was given, to say itself that it passed."""


class QueryFailed(ClusterError):
    """A node answered with an error. ``code`` is ``noproc``, ``noconnection``, ``timeout``, ``invalid``, ..."""

    def __init__(self, kind: str, message: str, code: str, node: str) -> None:
        super().__init__(kind, message, code, node)
        self.kind = kind
        self.message = message
        self.code = code
        self.node = node

    def __str__(self) -> str:
        is_said = self.code in ("", "error") or self.message.startswith(self.code)
        return self.message if is_said else f"{self.code}: {self.message}"


class NoNodes(Unavailable):
    """The cluster has no node that could answer."""


@dataclass(frozen=True)
class Reply:
    """What came back to a call: the sender's PID, its topic, and the payloads."""

    sender: str
    topic: str
    payloads: list[Any]

    @property
    def value(self) -> Any:
        """The first payload, None when there was none."""
        return self.payloads[0] if self.payloads else None


@dataclass(frozen=True)
class Moved:
    """What became of a move: ``verdict`` is ``moved``, ``stayed`` or ``died``, and empty when the process was there
    already (without a reason) or when etcd has not said yet (with one). ``node`` is where it is then."""

    pid: str
    node: str
    verdict: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class Answers:
    """What every node answered, and why some did not. ``totals``: how long each node's whole listing is."""

    by_node: dict[str, Any]
    silent: dict[str, str] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class NatsSeen:
    """The NATS server that answers. ``seconds`` is a round trip, the median of some; ``jetstream`` None when the user
    may not ask for it."""

    version: str
    max_payload: int
    seconds: float
    jetstream: bool | None


class Client:
    """A connection to one cluster. Use it with ``async with``; ``gateway`` names the node to go through.

    ``connect_timeout`` is how long NATS may take to let us in and etcd to answer a request.
    """

    def __init__(
        self,
        nats_urls: Sequence[str],
        etcd_urls: Sequence[str],
        cluster: str,
        *,
        gateway: str | None = None,
        credentials: Credentials | None = None,
        nats_tls: bus.Tls | None = None,
        etcd_user: str | None = None,
        etcd_password: str | None = None,
        etcd_tls: etcd.Tls | None = None,
        connect_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        self.cluster = cluster
        self.keys = Keys(cluster)
        self._subjects = Subjects(cluster)
        self._name = f"client-{secrets.token_hex(6)}"
        self._gateway = gateway
        self._bus = Bus(
            nats_urls,
            name=self._name,
            inbox=self._subjects.inbox(self._name),
            credentials=credentials,
            tls=nats_tls,
            connect_timeout=connect_timeout,
        )
        self._is_connected = False
        self._attempts = 0
        self._refusal = "can't connect to NATS"
        self.etcd = Etcd(etcd_urls, user=etcd_user, password=etcd_password, tls=etcd_tls, timeout=connect_timeout)
        self._connecting = asyncio.Lock()
        self._etcd_silent_until = 0.0
        self.told_by = ""
        """The node that said which nodes there are, as etcd did not."""
        self._scope = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        await self._scope.enter_async_context(self.etcd)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._scope.__aexit__(kind, error, trace)

    async def check(self) -> None:
        """See that etcd answers. Raises Unavailable with what to do."""
        with contextlib.suppress(EtcdRefused):  # it does answer; what this user may not read is said when it is read
            await self._read_nodes()

    # looking

    async def nodes(self) -> list[Member]:
        """The registered nodes, by name. One whose registration can't be read counts as absent, as for its peers.

        While etcd does not answer they are those a node knows of, and ``told_by`` is that node.
        """
        async with Tasks("nodes", _told_by_await) as tasks:
            reading = tasks.start(self._read_nodes(), "etcd")
            if time.monotonic() >= self._etcd_silent_until:
                await asyncio.wait({reading}, timeout=_ETCD_PATIENCE)
            if not reading.done() or isinstance(reading.exception(), Unavailable):
                with contextlib.suppress(Unavailable, CallTimeout, NotConnected):
                    roll = await rollcall.call((await self._connected()).control, self._subjects, _ROLL_SECONDS)
                    self._etcd_silent_until = time.monotonic() + _ETCD_SILENCE
                    self.told_by = roll.node
                    return sorted(roll.members, key=lambda member: member.node)
            members = await reading
            self.told_by = ""
            return members

    async def _read_nodes(self) -> list[Member]:
        try:
            found = await self.etcd.range(self.keys.nodes)
        except Unavailable as error:
            why = str(error).removeprefix(f"read {self.keys.nodes} and on").lstrip(": ")
            raise Unavailable(f"etcd does not answer: {why}, or name another one with --etcd URL") from None
        members = []
        for kv in found.kvs:
            with contextlib.suppress(ValueError):
                members.append(Member.from_key(kv.key.removeprefix(self.keys.nodes), kv))
        return members

    async def nats(self, timeout: float = LISTING_TIMEOUT) -> NatsSeen:
        """The NATS server: version, latency, whether JetStream is on. Raises Unavailable, CallTimeout."""
        connection = (await self._connected()).control
        spans = []
        async with asyncio.timeout(timeout):
            for _ in range(_PINGS):
                began = time.monotonic()
                await connection.flush()
                spans.append(time.monotonic() - began)
        server = connection.server()
        return NatsSeen(server.version, server.max_payload, sorted(spans)[_PINGS // 2], await self._has_jetstream())

    async def _has_jetstream(self) -> bool | None:
        try:
            await self._bus.control.request("$JS.API.INFO", b"", _JETSTREAM_SECONDS)
        except CallTimeout:
            return None  # this user may not publish there
        except Unavailable:
            return False
        return True

    async def ask_all(self, op: str, *, timeout: float = LISTING_TIMEOUT, **query: Any) -> Answers:
        """The same query to every node that has not gone; one that fails is in ``silent`` with the reason.

        Raises Unavailable when NATS does not answer.
        """
        members = await self.nodes()
        if members:
            await self._connected()
        answers = await asyncio.gather(
            *(self._ask(member, op, query, timeout) for member in members), return_exceptions=True
        )
        by_node: dict[str, Any] = {}
        silent: dict[str, str] = {}
        for member, answer in zip(members, answers, strict=True):
            if isinstance(answer, ClusterError):
                silent[member.node] = str(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                by_node[member.node] = answer
        return Answers(by_node, silent)

    async def ask(self, node: str, op: str, *, timeout: float = DEFAULT_TIMEOUT, **query: Any) -> Any:
        """One query to one node."""
        return await self._ask(await self.member(node), op, query, timeout)

    async def member(self, node: str) -> Member:
        """The registered node of that name. Raises NoNodes, naming those there are."""
        members = await self.nodes()
        for member in members:
            if member.node == node:
                return member
        known = ", ".join(member.node for member in members) or "none at all"
        raise NoNodes(f"node {node!r} is not in cluster {self.cluster!r}; there: {known}")

    async def ps(self, *, limit: int | None = None, host: str | None = None, entry: str | None = None) -> Answers:
        """The processes of every node: lists of maps, at most ``limit`` of each node."""
        return await self._list_all("list", limit, LISTING_TIMEOUT, host=host, entry=entry)

    async def names(self, *, timeout: float = LISTING_TIMEOUT) -> Answers:
        """The names every node knows, its own LOCAL ones among them. ``timeout`` is for each page."""
        return await self._list_all("names", None, timeout)

    async def locks(self, *, timeout: float = LISTING_TIMEOUT) -> Answers:
        """The held locks, as every node sees them. ``timeout`` is for each page."""
        return await self._list_all("locks", None, timeout)

    async def _list_all(self, op: str, limit: int | None, timeout: float, **query: Any) -> Answers:
        """A listing of every node, page by page. One that breaks off is in ``by_node`` and in ``silent``."""
        page = min(limit, _PAGE) if limit else _PAGE
        answers = await self.ask_all(op, timeout=timeout, limit=page, **query)
        read = Answers({}, dict(answers.silent))

        async def read_on(node: str, first: dict[str, Any]) -> None:
            items, more = read.by_node.setdefault(node, list(first["items"])), first["more"]
            read.totals[node] = first["total"]
            while more is not None and (limit is None or len(items) < limit):
                left = _PAGE if limit is None else min(limit - len(items), _PAGE)
                try:
                    following = await self.ask(node, op, timeout=timeout, cursor=more, limit=left)
                except ClusterError as error:
                    read.silent[node] = f"only {len(items)} of {first['total']} were told: {error}"
                    return
                items += following["items"]
                more = following["more"]

        await asyncio.gather(*(read_on(node, first) for node, first in answers.by_node.items()))
        return read

    async def services(self, *, timeout: float = LISTING_TIMEOUT) -> Answers:
        """The services as every node knows them. ``timeout`` is for each page."""
        return await self._list_all("services", None, timeout)

    async def trees(self, *, timeout: float = LISTING_TIMEOUT) -> Answers:
        """The supervisors of every node, each followed by its children (which say ``of`` which). ``timeout`` is for
        each page."""
        return await self._list_all("trees", None, timeout)

    async def dead_letters(
        self, *, limit: int | None = None, reason: str | None = None, timeout: float = LISTING_TIMEOUT
    ) -> Answers:
        """The dead letters every node keeps, the newest first; at most ``limit`` of each. ``timeout``: of each page."""
        return await self._list_all("dead_letters", limit, timeout, **({} if reason is None else {"reason": reason}))

    async def settled(
        self, version: int, timeout: float, on_settled: Callable[[Outcome], None] = lambda outcome: None
    ) -> dict[str, Outcome]:
        """Wait, at most ``timeout`` seconds, until every serving node took ``version`` of the registry; what became
        of it on each. Raises Unavailable when NATS or etcd don't answer."""
        await self._connected()

        async def ask(member: Member, seconds: float) -> Any:
            return await self._ask(member, "converged", {"version": version}, seconds)

        return await settled(self.nodes, ask, version, timeout, on_settled)

    # changing

    @contextlib.asynccontextmanager
    async def registry(
        self, author: str, validator: Validator | None, *, capability: Mapping[str, int] | None = None
    ) -> AsyncIterator[Registry]:
        """The cluster's registry, to read, to follow and to change: the same ``commit`` as everybody's.

            async with client.registry("billing", check) as registry:
                await registry.commit([Update(entry)], message="new limits")

        ``author`` stands in the history, with ``client <this host>`` for where it was. The caller validates:
        pass what nodes would refuse (``node.kinds.check_state``), for what is committed all nodes have.
        """
        where = f"client {socket.gethostname()}"
        async with open_registry(
            self.etcd, self.keys, author, validator, capability=capability, where=where
        ) as registry:
            yield registry

    # acting

    async def send(self, to: str, topic: str, *payload: Any, timeout: float = DEFAULT_TIMEOUT) -> str:
        """Send a message to a PID or a name; returns the PID once its node accepted it.

        Raises QueryFailed with code ``noproc`` when the process is dead or the name unknown.
        """
        answer = await self.through("send", timeout, to=to, topic=topic, **_payload(payload))
        return str(answer["pid"])

    async def call(self, to: str, topic: str, *payload: Any, timeout: float = DEFAULT_TIMEOUT) -> Reply:
        """Send a message with a reply PID and return the first message that comes back to it."""
        answer = await self.through("call", timeout, to=to, topic=topic, **_payload(payload))
        return Reply(str(answer["from"]), str(answer["topic"]), list(answer["payloads"]))

    async def call_function(self, function: str, *args: Any, timeout: float = DEFAULT_TIMEOUT) -> Any:
        """Call a function entry on the gateway; returns its first value, raises QueryFailed with its error."""
        return await self.through("call_function", timeout, id=function, args=list(args))

    async def spawn(self, entry: str, host: str, *args: Any, timeout: float = DEFAULT_TIMEOUT) -> str:
        """Start a process of ``entry`` on ``host`` (``ns:host``, or ``node@ns:host``); returns its PID."""
        return str(await self.through("spawn", timeout, id=entry, host=host, args=list(args)))

    async def cancel(self, to: str, reason: str = "", *, timeout: float = DEFAULT_TIMEOUT) -> str:
        """Ask a process to end; it may take its time."""
        return str((await self.through("cancel", timeout, to=to, reason=reason))["pid"])

    async def terminate(self, to: str, *, timeout: float = DEFAULT_TIMEOUT) -> str:
        """End a process at once."""
        return str((await self.through("terminate", timeout, to=to))["pid"])

    # operating

    async def move(self, process: str, node: str, *, within: float = 10.0) -> Moved:
        """Move a process, given by its PID or name, to ``node``; it has ``within`` seconds to hand over its state.

        Raises QueryFailed when there is no such process or node.
        """
        await self.member(node)
        told = await self.through("move", within + _DECIDED, process=process, to=node, within=within)
        for _ in range(_CHASES):
            if "elsewhere" not in told:
                return Moved(told["pid"], told["node"], told["verdict"], told["reason"], told["seconds"])
            place, pid = str(told["elsewhere"]), str(told["pid"])
            told = await self.ask(place, "move", timeout=within + _DECIDED, process=pid, to=node, within=within)
        raise Unavailable(f"process {told['pid']} moves from node to node faster than it can be asked; try again")

    async def cordon(self, node: str, *, timeout: float = DEFAULT_TIMEOUT) -> NodeState:
        """Let a node keep what it has and get nothing new; its state then."""
        return NodeState((await self.ask(node, "cordon", timeout=timeout))["state"])

    async def uncordon(self, node: str, *, timeout: float = DEFAULT_TIMEOUT) -> NodeState:
        """Let a node take work again, and call off its drain; its state then."""
        return NodeState((await self.ask(node, "uncordon", timeout=timeout))["state"])

    async def drain(self, node: str, within: float, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Begin to empty a node, unless that is under way. What does not move is killed after ``within`` seconds."""
        await self.ask(node, "drain", within=within, timeout=timeout)

    async def drained(self, node: str, *, timeout: float = DEFAULT_TIMEOUT) -> dict[str, Any]:
        """How far the latest drain of a node is; see docs/draining.md."""
        told: dict[str, Any] = await self.ask(node, "drained", timeout=timeout)
        return told

    # the way to a node

    async def through(self, op: str, timeout: float, **query: Any) -> Any:
        """Ask the gateway. One that nobody answers for has accepted nothing, so the next is asked."""
        missing: Unavailable | None = None
        gateways = await self._gateways()
        if gateways:
            await self._connected()
        for member in gateways:
            try:
                return await self._ask(member, op, query, timeout)
            except Unavailable as error:
                missing = error
        raise missing or NoNodes(f"cluster {self.cluster!r} has no ready node; `wippy nodes` shows what is there")

    async def _gateways(self) -> list[Member]:
        if self._gateway is not None:
            return [await self.member(self._gateway)]
        members = await self.nodes()
        return [m for m in members if m.state is NodeState.READY] or [
            m for m in members if m.state is not NodeState.JOINING
        ]

    async def _ask(self, member: Member, op: str, query: dict[str, Any], timeout: float) -> Any:
        raw = msgpack.packb(
            to_raw({"op": op, "timeout": timeout, **query}), use_bin_type=False, unicode_errors="surrogateescape"
        )
        if len(raw) > MAX_MESSAGE:
            raise MessageTooBig(len(raw), MAX_MESSAGE)
        subject = self._subjects.control(member.node, member.epoch, self._name)
        connection = await self._connected()
        try:
            packed = await connection.control.request(subject, raw, timeout + _SLACK)
        except CallTimeout:
            raise CallTimeout(f"{op} at node {member.node}", timeout) from None
        return _opened(packed, member.node)

    async def _connected(self) -> Bus:
        """The bus; connected when it is first needed, because reading etcd needs none.

        Those who waited for an attempt that failed fail with it: N queries don't take N deadlines.
        """
        attempts = self._attempts
        async with self._connecting:
            if self._is_connected:
                return self._bus
            if self._attempts == attempts:
                self._attempts += 1
                await self._connect()
                return self._bus
            raise Unavailable(self._refusal)

    async def _connect(self) -> None:
        try:
            await self._scope.enter_async_context(self._bus)
        except Unavailable as error:
            self._refusal = str(error)
            raise
        self._is_connected = True


def _told_by_await(task: str, error: BaseException) -> None:
    """Of a task that is awaited: whoever awaits it says what it failed with."""


def _payload(payload: tuple[Any, ...]) -> dict[str, Any]:
    if len(payload) > 1:
        raise ValueError(f"expected one payload or none, got {len(payload)}")
    return {"payload": payload[0]} if payload else {}


def _opened(packed: bytes, node: str) -> Any:
    """The value in an answer. Raises QueryFailed when it is an error."""
    answer = to_text(unpack(packed))
    match answer:
        case {"ok": True, "value": value}:
            return value
        case {"ok": False, "error": {"kind": kind, "message": message, **more}}:
            raise QueryFailed(str(kind), str(message), str(more.get("code", "")), node)
        case _:
            raise QueryFailed("Internal", f"node {node} answered {answer!r}", "internal", node)
