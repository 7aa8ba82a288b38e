"""What a bucket makes of answers that are none of JetStream."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from cluster.bucket import Bucket
from cluster.connection import Connection
from cluster.errors import Unavailable

STREAM = {"config": {"allow_msg_ttl": True, "max_msgs_per_subject": 1}}


class Answering:
    """Anybody who answers everything with the same."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def request(self, subject: str, payload: bytes, timeout: float, headers: dict[str, str] | None) -> bytes:
        return self._answer if isinstance(self._answer, bytes) else json.dumps(self._answer).encode()


def bucket(answer: Any) -> Bucket:
    return Bucket(cast(Connection, Answering(answer)), "b", durable=False)


ODD: list[Any] = [{}, [], 7, b"\xff", STREAM, {**STREAM, "state": 7}, {"message": 7, "seq": "x"}, {"error": "no"}]


@pytest.mark.parametrize("answer", [*ODD, {"message": {"seq": 1, "data": 7}}, {"error": {"err_code": "x"}}])
async def test_an_odd_answer_makes_it_unavailable_and_breaks_nothing(answer: Any) -> None:
    odd = bucket(answer)
    for ask in (odd.open, lambda: odd.last("$KV.b.x"), lambda: odd.put("$KV.b.x", b"v", 0)):
        with pytest.raises(Unavailable, match=r"bucket b of NATS|is no JSON"):
            await ask()


async def test_a_stream_of_somebody_else_is_not_taken() -> None:
    state = {"state": {"last_seq": 1}}
    with pytest.raises(Unavailable, match="keeps 5 values of a key, not 1; delete or rename it"):
        await bucket({"config": {"allow_msg_ttl": True, "max_msgs_per_subject": 5}, **state}).open()
    with pytest.raises(Unavailable, match=r"needs nats-server 2\.11"):
        await bucket({"config": {"max_msgs_per_subject": 1}, **state}).open()
