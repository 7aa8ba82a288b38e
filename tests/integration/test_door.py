"""The side door over a real nats-server: what it takes, and that every refusal is counted and told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgpack
import pytest
import pytest_asyncio

from cluster.bus import Bus
from cluster.door import Answer, Door
from cluster.embedded import EmbeddedServers
from cluster.envelope import Status
from cluster.pid import Pid
from cluster.subjects import Subjects
from tests.waiting import eventually

pytestmark = pytest.mark.servers

JSON = {"Content-Type": "application/json"}


@dataclass
class Entrance:
    """A door, what came in, and a client before it."""

    client: Bus
    door: Door
    subjects: Subjects
    taken: list[tuple[int, bytes, bytes, list[Any]]] = field(default_factory=list)

    def subject(self, counter: str = "1s") -> str:
        return self.subjects.pid("node-1", "2a", counter)

    async def ask(self, payload: bytes, headers: dict[str, str] | None = None, counter: str = "1s") -> dict[str, Any]:
        answer = await self.client.control.request(self.subject(counter), payload, 2.0, headers)
        decoded: dict[str, Any] = json.loads(answer) if headers else msgpack.unpackb(answer)
        return decoded


@pytest_asyncio.fixture
async def entrance(servers: EmbeddedServers, cluster_name: str) -> AsyncIterator[Entrance]:
    subjects = Subjects(cluster_name)
    taken: list[tuple[int, bytes, bytes, list[Any]]] = []

    def accept(counter: int, sender: bytes, topic: bytes, payloads: list[Any], answer: Answer) -> None:
        if counter == 0:
            answer(Status.NOPROC)
            return
        taken.append((counter, sender, topic, payloads))
        answer(Status.OK)

    async with Bus([servers.nats_url], name="node", inbox=subjects.inbox("node-1")) as bus:
        async with Bus([servers.nats_url], name="client", inbox=subjects.inbox("client")) as client:
            async with Door(bus.data, subjects, "node-1", 82, accept, max_message=10_000) as door:
                yield Entrance(client, door, subjects, taken)


async def test_a_msgpack_message_reaches_its_process(entrance: Entrance) -> None:
    body = {"topic": "greet", "payload": {"name": "Ann", "n": 3, "raw": b"\xff"}}
    assert await entrance.ask(msgpack.packb(body)) == {"ok": True}
    assert entrance.taken == [
        (64, b"{client@door|anonymous-1}", b"greet", [{b"name": b"Ann", b"n": 3, b"raw": b"\xff"}])
    ]


async def test_a_json_message_with_several_payloads_and_a_client_name(entrance: Entrance) -> None:
    body = {"topic": "grüße", "payloads": [1, None, [True, 1.5]], "client": "cli7"}
    assert await entrance.ask(json.dumps(body).encode(), JSON) == {"ok": True}
    assert entrance.taken == [(64, b"{client@door|cli7-1}", "grüße".encode(), [1, None, [True, 1.5]])]


async def test_a_message_without_a_reply_subject_is_taken_too(entrance: Entrance) -> None:
    entrance.client.data.publish(entrance.subject(), msgpack.packb({"topic": "t"}))
    await eventually(lambda: [item[2:] for item in entrance.taken] == [(b"t", [])])


async def test_the_sender_it_writes_is_a_pid_and_differs_each_time(entrance: Entrance) -> None:
    for _ in range(2):
        await entrance.ask(msgpack.packb({"topic": "t", "client": "me"}))
    senders = [Pid.parse(sender.decode()) for _, sender, _, _ in entrance.taken]
    assert senders[0] != senders[1]
    assert (senders[0].node, senders[0].host) == ("client", "door")


def packed(**fields: Any) -> bytes:
    body: bytes = msgpack.packb({"topic": "t", **fields})
    return body


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("payload", "reason", "told"),
    [
        (b"\xc1", "format", "not msgpack"),
        (b"", "format", "not msgpack"),
        (packed()[:-1], "format", "not msgpack"),
        (msgpack.packb([1, "{a@b|1-1}", "{c@d|1-1}", 0, "t", [], "", 0]), "kind", "expected a map"),
        (packed(kind=10), "kind", "unknown field 'kind'"),
        (packed(payload=1, payloads=[1]), "kind", "not both"),
        (packed(payloads=1), "kind", "as an array"),
        (packed(**{"from": "{admin@host|1-1}"}), "sender", "leave 'from' out"),
        (packed(topic="@pid/events"), "topic", "begin with @"),
        (packed(topic=""), "topic", "1 to 255"),
        (packed(topic=7), "topic", "1 to 255"),
        (packed(topic="x" * 256), "topic", "1 to 255"),
        (packed(client="a.b"), "client", "client name"),
        (packed(client="x}|{evil@h"), "client", "client name"),
        (packed(payload=2**63), "value", "64 bits"),
        (packed(payload=msgpack.Timestamp(1, 1)), "value", "Timestamp"),
        (packed(payload={2**64 - 1: 1}), "value", "map key"),
        (packed(payload=nested(80)), "value", "deeper than 64"),
        (packed(payload=b"x" * 10_001), "size", "the limit is 10000"),
    ],
)
async def test_what_is_no_plain_message_is_refused_counted_and_told(
    entrance: Entrance, payload: bytes, reason: str, told: str
) -> None:
    answer = await entrance.ask(payload)
    assert answer["ok"] is False
    assert answer["error"]["kind"] == "Invalid"
    assert told in answer["error"]["message"]
    assert entrance.door.stats().refused == {reason: 1}
    assert entrance.taken == []
    assert await entrance.ask(packed(payload=1)) == {"ok": True}


@pytest.mark.parametrize(
    "payload", [b"{", b"nonsense", b"[" * 100_00, b"\xff\xfe", b'{"topic": "t", "payload": 1e999}x']
)
async def test_bad_json_is_refused_in_json(entrance: Entrance, payload: bytes) -> None:
    answer = await entrance.ask(payload, JSON)
    assert answer["ok"] is False
    assert entrance.door.stats().refused == {"format": 1}


@pytest.mark.parametrize("counter", ["0", "UPPER", "way-too", "1234567890abcdef"])
async def test_an_unknown_process_is_noproc(entrance: Entrance, counter: str) -> None:
    answer = await entrance.ask(packed(), counter=counter)
    assert answer["ok"] is False
    assert entrance.door.stats().refused == {"noproc": 1}
