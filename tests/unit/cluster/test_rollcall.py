"""What is made of the answer of a node that tells who is registered."""

from __future__ import annotations

import msgpack
import pytest

from cluster import rollcall
from cluster.errors import Unavailable
from cluster.members import Member, NodeState
from cluster.subjects import Subjects

MEMBER = Member("n1", 7, 9, 5, 1, NodeState.CORDONED, {"zone": "a"}, "1", {"kind": 2}, "127.0.0.1:1", "")


class Connection:
    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    async def request(self, subject: str, payload: bytes, timeout: float) -> bytes:
        assert msgpack.unpackb(payload) == {"op": rollcall.OP}
        return self.answer


async def test_what_a_node_tells_is_what_is_read() -> None:
    answer = msgpack.packb({"ok": True, "value": rollcall.told("n2", [MEMBER])})
    assert await rollcall.call(Connection(answer), Subjects("c"), 1) == rollcall.Roll("n2", [MEMBER])


@pytest.mark.parametrize(
    "answer", [b"", b"\xc1", msgpack.packb(7), msgpack.packb({"value": {"node": "n", "members": [{"node": "n"}]}})]
)
async def test_an_answer_that_is_none_is_said_to_be_none(answer: bytes) -> None:
    with pytest.raises(Unavailable, match="is none of a node of this version"):
        await rollcall.call(Connection(answer), Subjects("c"), 1)
