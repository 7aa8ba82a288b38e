"""The changes of a bucket, in order and without a gap, from a given sequence on.

``async with Feed(...)`` subscribes; ``run`` tells the changes until the feed is of no use any more (a message was
missed, nothing was heard for a while) and says why: then make a new one, from the last sequence seen. It gives way
after a few of them, and asks the server for more only when it has told what came before: so a large bucket neither
holds up the loop nor drowns the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from cluster.bucket import Bucket, Record
from cluster.connection import Subscription
from cluster.errors import NotConnected, Unavailable

HEARTBEAT = 2.0
"""Seconds between signs of life of a feed that has nothing to tell."""
SILENCE = 3 * HEARTBEAT + 1
AT_ONCE = 32
"""Messages that are worked off before others on the loop have a turn."""


class Feed:
    """One run of changes. ``after`` 0 tells the last value of every subject, else what was written after it.

    ``on_record`` is called for each, ``on_level`` once when all that was there at the beginning has been told.
    """

    def __init__(
        self,
        bucket: Bucket,
        subjects: str,
        deliver: str,
        *,
        after: int,
        level: int,
        on_record: Callable[[Record], None],
        on_level: Callable[[], None],
    ) -> None:
        self._bucket = bucket
        self._subjects = subjects
        self._deliver = deliver
        self._after = after
        self._level: int | None = level
        self._on_record = on_record
        self._on_level = on_level
        self._told = 0
        self._heard = 0.0
        self._reason: str | None = None
        self._waiting: deque[tuple[str, str, bytes, dict[str, str] | None]] = deque()
        self._something = asyncio.Event()
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        """Raises Unavailable, NotConnected or CallTimeout."""
        self._heard = asyncio.get_running_loop().time()
        self._subscription = await self._bucket.connection.subscribe(self._deliver, self._take)
        try:
            await self._begin()
        except BaseException:
            await self._subscription.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # the consumer ends by itself some seconds after nobody listens to it
        if self._subscription is not None:
            await self._subscription.close()

    async def run(self) -> str:
        """Tell the changes as they come, until the feed can't be relied on; why."""
        loop = asyncio.get_running_loop()
        while self._reason is None:
            if self._waiting:
                self._tell_some()
                await asyncio.sleep(0)
                continue
            self._something.clear()
            try:
                async with asyncio.timeout_at(self._heard + SILENCE):
                    await self._something.wait()
            except TimeoutError:
                if loop.time() >= self._heard + SILENCE:
                    self.end(f"nothing was heard for {SILENCE:g} s")
        return self._reason

    def end(self, reason: str) -> None:
        """It can't be relied on any more; what waits is not told."""
        if self._reason is None:
            self._reason = reason
            self._something.set()

    async def _begin(self) -> None:
        start: dict[str, Any] = {"deliver_policy": "last_per_subject"}
        if self._after:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._after + 1}
        configuration = {
            **start,
            "deliver_subject": self._deliver,
            "filter_subject": self._subjects,
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
        }
        stream = self._bucket.stream
        body = {"stream_name": stream, "config": configuration}
        answer = await self._bucket.ask(f"CONSUMER.CREATE.{stream}", body)
        if "error" in answer:
            raise Unavailable(f"NATS gives no feed of {stream}: {answer['error'].get('description')}")
        if not answer.get("num_pending"):
            self._reached(self._level or 0)

    def _take(self, subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
        self._heard = asyncio.get_running_loop().time()
        self._waiting.append((subject, reply, payload, headers))
        self._something.set()

    def _tell_some(self) -> None:
        for _ in range(min(AT_ONCE, len(self._waiting))):
            if self._reason is None:
                self._tell(*self._waiting.popleft())

    def _tell(self, subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
        if headers is not None and headers.get("Status"):
            self._on_sign_of_life(reply, headers)
            return
        place = _place(reply)
        if place is None:
            return
        sequence, number, pending = place
        if number != self._told + 1:
            self.end(f"{number - self._told - 1} changes were missed")
            return
        self._told = number
        self._on_record(Record(subject, payload, sequence))
        self._reached(sequence if pending else max(sequence, self._level or 0))

    def _reached(self, sequence: int) -> None:
        if self._level is not None and sequence >= self._level:
            self._level = None
            self._on_level()

    def _on_sign_of_life(self, reply: str, headers: dict[str, str]) -> None:
        if headers["Status"] != "100":
            self.end(f"NATS ended the feed: {headers['Status']} {headers.get('Description', '')}".rstrip())
            return
        told = _number(headers, "Nats-Last-Consumer")
        if told is not None and told != self._told:
            self.end(f"{told - self._told} changes were missed")
            return
        go_on = reply or headers.get("Nats-Consumer-Stalled", "")
        if go_on:
            try:
                self._bucket.connection.publish(go_on, b"")
            except (NotConnected, Unavailable) as error:
                self.end(str(error))
        elif told is not None:
            # the server has looked so far: what was still to come has ended or been thrown away meanwhile
            self._reached(_number(headers, "Nats-Last-Stream") or 0)


def _number(headers: dict[str, str], name: str) -> int | None:
    value = headers.get(name, "")
    return int(value) if value.isdecimal() else None


def _place(reply: str) -> tuple[int, int, int] | None:
    """Of the reply subject of a delivery: sequence in the stream, number in the feed, how many are still to come."""
    parts = reply.split(".")
    first = 5 if len(parts) == 9 else 7
    try:
        return int(parts[first]), int(parts[first + 1]), int(parts[first + 3])
    except (IndexError, ValueError):
        return None
