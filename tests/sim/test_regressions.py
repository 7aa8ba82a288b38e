"""What the simulation found, each as the few steps that show it."""

from __future__ import annotations

import asyncio

import msgpack

from cluster import frame as wire
from cluster.envelope import Envelope, Kind, Status
from cluster.etcd import Compare, Put
from cluster.frame import Frame
from cluster.link import Action, Closed, Deliver, LinkCore, Publish
from cluster.links import Links
from cluster.members import Member, MemberChange, NodeState
from cluster.names import Names, Scope
from cluster.tasks import Tasks
from tests.sim.bus import Connection, Network
from tests.sim.machine import KEYS, SUBJECTS
from tests.sim.store import Client, Store, Watch
from tests.sim.world import Clocks, ProcessLoop, World

A_EPOCH, B_EPOCH = 10, 20


def envelope(number: int) -> bytes:
    packed: bytes = msgpack.packb([1, b"to", b"from", 0, number], use_bin_type=False)
    return packed


def taken(core: LinkCore, payload: bytes) -> list[Action]:
    frame = wire.read(payload)
    assert isinstance(frame, Frame)
    return core.frame(frame, len(payload), 0.0, 99)


def test_a_pair_of_epochs_that_comes_back_goes_on_with_its_next_session() -> None:
    """A node that registers again under a lease it still has finds its key: the epoch is the same as before.

    Were n to start at 1 again, the peer would take its first frames for ones it has.
    """
    a, b = LinkCore("a", "b"), LinkCore("b", "a")
    a.pair(A_EPOCH, B_EPOCH, "")
    b.pair(B_EPOCH, A_EPOCH, "")
    a.send(envelope(1))
    for payload in a.frames(0.0):
        taken(b, payload)

    assert a.pair(0, B_EPOCH, "can't receive") == [Closed("can't receive")]
    (announced,) = a.pair(A_EPOCH, B_EPOCH, "")

    assert isinstance(announced, Publish)
    assert taken(b, announced.payload)[0] == Closed("node a closed the link")
    a.send(envelope(2))
    (frame,) = a.frames(0.0)
    assert Deliver([[1, b"to", b"from", 0, 2]]) in taken(b, frame)


def test_an_ack_of_a_former_session_says_nothing_about_this_one() -> None:
    """It comes late, and what it counts are other frames."""
    a, b = LinkCore("a", "b"), LinkCore("b", "a")
    a.pair(A_EPOCH, B_EPOCH, "")
    b.pair(B_EPOCH, A_EPOCH, "")
    a.send(envelope(1))
    for payload in a.frames(0.0):
        taken(b, payload)
    (late,) = b.acknowledge()
    assert isinstance(late, Publish)

    a.close("asked to")
    a.send(envelope(2))
    a.frames(0.0)
    taken(a, late.payload)

    assert a.waiting_envelopes == 1


class OnePeer:
    """Node b is registered."""

    applied = 99

    def all(self) -> list[Member]:
        return [Member("b", B_EPOCH, B_EPOCH, 1, 1, NodeState.READY, {}, "", {}, "", "")]

    def on_change(self, handler: MemberChange) -> None:
        pass


def test_what_a_node_takes_while_it_opens_its_links_it_can_answer() -> None:
    """Frames come as soon as the server has the subscription, before this node knows that it has."""
    world = World(1)
    loop = ProcessLoop(world, Clocks(world))
    network = Network(world, unruly=False)
    links = Links(Connection(network, "a", loop), OnePeer(), SUBJECTS, "a", clock=loop.time)  # type: ignore[arg-type]
    answers: list[str] = []

    def answer(node: str, envelopes: list[Envelope]) -> None:
        links.send(node, [int(Kind.REPLY), b"{b@x|1-1}", b"{a@x|1-1}", 7, int(Status.OK), True])
        answers.append(node)

    def ask() -> None:
        b = LinkCore("b", "a")
        b.pair(B_EPOCH, A_EPOCH, "")
        b.send(envelope(1))
        peer = Connection(network, "b", loop)
        for payload in b.frames(loop.time()):
            peer.publish(SUBJECTS.data("a", A_EPOCH, "b"), payload)

    async def opens() -> None:
        async with links:
            links.on_envelopes(answer)
            await links.open(A_EPOCH)
            assert answers == ["b"]

    async def begin() -> None:
        task = loop.create_task(opens())
        loop.call_later(0.0001, ask)
        await task
        ended.append(True)

    ended: list[bool] = []
    try:
        loop.execute(lambda: loop.create_task(begin()))
        world.run(1.0)
    finally:
        world.close()
    assert ended


def test_a_name_whose_key_comes_to_the_store_too_late_is_freed() -> None:
    """A try to create it was given up; another succeeded, and its process gave the name back before the first came."""
    world = World(1)
    loop = ProcessLoop(world, Clocks(world))
    store = Store(world)
    client, watch = Client(store, "a", loop), Watch(store, "a", loop)
    pid, key = "{a@x|1-1}", "/wippy/sim/names/x"

    async def nobody_else(revision: int, timeout: float) -> None:
        """There is no other node."""

    async def story() -> None:
        lease = await client.grant(30)
        names = Names(client, watch, KEYS, Tasks("test"), lambda: lease.id, nobody_else)  # type: ignore[arg-type]
        watch.start()
        await names.register("x", pid, Scope.STRONG, lease.id)
        assert await names.unregister("x", pid, Scope.STRONG)
        store.transact([Compare.absent(key)], [Put(key, f"{pid} STRONG".encode(), lease.id)], ())
        assert key in store.kvs
        await asyncio.sleep(1.0)
        assert key not in store.kvs
        ended.append(True)

    ended: list[bool] = []
    try:
        loop.execute(lambda: loop.create_task(story()))
        world.run(5.0)
    finally:
        world.close()
    assert ended
