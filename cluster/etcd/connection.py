"""Connections to the members of one etcd: who answers now, login, and when to ask again.

One gRPC channel per endpoint; calls go to the first that is ready, so one dead member
costs nothing. A request leaves only over a ready channel: before that it is ``Unavailable``
and surely not applied. Reads and repeatable writes are asked again until their deadline;
other writes never are: when their answer is lost they raise ``OutcomeUnknown``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, cast
from urllib.parse import urlsplit

import grpc
import structlog
from google.protobuf.message import Message

from cluster.errors import ClusterError, Unavailable
from cluster.etcd import rpc_pb2 as rpc
from cluster.etcd.errors import Applied, applied, explain, token_is_stale

log = structlog.get_logger("wippy.etcd")

RECEIVE_LIMIT = 64 * 1024 * 1024
_READY_POLL_SECONDS = 0.005
_BACKOFF_SECONDS = (0.05, 0.5)
_OPTIONS = [
    ("grpc.max_receive_message_length", RECEIVE_LIMIT),
    ("grpc.max_send_message_length", RECEIVE_LIMIT),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # how long one attempt to connect may take, TLS included
    ("grpc.min_reconnect_backoff_ms", 3000),
    # a connection that went silent is noticed by pings; etcd refuses more than one per 5 s
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # nothing is sent twice behind our back
    ("grpc.enable_retries", 0),
    # each client has connections of its own: the lease keeper must not share one with a busy loop
    ("grpc.use_local_subchannel_pool", 1),
]

Answer = TypeVar("Answer", bound=Message)


class Repeat(Enum):
    """Whether a request whose answer was lost may be sent again."""

    NEVER = "never"
    SAFE = "safe"


@dataclass(frozen=True, slots=True)
class Method(Generic[Answer]):
    """One method of etcd's API."""

    path: str
    answer: type[Answer]


@dataclass(frozen=True)
class Tls:
    """Files in PEM form. Without ``ca`` the system's roots are trusted; ``cert`` and ``key`` prove who we are.

    ``server_name`` is the name to expect in the server's certificate where it differs from the endpoint's.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises ValueError when a file can't be read or one of the pair is missing."""
        if (self.cert is None) != (self.key is None):
            raise ValueError("expected a client certificate and its key together, got only one of them")
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.cert))


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"can't read the TLS file {path}: {error.strerror}; check the path and its rights") from None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One member's address."""

    host: str
    port: int
    secure: bool

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """``http://host:port``, ``https://host:port`` or ``host:port``; the port defaults to 2379."""
        parts = urlsplit(text if "://" in text else f"http://{text}")
        try:
            port = parts.port or 2379
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.path.strip("/"):
            raise ValueError(f"expected an etcd endpoint like http://10.0.0.1:2379, got {text!r}")
        return cls(parts.hostname, port, parts.scheme == "https")

    @property
    def target(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.target}"


class Stream(Generic[Answer]):
    """An open stream to one member. ``receive`` raises AioRpcError however it ends."""

    def __init__(self, call: Any, endpoint: Endpoint) -> None:
        self._call = call
        self.endpoint = endpoint

    async def send(self, message: Message) -> None:
        """On a stream that has ended this does nothing: ``receive`` tells why."""
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await self._call.write(message)

    async def receive(self) -> Answer:
        answer = await self._call.read()
        if answer is grpc.aio.EOF:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="etcd ended the stream"
            )
        return cast(Answer, answer)

    def close(self) -> None:
        self._call.cancel()


class _Member:
    """The channel to one endpoint."""

    def __init__(self, endpoint: Endpoint, tls: Tls | None) -> None:
        self.endpoint = endpoint
        options: list[tuple[str, Any]] = list(_OPTIONS)
        if endpoint.secure:
            tls = tls or Tls()
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            self.channel = grpc.aio.secure_channel(endpoint.target, tls.credentials(), options)
        else:
            self.channel = grpc.aio.insecure_channel(endpoint.target, options)
        self._calls: dict[str, Callable[..., Any]] = {}

    def unary(self, method: Method[Any]) -> Callable[..., Any]:
        return self._callable(method, self.channel.unary_unary)

    def stream(self, method: Method[Any]) -> Callable[..., Any]:
        return self._callable(method, self.channel.stream_stream)

    def _callable(self, method: Method[Any], make: Callable[..., Callable[..., Any]]) -> Callable[..., Any]:
        call = self._calls.get(method.path)
        if call is None:
            call = self._calls[method.path] = make(
                method.path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=method.answer.FromString,
            )
        return call

    def is_ready(self) -> bool:
        """Also starts connecting."""
        return self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY


_AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", rpc.AuthenticateResponse)
_STATUS = Method("/etcdserverpb.Maintenance/Status", rpc.StatusResponse)


class Connection:
    """Calls to whichever member answers. Bound to the event loop it is opened on."""

    def __init__(self, endpoints: Sequence[str], *, user: str | None, password: str | None, tls: Tls | None) -> None:
        if not endpoints:
            raise ValueError("expected at least one etcd endpoint, got none")
        if (user is None) != (password is None):
            raise ValueError("expected an etcd user and password together, got only one of them")
        self._endpoints = [Endpoint.parse(text) for text in endpoints]
        if tls is not None and not all(endpoint.secure for endpoint in self._endpoints):
            raise ValueError(f"TLS files were given, but an endpoint starts with http://: {', '.join(endpoints)}")
        self.user = user
        self._password = password
        self._tls = tls
        self._members: list[_Member] = []
        self._token: str | None = None
        self._login = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._members = [_Member(endpoint, self._tls) for endpoint in self._endpoints]
        return self

    async def __aexit__(self, *_: object) -> None:
        members, self._members = self._members, []
        for member in members:
            await member.channel.close()

    async def unary(
        self, method: Method[Answer], request: Message, *, what: str, timeout: float, repeat: Repeat
    ) -> Answer:
        """The answer to ``request``. Raises what ``cluster.etcd.errors`` describes."""
        deadline = time.monotonic() + timeout
        backoff, backoff_limit = _BACKOFF_SECONDS
        logged_in_again = False
        while True:
            member = await self._ready(what, deadline)
            was_sent = False
            try:
                metadata = await self._metadata(member, deadline)
                was_sent = True
                call = member.unary(method)(request, timeout=self._patience(deadline, repeat), metadata=metadata)
                return cast(Answer, await call)
            except grpc.aio.AioRpcError as error:
                if token_is_stale(error) and not logged_in_again:
                    self.forget_login()
                    logged_in_again = True
                    continue
                is_write = was_sent and repeat is Repeat.NEVER
                may_repeat = not was_sent or self._may_repeat(error, repeat)
                if not may_repeat or time.monotonic() + backoff >= deadline:
                    raise explain(error, what, str(member.endpoint), is_write=is_write, user=self.user) from None
                self.avoid(member.endpoint)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, backoff_limit)

    async def stream(
        self, method: Method[Answer], *, what: str, timeout: float, lifetime: float | None = None
    ) -> Stream[Answer]:
        """An open stream. ``timeout`` is for opening it, ``lifetime`` for all of it."""
        deadline = time.monotonic() + timeout
        member = await self._ready(what, deadline)
        try:
            metadata = await self._metadata(member, deadline)
        except grpc.aio.AioRpcError as error:
            raise explain(error, what, str(member.endpoint), is_write=False, user=self.user) from None
        # a member cut off from the others ends the stream instead of going silent
        metadata = (*metadata, ("hasleader", "true"))
        return Stream(member.stream(method)(metadata=metadata, timeout=lifetime), member.endpoint)

    def explain(self, error: grpc.aio.AioRpcError, what: str, endpoint: Endpoint) -> ClusterError:
        """The exception for an error of a stream."""
        return explain(error, what, str(endpoint), is_write=False, user=self.user)

    def note_failure(self, error: grpc.aio.AioRpcError, endpoint: Endpoint) -> None:
        """A stream ended so: log in again, or ask the others first."""
        if token_is_stale(error):
            self.forget_login()
        elif applied(error) is not Applied.NO:
            self.avoid(endpoint)

    def avoid(self, endpoint: Endpoint) -> None:
        """Ask the others first: this member just failed."""
        if len(self._members) > 1 and self._members[0].endpoint == endpoint:
            self._members.append(self._members.pop(0))

    def forget_login(self) -> None:
        """Log in again before the next call: the token was refused."""
        self._token = None

    def _may_repeat(self, error: grpc.aio.AioRpcError, repeat: Repeat) -> bool:
        verdict = applied(error)
        if verdict is Applied.NOT_YET:
            return True
        return verdict is Applied.UNKNOWN and repeat is Repeat.SAFE and "larger than max" not in (error.details() or "")

    def _patience(self, deadline: float, repeat: Repeat) -> float:
        """Seconds to wait for this answer; half of what is left while another member could be asked."""
        left = max(deadline - time.monotonic(), 0.001)
        return left / 2 if repeat is Repeat.SAFE and len(self._members) > 1 else left

    async def _ready(self, what: str, deadline: float) -> _Member:
        """A member whose channel is ready, waiting for one until the deadline."""
        if not self._members:
            raise Unavailable(f"{what}: the etcd client is closed; use it inside `async with`")
        while True:
            for member in self._members:
                if member.is_ready():
                    return member
            if time.monotonic() >= deadline:
                raise await self._unreachable(what)
            await asyncio.sleep(_READY_POLL_SECONDS)

    async def _unreachable(self, what: str) -> Unavailable:
        """Says why, in the words of a call that fails at once."""
        reasons = []
        for member in self._members:
            try:
                await member.unary(_STATUS)(rpc.StatusRequest(), timeout=0.5)
            except grpc.aio.AioRpcError as error:
                reasons.append(f"{member.endpoint} ({error.details() or error.code().name})")
        where = ", ".join(reasons) or ", ".join(str(endpoint) for endpoint in self._endpoints)
        hint = " and that the TLS files fit it" if any(member.endpoint.secure for member in self._members) else ""
        return Unavailable(f"{what}: no connection to etcd at {where}; check that it runs there{hint}")

    async def _metadata(self, member: _Member, deadline: float) -> tuple[tuple[str, str], ...]:
        if self.user is None:
            return ()
        async with self._login:
            if self._token is None:
                self._token = await self._authenticate(member, deadline)
        return (("token", self._token),) if self._token else ()

    async def _authenticate(self, member: _Member, deadline: float) -> str:
        """A token; "" when this etcd has authentication switched off."""
        request = rpc.AuthenticateRequest(name=self.user, password=self._password)
        timeout = max(deadline - time.monotonic(), 0.001)
        try:
            answer = await member.unary(_AUTHENTICATE)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                log.warning("etcd has authentication switched off", endpoint=str(member.endpoint), user=self.user)
                return ""
            if applied(error) is Applied.NO:
                raise explain(
                    error, f"log in as {self.user!r}", str(member.endpoint), is_write=False, user=self.user
                ) from None
            raise
        return cast(str, answer.token)
