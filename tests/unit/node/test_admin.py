"""Queries of clients: each has exactly one answer, whatever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import msgpack
import pytest

from cluster import members
from cluster.envelope import Kind, Status, to_text
from cluster.errors import MessageTooBig
from cluster.names import Registered, Scope
from cluster.tasks import Tasks
from node import admin
from node.admin import Admin, NodeState
from node.ports import Ports
from tests.unit.node.services import turns

MEMBER = members.Member("n1", 7, 8, 9, 1, members.NodeState.READY, {"zone": "a"}, "0.1", {"kinds": 1}, "", "")
HOLDER, NEXT = b"{n1@app:processes|1-1}", b"{n2@app:processes|1-1}"


class World:
    """A node around its admin: ``react`` answers the envelopes that go out."""

    def __init__(self) -> None:
        self.ports = Ports("n1", 1, self.route)
        self.names: dict[str, Registered] = {}
        self.routed: list[list[Any]] = []
        self.react: Callable[[list[Any]], None] = lambda envelope: None
        self.limit = 1_000_000
        self.processes: Any = []
        self.tasks = Tasks("test")
        self.waited: list[tuple[int, float]] = []
        self.services: list[dict[str, Any]] = []
        self.letters: list[dict[str, Any]] = []
        told: Any = {
            "members": lambda: [MEMBER],
            "trees": list,
            "locks": list,
            "operated": None,
            "health": dict,
            "stats": dict,
        }
        told |= {"services": lambda: self.services, "dead_letters": lambda: self.letters}
        asked: Any = {"converged": self.converged, "applied": self.applied, "processes": self.list}
        asked["barrier"] = self.barrier
        state = NodeState(node="n1", inspect=self.inspect, **told, **asked)
        names: Any = self
        self.admin = Admin(state, self.ports, names, self.tasks)

    def lookup(self, name: str) -> Registered | None:
        return self.names.get(name)

    def all(self) -> list[tuple[str, Registered]]:
        return list(self.names.items())

    async def list(self) -> Any:
        if isinstance(self.processes, Exception):
            raise self.processes
        return self.processes

    async def converged(self, version: int, timeout: float) -> dict[str, Any]:
        self.waited.append((version, timeout))
        return {"applied": version}

    async def barrier(self) -> None:
        self.waited.append((0, 0.0))

    async def applied(self, revision: int, timeout: float) -> None:
        self.waited.append((revision, timeout))

    async def inspect(self, pid: str) -> None:
        return None

    def route(self, envelope: list[Any]) -> None:
        if not self.ports.deliver(envelope):
            self.routed.append(envelope)
            self.react(envelope)

    def answer(self, asked: list[Any], status: Status, value: Any = None) -> None:
        self.route([int(Kind.REPLY), asked[2], asked[1], asked[3], int(status), value])

    async def ask(self, *, to_all: bool = False, **query: Any) -> Any:
        """The answer to a query: the value, or the error's map."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def answer(packed: bytes) -> None:
            if len(packed) > self.limit:
                raise MessageTooBig(len(packed), self.limit)
            answered.set_result(to_text(msgpack.unpackb(packed, raw=True)))

        (self.admin.on_announcement if to_all else self.admin.on_query)(msgpack.packb(query), answer)
        async with asyncio.timeout(5):
            found = await answered
        return found["value"] if found["ok"] else found["error"]


@pytest.fixture
def world() -> World:
    return World()


async def test_a_query_to_every_node_may_only_ask_who_there_is(world: World) -> None:
    told = await world.ask(to_all=True, op="members")
    assert told["node"] == "n1"
    assert told["members"] == [{**asdict(MEMBER), "state": "ready"}]
    refused = await world.ask(to_all=True, op="send", to="{n1@h|1-1}", topic="x")
    assert refused["message"] == "unknown op 'send'; known: members"
    assert "unknown op 'members'" in (await world.ask(op="members"))["message"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "text field 'op'"),
        ({"op": "fly"}, "unknown op 'fly'"),
        ({"op": "send"}, "text field 'to'"),
        ({"op": "send", "to": "x", "topic": "@x"}, "reserved"),
        ({"op": "send", "to": "{x", "topic": "t"}, "PID"),
        ({"op": "spawn", "host": "app:h", "id": "app:p", "args": 5}, "list 'args'"),
        ({"op": "spawn", "host": "app:h", "id": "app:p", "timeout": "soon"}, "timeout in seconds"),
        ({"op": "spawn", "host": "app:h", "id": "app:p", "timeout": 1e9}, "0 to 300"),
        ({"op": "spawn", "host": "app:h", "id": "app:p", "timeout": float("nan")}, "0 to 300"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused_with_what_it_lacks(
    world: World, query: dict[str, Any], message: str
) -> None:
    error = await world.ask(**query)
    assert error["code"] == "invalid"
    assert message in error["message"]
    assert world.routed == []


async def test_what_is_no_msgpack_is_refused_too(world: World) -> None:
    answers: list[bytes] = []

    async def answer(packed: bytes) -> None:
        answers.append(packed)

    world.admin.on_query(b"\xc1", answer)
    await turns()
    assert b"not msgpack" in answers[0]


async def test_an_answer_that_does_not_fit_is_an_error_that_says_so(world: World) -> None:
    world.processes, world.limit = [{"pid": "x" * 2000}], 1000
    error = await world.ask(op="list")
    assert error["code"] == "too_big"
    assert "1000 that fit" in error["message"]


class TestListings:
    async def read(self, world: World, op: str, **query: Any) -> list[list[Any]]:
        """The pages of a listing."""
        pages, cursor = [], None
        while not pages or cursor is not None:
            asked = {"cursor": cursor} if cursor is not None else {}
            answer = await world.ask(op=op, **query, **asked)
            pages.append(answer["items"])
            cursor = answer["more"]
        return pages

    async def test_come_in_pages_that_fit_into_a_message(self, world: World) -> None:
        world.processes = [{"pid": str(number), "entry": "x" * 200} for number in range(10_000)]
        pages = await self.read(world, "list")
        assert [each for page in pages for each in page] == world.processes
        assert len(pages) > 3

    async def test_leave_out_what_was_not_asked_for(self, world: World) -> None:
        world.processes = [
            {"pid": str(n), "entry": f"app:{n % 2}", "host": f"app:h{n % 3}", "started": -n} for n in range(12)
        ]
        (found,) = await self.read(world, "list", entry="app:1", host="app:h0")
        assert [each["pid"] for each in found] == ["9", "3"], "the oldest first"

    async def test_of_names_come_in_pages_too(self, world: World) -> None:
        for number in range(5):
            world.names[f"n{number}"] = Registered(HOLDER.decode(), Scope.LOCAL, 0)
        pages = await self.read(world, "names", limit=2)
        assert [[each["name"] for each in page] for page in pages] == [["n0", "n1"], ["n2", "n3"], ["n4"]]

    async def test_of_services_and_dead_letters_come_in_pages_too_the_newest_letter_first(self, world: World) -> None:
        world.services = [{"service": f"app:s{number}"} for number in range(3)]
        assert [len(page) for page in await self.read(world, "services", limit=2)] == [2, 1]
        world.letters = [{"at": number, "reason": "ab"[number % 2]} for number in range(6)]
        pages = await self.read(world, "dead_letters", limit=2)
        assert [[each["at"] for each in page] for page in pages] == [[5, 4], [3, 2], [1, 0]]
        (found,) = await self.read(world, "dead_letters", reason="b")
        assert [each["at"] for each in found] == [5, 3, 1]

    @pytest.mark.parametrize(
        "query", [{"limit": 0}, {"limit": "all"}, {"limit": True}, {"cursor": 5}, {"cursor": "gone-3"}, {"entry": 5}]
    )
    async def test_asked_for_in_a_way_that_makes_no_sense_are_refused(
        self, world: World, query: dict[str, Any]
    ) -> None:
        assert (await world.ask(op="list", **query))["code"] == "invalid"


async def test_a_host_that_does_not_answer_is_a_timeout(world: World) -> None:
    world.processes = TimeoutError()
    assert (await world.ask(op="list"))["code"] == "timeout"


async def test_a_name_nobody_has_is_noproc(world: World) -> None:
    assert (await world.ask(op="send", to="counter", topic="t"))["code"] == "noproc"


async def test_a_name_that_changed_hands_is_resolved_once_more(world: World) -> None:
    world.names["counter"] = Registered(HOLDER.decode(), 5, Scope.CONSISTENT)

    def react(envelope: list[Any]) -> None:
        if envelope[1] == HOLDER:
            world.answer(envelope, Status.STALE_NAME, {b"kind": b"Unavailable", b"details": {b"applied": 9}})
            world.names["counter"] = Registered(NEXT.decode(), 9, Scope.CONSISTENT)
        else:
            assert envelope[6:] == [b"counter", 9]
            world.answer(envelope, Status.OK)

    world.react = react
    assert await world.ask(op="send", to="counter", topic="t", payload=1) == {"pid": NEXT.decode()}
    assert [envelope[1] for envelope in world.routed] == [HOLDER, NEXT]
    assert world.waited == [(9, 2.0)], "until the names here are as new as those of the node that refused"


async def test_a_name_that_nobody_has_any_more_is_noproc(world: World) -> None:
    world.names["counter"] = Registered(HOLDER.decode(), 5, Scope.CONSISTENT)

    def react(envelope: list[Any]) -> None:
        del world.names["counter"]
        world.answer(envelope, Status.STALE_NAME)

    world.react = react
    assert (await world.ask(op="send", to="counter", topic="t"))["code"] == "noproc"


async def test_a_name_that_stays_stale_is_told_and_sent_no_third_time(world: World) -> None:
    world.names["counter"] = Registered(HOLDER.decode(), 5, Scope.CONSISTENT)
    world.react = lambda envelope: world.answer(envelope, Status.STALE_NAME)
    assert (await world.ask(op="send", to="counter", topic="t"))["code"] == "stale_name"
    assert len(world.routed) == 2


async def test_a_call_returns_the_first_message_that_comes_back(world: World) -> None:
    def react(envelope: list[Any]) -> None:
        world.answer(envelope, Status.OK)
        world.route([int(Kind.MESSAGE), envelope[2], HOLDER, 0, b"count", [3], b"", 0])

    world.react = react
    answer = await world.ask(op="call", to=HOLDER.decode(), topic="get", payload={})
    assert (answer["from"], answer["topic"], answer["payloads"]) == (HOLDER.decode(), "count", [3])


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_call_leaves_no_watcher_with_the_callee(world: World, is_answered: bool) -> None:
    def react(envelope: list[Any]) -> None:
        world.answer(envelope, Status.OK)
        if is_answered and envelope[0] == Kind.MONITOR:
            world.route([int(Kind.MESSAGE), envelope[2], HOLDER, 0, b"count", [3], b"", 0])

    world.react = react
    await world.ask(op="call", to=HOLDER.decode(), topic="get", timeout=3 if is_answered else 0.02)
    await turns(3)
    assert [one[0] for one in world.routed] == [Kind.MESSAGE, Kind.MONITOR, Kind.UNMONITOR]
    assert world.routed[2][1:] == [HOLDER, world.routed[1][2], 0]


async def test_a_call_nobody_answers_ends_at_its_deadline(world: World) -> None:
    world.react = lambda envelope: world.answer(envelope, Status.OK)
    assert (await world.ask(op="call", to=HOLDER.decode(), topic="get", timeout=0.02))["code"] == "timeout"


async def test_a_call_to_a_process_that_fails_ends_with_its_reason(world: World) -> None:
    def react(envelope: list[Any]) -> None:
        world.answer(envelope, Status.OK)
        if envelope[0] == Kind.MONITOR:
            error = {b"kind": b"Internal", b"message": b"app:bad:3: boom"}
            world.route([int(Kind.EXIT), envelope[2], HOLDER, 0, 1, None, error])

    world.react = react
    error = await world.ask(op="call", to=HOLDER.decode(), topic="get", timeout=3)
    assert error["message"] == f"process {HOLDER.decode()} failed before it answered: app:bad:3: boom"


async def test_a_callee_that_returns_may_leave_the_answer_to_another(world: World) -> None:
    def react(envelope: list[Any]) -> None:
        world.answer(envelope, Status.OK)
        if envelope[0] == Kind.MONITOR:
            world.route([int(Kind.EXIT), envelope[2], HOLDER, 0, 1, None, None])
            world.route([int(Kind.MESSAGE), envelope[2], NEXT, 0, b"count", [4], b"", 0])

    world.react = react
    answer = await world.ask(op="call", to=HOLDER.decode(), topic="get", timeout=3)
    assert (answer["from"], answer["payloads"]) == (NEXT.decode(), [4])


async def test_a_function_call_carries_its_deadline(world: World) -> None:
    world.react = lambda envelope: world.answer(envelope, Status.OK, 7)
    assert await world.ask(op="call_function", id="app:total", timeout=2) == 7
    assert world.routed[0][6] == {b"timeout": 2000}


async def test_more_queries_than_may_wait_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "MAX_WAITING", 0)
    assert (await world.ask(op="names"))["code"] == "busy"


async def test_a_query_that_waits_when_the_node_stops_is_told(world: World) -> None:
    asking = asyncio.ensure_future(world.ask(op="call", to=HOLDER.decode(), topic="get"))
    await turns()
    await world.tasks.close()
    assert (await asking)["code"] == "stopping"


async def test_what_the_watch_shows_is_asked_for_with_or_without_the_processes(world: World) -> None:
    await world.ask(op="applied", revision=7, timeout=2.5)
    assert world.waited == [(7, 2.5)]
    await world.ask(op="applied", revision=7, processes=True, timeout=2.5)
    assert world.waited == [(7, 2.5), (7, 2.5), (0, 0.0)], "the VMs come after the watch"


async def test_how_far_the_node_is_with_a_version_is_asked_with_a_deadline(world: World) -> None:
    assert await world.ask(op="converged", version=7, timeout=2.5) == {"applied": 7}
    assert world.waited == [(7, 2.5)]
    for version in (None, -1, True, "7", 1.5):
        error = await world.ask(op="converged", version=version)
        assert (error["kind"], error["code"]) == ("Invalid", "invalid"), version
