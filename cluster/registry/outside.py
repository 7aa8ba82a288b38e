"""The registry for a program that is no node: a command, or a client."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.registry.commit import Validator
from cluster.registry.registry import Registry


@asynccontextmanager
async def open_registry(
    etcd: Etcd,
    keys: Keys,
    author: str,
    validator: Validator | None = None,
    *,
    capability: Mapping[str, int] | None = None,
    where: str = "",
) -> AsyncIterator[Registry]:
    """A registry with a watch of its own, over the registry's keys only.

    ``where`` is ``cli <this host>`` unless said otherwise.
    """
    watch = PrefixWatch(etcd, keys.registry, unloaded=[keys.blobs])
    where = where or f"cli {socket.gethostname()}"
    registry = Registry(etcd, watch, keys, author, validator, capability=capability, where=where)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(watch)
        await stack.enter_async_context(registry)
        yield registry
        await registry.finish()
