"""One ordered watch over all keys with a prefix, shared by everybody who follows a part of it.

``async with PrefixWatch(...)`` reads everything at one revision, hands it to the
subscribers as one batch and follows from there: batches come in the order of revisions,
each whole, none twice and none left out, across lost connections and restarts of etcd.
When etcd has thrown the history away meanwhile (compaction, a message over the receive
limit, a store put back from a backup), the state is read anew and the subscribers get
the differences as one batch with ``relist`` set; what lay between is not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc
import structlog

from cluster.errors import CallTimeout, ClusterError, Unavailable
from cluster.etcd import rpc_pb2 as rpc
from cluster.etcd.client import Etcd
from cluster.etcd.connection import Stream
from cluster.etcd.errors import PermissionDenied, answer_is_too_large
from cluster.etcd.history import Known, batches_of, ranges_without, under
from cluster.etcd.values import Batch, KeyValue, encode_key, prefix_end
from cluster.handlers import Handlers
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.etcd.watch")

Handler = Callable[[Batch], None]
_BACKOFF_SECONDS = (0.05, 1.0)
_FIRST_CONNECT_SECONDS = 2.0
# how long `reached` waits for an event of that revision before it asks whether there will be one
_PATIENCE_SECONDS = 0.05


class _HistoryLost(Exception):
    """The watch can't go on from where it was; the state has to be read anew."""

    def __init__(self, why: str, *, went_back: bool = False) -> None:
        super().__init__(why)
        self.went_back = went_back


@dataclass(frozen=True, slots=True)
class WatchStats:
    """How the watch is doing. ``connected`` is false while it waits for etcd."""

    applied: int
    keys: int
    connected: bool
    batches: int
    events: int
    reconnects: int
    relists: int
    handler_failures: int


@dataclass(slots=True)
class _Counters:
    batches: int = 0
    events: int = 0
    reconnects: int = 0
    relists: int = 0
    handler_failures: int = 0


class PrefixWatch:
    """Follows every key under ``prefix``. Use it with ``async with``, after subscribing.

    Keys under the prefixes in ``unloaded`` are followed but not read at the start, and not
    compared when the state is read anew: a ``relist`` batch says nothing about them.
    """

    def __init__(self, etcd: Etcd, prefix: str, *, unloaded: Sequence[str] = ()) -> None:
        for hole in unloaded:
            if not hole.startswith(prefix):
                raise ValueError(f"expected unloaded prefixes under {prefix!r}, got {hole!r}")
        self._etcd = etcd
        self._prefix = prefix
        self._ranges = ranges_without(prefix, unloaded)
        self._known = Known(tuple(unloaded))
        self._subscribers: list[tuple[str, Handler]] = []
        self._applied = 0
        self._resume_after = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._connected = False
        self._has_connected = asyncio.Event()
        self._down_since: float | None = None
        self._back: Handlers[[]] = Handlers("etcd again")
        self._counters = _Counters()
        self._tasks = Tasks(f"watch of {prefix}")

    @property
    def applied(self) -> int:
        """What the subscribers have been told is the state of etcd at this revision."""
        return self._applied

    def subscribe(self, prefix: str, handler: Handler) -> Callable[[], None]:
        """Call ``handler`` with every batch that has events under ``prefix``, and with every ``relist`` batch.

        It is called on the event loop and must not block; only those events are in its
        batch. An error it raises is logged and does not stop the watch. Subscribed after
        the start, it gets what comes from then on. Returns the undo.
        """
        if not prefix.startswith(self._prefix):
            raise ValueError(f"expected a prefix under {self._prefix!r}, got {prefix!r}")
        subscriber = (prefix, handler)
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    async def __aenter__(self) -> Self:
        """Read everything and follow. Raises what ``Etcd.range`` raises."""
        await self._load()
        self._tasks.start(self._follow_forever(), "follow")
        # a watch opened before the next write is served at once; one that comes after it waits for etcd's turn
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_CONNECT_SECONDS):
                await self._has_connected.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()
        for _, waiter in self._waiting:
            waiter.cancel()

    async def reached(self, revision: int, timeout: timedelta | float = 5.0) -> None:
        """Return once the subscribers know the state at ``revision``. Raises CallTimeout.

        The revision may be of a change elsewhere in etcd: then there is no event to wait
        for, and a read proves that nothing is missing. That says nothing about prefixes in
        ``unloaded``, and a key that came and went meanwhile may still be told of later.
        (etcd can be asked for its progress, but before 3.5.8 the answer overtakes events.)
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        try:
            async with asyncio.timeout(seconds):
                while not await self._event_reaches(revision):
                    await self._prove_current()
        except TimeoutError:
            raise CallTimeout(
                f"watch of {self._prefix} to reach revision {revision} (it is at {self._applied})", seconds
            ) from None

    def stats(self) -> WatchStats:
        return WatchStats(
            applied=self._applied,
            keys=len(self._known.mods),
            connected=self._connected,
            batches=self._counters.batches,
            events=self._counters.events,
            reconnects=self._counters.reconnects,
            relists=self._counters.relists,
            handler_failures=self._counters.handler_failures,
        )

    async def _event_reaches(self, revision: int) -> bool:
        """Wait a moment for the watch to get there by itself."""
        if self._applied >= revision:
            return True
        waiter = asyncio.get_running_loop().create_future()
        entry = (revision, waiter)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await waiter
        except TimeoutError:
            return False
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        return True

    async def _prove_current(self) -> None:
        """Advance ``applied`` to now when a read shows that nothing is missing."""
        total, highest, now = 0, 0, 0
        try:
            for begin, end in self._ranges:
                count, newest, revision = await self._etcd.newest(begin, end, revision=now)
                total, highest, now = total + count, max(highest, newest), now or revision
        except Unavailable:
            return  # the caller asks again until its deadline
        if now > self._applied and self._known.is_current(total, highest, self._applied):
            self._advance(now)

    async def _load(self) -> None:
        """Read everything at one revision and hand out what differs from what was known."""
        kvs: list[KeyValue] = []
        revision = 0
        for exact in self._ranges:
            part = await self._etcd.range(self._prefix, exact_range=exact, revision=revision)
            kvs += part.kvs
            revision = part.revision
        self._resume_after = revision
        self._hand_out(self._known.replace(kvs, revision))
        self._applied = 0  # a store put back from a backup starts at a lower revision
        self._advance(revision)

    async def _follow_forever(self) -> None:
        backoff = _BACKOFF_SECONDS[0]
        must_load = False
        while True:
            try:
                if must_load:
                    await self._load()
                    must_load = False
                await self._follow()
            except _HistoryLost as lost:
                log.warning("watch reads its keys anew", prefix=self._prefix, why=str(lost), applied=self._applied)
                self._counters.relists += 1
                must_load = True
                if lost.went_back:
                    self._known.forget_revisions()
            except ClusterError as error:
                if self._down_since is None:
                    self._down_since = time.monotonic()
                    log.warning("watch lost etcd and tries again", prefix=self._prefix, error=str(error))
            backoff = _BACKOFF_SECONDS[0] if self._connected else min(backoff * 2, _BACKOFF_SECONDS[1])
            self._connected = False
            await asyncio.sleep(backoff)
            self._counters.reconnects += 1

    async def _follow(self) -> None:
        """Follow on one stream until it ends. Always raises: _HistoryLost or a ClusterError."""
        stream = await self._etcd.open_watch()
        try:
            await stream.send(self._create_request())
            while True:
                answer = await stream.receive()
                if answer.canceled:
                    raise self._canceled(answer)
                if answer.created:
                    await self._check_created(answer.header.revision)
                    self._note_connected()
                else:
                    self._take(answer)
        except grpc.aio.AioRpcError as error:
            raise self._ended(error, stream) from None
        finally:
            stream.close()

    def _note_connected(self) -> None:
        self._connected = True
        self._has_connected.set()
        if self._down_since is not None:
            seconds = round(time.monotonic() - self._down_since, 1)
            log.info("watch has etcd again", prefix=self._prefix, after_seconds=seconds, applied=self._applied)
            self._down_since = None
            self._back.tell()

    def on_return(self, handler: Callable[[], None]) -> None:
        """Call ``handler`` when the watch has etcd again after it had lost it, on the loop."""
        self._back.add(handler)

    def _create_request(self) -> rpc.WatchRequest:
        # never `fragment`, never `prev_kv`: a revision comes whole, and one lease may take 100,000 keys with it
        key = encode_key(self._prefix)
        return rpc.WatchRequest(
            create_request=rpc.WatchCreateRequest(
                key=key, range_end=prefix_end(key), start_revision=self._resume_after + 1, progress_notify=True
            )
        )

    def _canceled(self, answer: rpc.WatchResponse) -> Exception:
        if answer.compact_revision:
            return _HistoryLost(f"history before revision {answer.compact_revision} was compacted")
        # a login that ended looks like a missing right here
        self._etcd.connection.forget_login()
        return PermissionDenied(
            f"watch {self._prefix}: {answer.cancel_reason or 'etcd refused it'}; "
            "the user needs a role that may read this prefix (etcdctl role grant-permission)"
        )

    async def _check_created(self, revision: int) -> None:
        """A member behind us is slow, or the store was put back from a backup: ask the majority which."""
        if revision < self._resume_after and await self._etcd.revision() < self._resume_after:
            raise _HistoryLost(f"etcd is at revision {revision}, before {self._resume_after}", went_back=True)

    def _ended(self, error: grpc.aio.AioRpcError, stream: Stream[rpc.WatchResponse]) -> Exception:
        if answer_is_too_large(error):
            return _HistoryLost("a message of etcd is over the receive limit")
        self._etcd.connection.note_failure(error, stream.endpoint)
        return self._etcd.connection.explain(error, f"watch {self._prefix}", stream.endpoint)

    def _take(self, answer: rpc.WatchResponse) -> None:
        for batch in batches_of(answer.events, after=self._resume_after):
            self._known.note(batch)
            self._resume_after = batch.revision
            self._hand_out(batch)
            self._advance(batch.revision)
        if not answer.events:
            # a periodic progress answer comes in order with the events, unlike one asked for
            self._resume_after = max(self._resume_after, answer.header.revision)
            self._advance(answer.header.revision)

    def _hand_out(self, batch: Batch) -> None:
        self._counters.batches += 1
        self._counters.events += len(batch.events)
        for prefix, handler in tuple(self._subscribers):
            part = batch if prefix == self._prefix else under(batch, prefix)
            if part.events or part.relist:
                self._call(prefix, handler, part)

    def _call(self, prefix: str, handler: Handler, batch: Batch) -> None:
        try:
            handler(batch)
        except Exception:
            self._counters.handler_failures += 1
            log.exception("handler of a watch failed", prefix=prefix, revision=batch.revision)

    def _advance(self, revision: int) -> None:
        self._applied = max(self._applied, revision)
        for entry in [one for one in self._waiting if one[0] <= self._applied]:
            self._waiting.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)
