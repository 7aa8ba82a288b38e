"""Payloads on their way into the log: blobs of at most 512 KiB under a fresh random name.

``uploads/<u>`` lives on a lease of the writer and says that blobs of ``u`` are being written; the
commit deletes it in the same transaction that makes them reachable. A writer that dies leaves
an upload whose lease ends and blobs that the collector finds unreachable. A name is never
used twice, so nobody's chunks can mix. One lease serves several uploads in a row; it is not
renewed, so a writer that stands still loses its upload and starts over.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

import structlog

from cluster.etcd import Compare, Delete, Etcd, Lease, LeaseGone, NoSpace, Put
from cluster.keys import Keys
from cluster.registry.record import Blob
from cluster.registry.retry import UNANSWERED, pause, until_answered

log = structlog.get_logger("wippy.registry")

CHUNK = 512 * 1024
_REUSED = timedelta(seconds=60)
_MARGIN = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Upload:
    """A payload that is in etcd and reachable by nothing but ``key``, whose create_revision is ``created``."""

    key: str
    created: int
    blob: Blob

    @property
    def unchanged(self) -> Compare:
        """Holds while the collector keeps its hands off: every transaction that names the blob carries it."""
        return Compare.create(self.key, "=", self.created)


@dataclass(frozen=True, slots=True)
class Payload:
    """What is to be written, and its sha256."""

    raw: bytes
    sha: str

    @classmethod
    def of(cls, raw: bytes) -> Payload:
        return cls(raw, hashlib.sha256(raw).hexdigest())


def chunks_of(payload: bytes) -> list[bytes]:
    """``payload`` cut to chunks; an empty one has one empty chunk."""
    return [payload[at : at + CHUNK] for at in range(0, max(len(payload), 1), CHUNK)]


class Uploads:
    """Writes payloads for one writer."""

    def __init__(self, etcd: Etcd, keys: Keys) -> None:
        self._etcd = etcd
        self._keys = keys
        self._lease: Lease | None = None
        self._fresh_until = 0.0

    async def upload(self, payload: Payload, patience: timedelta) -> Upload:
        """Write ``payload`` under a fresh name, each request repeated until confirmed.

        The caller gives up after ``patience``; the lease lasts longer. Raises LeaseGone when etcd stood
        still for longer than that.
        """
        first, *rest = chunks_of(payload.raw)
        name, created = await self._begin(first, patience)
        for number, chunk in enumerate(rest, 1):
            key = self._keys.blob(name, number)
            await until_answered(lambda key=key, chunk=chunk: self._etcd.put(key, chunk, repeatable=True))  # type: ignore[misc]
        blob = Blob(name, 1 + len(rest), payload.sha, len(payload.raw))
        return Upload(self._keys.upload(name), created, blob)

    async def _begin(self, chunk: bytes, patience: timedelta) -> tuple[str, int]:
        """A fresh name with its first chunk, and the create_revision of its upload key.

        After an unknown outcome the name is given up.
        """
        lease = await self._granted(patience)
        while True:
            name = secrets.token_hex(16)
            key = self._keys.upload(name)
            try:
                result = await self._etcd.txn(
                    [Compare.absent(key)], [Put(key, b"", lease), Put(self._keys.blob(name, 0), chunk)]
                )
            except NoSpace:
                raise
            except UNANSWERED:
                await asyncio.sleep(pause(4))
                continue
            except LeaseGone:
                self._lease = None
                raise
            if result.succeeded:
                return name, result.revision

    async def _granted(self, patience: timedelta) -> int:
        """A lease that lasts for at least ``patience`` from now."""
        now = asyncio.get_running_loop().time()
        if self._lease is None or now + patience.total_seconds() > self._fresh_until:
            ttl = int((patience + _REUSED + _MARGIN).total_seconds())
            self._lease = await until_answered(lambda: self._etcd.grant(ttl))
            self._fresh_until = now + (patience + _REUSED).total_seconds()
        return self._lease.id

    async def abandon(self, done: Upload) -> None:
        """Leave an upload that was not committed to the collector at once. Best effort: its lease ends anyway."""
        try:
            await self._etcd.txn([done.unchanged], [Delete(done.key)])
        except UNANSWERED as error:
            log.debug("an upload is left until its lease ends", upload=done.key, error=str(error))
