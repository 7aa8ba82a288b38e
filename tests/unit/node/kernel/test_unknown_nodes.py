"""Sending to nodes that are not in the cluster: refused at once, never silence."""

from __future__ import annotations

import pytest

from cluster.envelope import Kind
from tests.luaworld import REMOTE, World

NODES = 47
TRY = f"local ok, err = process.send('{REMOTE.decode()}', 'job', 1) return ok or {{ err:kind(), err:retryable() }}"


def left(world: World) -> int:
    return sum(item[0] == Kind.MESSAGE for item in world.out)


def test_a_send_to_a_node_that_is_not_there_is_unavailable(world: World) -> None:
    world.run([NODES, [b"n1", b"n3"]])
    assert world.main(TRY) == [b"Unavailable", True]
    assert left(world) == 0


def test_a_send_to_a_node_that_is_there_leaves(world: World) -> None:
    world.run([NODES, [b"n1", b"n2"]])
    assert world.main(TRY) is True
    assert left(world) == 1


def test_what_was_good_before_is_looked_at_again_when_nodes_change(world: World) -> None:
    world.run([NODES, [b"n1", b"n2"]])
    assert world.main(TRY) is True
    world.run([NODES, [b"n1"]])
    assert world.main(TRY) == [b"Unavailable", True]
    world.run([NODES, [b"n1", b"n2"]])
    assert world.main(TRY) is True


def test_until_the_node_has_told_every_node_is_taken_for_there(world: World) -> None:
    assert world.main(TRY) is True


@pytest.mark.parametrize("nodes", [[], [b"n2"]])
def test_the_own_node_is_always_there(world: World, nodes: list[bytes]) -> None:
    world.run([NODES, nodes])
    assert world.main("return process.send('{n1@app:other|1-2}', 'job', 1)") is True


def test_a_name_held_on_a_node_that_left_is_refused_too(world: World) -> None:
    world.run([NODES, [b"n1"]], [43, b"far", REMOTE, 7])
    assert world.main("local _, err = process.send('far', 'job', 1) return err:kind()") == b"Unavailable"
