"""Keeps this node's copy of a namespace and the cluster's bucket in NATS the same.

Two loops. One follows the bucket: it opens it, tells the copy what is there, then every change, and begins again
whenever the feed breaks, from where it was if the bucket is the same and the pause was short, else with all of it.
The other publishes what the copy has and the bucket lacks; of two nodes that put one key, the loser reads what the
winner put and lets the later one win. Neither gives up: while NATS is away they try again, and ``problem`` says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Self

import structlog

from cluster.bucket import Bucket, Changed, Record
from cluster.errors import CallTimeout, ClusterError, NotConnected, Unavailable
from cluster.feed import Feed
from cluster.subjects import token, untoken
from cluster.tasks import Tasks
from node.stores.cell import pack_cell, unpack_cell
from node.stores.copy import FORGET_AFTER, Copy, Publication

log = structlog.get_logger("wippy.stores")

AT_ONCE = 64
"""Puts under way at a time."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
NOT_ASKED = "NATS was not asked yet"
SWEEP_EVERY = 30.0
SWEPT_AT_ONCE = 2000
LONGEST_SUBJECT = 200
"""Characters of an encoded key; one that takes more is named by its digest."""
DIGEST = "=="
"""How the name of such a key begins; that of no other does."""
LONG_PAUSE = FORGET_AFTER / 2000
"""Seconds without a word from the bucket after which deletions may have been missed."""


def subject_of(prefix: str, namespace: str, key: bytes) -> str:
    """The subject a key has in a bucket."""
    name = token(key.decode("utf-8", "surrogateescape"))
    if len(name) > LONGEST_SUBJECT:
        name = f"{DIGEST}{blake2b(key, digest_size=24).hexdigest()}"
    return f"{prefix}{token(namespace)}.{name}"


class Replication:
    """One namespace between its copy and a bucket. ``async with`` runs it.

    ``deliver`` is the beginning of the subjects the changes come on: in the inbox of this node.
    """

    def __init__(
        self,
        bucket: Bucket,
        namespace: str,
        copy: Copy,
        deliver: str,
        *,
        has_data: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._copy = copy
        self._deliver = deliver
        self._clock = clock
        self._feeds = 0
        self._strange = 0
        self._identity = ""
        self._heard = 0.0
        self._feed: Feed | None = None
        self._wake = asyncio.Event()
        self._work = asyncio.Event()
        self._settled = asyncio.Event()
        self._is_open = asyncio.Event()
        self._tasks = Tasks(f"store {namespace}")
        self.level = asyncio.Event()
        """Set once the copy has had all that was in the bucket, this one or (``has_data``) an earlier one."""
        if has_data:
            self.level.set()
        self.problem = NOT_ASKED
        """Why the copy is cut off from the others now; empty while it is not."""

    async def __aenter__(self) -> Self:
        self._tasks.start(self._follow(), "follow")
        self._tasks.start(self._publish(), "publish")
        self._tasks.start(self._sweep(), "sweep")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._tasks.close()

    def wake(self) -> None:
        """The connection to NATS is back: what the feed missed is not known."""
        self._wake.set()
        if self._feed is not None:
            self._feed.end("NATS was away")

    def denied(self, subject: str) -> None:
        """NATS refuses this user a subject of the buckets; an answer to it would be waited for in vain."""
        if self._feed is not None:
            self._feed.end(f"NATS refuses to publish {subject}: give the user of the nodes what docs/deploy.md lists")

    def publish_soon(self) -> None:
        """The copy has something to publish."""
        self._work.set()

    async def published(self, timeout: float) -> bool:
        """Wait until the bucket has all that the copy has; whether it got so far."""
        try:
            async with asyncio.timeout(timeout):
                while self._copy.is_waiting:
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            return False
        return True

    # -- following

    async def _follow(self) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            self._wake.clear()
            try:
                reason = await self._session()
            except (Unavailable, NotConnected, CallTimeout) as error:
                reason = str(error)
            except (OSError, RuntimeError, AttributeError) as error:
                reason = f"the connection to NATS ended: {error!r}"  # as nats-py tells of a transport that is gone
            self._is_open.clear()
            self._complain(reason)
            pause = FIRST_PAUSE if time.monotonic() - began > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _session(self) -> str:
        """Follow the bucket until the feed breaks; why it did."""
        opened = await self._bucket.open()
        copy = self._copy
        is_same = opened.identity == self._identity and opened.last >= copy.reached
        is_short = time.monotonic() - self._heard < LONG_PAUSE
        resumes = is_same and is_short and copy.reached > 0 and not copy.is_loading
        if not resumes:
            copy.begin(anew=not is_same, up_to=opened.last)
        self._identity = opened.identity
        self._feeds += 1
        if not self.level.is_set() and self.problem == NOT_ASKED:
            self.problem = "its values are on their way"
        self._feed = Feed(
            self._bucket,
            f"{self._bucket.prefix}{token(self._namespace)}.>",
            f"{self._deliver}.{self._feeds}",
            after=copy.reached if resumes else 0,
            level=opened.last,
            on_record=self._heard_of,
            on_level=self._on_level,
        )
        async with self._feed as feed:
            try:
                return await feed.run()
            finally:
                self._heard = time.monotonic()

    def _heard_of(self, record: Record) -> None:
        self._take(record)
        self._copy.reached = record.sequence

    def _take(self, record: Record) -> None:
        try:
            key, cell = unpack_cell(record.payload)
        except ValueError:
            self._take_strange(record)
        else:
            self._copy.remote(key, cell, record.sequence)
        if self._copy.is_waiting:
            self._work.set()
        self._settled.set()

    def _take_strange(self, record: Record) -> None:
        """It is no cell, so no node wrote it."""
        known = self._key_of(record.subject)
        if known is not None:
            self._copy.foreign(known, record.sequence)
        self._strange += 1
        if self._strange & (self._strange - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            undone = known is not None
            log.warning(
                "somebody else wrote to a store in NATS", subject=record.subject, undone=undone, count=self._strange
            )

    def _key_of(self, subject: str) -> bytes | None:
        """The key of the copy that has this subject."""
        name = subject.rpartition(".")[2]
        if name.startswith(DIGEST):
            return next((key for key in self._copy.all_keys() if self._subject(key) == subject), None)
        try:
            key = untoken(name).encode("utf-8", "surrogateescape")
        except ValueError:
            return None
        return key if self._copy.knows(key) and self._subject(key) == subject else None

    def _on_level(self) -> None:
        self._copy.level()
        if self.problem and self.level.is_set():
            log.info("store in step with NATS again", namespace=self._namespace, waiting=self._copy.stats().waiting)
        self.problem = ""
        self.level.set()
        self._is_open.set()
        self._work.set()

    def _complain(self, reason: str) -> None:
        if not self.problem or (reason != self.problem and not self.level.is_set()):
            log.warning("store cut off from NATS", namespace=self._namespace, reason=reason)
        self.problem = reason

    # -- publishing

    async def _publish(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._work.wait()
            await self._is_open.wait()
            self._work.clear()
            batch = self._copy.take(AT_ONCE)
            if not batch:
                continue
            results = await asyncio.gather(*(self._tasks.start(self._put(one), "put") for one in batch))
            self._settled.set()
            if self._copy.is_waiting:
                self._work.set()
            refused = next((reason for reason in results if reason), "")
            if not refused:
                pause = FIRST_PAUSE
                continue
            if pause == FIRST_PAUSE:
                log.warning("NATS does not take a write of a store; tried again", reason=refused, waiting=len(batch))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _put(self, publication: Publication) -> str:
        """Publish one cell; why it was not taken, empty when that is settled."""
        subject = self._subject(publication.key)
        sequence = None
        try:
            payload = pack_cell(publication.key, publication.cell)
            sequence = await self._bucket.put(subject, payload, publication.replaces, self._ttl(publication))
        except Changed:
            return await self._settle(publication.key, subject)
        except ClusterError as error:
            return str(error)
        finally:
            self._copy.landed(publication, sequence)
        return ""

    async def _settle(self, key: bytes, subject: str) -> str:
        """Another was quicker, or the bucket is a new one: the copy learns what is there, and goes on from that."""
        try:
            found = await self._bucket.last(subject)
        except ClusterError as error:
            return str(error)
        if found is None:
            self._copy.absent(key)
        else:
            self._take(found)
        return ""

    def _ttl(self, publication: Publication) -> float:
        end = publication.cell.end
        if not end:
            return 0.0
        left = max(0, publication.cell.expires - round(self._clock() * 1000))
        return (left + FORGET_AFTER) / 1000

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            keys = self._copy.all_keys()
            for first in range(0, len(keys), SWEPT_AT_ONCE):
                self._copy.sweep(keys[first : first + SWEPT_AT_ONCE], round(self._clock() * 1000))
                await asyncio.sleep(0)

    def _subject(self, key: bytes) -> str:
        return subject_of(self._bucket.prefix, self._namespace, key)
