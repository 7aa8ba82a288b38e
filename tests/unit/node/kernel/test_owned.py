"""A process that is owned by its supervisor: it never outlives it, nor the link to it, whatever it traps."""

from __future__ import annotations

from typing import Any

from cluster.envelope import Kind, Watch
from node.host.boundary import In
from tests.luaworld import HOST, World

OWNER = b"{n2@node:supervisor|5-1s}"
OTHER = b"{n2@node:supervisor|5-3k}"
STUBBORN = """
return { main = function()
    process.set_options({ trap_links = true })
    local inbox, events = process.inbox(), process.events()
    while true do
        channel.select({ inbox:case_receive(), events:case_receive() })
    end
end }"""


def owned(world: World, ref: int = 640) -> list[Any]:
    """Ask for a child of OWNER, which lives on another node."""
    return [int(Kind.SPAWN), HOST, OWNER, ref, b"app:child", [], {b"monitor": True, b"owner": True}]


def born(world: World) -> bytes:
    world.entry("app:child", STUBBORN)
    world.run(owned(world))
    reply = world.reply(640)
    assert reply[4] == 0, reply
    pid: bytes = reply[5]
    return pid


def live(world: World) -> list[bytes]:
    return [process[b"pid"] for process in world.query(b"list")]


def exit_of(pid: bytes, watch: Watch) -> list[Any]:
    return [int(Kind.EXIT), pid, OWNER, 0, int(watch), None, None]


def test_it_ends_when_its_owner_has(world: World) -> None:
    pid = born(world)
    out = world.run(exit_of(pid, Watch.OWNER))
    (told,) = [item for item in out if item[0] == Kind.EXIT]
    assert told[1:3] == [OWNER, pid]
    assert told[6] == {b"kind": b"Canceled", b"message": b"its supervisor ended"}
    assert live(world) == []


def test_it_ends_when_the_link_to_its_owner_closes(world: World) -> None:
    born(world)
    world.run([In.NODE_GONE, b"n3", b"gone"])
    assert len(live(world)) == 1, "another node is no matter"
    world.run([In.NODE_GONE, b"n2", b"the link closed"])
    assert live(world) == []


def test_only_its_owner_can_say_so(world: World) -> None:
    pid = born(world)
    world.run([int(Kind.EXIT), pid, OTHER, 0, int(Watch.OWNER), None, None])
    world.run(exit_of(pid, Watch.LINK))
    assert live(world) == [pid]


def test_a_process_without_an_owner_outlives_the_link_of_its_parent(world: World) -> None:
    world.entry("app:child", STUBBORN)
    world.run([int(Kind.SPAWN), HOST, OWNER, 640, b"app:child", [], {b"monitor": True}])
    world.run([In.NODE_GONE, b"n2", b"the link closed"])
    assert len(live(world)) == 1


def test_an_upgrade_changes_no_owner(world: World) -> None:
    world.entry("app:next", STUBBORN)
    world.entry("app:child", "return { main = function() process.upgrade('app:next') end }")
    world.run(owned(world))
    pid = world.reply(640)[5]
    assert live(world) == [pid]
    world.run(exit_of(pid, Watch.OWNER))
    assert live(world) == []


def test_it_does_not_start_when_the_link_closed_while_it_waited_for_code(world: World) -> None:
    """Its code was never used here, so the registry is asked; the link closes before the spawn goes on."""
    world.entry("app:child", STUBBORN)
    world.run(owned(world), until=lambda: world.asked[b"app:child"] == 1)
    world.run([In.NODE_GONE, b"n2", b"the link closed"])
    reply = world.reply(640)
    assert (reply[4], reply[5][b"kind"]) == (1, b"Unavailable")
    assert live(world) == []


def test_it_ends_when_its_node_may_have_lost_its_lease_and_no_other_starts_meanwhile(world: World) -> None:
    """The others may take it for ended by then and start it elsewhere, though the link lives on."""
    pid = born(world)
    world.entry("app:mine", STUBBORN)
    world.run([int(Kind.SPAWN), HOST, OWNER, 641, b"app:mine", [], {b"monitor": True}])
    mine = world.reply(641)[5]
    out = world.run([In.NAMES_IN_DOUBT, True])
    (told,) = [item for item in out if item[0] == Kind.EXIT]
    assert told[1:3] == [OWNER, pid]
    assert b"lease of this node" in told[6][b"message"]
    assert live(world) == [mine], "one that nobody owns lives on"
    world.run(owned(world, 642))
    assert world.reply(642)[5][b"kind"] == b"Unavailable"
    assert world.reply(642)[5][b"details"] == {b"not_now": True}, "which is no failure of the child"
    world.run([In.NAMES_IN_DOUBT, False])
    world.run(owned(world, 643))
    assert world.reply(643)[4] == 0
