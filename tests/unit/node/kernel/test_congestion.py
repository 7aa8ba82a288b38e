"""Sending to a node that too much waits for: the sender waits, in order, and never for ever."""

from __future__ import annotations

import pytest

from cluster.envelope import Kind
from node.host.boundary import In
from tests.luaworld import REMOTE, World

CONGESTION, NODE_GONE = int(In.CONGESTION), int(In.NODE_GONE)
FULL, ROOM = [CONGESTION, b"n2", True], [CONGESTION, b"n2", False]
SENDER = f"for n = 1, 3 do process.send('{REMOTE.decode()}', 'job', n) end"
TRY = f"local ok, err = process.send('{REMOTE.decode()}', 'job', 1) return ok or {{ err:kind(), tostring(err) }}"


def left(world: World) -> list[int]:
    return [item[5][0] for item in world.out if item[0] == Kind.MESSAGE]


def test_a_sender_waits_until_there_is_room_and_goes_on_in_order(world: World) -> None:
    world.entry("app:sender", f"return {{ main = function() {SENDER} end }}")
    world.run(FULL)
    world.spawn("app:sender")
    assert left(world) == []
    world.run(ROOM)
    assert left(world) == [1, 2, 3]


def test_others_go_on_meanwhile(world: World) -> None:
    world.entry("app:sender", f"return {{ main = function() {SENDER} end }}")
    world.run(FULL)
    world.spawn("app:sender")
    assert world.main("return process.send('{n3@app:processes|5-2a}', 'job', 7)") is True
    assert left(world) == [7]


def test_after_thirty_seconds_the_send_is_unavailable(world: World) -> None:
    world.patience = 40
    world.run(FULL)
    began = world.clock.passed
    kind, text = world.main(TRY)
    assert kind == b"Unavailable"
    assert b"too many messages wait for node n2; it took none for 30 s" in text
    assert 30 <= world.clock.passed - began < 31


def test_a_send_that_cannot_wait_is_refused_at_once(world: World) -> None:
    world.run(FULL)
    began = world.clock.passed
    kind, text = world.main(
        f"local ok, err table.sort({{ 2, 1 }}, function(a, b) "
        f"ok, err = process.send('{REMOTE.decode()}', 'job', 1) return a < b end) "
        "return { err:kind(), tostring(err) }"
    )
    assert (kind, b"can't wait here" in text) == (b"Unavailable", True)
    assert world.clock.passed - began < 1


def test_a_waiting_sender_can_be_killed_and_sends_nothing_afterwards(world: World) -> None:
    world.entry("app:sender", f"return {{ main = function() {SENDER} end }}")
    world.run(FULL)
    pid = world.spawn("app:sender")
    assert world.main(f"return process.terminate('{pid.decode()}')") is True
    world.run(ROOM)
    assert left(world) == []


def test_a_send_by_name_goes_to_whoever_has_the_name_when_there_is_room(world: World) -> None:
    world.entry("app:sender", "return { main = function() process.send('far', 'job', 1) end }")
    world.run([43, b"far", REMOTE, 7], FULL)
    world.spawn("app:sender")
    other = b"{n3@app:processes|6-2a}"
    world.run([43, b"far", other, 9], ROOM)
    assert [(item[1], item[6], item[7]) for item in world.out if item[0] == Kind.MESSAGE] == [(other, b"far", 9)]


@pytest.mark.parametrize("how", ["room", "gone"])
def test_nothing_is_left_behind(world: World, how: str) -> None:
    world.run(FULL)
    world.run([NODE_GONE, b"n2", b"gone"], ROOM) if how == "gone" else world.run(ROOM)
    assert world.main(TRY) is True
