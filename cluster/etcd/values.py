"""What goes into etcd and comes out of it: keys with values, compares, operations, results.

Keys are text, values bytes, revisions int. A key of etcd that is not UTF-8 keeps its bytes
as surrogate escapes. ``prefix_end`` is the end of the range of keys with a prefix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from cluster.etcd import rpc_pb2 as rpc

Operator = Literal["=", "!=", "<", ">"]
_RESULTS = {
    "=": rpc.Compare.EQUAL,
    "!=": rpc.Compare.NOT_EQUAL,
    "<": rpc.Compare.LESS,
    ">": rpc.Compare.GREATER,
}


def encode_key(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def decode_key(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all keys that start with ``prefix``; ``\\0`` (etcd's "to the end") when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as etcd has it. ``lease`` is 0 for a key of no lease."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int

    @classmethod
    def of(cls, kv: rpc.KeyValue) -> KeyValue:
        return cls(decode_key(kv.key), kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


@dataclass(frozen=True, slots=True)
class Range:
    """Keys in order, all as they were at ``revision``. ``more``: the limit cut it off."""

    kvs: list[KeyValue]
    revision: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as granted; ``ttl`` in seconds is what etcd gave, which may be more than was asked for."""

    id: int
    ttl: int


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """What is left of a lease. ``remaining`` is -1 when it ended."""

    id: int
    remaining: int
    granted: int
    keys: list[str]


@dataclass(frozen=True, slots=True)
class Status:
    """The member that answered: its version, database size in bytes, the current revision, members of its cluster.

    ``db_in_use`` is what would be left of ``db_size`` after a defragmentation; ``alarms`` are those of the whole
    cluster, ``NOSPACE`` or ``CORRUPT``."""

    version: str
    db_size: int
    revision: int
    members: int
    db_in_use: int = 0
    alarms: tuple[str, ...] = ()


class _Target(Enum):
    VERSION = rpc.Compare.VERSION
    CREATE = rpc.Compare.CREATE
    MOD = rpc.Compare.MOD
    VALUE = rpc.Compare.VALUE
    LEASE = rpc.Compare.LEASE


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition of a transaction. A key that does not exist has every number 0 and no value."""

    key: str
    target: _Target
    operator: Operator
    operand: int | bytes
    whole_prefix: bool = False

    @classmethod
    def mod(cls, key: str, operator: Operator, revision: int) -> Compare:
        return cls(key, _Target.MOD, operator, revision)

    @classmethod
    def create(cls, key: str, operator: Operator, revision: int) -> Compare:
        return cls(key, _Target.CREATE, operator, revision)

    @classmethod
    def absent(cls, key: str) -> Compare:
        return cls(key, _Target.CREATE, "=", 0)

    @classmethod
    def present(cls, key: str) -> Compare:
        return cls(key, _Target.CREATE, ">", 0)

    @classmethod
    def version(cls, key: str, operator: Operator, version: int) -> Compare:
        return cls(key, _Target.VERSION, operator, version)

    @classmethod
    def value(cls, key: str, operator: Operator, value: bytes) -> Compare:
        return cls(key, _Target.VALUE, operator, value)

    @classmethod
    def lease(cls, key: str, operator: Operator, lease: int) -> Compare:
        return cls(key, _Target.LEASE, operator, lease)

    @classmethod
    def mod_prefix(cls, prefix: str, operator: Operator, revision: int) -> Compare:
        """Every key under ``prefix``; holds when there is none and 0 compares so."""
        return cls(prefix, _Target.MOD, operator, revision, whole_prefix=True)

    def message(self) -> rpc.Compare:
        key = encode_key(self.key)
        message = rpc.Compare(key=key, target=self.target.value, result=_RESULTS[self.operator])
        if self.whole_prefix:
            message.range_end = prefix_end(key)
        match self.target, self.operand:
            case _Target.VALUE, bytes(value):
                message.value = value
            case _Target.VERSION, int(number):
                message.version = number
            case _Target.CREATE, int(number):
                message.create_revision = number
            case _Target.MOD, int(number):
                message.mod_revision = number
            case _Target.LEASE, int(number):
                message.lease = number
            case _:
                raise ValueError(f"expected an operand for {self.target.name}, got {self.operand!r}")
        return message


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key. Answered by None."""

    key: str
    value: bytes
    lease: int = 0

    def message(self) -> rpc.RequestOp:
        return rpc.RequestOp(
            request_put=rpc.PutRequest(key=encode_key(self.key), value=self.value, lease=self.lease),
        )


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key, or every key with it as prefix. Answered by how many there were."""

    key: str
    whole_prefix: bool = False

    def message(self) -> rpc.RequestOp:
        key = encode_key(self.key)
        end = prefix_end(key) if self.whole_prefix else b""
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key, range_end=end))


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key, or every key with it as prefix (at most ``limit``, 0 = all). Answered by a list of KeyValue."""

    key: str
    whole_prefix: bool = False
    keys_only: bool = False
    limit: int = 0

    def message(self) -> rpc.RequestOp:
        key = encode_key(self.key)
        end = prefix_end(key) if self.whole_prefix else b""
        request = rpc.RangeRequest(key=key, range_end=end, keys_only=self.keys_only, limit=self.limit)
        return rpc.RequestOp(request_range=request)


Operation = Put | Delete | Get
Response = list[KeyValue] | int | None


def response_of(message: rpc.ResponseOp) -> Response:
    """The answer to one operation of a transaction, as its class documents it."""
    match message.WhichOneof("response"):
        case "response_range":
            return [KeyValue.of(kv) for kv in message.response_range.kvs]
        case "response_delete_range":
            return message.response_delete_range.deleted
        case _:
            return None


@dataclass(frozen=True, slots=True)
class TxnResult:
    """Whether the compares held, the revision after it, and one response per operation that ran."""

    succeeded: bool
    revision: int
    responses: list[Response] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """One change of one key. When ``deleted``, ``kv`` has the key and the revision of the deletion as mod_revision."""

    deleted: bool
    kv: KeyValue


@dataclass(frozen=True, slots=True)
class Batch:
    """All changes of one revision under a prefix, in order.

    ``relist``: the state was read anew, at the start or because the history was lost; the
    events are the differences to what was known, and what lay between was not seen.
    """

    revision: int
    events: list[KeyEvent]
    relist: bool = False
