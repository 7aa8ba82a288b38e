"""The side door: any permitted NATS client sends one plain message to one process.

Published on ``pid.<node>.<incarnation>.<n>`` is a map: ``topic``, and ``payload`` (one value) or ``payloads`` (an
array), and optionally ``client``, a name of 1 to 32 characters of a-z and 0-9. It is msgpack, or JSON when the
header ``Content-Type`` says ``application/json``. The sender is set here, to ``{client@door|<client>-<number>}``.

At most once, in no order against the links. What is refused is counted by reason; when the message has a reply
subject the client is told ``{ok: false, error: {kind, message}}``, else ``{ok: true}`` once the process took it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Self, TypeAlias

import msgpack
import structlog

from cluster.connection import Connection, Subscription
from cluster.envelope import MAX_MESSAGE, Status, to_raw, to_text, unpack
from cluster.errors import NotConnected, Unavailable
from cluster.pid import base36
from cluster.subjects import Subjects

log = structlog.get_logger("wippy.door")

MAX_TOPIC = 255
"""Bytes."""

MAX_DEPTH = 64
"""Levels of arrays and maps in a payload."""

ANONYMOUS = "anonymous"
_CLIENT = re.compile(r"[a-z0-9]{1,32}")
_FIELDS = frozenset((b"topic", b"payload", b"payloads", b"client"))
_KINDS = {Status.NOPROC: "NotFound", Status.ERROR: "Invalid", Status.NOCONNECTION: "Unavailable"}


class Refusal(Enum):
    """Why a message was not taken."""

    SIZE = "over the size limit"
    FORMAT = "not msgpack or JSON"
    KIND = "not a plain message"
    SENDER = "names a sender"
    TOPIC = "bad topic"
    CLIENT = "bad client name"
    VALUE = "a value no process can hold"
    NOPROC = "no such process"
    NOT_TAKEN = "not taken by the process"


class _Refused(ValueError):
    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(refusal, detail)
        self.refusal = refusal
        self.detail = detail


Answer: TypeAlias = Callable[[Status], None]

Accept: TypeAlias = Callable[[int, bytes, bytes, list[Any], Answer], None]
"""``accept(counter, sender, topic, payloads, answer)``: texts as bytes. ``answer`` must be called once, with what
became of the message; ``counter`` is that of the process's PID."""


@dataclass(frozen=True)
class DoorStats:
    accepted: int
    refused: dict[str, int]


class Door:
    """The side door of one node's incarnation. ``async with`` opens it."""

    def __init__(
        self,
        connection: Connection,
        subjects: Subjects,
        node: str,
        incarnation: int,
        accept: Accept,
        *,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self._connection = connection
        self._subject = subjects.pids_of(node, base36(incarnation))
        self._accept = accept
        self._max_message = max_message
        self._number = 0
        self._accepted = 0
        self._refused: Counter[Refusal] = Counter()
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        self._subscription = await self._connection.subscribe(self._subject, self._on_message)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscription is not None:
            await self._subscription.close()

    def stats(self) -> DoorStats:
        return DoorStats(self._accepted, {refusal.name.lower(): count for refusal, count in self._refused.items()})

    def _on_message(self, subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
        as_json = _is_json(headers)
        try:
            counter = _counter(subject)
            if len(payload) > self._max_message:
                raise _Refused(Refusal.SIZE, f"{len(payload)} bytes, the limit is {self._max_message}")
            topic, payloads, client = _read(_from_json(payload) if as_json else _from_msgpack(payload))
        except _Refused as refused:
            self._refuse(subject, reply, as_json, refused.refusal, refused.detail)
            return
        self._number += 1
        sender = f"{{client@door|{client}-{base36(self._number)}}}".encode()

        def answer(status: Status) -> None:
            self._answer(status, subject, reply, as_json)

        self._accept(counter, sender, topic, payloads, answer)

    def _answer(self, status: Status, subject: str, reply: str, as_json: bool) -> None:
        match status:
            case Status.OK:
                self._accepted += 1
                self._reply(reply, as_json, {"ok": True})
            case Status.NOPROC:
                detail = "no such process here, or it has ended"
                self._refuse(subject, reply, as_json, Refusal.NOPROC, detail, _KINDS[status])
            case _:
                detail = "the process did not take it"
                self._refuse(subject, reply, as_json, Refusal.NOT_TAKEN, detail, _KINDS.get(status, "Unavailable"))

    def _refuse(
        self, subject: str, reply: str, as_json: bool, refusal: Refusal, detail: str, kind: str = "Invalid"
    ) -> None:
        self._refused[refusal] += 1
        count = self._refused[refusal]
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            log.warning("message refused", why=refusal.value, subject=subject, detail=detail, count=count)
        message = f"{refusal.value}: {detail}"
        self._reply(reply, as_json, {"ok": False, "error": {"kind": kind, "message": message}})

    def _reply(self, reply: str, as_json: bool, answer: dict[str, Any]) -> None:
        if not reply:
            return
        encoded = json.dumps(answer).encode() if as_json else msgpack.packb(answer)
        try:
            self._connection.publish(reply, encoded)
        except (NotConnected, Unavailable, ValueError) as error:
            log.warning("a client of the side door gets no answer", error=str(error))


def _is_json(headers: dict[str, str] | None) -> bool:
    for name, value in (headers or {}).items():
        if name.lower() == "content-type":
            return value.split(";")[0].strip().lower() == "application/json"
    return False


def _counter(subject: str) -> int:
    text = subject.rsplit(".", 1)[1]
    if re.fullmatch(r"[0-9a-z]{1,12}", text) is None:
        raise _Refused(Refusal.NOPROC, f"expected the number of a PID in base 36, got {text[:40]!r}")
    return int(text, 36)


def _from_msgpack(payload: bytes) -> Any:
    try:
        return unpack(payload)
    except ValueError as error:
        raise _Refused(Refusal.FORMAT, str(error)) from None


def _from_json(payload: bytes) -> Any:
    try:
        return to_raw(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise _Refused(Refusal.FORMAT, f"not JSON: {error}") from None


def _read(body: Any) -> tuple[bytes, list[Any], str]:
    """Topic, payloads and the client's name."""
    if not isinstance(body, dict):
        raise _Refused(Refusal.KIND, f"expected a map with topic and payload, got {type(body).__name__}")
    if b"from" in body:
        raise _Refused(Refusal.SENDER, "leave 'from' out; the receiving node sets it")
    unknown = sorted(str(to_text(field)) for field in body if field not in _FIELDS)
    if unknown:
        raise _Refused(Refusal.KIND, f"unknown field {unknown[0][:40]!r}; allowed are topic, payload, payloads, client")
    return _topic(body.get(b"topic")), _payloads(body), _client(body.get(b"client", ANONYMOUS.encode()))


def _topic(topic: Any) -> bytes:
    if not isinstance(topic, bytes) or not 0 < len(topic) <= MAX_TOPIC:
        raise _Refused(Refusal.TOPIC, f"expected a topic of 1 to {MAX_TOPIC} bytes")
    if topic.startswith(b"@"):
        raise _Refused(Refusal.TOPIC, "topics that begin with @ are the system's")
    return topic


def _payloads(body: dict[Any, Any]) -> list[Any]:
    payloads = body.get(b"payloads", [body[b"payload"]] if b"payload" in body else [])
    if not isinstance(payloads, list) or len(body.keys() & {b"payload", b"payloads"}) > 1:
        raise _Refused(Refusal.KIND, "expected payload, or payloads as an array, not both")
    _check_values(payloads)
    return payloads


def _check_values(payloads: list[Any]) -> None:
    """Only what a Lua process can hold: level by level, so that depth costs no recursion."""
    level, depth = payloads, 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _Refused(Refusal.VALUE, f"nested deeper than {MAX_DEPTH} levels")
        below: list[Any] = []
        for value in level:
            match value:
                case list():
                    below += value
                case dict():
                    below += value.values()
                    _check_keys(value)
                case int() if not -(1 << 63) <= value < 1 << 63:
                    raise _Refused(Refusal.VALUE, "a number of more than 64 bits")
                case None | bool() | int() | float() | bytes():
                    pass
                case _:
                    raise _Refused(Refusal.VALUE, f"a value of type {type(value).__name__}")
        level = below


def _check_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if not isinstance(key, bytes | int | float) or key != key or (isinstance(key, int) and abs(key) >= 1 << 63):
            raise _Refused(Refusal.VALUE, f"a map key of type {type(key).__name__}")


def _client(client: Any) -> str:
    name = client.decode("ascii", "replace") if isinstance(client, bytes) else ""
    if _CLIENT.fullmatch(name) is None:
        raise _Refused(Refusal.CLIENT, "expected a client name of 1 to 32 characters of a-z and 0-9")
    return name
