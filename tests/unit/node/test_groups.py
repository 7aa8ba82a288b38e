"""Groups of a node: what goes to which node, what is made of what comes, and the limits of a scope."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.envelope import Envelope, pack, to_raw, to_text, unpack
from cluster.errors import MessageTooBig
from cluster.groups import Tell, generation
from cluster.members import Member, NodeState
from cluster.registry import Entry
from cluster.tasks import Tasks
from node.groups import PAGE, Groups, LimitReached, address
from tests.waiting import eventually

SCOPE = "app:g"
P, Q = "{a@app:h|1-1}", "{a@app:h|1-2}"
B1 = "{b@app:h|5-1}"
FROM_B = address("b", 5)


def member(node: str, incarnation: int) -> Member:
    return Member(node, 1, 1, 1, incarnation, NodeState.READY, {}, "", {}, "", "")


class World:
    """The groups of node a, beside b and c; what was sent."""

    def __init__(self, tasks: Tasks) -> None:
        self.sent: list[Envelope] = []
        self.nodes = [member("a", 1), member("b", 5), member("c", 6)]
        self.groups = Groups("a", 1, self.sent.append, lambda: self.nodes, lambda name: None, tasks, max_message=10_000)

    async def open(self, **limits: Any) -> None:
        await self.groups.put(Entry(SCOPE, "pg.scope", {}, limits))
        self.sent.clear()

    @property
    def scope(self) -> Any:
        return self.groups.find(SCOPE)

    def taken(self) -> list[Any]:
        """(to, topic, payloads, place) of what was sent since."""
        sent, self.sent[:] = [to_text([e[1], e[4], e[5], e[6]]) for e in self.sent], []
        return sent

    def hear(self, topic: str, *payloads: Any, sender: bytes = FROM_B) -> bool:
        return self.groups.accept([1, self.groups.address, sender, 0, topic.encode(), to_raw(list(payloads)), b"", 0])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Tasks("groups") as tasks:
        yield World(tasks)


TO_B, TO_C = FROM_B.decode(), address("c", 6).decode()
LIFE = generation(5, 1)


async def test_a_scope_that_opens_asks_and_tells_every_node(world: World) -> None:
    await world.groups.put(Entry(SCOPE, "pg.scope"))
    sent = world.taken()
    assert [(to, topic) for to, topic, _, _ in sent] == [
        (TO_B, "@pg/ask"), (TO_B, "@pg/state"), (TO_C, "@pg/ask"), (TO_C, "@pg/state"),
    ]  # fmt: skip
    assert sent[1][2] == [SCOPE, generation(1, 1), 0, 1, 1, []]


async def test_a_change_is_told_to_every_node(world: World) -> None:
    await world.open()
    world.groups.join(world.scope, P, ["w", "w"])
    changes = [SCOPE, generation(1, 1), 1, [["w", P, 2]]]
    assert world.taken() == [[TO_B, "@pg/changes", changes, ""], [TO_C, "@pg/changes", changes, ""]]
    world.groups.process_ended(P.encode())
    assert [one[2][3] for one in world.taken()] == [[["w", P, 0]]] * 2


async def test_a_broadcast_is_one_message_to_each_node_with_members_and_one_to_each_member_here(world: World) -> None:
    await world.open()
    world.groups.join(world.scope, P, ["w", "w"])
    world.groups.join(world.scope, Q, ["w"])
    world.hear("@pg/state", SCOPE, LIFE, 1, 1, 1, [["w", B1, 1], ["w", B1 + "x", 1]])
    world.taken()
    world.groups.broadcast(world.scope, "w", P.encode(), b"job", [1, 2])
    assert world.taken() == [
        [TO_B, "job", [1, 2], f"{SCOPE} w"],
        [P, "job", [1, 2], ""],
        [Q, "job", [1, 2], ""],
    ]
    with pytest.raises(MessageTooBig):
        world.groups.broadcast(world.scope, "w", P.encode(), b"job", [b"x" * 10_001])
    assert world.taken() == []


async def test_a_broadcast_from_elsewhere_is_spread_among_the_members_here(world: World) -> None:
    await world.open()
    world.groups.join(world.scope, P, ["w"])
    world.taken()
    envelope: Envelope = [1, world.groups.address, B1.encode(), 0, b"job", [7], b"app:g w", 0]
    assert world.groups.accept(envelope)
    assert world.sent == [[1, P.encode(), B1.encode(), 0, b"job", [7], b"", 0]]


@pytest.mark.parametrize("place", [b"", b"app:g", b"app:none w"])
async def test_a_message_for_no_group_is_for_nobody(world: World, place: bytes) -> None:
    await world.open()
    assert not world.groups.accept([1, world.groups.address, B1.encode(), 0, b"job", [7], place, 0])


async def test_a_long_state_goes_in_pages_and_is_put_together(world: World) -> None:
    await world.open()
    for number in range(PAGE + 5):
        world.groups.join(world.scope, f"{{a@app:h|1-{number}}}", ["w"])
    world.taken()
    world.hear("@pg/ask", SCOPE)
    pages = [payloads for _, topic, payloads, _ in world.taken() if topic == "@pg/state"]
    assert [(page[3], page[4], len(page[5])) for page in pages] == [(1, 2, PAGE), (2, 2, 5)]
    told: list[Tell] = []
    world.groups.watch(world.scope, told.append)
    world.hear("@pg/state", SCOPE, LIFE, 3, 1, 2, [["v", B1, 1]])
    assert told == []
    world.hear("@pg/state", SCOPE, LIFE, 3, 2, 2, [["v", B1 + "x", 2]])
    assert told == [Tell(True, "v", (B1, B1 + "x", B1 + "x"))]


async def test_a_node_that_comes_is_asked_and_one_that_leaves_is_forgotten(world: World) -> None:
    await world.open()
    world.hear("@pg/state", SCOPE, LIFE, 1, 1, 1, [["w", B1, 1]])
    b = world.nodes.pop(1)
    world.groups.member_changed(b, None)
    assert world.scope.core.members("w") == []
    world.nodes.append(b)
    world.groups.member_changed(None, b)
    assert world.taken() == [], "not before the links have heard of it"
    await asyncio.sleep(0)
    assert [(to, topic) for to, topic, _, _ in world.taken()] == [(TO_B, "@pg/ask")]


async def test_a_closed_link_is_followed_by_a_question(world: World) -> None:
    await world.open()
    world.hear("@pg/state", SCOPE, LIFE, 1, 1, 1, [["w", B1, 1]])
    world.groups.link_closed("b", "timeout")
    world.groups.link_closed("z", "gone")
    await asyncio.sleep(0)
    assert [(to, topic) for to, topic, _, _ in world.taken()] == [(TO_B, "@pg/ask")]
    assert world.scope.core.members("w") == [B1], "its registration has not ended"


@pytest.mark.parametrize(
    ("topic", "payloads"),
    [
        ("@pg/changes", [SCOPE]),
        ("@pg/changes", [SCOPE, LIFE, 1, [["w"]]]),
        ("@pg/state", [SCOPE, LIFE, 1, 1, 1, [[1, 2, 3]]]),
        ("@pg/digest", [SCOPE, "x", None]),
        ("@pg/none", [SCOPE]),
        ("@other", []),
    ],
)
async def test_what_can_not_be_read_changes_nothing(world: World, topic: str, payloads: list[Any]) -> None:
    await world.open()
    assert not world.hear(topic, *payloads)
    assert world.scope.core.groups() == []


async def test_words_about_a_scope_that_is_not_open_here_are_no_error(world: World) -> None:
    assert world.hear("@pg/state", "app:other", LIFE, 1, 1, 1, [])


async def test_the_limits_of_a_scope_hold_and_change_in_place(world: World) -> None:
    await world.open(max_groups=1, max_members_per_group=2)
    world.groups.join(world.scope, P, ["w"])
    with pytest.raises(LimitReached, match="max_groups"):
        world.groups.join(world.scope, P, ["w", "v"])
    with pytest.raises(LimitReached, match="max_members_per_group"):
        world.groups.join(world.scope, P, ["w", "w"])
    assert world.scope.core.size("w") == 1
    await world.open(max_groups=2)
    world.groups.join(world.scope, P, ["w", "w", "v"])
    assert world.scope.core.groups() == ["v", "w"]


async def test_digests_go_round(world: World) -> None:
    await world.open(anti_entropy_interval="10ms")
    for _ in range(300):
        if world.sent:
            break
        await asyncio.sleep(0.01)
    assert [(to, topic) for to, topic, _, _ in world.taken()][:2] == [(TO_B, "@pg/digest"), (TO_C, "@pg/digest")]


async def test_a_removed_scope_is_gone_and_one_that_returns_begins_a_new_life(world: World) -> None:
    await world.open()
    world.groups.join(world.scope, P, ["w"])
    await world.groups.remove(SCOPE)
    assert world.scope is None
    await world.open()
    assert world.scope.core.groups() == []
    assert world.scope.core.own.generation == generation(1, 2)


class TestMoves:
    """A member of this node leaves for b, or comes from there."""

    @pytest.fixture
    async def moving(self, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
        monkeypatch.setattr("node.groups.HANDED_POLL", 0.01)
        monkeypatch.setattr("node.groups.HANDED_AFTER", 0.05)
        await world.open()
        world.groups.join(world.scope, P, ["w", "w"])
        world.groups.join(world.scope, Q, ["w"])
        world.taken()
        return world

    def cast(self, world: World, heard: int) -> list[str]:
        """Who gets a broadcast of b, which has heard this node so far."""
        assert world.groups.accept([1, world.groups.address, B1.encode(), 0, b"job", [7], b"app:g w", heard])
        return [to for to, _, _, _ in world.taken()]

    async def test_a_frozen_member_is_announced_apart(self, moving: World) -> None:
        assert moving.groups.memberships(P) == [[SCOPE, {"w": 2}]]
        changes = [SCOPE, generation(1, 1), 3, [["w", P, 2, True]]]
        assert moving.taken() == [[TO_B, "@pg/changes", changes, ""], [TO_C, "@pg/changes", changes, ""]]
        moving.hear("@pg/ask", SCOPE)
        assert moving.taken()[0][2][5] == [["w", P, 2, True], ["w", Q, 1]]
        assert moving.groups.memberships("{a@app:h|1-9}") == []

    async def test_whoever_had_not_heard_of_it_reaches_it_by_this_node(self, moving: World) -> None:
        moving.groups.memberships(P)
        moving.taken()
        assert self.cast(moving, 2) == [P, Q]
        assert self.cast(moving, 3) == [Q]
        moving.groups.left(P)
        assert self.cast(moving, 2) == [P, Q]

    async def test_one_apart_is_sent_to_by_whoever_broadcasts(self, moving: World) -> None:
        moving.groups.memberships(P)
        moving.hear("@pg/state", SCOPE, LIFE, 4, 1, 1, [["w", B1, 1, True], ["w", P, 2, True]])
        moving.taken()
        moving.groups.broadcast(moving.scope, "w", Q.encode(), b"job", [1])
        assert [to for to, _, _, _ in moving.taken()] == [Q, P, B1], "b spreads to nobody, and P is one"

    async def test_what_the_other_node_still_spreads_to_is_left_to_it(self, moving: World) -> None:
        moving.hear("@pg/state", SCOPE, LIFE, 4, 1, 1, [["w", B1, 1]])
        moving.groups.rejoin(B1, [[SCOPE, {"w": 1}]])
        moving.taken()
        moving.groups.broadcast(moving.scope, "w", Q.encode(), b"job", [1])
        assert [to for to, _, _, _ in moving.taken()] == [TO_B, P, Q]
        assert moving.sent == []
        moving.hear("@pg/changes", SCOPE, LIFE, 5, [["w", B1, 1, True]])
        moving.groups.broadcast(moving.scope, "w", Q.encode(), b"job", [1])
        assert [to for to, _, _, _ in moving.taken()] == [P, Q, B1]

    async def test_it_is_announced_until_the_other_node_does(self, moving: World) -> None:
        told: list[Tell] = []
        moving.groups.watch(moving.scope, told.append)
        moving.groups.memberships(P)
        moving.groups.left(P)
        assert moving.scope.core.local_members("w") == [Q]
        assert moving.scope.core.members("w") == [P, Q]
        moving.hear("@pg/state", SCOPE, LIFE, 1, 1, 1, [["w", P, 2, True]])
        moving.taken()
        await eventually(lambda: moving.sent != [])
        assert [one[2][3] for one in moving.taken()] == [[["w", P, 0, True]]] * 2
        assert (moving.scope.core.members("w"), told) == ([P, Q], [])

    async def test_it_is_left_when_no_other_node_announces_it(
        self, moving: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("node.groups.HANDED_WITHIN", 0.1)
        moving.groups.left(P)
        assert moving.scope.core.members("w") == [P, Q]
        await eventually(lambda: moving.scope.core.members("w") == [Q])

    async def test_one_that_comes_back_is_not_left(self, moving: World) -> None:
        moving.groups.memberships(P)
        moving.groups.left(P)
        moving.hear("@pg/state", SCOPE, LIFE, 1, 1, 1, [["w", P, 2, True]])
        moving.groups.rejoin(P, [[SCOPE, {"v": 1}]])
        assert moving.scope.core.local_groups() == ["v", "w"]
        moving.hear("@pg/changes", SCOPE, LIFE, 2, [["w", P, 0, True]])
        await asyncio.sleep(0.1)
        assert (moving.scope.core.members("v"), moving.scope.core.members("w")) == ([P], [Q])

    async def test_what_is_packed_on_one_node_is_unpacked_on_the_other(self, moving: World) -> None:
        packed = unpack(pack(to_raw([moving.groups.memberships(P)])))[0]
        async with Tasks("target") as tasks:
            target = Groups("b", 5, moving.sent.append, lambda: moving.nodes, lambda name: None, tasks)
            await target.put(Entry(SCOPE, "pg.scope", {}, {"max_members_per_group": 1, "max_groups": 0}))
            target.rejoin(P, packed)
            scope = target.find(SCOPE)
            assert scope is not None
            assert (scope.core.local_members("w"), scope.core.size("w")) == ([P], 2)
            target.process_ended(P.encode())
            assert scope.core.members("w") == []
            target.rejoin(P, unpack(pack([])))
            assert scope.core.groups() == []
