"""Hosts: what comes out of a VM is sorted, and nothing leaves of a process that lost what it owned."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.envelope import Kind
from node.deadletters import DeadLetters
from node.host.boundary import Out
from node.hosts import Hosts

OWNER, OTHER = b"{n1@app:processes|1-1}", b"{n1@app:processes|1-2}"
PEER = b"{n2@app:processes|1-1}"


class World:
    """Router, dispatcher, guard and VM in one: keeps what each is told."""

    def __init__(self) -> None:
        self.slot = 1
        self.host_id = "app:processes"
        self.routed: list[list[Any]] = []
        self.taken: list[list[Any]] = []
        self.posted: list[list[Any]] = []
        self.dead_letters = DeadLetters()
        self.guarded: set[bytes] = {OWNER}
        self.held = True
        world: Any = self
        self.hosts = Hosts("n1", 1, world, world, {}, world, self.code, world, world, world, world, set(), world)

    def route(self, envelope: list[Any]) -> None:
        self.routed.append(envelope)

    def take(self, vm: Any, item: list[Any]) -> None:
        self.taken.append(item)

    def post(self, item: list[Any]) -> None:
        self.posted.append(item)

    def may_act(self, pid: bytes) -> bool:
        return self.held

    def runs_for(self, pid: bytes, caller: bytes) -> None:
        self.guarded.add(pid)

    def code(self, entry: str) -> dict[bytes, Any]:
        if entry == "app:gone":
            raise LookupError(f"no entry {entry!r}")
        return {b"id": entry.encode()}

    def out(self, *items: list[Any]) -> None:
        vm: Any = self
        self.hosts._take(vm, list(items))


def message(sender: bytes) -> list[Any]:
    return [int(Kind.MESSAGE), PEER, sender, 0, b"topic", [1], b"", 0]


def call(pid: bytes) -> list[Any]:
    return [int(Out.CALL), 1, pid, b"app:p", b"store", b"set", []]


def cast(pid: bytes) -> list[Any]:
    return [int(Out.CAST), pid, b"app:p", b"events", b"send", []]


EXIT = [int(Kind.EXIT), PEER, OWNER, 0, 1, None, None]
ANSWER = [int(Kind.REPLY), PEER, OWNER, 7, 0, True]


@pytest.fixture
def world() -> World:
    return World()


def test_everything_passes_while_the_lease_holds(world: World) -> None:
    world.out(message(OWNER), call(OWNER), cast(OWNER), EXIT)
    assert world.routed == [message(OWNER), EXIT]
    assert world.taken == [call(OWNER), cast(OWNER)]


def test_what_an_owner_does_after_its_lease_stays_here_but_its_exit_and_answers_go_out(world: World) -> None:
    world.held = False
    world.out(message(OWNER), call(OWNER), cast(OWNER), ANSWER, EXIT)
    assert world.routed == [ANSWER, EXIT]
    assert world.taken == []
    assert world.dead_letters.counts() == {"lease_over": 1}


def test_others_on_the_same_host_are_not_concerned(world: World) -> None:
    world.held = False
    world.out(message(OTHER), call(OTHER), cast(OTHER))
    assert world.routed == [message(OTHER)]
    assert world.taken == [call(OTHER), cast(OTHER)]


def test_code_is_given_or_its_absence_told(world: World) -> None:
    world.out([int(Out.CODE), 5, b"app:p"], [int(Out.CODE), 6, b"app:gone"])
    given, missing = world.posted
    assert given == [40, 5, None, [{b"id": b"app:p"}]]
    assert missing[2][b"kind"] == b"NotFound"


def test_the_end_of_a_process_is_told_to_whoever_asked(world: World) -> None:
    ended: list[tuple[bytes, Any]] = []
    world.hosts.on_ended(lambda pid, error: ended.append((pid, error)))
    world.out([int(Out.ENDED), OTHER, b"app:p", {b"message": b"crash"}], [int(Out.ENDED), OWNER, b"app:p", None])
    assert ended == [(OTHER, {"message": "crash"}), (OWNER, None)]


def test_a_function_is_held_to_what_its_caller_owns_from_the_item_on_that_says_so(world: World) -> None:
    world.held = False
    world.out(message(OTHER), [int(Out.RUNS_FOR), OTHER, OWNER], message(OTHER), call(OTHER))
    assert world.routed == [message(OTHER)]
    assert world.taken == []


def test_a_message_by_name_that_came_back_and_reached_nobody_is_a_dead_letter(world: World) -> None:
    world.out([int(Out.DEAD_LETTER), PEER, OWNER, b"topic", b"counter", b"stale_name_free"])
    (letter,) = world.dead_letters.kept()
    assert (letter.to, letter.sender, letter.topic) == (PEER.decode(), OWNER.decode(), "topic")
    assert (letter.name, letter.reason) == ("counter", "stale_name_free")
