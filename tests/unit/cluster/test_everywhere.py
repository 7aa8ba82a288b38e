"""Waiting until every node has seen a revision."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest

from cluster.errors import CallTimeout, Unavailable
from cluster.everywhere import Everywhere
from cluster.members import Member, NodeState
from cluster.subjects import Subjects


def member(node: str, epoch: int = 1) -> Member:
    return Member(node, epoch, 1, 1, 1, NodeState.READY, {"labels": "are no key"}, "", {}, "", "")


class Cluster:
    """Members, and what each answers."""

    def __init__(self, *nodes: str) -> None:
        self.nodes = {node: member(node) for node in nodes}
        self.asked: list[str] = []
        self.answers: dict[str, list[Any]] = {}
        self.processes: bool | None = None
        self.control = self
        anything: Any = self
        self.everywhere = Everywhere(anything, Subjects("c"), anything, "own")

    def all(self) -> list[Member]:
        return list(self.nodes.values())

    async def request(self, subject: str, payload: bytes, timeout: float) -> bytes:
        node = subject.split(".")[3]
        self.asked.append(node)
        query = msgpack.unpackb(payload)
        assert query["revision"] == 7
        self.processes = query["processes"]
        await asyncio.sleep(0)
        answers = self.answers.get(node, [])
        answer = answers.pop(0) if answers else {"ok": True}
        if isinstance(answer, Exception):
            raise answer
        packed: bytes = msgpack.packb(answer)
        return packed


async def test_every_other_node_is_asked() -> None:
    cluster = Cluster("own", "b", "c")
    await cluster.everywhere(7, 1)
    assert sorted(cluster.asked) == ["b", "c"]


@pytest.mark.parametrize("processes", [False, True])
async def test_its_processes_are_asked_for_too_when_they_matter(processes: bool) -> None:
    cluster = Cluster("own", "b")
    await cluster.everywhere(7, 1, processes=processes)
    assert cluster.processes is processes


async def test_one_that_is_not_there_yet_is_asked_again() -> None:
    cluster = Cluster("own", "b")
    cluster.answers["b"] = [CallTimeout("b", 1), Unavailable("b"), {"ok": False}]
    await cluster.everywhere(7, 5)
    assert cluster.asked == ["b"] * 4


@pytest.mark.parametrize("again", [None, 2])
async def test_one_whose_registration_ends_meanwhile_does_not_count(again: int | None) -> None:
    cluster = Cluster("own", "b", "c")
    cluster.answers["b"] = [Unavailable("b")] * 100

    async def leave() -> None:
        await asyncio.sleep(0.05)
        del cluster.nodes["b"]
        if again is not None:
            cluster.nodes["b"] = member("b", epoch=again)

    await asyncio.gather(leave(), cluster.everywhere(7, 5))


async def test_one_that_stays_silent_is_named_when_the_time_is_over() -> None:
    cluster = Cluster("own", "b", "c")
    cluster.answers["b"] = [Unavailable("b")] * 100
    with pytest.raises(CallTimeout, match=r"revision 7 on b"):
        await cluster.everywhere(7, 0.05)
