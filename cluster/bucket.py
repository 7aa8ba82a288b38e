"""A bucket of NATS KV: the last value of each subject, written on condition, kept by JetStream.

Use it for data that every node holds a copy of (``node.stores.replication``). ``open`` makes the bucket when
there is none and tells its identity: another one means that the bucket was lost, with all in it. A put names the
sequence of the value it replaces (0 = none), so that of two writers one learns of the other. Values leave by
themselves when their time is over, which takes nats-server 2.11.

Every call has a deadline. While NATS is away or JetStream off, it raises Unavailable with the remedy.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from cluster.connection import Connection
from cluster.errors import CallTimeout, ClusterError, NotConnected, Unavailable

DEADLINE = 3.0
"""Seconds for one answer of JetStream."""
IDENTITY = "="
"""The key that tells the identity of a bucket; no name encoded by ``subjects.token`` is like it."""
REPLICAS = (3, 1)
"""Copies asked for: three where the servers form a cluster."""

_NOT_FOUND = frozenset((10037, 10059))
_TAKEN = frozenset((10058,))
_CHANGED = frozenset((10071, 10164))
_TOO_FEW_SERVERS = frozenset((10005, 10074))
_OFF = frozenset((10039, 10076))
_FULL = frozenset((10023, 10028, 10047, 10077))


class Changed(ClusterError):
    """A put named a sequence that is not the last any more; nothing was written."""


@dataclass(frozen=True, slots=True)
class Record:
    """One value: its subject, and its sequence in the bucket."""

    subject: str
    payload: bytes
    sequence: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A bucket as it was found. ``last``: the highest sequence in it."""

    identity: str
    last: int


class Bucket:
    """One bucket of the cluster."""

    def __init__(self, connection: Connection, name: str, *, durable: bool) -> None:
        self.connection = connection
        self.name = name
        self.stream = f"KV_{name}"
        self.prefix = f"$KV.{name}."
        self._durable = durable

    async def open(self) -> Opened:
        """Make the bucket if there is none. Raises Unavailable."""
        answer = await self.ask(f"STREAM.INFO.{self.stream}", {})
        if _code(answer) in _NOT_FOUND:
            answer = await self._make()
        self._check(answer)
        identity = await self._identity()
        return Opened(identity, self._whole(answer, "state", "last_seq"))

    async def last(self, subject: str) -> Record | None:
        """The value of ``subject`` now. Raises Unavailable."""
        answer = await self.ask(f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": subject})
        if _code(answer) in _NOT_FOUND:
            return None
        self._check(answer)
        sequence = self._whole(answer, "message", "seq")
        try:
            payload = base64.b64decode(answer["message"].get("data", ""))
        except (ValueError, TypeError):
            raise self._strange(answer) from None
        return Record(subject, payload, sequence)

    async def put(self, subject: str, payload: bytes, replaces: int, ttl: float = 0.0) -> int:
        """Write for ``ttl`` seconds (0 = for ever) if the last value has the sequence ``replaces``; the new sequence.

        Raises Changed, MessageTooBig, or Unavailable: then it may have been written all the same.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(replaces)}
        if ttl:
            headers["Nats-TTL"] = f"{max(1, round(ttl))}s"
        answer = await self._request(subject, payload, headers)
        if _code(answer) in _CHANGED:
            raise Changed(f"{subject} is not at {replaces} any more")
        self._check(answer)
        return self._whole(answer, "seq")

    async def purge(self, subject: str) -> None:
        """Throw away all values of subjects that match. Raises Unavailable."""
        answer = await self.ask(f"STREAM.PURGE.{self.stream}", {"filter": subject})
        if _code(answer) not in _NOT_FOUND:
            self._check(answer)

    async def ask(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of the JetStream API. Raises Unavailable."""
        return await self._request(f"$JS.API.{operation}", json.dumps(body).encode(), None)

    async def _make(self) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for replicas in REPLICAS:
            answer = await self.ask(f"STREAM.CREATE.{self.stream}", self._configuration(replicas))
            if _code(answer) in _TAKEN:  # another node was quicker
                return await self.ask(f"STREAM.INFO.{self.stream}", {})
            if _code(answer) not in _TOO_FEW_SERVERS:
                break
        return answer

    def _configuration(self, replicas: int) -> dict[str, Any]:
        return {
            "name": self.stream,
            "description": "values of the cluster's store.kv.crdt entries",
            "subjects": [f"{self.prefix}>"],
            "storage": "file" if self._durable else "memory",
            "num_replicas": replicas,
            "max_msgs_per_subject": 1,
            "discard": "new",
            "deny_delete": True,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "allow_msg_ttl": True,
            # sequences of a bucket that was lost and made anew must not be taken for those of the former one
            "first_seq": time.time_ns() // 1000,
        }

    async def _identity(self) -> str:
        """What the bucket is called since it was made; who finds none gives it."""
        subject = self.prefix + IDENTITY
        for _ in range(3):
            found = await self.last(subject)
            if found is not None:
                return found.payload.decode("ascii", "replace")
            try:
                await self.put(subject, secrets.token_hex(8).encode(), 0)
            except Changed:
                continue
        raise Unavailable(f"bucket {self.name} of NATS loses what is written to it; look at its limits and its server")

    async def _request(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> dict[str, Any]:
        try:
            answer = json.loads(await self.connection.request(subject, payload, DEADLINE, headers))
        except Unavailable:
            raise Unavailable(
                f"NATS has no JetStream for bucket {self.name} (nobody answers on {subject}): start nats-server with"
                " --jetstream, and enable it for the account of the nodes"
            ) from None
        except CallTimeout as error:
            raise Unavailable(
                f"{error}; check that JetStream of NATS is well and that the user of the nodes may publish"
                f" $JS.API.*.*.{self.stream} and {self.prefix}> (docs/deploy.md)"
            ) from None
        except NotConnected as error:
            raise Unavailable(str(error)) from None
        except (OSError, RuntimeError, AttributeError) as error:
            # of a transport that ended meanwhile
            raise Unavailable(f"the connection to NATS ended while {subject} was asked: {error!r}") from None
        except ValueError as error:
            raise Unavailable(f"the answer on {subject} is no JSON ({error}); who answers there?") from None
        return answer if isinstance(answer, dict) else {}

    def _whole(self, answer: dict[str, Any], *path: str) -> int:
        """The number at ``path``. Raises Unavailable."""
        value: Any = answer
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, int):
            raise self._strange(answer)
        return value

    def _strange(self, answer: dict[str, Any]) -> Unavailable:
        said = json.dumps(answer)[:200]
        return Unavailable(
            f"bucket {self.name} of NATS: not an answer of JetStream: {said}; who else answers on its subjects?"
        )

    def _check(self, answer: dict[str, Any]) -> None:
        """Raises Unavailable when JetStream refused, or the bucket is not as it is needed."""
        error = answer.get("error")
        if isinstance(error, dict):
            raise Unavailable(f"bucket {self.name} of NATS: {error.get('description', error)}{_remedy(_code(answer))}")
        configuration = answer.get("config")
        if not isinstance(configuration, dict):
            return
        if not configuration.get("allow_msg_ttl"):
            raise Unavailable(
                f"bucket {self.name} of NATS can't give its values a time to live: store.kv.crdt needs nats-server 2.11"
                " or newer; after the upgrade run `nats stream edit --allow-msg-ttl`, or delete the stream"
                f" {self.stream}"
            )
        if configuration.get("max_msgs_per_subject") != 1:
            raise Unavailable(
                f"stream {self.stream} of NATS was not made by this system: it keeps"
                f" {configuration.get('max_msgs_per_subject')} values of a key, not 1; delete or rename it"
            )


def _code(answer: dict[str, Any]) -> int:
    error = answer.get("error")
    code = error.get("err_code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 0


def _remedy(code: int) -> str:
    if code in _OFF:
        return "; start nats-server with --jetstream, and enable it for the account of the nodes"
    if code in _FULL:
        return "; delete keys, or raise max_memory_store or max_file_store of JetStream or the limits of the account"
    return "; look at the log of nats-server"
