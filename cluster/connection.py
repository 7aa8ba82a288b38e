"""One connection to NATS that never loses or refuses anything in silence.

It publishes at once or raises: while NATS is away nothing is kept for later, because late messages are stale ones
(what must not be lost goes through ``cluster.links``). A subscription is complete when ``subscribe`` returns:
anything published later, by anyone on the same server, reaches it. Dropped messages and permission errors are
counted, logged and told to ``on_problem``.

Core NATS delivers at most once. A connection that NATS closed for good (a protocol or authorization error) is
built up again with all its subscriptions.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from cluster.credentials import Credentials, Tls
from cluster.errors import CallTimeout, MessageTooBig, NotConnected, Unavailable
from cluster.handlers import Handlers
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.bus")

Handler: TypeAlias = Callable[[str, str, bytes, dict[str, str] | None], None]
"""``handler(subject, reply, payload, headers)``, called on the event loop, in the order of arrival."""

FLUSH_WITHIN = 2.0
"""Seconds nats-py may wait for its own buffer to be written before the next message is handed to it."""

FLUSH_EVERY = 256
"""Messages handed to nats-py before the loop gets a turn: its publish never waits by itself."""

AT_ONCE = 512 * 1024
"""Bytes in nats-py's buffer up to which it takes a message without waiting: far from where it would wait."""


LOST = (nats.errors.Error, OSError, RuntimeError, AttributeError)
"""What nats-py raises when it can't take a message; the last three come from a transport that ended meanwhile."""


class Trouble(Enum):
    """What went wrong without anybody having called."""

    SLOW_CONSUMER = "slow consumer"
    SUBSCRIBE_DENIED = "subscribe denied"
    PUBLISH_DENIED = "publish denied"


@dataclass(frozen=True, slots=True)
class ServerSeen:
    """A NATS server: its version, and how many bytes it takes in one message."""

    version: str
    max_payload: int


@dataclass(frozen=True)
class Problem:
    """One asynchronous error. ``subject`` is in lower case where the server reported it (as it does)."""

    trouble: Trouble
    subject: str


@dataclass(frozen=True)
class ConnectionStats:
    """Counters of one connection since it was made."""

    connected: bool
    reconnects: int
    slow_consumer_drops: int
    permission_errors: int
    handler_errors: int
    publishes_dropped: int
    in_msgs: int
    in_bytes: int
    out_msgs: int
    out_bytes: int
    outbox_bytes: int


@dataclass
class Subscription:
    """One subscription, alive across reconnects until ``close``."""

    subject: str
    _connection: Connection = field(repr=False)
    _handler: Handler = field(repr=False)
    _pending: tuple[int, int] = field(repr=False)
    _inner: Any = field(default=None, repr=False)

    @property
    def waiting(self) -> int:
        """Messages that have arrived and wait for the handler."""
        return 0 if self._inner is None else int(self._inner.pending_msgs)

    async def close(self) -> None:
        """Stop receiving; what has arrived and not been handled is dropped."""
        await self._connection.unsubscribe(self)


@dataclass(frozen=True)
class ConnectionOptions:
    """What both connections of a bus share. ``connect_timeout`` in seconds, ``outbox_limit`` in bytes."""

    servers: tuple[str, ...]
    credentials: Credentials
    tls: Tls | None
    inbox: str
    connect_timeout: float
    outbox_limit: int


class Connection:
    """One NATS connection. Made and owned by ``Bus``."""

    def __init__(self, name: str, options: ConnectionOptions) -> None:
        self.name = name
        self._options = options
        self._nats: Client = Client()
        self._ready = False
        self._ending = False
        self._ended = asyncio.Event()
        self._outbox: deque[tuple[str, bytes, str, dict[str, str] | None]] = deque()
        self._outbox_bytes = 0
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._subscriptions: list[Subscription] = []
        self._denied: set[str] = set()
        self._connecting: asyncio.Timeout | None = None
        self._last_error = "no server answered"
        self._building = False
        self._tasks = Tasks(name, self._task_failed)
        self._back: Handlers[[]] = Handlers("NATS connected again")
        self._problems: Handlers[Problem] = Handlers("problem of NATS")
        self._complained: dict[tuple[Trouble, str], tuple[float, int]] = {}
        self._reconnects = 0
        self._slow_drops = 0
        self._permission_errors = 0
        self._handler_errors = 0
        self._publishes_dropped = 0
        self._former = {"in_msgs": 0, "in_bytes": 0, "out_msgs": 0, "out_bytes": 0}

    # -- sending

    @property
    def connected(self) -> bool:
        """Whether a publish would be taken now."""
        return self._ready and self._nats.is_connected

    @property
    def has_room(self) -> bool:
        """Whether the outbox is under its limit."""
        return self._outbox_bytes < self._options.outbox_limit

    def publish(self, subject: str, payload: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Send one message with this tick's flush.

        Raises NotConnected while NATS is away, Unavailable while more than the outbox's limit waits in it, and
        MessageTooBig over the server's max_payload.
        """
        if not (self._ready and self._nats.is_connected):
            raise NotConnected(f"no connection to NATS at {self._urls()}; nothing was sent to {subject}")
        if self._outbox_bytes >= self._options.outbox_limit:
            raise Unavailable(f"{self._outbox_bytes} bytes wait for NATS; nothing was sent to {subject}, try again")
        if len(payload) > self._nats.max_payload:
            raise MessageTooBig(len(payload), self._nats.max_payload)
        if not self._outbox and self._drained.is_set() and self._nats.pending_data_size < AT_ONCE:
            self._hand_over(subject, payload, reply, headers)
            return
        self._outbox.append((subject, payload, reply, headers))
        self._outbox_bytes += len(payload)
        self._drained.clear()
        self._wake.set()

    def _hand_over(self, subject: str, payload: bytes, reply: str, headers: dict[str, str] | None) -> None:
        """Give nats-py a message now, in this turn of the loop. Its publish is a coroutine that waits for room only."""
        handing = self._nats.publish(subject, payload, reply, headers)
        try:
            handing.send(None)
        except StopIteration:
            return
        except LOST as error:
            self._lost(subject, error)
        else:
            handing.close()  # it has the message, and would wait until that is written

    def _lost(self, subject: str, error: Exception) -> None:
        self._publishes_dropped += 1
        log.warning("publish failed", connection=self.name, subject=subject, error=repr(error))

    async def _send(self) -> None:
        """Hand the outbox to nats-py. Order is kept; what meets a lost connection is dropped and counted."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            handed = 0
            while self._outbox:
                subject, payload, reply, headers = self._outbox.popleft()
                self._outbox_bytes -= len(payload)
                if not self.connected:
                    self._publishes_dropped += 1
                    continue
                try:
                    await self._nats.publish(subject, payload, reply, headers)
                except LOST as error:
                    self._lost(subject, error)
                handed += 1
                if handed % FLUSH_EVERY == 0:
                    await asyncio.sleep(0)
            self._drained.set()

    async def request(
        self, subject: str, payload: bytes, timeout: float, headers: dict[str, str] | None = None
    ) -> bytes:
        """The answer to ``payload``, within ``timeout`` seconds.

        Raises Unavailable at once when nobody subscribes ``subject``, NotConnected while NATS is away, MessageTooBig,
        and CallTimeout when no answer came: then the outcome is unknown.
        """
        if not self.connected:
            raise NotConnected(f"no connection to NATS at {self._urls()}; {subject} was not asked")
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        try:
            answer = await self._nats.request(subject, payload, timeout=timeout, headers=headers)
        except nats.errors.NoRespondersError:
            raise Unavailable(f"nobody answers on {subject}; is the node running?") from None
        except TimeoutError:
            raise CallTimeout(f"request to {subject}", timeout) from None
        except nats.errors.MaxPayloadError:
            raise MessageTooBig(len(payload), self._nats.max_payload) from None
        except nats.errors.Error as error:
            raise NotConnected(f"request to {subject} failed: {error}") from None
        if task is not None and task.cancelling() > cancels:
            # nats-py waits by wait_for, which until Python 3.12 swallows a cancellation that meets the answer
            raise asyncio.CancelledError
        data: bytes = answer.data
        return data

    async def flush(self, timeout: int = 5) -> None:
        """Wait until the server has everything published before. Raises CallTimeout or NotConnected."""
        try:
            async with asyncio.timeout(timeout):
                await self._drained.wait()
        except TimeoutError:
            raise CallTimeout("NATS flush", timeout) from None
        await self._round_trip(timeout)

    async def _round_trip(self, timeout: int) -> None:
        # A cancelled flush would leave a cancelled future for the PONG to find, which ends nats-py's read loop:
        # so it runs in a task of its own, longer than any caller waits and than an unanswered PING is tolerated.
        flush = self._tasks.start(self._nats.flush(60), "flush")
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(flush)
        except TimeoutError:
            raise CallTimeout("NATS flush", timeout) from None
        except nats.errors.Error as error:
            raise NotConnected(f"NATS flush failed: {error}") from None

    # -- receiving

    async def subscribe(
        self, subject: str, handler: Handler, *, pending_msgs: int = 512 * 1024, pending_bytes: int = 128 * 1024 * 1024
    ) -> Subscription:
        """Deliver what is published on ``subject`` to ``handler``; behind the barrier when this returns.

        The limits say how much may wait for the handler; more is dropped, counted and told to ``on_problem``.
        Raises Unavailable when the server refuses the subject to this user, NotConnected while NATS is away.
        """
        if not self.connected:
            raise NotConnected(f"no connection to NATS at {self._urls()}; can't subscribe {subject}")
        subscription = Subscription(subject, self, handler, (pending_msgs, pending_bytes))
        self._subscriptions.append(subscription)
        try:
            await self._attach(subscription)
        except BaseException:
            with suppress(ValueError):
                self._subscriptions.remove(subscription)
            raise
        return subscription

    async def _attach(self, subscription: Subscription) -> None:
        subject = subscription.subject
        handler = subscription._handler

        async def deliver(message: Msg) -> None:
            handler(message.subject, message.reply, message.data, message.headers)

        self._denied.discard(subject.lower())
        messages, size = subscription._pending
        try:
            subscription._inner = await self._nats.subscribe(
                subject, cb=deliver, pending_msgs_limit=messages, pending_bytes_limit=size
            )
        except nats.errors.Error as error:
            raise NotConnected(f"can't subscribe {subject}: {error}") from None
        # nats-py writes SUB from another task: without this turn the PING of the flush can overtake it.
        await asyncio.sleep(0)
        await self._round_trip(5)
        if subject.lower() in self._denied:
            await self._detach(subscription)
            raise Unavailable(f"NATS refuses the subscription to {subject}: give this user permission for it")

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End one subscription; harmless when it has ended."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        await self._detach(subscription)

    async def _detach(self, subscription: Subscription) -> None:
        inner, subscription._inner = subscription._inner, None
        if inner is not None and not self._nats.is_closed:
            with suppress(nats.errors.Error):
                await inner.unsubscribe()

    # -- life

    def on_reconnect(self, handler: Callable[[], None]) -> None:
        """Call ``handler`` each time the connection is back with all its subscriptions."""
        self._back.add(handler)

    def on_problem(self, handler: Callable[[Problem], None]) -> None:
        """Call ``handler`` for each dropped message and permission error."""
        self._problems.add(handler)

    async def open(self) -> None:
        """Connect. Raises Unavailable, with the reason, when no server takes us within the deadline."""
        await self._connect()
        self._ready = True
        self._tasks.start(self._send(), "send")
        self._tasks.start(self._revive(), "revive")

    async def close(self) -> None:
        """Send what waits and end. Nothing is received afterwards."""
        self._ending = True
        if self.connected:
            with suppress(CallTimeout, NotConnected):
                await self.flush(2)
        self._ready = False
        await self._tasks.close()
        await self._nats.close()

    async def _connect(self) -> None:
        self._building = True
        try:
            await self._build()
        finally:
            self._building = False

    async def _build(self) -> None:
        self._nats = Client()
        try:
            given = self._given()
        except OSError as error:
            raise self._cannot_connect(str(error)) from None
        try:
            async with asyncio.timeout(self._options.connect_timeout) as self._connecting:
                await self._nats.connect(**given)
        except ImportError as error:
            raise self._cannot_connect(f"{error}: nkeys and credentials files need nats-py[nkeys]") from None
        except (TimeoutError, nats.errors.Error, OSError) as error:
            await self._nats.close()
            raise self._cannot_connect(self._last_error if isinstance(error, TimeoutError) else str(error)) from None
        finally:
            self._connecting = None

    def _given(self) -> dict[str, Any]:
        """What nats-py is to connect with. Raises Unavailable when a TLS file can't be used."""
        options = self._options
        given: dict[str, Any] = {
            "servers": list(options.servers),
            "name": self.name,
            "inbox_prefix": options.inbox,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.1,
            "ping_interval": 10,
            # without it a flush that a lost connection interrupted is waited for without end
            "flush_timeout": FLUSH_WITHIN,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "closed_cb": self._on_closed,
            **options.credentials.options(),
        }
        if options.tls:
            try:
                given["tls"] = options.tls.context()
            except OSError as error:
                raise self._cannot_connect(f"the TLS files can't be used ({options.tls}): {error}") from None
        return given

    def _cannot_connect(self, why: str) -> Unavailable:
        return Unavailable(
            f"can't connect to NATS at {self._urls()}: {why}; check the address, the credentials, and that "
            "nats-server runs"
        )

    async def _revive(self) -> None:
        """Build the connection again whenever NATS ended it for good."""
        while True:
            await self._ended.wait()
            self._ended.clear()
            log.error("NATS closed the connection; connecting again", connection=self.name, error=self._last_error)
            self._keep_counters()
            await self._connect_again()
            await self._on_reconnected()

    async def _connect_again(self) -> None:
        pause = 0.1
        while not await self._connected_again():
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)

    async def _connected_again(self) -> bool:
        try:
            await self._connect()
            for subscription in list(self._subscriptions):
                await self._attach_again(subscription)
        except (Unavailable, NotConnected, CallTimeout) as error:
            log.error("can't connect to NATS again", connection=self.name, error=str(error))
            await self._give_up()
            return False
        return True

    async def _attach_again(self, subscription: Subscription) -> None:
        try:
            await self._attach(subscription)
        except Unavailable as error:
            log.error("a subscription is gone", connection=self.name, error=str(error))

    async def _give_up(self) -> None:
        self._ready = False
        self._building = True
        try:
            await self._nats.close()
        finally:
            self._building = False

    def _keep_counters(self) -> None:
        for name in self._former:
            self._former[name] += self._nats.stats[name]

    def _urls(self) -> str:
        return ", ".join(url.rsplit("@", 1)[-1] for url in self._options.servers)

    # -- what nats-py tells

    def _task_failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, nats.errors.Error):
            log.debug("NATS error", connection=self.name, task=name, error=str(error))
        else:
            log.error("task failed", connection=self.name, task=name, exc_info=error)

    async def _on_disconnected(self) -> None:
        if self._ready and not self._ending:
            log.warning("NATS disconnected", connection=self.name)
        self._ready = False

    async def _on_reconnected(self) -> None:
        self._ready = True
        self._reconnects += 1
        log.info("NATS connected again", connection=self.name, reconnects=self._reconnects)
        self._back.tell()

    async def _on_closed(self) -> None:
        self._ready = False
        if not self._ending and not self._building:
            self._last_error = str(self._nats.last_error or self._last_error)
            self._ended.set()

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        self._last_error = text or repr(error)
        match error:
            case nats.errors.SlowConsumerError():
                self._slow_drops += 1
                self._tell(Problem(Trouble.SLOW_CONSUMER, error.subject))
            case nats.errors.Error() if "permissions violation for subscription" in text:
                self._permission_errors += 1
                self._denied.add(_quoted(text))
                self._tell(Problem(Trouble.SUBSCRIBE_DENIED, _quoted(text)))
            case nats.errors.Error() if "permissions violation" in text:
                self._permission_errors += 1
                self._tell(Problem(Trouble.PUBLISH_DENIED, _quoted(text)))
            case nats.errors.Error() if "authorization" in text.lower() and self._connecting is not None:
                self._connecting.reschedule(asyncio.get_running_loop().time())
            case nats.errors.Error() | OSError() | TimeoutError():
                log.debug("NATS error", connection=self.name, error=self._last_error)
            case _:
                self._handler_errors += 1
                log.error("a handler of a NATS subscription failed", connection=self.name, exc_info=error)

    def _tell(self, problem: Problem) -> None:
        """Log the first of its kind and then at most one a second, with the number of those kept quiet."""
        key = (problem.trouble, problem.subject)
        since, quiet = self._complained.get(key, (0.0, 0))
        now = time.monotonic()
        if now - since >= 1.0:
            log.error(problem.trouble.value, connection=self.name, subject=problem.subject, unlogged=quiet)
            self._complained[key] = (now, 0)
        else:
            self._complained[key] = (since, quiet + 1)
        if len(self._complained) > 1000:
            self._complained.clear()
        self._problems.tell(problem)

    def server(self) -> ServerSeen:
        """What the server it is connected to said of itself."""
        version = self._nats.connected_server_version
        return ServerSeen(f"{version.major}.{version.minor}.{version.patch}", self._nats.max_payload)

    def stats(self) -> ConnectionStats:
        traffic = {name: former + self._nats.stats[name] for name, former in self._former.items()}
        return ConnectionStats(
            connected=self.connected,
            reconnects=self._reconnects,
            slow_consumer_drops=self._slow_drops,
            permission_errors=self._permission_errors,
            handler_errors=self._handler_errors,
            publishes_dropped=self._publishes_dropped,
            outbox_bytes=self._outbox_bytes,
            **traffic,
        )


def _quoted(text: str) -> str:
    """The subject in an error of the server: what stands between the double quotes."""
    parts = text.split('"')
    return parts[1] if len(parts) > 2 else text
