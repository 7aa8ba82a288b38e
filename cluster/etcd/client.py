"""The asyncio client of etcd: read, write, transactions, leases.

``async with Etcd(endpoints) as etcd``. Each call has a deadline (``timeout``). Reads are
repeated within it when an answer is lost. A transaction never is, and neither is a plain
write unless ``repeatable`` says that doing it twice is harmless: a lost answer raises
OutcomeUnknown. Refusals are the exceptions of ``cluster.etcd.errors``. Reads of many keys
are paged, all pages at one revision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.message import Message

from cluster.etcd import rpc_pb2 as rpc
from cluster.etcd.connection import Answer, Connection, Method, Repeat, Stream, Tls
from cluster.etcd.errors import Compacted, LeaseGone, TooLarge, token_is_stale
from cluster.etcd.values import (
    Compare,
    KeyValue,
    Lease,
    LeaseInfo,
    Operation,
    Range,
    Status,
    TxnResult,
    decode_key,
    encode_key,
    prefix_end,
    response_of,
)

_RANGE = Method("/etcdserverpb.KV/Range", rpc.RangeResponse)
_PUT = Method("/etcdserverpb.KV/Put", rpc.PutResponse)
_DELETE_RANGE = Method("/etcdserverpb.KV/DeleteRange", rpc.DeleteRangeResponse)
_TXN = Method("/etcdserverpb.KV/Txn", rpc.TxnResponse)
_COMPACT = Method("/etcdserverpb.KV/Compact", rpc.CompactionResponse)
_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantResponse)
_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", rpc.LeaseRevokeResponse)
_TIME_TO_LIVE = Method("/etcdserverpb.Lease/LeaseTimeToLive", rpc.LeaseTimeToLiveResponse)
_KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", rpc.LeaseKeepAliveResponse)
_STATUS = Method("/etcdserverpb.Maintenance/Status", rpc.StatusResponse)
_MEMBERS = Method("/etcdserverpb.Cluster/MemberList", rpc.MemberListResponse)
_WATCH = Method("/etcdserverpb.Watch/Watch", rpc.WatchResponse)

_FIRST_PAGE = 1000
_LARGEST_PAGE = 5000
_PAGE_BYTES = 8 * 1024 * 1024
_RESTARTS_OF_A_READ = 3


class Etcd:
    """A client of one etcd. Bound to the event loop it is opened on.

    ``endpoints`` are the members' URLs, http or https; the first that answers is used.
    ``timeout`` is the deadline of each call, pages of a long read counted singly.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        user: str | None = None,
        password: str | None = None,
        tls: Tls | None = None,
        timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        self._connection = Connection(endpoints, user=user, password=password, tls=tls)
        self._timeout = timeout.total_seconds()

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    async def get(self, key: str, revision: int = 0) -> KeyValue | None:
        """The key now, or as it was at ``revision``; None when absent. Raises Compacted."""
        request = rpc.RangeRequest(key=encode_key(key), revision=revision)
        answer = await self._read(_RANGE, request, f"get {key}")
        return KeyValue.of(answer.kvs[0]) if answer.kvs else None

    async def range(
        self,
        prefix: str,
        *,
        revision: int = 0,
        keys_only: bool = False,
        start_after: str | None = None,
        limit: int = 0,
        exact_range: tuple[str, str] | None = None,
    ) -> Range:
        """All keys under ``prefix`` in order, as they were at one revision (0: now). Raises Compacted.

        ``start_after`` skips up to and including that key, ``limit`` cuts the answer off
        (``more`` is then true). ``exact_range`` reads first key to end (exclusive) instead of a prefix.
        """
        if exact_range is not None:
            begin, end = encode_key(exact_range[0]) or b"\0", encode_key(exact_range[1])
        else:
            begin, end = encode_key(prefix) or b"\0", prefix_end(encode_key(prefix))
        if start_after is not None:
            begin = max(begin, encode_key(start_after) + b"\0")
        for restarts_left in range(_RESTARTS_OF_A_READ, -1, -1):
            pages = _Pages(self, begin, end, revision=revision, keys_only=keys_only, limit=limit)
            try:
                return await pages.read()
            except Compacted:
                # without a revision asked for, a newer one is as good
                if revision or restarts_left == 0:
                    raise
        raise AssertionError("unreachable")

    async def newest(self, begin: str, end: str, revision: int = 0) -> tuple[int, int, int]:
        """Of the keys from ``begin`` to ``end``: how many, their highest mod_revision, the revision of the answer."""
        request = rpc.RangeRequest(key=encode_key(begin) or b"\0", range_end=encode_key(end), revision=revision)
        request.sort_order, request.sort_target = rpc.RangeRequest.DESCEND, rpc.RangeRequest.MOD
        request.limit, request.keys_only = 1, True
        answer = await self._read(_RANGE, request, f"count from {begin} to {end}")
        return answer.count, answer.kvs[0].mod_revision if answer.kvs else 0, answer.header.revision

    async def count(self, prefix: str) -> int:
        """How many keys are under ``prefix`` now."""
        key = encode_key(prefix)
        request = rpc.RangeRequest(key=key or b"\0", range_end=prefix_end(key), count_only=True)
        return (await self._read(_RANGE, request, f"count {prefix}")).count

    async def revision(self) -> int:
        """The current revision of the store, agreed by a majority."""
        request = rpc.RangeRequest(key=b"\0", count_only=True)
        return (await self._read(_RANGE, request, "read the revision")).header.revision

    async def put(self, key: str, value: bytes, lease: int = 0, *, repeatable: bool = False) -> int:
        """Set the key; the revision it got. Raises OutcomeUnknown unless ``repeatable``, LeaseGone, TooLarge."""
        request = rpc.PutRequest(key=encode_key(key), value=value, lease=lease)
        answer = await self._write(_PUT, request, f"put {key}", repeatable=repeatable)
        return answer.header.revision

    async def delete(self, key: str, *, repeatable: bool = False) -> bool:
        """Delete the key; whether it was there. Raises OutcomeUnknown unless ``repeatable``."""
        request = rpc.DeleteRangeRequest(key=encode_key(key))
        return (await self._write(_DELETE_RANGE, request, f"delete {key}", repeatable=repeatable)).deleted > 0

    async def delete_prefix(self, prefix: str, *, repeatable: bool = False) -> int:
        """Delete every key under ``prefix``; how many there were. Raises OutcomeUnknown unless ``repeatable``."""
        key = encode_key(prefix)
        request = rpc.DeleteRangeRequest(key=key or b"\0", range_end=prefix_end(key))
        return (await self._write(_DELETE_RANGE, request, f"delete {prefix}*", repeatable=repeatable)).deleted

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        """If all ``compares`` hold do ``success``, else ``failure``; atomically. Never sent twice.

        Raises OutcomeUnknown when the answer is lost, Unavailable when it surely was not applied.
        """
        request = rpc.TxnRequest(
            compare=[compare.message() for compare in compares],
            success=[operation.message() for operation in success],
            failure=[operation.message() for operation in failure],
        )
        answer = await self._write(_TXN, request, _describe(compares, success))
        return TxnResult(answer.succeeded, answer.header.revision, [response_of(one) for one in answer.responses])

    async def compact(self, revision: int) -> None:
        """Throw the history before ``revision`` away."""
        request = rpc.CompactionRequest(revision=revision, physical=True)
        await self._write(_COMPACT, request, f"compact to {revision}")

    async def grant(self, ttl_seconds: int) -> Lease:
        """A new lease. Asked again when the answer is lost: a lease nobody knows ends by itself."""
        answer = await self._write(_GRANT, rpc.LeaseGrantRequest(TTL=ttl_seconds), "grant a lease", repeatable=True)
        return Lease(answer.ID, answer.TTL)

    async def revoke(self, lease: int) -> bool:
        """End the lease and delete its keys; whether it still was there."""
        try:
            await self._write(_REVOKE, rpc.LeaseRevokeRequest(ID=lease), f"revoke lease {lease:x}", repeatable=True)
        except LeaseGone:
            return False
        return True

    async def time_to_live(self, lease: int, *, keys: bool = False) -> LeaseInfo:
        """How long the lease lasts unless renewed, and with ``keys`` what lives on it."""
        request = rpc.LeaseTimeToLiveRequest(ID=lease, keys=keys)
        answer = await self._read(_TIME_TO_LIVE, request, f"time to live of lease {lease:x}")
        return LeaseInfo(lease, answer.TTL, answer.grantedTTL, [decode_key(key) for key in answer.keys])

    async def keep_alive(
        self, lease: int, timeout: timedelta | None = None, *, on_send: Callable[[], None] = lambda: None
    ) -> int:
        """Renew the lease once; its TTL from now, 0 when it is gone. Raises Unavailable when no answer comes.

        ``on_send`` is called just before the request leaves.
        """
        what = f"renew lease {lease:x}"
        seconds = timeout.total_seconds() if timeout else self._timeout
        for is_last in (False, True):
            stream = await self._connection.stream(_KEEP_ALIVE, what=what, timeout=seconds, lifetime=seconds)
            try:
                on_send()
                await stream.send(rpc.LeaseKeepAliveRequest(ID=lease))
                return (await stream.receive()).TTL
            except grpc.aio.AioRpcError as error:
                self._connection.note_failure(error, stream.endpoint)
                if is_last or not token_is_stale(error):
                    raise self._connection.explain(error, what, stream.endpoint) from None
            finally:
                stream.close()
        raise AssertionError("unreachable")

    async def status(self) -> Status:
        """The member that answers."""
        member = await self._read(_STATUS, rpc.StatusRequest(), "read the status")
        members = await self._read(_MEMBERS, rpc.MemberListRequest(), "list the members")
        # each alarm is an error like "memberID:1234 alarm:NOSPACE "
        alarms = {error.partition("alarm:")[2].strip() for error in member.errors if "alarm:" in error}
        return Status(
            member.version,
            member.dbSize,
            member.header.revision,
            len(members.members),
            member.dbSizeInUse,
            tuple(sorted(alarms)),
        )

    async def open_watch(self) -> Stream[rpc.WatchResponse]:
        """A raw watch stream, for PrefixWatch."""
        return await self._connection.stream(_WATCH, what="watch", timeout=self._timeout)

    @property
    def connection(self) -> Connection:
        return self._connection

    async def _read(self, method: Method[Answer], request: Message, what: str) -> Answer:
        return await self._connection.unary(method, request, what=what, timeout=self._timeout, repeat=Repeat.SAFE)

    async def _write(self, method: Method[Answer], request: Message, what: str, *, repeatable: bool = False) -> Answer:
        repeat = Repeat.SAFE if repeatable else Repeat.NEVER
        return await self._connection.unary(method, request, what=what, timeout=self._timeout, repeat=repeat)

    async def read_page(self, request: rpc.RangeRequest) -> rpc.RangeResponse:
        """One page of a range, for ``range``."""
        what = f"read {decode_key(request.key)} and on"
        return await self._read(_RANGE, request, what)


class _Pages:
    """One range read page by page at the revision of its first page, each page of a bearable size."""

    def __init__(self, etcd: Etcd, begin: bytes, end: bytes, *, revision: int, keys_only: bool, limit: int) -> None:
        self._etcd = etcd
        self._request = rpc.RangeRequest(key=begin, range_end=end, revision=revision, keys_only=keys_only)
        self._limit = limit
        self._page = _FIRST_PAGE
        self._kvs: list[KeyValue] = []

    async def read(self) -> Range:
        while True:
            answer = await self._one_page()
            self._kvs.extend(KeyValue.of(kv) for kv in answer.kvs)
            self._request.revision = self._request.revision or answer.header.revision
            is_full = self._limit != 0 and len(self._kvs) >= self._limit
            if not answer.more or not answer.kvs or is_full:
                return Range(self._kvs, self._request.revision, answer.more)
            self._request.key = answer.kvs[-1].key + b"\0"
            self._adapt(answer)

    async def _one_page(self) -> rpc.RangeResponse:
        while True:
            left = self._limit - len(self._kvs) if self._limit else self._page
            self._request.limit = min(self._page, left)
            try:
                return await self._etcd.read_page(self._request)
            except TooLarge:
                if self._page == 1:
                    raise
                self._page = max(1, self._page // 16)

    def _adapt(self, answer: rpc.RangeResponse) -> None:
        """The next page is as many keys as should fit the wanted bytes, at most four times as many as this one."""
        each = answer.ByteSize() // len(answer.kvs) + 1
        self._page = max(1, min(_PAGE_BYTES // each, self._page * 4, _LARGEST_PAGE))


def _describe(compares: Sequence[Compare], success: Sequence[Operation]) -> str:
    keys = [operation.key for operation in success] or [compare.key for compare in compares]
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"transaction on {keys[0]}{more}" if keys else "empty transaction"
