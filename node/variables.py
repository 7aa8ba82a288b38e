"""Environment variables and their storages as the registry says, entry by entry.

The entries that change together are taken together: a variable and its storage need each other.
"""

from __future__ import annotations

import asyncio

from cluster.registry import Entry
from node.env import ENV_KINDS, EnvError, EnvRegistry


class Variables:
    """Handler of the ``env.*`` kinds."""

    name = "env"

    def __init__(self, env: EnvRegistry) -> None:
        self._env = env
        self._entries: dict[str, Entry] = {}
        self._failed: dict[str, str] = {}
        self._stale = False

    def handles(self, kind: str) -> bool:
        return kind in ENV_KINDS

    async def put(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        await self._take()
        if reason := self._failed.get(entry.id):
            raise EnvError(reason)

    async def remove(self, id: str) -> None:
        self._entries.pop(id, None)
        await self._take()

    async def _take(self) -> None:
        self._stale = True
        await asyncio.sleep(0)  # those that change together are taken together
        if self._stale:
            self._stale = False
            self._failed = self._env.converge(self._entries.values())
