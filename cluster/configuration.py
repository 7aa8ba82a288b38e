"""The operator's configuration in etcd: what lies over entries, and what became of it.

For programs and people that change configuration while the cluster runs. A value put under
``config/<ns>:<name>`` is folded into the registry by a ready node, or refused with a reason;
``answered`` waits for that. Without a running node nothing is lost: the value waits.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from cluster.errors import CallTimeout, ClusterError
from cluster.etcd import Compare, Delete, Etcd, Put
from cluster.keys import Keys
from cluster.registry.status import OverlayStatus, status_of

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Setting:
    """One overlay. ``raw`` is None when it was deleted and only the answer to that is there."""

    entry: str
    raw: bytes | None
    mod_revision: int
    status: OverlayStatus | None

    @property
    def is_answered(self) -> bool:
        """Whether the status speaks of this value, not of an earlier one."""
        return self.status is not None and self.status.mod == self.mod_revision


class ChangedMeanwhile(ClusterError):
    """Somebody else wrote the overlay between read and write."""


class Configuration:
    """Reads and writes overlays through etcd."""

    def __init__(self, etcd: Etcd, keys: Keys) -> None:
        self._etcd = etcd
        self._keys = keys

    async def all(self) -> list[Setting]:
        """Every overlay, by entry."""
        values = await self._etcd.range(self._keys.config)
        answers = await self._etcd.range(self._keys.config_status)
        statuses = {kv.key.removeprefix(self._keys.config_status): status_of(kv) for kv in answers.kvs}
        settings = []
        for kv in values.kvs:
            entry = kv.key.removeprefix(self._keys.config)
            settings.append(Setting(entry, kv.value, kv.mod_revision, statuses.get(entry)))
        return settings

    async def get(self, entry: str) -> Setting:
        """The overlay of one entry; ``mod_revision`` 0 when there is none."""
        value = await self._etcd.get(self._keys.overlay(entry))
        status = status_of(await self._etcd.get(self._keys.overlay_status(entry)))
        return Setting(entry, value.value if value else None, value.mod_revision if value else 0, status)

    async def put(self, entry: str, mapping: Any, *, expected: int | None = None) -> int:
        """Lay ``mapping`` over an entry; returns the revision. Raises ChangedMeanwhile when ``expected``,
        the mod_revision it was computed from, no longer holds."""
        key = self._keys.overlay(entry)
        compares = [] if expected is None else [Compare.mod(key, "=", expected)]
        result = await self._etcd.txn(compares, [Put(key, json.dumps(mapping, ensure_ascii=False).encode())])
        if not result.succeeded:
            raise ChangedMeanwhile(entry)
        return result.revision

    async def delete(self, entry: str) -> int:
        """Take away what lies over an entry; returns the revision."""
        return (await self._etcd.txn([], [Delete(self._keys.overlay(entry))])).revision

    async def answered(self, entry: str, mod: int, revision: int, timeout: float) -> OverlayStatus:
        """What the cluster says of the overlay with ``mod`` (0 = its deletion), read at ``revision`` or later.

        An answer to a newer value counts too. Raises CallTimeout when no node answers in time.
        """
        key = self._keys.overlay_status(entry)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    status = status_of(await self._etcd.get(key))
                    if status is not None and (status.mod == mod or status.revision >= revision):
                        return status
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise CallTimeout(f"the cluster's answer to config/{entry}; is a node ready?", timeout) from None
