"""A process that fails leaves a trace: with whoever watches it, else in the log."""

from __future__ import annotations

from typing import Any

from node.host.boundary import Out
from tests.luaworld import World


def told(world: World) -> list[Any]:
    return [item[4:] for item in world.out if item[0] == Out.CAST and item[4] == b"warn"]


def test_a_failure_nobody_watches_is_logged_with_its_reason(world: World) -> None:
    world.entry("app:bad", "return { main = function() error('boom') end }")
    world.main("process.spawn('app:bad', 'app:processes') return 1")
    world.run()
    ((_, arguments),) = told(world)
    assert arguments[0] == b"process failed"
    assert b"app:bad:1: boom" in arguments[1][b"error"]


def test_a_failure_that_is_watched_is_the_watchers(world: World) -> None:
    world.entry("app:bad", "return { main = function() error('boom') end }")
    world.main("process.spawn_monitored('app:bad', 'app:processes') process.events():receive() return 1")
    assert told(world) == []


def test_a_good_end_is_not_logged(world: World) -> None:
    world.entry("app:good", "return { main = function() return 1 end }")
    world.main("process.spawn('app:good', 'app:processes') return 1")
    assert told(world) == []
