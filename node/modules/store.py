"""Module ``store``: key-value data, in this node or shared by the cluster.

A write of a process that runs under a service claim, or holds locks, carries them as its fences: once
one of them is another's or nobody's, the write is refused (PermissionDenied, "stale owner") and
changes nothing; a ``store.kv.crdt`` knows no fences. Every call has the dispatcher's deadline; while
etcd is away it ends in Unavailable (nothing was done) or Timeout (a write whose answer was lost: it may or
may not have happened).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from cluster.errors import OutcomeUnknown
from cluster.etcd import EtcdRefused, LeaseGone, PermissionDenied, TooLarge
from node.modules.contract import Answer, Caller, LuaError, Values, argument, invalid, lua_type, not_found, text
from node.stores import Item, Precondition, Store, Stores
from node.stores.contract import (
    MAX_PAGE,
    FencesOf,
    KeyExists,
    Refused,
    StaleOwner,
    StoreFull,
    VersionChanged,
)

DEFAULT_PAGE = 100


class StoreModule:
    """Python half of ``store``. ``fences`` gives the claim a PID runs under and the locks it holds."""

    name = "store"
    deadlines: Mapping[str, timedelta | None] = {}

    def __init__(self, stores: Stores, fences: FencesOf) -> None:
        self._stores = stores
        self._fences = fences
        self._functions: dict[str, Callable[[Caller, Store, Values], Awaitable[Values]]] = {
            "get": self._get,
            "entry": self._entry,
            "has": self._has,
            "set": self._set,
            "put": self._put,
            "delete": self._delete,
            "list": self._list,
        }

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        id = text(argument(args, 0), "store id")
        store = self._stores.find(id)
        if store is None:
            known = ", ".join(self._stores.ids()) or "none"
            raise not_found(f"no store {id!r} on this node; its stores are: {known}")
        if fn == "info":
            info = store.info
            return [{name: getattr(info, name) for name in info.__slots__}]
        function = self._functions.get(fn)
        if function is None:
            raise invalid(f"store has no function {fn!r}")
        return self._guard(function(caller, store, args[1:]))

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"store.{fn} wants an answer")

    async def _guard(self, work: Awaitable[Values]) -> Values:
        """What a store may refuse, as Lua sees it."""
        try:
            return await work
        except KeyExists as error:
            raise LuaError("AlreadyExists", str(error), retryable=False) from None
        except VersionChanged as error:
            now = {"version": error.version} if error.version else None
            raise LuaError("Conflict", str(error), retryable=True, details=now) from None
        except StaleOwner as error:
            details = {"reason": "stale_owner", "claim": error.claim, "token": error.token}
            raise LuaError("PermissionDenied", str(error), retryable=False, details=details) from None
        except StoreFull as error:
            raise LuaError(
                "Unavailable", str(error), retryable=True, details={"limit": error.limit, "unit": error.unit}
            ) from None
        except (Refused, TooLarge) as error:
            raise invalid(str(error)) from None
        except OutcomeUnknown as error:
            message = f"the outcome of the write is unknown; read the key before you repeat it ({error})"
            raise LuaError("Timeout", message, retryable=False, details={"outcome": "unknown"}) from None
        except PermissionDenied as error:
            raise LuaError("PermissionDenied", str(error), retryable=False) from None
        except (LeaseGone, EtcdRefused) as error:
            raise LuaError("Unavailable", str(error), retryable=True) from None

    async def _get(self, caller: Caller, store: Store, args: Values) -> Values:
        return [(await self._read(store, args)).value]

    async def _entry(self, caller: Caller, store: Store, args: Values) -> Values:
        return [_lua_item(await self._read(store, args))]

    async def _has(self, caller: Caller, store: Store, args: Values) -> Values:
        return [await store.read(_key(args)) is not None]

    async def _set(self, caller: Caller, store: Store, args: Values) -> Values:
        value, ttl = argument(args, 1), _ttl(argument(args, 2))
        await store.write(_key(args), _value(value), ttl, fences=self._fences(caller.pid))
        return [True]

    async def _put(self, caller: Caller, store: Store, args: Values) -> Values:
        options = argument(args, 2) or {}
        if not isinstance(options, dict):
            raise invalid(f"store.put: expected options as a table, got {lua_type(options)}")
        when = _precondition(options)
        ttl = _ttl(options.get(b"ttl"))
        item = await store.write(_key(args), _value(argument(args, 1)), ttl, when, self._fences(caller.pid))
        return [_lua_item(item)]

    async def _delete(self, caller: Caller, store: Store, args: Values) -> Values:
        return [await store.delete(_key(args), self._fences(caller.pid))]

    async def _list(self, caller: Caller, store: Store, args: Values) -> Values:
        options = argument(args, 0) or {}
        if not isinstance(options, dict):
            raise invalid(f"store.list: expected options as a table, got {lua_type(options)}")
        limit = options.get(b"limit")
        count = DEFAULT_PAGE if limit is None else limit
        if isinstance(count, bool) or not isinstance(count, int | float) or not 1 <= count <= MAX_PAGE:
            raise invalid(f"store.list: expected a limit of 1 to {MAX_PAGE}, got {count!r}")
        page = await store.page(_option(options, b"prefix"), _option(options, b"after"), int(count))
        items = [_lua_item(item) for item in page.items]
        return [{"items": items, "cursor": page.cursor, "has_more": page.has_more}]

    async def _read(self, store: Store, args: Values) -> Item:
        key = _key(args)
        item = await store.read(key)
        if item is None:
            raise not_found(f"no key {key.decode('utf-8', 'backslashreplace')!r} in store {store.info.id}")
        return item


def _key(args: Values) -> bytes:
    key = argument(args, 0)
    if not isinstance(key, bytes):
        raise invalid(f"key: expected a string, got {lua_type(key)}")
    return key


def _value(value: Any) -> Any:
    if value is None:
        raise invalid("value is nil; use delete to remove a key")
    return value


def _ttl(ttl: Any) -> float:
    if ttl is None:
        return 0.0
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise invalid(f"ttl: expected a number of seconds, got {lua_type(ttl)}")
    return float(ttl)


def _option(options: dict[bytes, Any], name: bytes) -> bytes:
    value = options.get(name)
    if value is None:
        return b""
    if not isinstance(value, bytes):
        raise invalid(f"{name.decode()}: expected a string, got {lua_type(value)}")
    return value


def _precondition(options: dict[bytes, Any]) -> Precondition:
    absent, version = options.get(b"only_if_absent"), options.get(b"if_version")
    if absent and version is not None:
        raise invalid("only_if_absent and if_version exclude each other")
    if version is None:
        return Precondition(absent=bool(absent))
    if not isinstance(version, bytes):
        raise invalid(f"if_version: expected a version as `entry` gives it, got {lua_type(version)}")
    return Precondition(version=version.decode("utf-8", "replace"))


def _lua_item(item: Item) -> dict[str, Any]:
    return {"key": item.key, "value": item.value, "version": item.version}
