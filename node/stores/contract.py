"""What a key-value store is, whatever holds its data.

Keys are bytes, values any plain Lua data (texts as bytes), versions opaque texts that change
with every write. Expected failures are ``KeyExists``, ``VersionChanged``, ``StaleOwner``,
``StoreFull`` and ``Refused`` (bad input); a store that can't be reached raises the cluster's
``Unavailable``, a write whose answer was lost ``OutcomeUnknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from cluster.errors import ClusterError

MAX_KEY = 2048
MAX_VALUE = 1024 * 1024
MAX_PAGE = 1000
PAGE_BYTES = 8 * 1024 * 1024
"""A page ends early when its values take more."""
MAX_TTL = 10 * 365 * 86400.0

Fence: TypeAlias = tuple[str, int]
"""A claim a writer runs under, or a lock it holds: the etcd key and the mod_revision it was granted with."""
FencesOf: TypeAlias = Callable[[bytes], Sequence[Fence]]


class KeyExists(ClusterError):
    """A write that asked for an absent key found one."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"key {shown(self.key)} exists already"


class VersionChanged(ClusterError):
    """A write that named a version found another; ``version`` is None when the key is gone."""

    def __init__(self, key: bytes, wanted: str, version: str | None) -> None:
        super().__init__(key, wanted, version)
        self.key = key
        self.wanted = wanted
        self.version = version

    def __str__(self) -> str:
        now = "is gone" if self.version is None else f"is at version {self.version}"
        return f"key {shown(self.key)} {now}, not at {self.wanted}; read it again and repeat the change"


class StaleOwner(ClusterError):
    """The writer runs under a claim, or held a lock, that is not its own any more: nothing was written."""

    def __init__(self, claim: str, token: int) -> None:
        super().__init__(claim, token)
        self.claim = claim
        self.token = token

    def __str__(self) -> str:
        return f"stale owner: this process no longer holds {self.claim} (token {self.token}); nothing was written"


class StoreFull(ClusterError):
    """No room for another key. ``limit`` in ``unit``: keys or bytes."""

    def __init__(self, store: str, limit: int, unit: str = "keys") -> None:
        super().__init__(store, limit, unit)
        self.store = store
        self.limit = limit
        self.unit = unit

    def __str__(self) -> str:
        option = "max_size" if self.unit == "keys" else "max_bytes"
        return f"store {self.store} is full: {self.limit} {self.unit}; delete some keys or raise {option}"


class Refused(ClusterError, ValueError):
    """Input no store takes: an empty or oversize key, an oversize value, a bad version or TTL."""


@dataclass(frozen=True, slots=True)
class Precondition:
    """When a write may happen: always, only if the key is absent, or only at a version."""

    absent: bool = False
    version: str | None = None


ALWAYS = Precondition()


@dataclass(frozen=True, slots=True)
class Item:
    key: bytes
    value: Any
    version: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some items in key order. ``cursor`` continues after them; b"" and has_more False at the end."""

    items: list[Item]
    cursor: bytes
    has_more: bool


@dataclass(frozen=True, slots=True)
class Info:
    """What a store can do."""

    id: str
    backend: str
    consistency: str
    durable: bool
    list: bool = True
    versioned: bool = True
    conditional_put: bool = True
    ttl: bool = True


class Store(Protocol):
    """One store. All methods may be called at once from many tasks."""

    @property
    def info(self) -> Info: ...

    @property
    def max_value(self) -> int:
        """Bytes of the largest value it takes, packed."""

    async def read(self, key: bytes) -> Item | None:
        """The item, None when there is none or its time is over."""

    async def write(
        self, key: bytes, value: Any, ttl: float, when: Precondition = ALWAYS, fences: Sequence[Fence] = ()
    ) -> Item:
        """Write ``value`` for ``ttl`` seconds (0 = for ever).

        Raises KeyExists, VersionChanged, StaleOwner, StoreFull or Refused; nothing was written then.
        """

    async def delete(self, key: bytes, fences: Sequence[Fence] = ()) -> bool:
        """Whether there was one. Raises StaleOwner."""

    async def page(self, prefix: bytes, after: bytes, limit: int) -> Page:
        """Up to ``limit`` items whose key starts with ``prefix`` and sorts after ``after`` (b"" = from the start)."""


def check_key(key: bytes) -> None:
    """Raises Refused."""
    if not key:
        raise Refused("key is empty; expected a text of at least one byte")
    if len(key) > MAX_KEY:
        raise Refused(f"key of {len(key)} bytes is over the limit of {MAX_KEY} bytes: {shown(key)}")


def check_ttl(ttl: float) -> None:
    """Raises Refused."""
    if not 0 <= ttl <= MAX_TTL:
        raise Refused(f"expected a ttl of 0 (for ever) to {MAX_TTL:.0f} seconds, got {ttl!r}")


def check_size(key: bytes, size: int, limit: int = MAX_VALUE) -> None:
    """Raises Refused."""
    if size > limit:
        raise Refused(
            f"value of key {shown(key)} is {size} bytes, over the limit of {limit} bytes; split it, or keep it"
            " elsewhere and store where"
        )


def shown(key: bytes) -> str:
    """A key as it stands in a message."""
    text = key.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
